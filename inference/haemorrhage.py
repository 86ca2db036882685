"""Intracranial haemorrhage on head CT: from a volume to a study probability, slice evidence and a heatmap.

Each study is read twice, plain and mirrored, and the two are averaged. What is not a plain head CT is declined with a
reason, not answered with a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from inference.calibration import Calibration, sigmoid
from inference.ct_input import COLUMNS, ROWS, CtInput, prepare_ct, to_source_grid
from inference.haemorrhage_net import OUTPUTS, HaemorrhageNetwork, fast_layout, network_of, slice_channels
from inference.intracranial import intracranial_mask
from inference.labels import HAEMORRHAGE_KINDS
from inference.result import Finding, Heatmap, InferenceResult, ModelId, Reason, SliceEvidence
from inference.volume import Geometry, Volume
from inference.weights import Metadata, load_weights

LABEL = "intracranial_haemorrhage"
MIN_SLICES = 8
MAX_SHIFT_HU = 20.0
MAX_NOISE_HU = 14.0  # at 1 mm; soft kernels at 5 mm give 2 to 6
CONTRAST_SHARE = 0.012
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the network said of one prepared study: logits ``[6]``, per prepared slice logits and attention, maps."""

    logits: npt.NDArray[np.float64]
    slice_logits: npt.NDArray[np.float64]
    attention: npt.NDArray[np.float64]
    blood: npt.NDArray[np.float32]


class HaemorrhageModel:
    """The trained network with its calibration and operating point; see :mod:`inference.engine` for the protocol."""

    def __init__(
        self, network: HaemorrhageNetwork, metadata: Metadata, device: torch.device, operating_point: str | None = None
    ) -> None:
        fast_layout(network, device)
        self._network = network.eval()
        self._metadata = metadata
        self._device = device
        self._point_name, self._point = metadata.operating_point(operating_point)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, operating_point: str | None = None) -> Self:
        """Load verified weights; raises WrongModel for a folder that must not be used."""
        metadata, tensors = load_weights(folder)
        network = network_of(metadata.architecture)
        network.load_state_dict(tensors)
        return cls(network, metadata, device, operating_point)

    @property
    def model_id(self) -> ModelId:
        """Which weights these are."""
        return self._metadata.model_id

    def warm_up(self) -> None:
        """Run the network once on empty slices."""
        empty = np.zeros((4, ROWS, COLUMNS), np.float32)
        read(self._network, empty, empty > 1, self._device)

    def analyse(self, volumes: Sequence[Volume]) -> list[InferenceResult]:
        """Answer for each volume, in order; declines (a result with ``reason``) what is no plain head CT."""
        return [self._analyse(volume) for volume in volumes]

    def _analyse(self, volume: Volume) -> InferenceResult:
        if volume.modality != "CT":
            return self._declined(Reason(code="unsupported_modality", text="The haemorrhage model reads CT only."))
        mask = intracranial_mask(volume)
        if isinstance(mask, Reason):
            return self._declined(mask)
        prepared = prepare_ct(volume, mask)
        reason = unlike_training(prepared)
        if reason is not None:
            return self._declined(reason)
        answer = read(self._network, prepared.hu, prepared.mask, self._device)
        findings = (self._main(answer, prepared, volume.geometry), *self._kinds(answer))
        heat = to_source_grid(prepared, answer.blood) * mask
        return InferenceResult(
            model=self.model_id,
            findings=findings,
            heatmap=Heatmap(values=heat, geometry=volume.geometry),
            calibration_id=self._metadata.calibration.identifier,
        )

    def _main(self, answer: Reading, prepared: CtInput, geometry: Geometry) -> Finding:
        probability = float(self._metadata.calibration.probability(answer.logits[0]))
        slope, intercept = self._metadata.architecture.get("slice_calibration", (1.0, 0.0))
        of_slice = sigmoid(slope * answer.slice_logits[:, 0] + intercept)
        shared = np.bincount(prepared.group[prepared.group >= 0], minlength=len(answer.attention))
        slices = []
        for source, group in zip(geometry.slices, prepared.group, strict=True):
            seen = group >= 0
            slices.append(
                SliceEvidence(
                    sop_instance_uid=source.sop_instance_uid,
                    frame_number=source.frame_number,
                    probability=float(of_slice[group]) if seen else 0.0,
                    attention=float(answer.attention[group] / shared[group]) if seen else 0.0,
                )
            )
        return Finding(
            label=LABEL,
            probability=probability,
            threshold=self._point.threshold,
            operating_point=self._point_name,
            present=probability >= self._point.threshold,
            calibrated=self._metadata.calibration.fitted,
            slices=tuple(slices),
        )

    def _kinds(self, answer: Reading) -> list[Finding]:
        """The kinds of haemorrhage; none is called present in a study that is not."""
        bleeding = float(self._metadata.calibration.probability(answer.logits[0])) >= self._point.threshold
        stored = self._metadata.architecture.get("kind_calibration")
        findings = []
        for number, kind in enumerate(HAEMORRHAGE_KINDS):
            fit = Calibration(slope=stored[number][0], intercept=stored[number][1]) if stored else Calibration()
            probability = float(fit.probability(answer.logits[1 + number]))
            findings.append(
                Finding(
                    label=kind,
                    probability=probability,
                    threshold=0.5,
                    operating_point=self._point_name,
                    present=bleeding and probability >= 0.5,
                    calibrated=stored is not None,
                )
            )
        return findings

    def _declined(self, reason: Reason) -> InferenceResult:
        finding = Finding(
            label=LABEL,
            probability=None,
            threshold=self._point.threshold,
            operating_point=self._point_name,
            present=None,
            calibrated=self._metadata.calibration.fitted,
        )
        return InferenceResult(
            model=self.model_id,
            findings=(finding,),
            heatmap=None,
            reason=reason,
            calibration_id=self._metadata.calibration.identifier,
        )


def unlike_training(prepared: CtInput) -> Reason | None:
    """Why a prepared head is outside what the network was trained on, or None."""
    if len(prepared.hu) < MIN_SLICES:
        return Reason(code="incomplete_head", text=f"Fewer than {MIN_SLICES} slices show the cranial cavity.")
    if abs(prepared.shift_hu) > MAX_SHIFT_HU:
        return Reason(
            code="unusual_density", text="The brain's median density is more than 20 HU from the usual 33 HU."
        )
    inner = ndimage.binary_erosion(prepared.mask, np.ones((1, 7, 7), bool))
    inside = prepared.hu[inner]
    if not inside.size:
        return Reason(code="incomplete_head", text="The cranial cavity is too narrow to be read.")
    enhanced = float(((inside > 100) & (inside < 400)).mean())
    if enhanced > CONTRAST_SHARE:
        return Reason(code="contrast_suspected", text="Many voxels read 100-400 HU, as after contrast medium.")
    across = np.diff(prepared.hu, axis=2)
    both = inner[:, :, 1:] & inner[:, :, :-1]
    noise = 1.4826 * float(np.median(np.abs(across[both]))) / np.sqrt(2.0)
    if noise > MAX_NOISE_HU:
        return Reason(code="too_noisy", text=f"Noise of {noise:.0f} HU hides what the model looks for.")
    return None


@torch.no_grad()
def read(
    network: HaemorrhageNetwork,
    hu: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    device: torch.device,
    *,
    mirrored: bool = True,
) -> Reading:
    """Run the network on prepared slices ``[n, 192, 160]``, plain and (by default) mirrored, averaged."""
    below, above = np.concatenate([hu[:1], hu[:-1]]), np.concatenate([hu[1:], hu[-1:]])
    tensors = [
        torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (hu, mask.astype(np.float32), below, above)
    ]
    channels = slice_channels(*tensors)
    inside = functional.max_pool2d(channels[:, -1:], 2)[:, 0]
    readings = []
    for flip in (False, True) if mirrored else (False,):
        x = (channels.flip(3) if flip else channels).contiguous(memory_format=torch.channels_last)
        parts = [network.encoder(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
        blood = torch.cat([p[0][:, 0] for p in parts])
        features = torch.cat([p[2] for p in parts])
        logits, attention = network.study(features[None], torch.tensor([len(features)]))
        maps = torch.sigmoid(blood.flip(2) if flip else blood) * inside
        slice_logits = torch.cat([p[1] for p in parts])
        readings.append((logits[0], slice_logits, attention[0], maps))
    mean = [torch.stack(values).mean(dim=0).cpu().numpy() for values in zip(*readings, strict=True)]
    assert mean[0].shape == (OUTPUTS,)
    return Reading(
        logits=mean[0].astype(np.float64),
        slice_logits=mean[1].astype(np.float64),
        attention=mean[2].astype(np.float64),
        blood=np.asarray(mean[3], np.float32),
    )
