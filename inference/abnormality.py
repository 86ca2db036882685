"""Axial T2 head MRI -> probability that something is abnormal, with a heatmap and the seven categories as extras.

The network and its input are in :mod:`inference.abnormality_net` and :mod:`inference.mr_input`. A volume that is not
like the ones the model was trained on (another contrast, not a head) gets a reason instead of a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from inference.abnormality_net import OUTPUTS, AbnormalityNetwork, fast_layout, network_of, slice_channels
from inference.calibration import sigmoid
from inference.intracranial import intracranial_mask
from inference.mr_input import SIZE, Grid, from_grid, prepare
from inference.result import Finding, Heatmap, InferenceResult, ModelId, Reason, SliceEvidence
from inference.volume import FloatArray, Volume
from inference.weights import Metadata, WrongModel, load_weights

CATEGORY_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What the network says of one study: logits ``[8]``; per slice logits, weights ``[n, 8]``; heat ``[n, y, x]``."""

    study: npt.NDArray[np.float32]
    slices: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    heat: FloatArray


@dataclass(frozen=True, slots=True)
class Prepared:
    """A volume on the network's grid."""

    image: FloatArray
    inside: npt.NDArray[np.bool_]
    grid: Grid


def contrast_figures(image: FloatArray, inside: npt.NDArray[np.bool_], step_mm: float) -> dict[str, float]:
    """Figures that tell T2 from other contrasts: quantiles of the normalised brain signal, and its volume in litres.

    On T2 fluid is the brightest thing in the head and little is dark; on T1 and FLAIR fluid is dark; on proton
    density nothing stands out.
    """
    brain = image[inside]
    low, quarter, three, high = np.percentile(brain, [3, 25, 75, 98]) if brain.size else (0.0,) * 4
    litres = inside.sum() * 1.5**2 * step_mm / 1e6
    return {"low": float(low), "spread": float(three - quarter), "high": float(high), "litres": float(litres)}


def predict(network: AbnormalityNetwork, studies: Sequence[Prepared], device: torch.device) -> list[Answer]:
    """Run the network on studies and on their mirror images, in one batch, and average."""
    lengths = [len(s.image) for s in studies]
    image = torch.from_numpy(np.concatenate([s.image for s in studies]))
    mask = torch.from_numpy(np.concatenate([s.inside for s in studies]).astype(np.float32))
    sums: list[npt.NDArray[np.float32]] = []
    with torch.inference_mode():
        for mirrored in (False, True):
            x = slice_channels(image, mask, lengths)
            x = (x.flip(3) if mirrored else x).contiguous(memory_format=torch.channels_last)
            maps, slices, weights, study = network(x.to(device), lengths)
            heat = maps[:, 0].flip(2) if mirrored else maps[:, 0]
            found = [part.float().cpu().numpy() for part in (study, slices, weights, heat)]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    study, slices, weights, heat = (0.5 * part for part in sums)
    edges = np.cumsum(lengths)[:-1]
    split = [np.split(part, edges) for part in (slices, weights, heat)]
    return [
        Answer(study[i], split[0][i], split[1][i], sigmoid(split[2][i]).astype(np.float32)) for i in range(len(lengths))
    ]


class AbnormalityModel:
    """A loaded MR model (see :class:`inference.engine.PurposeModel`)."""

    def __init__(
        self, network: AbnormalityNetwork, metadata: Metadata, device: torch.device, operating_point: str | None = None
    ) -> None:
        self._network = network.to(device).eval()
        self._metadata, self._device = metadata, device
        self._point_name, self._point = metadata.operating_point(operating_point)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, operating_point: str | None) -> Self:
        """Load a verified model folder; raise WrongModel for one that must not be used."""
        metadata, tensors = load_weights(folder)
        network = network_of(metadata.architecture)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise WrongModel(f"the weights in {folder} do not fit the architecture in its metadata: {error}") from error
        return cls(fast_layout(network), metadata, device, operating_point)

    @property
    def model_id(self) -> ModelId:
        """Which weights these are."""
        return self._metadata.model_id

    def warm_up(self) -> None:
        """Run once on an empty study."""
        blank = np.zeros((2, SIZE, SIZE), np.float32)
        grid = Grid(group=1, first=0, count=2, centre_yx=(0, 0), spacing_yx_mm=(1, 1), shape_zyx=(2, SIZE, SIZE))
        predict(self._network, [Prepared(blank, blank > 0, grid)], self._device)

    def analyse(self, volumes: Sequence[Volume]) -> list[InferenceResult]:
        """Answer for each volume, in order; all slices go through the network together."""
        prepared = [self._prepare(volume) for volume in volumes]
        usable = [p for p in prepared if isinstance(p, Prepared)]
        answers = iter(predict(self._network, usable, self._device) if usable else [])
        return [
            self._declined(p) if isinstance(p, Reason) else self._result(volume, p, next(answers))
            for volume, p in zip(volumes, prepared, strict=True)
        ]

    def _prepare(self, volume: Volume) -> Prepared | Reason:
        if volume.modality != "MR":
            return Reason(code="wrong_modality", text=f"This model reads MR; the series is {volume.modality}.")
        mask = intracranial_mask(volume)
        if isinstance(mask, Reason):
            return mask
        image, grid = prepare(volume, mask)
        inside = image > -2.0 + 1e-6
        step_mm = volume.geometry.spacing_zyx_mm[0] * grid.group
        return self._unlike_training(image, inside, step_mm) or Prepared(image, inside, grid)

    def _unlike_training(self, image: FloatArray, inside: npt.NDArray[np.bool_], step_mm: float) -> Reason | None:
        limits: Mapping[str, Sequence[float]] = self._metadata.architecture.get("limits", {})
        for name, value in contrast_figures(image, inside, step_mm).items():
            low, high = limits.get(name, (-np.inf, np.inf))
            if not low <= value <= high:
                text = (
                    f"The images are unlike the T2 series the model was trained on ({name} {value:.2f}, "
                    f"expected {low:.2f} to {high:.2f}): another contrast, artefact, or not a brain."
                )
                return Reason(code="unlike_training_data", text=text)
        return None

    def _declined(self, reason: Reason) -> InferenceResult:
        finding = Finding(
            label=OUTPUTS[0],
            probability=None,
            threshold=self._point.threshold,
            operating_point=self._point_name,
            present=None,
        )
        return InferenceResult(
            model=self.model_id,
            findings=(finding,),
            heatmap=None,
            reason=reason,
            calibration_id=self._metadata.calibration.identifier,
        )

    def _result(self, volume: Volume, prepared: Prepared, answer: Answer) -> InferenceResult:
        calibration = self._metadata.calibration
        probability = float(calibration.probability(float(answer.study[0])))
        main = Finding(
            label=OUTPUTS[0],
            probability=probability,
            threshold=self._point.threshold,
            operating_point=self._point_name,
            present=probability >= self._point.threshold,
            calibrated=calibration.fitted,
            slices=self._evidence(volume, prepared.grid, answer),
        )
        heat = from_grid(np.where(prepared.inside[:, ::2, ::2], answer.heat, np.float32(0)), prepared.grid)
        return InferenceResult(
            model=self.model_id,
            findings=(main, *self._categories(answer)),
            heatmap=Heatmap(values=np.clip(heat, 0, 1), geometry=volume.geometry),
            calibration_id=calibration.identifier,
        )

    def _evidence(self, volume: Volume, grid: Grid, answer: Answer) -> tuple[SliceEvidence, ...]:
        """A slice's probability is its logit through the study's calibration; slices without brain carry no weight."""
        probability = self._metadata.calibration.probability(answer.slices[:, 0])
        by_slice: dict[int, tuple[float, float]] = {}
        for index in range(grid.count):
            chosen = grid.source_slices(index)
            for z in chosen:
                by_slice[z] = (float(probability[index]), float(answer.weights[index, 0]) / len(chosen))
        return tuple(
            SliceEvidence(
                sop_instance_uid=source.sop_instance_uid,
                frame_number=source.frame_number,
                probability=by_slice.get(z, (0.0, 0.0))[0],
                attention=by_slice.get(z, (0.0, 0.0))[1],
            )
            for z, source in enumerate(volume.geometry.slices)
        )

    def _categories(self, answer: Answer) -> tuple[Finding, ...]:
        return tuple(
            Finding(
                label=name,
                probability=float(p),
                threshold=CATEGORY_THRESHOLD,
                operating_point="category",
                present=bool(p >= CATEGORY_THRESHOLD),
                calibrated=False,
            )
            for name, p in zip(OUTPUTS[1:], sigmoid(answer.study[1:]), strict=True)
        )
