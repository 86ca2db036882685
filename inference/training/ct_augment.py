"""Batches of slices for the haemorrhage network, randomised beyond what any one scanner does.

Full-range randomisation of noise, contrast, blur, geometry and shading is what keeps an operating point chosen on
synthetic heads honest on real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from inference.ct_input import BRAIN_MEDIAN_HU
from inference.training.ct_cache import PreparedStudy


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """``hu`` is ``[n, 3, y, x]`` (slice, the one below, the one above), ``mask`` ``[n, y, x]``; ``blood`` ``[n, y, x]``
    uint8 (0 or 1 + kind) with ``known_blood`` ``[n]``; ``labels`` ``[n, 6]``, NaN where unknown; ``from_top`` ``[n]``
    counts slices down from the vertex."""

    hu: Tensor
    mask: Tensor
    blood: Tensor
    known_blood: Tensor
    labels: Tensor
    from_top: Tensor


def gather(studies: Sequence[PreparedStudy], index: Sequence[tuple[int, int]]) -> Batch:
    """Collect slices ``(study, slice)`` with their neighbours; the first and last slice neighbour themselves."""
    hu, mask, blood, known, labels, height = [], [], [], [], [], []
    for number, z in index:
        study = studies[number]
        last = len(study.hu) - 1
        hu.append(study.hu[[z, max(0, z - 1), min(last, z + 1)]])
        mask.append(study.mask[z])
        blood.append(study.blood[z] if study.blood is not None else np.zeros(study.mask[z].shape, np.uint8))
        known.append(study.blood is not None)
        labels.append(study.slice_labels[z])
        height.append(last - z)
    return Batch(
        hu=torch.from_numpy(np.stack(hu).astype(np.float32)),
        mask=torch.from_numpy(np.stack(mask).astype(np.float32)),
        blood=torch.from_numpy(np.stack(blood)),
        known_blood=torch.tensor(known),
        labels=torch.from_numpy(np.stack(labels).astype(np.float32)),
        from_top=torch.tensor(height),
    )


def augment(batch: Batch, rng: np.random.Generator) -> Batch:
    """Random affine map and mirror, then intensity: contrast, shading, blur, noise, clipping like an 8-bit export."""
    n = len(batch.mask)
    moved = _move(torch.cat([batch.hu, batch.mask[:, None]], dim=1), _affine(rng, n), batch.blood)
    hu, mask, blood = moved[0][:, :3], moved[0][:, 3], moved[1]
    return replace(batch, hu=_intensity(_vertex(hu, batch.from_top, rng), rng), mask=(mask > 0.5).float(), blood=blood)


def _vertex(hu: Tensor, from_top: Tensor, rng: np.random.Generator) -> Tensor:
    """Near the vertex bone shares the slice: brighten the last slices, all over and in patches, as it does in life."""
    n, _, rows, columns = hu.shape
    near = (from_top < 5).float().view(n, 1, 1, 1) * _chance(rng, n, 0.6)
    patches = functional.interpolate(_noise(rng, (n, 1, 6, 5)), size=(rows, columns), mode="bicubic").clamp(min=0)
    brighter = _uniform(rng, n, 0, 12) + patches * _uniform(rng, n, 0, 8)
    return torch.where((hu > -150) & (hu < 250), hu + near * brighter, hu)


def _affine(rng: np.random.Generator, n: int) -> Tensor:
    angle = np.deg2rad(rng.normal(0, 7, n))
    scale = np.exp(rng.normal(0, 0.06, (n, 2)))
    mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0] = np.cos(angle) * scale[:, 0] * mirror
    theta[:, 0, 1] = -np.sin(angle) * scale[:, 1] * 1.2  # the crop is 192 x 160: keep the turn rigid
    theta[:, 1, 0] = np.sin(angle) * scale[:, 0] * mirror / 1.2
    theta[:, 1, 1] = np.cos(angle) * scale[:, 1]
    theta[:, :, 2] = rng.normal(0, 0.04, (n, 2))
    return torch.from_numpy(theta)


def _move(image: Tensor, theta: Tensor, blood: Tensor) -> tuple[Tensor, Tensor]:
    grid = functional.affine_grid(theta, [len(image), 1, image.shape[2], image.shape[3]], align_corners=False)
    moved = functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    labels = functional.grid_sample(blood[:, None].float(), grid, mode="nearest", align_corners=False)
    return moved, labels[:, 0].to(torch.uint8)


def _uniform(rng: np.random.Generator, n: int, low: float, high: float) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, n).astype(np.float32)).view(n, 1, 1, 1)


def _chance(rng: np.random.Generator, n: int, share: float) -> Tensor:
    return torch.from_numpy((rng.random(n) < share).astype(np.float32)).view(n, 1, 1, 1)


def _noise(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))


def _intensity(hu: Tensor, rng: np.random.Generator) -> Tensor:
    n, _, rows, columns = hu.shape
    soft = ((hu > -150) & (hu < 250)).float()
    contrast = _uniform(rng, n, 0.8, 1.25)
    changed = BRAIN_MEDIAN_HU + (hu - BRAIN_MEDIAN_HU) * contrast + _uniform(rng, n, -3, 3)
    shading = functional.interpolate(_noise(rng, (n, 1, 4, 4)), size=(rows, columns), mode="bicubic")
    changed = changed + shading * _uniform(rng, n, 0, 2.5)
    hu = torch.where(soft > 0, changed, hu)
    blurred = functional.avg_pool2d(functional.pad(hu, (1, 1, 1, 1), mode="replicate"), 3, 1)
    hu = hu + (blurred - hu) * _uniform(rng, n, 0, 1) * _chance(rng, n, 0.5)
    grain = _noise(rng, hu.shape)
    coarse = functional.avg_pool2d(functional.pad(grain, (1, 1, 1, 1), mode="replicate"), 3, 1) * 2.2
    hu = hu + (grain + (coarse - grain) * _chance(rng, n, 0.5)) * _uniform(rng, n, 0, 5) * _chance(rng, n, 0.7)
    clipped = torch.where(
        hu >= 100, torch.full_like(hu, 1000.0), torch.where(hu <= -20, torch.full_like(hu, -1000.0), hu)
    )
    return hu + (clipped - hu) * _chance(rng, n, 0.3)


def slice_index(
    studies: Sequence[PreparedStudy], rng: np.random.Generator, count: int, positive_share: float = 0.5
) -> list[tuple[int, int]]:
    """Draw slices: half of them with blood, a quarter from the same heads without, a quarter from healthy heads."""
    positive: list[tuple[int, int]] = []
    beside: list[tuple[int, int]] = []
    healthy: list[tuple[int, int]] = []
    for number, study in enumerate(studies):
        any_label: npt.NDArray[np.float32] = study.slice_labels[:, 0]
        bleeding = bool(np.nanmax(any_label, initial=0) > 0)
        for z, value in enumerate(any_label):
            if not np.isnan(value):
                (positive if value > 0 else beside if bleeding else healthy).append((number, z))
    parts = [(positive, positive_share), (beside, (1 - positive_share) * 0.4), (healthy, (1 - positive_share) * 0.6)]
    usable = [(pool, share) for pool, share in parts if pool]
    total = sum(share for _, share in usable)
    drawn = []
    for pool, share in usable:
        take = rng.integers(0, len(pool), max(1, round(count * share / total)))
        drawn += [pool[int(i)] for i in take]
    return [drawn[int(i)] for i in rng.permutation(len(drawn))]
