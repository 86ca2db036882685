"""From prepared head CTs to a model folder: both stages, calibration, operating points, and the run record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from inference.calibration import (
    Calibration,
    expected_calibration_error,
    fit_platt,
)
from inference.haemorrhage import read
from inference.haemorrhage_net import OUTPUTS, HaemorrhageNetwork, network_of
from inference.training.ct_cache import PreparedStudy
from inference.training.ct_widen import widened
from inference.training.evaluation import auc
from inference.training.operating_points import alert_and_triage, calibrated
from inference.training.records import RunRecord, now
from inference.training.train_ct import (
    CtSettings,
    Progress,
    architecture,
    settings_record,
    study_features,
    train_slices,
    train_study,
)
from inference.weights import Metadata, load_weights, save_model

PURPOSE = "ct_haemorrhage"
SYNTHETIC_USE = (
    "Research only. Points out adult non-contrast head CT with suspected intracranial haemorrhage. Trained on "
    "synthetic heads alone; thresholds chosen on synthetic heads; recalibrate on local studies before relying on"
    " any number."
)
LOCAL_USE = "Research only. Points out adult non-contrast head CT with suspected haemorrhage. Trained on local studies."
SHAPE = ("width", "features", "hidden", "mirror")
VARIANTS = 3

Array = npt.NDArray[np.float64]


def fit_ct(
    training: Sequence[PreparedStudy],
    validation: Sequence[PreparedStudy],
    out: Path,
    *,
    record: RunRecord,
    version: str,
    image_level: Sequence[PreparedStudy] = (),
    settings: CtSettings | None = None,
    start: Path | None = None,
    resume: bool = False,
    show_progress: bool = True,
) -> Metadata:
    """Train in ``out`` and write the model there.

    Parameters
    ----------
    training, validation
        Studies of different patients with study labels; their slice labels are not used. No training studies: the
        attention BiLSTM of ``start`` is kept.
    image_level
        Studies with slice labels (and blood masks where known) for stage 1, best of yet other patients. Empty: the
        encoder of ``start`` is kept, and only the attention BiLSTM learns, as a hospital with report labels does.
    start
        Model folder whose weights training starts from; with twice its width in ``settings``, its encoder is widened.
    resume
        Go on from the checkpoint in ``out``.

    Returns
    -------
    Metadata
        Of the model written: ``model.safetensors``, ``metadata.json``, ``run.json``, ``curves.png``.

    Raises
    ------
    ValueError
        When a stage has no studies and there is no model to start from.
    """
    settings = settings or CtSettings(seed=record.seed)
    torch.manual_seed(settings.seed)
    network, shape = _network(settings, start)
    if start is None and not (image_level and training):
        raise ValueError("without a model to start from, studies with slice labels and others with labels are needed")
    checkpoint = out / "slices.pt"
    if not resume:
        checkpoint.unlink(missing_ok=True)
    with _bar(show_progress) as bar:
        tasks = {name: bar.add_task(name, total=None) for name in ("slices", "study")}

        def progress(stage: str, done: int, total: int, loss: float) -> None:
            bar.update(tasks[stage], completed=done, total=total, description=f"{stage} loss {loss:.3f}")

        curve = train_slices(network, image_level, settings, checkpoint, progress) if image_level else []
        study_curve = _second_stage(network, training, settings, progress) if training else []
        network.cpu()
    history = [{"epoch": float(i + 1), "slice_loss": v} for i, v in enumerate(curve)]
    history += [{"epoch": float(len(curve) + i + 1), "study_loss": v} for i, v in enumerate(study_curve)]
    record = replace(record, settings=settings_record(settings), history=history, finished=now())
    metadata = finish_ct(network, validation, out, record=record, version=version, shape=shape)
    record.write(out)
    return metadata


def _network(settings: CtSettings, start: Path | None) -> tuple[HaemorrhageNetwork, dict[str, object]]:
    if start is None:
        shape = architecture(settings)
        return network_of(shape), shape
    parent, tensors = load_weights(start)
    network = network_of(parent.architecture)
    network.load_state_dict(tensors)
    shape = {name: value for name, value in parent.architecture.items() if name in SHAPE}
    if settings.width == 2 * int(parent.architecture["width"]):
        return widened(network, settings.seed), shape | {"width": settings.width, "mirror": True}
    return network, shape


def _second_stage(
    network: HaemorrhageNetwork, training: Sequence[PreparedStudy], settings: CtSettings, progress: Progress
) -> list[float]:
    """The attention BiLSTM from study labels, on the features of a few looks at each study."""
    rng, device = np.random.default_rng([settings.seed, 73]), torch.device(settings.device)
    network.encoder.to(device)
    features = [
        [study_features(network, study, device, rng if variant else None)[0] for variant in range(VARIANTS)]
        for study in training
    ]
    network.cpu()
    return train_study(network, features, np.stack([s.labels for s in training]), settings, progress)


def _bar(show: bool) -> Bar:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), disable=not show)


def finish_ct(
    network: HaemorrhageNetwork,
    validation: Sequence[PreparedStudy],
    out: Path,
    *,
    record: RunRecord,
    version: str,
    shape: Mapping[str, object],
) -> Metadata:
    """Calibrate on the validation studies, choose the operating points there, and write the model folder."""
    logits, labels, slice_logits, slice_labels = predict(network, validation)
    known = ~np.isnan(labels[:, 0])
    score, truth = logits[known, 0], labels[known, 0]
    calibration = calibrated(score, truth)
    p = calibration.probability(score)
    points = alert_and_triage(p, truth)
    seen = ~np.isnan(slice_labels)
    extra: dict[str, object] = {"kind_calibration": _kind_calibration(logits, labels)}
    measured: dict[str, object] = {
        "studies": len(truth),
        "positive": int(truth.sum()),
        "auc": auc(truth, score),
        "calibration_error": expected_calibration_error(p, truth),
    }
    if 0 < slice_labels[seen].sum() < seen.sum():
        fit = fit_platt(slice_logits[seen], slice_labels[seen], "slices")
        extra["slice_calibration"] = (fit.slope, fit.intercept)
        measured["slice_auc"] = auc(slice_labels[seen], slice_logits[seen])
    metadata = Metadata(
        name="falx-ct-haemorrhage",
        version=version,
        purpose=PURPOSE,
        architecture=dict(shape) | extra,
        operating_points=points,
        default_operating_point="alert",
        calibration=calibration,
        training=record.summary() | {"validation": measured},
        intended_use=SYNTHETIC_USE if record.synthetic else LOCAL_USE,
    )
    return save_model(out, network.state_dict(), metadata)


def predict(network: HaemorrhageNetwork, studies: Sequence[PreparedStudy]) -> tuple[Array, Array, Array, Array]:
    """Study logits and labels ``[n, 6]``; logits and labels of every slice for any haemorrhage, studies chained."""
    network.eval()
    readings = [read(network, s.hu.astype(np.float32), s.mask, torch.device("cpu")) for s in studies]
    return (
        np.stack([r.logits for r in readings]),
        np.stack([s.labels for s in studies]).astype(np.float64),
        np.concatenate([r.slice_logits[:, 0] for r in readings]),
        np.concatenate([s.slice_labels[:, 0] for s in studies]).astype(np.float64),
    )


def _kind_calibration(logits: Array, labels: Array) -> list[tuple[float, float]]:
    """Slope and intercept per kind; the identity where the validation set has too few of a kind."""
    fits = []
    for number in range(1, OUTPUTS):
        known = ~np.isnan(labels[:, number])
        truth = labels[known, number]
        enough = min(truth.sum(), len(truth) - truth.sum()) >= 5
        fit = fit_platt(logits[known, number], truth, "kind") if enough else Calibration()
        fits.append((fit.slope, fit.intercept))
    return fits
