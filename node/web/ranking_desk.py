"""The desk that hands out batches: keeps each project's scale up to date and picks what a rater orders next.

State in memory is a copy of the database at one revision of the project; any other revision is read anew.
"""

from __future__ import annotations

import statistics
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, RowMapping

from inference.ranking import Ranking, Scale, fit_scale
from inference.ranking_plan import Progress, StopRule, is_enough, next_batch, views_missing
from node.store import rankings
from node.store.database import now, reading
from node.store.rankings import SUBMITTED, Arrangement

FIT_AT_ONCE_UP_TO = 300
SECONDS_A_BATCH = {"rank": 14.4, "single": 5.4}  # until there are times of our own (Zaman 2023)
REPEAT_DISTANCE = 4  # batches between a batch and its hidden repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A project's submitted work at one revision; arrays have one entry a slice."""

    revision: int
    rankings: tuple[Ranking, ...]
    batches: tuple[RowMapping, ...]
    views: npt.NDArray[np.int64]
    views_by: Mapping[str, npt.NDArray[np.int64]]
    singles_by: Mapping[str, npt.NDArray[np.int64]]  # class of each slice by rater, -1: not labelled
    excluded: npt.NDArray[np.bool_]
    scale: Scale

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which slices somebody has given a class, one at a time."""
        rows = [np.zeros(len(self.views), dtype=bool), *(classes >= 0 for classes in self.singles_by.values())]
        return np.asarray(np.any(rows, axis=0))

    def progress(self, rater: str, available: npt.NDArray[np.bool_]) -> Progress:
        """How the slices stand, seen by one rater."""
        seen_by = [counts > 0 for counts in self.views_by.values()]
        raters = np.sum(seen_by, axis=0) if seen_by else np.zeros_like(self.views)
        mine = self.views_by.get(rater, np.zeros_like(self.views))
        return Progress(views=self.views, raters=raters, mine=mine, available=available)


def standing(connection: Connection, project: RowMapping, number: int, scale: Scale | None = None) -> Standing:
    """Read a project's work; the scale is fitted when none is given. Hidden repeats count for agreement alone."""
    revision = rankings.revision_of(connection, project["project_id"])
    batches = tuple(row for row in rankings.finished(connection, project["project_id"]) if row["state"] == SUBMITTED)
    views_by: dict[str, npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(number, dtype=np.int64))
    singles_by: dict[str, npt.NDArray[np.int64]] = defaultdict(lambda: np.full(number, -1, dtype=np.int64))
    shown, artefacts = np.zeros(number), np.zeros(number)
    orders = []
    for row in batches:
        arrangement = Arrangement.of(row["arrangement"])
        items = list(arrangement.order)
        shown[items] += 1
        artefacts[list(arrangement.artefacts)] += 1
        if row["mode"] == "single":
            if arrangement.answer is not None and row["repeat_of"] is None:
                singles_by[row["rater"]][items] = arrangement.answer
        elif row["repeat_of"] is None:
            views_by[row["rater"]][items] += 1
            orders.append(_ranking(row["rater"], arrangement))
    excluded = artefacts > shown / 2
    kept = tuple(order for order in orders if len(order.items) > 1)
    return Standing(
        revision=revision,
        rankings=kept,
        batches=batches,
        views=np.sum(list(views_by.values()), axis=0) if views_by else np.zeros(number, dtype=np.int64),
        views_by=dict(views_by),
        singles_by=dict(singles_by),
        excluded=excluded,
        scale=scale or fit_scale(kept, number),
    )


class RankingDesk:
    """Hands out batches of all projects; safe for many raters at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._standings: dict[int, Standing] = {}
        self._fitting: set[int] = set()

    def standing(self, project: RowMapping) -> Standing:
        """The project's work now. Of a large project the scale may be a few seconds behind."""
        with self._lock, reading(self._engine) as connection:
            known = self._standings.get(project["project_id"])
            if known and known.revision == rankings.revision_of(connection, project["project_id"]):
                return known
            small = project["slices"] <= FIT_AT_ONCE_UP_TO or known is None
            old_scale = known.scale if known and not small else None
            fresh = standing(connection, project, project["slices"], old_scale)
            self._standings[project["project_id"]] = fresh
        if not small:
            self._fit_later(project["project_id"])
        return fresh

    def batch_for(self, project: RowMapping, rater: str, mode: str) -> RowMapping | None:
        """The rater's open batch, or a new one; None when there is nothing left to do."""
        with self._lock:
            with reading(self._engine) as connection:
                open_one = rankings.open_batch(connection, project["project_id"], rater, mode)
            if open_one is not None:
                return open_one
            state = self.standing(project)
            rng = np.random.default_rng()
            items, repeat_of = self._choose(project, state, rater, mode, rng)
            if not items:
                return None
            with self._engine.begin() as connection:
                return rankings.add_batch(connection, project["project_id"], rater, mode, items, now(), repeat_of)

    def _choose(
        self, project: RowMapping, state: Standing, rater: str, mode: str, rng: np.random.Generator
    ) -> tuple[Sequence[int], int | None]:
        repeat = self._repeat(project, state, rater, mode, rng)
        if repeat is not None:
            return [int(item) for item in rng.permutation(repeat["items"])], repeat["batch_id"]
        if mode == "single":
            left = np.flatnonzero(~state.labelled & ~state.excluded)
            return ([int(rng.choice(left))] if len(left) else []), None
        progress = state.progress(rater, ~state.excluded)
        if is_enough(state.scale, progress, rule_of(project), state.excluded):
            return [], None
        return next_batch(state.scale, progress, rule_of(project), rng, project["batch_size"]), None

    def _repeat(
        self, project: RowMapping, state: Standing, rater: str, mode: str, rng: np.random.Generator
    ) -> RowMapping | None:
        """One of the rater's own earlier batches, now and then, to see whether the order comes out the same."""
        mine = [row for row in state.batches if row["rater"] == rater and row["mode"] == mode]
        repeated = {row["repeat_of"] for row in mine}
        old = [row for row in mine[:-REPEAT_DISTANCE] if row["repeat_of"] is None and row["batch_id"] not in repeated]
        if not old or rng.random() >= project["repeat_share"]:
            return None
        return old[int(rng.integers(len(old)))]

    def _fit_later(self, project_id: int) -> None:
        with self._lock:
            if project_id in self._fitting:
                return
            self._fitting.add(project_id)
        threading.Thread(target=self._fit, args=(project_id,), name="ranking-fit", daemon=True).start()

    def _fit(self, project_id: int) -> None:
        try:
            state = self._standings[project_id]
            scale = fit_scale(state.rankings, len(state.views), state.scale.scores)
            with self._lock:
                self._standings[project_id] = replace(self._standings[project_id], scale=scale)
        finally:
            with self._lock:
                self._fitting.discard(project_id)


def rule_of(project: RowMapping) -> StopRule:
    """The project's stop rule."""
    return StopRule(min_views=project["min_views"], min_raters=project["min_raters"], max_error=project["max_error"])


def figures(project: RowMapping, state: Standing, rater: str) -> dict[str, Any]:
    """Numbers for the page: views, hours, predicted time left, by mode where they differ."""
    rule = rule_of(project)
    progress = state.progress(rater, ~state.excluded)
    number = int((~state.excluded).sum())
    needed = number * rule.min_views
    missing = views_missing(progress, rule, state.excluded)
    times: dict[str, list[float]] = {mode: [] for mode in SECONDS_A_BATCH}
    for row in state.batches:
        times[row["mode"]].append(row["seconds"])
    typical = {mode: statistics.median(own) if len(own) >= 3 else SECONDS_A_BATCH[mode] for mode, own in times.items()}
    single_done = int(state.labelled.sum())
    return {
        "slices": number,
        "excluded": int(state.excluded.sum()),
        "views_done": needed - missing,
        "views_needed": needed,
        "enough": is_enough(state.scale, progress, rule, state.excluded),
        "largest_error": float(state.scale.errors[~state.excluded].max()) if number else 0.0,
        "connected": len(np.unique(state.scale.groups[state.views > 0])) <= 1,
        "single_done": single_done,
        "hours_all": sum(row["seconds"] for row in state.batches) / 3600,
        "hours_mine": sum(row["seconds"] for row in state.batches if row["rater"] == rater) / 3600,
        "batches_mine": sum(row["rater"] == rater for row in state.batches),
        "hours_left": missing / project["batch_size"] * typical["rank"] / 3600,
        "hours_left_single": (number - single_done) * typical["single"] / 3600,
    }


def _ranking(rater: str, arrangement: Arrangement) -> Ranking:
    items = arrangement.ranked()
    return Ranking(items=items, rater=rater, ties=tuple(item in arrangement.ties for item in items[:-1]))
