"""`falx calibrate ct|mr`: answers for labelled local studies in; the same weights, calibrated for the site, out."""

from __future__ import annotations

from pathlib import Path

from inference.training.recalibration import recalibrated
from inference.weights import Metadata, load_weights, save_model
from node.errors import Misconfigured, Rejected
from node.model_evaluation import Run


def calibrate(run: Run, parent: Path, out: Path, *, version: str, prevalence: float | None) -> Metadata:
    """Write the model folder ``out``: the weights of ``parent``, calibrated on the studies of ``run``.

    Raises
    ------
    Rejected
        When the studies are too few, or the model ranks them no better than chance.
    Misconfigured
        When ``out`` is the folder of the model itself.
    """
    if out.resolve() == parent.resolve():
        raise Misconfigured(f"--out {out} is the model's own folder; name a new one")
    answered = [(case.probability, case.label) for case in run.cases if case.probability is not None]
    metadata, tensors = load_weights(parent)
    try:
        found = recalibrated(
            metadata,
            [probability for probability, _ in answered],
            [float(label) for _, label in answered],
            version=version,
            data_sha256=run.data_sha256,
            prevalence=prevalence,
        )
    except ValueError as error:
        raise Rejected("cannot_calibrate", str(error)) from error
    return save_model(out, tensors, found)
