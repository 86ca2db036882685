"""The reporting queue of a site, replayed with and without the model (Wood et al. 2022, Med Image Anal).

Every arm has the same exams and the same reading slots; only the order differs, so the sum of all delays is the same in
every arm (work conservation) and what one class gains another pays. Truth is a label that did not come from the model.
Exams still unread at the end count with the time they have waited by then. Knows no files; times are hours.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HOURS_A_DAY = 24.0
ARMS = ("historical", "fifo", "random", "model", "oracle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exams:
    """A site's exams, sorted by time of acquisition.

    Attributes
    ----------
    acquired_h, reported_h
        Hours since any common start; ``reported_h`` is NaN for an exam never reported.
    abnormal
        Truth: 1 abnormal, 0 normal, NaN unknown (waits in the queue, is in no class).
    probability
        The model's, 0..1; NaN where the model gave none (queued as an even chance).
    category
        Free names; "" for none.
    """

    acquired_h: Floats
    reported_h: Floats
    abnormal: Floats
    probability: Floats
    category: Sequence[str] = ()

    def __post_init__(self) -> None:
        if np.any(np.diff(self.acquired_h) < 0):
            raise ValueError("exams must be sorted by time of acquisition")

    def __len__(self) -> int:
        return len(self.acquired_h)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How to replay. ``threshold``: an abnormal exam below it counts as missed by the model.

    ``levels`` (ascending thresholds) turn the probability into classes of urgency, first come first served inside each;
    empty: the probability itself is the key. ``max_wait_days``: an exam older than that is read before any other.
    """

    threshold: float = 0.5
    random_draws: int = 1000
    resamples: int = 1000
    seed: int = 1
    levels: tuple[float, ...] = ()
    max_wait_days: float = float("inf")


def replay(acquired_h: Floats, slots_h: Floats, key: Floats, max_wait_h: float = float("inf")) -> Floats:
    """Return when each exam is read: at each slot the waiting exam of the lowest key, the oldest among equals.

    Parameters
    ----------
    acquired_h
        Sorted ascending.
    slots_h
        Times at which one exam is read, sorted; a slot finds only exams acquired by then, and is lost on an empty
        queue.

    Returns
    -------
    Floats
        Hours; NaN for exams never read.
    """
    read_h = np.full(len(acquired_h), np.nan)
    times, keys = acquired_h.tolist(), key.tolist()
    queue: list[tuple[float, int]] = []
    done = bytearray(len(times))
    arrived = oldest = 0
    for slot in slots_h.tolist():
        while arrived < len(times) and times[arrived] <= slot:
            heapq.heappush(queue, (keys[arrived], arrived))
            arrived += 1
        while oldest < arrived and done[oldest]:
            oldest += 1
        if oldest == arrived:
            continue
        if slot - times[oldest] > max_wait_h:
            chosen = oldest
        else:
            while done[queue[0][1]]:  # read earlier for its age
                heapq.heappop(queue)
            chosen = heapq.heappop(queue)[1]
        done[chosen] = 1
        read_h[chosen] = slot
    return read_h


def slots_from_history(exams: Exams) -> Floats:
    """One reading slot for each report that the site finalised, at its time."""
    return np.sort(exams.reported_h[~np.isnan(exams.reported_h)])


def slots_from_schedule(per_hour: npt.ArrayLike, start_weekday_hour: float, hours: int) -> Floats:
    """Return slots of a weekly schedule.

    Parameters
    ----------
    per_hour
        ``[7, 24]`` exams read an hour, Monday first; fractions add up over the hours.
    start_weekday_hour
        Hours since Monday 0:00 at the common start of time.
    hours
        How long the schedule runs.
    """
    rates = np.asarray(per_hour, np.float64).reshape(7 * 24)
    which = (np.floor(start_weekday_hour) + np.arange(hours)).astype(int) % (7 * 24)
    filled = np.concatenate([[0.0], np.cumsum(rates[which])])
    wanted = np.arange(1, int(filled[-1] + 1e-9) + 1)
    slots: Floats = np.interp(wanted - 0.5, filled, np.arange(hours + 1))
    return slots


def keys_of(exams: Exams, protocol: Protocol, rng: np.random.Generator) -> dict[str, Callable[[], Floats]]:
    """The queue key (lower is read first) of each simulated arm; ``random`` draws anew at each call."""
    p = np.where(np.isnan(exams.probability), 0.5, exams.probability)
    order = np.digitize(p, protocol.levels).astype(float) if protocol.levels else p
    # an unknown truth is read between the two
    truth = np.where(np.isnan(exams.abnormal), 0.5, exams.abnormal)
    return {
        "fifo": lambda: np.arange(len(exams), dtype=float),
        "random": lambda: rng.random(len(exams)),
        "model": lambda: -order,
        "oracle": lambda: -truth,
    }


def delays_days(exams: Exams, read_h: Floats, end_h: float) -> Floats:
    """Days from acquisition to reading; of the unread, to the end."""
    days: Floats = (np.where(np.isnan(read_h), end_h, read_h) - exams.acquired_h) / HOURS_A_DAY
    return days


def end_of(exams: Exams, slots_h: Floats) -> float:
    """The hour at which the replay stops."""
    last_slot = float(slots_h[-1]) if len(slots_h) else 0.0
    return max(last_slot, float(exams.acquired_h[-1]))


def switch_on(exams: Exams, slots_h: Floats, warm_up_days: float, *, as_reported: bool) -> tuple[Exams, Floats]:
    """Return the exams that wait when the arms part, or come later, and the slots from then on.

    Until ``warm_up_days`` after the first exam things go as they went (``as_reported``), or first in first out. From
    there all arms share the same exams and slots, so the sum of all delays is the same in each.
    """
    start_h = float(exams.acquired_h[0]) + warm_up_days * HOURS_A_DAY
    key = np.arange(len(exams), dtype=float)
    read_h = exams.reported_h if as_reported else replay(exams.acquired_h, slots_h, key)
    left = np.isnan(read_h) | (read_h >= start_h)
    remaining = Exams(
        acquired_h=exams.acquired_h[left],
        reported_h=exams.reported_h[left],
        abnormal=exams.abnormal[left],
        probability=exams.probability[left],
        category=tuple(c for c, stays in zip(exams.category, left, strict=True) if stays) if exams.category else (),
    )
    return remaining, slots_h[slots_h >= start_h]


def auc(exams: Exams) -> float | None:
    """Area under the ROC curve of the probability against the truth; None when a class is empty."""
    known = ~np.isnan(exams.abnormal) & ~np.isnan(exams.probability)
    truth, p = exams.abnormal[known] > 0.5, exams.probability[known]
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mid-ranks of ties
    return float((ranks[inverse][truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
