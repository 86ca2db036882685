"""A hospital's own MR studies as training samples: prepared once, kept on disk, augmented each time they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from inference.abnormality_net import OUTPUTS
from inference.intracranial import intracranial_mask
from inference.mr_input import CLIP, OUTSIDE, prepare
from inference.result import Reason
from inference.training.label_file import Labels
from inference.training.train_mr import MrSample, Source
from inference.volume import Volume


def keep_sample(volume: Volume, labels: Labels, slice_labels: Mapping[str, Labels], path: Path) -> Reason | None:
    """Prepare a volume and write the sample to ``path`` (npz); return why it cannot be used, if it cannot."""
    mask = intracranial_mask(volume)
    if isinstance(mask, Reason):
        return mask
    image, grid = prepare(volume, mask)
    by_slice = []
    for index in range(grid.count):
        sources = [volume.geometry.slices[z] for z in grid.source_slices(index)]
        known = [slice_labels[s.sop_instance_uid] for s in sources if s.sop_instance_uid in slice_labels]
        by_slice.append(np.fmax.reduce([np.full(len(OUTPUTS), np.nan, np.float32), *(_vector(k) for k in known)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(
            file,
            image=image.astype(np.float16),
            slice_labels=np.array(by_slice, np.float32),
            study_labels=_vector(labels),
            step_mm=np.array(volume.geometry.spacing_zyx_mm[0] * grid.group),
        )
    temporary.replace(path)
    return None


def local_source(path: Path) -> Source:
    """A kept study, with another brightness, contrast and noise each time it is asked for."""
    return lambda rng: _vary(_read(path), rng)


def plain_source(path: Path) -> Source:
    """A kept study as it is, for validation."""
    return lambda rng: _read(path)


def _read(path: Path) -> MrSample:
    with np.load(path, allow_pickle=False) as stored:
        image = stored["image"].astype(np.float32)
        return MrSample(
            image=image,
            mask=(image > OUTSIDE + 1e-3).astype(np.float32),
            lesions=None,
            slice_labels=stored["slice_labels"],
            study_labels=stored["study_labels"],
            step_mm=float(stored["step_mm"]),
        )


def _vary(sample: MrSample, rng: np.random.Generator) -> MrSample:
    """Contrast about the brain's median, slow shading along each axis, noise."""
    inside = sample.mask > 0.5
    y, x = np.mgrid[-1 : 1 : sample.image.shape[1] * 1j, -1 : 1 : sample.image.shape[2] * 1j]
    shading = (rng.normal(0, 0.1) * x + rng.normal(0, 0.1) * y).astype(np.float32)
    image = sample.image * np.float32(np.exp(rng.normal(0, 0.12))) + shading[None]
    image = image + rng.normal(0, rng.uniform(0, 0.12), image.shape).astype(np.float32)
    return replace(sample, image=np.where(inside, np.clip(image, *CLIP), np.float32(OUTSIDE)).astype(np.float32))


def _vector(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    values = [labels.get(name) for name in OUTPUTS]
    return np.array([np.nan if v is None else float(v) for v in values], np.float32)


def split_by_patient(
    patients: Sequence[str], positive: Sequence[bool], seed: int, shares: tuple[float, float] = (0.7, 0.15)
) -> list[int]:
    """Assign each study to 0 training, 1 validation, 2 test; a patient's studies stay together.

    Patients with and without a positive study are split alike, drawn by ``seed``; of each, with three or more
    patients, every part gets one.
    """
    sick = {patient for patient, value in zip(patients, positive, strict=True) if value}
    part: dict[str, int] = {}
    for number, group in enumerate((sorted(sick), sorted(set(patients) - sick))):
        order = np.random.default_rng([seed, 51, number]).permutation(len(group))
        validation = max(1, round(shares[1] * len(group)))
        test = max(1, round((1.0 - sum(shares)) * len(group)))
        for rank, index in enumerate(order):
            part[group[index]] = 1 if rank < validation else 2 if rank < validation + test else 0
    return [part[p] for p in patients]
