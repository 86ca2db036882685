"""Training pictures of the slice-level model: heads as CT and as MR of random contrast, bodies and phantoms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from inference.slice_level import CLASSES, FIELD_MM, SIDE_PX, prepare
from inference.training.anatomy import Head, Tissue, draw_head, smooth_noise
from inference.training.ct_tissue import clip_like_export, compose_hu

BELOW, BRAIN, ABOVE, NO_HEAD = range(len(CLASSES))
UNSURE_MM2 = (40.0, 500.0)  # so much brain is neither trained as brain nor as none
STEP_MM = 5.0
FINER = 2  # heads are drawn on a grid so much finer than the pictures, for partial volume
MARGIN_PX = 12
IGNORE = -1

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceExamples:
    """Pictures ``[n, 2, 64, 64]``, class (-1: not to be learned) and level in mm (nan: none)."""

    pictures: torch.Tensor
    classes: torch.Tensor
    level_mm: torch.Tensor


def draw_examples(seed: int) -> SliceExamples:
    """Slices of one head as CT (twice) and as MR (four contrasts), and sixteen bodies, phantoms and the like."""
    rng = np.random.default_rng([seed, 95])
    pixel_mm = FIELD_MM / SIDE_PX
    side_mm = FIELD_MM + 2 * MARGIN_PX * pixel_mm
    fine_mm = (STEP_MM / FINER, pixel_mm / FINER, pixel_mm / FINER)
    coverage = float(rng.uniform(140, 215))
    head = draw_head(rng, spacing_mm=fine_mm, size_mm=(side_mm, side_mm), coverage_mm=coverage)
    classes, level = _truth(head, fine_mm[1])
    parts = []
    for is_ct in (True, True, False, False, False, False):
        changed = replace(head, labels=_other_face(rng, head))
        slices = _thick(_as_ct(rng, changed) if is_ct else _as_mr(rng, changed))
        parts.append(_example(prepare(slices, fine_mm[1:], is_ct), classes, level))
    for _ in range(16):
        is_ct = bool(rng.random() < 0.5)
        other = _no_head(rng, is_ct)
        picture = prepare(other[None], (pixel_mm, pixel_mm), is_ct)
        parts.append(_example(picture, np.array([NO_HEAD]), np.array([np.nan])))
    return SliceExamples(
        pictures=torch.cat([part.pictures for part in parts]),
        classes=torch.cat([part.classes for part in parts]),
        level_mm=torch.cat([part.level_mm for part in parts]),
    )


def _example(pictures: torch.Tensor, classes: npt.NDArray[np.int64], level: npt.NDArray[np.float64]) -> SliceExamples:
    return SliceExamples(
        pictures=pictures.half(), classes=torch.from_numpy(classes), level_mm=torch.from_numpy(level).float()
    )


def _thick(fine: FloatArray) -> FloatArray:
    """Slices as thick as they lie apart."""
    count = len(fine) // FINER
    return np.asarray(fine[: count * FINER].reshape(count, FINER, *fine.shape[1:]).mean(axis=1), dtype=np.float32)


def _truth(head: Head, pixel_mm: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    brain_mm2 = _thick(((head.grey + head.white) * head.intracranial).sum(axis=(1, 2))[:, None])[:, 0] * pixel_mm**2
    level = _thick(head.ras_mm[2].mean(axis=(1, 2))[:, None])[:, 0].astype(np.float64)
    middle = float(np.average(level, weights=brain_mm2))
    classes = np.where(brain_mm2 > UNSURE_MM2[1], BRAIN, np.where(level < middle, BELOW, ABOVE))
    classes = np.where((brain_mm2 > UNSURE_MM2[0]) & (brain_mm2 <= UNSURE_MM2[1]), IGNORE, classes)
    shown_mm2 = _thick((head.labels != Tissue.AIR).sum(axis=(1, 2))[:, None].astype(np.float32))[:, 0] * pixel_mm**2
    shown = shown_mm2 > 320
    return np.where(shown, classes, NO_HEAD).astype(np.int64), np.where(shown, level, np.nan)


def _other_face(rng: np.random.Generator, head: Head) -> npt.NDArray[np.int16]:
    """The head's labels with another face and neck: fat between muscles, bones and air where the drawn head has none.

    The template knows one face. What the network shall learn is the cavity with brain, not that face.
    """
    labels = head.labels.copy()
    shape, spacing_mm = labels.shape, head.spacing_zyx_mm
    below = (head.distance_mm["cavity"] > 10.0) & (head.ras_mm[2] < rng.uniform(-40, -10))
    flesh = below & np.isin(labels, (Tissue.MUSCLE, Tissue.SOFT_TISSUE, Tissue.FAT))
    deep = flesh & (head.distance_mm["skin"] < -6.0)
    planes = np.abs(smooth_noise(rng, shape, spacing_mm, float(rng.uniform(8, 22)))) < rng.uniform(0.0, 0.5)
    labels[flesh & planes] = Tissue.FAT
    lumps = smooth_noise(rng, shape, spacing_mm, float(rng.uniform(8, 16)))
    labels[deep & (lumps > rng.uniform(1.0, 3.0))] = Tissue.BONE
    labels[deep & (lumps < -rng.uniform(1.3, 3.0))] = Tissue.AIR_SPACE
    return labels


def _as_ct(rng: np.random.Generator, head: Head) -> FloatArray:
    hu = compose_hu(rng, head).astype(np.float32)
    hu = np.asarray(hu + rng.uniform(2, 20) * rng.normal(size=hu.shape), dtype=np.float32)
    export = rng.random()
    if export < 0.3:  # a brain window kept in 8 bits: fat and air are one
        return clip_like_export(hu)
    if export < 0.5:  # or what lies below the window inside the head comes as its lower edge
        return np.where(head.labels == Tissue.AIR, -1000, np.maximum(hu, -20)).astype(np.float32)
    return hu


def _as_mr(rng: np.random.Generator, head: Head) -> FloatArray:
    """Each tissue gets a brightness of its own, as any sequence might give it; air and bone stay dark."""
    table = rng.uniform(0.12, 1.0, len(Tissue)).astype(np.float32)
    for dark in (Tissue.AIR, Tissue.AIR_SPACE, Tissue.BONE):
        table[dark] = rng.uniform(0.0, 0.06)
    if rng.random() < 0.6:  # T2: fluid brightest, grey brighter than white
        table[Tissue.CSF] = table[Tissue.VENTRICLE] = rng.uniform(0.8, 1.0)
        table[Tissue.GREY] = table[Tissue.DEEP_GREY] = table[Tissue.CEREBELLUM] = rng.uniform(0.4, 0.6)
        table[Tissue.WHITE] = rng.uniform(0.28, 0.42)
        table[Tissue.MUSCLE] = rng.uniform(0.1, 0.3)
    signal = table[head.labels]
    inside = head.intracranial & (head.grey + head.white + head.csf > 0.5)
    mixed = head.grey * table[Tissue.GREY] + head.white * table[Tissue.WHITE] + head.csf * table[Tissue.CSF]
    signal = np.where(inside, mixed, signal)
    y, x = np.mgrid[-1 : 1 : signal.shape[1] * 1j, -1 : 1 : signal.shape[2] * 1j]
    shading = 1 + 0.3 * (rng.normal() * x + rng.normal() * y + rng.normal() * (x**2 + y**2 - 0.5))
    noise = rng.uniform(0.01, 0.12)
    real, imaginary = noise * rng.normal(size=(2, *signal.shape))
    return np.asarray(1000 * np.hypot(signal * np.clip(shading, 0.4, 2) + real, imaginary), dtype=np.float32)


def _no_head(rng: np.random.Generator, is_ct: bool) -> FloatArray:
    """A body with organs and spine, a phantom with rods, a limb too thin to be a head, or nothing but noise."""
    side = SIDE_PX + 2 * MARGIN_PX
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    kind = str(rng.choice(["body", "phantom", "limb", "noise"], p=[0.45, 0.35, 0.12, 0.08]))
    if kind == "noise":
        noise = 400 * rng.normal(size=x.shape)
        return np.asarray(noise if is_ct else np.abs(noise), dtype=np.float32)
    size = float(rng.uniform(*{"body": (0.7, 1.5), "phantom": (0.35, 0.95), "limb": (0.12, 0.35)}[kind]))
    aspect = float(rng.uniform(0.6, 0.85) if kind == "body" else rng.uniform(0.9, 1.1))
    outline = np.hypot(x / size, y / (size * aspect)) < 1
    picture = np.where(outline, _value(rng, is_ct), -1000.0 if is_ct else 5.0)
    for _ in range(int(rng.integers(0, 14))):
        middle = rng.normal(0, (0.45 * size, 0.35 * size))
        radius = size * rng.uniform(0.04, 0.4, 2)
        spot = np.hypot((x - middle[0]) / radius[0], (y - middle[1]) / radius[1]) < 1
        dense = is_ct and rng.random() < 0.35
        picture = np.where(spot & outline, rng.choice([-850.0, 400.0, 900.0]) if dense else _value(rng, is_ct), picture)
    if kind == "body" and rng.random() < 0.8:
        spine = np.hypot(x / 0.13, (y - 0.55 * size * aspect) / 0.13) < 1
        picture = np.where(spine, 500.0 if is_ct else 300.0, picture)
    noisy = picture + (rng.uniform(2, 25) if is_ct else rng.uniform(5, 60)) * rng.normal(size=picture.shape)
    return np.asarray(noisy if is_ct else np.abs(noisy), dtype=np.float32)


def _value(rng: np.random.Generator, is_ct: bool) -> float:
    """Brightness of some soft tissue."""
    return float(rng.uniform(-110, 90) if is_ct else rng.uniform(100, 1000))
