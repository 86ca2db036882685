"""Simulated readers: one perceptual model for both ways of labelling.

Perceived position = truth + the reader's bias + noise of the moment; classes come of the reader's own cut-points.
The noise and the spread between readers are fitted once, so that labelling one slice at a time gives the kappa
of Zaman 2023 (0.90 within, 0.77 between readers), and are then used unchanged for ranking.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score

from inference.ranking import Ranking, Scale, fit_scale
from inference.ranking_labels import cut_classes
from inference.ranking_plan import Progress, StopRule, next_batch

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

KAPPA_WITHIN, KAPPA_BETWEEN = 0.90, 0.77
SECONDS_A_BATCH, SECONDS_A_SLICE = 14.4, 5.4
BATCH = 8
REFITS = 12
FIT_PAIRS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Perception:
    """Standard deviations in units of the axis: noise of the moment, and how far readers differ."""

    noise: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader."""

    bias: float
    cuts: Array
    noise: float

    def perceive(self, rng: np.random.Generator, truth: Array) -> Array:
        """Perceived positions."""
        return np.asarray(truth + self.bias + self.noise * rng.normal(size=truth.shape))

    def classify(self, rng: np.random.Generator, truth: Array) -> Labels:
        """Classes 0, 1 ... one slice at a time."""
        return np.searchsorted(self.cuts, self.perceive(rng, truth)).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """What a strategy got for its hours.

    Attributes
    ----------
    labels
        Class of each slice; -1 where there is none to be trained on.
    positions
        Place of each slice on the strategy's own scale, mean 0 and sd 1: scores of the ranking, or the class numbers
        of single labels. nan where there is none.
    views
        How many judgements it took.
    """

    labels: Labels
    positions: Array
    views: int
    seconds: float


def draw_reader(rng: np.random.Generator, perception: Perception, cuts: Array) -> Reader:
    """A reader with a bias and cut-points of their own."""
    offsets = perception.spread * rng.normal(size=len(cuts)) / 2
    return Reader(bias=perception.spread * rng.normal(), cuts=np.sort(cuts + offsets), noise=perception.noise)


def fit_perception(truth: Array, cuts: Array, seed: int = 0) -> Perception:
    """Find noise and spread by bisection, on the same random numbers throughout."""

    def within(noise: float) -> float:
        return _mean_kappa(truth, cuts, Perception(noise=noise, spread=0.0), seed)

    noise = _bisect(within, KAPPA_WITHIN, 1.0)

    def between(spread: float) -> float:
        return _mean_kappa(truth, cuts, Perception(noise=noise, spread=spread), seed)

    return Perception(noise=noise, spread=_bisect(between, KAPPA_BETWEEN, 1.5))


def label_one_at_a_time(rng: np.random.Generator, truth: Array, readers: list[Reader], seconds: float) -> Bought:
    """Each slice is seen once, by the reader whose turn it is, until the time is up."""
    count = min(len(truth), int(seconds / SECONDS_A_SLICE + 1e-9))
    labels = np.full(len(truth), -1, dtype=np.int64)
    for turn, items in enumerate(np.array_split(rng.permutation(len(truth))[:count], len(readers))):
        labels[items] = readers[turn].classify(rng, truth[items])
    positions = np.where(labels >= 0, labels, np.nan)
    positions = (positions - np.nanmean(positions)) / (float(np.nanstd(positions)) or 1.0)
    return Bought(labels=labels, positions=positions, views=count, seconds=count * SECONDS_A_SLICE)


def label_by_ranking(rng: np.random.Generator, truth: Array, readers: list[Reader], seconds: float) -> Bought:
    """Readers take turns at batches of eight; two of them then cut the sorted strip. The cutting costs time too.

    Slices that the label set calls uncertain get no class, as in `falx train slices`; their scores remain.
    """
    boundaries = len(readers[0].cuts)
    cutting = 2 * boundaries * math.ceil(math.log2(len(truth))) * SECONDS_A_SLICE
    batches = int((seconds - cutting) / SECONDS_A_BATCH)
    rule = StopRule()
    mine = np.zeros((len(readers), len(truth)), dtype=np.int64)
    rankings: list[Ranking] = []
    scale = fit_scale([], len(truth))
    for turn in range(batches):
        who = turn % len(readers)
        progress = Progress(
            views=mine.sum(axis=0),
            raters=(mine > 0).sum(axis=0),
            mine=mine[who],
            available=np.ones(len(truth), dtype=bool),
        )
        items = np.array(next_batch(scale, progress, rule, rng, BATCH))
        seen = readers[who].perceive(rng, truth[items])
        rankings.append(Ranking(items=tuple(int(item) for item in items[np.argsort(seen)]), rater=str(who)))
        mine[who, items] += 1
        if turn % max(1, batches // REFITS) == 0:
            scale = fit_scale(rankings, len(truth), scale.scores)
    scale = fit_scale(rankings, len(truth), scale.scores)
    cuts = {str(who): _cut_strip(rng, truth, scale, readers[who]) for who in range(2)}
    classes = cut_classes(scale.scores, scale.errors, cuts)
    seen_once = mine.sum(axis=0) > 0
    return Bought(
        labels=np.where(seen_once & ~classes.uncertain, classes.labels, -1),
        positions=np.where(seen_once, scale.scores, np.nan),
        views=batches * BATCH,
        seconds=batches * SECONDS_A_BATCH + cutting,
    )


def with_noise(perception: Perception, factor: float) -> Perception:
    """The same readers, with the noise of the moment halved or doubled."""
    return replace(perception, noise=perception.noise * factor)


def _cut_strip(rng: np.random.Generator, truth: Array, scale: Scale, reader: Reader) -> list[float]:
    """Bisect the sorted strip for each boundary: lower or higher than my cut-point?"""
    order = np.argsort(scale.scores)
    found: list[float] = []
    for cut in reader.cuts:
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if float(reader.perceive(rng, truth[order[middle : middle + 1]])[0]) < cut:
                low = middle + 1
            else:
                high = middle
        at = min(low, len(order) - 1)
        found.append(max(float(scale.scores[order[at]]), found[-1] + 1e-6 if found else -np.inf))
    return found


def _mean_kappa(truth: Array, cuts: Array, perception: Perception, seed: int) -> float:
    rng = np.random.default_rng(seed)
    kappas = []
    for _ in range(FIT_PAIRS):
        pair = [draw_reader(rng, perception, cuts).classify(rng, truth) for _ in range(2)]
        kappas.append(cohen_kappa_score(*pair))
    return float(np.mean(kappas))


def _bisect(kappa: Callable[[float], float], wanted: float, high: float) -> float:
    """The value at which the falling ``kappa`` equals ``wanted``."""
    low = 0.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if kappa(middle) > wanted else (low, middle)
    return (low + high) / 2
