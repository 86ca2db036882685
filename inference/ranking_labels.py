"""From a scale to classes, and how far raters agree. Pure; no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Class of each item and whether it is uncertain; ``cuts`` are the medians over the experts."""

    labels: npt.NDArray[np.int64]
    uncertain: npt.NDArray[np.bool_]
    cuts: tuple[float, ...]


def cut_classes(scores: Array, errors: Array, cuts: Mapping[str, Sequence[float]]) -> Classes:
    """Classes by cut-points.

    Parameters
    ----------
    scores, errors
        Of the scale.
    cuts
        Each expert's cut-points, ascending; all experts have set the same number.

    An item is uncertain when it lies between two experts' cut-points of one boundary, or nearer to a cut than its
    standard error.

    Raises
    ------
    ValueError
        No expert, different numbers of cut-points, or medians that do not ascend.
    """
    given = np.array([list(values) for values in cuts.values()], dtype=float)
    if given.ndim != 2 or not given.size:
        raise ValueError("every expert must set every cut-point before there are classes")
    medians = np.median(given, axis=0)
    if (np.diff(medians) <= 0).any():
        raise ValueError("cut-points must ascend: the experts' medians do not")
    near = (np.abs(scores[:, None] - medians) < errors[:, None]).any(axis=1)
    between = ((scores[:, None] > given.min(axis=0)) & (scores[:, None] < given.max(axis=0))).any(axis=1)
    labels = np.searchsorted(medians, scores, side="right").astype(np.int64)
    return Classes(labels=labels, uncertain=near | between, cuts=tuple(float(cut) for cut in medians))


def weighted_kappa(first: Sequence[int], second: Sequence[int], number: int) -> float:
    """Quadratically weighted kappa of two raters' classes 0..number-1; nan when there is nothing to agree on."""
    from sklearn.metrics import cohen_kappa_score  # slow to load, and the pages need it seldom

    if len(first) == 0 or len(set(first) | set(second)) == 1:
        return float("nan")
    return float(cohen_kappa_score(first, second, labels=list(range(number)), weights="quadratic"))


def order_agreement(order: Sequence[int], scores: Array) -> float:
    """Kendall's tau between one batch's order (lowest first) and the scale."""
    from scipy.stats import kendalltau

    if len(order) < 2:
        return float("nan")
    return float(kendalltau(np.arange(len(order)), scores[list(order)]).statistic)


def repeat_agreement(first: Sequence[int], second: Sequence[int]) -> float:
    """Kendall's tau between two orders of the same items by one rater (hidden repeat)."""
    from scipy.stats import kendalltau

    place = {item: at for at, item in enumerate(first)}
    common = [item for item in second if item in place]
    if len(common) < 2:
        return float("nan")
    return float(kendalltau([place[item] for item in common], np.arange(len(common))).statistic)
