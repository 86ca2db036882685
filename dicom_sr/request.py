"""What the encoders are asked for, and what they give back. Plain frozen values; see :mod:`dicom_sr.build`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydicom.dataset import Dataset

from inference.result import InferenceResult, ModelId, Reason
from inference.volume import Volume

Purpose = Literal["ct_haemorrhage", "mr_abnormality"]
Outcome = Literal["analysed", "undetermined", "unsuitable", "failed"]
SrKind = Literal["comprehensive-3d", "comprehensive", "enhanced"]
HeatmapKind = Literal["multi-frame", "single-frame", "none"]
Role = Literal["result", "heatmap", "key-objects", "parametric-map", "rejection-note"]


class MixedSources(ValueError):
    """The source instances do not belong to one patient and one study. Names the attribute, never its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedSeries:
    """A series of the study that was not analysed, and why."""

    series_instance_uid: str
    description: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The SR that this result replaces; it lies in the same study.

    ``series_number`` is its (0020,0011), None when unknown: the description of the new series names it.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    series_description: str
    series_number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationProfile:
    """Which objects a destination takes. References between the objects stay inside one profile."""

    sr: SrKind = "comprehensive-3d"
    heatmap: HeatmapKind = "multi-frame"
    key_objects: bool = True
    parametric_map: bool = False
    heatmap_for_negatives: bool = False

    @property
    def id(self) -> str:
        """A stable text of the choices; part of every UID."""
        switches = (self.key_objects, self.parametric_map, self.heatmap_for_negatives)
        return "/".join([self.sr, self.heatmap, *("yes" if switch else "no" for switch in switches)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResultRequest:
    """One task's answer, to be written as DICOM.

    Attributes
    ----------
    purpose
        What was looked for.
    outcome
        State of the task. ``analysed`` and ``undetermined`` come with a ``result`` (undetermined may come without),
        ``unsuitable`` and ``failed`` with a ``reason``.
    model
        The model that spoke, or would have.
    sources
        Headers (no pixels needed) of the analysed series in z order; when nothing was analysed, at least one
        instance of the study. An enhanced multi-frame object is given once.
    volume
        The analysed voxels, for rendering; None: no pictures are made.
    analysed_at
        Time zone aware; becomes the content date and time of every object, shown in the zone that the sources
        name (0008,0201), else in the zone of this value.
    possibly_incomplete
        The series may lack slices: the result never says "absent".
    unused_series
        Series of the study that were not analysed.
    predecessor
        The SR that this one replaces.
    profile
        The destination's choices.
    input_key
        From :func:`dicom_sr.identity.input_key`.
    model_note
        A sentence for the report on what the model was trained, and its threshold chosen, on (from metadata.json).
    """

    purpose: Purpose
    outcome: Outcome
    model: ModelId
    result: InferenceResult | None
    reason: Reason | None
    sources: tuple[Dataset, ...]
    volume: Volume | None
    analysed_at: datetime
    possibly_incomplete: bool
    unused_series: tuple[UnusedSeries, ...]
    predecessor: Predecessor | None
    profile: DestinationProfile
    input_key: str
    model_note: str = "Model trained, and its threshold chosen, on synthetic heads; not on patients."

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: at least one instance of the study is needed")
        if self.analysed_at.tzinfo is None:
            raise ValueError("analysed_at: must carry a time zone")
        if self.outcome == "analysed" and (self.result is None or not self.result.findings):
            raise ValueError("result: an analysed task needs a result with at least one finding")
        if self.outcome in ("unsuitable", "failed") and self.reason is None:
            raise ValueError(f"reason: a task that is {self.outcome} needs one")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResultObject:
    """One DICOM object, ready to be checked, written and sent."""

    kind: Literal["SR", "SC", "KO", "PM"]
    role: Role
    dataset: Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedObject:
    """An object of falx that is withdrawn."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
