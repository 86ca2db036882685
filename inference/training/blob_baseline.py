"""The no-learning baseline every CT model stands beside: the largest blob denser than 60 HU inside the mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from inference.intracranial import intracranial_mask
from inference.result import Reason
from inference.volume import Volume

CALCIUM_HU = 100.0


def blob_score(volume: Volume, threshold_hu: float = 60.0) -> float | None:
    """Volume in ml of the largest connected blob above ``threshold_hu`` inside the eroded intracranial mask.

    Denser than 100 HU is bone or calcium and does not count. Single voxels are removed by a 3 x 3
    in-plane median, and bone's own partial volume by an erosion of about 2 mm.
    None when there is no mask.
    """
    mask = intracranial_mask(volume)
    if isinstance(mask, Reason):
        return None
    spacing = volume.geometry.spacing_zyx_mm
    steps = max(1, round(2.0 / spacing[1]))
    inside = ndimage.binary_erosion(mask, np.ones((1, 3, 3), bool), iterations=steps)
    smooth = (
        ndimage.median_filter(volume.voxels, (1, 3, 3))
        if spacing[1] > 0.7
        else ndimage.median_filter(volume.voxels, (1, 5, 5))
    )
    labels, count = ndimage.label((smooth > threshold_hu) & (smooth < CALCIUM_HU) & inside)
    if not count:
        return 0.0
    return float(np.bincount(labels.ravel())[1:].max() * np.prod(spacing) / 1000.0)
