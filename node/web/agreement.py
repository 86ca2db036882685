"""How far the raters of a project agree: with each other, with themselves, and with the scale."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inference.ranking_labels import cut_classes, order_agreement, repeat_agreement, weighted_kappa
from node.store.rankings import Arrangement
from node.web.ranking_desk import Standing


def agreement(state: Standing, cuts: Mapping[str, Sequence[float]], number: int) -> dict[str, Any]:
    """Weighted kappa between experts' classes and between single labels, Kendall's tau of batches and repeats.

    Values are None where there is nothing to compare.
    """
    return {
        "kappa_cuts": _kappa_of_cuts(state, cuts, number),
        "kappa_single": _kappa_of_singles(state, number),
        "kappa_single_repeat": _kappa_of_repeats(state, number),
        "tau_with_scale": _tau_with_scale(state),
        "tau_repeat": _tau_of_repeats(state),
    }


def _kappa_of_cuts(state: Standing, cuts: Mapping[str, Sequence[float]], number: int) -> float | None:
    seen = (state.views > 0) & ~state.excluded
    scores, errors = state.scale.scores[seen], state.scale.errors[seen]
    given = {
        rater: cut_classes(scores, errors, {rater: own}).labels
        for rater, own in cuts.items()
        if (np.diff(own) > 0).all()
    }
    return _mean(weighted_kappa(list(a), list(b), number) for a, b in itertools.combinations(given.values(), 2))


def _kappa_of_singles(state: Standing, number: int) -> float | None:
    pairs = []
    for a, b in itertools.combinations(state.singles_by.values(), 2):
        both = (a >= 0) & (b >= 0)
        pairs.append(weighted_kappa(a[both].tolist(), b[both].tolist(), number))
    return _mean(pairs)


def _kappa_of_repeats(state: Standing, number: int) -> float | None:
    by_id = {row["batch_id"]: row for row in state.batches}
    answers: tuple[list[int], list[int]] = ([], [])
    for row in state.batches:
        first = by_id.get(row["repeat_of"])
        if row["mode"] != "single" or first is None:
            continue
        pair = (first["arrangement"]["answer"], row["arrangement"]["answer"])
        if None not in pair:
            answers[0].append(pair[0])
            answers[1].append(pair[1])
    return _mean([weighted_kappa(*answers, number)])


def _tau_with_scale(state: Standing) -> float | None:
    return _mean(order_agreement(ranking.items, state.scale.scores) for ranking in state.rankings)


def _tau_of_repeats(state: Standing) -> float | None:
    by_id = {row["batch_id"]: row for row in state.batches}
    return _mean(
        repeat_agreement(
            Arrangement.of(by_id[row["repeat_of"]]["arrangement"]).ranked(), Arrangement.of(row["arrangement"]).ranked()
        )
        for row in state.batches
        if row["mode"] == "rank" and row["repeat_of"] in by_id
    )


def _mean(values: Any) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(known)), 4) if known else None
