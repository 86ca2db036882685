"""Signed distances, in mm and negative inside, of the simple shapes that synthetic heads and lesions are built from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Point = tuple[float, float, float]


def ellipsoids(x: Array, y: Array, z: Array, shapes: Sequence[tuple[Point, Point]]) -> Array:
    """Union of ellipsoids ``(centre, radii)``; exact on the surface, first-order near it."""
    union: Array | None = None
    for (cx, cy, cz), (rx, ry, rz) in shapes:
        k0 = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
        k1 = np.sqrt(((x - cx) / rx**2) ** 2 + ((y - cy) / ry**2) ** 2 + ((z - cz) / rz**2) ** 2)
        distance = np.asarray(k0 * (k0 - 1.0) / np.maximum(k1, 1e-6), np.float32)
        union = distance if union is None else np.minimum(union, distance)
    if union is None:
        raise ValueError("no shapes given")
    return union


def capsules(x: Array, y: Array, z: Array, shapes: Sequence[tuple[Point, Point, float]]) -> Array:
    """Union of capsules ``(end, end, radius)``: the points within ``radius`` of a line segment."""
    union: Array | None = None
    for (ax, ay, az), (bx, by, bz), radius in shapes:
        dx, dy, dz = bx - ax, by - ay, bz - az
        along = ((x - ax) * dx + (y - ay) * dy + (z - az) * dz) / (dx * dx + dy * dy + dz * dz)
        t = np.clip(along, 0.0, 1.0)
        distance = np.sqrt((x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2 + (z - az - t * dz) ** 2) - radius
        union = np.asarray(distance if union is None else np.minimum(union, distance), np.float32)
    if union is None:
        raise ValueError("no shapes given")
    return union


def smooth_union(a: Array, b: Array, blend_mm: float) -> Array:
    """Union of two distance fields whose seam is rounded over ``blend_mm`` (polynomial smooth minimum)."""
    h = np.maximum(blend_mm - np.abs(a - b), 0.0) / blend_mm
    return np.asarray(np.minimum(a, b) - h * h * blend_mm * 0.25, np.float32)
