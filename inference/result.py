"""What a model says of one volume: plain frozen values, shared by the models, the DICOM encoders and the node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.volume import Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why there is no answer: a stable snake_case code for machines, a sentence for people (no patient data)."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelId:
    """Which weights spoke. The Device UID is derived from the hash: each version is a device of its own (IHE AIR)."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEvidence:
    """What one slice contributed: its own probability, and its share (0..1) of the study's attention."""

    sop_instance_uid: str
    frame_number: int | None
    probability: float
    attention: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One label's answer. ``present`` is None when undetermined, ``probability`` when there is no number to give.

    ``slices`` hold every slice in z order (empty for findings without slice evidence); ``calibrated`` says whether the
    probability was calibrated on a validation set or is a bare score.
    """

    label: str
    probability: float | None
    threshold: float
    operating_point: str
    present: bool | None
    calibrated: bool = True
    slices: tuple[SliceEvidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """Evidence per voxel, 0..1 float32 ``[z, y, x]``, on the source's grid."""

    values: npt.NDArray[np.float32]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.values.shape != self.geometry.shape_zyx:
            raise ValueError(f"heatmap is {self.values.shape}, geometry says {self.geometry.shape_zyx}")
        self.values.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """One model's answer for one volume.

    ``findings[0]`` is the model's main finding; others are extras (kinds of haemorrhage, categories). With ``reason``
    set the model declined (not a head, unlike anything it was trained on): the main finding is then undetermined.
    """

    model: ModelId
    findings: tuple[Finding, ...]
    heatmap: Heatmap | None
    reason: Reason | None = None
    calibration_id: str = ""
