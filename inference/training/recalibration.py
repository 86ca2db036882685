"""A model made fit for a site without training it: the same weights, calibration and thresholds from its own studies.

What a model ranks carries over to another hospital better than what it states; two numbers of calibration and a
threshold need far fewer studies than training does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from inference.calibration import Calibration, expected_calibration_error, rates_at
from inference.training.evaluation import auc
from inference.training.operating_points import at_ppv, at_sensitivity, calibrated
from inference.training.records import now, package_versions, source_commit
from inference.weights import Metadata, OperatingPoint

Array = npt.NDArray[np.float64]
SINCE = " Since then recalibrated: its probability and thresholds come from "
MIN_OF_EACH = 10  # positive and negative studies; fewer leave even the intercept to chance


def recalibrated(
    parent: Metadata,
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    version: str,
    data_sha256: str,
    prevalence: float | None = None,
) -> Metadata:
    """Fit calibration and operating points of ``parent`` anew on studies it has answered.

    Parameters
    ----------
    probabilities, labels
        ``[studies]``: what the model stated, and the truth (0 or 1).
    prevalence
        At which the operating points are to reach their PPV; None: those stored.

    Returns
    -------
    Metadata
        For the same weights. An operating point keeps its target (PPV or sensitivity); one without a target keeps its
        decisions. Slices and kinds keep their calibration. ``training["recalibration"]`` is the record.

    Raises
    ------
    ValueError
        When there are fewer than ten studies of a class, or the model ranks these studies no better than chance.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    positive, negative = int(y.sum()), int(len(y) - y.sum())
    if min(positive, negative) < MIN_OF_EACH:
        raise ValueError(
            f"{positive} positive and {negative} negative studies were answered; {MIN_OF_EACH} of each are needed"
        )
    fit = calibrated(_logit(p), y)
    if fit.slope <= 0:
        raise ValueError(f"the model ranks these studies no better than chance (AUC {auc(y, p):.2f}): train it instead")
    old = parent.calibration
    combined = replace(fit, slope=fit.slope * old.slope, intercept=fit.slope * old.intercept + fit.intercept)
    stated = fit.probability(_logit(p))
    record = {
        "studies": len(y),
        "positive": positive,
        "auc": auc(y, p),
        "mean_probability_before": float(p.mean()),
        "mean_probability": float(stated.mean()),
        "calibration_error_before": expected_calibration_error(p, y),
        "calibration_error": expected_calibration_error(stated, y),
        "data_sha256": data_sha256,
        "finished": now(),
        "commit": source_commit(),
        "versions": package_versions(),
    }
    return replace(
        parent,
        version=version,
        calibration=combined,
        operating_points={
            name: _chosen_anew(point, fit, stated, y, prevalence) for name, point in parent.operating_points.items()
        },
        training=dict(parent.training) | {"recalibration": record},
        intended_use=f"{parent.intended_use.split(SINCE)[0]}{SINCE}{len(y)} local studies.",
    )


def _chosen_anew(
    point: OperatingPoint, fit: Calibration, stated: Array, labels: Array, prevalence: float | None
) -> OperatingPoint:
    at = prevalence if prevalence is not None else float(point.measured.get("prevalence", labels.mean()))
    if "target_ppv" in point.measured:
        return at_ppv(stated, labels, point.measured["target_ppv"], at)
    if "target_sensitivity" in point.measured:
        return at_sensitivity(stated, labels, point.measured["target_sensitivity"], at)
    threshold = float(fit.probability(_logit(np.array(point.threshold))))
    return OperatingPoint(threshold=threshold, measured=rates_at(stated, labels, threshold, prevalence=at))


def _logit(probability: Array) -> Array:
    inside = np.clip(probability, 1e-9, 1 - 1e-9)
    return np.log(inside / (1 - inside))
