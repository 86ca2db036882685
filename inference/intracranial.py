"""The intracranial mask: where the brain and its surroundings lie, found without learning.

One mask serves synthetic and real heads, training and inference: it takes face, orbits, scalp and head holder away,
and refuses what is not a head. No mask means "not analysed", never "negative". CT is handled here, from bone;
MR in :mod:`inference.intracranial_mr`.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inference.result import Reason
from inference.volume import Volume

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]

BONE_HU = 100.0
AIR_HU = -150.0
WORKING_MM = 2.0
VOLUME_ML = (500.0, 2700.0)  # a large or hydrocephalic adult head may pass 2300 ml
LARGEST_AREA_CM2 = (70.0, 300.0)
CANAL_CM2 = 11.0  # below this enclosed area the slice lies under the foramen magnum
_IN_PLANE = np.ones((1, 3, 3), bool)
_CROSS = ndimage.generate_binary_structure(2, 1)[None]


def intracranial_mask(volume: Volume) -> Mask | Reason:
    """Find the cranial cavity.

    Parameters
    ----------
    volume
        An axial CT (HU) or MR volume. CT may be clipped at 100 HU, as some exporters do.

    Returns
    -------
    Mask or Reason
        Boolean ``[z, y, x]`` on the source grid, blood along the inner table and calcifications included;
        or why there is none: ``no_skull``, ``not_a_head``, ``incomplete_head``, ``unsupported_modality``.
    """
    if volume.modality == "CT":
        return _ct_mask(volume.voxels, volume.geometry.spacing_zyx_mm)
    if volume.modality == "MR":
        from inference.intracranial_mr import mr_intracranial_mask

        return mr_intracranial_mask(volume)
    return Reason(code="unsupported_modality", text="Only CT and MR volumes can be analysed.")


def _ct_mask(hu: Array, spacing_mm: tuple[float, float, float]) -> Mask | Reason:
    if hu.shape[0] < 4 or min(hu.shape[1:]) * min(spacing_mm[1:]) < 100.0:
        return Reason(code="not_a_head", text="The volume is too small to hold a head (4 slices, 100 mm in plane).")
    step = (max(1, round(WORKING_MM / spacing_mm[1])), max(1, round(WORKING_MM / spacing_mm[2])))
    coarse = _block_mean(hu, step)
    pixel_cm2 = spacing_mm[1] * step[0] * spacing_mm[2] * step[1] / 100.0
    bone_hu = min(BONE_HU, float(hu.max()) - 1.0)
    if bone_hu < 60.0:
        return Reason(
            code="no_skull", text="Nothing in the volume is as dense as bone; is it a CT in Hounsfield units?"
        )
    bone = coarse >= bone_hu
    enclosed = _enclosed(bone)
    soft = enclosed & ~bone & (coarse > AIR_HU)  # sinuses open into the cavity where their walls are thin
    core = ndimage.binary_opening(soft, _CROSS, iterations=2)
    tracked = _track(core, coarse, spacing_mm[0], pixel_cm2)
    if isinstance(tracked, Reason):
        return tracked
    whole = ndimage.binary_dilation(tracked, _CROSS, iterations=3, mask=soft)
    whole = _fill(ndimage.binary_closing(whole, _CROSS, iterations=2) & enclosed)
    refused = _implausible(whole, coarse, spacing_mm[0], pixel_cm2)
    if refused is not None:
        return refused
    return _refine(whole, hu, step, bone_hu)


def _block_mean(hu: Array, step: tuple[int, int]) -> Array:
    """Mean over blocks of ``step`` pixels; what is left over at the far edges is dropped."""
    rows, columns = hu.shape[1] // step[0], hu.shape[2] // step[1]
    cut = hu[:, : rows * step[0], : columns * step[1]]
    summed = np.zeros((hu.shape[0], rows, columns), np.float32)
    for row in range(step[0]):
        for column in range(step[1]):
            summed += cut[:, row :: step[0], column :: step[1]]
    return np.asarray(summed / np.float32(step[0] * step[1]), np.float32)


def _fill(mask: Mask) -> Mask:
    return np.stack([ndimage.binary_fill_holes(m) for m in mask])


def _enclosed(bone: Mask) -> Mask:
    """Pixels within a closed ring of bone, or that see bone in at least 7 of 8 directions (an open skull)."""
    ring = _fill(ndimage.binary_closing(np.pad(bone, ((0, 0), (4, 4), (4, 4))), _CROSS, iterations=3))[:, 4:-4, 4:-4]
    seen = np.zeros(bone.shape, np.int8)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            if row or column:
                seen += _looks_at_bone(bone, row, column)
    return ring | (seen >= 7)


def _looks_at_bone(bone: Mask, row: int, column: int) -> Mask:
    """True where a ray in direction ``(row, column)`` meets bone."""
    if row == 0:
        turned = bone[:, :, ::-column] if column > 0 else bone
        hit = np.logical_or.accumulate(turned, axis=2)
        return cast(Mask, hit[:, :, ::-column] if column > 0 else hit)
    order = range(bone.shape[1] - 1, -1, -1) if row > 0 else range(bone.shape[1])
    hit = np.zeros_like(bone)
    before = np.zeros((bone.shape[0], bone.shape[2]), bool)
    for y in order:
        moved = before
        if column:
            moved = np.zeros_like(before)
            if column > 0:
                moved[:, :-1] = before[:, 1:]
            else:
                moved[:, 1:] = before[:, :-1]
        hit[:, y] = before = moved | bone[:, y]
    return hit


def _track(core: Mask, hu: Array, step_mm: float, pixel_cm2: float) -> Mask | Reason:
    """Follow the cavity up and down from the slice where one brain-like component is largest."""
    parts = [_brain_like(core[z], hu[z], pixel_cm2) for z in range(len(core))]
    largest = [max((p.sum() for p in slice_parts), default=0) * pixel_cm2 for slice_parts in parts]
    fitting = [a if a <= LARGEST_AREA_CM2[1] else 0.0 for a in largest]
    start = int(np.argmax(fitting))
    if fitting[start] < LARGEST_AREA_CM2[0]:
        if max(largest) > LARGEST_AREA_CM2[1]:
            return Reason(code="not_a_head", text="The bony ring is larger than a skull.")
        return Reason(code="no_skull", text="No slice shows a skull around brain.")
    tracked = np.zeros_like(core)
    tracked[start] = max(parts[start], key=lambda p: int(p.sum()))
    reach = max(1, min(8, round(step_mm / WORKING_MM * 1.2)))
    for direction in (1, -1):
        z, before = start + direction, tracked[start]
        while 0 <= z < len(core):
            near = ndimage.binary_dilation(before, _CROSS[0], iterations=reach)
            found = np.zeros_like(before)
            for part in parts[z]:
                if (part & before).sum() >= 0.5 * part.sum() or (part & before).sum() >= 0.5 * before.sum():
                    found |= part & near
            if direction < 0 and found.sum() * pixel_cm2 < CANAL_CM2:
                break
            if not found.any():
                break
            tracked[z] = before = found
            z += direction
    return tracked


def _brain_like(mask: Mask, hu: Array, pixel_cm2: float) -> list[Mask]:
    """Components of one slice that are neither fat, air nor tiny. A large one may hold air (an open skull)."""
    labels, count = ndimage.label(mask)
    parts = []
    for index in range(1, count + 1):
        part = labels == index
        area_cm2 = part.sum() * pixel_cm2
        inside = hu[part]
        like = float(((inside > -12) & (inside < 100)).mean())
        if area_cm2 >= 0.6 and like >= (0.55 if area_cm2 > 60 else 0.75):
            parts.append(part)
    return parts


def _implausible(mask: Mask, hu: Array, step_mm: float, pixel_cm2: float) -> Reason | None:
    volume_ml = float(mask.sum()) * pixel_cm2 * step_mm / 10.0
    if volume_ml < VOLUME_ML[0]:
        return Reason(code="incomplete_head", text="Less than 500 ml of cranial cavity was found; the head is cut off.")
    inside = hu[mask]
    median, fat = float(np.median(inside)), float(((inside < -30) & (inside > -200)).mean())
    if volume_ml > VOLUME_ML[1] or not 5.0 < median < 65.0 or fat > 0.08:
        return Reason(code="not_a_head", text="What the bone encloses is not of the size or density of a brain.")
    return None


def _refine(coarse: Mask, hu: Array, step: tuple[int, int], bone_hu: float) -> Mask:
    """Bring the mask to the source grid and let its rim follow the inner table, so that thin blood stays inside."""
    wide = ndimage.binary_dilation(coarse, _IN_PLANE)
    inner = ndimage.binary_erosion(coarse, _IN_PLANE)
    fine = np.zeros(hu.shape, bool)
    rows, columns = coarse.shape[1] * step[0], coarse.shape[2] * step[1]
    wide, inner = (m.repeat(step[0], axis=1).repeat(step[1], axis=2) for m in (wide, inner))
    fine[:, :rows, :columns] = inner | (wide & (hu[:, :rows, :columns] < bone_hu))
    return fine
