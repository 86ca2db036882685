"""Which slices speak for a finding, and where on them: key slices, the outline of the heatmap's peak, the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_sr.request import ResultRequest
from inference.result import Finding
from inference.volume import SliceSource, Volume

MAX_KEY_SLICES = 5
ATTENTION_COVERED = 0.8
PEAK_FRACTION = 0.5
MAX_OUTLINE_POINTS = 64

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """A heatmap object the report points to: its dataset, and its frame (1-based) per source slice.

    ``frame_of`` is None for a single-frame object, which shows the slice ``index``.
    """

    dataset: Dataset
    frame_of: dict[int, int] | None
    index: int = 0

    def shows(self, z: int) -> bool:
        """Whether a slice is in the object."""
        return z == self.index if self.frame_of is None else z in self.frame_of


def key_slices(finding: Finding) -> tuple[int, ...]:
    """Return the indices of a finding's key slices, most attended first.

    The smallest set of slices that holds 80 % of the attention, less those whose own probability is below the
    threshold, at most five; the most attended slice alone when that leaves none. Empty without slice evidence.
    """
    if not finding.slices:
        return ()
    attention = np.array([evidence.attention for evidence in finding.slices])
    order = np.argsort(-attention, kind="stable")
    covered = np.cumsum(attention[order])
    smallest = order[: int(np.searchsorted(covered, ATTENTION_COVERED * covered[-1] - 1e-9)) + 1]
    chosen = [int(z) for z in smallest if finding.slices[z].probability >= finding.threshold]
    return tuple(chosen[:MAX_KEY_SLICES]) or (int(order[0]),)


def analysed_slices(request: ResultRequest) -> tuple[SliceSource, ...]:
    """Return the analysed slices in z order; empty when nothing was analysed."""
    if request.volume is not None:
        return request.volume.geometry.slices
    if request.result is None:
        return ()
    if request.result.heatmap is not None:
        return request.result.heatmap.geometry.slices
    return tuple(_source_of(source) for source in request.sources)


def _source_of(source: Dataset) -> SliceSource:
    frames = int(source.get("NumberOfFrames") or 0)
    return SliceSource(
        sop_instance_uid=source.SOPInstanceUID,
        sop_class_uid=source.SOPClassUID,
        frame_number=max(1, frames // 2) if frames else None,
    )


def shown_slice(request: ResultRequest, finding: Finding | None) -> SliceSource | None:
    """Return the one image a group points to: a viewer opens the report on it."""
    slices = analysed_slices(request)
    if not slices:
        first = request.sources[0]
        return _source_of(first) if first.get("Rows") else None
    chosen = key_slices(finding) if finding else ()
    return slices[chosen[0] if chosen else len(slices) // 2]


def head_box(volume: Volume, z: int) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom of what is no air on a slice, in image-relative pixels; None when all is air."""
    values = volume.voxels[z]
    air = -300.0 if volume.modality == "CT" else 0.1 * float(np.percentile(values, 99.0))
    rows, columns = (np.flatnonzero((values > air).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def peak_outline(heat: npt.NDArray[np.float32]) -> tuple[Point, ...]:
    """Return the closed outline of the region around a slice's hottest pixel.

    The region holds the peak and every pixel connected to it by an edge with at least half its value.

    Parameters
    ----------
    heat
        ``[y, x]``, 0..1.

    Returns
    -------
    tuple of (column, row)
        Image-relative coordinates of PS3.3 C.18.6.1.1, in pixels: (0, 0) is the corner of the first pixel. The last
        point repeats the first. Empty when the slice is cold.
    """
    if not heat.size or not float(heat.max()) > 0:
        return ()
    peak = np.unravel_index(int(np.argmax(heat)), heat.shape)
    region = _connected(heat >= PEAK_FRACTION * heat[peak], (int(peak[0]), int(peak[1])))
    points = _outer_border(region)
    tolerance = 0.5
    while len(simple := _simplified(points, tolerance)) > MAX_OUTLINE_POINTS:
        tolerance *= 1.5
    return tuple((float(x), float(y)) for x, y in simple)


def _connected(mask: npt.NDArray[np.bool_], seed: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the 4-connected part of ``mask`` that holds ``seed``."""
    part = np.zeros_like(mask)
    part[seed] = True
    size = 0
    while (now := int(part.sum())) != size:
        size = now
        grown = part.copy()
        grown[1:] |= part[:-1]
        grown[:-1] |= part[1:]
        grown[:, 1:] |= part[:, :-1]
        grown[:, :-1] |= part[:, 1:]
        part = grown & mask
    return part


def _outer_border(region: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the corners of the outer border, clockwise and closed, walking along pixel edges."""
    padded = np.pad(region, 1)
    inside = padded[1:-1, 1:-1]
    exits: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for neighbour, start, step in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        for y, x in np.argwhere(inside & ~neighbour):
            exits.setdefault((int(x) + start[0], int(y) + start[1]), set()).add(step)
    first = min(exits, key=lambda corner: (corner[1], corner[0]))
    points, corner, step = [first], first, (1, 0)
    while True:
        corner = (corner[0] + step[0], corner[1] + step[1])
        if corner == first:
            return [*points, first]
        right, left = (-step[1], step[0]), (step[1], -step[0])
        turn = next(way for way in (right, step, left) if way in exits[corner])
        if turn != step:
            points.append(corner)
        step = turn


def _simplified(points: list[tuple[int, int]], tolerance: float) -> list[tuple[int, int]]:
    """Return the closed line with fewer points, none farther than ``tolerance`` from it (Douglas and Peucker 1973)."""
    line = np.array(points, dtype=np.float64)
    half = int(np.argmax(np.hypot(*(line - line[0]).T)))
    keep = {0, half, len(points) - 1}
    spans = [(0, half), (half, len(points) - 1)]
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        chord = line[end] - line[start]
        offsets = line[start + 1 : end] - line[start]
        distance = np.abs(chord[0] * offsets[:, 1] - chord[1] * offsets[:, 0]) / max(float(np.hypot(*chord)), 1e-9)
        far = int(np.argmax(distance))
        if distance[far] > tolerance:
            middle = start + 1 + far
            keep.add(middle)
            spans += [(start, middle), (middle, end)]
    return [points[index] for index in sorted(keep)]
