"""Calibration and operating points of an image model, from what it says of labelled studies."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from inference.calibration import Calibration, fit_platt, threshold_for_ppv, threshold_for_sensitivity
from inference.weights import OperatingPoint

Array = npt.NDArray[np.float64]
ALERT_PPV, TRIAGE_SENSITIVITY, PREVALENCE = 0.90, 0.95, 0.3


def calibrated(logits: Array, truth: Array) -> Calibration:
    """Platt's calibration; its identifier pins what it was fitted on."""
    digest = hashlib.sha256(np.concatenate([logits, truth]).tobytes()).hexdigest()
    return fit_platt(logits, truth, f"platt-{len(truth)}-{digest[:8]}")


def alert_and_triage(probabilities: Array, truth: Array) -> dict[str, OperatingPoint]:
    """The two points every image model has: ``alert`` by PPV at a prevalence of 30 %, ``triage`` by sensitivity."""
    return {
        "alert": at_ppv(probabilities, truth, ALERT_PPV, PREVALENCE),
        "triage": at_sensitivity(probabilities, truth, TRIAGE_SENSITIVITY, PREVALENCE),
    }


def at_ppv(probabilities: Array, truth: Array, target: float, prevalence: float) -> OperatingPoint:
    """The point of highest sensitivity that reaches a PPV at a prevalence; its target is kept with what it achieves."""
    threshold, measured = threshold_for_ppv(probabilities, truth, target=target, prevalence=prevalence)
    return OperatingPoint(threshold=threshold, measured={"target_ppv": target} | measured)


def at_sensitivity(probabilities: Array, truth: Array, target: float, prevalence: float) -> OperatingPoint:
    """The highest threshold that reaches a sensitivity; its target is kept with what it achieves."""
    threshold, measured = threshold_for_sensitivity(probabilities, truth, target=target, prevalence=prevalence)
    return OperatingPoint(threshold=threshold, measured={"target_sensitivity": target} | measured)
