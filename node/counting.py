"""Asks a query source how many instances the open series have; two equal answers let a series count as complete.

Runs in a thread of its own, since a C-FIND may take seconds. Knows no pynetdicom: the question is handed in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from node.config import QuerySettings
from node.store import ledger
from node.store.database import reading

Ask = Callable[[QuerySettings, str, str], int | None]
"""(source, Study Instance UID, Series Instance UID) -> NumberOfSeriesRelatedInstances, None when it is not told."""


class Counts:
    """The last two counts of each open series, read by the assembly."""

    def __init__(self, sources: Sequence[QuerySettings], ask: Ask, engine: Engine) -> None:
        self._sources = sources
        self._ask = ask
        self._engine = engine
        self._answers: dict[str, tuple[int, ...]] = {}

    def of(self, series_instance_uid: str) -> tuple[int, int] | None:
        """Return the last two counts, or None when there were no two."""
        answers = self._answers.get(series_instance_uid, ())
        return (answers[-2], answers[-1]) if len(answers) == 2 else None

    def run(self, stop: threading.Event) -> None:
        """Poll until ``stop``; without a source there is nothing to do."""
        if not self._sources:
            return
        while not stop.wait(min(source.poll_s for source in self._sources)):
            self.poll()

    def poll(self) -> None:
        """Ask once for every open series; closed ones are forgotten."""
        with reading(self._engine) as connection:
            rows = ledger.open_series(connection)
        uids = {row["series_instance_uid"]: row["study_instance_uid"] for row in rows if row["for_analysis"]}
        self._answers = {uid: answers for uid, answers in self._answers.items() if uid in uids}
        for series_uid, study_uid in uids.items():
            count = self._first_answer(study_uid, series_uid)
            if count is not None:
                self._answers[series_uid] = (*self._answers.get(series_uid, ())[-1:], count)

    def _first_answer(self, study_uid: str, series_uid: str) -> int | None:
        for source in self._sources:
            count = self._ask(source, study_uid, series_uid)
            if count is not None:
                return count
        return None
