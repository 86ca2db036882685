"""From studies to an MR model folder: train, calibrate, choose operating points, measure what input it may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.abnormality import contrast_figures
from inference.abnormality_net import OUTPUTS, network_of
from inference.calibration import (
    Calibration,
    expected_calibration_error,
)
from inference.mr_input import OUTSIDE
from inference.training.loop import LoopSettings, Trainer
from inference.training.operating_points import alert_and_triage, calibrated
from inference.training.records import RunRecord, now
from inference.training.train_mr import MrRecipe, Source
from inference.weights import Metadata, OperatingPoint, load_weights, save_model

PURPOSE = "mr_abnormality"
SYNTHETIC_USE = (
    "Research only. Puts adult axial T2-weighted head MRI in order of suspicion of any abnormality. Trained on "
    "synthetic heads alone; thresholds chosen on synthetic heads; recalibrate on local studies before relying on any "
    "number."
)
LOCAL_USE = "Research only. Puts adult axial T2-weighted head MRI in order of suspicion. Trained on local studies."


def fit_mr(
    training: Sequence[Source],
    validation: Sequence[Source],
    out: Path,
    *,
    record: RunRecord,
    version: str,
    settings: LoopSettings | None = None,
    width: int = 16,
    start: Path | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    show_progress: bool = True,
    repeats: int = 1,
    loaders: int = 0,
) -> Metadata:
    """Train in ``out`` and write the model there.

    Parameters
    ----------
    training, validation
        Studies of different patients.
    record
        Describes data and seed; its history and end are filled in.
    start
        Model folder whose weights training starts from (its architecture is kept); None starts from nothing.
    resume
        Go on from the checkpoint in ``out``.
    repeats
        Looks at each study in an epoch; synthetic ones differ each time.
    loaders
        Processes that draw batches beside the training; what is drawn does not depend on them.

    Returns
    -------
    Metadata
        Of the model written: ``model.safetensors``, ``metadata.json``, ``run.json``, ``curves.png``.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = settings or LoopSettings(seed=record.seed)
    torch.manual_seed(settings.seed)
    architecture: dict[str, object] = {"width": width, "features": 64, "mirror": True}
    limits: Mapping[str, Sequence[float]] = {}
    network = network_of(architecture)
    if start is not None:
        parent, tensors = load_weights(start)
        architecture = dict(parent.architecture)
        network = network_of(architecture)
        network.load_state_dict(tensors)
        limits = parent.architecture.get("limits", {})
    recipe = MrRecipe(
        network, training, validation, seed=settings.seed, studies_per_batch=5, repeats=repeats, loaders=loaders
    )
    trainer = Trainer(recipe, out, settings, device)
    fitted = trainer.run(resume=resume, show_progress=show_progress)
    network.load_state_dict(fitted.weights)
    record = replace(record, settings=asdict(settings), history=fitted.history, finished=now())
    architecture["limits"] = input_limits([*validation, *training[: len(validation)]], limits)
    metadata = finish(recipe, out, record=record, version=version, architecture=architecture, device=device)
    record.write(out)
    return metadata


def finish(
    recipe: MrRecipe,
    out: Path,
    *,
    record: RunRecord,
    version: str,
    architecture: Mapping[str, object],
    device: torch.device,
) -> Metadata:
    """Calibrate on the validation studies, choose the operating points there, and write the model folder."""
    recipe.network.eval()
    with torch.inference_mode():
        logits, labels, _, _ = recipe.predict(device)
    known = ~np.isnan(labels[:, 0])
    score, truth = logits[known, 0].astype(np.float64), labels[known, 0].astype(np.float64)
    calibration = calibrated(score, truth)
    points, measured = _operating_points(calibration, score, truth)
    training = record.summary() | {"validation": measured}
    metadata = Metadata(
        name="falx-mr-abnormality",
        version=version,
        purpose=PURPOSE,
        architecture=architecture,
        operating_points=points,
        default_operating_point="alert",
        calibration=calibration,
        training=training,
        intended_use=SYNTHETIC_USE if record.synthetic else LOCAL_USE,
    )
    return save_model(out, recipe.network.state_dict(), metadata)


def _operating_points(
    calibration: Calibration, score: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]
) -> tuple[dict[str, OperatingPoint], dict[str, object]]:
    p = calibration.probability(score)
    measured: dict[str, object] = {
        "studies": len(truth),
        "abnormal": int(truth.sum()),
        "calibration_error": expected_calibration_error(p, truth),
        "labels": list(OUTPUTS),
    }
    return alert_and_triage(p, truth), measured


def input_limits(sources: Sequence[Source], known: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """Range of each contrast figure over the studies, widened by a tenth on either side, united with ``known``."""
    found: dict[str, list[float]] = {}
    for index, source in enumerate(sources):
        sample = source(np.random.default_rng([77, index]))
        inside = sample.image > OUTSIDE + 1e-6
        for name, value in contrast_figures(sample.image, inside, sample.step_mm).items():
            found.setdefault(name, []).append(value)
    limits = {}
    for name, values in found.items():
        margin = 0.1 * (max(values) - min(values))
        old = known.get(name, (np.inf, -np.inf))
        limits[name] = (min(min(values) - margin, old[0]), max(max(values) + margin, old[1]))
    return limits
