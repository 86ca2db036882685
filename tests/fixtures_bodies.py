"""A drawn head on a drawn body: what a whole-body CT looks like to whoever looks for the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inference.training.cohort_ct import draw_ct
from inference.training.dicom_writer import CT_IMAGE_STORAGE, synthetic_uid
from inference.volume import Geometry, SliceSource, Volume

SIDE_PX = 420


def head_ct(seed: int = 700_001) -> Volume:
    """A synthetic head alone."""
    return draw_ct(seed, prevalence=1.0)[0]


def whole_body(head: Volume, body_slices: int = 110, seed: int = 0) -> Volume:
    """The head in a field of view of about 42 cm, above a trunk with lungs, ribs, spine and organs."""
    rng = np.random.default_rng(seed)
    count, rows, columns = head.voxels.shape
    top = (SIDE_PX - rows) // 3, (SIDE_PX - columns) // 2
    voxels = np.full((body_slices + count, SIDE_PX, SIDE_PX), -1000, np.float32)
    voxels[body_slices:, top[0] : top[0] + rows, top[1] : top[1] + columns] = head.voxels
    for z in range(body_slices):
        voxels[z] = trunk(rng, z / body_slices)
    return at_positions(voxels, head, first=-body_slices, key="body")


def trunk(rng: np.random.Generator, height: float) -> np.ndarray:
    """One slice of the body: abdomen at 0, chest at 1."""
    y, x = np.mgrid[-1 : 1 : SIDE_PX * 1j, -1 : 1 : SIDE_PX * 1j]
    outline = np.hypot(x / 0.85, y / 0.55) < 1
    picture = np.where(outline, -100.0, -1000.0)
    picture = np.where(np.hypot(x / 0.78, y / 0.48) < 1, 50.0, picture)
    if height > 0.4:
        for side in (-1, 1):
            picture = np.where(np.hypot((x - side * 0.38) / 0.28, (y + 0.02) / 0.34) < 1, -850.0, picture)
        ribs = np.abs(np.hypot(x / 0.74, y / 0.45) - 1) < 0.04
        picture = np.where(ribs & (np.sin(9 * np.arctan2(y, x) + 20 * height) > 0.3), 500.0, picture)
    else:
        picture = np.where(np.hypot((x + 0.35) / 0.3, y / 0.3) < 1, 60.0, picture)
        picture = np.where(np.hypot((x - 0.2) / 0.15, (y + 0.2) / 0.12) < 1, -500.0, picture)
    picture = np.where(np.hypot(x / 0.09, (y - 0.3) / 0.09) < 1, 350.0, picture)
    return np.asarray(picture + 9 * rng.normal(size=picture.shape), np.float32)


def long_neck(head: Volume, slices: int) -> Volume:
    """The head above a neck so many slices longer: the lowest slice again and again, a little changed."""
    rng = np.random.default_rng(3)
    lowest = head.voxels[0]
    neck = [
        np.roll(lowest, tuple(rng.integers(-2, 3, 2)), (0, 1)) + rng.normal(0, 3, lowest.shape) for _ in range(slices)
    ]
    voxels = np.concatenate([np.array(neck, np.float32), head.voxels])
    return at_positions(voxels, head, first=-slices, key="neck")


def at_positions(voxels: np.ndarray, head: Volume, first: int, key: str) -> Volume:
    """The volume whose slice ``-first`` lies where the head's lowest does."""
    whole, step = head.geometry, head.geometry.spacing_zyx_mm[0]
    affine = whole.affine_lps_mm.copy()
    affine[:3, 3] += first * affine[:3, 0]
    count = len(voxels)
    added = tuple(
        SliceSource(sop_instance_uid=synthetic_uid(key, z), sop_class_uid=CT_IMAGE_STORAGE) for z in range(-first)
    )
    geometry = Geometry(
        shape_zyx=(count, *voxels.shape[1:]),
        affine_lps_mm=affine,
        frame_of_reference_uid=whole.frame_of_reference_uid,
        slices=(*added, *whole.slices),
        positions_mm=tuple(whole.positions_mm[0] + (z + first) * step for z in range(count)),
    )
    return replace(head, voxels=voxels, geometry=geometry)
