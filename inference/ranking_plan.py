"""Which slices a rater should order next, and when enough has been ordered.

A batch is told apart by its seed slice (fewest views, then largest error) and companions whose scores overlap the
seed's, because orders among slices that are plainly apart teach nothing. A random share keeps the picture honest, and
while the slices fall into groups that were never compared, each batch bridges two. Pure; no database.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.ranking import Scale

RANDOM_SHARE = 1 / 8
BATCH_SIZE = 8
NEED_WEIGHT = 10.0  # three views of 24 slices then take 9 to 10 batches instead of 11; the order is no worse


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has been seen so far, one entry an item.

    Attributes
    ----------
    views
        How often the item was ordered.
    raters
        By how many raters.
    mine
        How often by the rater who asks.
    available
        False for artefacts, and for what lies in the rater's open batch.
    """

    views: npt.NDArray[np.int64]
    raters: npt.NDArray[np.int64]
    mine: npt.NDArray[np.int64]
    available: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """Enough: every item seen so often, by so many raters, and no error above the limit (in scale units)."""

    min_views: int = 3
    min_raters: int = 2
    max_error: float = 0.5


def next_batch(
    scale: Scale, progress: Progress, rule: StopRule, rng: np.random.Generator, size: int = BATCH_SIZE
) -> list[int]:
    """Items of the next batch in random order; fewer than ``size`` when no more are available, empty when none is."""
    usable = np.flatnonzero(progress.available)
    if len(usable) <= size:
        return [int(item) for item in rng.permutation(usable)]
    need = _need(progress, rule)
    noise = rng.random(len(scale.scores))
    seed = int(usable[np.lexsort((noise[usable], -scale.errors[usable], -need[usable]))[0]])
    chosen = [seed]
    gain = np.where(progress.available, _gain(scale, progress, need, seed, noise), -1.0)
    gain[seed] = -1.0
    bridge = _bridge(scale, progress, seed, rng)
    if bridge is not None:
        chosen.append(bridge)
        gain[bridge] = -1.0
    by_gain = iter(np.argsort(-gain))
    while len(chosen) < size:
        item = int(rng.choice(usable)) if rng.random() < RANDOM_SHARE else int(next(by_gain))
        if item not in chosen:
            chosen.append(item)
    return [int(item) for item in rng.permutation(chosen)]


def is_enough(scale: Scale, progress: Progress, rule: StopRule, excluded: npt.NDArray[np.bool_]) -> bool:
    """Whether the stop rule holds for everything that is not excluded."""
    kept = ~excluded
    return bool(
        (progress.views[kept] >= rule.min_views).all()
        and (progress.raters[kept] >= rule.min_raters).all()
        and (scale.errors[kept] <= rule.max_error).all()
    )


def views_missing(progress: Progress, rule: StopRule, excluded: npt.NDArray[np.bool_]) -> int:
    """Views still needed before every item has been seen often enough."""
    return int(np.clip(rule.min_views - progress.views, 0, None)[~excluded].sum())


def _need(progress: Progress, rule: StopRule) -> npt.NDArray[np.float64]:
    """Views an item lacks; less urgent for a rater who has seen it when another rater's eye is missing."""
    need = np.clip(rule.min_views - progress.views, 0, None).astype(float)
    other_eye = progress.raters < rule.min_raters
    return np.asarray(need + 0.5 * (other_eye & (progress.mine == 0)) - 0.5 * np.minimum(progress.mine, 3))


def _gain(
    scale: Scale, progress: Progress, need: npt.NDArray[np.float64], seed: int, noise: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Expected information of comparing each item with the seed: uncertain, near, and still needed."""
    if progress.views[seed] == 0:  # nothing is known of it: any company will do, best what is unseen too
        return np.asarray(1.0 + np.clip(need, 0, None) + noise)
    variance = scale.errors**2 + scale.errors[seed] ** 2
    overlap = np.exp(-((scale.scores - scale.scores[seed]) ** 2) / (2 * variance))
    wanted = 1.0 + NEED_WEIGHT * np.clip(need, 0, None)
    return np.asarray(overlap * scale.errors * wanted * (0.9 + 0.2 * noise) * 0.5 ** np.minimum(progress.mine, 4))


def _bridge(scale: Scale, progress: Progress, seed: int, rng: np.random.Generator) -> int | None:
    """An item of the largest other group that has been compared at all; None when everything hangs together."""
    if scale.connected:
        return None
    other = progress.available & (scale.groups != scale.groups[seed]) & (progress.views > 0)
    if not other.any():
        return None
    sizes = np.bincount(scale.groups[other])
    return int(rng.choice(np.flatnonzero(other & (scale.groups == int(sizes.argmax())))))
