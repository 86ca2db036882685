"""Slices sorted into stacks: one orientation, one grid, one slice at each position, feet to head.

Pure geometry on plain values, shared by the rules that choose a series (from headers) and by the reader (from files),
so that both speak of the same slices. Positions are mm in the DICOM patient frame (LPS).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

Vector3 = tuple[float, float, float]
Vector6 = tuple[float, float, float, float, float, float]

SAME_POSITION_MM = 0.05
SAME_SPACING_MM = 0.15
AXIAL_LIMIT_DEGREES = 45.0
_T2_ECHO_MS = 200.0  # beyond this a longer echo is no longer the better T2 weighting


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one slice (an image or a frame) lies, and what sets it apart from others at the same position.

    ``contrasts`` holds, in order of weight, values that may tell repeated positions apart: frame type, echo time,
    b-value, temporal position, acquisition number.
    """

    position_mm: Vector3
    orientation: Vector6
    rows: int
    columns: int
    order: tuple[int, int]  # instance number, frame: which of two equal slices is the first
    echo_time_ms: float | None = None
    b_value: float | None = None
    contrasts: tuple[Hashable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Indices into the places, ascending along ``normal``, with each slice's position along it in mm."""

    indices: tuple[int, ...]
    normal: Vector3
    positions_mm: tuple[float, ...]
    duplicates: int

    @property
    def extent_mm(self) -> float:
        """From the first slice's centre to the last one's."""
        return self.positions_mm[-1] - self.positions_mm[0]

    @property
    def spacing_mm(self) -> float | None:
        """Median step; None for one slice."""
        steps = np.diff(self.positions_mm)
        return float(np.median(steps)) if len(steps) else None

    @property
    def tilt_degrees(self) -> float:
        """Angle between the slices' normal and the body's long axis (z), 0..90."""
        return float(np.degrees(np.arccos(min(1.0, abs(self.normal[2])))))


def split(places: Sequence[Place]) -> list[Stack]:
    """Return the stacks of a series, largest first; every place is in exactly one stack, or a counted duplicate."""
    stacks = [stack for members in _by_orientation(places) for stack in _by_contrast(places, members)]
    return sorted(stacks, key=lambda s: len(s.indices), reverse=True)


def main_stack(places: Sequence[Place], stacks: Sequence[Stack]) -> Stack:
    """Return the stack to analyse: axial before others, then the complete, then the lowest b, then the longest echo.

    The longest echo of a dual-echo series is its T2 weighting.
    """
    most = max(len(s.indices) for s in stacks)

    def rank(stack: Stack) -> tuple[bool, bool, float, float, int]:
        first = places[stack.indices[0]]
        return (
            stack.tilt_degrees <= AXIAL_LIMIT_DEGREES and len(stack.indices) > 3,
            len(stack.indices) >= 0.8 * most,
            -(first.b_value or 0.0),
            min(first.echo_time_ms or 0.0, _T2_ECHO_MS),
            len(stack.indices),
        )

    return max(stacks, key=rank)


def missing_positions(positions_mm: Sequence[float], expected_step_mm: float | None = None) -> int:
    """Count positions missing from a piecewise-constant spacing (0: none).

    Runs of three and more equal steps are spacings of their own; any other step is held against its neighbouring run.
    ``expected_step_mm`` (from the header) tells that a whole run is short of slices, as when every second one has come.
    """
    steps = [b - a for a, b in pairwise(positions_mm)]
    if not steps:
        return 0
    runs = _runs(steps)
    solid = [i for i, run in enumerate(runs) if len(run) >= 3]
    missing = 0
    for i, run in enumerate(runs):
        if i in solid or not solid:
            usual = sorted(steps)[len(steps) // 4]  # of few steps more may be gaps than not
            reference = expected_step_mm if solid else min(usual, expected_step_mm or np.inf)
        else:
            before = [median(runs[j]) for j in solid if j < i][-1:]
            after = [median(runs[j]) for j in solid if j > i][:1]
            reference = min([*before, *after])
        if reference:
            missing += sum(max(0, round(step / reference) - 1) for step in run if step > 1.5 * reference)
    return int(missing)


def is_regular(positions_mm: Sequence[float]) -> bool:
    """Whether all steps are equal within 0.15 mm or 5 %."""
    steps = np.diff(positions_mm)
    if len(steps) < 2:
        return True
    middle = float(np.median(steps))
    return bool(np.all(np.abs(steps - middle) <= max(SAME_SPACING_MM, 0.05 * middle)))


def _runs(steps: Sequence[float]) -> list[list[float]]:
    runs: list[list[float]] = []
    for step in steps:
        if runs and abs(step - median(runs[-1])) <= max(SAME_SPACING_MM, 0.05 * median(runs[-1])):
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs


def is_orientation(orientation: Vector6) -> bool:
    """Whether row and column directions are two unit vectors at right angles (within rounding)."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    return bool(all(abs(length - 1) < 0.02 for length in lengths) and abs(float(row @ column)) < 0.02)


def shear_degrees(positions_mm: Sequence[Vector3], normal: Vector3) -> float:
    """Angle between the normal and the line of slice origins (a tilted gantry's stack is sheared), 0..90."""
    if len(positions_mm) < 2:
        return 0.0
    line = np.subtract(positions_mm[-1], positions_mm[0])
    length = float(np.linalg.norm(line))
    return float(np.degrees(np.arccos(min(1.0, abs(float(line @ normal)) / length)))) if length else 0.0


def normal_of(orientation: Vector6) -> Vector3:
    """Unit normal of a slice, its largest component positive (to the head for axial slices)."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length < 1e-3:
        raise ValueError("row and column directions are parallel")
    normal = normal / length
    if normal[int(np.argmax(np.abs(normal)))] < 0:
        normal = -normal
    return float(normal[0]), float(normal[1]), float(normal[2])


def _by_orientation(places: Sequence[Place]) -> list[list[int]]:
    """Indices grouped by size and orientation (alike within about 1 degree)."""
    groups: list[list[int]] = []
    known: dict[Hashable, list[int]] = {}
    for index, place in enumerate(places):
        key = (place.orientation, place.rows, place.columns)
        if key not in known:
            alike = [group for group in groups if _alike(places[group[0]], place)]
            if not alike:
                groups.append([])
            known[key] = alike[0] if alike else groups[-1]
        known[key].append(index)
    return groups


def _alike(a: Place, b: Place) -> bool:
    same_size = (a.rows, a.columns) == (b.rows, b.columns)
    return same_size and bool(np.allclose(a.orientation, b.orientation, atol=0.02))


def _by_contrast(places: Sequence[Place], members: Sequence[int]) -> list[Stack]:
    """Tell repeated positions apart by the first contrast that does so; what stays repeated is a duplicate."""
    whole = _stack(places, members)
    if whole.duplicates == 0:
        return [whole]
    for column in range(max(len(places[i].contrasts) for i in members)):
        parts = _partition(members, [places[i].contrasts[column : column + 1] for i in members])
        stacks = [_stack(places, part) for part in parts]
        if len(stacks) > 1 and sum(s.duplicates for s in stacks) < 0.5 * whole.duplicates:
            return [s for part in parts for s in _by_contrast(places, part)]
    return [whole]


def _partition(members: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    parts: dict[Hashable, list[int]] = {}
    for index, key in zip(members, keys, strict=True):
        parts.setdefault(key, []).append(index)
    return list(parts.values())


def _stack(places: Sequence[Place], members: Sequence[int]) -> Stack:
    normal = normal_of(places[members[0]].orientation)
    along = {i: float(np.dot(places[i].position_mm, normal)) for i in members}
    kept: list[int] = []
    for index in sorted(members, key=lambda i: (round(along[i] / SAME_POSITION_MM), places[i].order)):
        if not kept or along[index] - along[kept[-1]] > SAME_POSITION_MM:
            kept.append(index)
    return Stack(
        indices=tuple(kept),
        normal=normal,
        positions_mm=tuple(along[i] for i in kept),
        duplicates=len(members) - len(kept),
    )
