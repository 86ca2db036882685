"""Many rankings of a few slices each -> one scale with its errors (Plackett-Luce; Zaman et al., J Med AI 2023).

A rater orders a batch from lowest to highest. The scale gives each slice the score s under which the orders seen are
likeliest: P(order) = product over places of exp(w s_i) / sum over what is left of exp(w s_j), highest first, with a
weak normal prior on s and a discrimination w per rater. Slices tied by a rater share their place (Breslow).

``choix`` solves the same problem with dense matrices and Python loops, which ten thousand slices do not allow; it is
the yardstick of the tests (ADR 0046). Knows no database and no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import cg

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

PRIOR_SD = 4.0
LOG_WEIGHT_SD = 0.4
EXACT_ERRORS_UP_TO = 1500
PROBES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One rater's order of a batch, lowest first; ``ties[k]`` says that items k and k + 1 are equal."""

    items: tuple[int, ...]
    rater: str
    ties: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The fitted scale.

    Attributes
    ----------
    scores, errors
        Score and standard error of each item, in units of the scores' standard deviation, mean 0.
    groups
        Connected group of each item; scores of different groups cannot be compared.
    rater_weights
        Discrimination of each rater, 1 on average: how sharply the orders follow the common scale.
    """

    scores: Array
    errors: Array
    groups: Index
    rater_weights: dict[str, float] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        """Whether all items hang together."""
        return bool(len(self.groups) == 0 or self.groups.max() == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Orders:
    """Rankings as arrays ``[batch, place]``, highest first: items (padded), who is there, counts of each stage."""

    items: Index
    there: npt.NDArray[np.bool_]
    stages: Array  # number of items whose tie group starts at this place
    group_start: Index
    raters: Index
    names: tuple[str, ...]


def fit_scale(rankings: Sequence[Ranking], number: int, start: Array | None = None) -> Scale:
    """Fit the scale of ``number`` items.

    Parameters
    ----------
    rankings
        All submitted batches; batches of one item say nothing and are ignored.
    start
        Scores to start from, for a quick refit.

    Raises
    ------
    ValueError
        A ranking names an item twice or one outside 0..number-1.
    """
    orders = _orders([ranking for ranking in rankings if len(ranking.items) > 1], number)
    scores = np.zeros(number) if start is None else np.array(start, dtype=float) * PRIOR_SD / 2
    weights = np.ones(len(orders.names))
    for _ in range(3 if len(orders.names) > 1 else 1):
        scores = _fit_scores(orders, weights, scores)
        if len(orders.names) > 1:
            weights = _fit_weights(orders, scores)
    errors = _errors(_hessian(orders, weights, scores))
    scores = scores - scores.mean()
    spread = float(scores.std()) or 1.0
    return Scale(
        scores=scores / spread,
        errors=errors / spread,
        groups=_groups(orders, number),
        rater_weights=dict(zip(orders.names, (float(weight) for weight in weights), strict=True)),
    )


def _orders(rankings: Sequence[Ranking], number: int) -> _Orders:
    width = max((len(ranking.items) for ranking in rankings), default=1)
    shape = (len(rankings), width)
    items, there = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    group_start = np.tile(np.arange(width), (len(rankings), 1))
    names = tuple(sorted({ranking.rater for ranking in rankings}))
    for row, ranking in enumerate(rankings):
        order = ranking.items[::-1]
        if len(set(order)) != len(order) or min(order) < 0 or max(order) >= number:
            raise ValueError(f"ranking {row} must name different items of 0..{number - 1}")
        items[row, : len(order)] = order
        there[row, : len(order)] = True
        for place, tied in enumerate(ranking.ties[::-1][: len(order) - 1], 1):
            if tied:
                group_start[row, place] = group_start[row, place - 1]
    stages = np.zeros(shape)
    np.add.at(stages, (np.arange(len(rankings))[:, None], group_start), there.astype(float))
    raters = np.array([names.index(ranking.rater) for ranking in rankings], dtype=np.int64)
    return _Orders(items=items, there=there, stages=stages, group_start=group_start, raters=raters, names=names)


def _left(orders: _Orders, values: Array) -> Array:
    """Log of the sum over what is left at each place ``[batch, place]``."""
    padded = np.where(orders.there, values, -np.inf)
    with np.errstate(invalid="ignore"):
        sums = np.logaddexp.accumulate(padded[:, ::-1], axis=1)[:, ::-1]
    return np.where(orders.there, sums, 0.0)


def _loss(orders: _Orders, values: Array) -> Array:
    """Minus log likelihood of each batch, given weighted scores ``[batch, place]``."""
    return np.asarray((orders.stages * _left(orders, values) - np.where(orders.there, values, 0.0)).sum(axis=1))


def _fit_scores(orders: _Orders, weights: Array, start: Array) -> Array:
    weight = weights[orders.raters][:, None]

    def objective(scores: Array) -> tuple[float, Array]:
        values = weight * scores[orders.items]
        left = _left(orders, values)
        total = float((orders.stages * left - np.where(orders.there, values, 0.0)).sum())
        share = np.cumsum(orders.stages * np.exp(-left + values.max(axis=1, keepdims=True)), axis=1)
        chosen = np.exp(values - values.max(axis=1, keepdims=True)) * share
        slope = np.where(orders.there, weight * (chosen - 1.0), 0.0)
        gradient = np.bincount(orders.items.ravel(), slope.ravel(), minlength=len(scores))
        return total + float(scores @ scores) / (2 * PRIOR_SD**2), gradient + scores / PRIOR_SD**2

    if not len(orders.items):
        return start * 0.0
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 400, "ftol": 1e-10})
    return np.asarray(found.x)


def _fit_weights(orders: _Orders, scores: Array) -> Array:
    """Discrimination of each rater given the scores; log-normal prior, mean of the logarithms 0."""
    values = scores[orders.items]
    logs = np.zeros(len(orders.names))
    for rater in range(len(orders.names)):
        mine = orders.raters == rater
        part = _Orders(
            items=orders.items[mine],
            there=orders.there[mine],
            stages=orders.stages[mine],
            group_start=orders.group_start[mine],
            raters=orders.raters[mine],
            names=orders.names,
        )
        own = values[mine]

        def objective(log: float, part: _Orders = part, own: Array = own) -> float:
            return float(_loss(part, np.exp(log) * own).sum() + (log / LOG_WEIGHT_SD) ** 2 / 2)

        logs[rater] = optimize.minimize_scalar(objective, bounds=(-2.0, 2.0), method="bounded").x
    return np.asarray(np.exp(logs - logs.mean()))


def _hessian(orders: _Orders, weights: Array, scores: Array) -> sparse.csr_matrix:
    """Curvature of the loss with the prior, sparse ``[item, item]``."""
    number, width = len(scores), orders.items.shape[1]
    weight = weights[orders.raters][:, None]
    values = weight * scores[orders.items]
    left = _left(orders, values)
    blocks = np.zeros((len(orders.items), width, width))
    for place in range(width):
        later = orders.there & (np.arange(width) >= place) & orders.there[:, place : place + 1]
        chance = np.where(later, np.exp(np.minimum(values - left[:, place : place + 1], 0.0)), 0.0)
        stage = (orders.stages[:, place] * weight[:, 0] ** 2)[:, None]
        blocks -= (stage * chance)[:, :, None] * chance[:, None, :]
        blocks[:, np.arange(width), np.arange(width)] += stage * chance
    rows = np.repeat(orders.items, width, axis=1).ravel()
    columns = np.tile(orders.items, (1, width)).ravel()
    curvature = sparse.coo_matrix((blocks.ravel(), (rows, columns)), shape=(number, number)).tocsr()
    return curvature + sparse.identity(number, format="csr") / PRIOR_SD**2


def _errors(hessian: sparse.csr_matrix) -> Array:
    """Standard errors: root of the diagonal of the inverse; by random probes when there are many items (Hutchinson)."""
    number = hessian.shape[0]
    if number <= EXACT_ERRORS_UP_TO:
        return np.asarray(np.sqrt(np.diag(np.linalg.inv(hessian.toarray()))))
    rng = np.random.default_rng(0)
    precondition = sparse.diags(1.0 / hessian.diagonal())
    total = np.zeros(number)
    for _ in range(PROBES):
        probe = rng.choice((-1.0, 1.0), number)
        total += probe * cg(hessian, probe, rtol=1e-3, maxiter=200, M=precondition)[0]
    return np.asarray(np.sqrt(np.clip(total / PROBES, 1.0 / hessian.diagonal(), PRIOR_SD**2)))


def _groups(orders: _Orders, number: int) -> Index:
    rows = np.repeat(np.arange(len(orders.items)), orders.there.sum(axis=1))
    members = orders.items[orders.there]
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows + number, members)), shape=(number + len(orders.items),) * 2)
    labels = csgraph.connected_components(graph, directed=False)[1][:number]
    _, dense = np.unique(labels, return_inverse=True)
    return np.asarray(dense, dtype=np.int64)
