"""The desk that hands out batches: keeps each project's scale up to date and picks what a rater orders next.

State in memory is a copy of the database at one revision of the project; any other revision is read anew.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, RowMapping

from inference.ranking import Ranking, Scale, fit_scale
from inference.ranking_plan import Progress, StopRule, is_enough, next_batch, views_missing
from node.store import rankings
from node.store.database import now, reading
from node.store.rankings import Arrangement

FIT_AT_ONCE_UP_TO = 300
REFIT_SHARE = 500  # a large project is fitted anew after so many batches: its slices divided by this
SECONDS_A_BATCH = {"rank": 14.4, "single": 5.4}  # until there are times of our own (Zaman 2023)
LATEST = timedelta(seconds=10)  # submissions of several raters may become visible in another order
REPEAT_DISTANCE = 4  # batches between a batch and its hidden repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A project's submitted work at one revision; arrays have one entry a slice."""

    revision: int
    stamps: Mapping[int, datetime]  # of the batches that are in here
    batches: tuple[RowMapping, ...]
    rankings: tuple[Ranking, ...]
    views_by: Mapping[str, npt.NDArray[np.int64]]
    singles_by: Mapping[str, npt.NDArray[np.int64]]  # class of each slice by rater, -1: not labelled
    shown: npt.NDArray[np.int64]
    artefacts: npt.NDArray[np.int64]
    scale: Scale
    fitted: int  # rankings that the scale knows

    @property
    def views(self) -> npt.NDArray[np.int64]:
        """How often each slice was ranked, hidden repeats left out."""
        return np.asarray(np.sum([np.zeros_like(self.shown), *self.views_by.values()], axis=0))

    @property
    def excluded(self) -> npt.NDArray[np.bool_]:
        """Slices that more than half of those who saw them called artefacts."""
        return np.asarray(self.artefacts > self.shown / 2)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which slices somebody has given a class, one at a time."""
        rows = [np.zeros(len(self.shown), dtype=bool), *(classes >= 0 for classes in self.singles_by.values())]
        return np.asarray(np.any(rows, axis=0))

    def progress(self, rater: str, available: npt.NDArray[np.bool_]) -> Progress:
        """How the slices stand, seen by one rater."""
        seen_by = [counts > 0 for counts in self.views_by.values()]
        raters = np.sum(seen_by, axis=0) if seen_by else np.zeros_like(self.views)
        mine = self.views_by.get(rater, np.zeros_like(self.views))
        return Progress(views=self.views, raters=raters, mine=mine, available=available)


def standing(connection: Connection, project: RowMapping, known: Standing | None = None) -> Standing:
    """Read a project's work and fit its scale; of a large project with ``known`` work only what is new is read."""
    number = project["slices"]
    new = None if known is None else _new_stamps(connection, project["project_id"], known)
    if known is None or new is None:
        known, new = _nothing(number), rankings.submitted_stamps(connection, project["project_id"])
        fresh = rankings.submitted(connection, project["project_id"])
    else:
        fresh = rankings.submitted(connection, project["project_id"], new) if new else ()
    stamps = {**known.stamps, **new}
    revision = rankings.revision_of(connection, project["project_id"])
    grown = _with_batches(replace(known, revision=revision, stamps=stamps), fresh)
    if number > FIT_AT_ONCE_UP_TO and known.fitted:
        return grown
    return replace(grown, scale=fit_scale(grown.rankings, number), fitted=len(grown.rankings))


def _new_stamps(connection: Connection, project_id: int, known: Standing) -> dict[int, datetime] | None:
    """What was submitted since; None when something known was taken back, or came late: then all is read anew."""
    newest = max(known.stamps.values(), default=None)
    recent = rankings.submitted_stamps(connection, project_id, newest - LATEST if newest else None)
    new = {batch: stamp for batch, stamp in recent.items() if known.stamps.get(batch) != stamp}
    taken_back = not new.keys().isdisjoint(known.stamps)
    complete = rankings.count_submitted(connection, project_id) == len(known.stamps) + len(new)
    return new if complete and not taken_back else None


def _nothing(number: int) -> Standing:
    zeros = np.zeros(number, dtype=np.int64)
    return Standing(
        revision=-1,
        stamps={},
        batches=(),
        rankings=(),
        views_by={},
        singles_by={},
        shown=zeros,
        artefacts=zeros,
        scale=fit_scale((), number),
        fitted=0,
    )


def _with_batches(state: Standing, rows: Sequence[RowMapping]) -> Standing:
    """Add submitted batches. Hidden repeats count for agreement alone."""
    views_by = {rater: views.copy() for rater, views in state.views_by.items()}
    singles_by = {rater: classes.copy() for rater, classes in state.singles_by.items()}
    shown, artefacts = state.shown.copy(), state.artefacts.copy()
    orders = list(state.rankings)
    for row in rows:
        arrangement, rater = Arrangement.of(row["arrangement"]), row["rater"]
        items = list(arrangement.order)
        shown[items] += 1
        artefacts[list(arrangement.artefacts)] += 1
        if row["repeat_of"] is not None:
            continue
        if row["mode"] == "single":
            classes = singles_by.setdefault(rater, np.full(len(shown), -1, dtype=np.int64))
            classes[items] = -1 if arrangement.answer is None else arrangement.answer
        else:
            views_by.setdefault(rater, np.zeros_like(shown))[items] += 1
            orders += [one for one in (_ranking(rater, arrangement),) if len(one.items) > 1]
    return replace(
        state,
        batches=(*state.batches, *rows),
        rankings=tuple(orders),
        views_by=views_by,
        singles_by=singles_by,
        shown=shown,
        artefacts=artefacts,
    )


class RankingDesk:
    """Hands out batches of all projects; safe for many raters at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._standings: dict[int, Standing] = {}
        self._fitting: set[int] = set()

    def standing(self, project: RowMapping) -> Standing:
        """The project's work now. Of a large project the scale may be a few batches behind."""
        key = project["project_id"]
        with self._lock, reading(self._engine) as connection:
            known = self._standings.get(key)
            if known and known.revision == rankings.revision_of(connection, key):
                return known
            fresh = self._standings[key] = standing(connection, project, known)
        if len(fresh.rankings) - fresh.fitted >= max(1, project["slices"] // REFIT_SHARE):
            self._fit_later(key)
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
            scale = fit_scale(state.rankings, len(state.shown), state.scale.scores)
            with self._lock:
                newest = self._standings[project_id]
                self._standings[project_id] = replace(newest, scale=scale, fitted=len(state.rankings))
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
