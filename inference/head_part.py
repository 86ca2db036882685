"""The part of a series that holds the brain, cut out of a neck, a vertex or a whole body.

Brain is never left out on purpose: what the slice-level model doubts stays, a margin stays at both ends, and where its
answer makes no sense the whole series stays. The intracranial mask then decides inside what is left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from inference.result import Reason
from inference.slice_level import BRAIN, LONG_MM, SliceLevels
from inference.volume import FloatArray, Geometry, Volume

MARGIN_MM = 15.0
MIN_MARGIN = 2  # slices
DOUBT = 0.1  # a slice with this chance of brain stays when it hangs together with the brain
MAX_DOUBT_MM = 60.0  # but no more than a face of them
RUN_MM = (60.0, 210.0)  # a brain is 110 to 160 mm high; a slab may be cut, a tilted head seen longer


def only_head(volume: Volume, levels: SliceLevels) -> Volume | Reason:
    """Return the volume without the slices that surely hold no brain; its notes say how many were left out.

    Parameters
    ----------
    volume
        An axial CT or MR series of any length.
    levels
        Of this volume.

    Returns
    -------
    Volume or Reason
        The same volume when nothing can be left out safely; ``not_a_head`` for a series longer than a head in which
        no slice looks like brain.
    """
    count, positions = len(levels.probabilities), volume.geometry.positions_mm
    kept = slices_to_keep(levels)
    if kept is None:
        long = positions[-1] - positions[0] > LONG_MM
        if long and float(levels.probabilities[:, BRAIN].max()) < 0.5:
            return Reason(code="not_a_head", text="No slice of the series, which is longer than a head, shows brain.")
        return volume
    if len(kept) == count:
        return volume
    note = f"{count - len(kept)} of {count} slices left out as holding no brain"
    return replace(cut(volume, kept), notes=(*volume.notes, note))


def slices_to_keep(levels: SliceLevels) -> range | None:
    """The run of brain slices, what is in doubt next to it, and a margin; None when the model's answer is no use."""
    run = levels.brain_run()
    if run is None or not levels.positions_mm:
        return None
    chance, positions = levels.probabilities[:, BRAIN], np.asarray(levels.positions_mm)
    length_mm = positions[run.stop - 1] - positions[run.start]
    if not RUN_MM[0] <= length_mm <= RUN_MM[1]:
        return None
    return range(_end(chance, positions, run.start, -1), _end(chance, positions, run.stop - 1, 1) + 1)


def _end(chance: FloatArray, positions: npt.NDArray[np.float64], edge: int, step: int) -> int:
    """The outermost slice to keep on one side."""
    last = edge
    while (
        0 <= last + step < len(chance)
        and chance[last + step] >= DOUBT
        and abs(positions[last + step] - positions[edge]) <= MAX_DOUBT_MM
    ):
        last += step
    outer = np.flatnonzero(np.abs(positions - positions[last]) <= MARGIN_MM)
    by_mm = int(outer.min() if step < 0 else outer.max())
    by_count = last + step * MIN_MARGIN
    wanted = min(by_mm, by_count) if step < 0 else max(by_mm, by_count)
    return int(np.clip(wanted, 0, len(chance) - 1))


def cut(volume: Volume, kept: range) -> Volume:
    """The slices ``kept`` of a volume, where they lie in the patient and with the instances they came from."""
    whole = volume.geometry
    positions = whole.positions_mm[kept.start : kept.stop]
    affine = whole.affine_lps_mm.copy()
    per_mm = affine[:3, 0] / np.median(np.diff(whole.positions_mm))
    affine[:3, 3] += per_mm * (positions[0] - whole.positions_mm[0])
    affine[:3, 0] = per_mm * np.median(np.diff(positions))
    geometry = Geometry(
        shape_zyx=(len(kept), *whole.shape_zyx[1:]),
        affine_lps_mm=affine,
        frame_of_reference_uid=whole.frame_of_reference_uid,
        slices=whole.slices[kept.start : kept.stop],
        positions_mm=positions,
    )
    return replace(volume, voxels=volume.voxels[kept.start : kept.stop], geometry=geometry)
