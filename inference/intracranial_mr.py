"""The intracranial mask of a head MR, found without learning.

On T2 (and on proton density, FLAIR and T1 as well) a dark line of cortical bone and dura runs between the brain and
everything else, while face and orbits hang together with the skin through brighter tissue. So two floods, one from
the middle of the brain and one from the skin, brightest voxels first (a marker-controlled watershed: Meyer 1994),
meet in the skull without any threshold on a signal that has no units.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

from inference.result import Reason
from inference.volume import Volume

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]

WORKING_MM = 2.0
SKIN_MM = 3.0
SCALP_MM = 7.0  # scalp and skull over the vertex are nowhere thinner
MARKER_MM = 12.0  # how far the first flood starts inside the brain's edge
DEEP_MM = 24.0  # above the largest slice, what lies this deep under the skin is brain
WALL = 0.45  # of the brain's median signal: darker voxels at the rim are skull, not brain
VOLUME_ML = (600.0, 2300.0)
LARGEST_AREA_CM2 = (75.0, 290.0)
CANAL_CM2 = 9.0  # below this area the slice lies under the foramen magnum
_DISC = ndimage.generate_binary_structure(2, 1)


def mr_intracranial_mask(volume: Volume) -> Mask | Reason:
    """Find the cranial cavity of an axial head MR.

    Parameters
    ----------
    volume
        Raw signal ``[z, y, x]``; axial, slices up to 8 mm apart.

    Returns
    -------
    Mask or Reason
        Boolean ``[z, y, x]`` on the source grid; or why there is none: ``not_a_head``, ``incomplete_head``.
    """
    spacing_mm = volume.geometry.spacing_zyx_mm
    field_mm = (volume.voxels.shape[1] * spacing_mm[1], volume.voxels.shape[2] * spacing_mm[2])
    if volume.voxels.shape[0] < 4 or min(field_mm) < 100.0:
        return Reason(code="not_a_head", text="The volume is too small to hold a head (4 slices, 100 mm in plane).")
    factors = (1.0, spacing_mm[1] / WORKING_MM, spacing_mm[2] / WORKING_MM)
    coarse = _resample(volume.voxels, factors)
    head = _outline(coarse)
    start = _middle_of_the_brain(coarse, head)
    if isinstance(start, Reason):
        return start
    mask = _follow(_flood(coarse, head, start, spacing_mm[0]), coarse, start, spacing_mm[0])
    volume_ml = float(mask.sum()) * WORKING_MM**2 * spacing_mm[0] / 1000.0
    if volume_ml < VOLUME_ML[0]:
        return Reason(code="incomplete_head", text="Less than 600 ml of cranial cavity was found; the head is cut off.")
    if volume_ml > VOLUME_ML[1]:
        return Reason(code="not_a_head", text="The bright part enclosed by dark bone is larger than a brain.")
    areas = mask.sum(axis=(1, 2))[mask.any(axis=(1, 2))]
    if min(areas[0], areas[-1]) > 0.7 * areas.max():
        return Reason(code="not_a_head", text="The bright part enclosed by dark bone does not taper as a brain does.")
    return _to_grid(mask, volume.voxels.shape)


def _resample(voxels: Array, factors: tuple[float, float, float]) -> Array:
    """Average in plane to about 2 mm, so that the steps after it cost little and noise counts less."""
    width = tuple(max(1, round(1 / f)) for f in factors)
    smooth = ndimage.uniform_filter(voxels, width, mode="nearest") if max(width) > 1 else voxels
    return np.asarray(ndimage.zoom(smooth, factors, order=1, grid_mode=True, mode="nearest"), np.float32)


def _outline(signal: Array) -> Mask:
    """The head in each slice: everything brighter than background noise, holes filled."""
    bright = signal > 0.12 * float(np.percentile(signal, 98))
    filled = np.empty_like(bright)
    for z, slice_bright in enumerate(bright):
        closed = ndimage.binary_closing(np.pad(slice_bright, 6), _DISC, iterations=5)[6:-6, 6:-6]
        filled[z] = ndimage.binary_opening(ndimage.binary_fill_holes(closed), _DISC, iterations=2)
    return filled


def _middle_of_the_brain(signal: Array, head: Mask) -> Mask | Reason:
    """The inner part of the largest solid bright component of any one slice: surely brain, and brain alone."""
    pixel_cm2 = WORKING_MM**2 / 100.0
    best, best_cm2 = np.zeros_like(head), 0.0
    for z, outline in enumerate(head):
        depth = ndimage.distance_transform_edt(np.pad(outline, 1))[1:-1, 1:-1] * WORKING_MM
        if not (depth > 30.0).any():
            continue
        bright = (signal[z] > 0.5 * float(np.median(signal[z][depth > 30.0]))) & (depth > 2 * SKIN_MM)
        labels, count = ndimage.label(ndimage.binary_opening(bright, _DISC, iterations=3))
        if not count:
            continue
        part = labels == 1 + int(np.argmax(ndimage.sum_labels(bright, labels, np.arange(1, count + 1))))
        filled = ndimage.binary_fill_holes(part)
        area_cm2 = float(filled.sum()) * pixel_cm2
        if part.sum() > 0.8 * filled.sum() and best_cm2 < area_cm2 <= LARGEST_AREA_CM2[1]:
            inner = ndimage.distance_transform_edt(np.pad(filled, 1))[1:-1, 1:-1] * WORKING_MM > MARKER_MM
            best, best_cm2 = np.zeros_like(head), area_cm2
            best[z] = inner
    if best_cm2 < LARGEST_AREA_CM2[0] or not best.any():
        return Reason(code="not_a_head", text="No slice shows a brain enclosed by a skull.")
    return best


def _flood(signal: Array, head: Mask, start: Mask, step_mm: float) -> Mask:
    """What the flood from ``start`` reaches before the flood from the skin does."""
    spacing = (step_mm, WORKING_MM, WORKING_MM)
    depth = np.stack([ndimage.distance_transform_edt(np.pad(h, 1))[1:-1, 1:-1] for h in head]) * WORKING_MM
    # the air around the head lies beside it and above it, but a scan may also end inside the brain
    room = np.pad(np.pad(head, ((0, 0), (1, 1), (1, 1))), ((3, 3), (0, 0), (0, 0)), mode="edge")
    height_mm = ndimage.distance_transform_edt(room, sampling=spacing)[3:-3, 1:-1, 1:-1]
    above = np.arange(len(head))[:, None, None] > np.flatnonzero(start.any(axis=(1, 2)))[0]
    markers = np.where((depth < SKIN_MM) | (above & (height_mm < SCALP_MM)), 2, 0).astype(np.uint8)
    markers[start | (above & (depth > DEEP_MM) & (height_mm > 2 * SCALP_MM))] = 1
    # brighter than brain is as easy to flood as brain: only the dark line counts
    height = np.clip(255.0 * (1.0 - signal / float(np.median(signal[start]))), 0, 255).astype(np.uint8)
    return np.asarray(_watershed(height, markers) == 1, np.bool_)


def _watershed(height: npt.NDArray[np.uint8], markers: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    flooded = SimpleITK.MorphologicalWatershedFromMarkers(  # type: ignore[no-untyped-call]
        SimpleITK.GetImageFromArray(height), SimpleITK.GetImageFromArray(markers), False, False
    )  # no line between the regions, face neighbours only
    return np.asarray(SimpleITK.GetArrayFromImage(flooded), np.uint8)


def _follow(flooded: Mask, signal: Array, start: Mask, step_mm: float) -> Mask:
    """Take the dark rim off each slice, and keep what hangs together with the start from slice to slice."""
    wall = WALL * float(np.median(signal[start]))
    pixel_cm2 = WORKING_MM**2 / 100.0
    mask = np.zeros_like(flooded)
    below = max(1, round(0.6 * step_mm / WORKING_MM))  # upwards the brain only shrinks; downwards the cerebellum comes
    first = int(np.flatnonzero(start.any(axis=(1, 2)))[0])
    for direction in (1, -1):
        z, before = (first, flooded[first]) if direction > 0 else (first - 1, mask[first])
        lowest = -1 if direction > 0 else _lowest(mask, step_mm)
        while lowest < z < len(flooded):
            near = ndimage.binary_dilation(before, _DISC, iterations=1 if direction > 0 else below)
            found = _brain_of_slice(flooded[z] & near, signal[z] > wall, before, opening=2 if direction > 0 else 3)
            if found.sum() * pixel_cm2 < (CANAL_CM2 if direction < 0 else 1.0):
                break
            mask[z] = before = found
            z += direction
    return mask


def _lowest(mask: Mask, step_mm: float) -> int:
    """The slice under the foramen magnum, which lies about 0.82 of the brain's length below the vertex."""
    found = np.flatnonzero(mask.any(axis=(1, 2)))
    rows = np.flatnonzero(mask[found[0]].any(axis=1)) if found.size else np.zeros(1)
    length_mm = float(np.ptp(rows) + 1) * WORKING_MM
    return max(-1, int(found[-1] - 0.82 * length_mm / step_mm)) if found.size else -1


def _brain_of_slice(flooded: Mask, bright: Mask, before: Mask, *, opening: int) -> Mask:
    labels, _ = ndimage.label(ndimage.binary_opening(flooded & bright, _DISC, iterations=opening))
    touching = np.unique(labels[before])
    kept = np.isin(labels, touching[touching > 0])
    grown = ndimage.binary_dilation(kept, _DISC, iterations=opening, mask=flooded & bright)
    closed = ndimage.binary_closing(np.pad(grown, 8), _DISC, iterations=3)[8:-8, 8:-8]
    return np.asarray(ndimage.binary_fill_holes(closed & flooded), np.bool_)


def _to_grid(mask: Mask, shape: tuple[int, ...]) -> Mask:
    factors = tuple(n / m for n, m in zip(shape, mask.shape, strict=True))
    fine = ndimage.zoom(mask.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    return np.asarray(fine > 0.5, np.bool_)
