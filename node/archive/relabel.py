"""One relabelling run: read an archive, label what is new, changed or labelled by another model, store it.

A straight line in batches. A batch is looked up, labelled, written to a Parquet file and booked in one transaction;
a killed run begins again at the batch it was at. Memory holds one batch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from inference.result import ModelId
from node import log
from node.archive import identity
from node.archive.engines import LabelEngine
from node.archive.sorter import Sorter
from node.archive.sources import Source
from node.config import StorageSettings
from node.errors import FalxError, Transient
from node.store import labels_files, labels_parts, labels_runs, leases
from node.store.labels_values import Batch, Counts, Flagged, LabelledReport, PlannedPart, Report

BATCH_REPORTS = 512  # a worker
LEASE = timedelta(minutes=5)
DATABASE_PATIENCE_S = 120.0
DATABASE_RETRY_S = 1.0

Progress = Callable[[Counts, int], None]
"""Called after each batch with the run's counts and the number of parts ended so far."""

Entry = tuple[int, str | None, Report | Flagged | bool]
"""part_id, position, record; at the end of a part position is None and the record tells whether it was read whole."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that ended: its label set, model and counts."""

    archive: str
    set_id: int
    model: ModelId
    counts: Counts
    seconds: float


class Relabelling:
    """A run over one archive; :meth:`run` does it. ``labels`` and ``ledger`` are the open databases."""

    def __init__(
        self,
        storage: StorageSettings,
        labels: Engine,
        ledger: Engine,
        archive: str,
        source: Source,
        engine: LabelEngine,
    ) -> None:
        self.folder = storage.folder
        self.labels, self.ledger = labels, ledger
        self.archive, self.source, self.engine = archive, source, engine
        self.set_id = 0
        self.model_sha256 = ""

    def run(
        self,
        *,
        trigger: str = "person",
        engine_name: str = "local",
        progress: Progress | None = None,
        stop: threading.Event | None = None,
    ) -> Run:
        """Do the run.

        Raises
        ------
        Misconfigured
            Before anything is stored: the source's columns or the model's files are wrong.
        Transient
            Another process is at this archive, a database stays away, ``stop`` was set. The next run goes on.
        """
        began = time.monotonic()
        self.source.check()
        model = self.engine.model_id()
        self.model_sha256 = model.weights_sha256
        self._hold_lease()
        try:
            self.set_id = self._patiently(
                lambda connection: self._begin(connection, model, trigger=trigger, engine=engine_name)
            )
            counts = self._work(progress, stop or threading.Event())
        except (FalxError, DBAPIError, OSError) as error:
            self._note_failure(error)
            if isinstance(error, FalxError):
                raise
            raise Transient(f"archive {self.archive}: {_reason(error)}; the next run goes on from there") from error
        finally:
            with contextlib.suppress(DBAPIError):  # the ledger is away: the lease runs out by itself
                leases.release(self.ledger, self._lease_name)
        seconds = time.monotonic() - began
        log.get().info(
            "relabelled", archive=self.archive, set_id=self.set_id, seconds=round(seconds, 1), **counts.as_dict()
        )
        return Run(archive=self.archive, set_id=self.set_id, model=model, counts=counts, seconds=seconds)

    def _begin(self, connection: Connection, model: ModelId, *, trigger: str, engine: str) -> int:
        labels_files.remove_orphans(self.folder, self.archive, connection)
        host = leases.this_process().split(":", maxsplit=1)[0]
        return labels_runs.begin(connection, self.archive, model, trigger=trigger, engine=engine, host=host)

    def _work(self, progress: Progress | None, stop: threading.Event) -> Counts:
        parts = self.source.parts()
        while chunk := list(islice(parts, labels_parts.PLAN_ROWS)):
            self._patiently(partial(labels_parts.plan, set_id=self.set_id, archive=self.archive, parts=chunk))
        entries = self._entries()
        ended = 0
        while some := list(islice(entries, BATCH_REPORTS * self.engine.workers)):
            if stop.is_set():
                raise Transient(f"archive {self.archive}: stopped; the next run goes on from here")
            self._hold_lease()
            batch = self._batch(some)
            path = labels_files.write(self.folder, self.archive, self.set_id, batch.labelled) if batch.labelled else ""
            self._patiently(partial(self._store_once, batch=batch, path=path))
            ended += len(batch.ended)
            if progress is not None:
                progress(self._patiently(lambda c: labels_runs.counts(c, self.set_id)), ended)
        return self._patiently(lambda c: labels_runs.finish(c, self.set_id, self.archive))

    def _entries(self) -> Iterator[Entry]:
        """All records that the run still has to read; after the last one of a part, its end."""
        after = 0
        while parts := self._patiently(partial(labels_parts.open_parts, set_id=self.set_id, after=after)):
            for planned in parts:
                yield from self._entries_of(planned)
            after = parts[-1].part_id

    def _entries_of(self, planned: PlannedPart) -> Iterator[Entry]:
        whole = True
        for position, record in self.source.read(planned.part, planned.position):
            whole = whole and not (isinstance(record, Flagged) and record.ends_part)
            yield planned.part_id, position, record
        yield planned.part_id, None, whole

    def _batch(self, entries: list[Entry]) -> Batch:
        """Decide the fate of each record and label what needs it."""
        batch = Batch()
        records = [record for _, _, record in entries if isinstance(record, Report)]
        ids = list({report_id for report in records for report_id in identity.candidate_ids(report)})
        current = self._patiently(lambda c: labels_runs.look_up(c, self.set_id, self.archive, ids))
        sorter = Sorter(batch, current, self.model_sha256)
        for part_id, position, record in entries:
            if position is None:
                batch.ended[part_id] = record is True
            else:
                batch.positions[part_id] = position
                sorter.take(part_id, record)
        answers = self.engine.label(
            [chosen.report.text for chosen in sorter.chosen], [chosen.report.modality for chosen in sorter.chosen]
        )
        batch.labelled = [
            LabelledReport(
                report_id=chosen.report_id,
                report=chosen.report,
                labels=labels,
                part_id=chosen.part_id,
                replaces=chosen.replaces,
            )
            for chosen, labels in zip(sorter.chosen, answers, strict=True)
        ]
        return batch

    def _store_once(self, connection: Connection, batch: Batch, path: str) -> None:
        """Store a batch unless an earlier try did, whose answer was lost with the connection."""
        if not labels_parts.is_stored(connection, self.set_id, batch):
            labels_runs.store(connection, self.set_id, self.archive, batch, path)

    @property
    def _lease_name(self) -> str:
        return f"relabel:{self.archive}"

    def _hold_lease(self) -> None:
        if not _retried(lambda: leases.acquire(self.ledger, self._lease_name, LEASE)):
            raise Transient(f"archive {self.archive} is being relabelled by another process")

    def _patiently(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction; wait for a database that went away."""

        def once() -> T:
            with self.labels.begin() as connection:
                return work(connection)

        return _retried(once)

    def _note_failure(self, error: Exception) -> None:
        text = str(error) if isinstance(error, FalxError) else _reason(error)
        log.get().warning("relabelling_stopped", archive=self.archive, set_id=self.set_id, reason=text)
        if self.set_id:
            with contextlib.suppress(DBAPIError), self.labels.begin() as connection:  # away: the set stays "running"
                labels_runs.fail(connection, self.set_id, text)


def _retried(work: Callable[[], T]) -> T:
    """Do ``work``, again and again while a database is away, for at most DATABASE_PATIENCE_S."""
    end = time.monotonic() + DATABASE_PATIENCE_S
    while True:
        try:
            return work()
        except DBAPIError as error:
            away = isinstance(error, OperationalError) or error.connection_invalidated
            if not away or time.monotonic() > end:
                raise
            log.get().warning("database_away", reason=_reason(error))
            time.sleep(DATABASE_RETRY_S)


def _reason(error: Exception) -> str:
    """What went wrong, without the statement and its parameters (they hold report texts)."""
    if isinstance(error, DBAPIError):
        lines = str(error.orig).strip().splitlines()
        return f"database: {type(error.orig).__name__}: {lines[0] if lines else ''}"
    return f"{getattr(error, 'strerror', None) or type(error).__name__}"
