"""When a series is complete. Pure: a view of the series and a time in, a verdict out; in words in docs/series.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from node.config import CompletionSettings
from node.headers import Header
from node.rules.geometry import geometry_of


class Verdict(StrEnum):
    """Whether to go on waiting."""

    WAIT = "wait"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesView:
    """What is known of a series that is being received; times are aware UTC.

    Attributes
    ----------
    headers
        Of every instance held.
    first_received_at, last_received_at, study_last_received_at
        By the wall clock.
    reopened_at
        When a series that had been called complete became late; None when it never did.
    sender_association_open
        Whether any association from the series' sender is open.
    counted
        The instances a C-FIND source counted in the last two polls; None when there were no two.
    announced_complete
        Every instance that MPPS or IAN listed for this series is held.
    refused
        Instances of this series that reception was offered, did not keep, and has not been given since.
    unreadable
        Instances held whose header could not be read.
    unchanged_s
        Seconds on a monotonic clock that the caller has seen nothing new; overrules the wall clock, which may be set.
    """

    headers: Sequence[Header]
    first_received_at: datetime
    last_received_at: datetime
    sender_association_open: bool
    counted: tuple[int, int] | None = None
    announced_complete: bool = False
    study_last_received_at: datetime | None = None
    reopened_at: datetime | None = None
    refused: int = 0
    unreadable: int = 0
    unchanged_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The verdict; ``why`` has at most 64 characters; while waiting, silence changes nothing before ``look_again_at``.

    A possibly incomplete series may be found positive, but never negative.
    """

    verdict: Verdict
    possibly_incomplete: bool
    why: str
    look_again_at: datetime


def judge(view: SeriesView, now: datetime, settings: CompletionSettings, silence_s: float | None = None) -> Completion:
    """Say whether a series is complete.

    ``silence_s`` overrules T1 (``settings.silence_s``) for this sender. Headers are looked at only after T1.
    """
    opened_at = max(view.first_received_at, view.reopened_at or view.first_received_at)
    # a clock that was set back leaves times in the future: their distance still bounds the wait
    silent_s = abs((now - view.last_received_at).total_seconds()) if view.unchanged_s is None else view.unchanged_s
    left_s = settings.cap_s - abs((now - opened_at).total_seconds())
    t1_s = settings.silence_s if silence_s is None else silence_s

    confirmed = _confirmed(view)
    if confirmed:
        return _complete(now, confirmed)
    if left_s <= 0:
        return _complete(now, "time limit", flagged=True)
    if silent_s < t1_s:
        return _wait(now, min(left_s, t1_s - silent_s), "receiving")
    fault = _fault(view, settings)
    if not fault and not view.sender_association_open:
        return _complete(now, "silent, covered, no gap")
    t1b_s = max(t1_s, settings.silence_without_coverage_s)
    if silent_s < t1b_s:
        return _wait(now, min(left_s, t1b_s - silent_s), fault or "association open")
    return _after_long_silence(view, now, left_s, fault)


def _after_long_silence(view: SeriesView, now: datetime, left_s: float, fault: str) -> Completion:
    """T1b is over: an open association, or a query that counts more, still holds a faulty series, up to the cap."""
    if not fault:  # a router that keeps its association open all day must not hold every series until the cap
        return _complete(now, "long silent, covered, no gap")
    if view.sender_association_open or _counted_more(view):
        return _wait(now, left_s, fault)
    return _complete(now, f"long silent: {fault}", flagged=True)


def _confirmed(view: SeriesView) -> str:
    """Who says that nothing more will come, or ""; nobody while it is known that something did not get in."""
    if _left_out(view):
        return ""
    if view.announced_complete:
        return "announced by MPPS or IAN"
    if view.counted == (len(view.headers), len(view.headers)):
        return f"count confirmed by query: {len(view.headers)}"
    return ""


def _counted_more(view: SeriesView) -> bool:
    return view.counted is not None and view.counted[0] == view.counted[1] > len(view.headers)


def _left_out(view: SeriesView) -> str:
    if view.refused:
        return f"{view.refused} instances refused and not sent again"
    return f"{view.unreadable} instances have no readable header" if view.unreadable else ""


def _fault(view: SeriesView, settings: CompletionSettings) -> str:
    """What speaks against completeness, or ""."""
    if _left_out(view):
        return _left_out(view)
    if view.counted is not None and _counted_more(view):
        return f"query counts {view.counted[0]}, held {len(view.headers)}"
    geometry = geometry_of(view.headers)
    if geometry is None:
        return "no positions"
    if geometry.missing:
        return f"{geometry.missing} positions missing"
    if geometry.coverage_mm < settings.coverage_mm:
        return f"covers {geometry.coverage_mm:.0f} mm of {settings.coverage_mm:.0f}"
    return ""


def _complete(now: datetime, why: str, flagged: bool = False) -> Completion:
    return Completion(verdict=Verdict.COMPLETE, possibly_incomplete=flagged, why=why[:64], look_again_at=now)


def _wait(now: datetime, seconds: float, why: str) -> Completion:
    again = now + timedelta(seconds=max(seconds, 0.05))
    return Completion(verdict=Verdict.WAIT, possibly_incomplete=False, why=why[:64], look_again_at=again)
