"""What no model needs to learn: left-right asymmetry, and bright voxels. Every MR result stands beside both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inference.abnormality import Prepared
from inference.intracranial import intracranial_mask
from inference.mr_input import PIXEL_MM, prepare
from inference.result import Reason
from inference.volume import FloatArray, Volume

BRIGHT = 1.2  # relative signal (0: the brain's median, 2: twice it)
SMOOTH_MM = 6.0


def volume_scores(volume: Volume) -> dict[str, float]:
    """Both baselines of a volume; empty when no brain is found."""
    mask = intracranial_mask(volume)
    if isinstance(mask, Reason):
        return {}
    image, grid = prepare(volume, mask)
    return scores(Prepared(image, image > -2.0 + 1e-6, grid))


def scores(study: Prepared) -> dict[str, float]:
    """``asymmetry``: 99th percentile of the smoothed difference to the mirror image, where both sides are brain.
    ``bright``: share of the brain, 9 mm off its edge, brighter than 1.6 times the median."""
    return {"asymmetry": asymmetry(study.image, study.inside), "bright": bright(study.image, study.inside)}


def asymmetry(image: FloatArray, inside: npt.NDArray[np.bool_]) -> float:
    """Largest smoothed left-right difference, about the middle column of the brain in each slice."""
    sigma = SMOOTH_MM / 2 / PIXEL_MM
    worst = []
    for one, mask in zip(image, inside, strict=True):
        columns = np.flatnonzero(mask.any(axis=0))
        if len(columns) < 20:
            continue
        cut = slice(columns[0], columns[-1] + 1)
        smooth = ndimage.gaussian_filter(np.where(mask, one, 0.0), sigma)[:, cut]
        both = mask[:, cut] & mask[:, cut][:, ::-1]
        if both.sum() > 200:
            worst.append(float(np.percentile(np.abs(smooth - smooth[:, ::-1])[both], 99)))
    return float(np.max(worst)) if worst else 0.0


def bright(image: FloatArray, inside: npt.NDArray[np.bool_]) -> float:
    """Share of bright voxels well inside the brain, slice by slice the fluid of its edge left out."""
    depth = round(9.0 / PIXEL_MM)
    core = np.stack([ndimage.binary_erosion(mask, iterations=depth) for mask in inside])
    return float((image[core] > BRIGHT).mean()) if core.any() else 0.0
