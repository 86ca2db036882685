"""Where in the head a slice lies: below the brain, brain, above it, or no head at all; and its height in millimetres.

The node uses it to leave out slices that hold no brain and to find the head in a longer series
(:mod:`inference.head_part`). The shipped model was
trained on synthetic heads, CT and MR of random contrast, and on synthetic bodies and phantoms; nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from inference.result import ModelId
from inference.volume import Volume
from inference.weights import load_weights, shipped

SIDE_PX = 64
FIELD_MM = 230.0
CT_WINDOW_HU = (-60.0, 140.0)
LEVEL_UNIT_MM = 50.0
CLASSES = ("below", "brain", "above", "no_head")
BRAIN = CLASSES.index("brain")
BRAIN_MM = (-60.0, 80.0)  # height at which a slice is as likely to show brain as not
BRAIN_EDGE_MM = 6.0  # how soft these edges are: heads are not alike, and the height is read to some millimetres
ANCHOR_MM = (-40.0, 60.0)  # levels that are plainly inside the brain
MIN_ANCHORS = 6
MAX_SPREAD_MM = 20.0
MIN_RUN = 3  # shorter runs of brain slices are stray votes
SURE = 0.9
MIN_SURE = 0.75  # share of a run that must be sure: a head is plain in most of its slices, a phantom only now and then
STRONGEST = 4.0  # log odds: no slice speaks louder, so one doubtful slice does not cut a head in two
BLOCK_MM = 160.0  # so much of a long series is centred at a time: a head lies elsewhere than the body below it
LONG_MM = 260.0  # longer than a head with its neck

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLevels:
    """One entry a slice, z order.

    Attributes
    ----------
    probabilities
        ``[n, classes]``, rows sum to 1.
    level_mm
        Height in template space (MNI z) as the network reads it off each slice alone.
    positions_mm
        Where the slices lie along the normal; empty when unknown.
    """

    probabilities: FloatArray
    level_mm: FloatArray
    model: ModelId
    positions_mm: tuple[float, ...] = ()

    @property
    def height_mm(self) -> FloatArray | None:
        """Height of each slice in template space by the series as a whole; None when too little of it is sure.

        Slices that are surely brain and plainly inside it fix where the series lies; one millimetre of table is one
        of template. Faces, which fool the network one by one, then lie where they are: below the skull base.
        """
        if not self.positions_mm:
            return None
        positions = np.asarray(self.positions_mm, dtype=np.float32)
        low, high = ANCHOR_MM
        sure = (self.probabilities[:, BRAIN] > SURE) & (self.level_mm > low) & (self.level_mm < high)
        if sure.sum() < MIN_ANCHORS:
            return None
        offsets = (self.level_mm - positions)[sure]
        middle = np.median(offsets)
        if np.median(np.abs(offsets - middle)) > MAX_SPREAD_MM:
            return None
        return np.asarray(positions + middle, dtype=np.float32)

    @property
    def brain(self) -> npt.NDArray[np.bool_]:
        """Which slices show brain: one run of a series; each by itself where there is no series."""
        run = self.brain_run()
        if not self.positions_mm or len(self.probabilities) < MIN_RUN:
            return np.asarray(self.probabilities[:, BRAIN] >= 0.5)
        marked = np.zeros(len(self.probabilities), dtype=bool)
        if run is not None:
            marked[run.start : run.stop] = True
        return marked

    def brain_run(self) -> range | None:
        """The run of slices most likely to be the brain: largest sum of log odds; None when there is no head.

        A head holds its brain in one piece, so stray votes elsewhere do not count and a doubtful slice inside does; a
        run of little but doubt is no head.
        """
        odds = self._log_odds()
        best, best_sum, start, running = range(0), 0.0, 0, 0.0
        for z, value in enumerate(odds):
            if running <= 0.0:
                start, running = z, 0.0
            running += float(value)
            if running > best_sum:
                best, best_sum = range(start, z + 1), running
        if len(best) < MIN_RUN:
            return None
        sure = float((self.probabilities[best.start : best.stop, BRAIN] > SURE).mean())
        return best if sure >= MIN_SURE else None

    def _log_odds(self) -> FloatArray:
        """Brain against anything else, by what the network sees; the height may object, it does not vouch.

        A height is right to about 15 mm where the brain ends, the network to a slice; but it takes a face for brain
        that lies where no brain can be.
        """
        chance = np.clip(self.probabilities[:, BRAIN], 1e-6, 1 - 1e-6)
        odds = np.clip(np.log(chance / (1 - chance)), -STRONGEST, STRONGEST)
        height = self.height_mm
        if height is not None:
            inside_mm = np.minimum(height - BRAIN_MM[0], BRAIN_MM[1] - height)
            odds = odds + np.clip(inside_mm / BRAIN_EDGE_MM, -STRONGEST, 0.0)
        return np.asarray(odds, dtype=np.float32)


class SliceNet(nn.Module):
    """Small CNN on 64 x 64 pixels with two channels: grey value, and whether it is CT. Gives class logits and level."""

    def __init__(self, classes: int = len(CLASSES), width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 2
        for outside, kernel in ((width, 5), (2 * width, 3), (4 * width, 3), (4 * width, 3)):
            layers += [nn.Conv2d(inside, outside, kernel, 2, kernel // 2), nn.BatchNorm2d(outside), nn.ReLU()]
            inside = outside
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(inside * (SIDE_PX // 16) ** 2, classes + 1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``[n, 2, 64, 64]`` -> class logits ``[n, classes]`` and level ``[n]`` in units of 50 mm."""
        out = self.head(self.features(pictures))
        return out[:, :-1], out[:, -1]


class SliceLevelModel:
    """A loaded model; calls may come from any thread."""

    def __init__(self, network: SliceNet, model: ModelId, classes: tuple[str, ...]) -> None:
        self._network = network.eval()
        self.model = model
        self.classes = classes

    @classmethod
    def load(cls, folder: Path | None = None) -> SliceLevelModel:
        """Load a model folder, None: the shipped one; raise WrongModel when it is missing or damaged."""
        metadata, tensors = load_weights(folder or shipped("slice_level"))
        classes = tuple(metadata.architecture["classes"])
        network = SliceNet(len(classes), int(metadata.architecture["width"]))
        network.load_state_dict(tensors)
        return cls(network, metadata.model_id, classes)

    def levels(self, volume: Volume) -> SliceLevels:
        """Place every slice of a volume; of a long series the head is looked for first, and then looked at again."""
        positions = volume.geometry.positions_mm
        found = self.levels_of(self._pictures(volume, 0, len(positions)), positions)
        run = found.brain_run()
        if run is None or positions[-1] - positions[0] <= LONG_MM:
            return found
        middle = (positions[run.start] + positions[run.stop - 1]) / 2
        first, last = np.searchsorted(positions, (middle - LONG_MM / 2, middle + LONG_MM / 2))
        closer = self.levels_of(self._pictures(volume, int(first), int(last)))
        probabilities, level_mm = found.probabilities.copy(), found.level_mm.copy()
        probabilities[first:last], level_mm[first:last] = closer.probabilities, closer.level_mm
        return replace(found, probabilities=probabilities, level_mm=level_mm)

    def _pictures(self, volume: Volume, first: int, last: int) -> torch.Tensor:
        """Prepared slices ``first`` to ``last``, a block at a time when they are more than a head."""
        _, row_mm, column_mm = volume.geometry.spacing_zyx_mm
        positions = volume.geometry.positions_mm[first:last]
        blocks = -(-(positions[-1] - positions[0]) // BLOCK_MM) if positions[-1] - positions[0] > LONG_MM else 1
        edges = np.linspace(first, last, int(blocks) + 1).round().astype(int)
        return torch.cat(
            [
                prepare(volume.voxels[start:end], (row_mm, column_mm), volume.modality == "CT")
                for start, end in pairwise(edges)
            ]
        )

    def levels_of(self, pictures: torch.Tensor, positions_mm: tuple[float, ...] = ()) -> SliceLevels:
        """Place prepared slices ``[n, 2, 64, 64]``; with their positions, as a series."""
        with torch.inference_mode():
            parts = [self._network(pictures[at : at + 64]) for at in range(0, len(pictures), 64)]
        logits = torch.cat([part[0] for part in parts])
        level = torch.cat([part[1] for part in parts]) * LEVEL_UNIT_MM
        return SliceLevels(
            probabilities=logits.softmax(dim=1).numpy(),
            level_mm=level.numpy(),
            model=self.model,
            positions_mm=tuple(positions_mm),
        )


def prepare(voxels: FloatArray, spacing_yx_mm: tuple[float, float], is_ct: bool) -> torch.Tensor:
    """Slices ``[n, rows, columns]`` -> network input ``[n, 2, 64, 64]`` over 230 mm round the head's middle.

    CT is windowed; MR is divided by its slice's 99th percentile, so single slices can be judged.
    """
    steps = [max(1, int(1.0 // mm)) for mm in spacing_yx_mm]  # a millimetre is fine enough on the way to 3.6 mm
    thinned = np.ascontiguousarray(voxels[:, :: steps[0], :: steps[1]], dtype=np.float32)
    spacing_yx_mm = (spacing_yx_mm[0] * steps[0], spacing_yx_mm[1] * steps[1])
    values = torch.from_numpy(np.nan_to_num(thinned))[:, None]
    if is_ct:
        low, high = CT_WINDOW_HU
        values = ((values - low) / (high - low)).clamp(0, 1)
    else:
        step = max(1, values.shape[-1] // 128)
        bright = torch.quantile(values[..., ::step, ::step].flatten(1), 0.99, dim=1).clamp(min=1e-6)
        values = (values / bright[:, None, None, None]).clamp(0, 1.2)
    size = [max(1, round(n * mm * SIDE_PX / FIELD_MM)) for n, mm in zip(values.shape[2:], spacing_yx_mm, strict=True)]
    small = functional.interpolate(values, size=size, mode="area")
    small = _centred(small)
    return torch.cat([small, torch.full_like(small, float(is_ct))], dim=1)


def _centred(pictures: torch.Tensor) -> torch.Tensor:
    """Crop or pad to 64 x 64 round the middle of what is bright in all slices together."""
    shown = (pictures.amax(dim=(0, 1)) > 0.15).float()
    out = pictures
    for axis in (0, 1):
        line = shown.amax(dim=1 - axis)
        where = torch.nonzero(line)
        middle = int((where.min() + where.max() + 1) // 2) if len(where) else len(line) // 2
        before, after = SIDE_PX // 2 - middle, SIDE_PX // 2 - (len(line) - middle)
        padding = (0, 0, before, after) if axis == 0 else (before, after, 0, 0)
        out = functional.pad(out, padding)
    return out
