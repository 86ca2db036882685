"""Where in the head a slice lies: below the brain, brain, above it, or no head at all; and its height in millimetres.

The node uses it to leave out slices that hold no brain and to find the head in a longer series. The shipped model was
trained on synthetic heads, CT and MR of random contrast, and on synthetic bodies and phantoms; nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
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
BRAIN_MM = (-62.0, 79.0)  # of synthetic heads: below lie 1 % of the slices with brain, above 0.7 %
ANCHOR_MM = (-40.0, 60.0)  # levels that are plainly inside the brain
MIN_ANCHORS = 6
MAX_SPREAD_MM = 20.0
MIN_RUN = 3  # shorter runs of brain slices are stray votes
MAX_GAP = 2  # slices inside the brain that the network doubts

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
        sure = (self.probabilities[:, BRAIN] > 0.9) & (self.level_mm > low) & (self.level_mm < high)
        if sure.sum() < MIN_ANCHORS:
            return None
        offsets = (self.level_mm - positions)[sure]
        middle = np.median(offsets)
        if np.median(np.abs(offsets - middle)) > MAX_SPREAD_MM:
            return None
        return np.asarray(positions + middle, dtype=np.float32)

    @property
    def brain(self) -> npt.NDArray[np.bool_]:
        """Which slices show brain: the network's likelier answer, within the height that a brain can have."""
        said = np.asarray(self.probabilities[:, BRAIN] >= 0.5)
        height = self.height_mm
        if height is None:
            return said
        low, high = BRAIN_MM
        return np.asarray(said & (height > low) & (height < high))

    def brain_run(self) -> range | None:
        """The longest run of brain slices, small gaps closed; None when there is no head in the series."""
        marked = np.flatnonzero(self.brain)
        if len(marked) == 0:
            return None
        breaks = np.flatnonzero(np.diff(marked) > MAX_GAP + 1)
        runs = np.split(marked, breaks + 1)
        longest = max(runs, key=len)
        return range(int(longest[0]), int(longest[-1]) + 1) if len(longest) >= MIN_RUN else None


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
        """Place every slice of a volume."""
        _, row_mm, column_mm = volume.geometry.spacing_zyx_mm
        pictures = prepare(volume.voxels, (row_mm, column_mm), volume.modality == "CT")
        return self.levels_of(pictures, volume.geometry.positions_mm)

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
