"""From the files of one series to what the model says of it, or the reason why it says nothing.

Shared by the node (:mod:`node.pipeline`) and the offline command; knows no ledger and no network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import pydicom
from pydicom.dataset import Dataset

from inference.head_part import only_head
from inference.result import InferenceResult, ModelId, Reason
from inference.series_reader import Unreadable, read_volume
from inference.slice_level import SliceLevels
from inference.volume import Volume
from node.study import TaskState


class Analyst(Protocol):
    """What the pipeline asks of the engine (inference.engine.Engine)."""

    def analyse(self, purpose: str, volume: Volume) -> InferenceResult:
        """Return the model's answer for one volume."""

    def model_id(self, purpose: str) -> ModelId:
        """Return which weights answer for a purpose."""

    @property
    def slice_level_id(self) -> ModelId:
        """Which weights place slices."""

    def locate(self, volume: Volume) -> SliceLevels:
        """Say where in the head each slice of a volume lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The answer for one series. ``state`` is analysed, undetermined, unsuitable or failed."""

    state: TaskState
    model: ModelId
    result: InferenceResult | None = None
    reason: Reason | None = None
    volume: Volume | None = None
    seconds: float = 0.0

    @property
    def outcome(self) -> Literal["analysed", "undetermined", "unsuitable", "failed"]:
        """The state as the encoders name it."""
        outcomes: Mapping[TaskState, Literal["analysed", "undetermined", "unsuitable", "failed"]] = {
            TaskState.ANALYSED: "analysed",
            TaskState.UNDETERMINED: "undetermined",
            TaskState.UNSUITABLE: "unsuitable",
            TaskState.FAILED: "failed",
        }
        return outcomes[self.state]


def analyse_series(
    engine: Analyst, purpose: str, files: Sequence[Path], *, possibly_incomplete: bool = False
) -> Analysis:
    """Read a series, cut the head out of it, and ask the model of ``purpose``.

    A series that cannot be read is unsuitable, one that the model declines is undetermined, both with a coded reason.
    A possibly incomplete series is never "absent": what was not sent was not seen.
    """
    start = time.monotonic()
    model = engine.model_id(purpose)
    found = read_head(files, engine.locate)
    if isinstance(found, Reason):
        return _unsuitable(model, found, start)
    _, head = found
    result = engine.analyse(purpose, head)
    if possibly_incomplete:
        result = _without_absence(result)
    state = TaskState.ANALYSED if result.findings and result.findings[0].present is not None else TaskState.UNDETERMINED
    return Analysis(
        state=state,
        model=result.model,
        result=result,
        reason=result.reason or _incomplete(state),
        volume=head,
        seconds=time.monotonic() - start,
    )


def read_head(files: Sequence[Path], locate: Callable[[Volume], SliceLevels]) -> tuple[Volume, Volume] | Reason:
    """Read a series: as it is, and the head cut out of it; or why there is none. Training reads in the same way."""
    try:
        volume = read_volume(files)
    except Unreadable as error:
        return Reason(code=error.code, text=error.text)
    head = only_head(volume, locate(volume))
    return head if isinstance(head, Reason) else (volume, head)


def _unsuitable(model: ModelId, reason: Reason, start: float) -> Analysis:
    return Analysis(state=TaskState.UNSUITABLE, model=model, reason=reason, seconds=time.monotonic() - start)


def _without_absence(result: InferenceResult) -> InferenceResult:
    findings = tuple(replace(f, present=None) if f.present is False else f for f in result.findings)
    return replace(result, findings=findings)


def _incomplete(state: TaskState) -> Reason | None:
    if state == TaskState.ANALYSED:
        return None
    return Reason(
        code="possibly_incomplete",
        text="Nothing was found in the slices that were received, but slices may be missing, so absence is not stated.",
    )


def read_sources(files: Sequence[Path], volume: Volume | None) -> tuple[Dataset, ...]:
    """Read the headers of the source instances, in z order when the volume tells it, each instance once."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in files]
    if volume is None:
        return tuple(headers)
    by_uid = {str(ds.SOPInstanceUID): ds for ds in headers}
    ordered = dict.fromkeys(source.sop_instance_uid for source in volume.geometry.slices)
    return tuple(by_uid[uid] for uid in ordered if uid in by_uid)
