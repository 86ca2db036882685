"""Slices of synthetic heads at known levels: what the simulated reader study and the slice-level model learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.training.anatomy import draw_head
from inference.training.ct_tissue import compose_hu

SIDE_PX = 64
FIELD_MM = 230.0
MIN_HEAD_PX = 60  # a slice with less of the head shows nothing to place


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSlices:
    """Slices of one head, neck first.

    Attributes
    ----------
    hu
        ``[n, 64, 64]`` float32, CT density without noise.
    level_mm
        Template height (MNI z) of each slice.
    brain_mm2
        Area of brain parenchyma in each slice.
    """

    hu: npt.NDArray[np.float32]
    level_mm: npt.NDArray[np.float64]
    brain_mm2: npt.NDArray[np.float64]


def draw_head_slices(seed: int, *, step_mm: float = 5.0, coverage_mm: float | None = None) -> HeadSlices:
    """Draw a head and cut it into slices ``step_mm`` apart; slices without any head are left out."""
    rng = np.random.default_rng([seed, 90])
    pixel_mm = FIELD_MM / SIDE_PX
    head = draw_head(
        rng, spacing_mm=(step_mm, pixel_mm, pixel_mm), size_mm=(FIELD_MM, FIELD_MM), coverage_mm=coverage_mm
    )
    hu = compose_hu(rng, head).astype(np.float32)
    shown = (hu > -300).sum(axis=(1, 2)) >= MIN_HEAD_PX
    brain = ((head.grey + head.white) * head.intracranial).sum(axis=(1, 2)) * pixel_mm**2
    return HeadSlices(
        hu=hu[shown],
        level_mm=head.ras_mm[2].mean(axis=(1, 2))[shown].astype(np.float64),
        brain_mm2=np.asarray(brain[shown], dtype=np.float64),
    )
