"""What the MR network sees: brain alone, 1.5 mm pixels, signal relative to the brain's median.

One code path for training, evaluation and patients. The source's slices are kept (thin ones averaged in groups), since
between slices 3 to 6 mm thick there is nothing to interpolate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from inference.volume import FloatArray, Volume

PIXEL_MM = 1.5
SIZE = 128
THIN_MM = 2.6  # slices closer than this are averaged in groups of about
SLAB_MM = 4.5
SHADING_MM = 22.0
CLIP = (-2.0, 6.0)
OUTSIDE = -2.0

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the network's grid lies on the source's.

    Attributes
    ----------
    group
        How many source slices make one slice.
    first, count
        First source slice with brain, and the number of network slices.
    centre_yx
        Source pixel (row, column; centre of pixel 0 at 0) in the middle of the grid.
    spacing_yx_mm, shape_zyx
        Of the source.
    """

    group: int
    first: int
    count: int
    centre_yx: tuple[float, float]
    spacing_yx_mm: tuple[float, float]
    shape_zyx: tuple[int, int, int]

    def source_slices(self, index: int) -> range:
        """Source slices that network slice ``index`` was made from."""
        start = self.first + index * self.group
        return range(start, min(start + self.group, self.shape_zyx[0]))


def grid_for(mask: Mask, spacing_zyx_mm: tuple[float, float, float]) -> Grid:
    """Lay the grid over an intracranial mask (not empty)."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    rows = np.flatnonzero(mask.any(axis=(0, 2)))
    columns = np.flatnonzero(mask.any(axis=(0, 1)))
    group = max(1, round(SLAB_MM / spacing_zyx_mm[0])) if spacing_zyx_mm[0] < THIN_MM else 1
    return Grid(
        group=group,
        first=int(slices[0]),
        count=int(np.ceil((slices[-1] - slices[0] + 1) / group)),
        centre_yx=((rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2),
        spacing_yx_mm=(spacing_zyx_mm[1], spacing_zyx_mm[2]),
        shape_zyx=(mask.shape[0], mask.shape[1], mask.shape[2]),
    )


def to_grid(field: FloatArray, grid: Grid) -> FloatArray:
    """Resample a source-grid array to ``[count, SIZE, SIZE]``, blurred first where pixels grow (no aliasing)."""
    out = np.empty((grid.count, SIZE, SIZE), np.float32)
    step = [PIXEL_MM / s for s in grid.spacing_yx_mm]
    start = [c - s * (SIZE - 1) / 2 for c, s in zip(grid.centre_yx, step, strict=True)]
    for index in range(grid.count):
        chosen = grid.source_slices(index)
        image = field[chosen.start : chosen.stop].mean(axis=0, dtype=np.float32)
        if max(step) > 1.0:
            image = ndimage.gaussian_filter(image, [0.42 * max(s - 1.0, 0.0) for s in step])
        out[index] = ndimage.affine_transform(image, step, start, (SIZE, SIZE), order=1, mode="constant")
    return out


def from_grid(field: FloatArray, grid: Grid) -> FloatArray:
    """Bring ``[count, SIZE, SIZE]`` (or a coarser square) back to the source grid; 0 where the grid does not reach."""
    out = np.zeros(grid.shape_zyx, np.float32)
    pixel_mm = PIXEL_MM * SIZE / field.shape[1]
    scale = [s / pixel_mm for s in grid.spacing_yx_mm]
    middle = (field.shape[1] - 1) / 2
    offset = [middle - c * s for c, s in zip(grid.centre_yx, scale, strict=True)]
    for index in range(grid.count):
        image = ndimage.affine_transform(field[index], scale, offset, grid.shape_zyx[1:], order=1, mode="constant")
        out[list(grid.source_slices(index))] = image
    return out


def normalise(signal: FloatArray, inside: FloatArray, step_mm: float) -> FloatArray:
    """Signal relative to the brain's median (0: median, 2: twice it), clipped; outside the mask as dark as bone.

    The coil's shading is taken away first: the signal is divided by its own slow part, in which fluid and vessels
    count no more than brain does.
    """
    brain = inside > 0.5
    median = float(np.median(signal[brain])) if brain.any() else 1.0
    relative = signal / max(median, 1e-6)
    weight = brain.astype(np.float32)
    sigma = (SHADING_MM / max(step_mm, 1.0), SHADING_MM / PIXEL_MM, SHADING_MM / PIXEL_MM)
    slow = _smooth(np.clip(relative, 0.6, 1.4) * weight, sigma) / np.maximum(_smooth(weight, sigma), 1e-3)
    flat = relative / np.maximum(slow, 0.3)
    flat = flat / (float(np.median(flat[brain])) if brain.any() else 1.0)
    return np.asarray(np.where(brain, np.clip(2.0 * (flat - 1.0), *CLIP), OUTSIDE), np.float32)


def _smooth(field: FloatArray, sigma: tuple[float, float, float]) -> FloatArray:
    """Wide Gaussian at a quarter of the resolution in plane, where nothing finer is asked for."""
    count, rows, columns = field.shape
    coarse = field.reshape(count, rows // 4, 4, columns // 4, 4).mean(axis=(2, 4))
    wide = ndimage.gaussian_filter(coarse, (sigma[0], sigma[1] / 4, sigma[2] / 4))
    image = torch.from_numpy(np.ascontiguousarray(wide))[None]
    fine = functional.interpolate(image, size=(rows, columns), mode="bilinear", align_corners=False)
    return np.asarray(fine[0].numpy(), np.float32)


def prepare(volume: Volume, mask: Mask) -> tuple[FloatArray, Grid]:
    """Return what the network sees of a volume ``[count, SIZE, SIZE]``, and where it lies."""
    grid = grid_for(mask, volume.geometry.spacing_zyx_mm)
    step_mm = volume.geometry.spacing_zyx_mm[0] * grid.group
    return normalise(to_grid(volume.voxels, grid), to_grid(mask.astype(np.float32), grid), step_mm), grid
