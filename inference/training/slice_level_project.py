"""A slice-level model from a ranking project: its classes and its scale, patients kept apart in training and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.slice_level import FIELD_MM, LEVEL_UNIT_MM, prepare
from inference.training.slice_level_data import SliceExamples
from inference.training.train_slices import Say, accuracy, save, train

TEST_SHARE = 0.2
MIN_SLICES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSlices:
    """Slices of a project with what the raters made of them; one entry a slice."""

    pictures: list[npt.NDArray[np.int16]]
    is_ct: list[bool]
    aspect: list[float]
    labels: list[int]
    scores: list[float]
    groups: list[str]
    classes: tuple[str, ...]


def train_project(
    folder: Path, slices: LabelledSlices, *, name: str, epochs: int, seed: int, say: Say
) -> dict[str, object]:
    """Train, test on patients held out, write the model folder; raise ValueError when there is too little to learn."""
    if len(slices.labels) < MIN_SLICES or len(set(slices.labels)) < 2:
        raise ValueError(
            f"{len(slices.labels)} certain slices in {len(set(slices.labels))} classes are too few to train on"
        )
    everything = _examples(slices)
    held_out = _held_out(slices.groups, seed)
    network = train(_pick(everything, ~held_out), len(slices.classes), epochs=epochs, seed=seed, say=say)
    right, error = accuracy(network, _pick(everything, held_out))
    record: dict[str, object] = {
        "synthetic": False,
        "project": name,
        "slices": int((~held_out).sum()),
        "test_slices": int(held_out.sum()),
        "patients_kept_apart": len(set(slices.groups)) > 1,
        "test": {"accuracy": round(right, 4), "scale_error": round(error / LEVEL_UNIT_MM, 3)},
        "seed": seed,
        "epochs": epochs,
    }
    say(f"held-out slices: {right:.3f} of the classes right, {error / LEVEL_UNIT_MM:.2f} off on the scale")
    save(folder, network, slices.classes, f"slices-{name}", record, "1.0.0")
    return record


def _examples(slices: LabelledSlices) -> SliceExamples:
    """The picture's longer side is taken as 230 mm: a project keeps no spacing, only the aspect."""
    pictures = []
    for values, is_ct, aspect in zip(slices.pictures, slices.is_ct, slices.aspect, strict=True):
        column_mm = FIELD_MM / max(values.shape[0] * aspect, values.shape[1])
        pictures.append(prepare(values[None].astype(np.float32), (column_mm * aspect, column_mm), is_ct))
    return SliceExamples(
        pictures=torch.cat(pictures).half(),
        classes=torch.tensor(slices.labels),
        level_mm=torch.tensor(slices.scores).float() * LEVEL_UNIT_MM,
    )


def _held_out(groups: list[str], seed: int) -> npt.NDArray[np.bool_]:
    """A fifth of the patients; of a single patient, a fifth of the slices."""
    rng = np.random.default_rng(seed)
    patients = sorted(set(groups))
    if len(patients) < 2:
        return np.asarray(rng.random(len(groups)) < TEST_SHARE)
    count = max(1, round(TEST_SHARE * len(patients)))
    chosen = set(rng.permutation(patients)[:count].tolist())
    return np.array([group in chosen for group in groups])


def _pick(examples: SliceExamples, which: npt.NDArray[np.bool_]) -> SliceExamples:
    chosen = torch.from_numpy(np.flatnonzero(which))
    return SliceExamples(
        pictures=examples.pictures[chosen], classes=examples.classes[chosen], level_mm=examples.level_mm[chosen]
    )
