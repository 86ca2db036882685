"""From a head CT on its scanner grid to what the haemorrhage network reads, and back.

The cranial cavity is cropped to 192 x 160 pixels of about 1 mm; slices thinner than 2.6 mm are averaged to about 5 mm;
HU are shifted so that the median brain lies at 33 HU. The same code prepares training data and patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from inference.intracranial import Mask
from inference.volume import Volume

Array = npt.NDArray[np.float32]

ROWS, COLUMNS = 192, 160
PIXEL_MM = 1.0
MARGIN_MM = 6.0
BRAIN_MEDIAN_HU = 33.0
VAULT_SLOPE_MM = 8.0
MIN_AREA_CM2 = 3.0  # a slice with less cavity than this is not read


@dataclass(frozen=True, slots=True, kw_only=True)
class CtInput:
    """Prepared slices, in z order, with the way back.

    Attributes
    ----------
    hu
        ``[n, 192, 160]`` float32, median brain at 33 HU.
    mask
        ``[n, 192, 160]`` bool.
    group
        For each source slice the prepared slice it belongs to, or -1 when it shows no cavity.
    centre_px, step_px
        Source row and column of the crop's centre; source pixels per prepared pixel, rows and columns.
    shift_hu
        What was added to HU.
    source_shape
        Shape of the source volume.
    """

    hu: Array
    mask: Mask
    group: npt.NDArray[np.int64]
    centre_px: tuple[float, float]
    step_px: tuple[float, float]
    shift_hu: float
    source_shape: tuple[int, int, int]


def prepare_ct(volume: Volume, mask: Mask) -> CtInput:
    """Crop, resample, group and normalise one CT (see the module's text)."""
    spacing = volume.geometry.spacing_zyx_mm
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    centre = (float(rows[0] + rows[-1]) / 2, float(columns[0] + columns[-1]) / 2)
    long_mm = float(rows[-1] - rows[0] + 1) * spacing[1]
    wide_mm = float(columns[-1] - columns[0] + 1) * spacing[2]
    pixel = max(PIXEL_MM, long_mm / (ROWS - 2 * MARGIN_MM), wide_mm / (COLUMNS - 2 * MARGIN_MM))
    step = (pixel / spacing[1], pixel / spacing[2])
    sample = volume.voxels[:, ::4, ::4]
    inside = sample[mask[:, ::4, ::4]]
    shift = BRAIN_MEDIAN_HU - float(np.median(inside[(inside > 0) & (inside < 80)])) if inside.size else 0.0
    area_cm2 = mask.sum(axis=(1, 2)) * spacing[1] * spacing[2] / 100.0
    used = np.flatnonzero(area_cm2 >= MIN_AREA_CM2)
    together = max(1, round(5.0 / spacing[0])) if spacing[0] < 2.6 else 1
    group = np.full(mask.shape[0], -1, np.int64)
    if len(used):
        group[used] = (used - used[0]) // together
        group[used] = np.unique(group[used], return_inverse=True)[1]
    hu = _resample(volume.voxels[used], centre, step) + np.float32(shift)
    fine_mask = _resample(mask[used].astype(np.float32), centre, step)
    if together > 1:
        hu, fine_mask = _average(hu, group[used]), _average(fine_mask, group[used])
    return CtInput(
        hu=hu,
        mask=without_partial_volume(fine_mask > 0.5),
        group=group,
        centre_px=centre,
        step_px=step,
        shift_hu=shift,
        source_shape=volume.geometry.shape_zyx,
    )


def without_partial_volume(mask: Mask) -> Mask:
    """Take off what lies under the sloping vault near the vertex, where bone in the slice reads like blood.

    A pixel stays when the cavity goes on within 8 mm of it in the slice above; the topmost slice is left out. Only
    slices above the largest are touched.
    """
    kept = mask.copy()
    if len(mask) < 4:
        return kept
    largest = int(mask.sum(axis=(1, 2)).argmax())
    for z in range(largest, len(mask) - 1):
        kept[z] &= ndimage.distance_transform_edt(~mask[z + 1]) <= VAULT_SLOPE_MM if mask[z + 1].any() else False
    kept[-1] = False
    return kept


def resample_like(prepared: CtInput, stack: Array) -> Array:
    """Bring another ``[z, y, x]`` stack on the source grid (a blood mask, say) to the prepared grid."""
    used = np.flatnonzero(prepared.group >= 0)
    fine = _resample(stack[used], prepared.centre_px, prepared.step_px)
    return _average(fine, prepared.group[used]) if len(used) > prepared.hu.shape[0] else fine


def to_source_grid(prepared: CtInput, maps: Array) -> Array:
    """Bring maps ``[n, h, w]`` over the crop (any resolution) back to the source grid; zero elsewhere."""
    depth, rows, columns = prepared.source_shape
    row = (np.arange(rows, dtype=np.float32) - prepared.centre_px[0]) / (prepared.step_px[0] * ROWS / 2)
    column = (np.arange(columns, dtype=np.float32) - prepared.centre_px[1]) / (prepared.step_px[1] * COLUMNS / 2)
    y, x = np.flatnonzero(np.abs(row) < 1), np.flatnonzero(np.abs(column) < 1)
    out = np.zeros((depth, rows, columns), np.float32)
    used = np.flatnonzero(prepared.group >= 0)
    if not len(used):
        return out
    grid_y, grid_x = torch.meshgrid(torch.from_numpy(row[y]), torch.from_numpy(column[x]), indexing="ij")
    grid = torch.stack([grid_x, grid_y], dim=2)[None]
    fine = functional.grid_sample(torch.from_numpy(maps)[None], grid, align_corners=False)[0].numpy()
    out[used, y[0] : y[-1] + 1, x[0] : x[-1] + 1] = fine[prepared.group[used]]
    return out


def _resample(stack: Array, centre: tuple[float, float], step: tuple[float, float]) -> Array:
    """Sample ``[n, y, x]`` on the crop, averaging first where the source is at least twice as fine."""
    image = torch.from_numpy(np.ascontiguousarray(stack))[:, None]
    factor = (max(1, int(step[0] + 0.3)), max(1, int(step[1] + 0.3)))
    if max(factor) > 1:
        image = functional.avg_pool2d(image, factor)
    grids = []
    for size, middle, stride, shrink, length in zip(
        (ROWS, COLUMNS), centre, step, factor, stack.shape[1:], strict=True
    ):
        at = middle + (np.arange(size, dtype=np.float32) - (size - 1) / 2) * stride
        grids.append(torch.from_numpy(np.asarray(2 * (at + 0.5) / (length // shrink * shrink) - 1, np.float32)))
    y, x = torch.meshgrid(grids[0], grids[1], indexing="ij")
    grid = torch.stack([x, y], dim=2)[None].expand(image.shape[0], -1, -1, -1)
    return np.asarray(
        functional.grid_sample(image, grid, padding_mode="border", align_corners=False)[:, 0].numpy(), np.float32
    )


def _average(stack: Array, group: npt.NDArray[np.int64]) -> Array:
    return np.stack([stack[group == g].mean(axis=0) for g in range(int(group.max()) + 1)]).astype(np.float32)
