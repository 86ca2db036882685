"""Reception's writing of the intake: one thread that commits whatever waits as a group.

For each group: decide (new, same content, different content), sync the folders, one transaction, then wake all who
wait. An answer of Success is sent only after ``commit`` returned, so what was acknowledged is on the disk and in the
index. When the transaction fails, each sender is told so and its file is taken away again.
"""

from __future__ import annotations

import fcntl
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from node.errors import FalxError, Misconfigured
from node.store import intake_tables as tables
from node.store import refusals
from node.store.expiry import carry_out_purges
from node.store.part10 import FOR_ANALYSIS, FileMeta, Names
from node.store.refusals import Refusal
from node.store.spool import Spool

log = structlog.get_logger()
_GROUP = 256  # at most so many in one transaction
_PURGE_EVERY_S = 1.0

# built once: making a statement costs as much as running it
_KNOWN = select(tables.instances.c.sha256, tables.instances.c.path).where(
    tables.instances.c.sop_instance_uid == bindparam("sop")
)
_ADD = insert(tables.instances)


class NotCommitted(FalxError):
    """The intake could not be written: the instance is not stored, the sender must be told so."""


class Outcome(StrEnum):
    """What became of an arrival."""

    STORED = "stored"
    DUPLICATE = "duplicate"  # same content is here already
    CONFLICT = "conflict"  # other content under this SOP Instance UID is here: the new one is in quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One instance to be taken in, written and synced as ``file`` (relative to the storage folder).

    ``association`` is empty at start-up's adoption.
    """

    file: PurePosixPath
    names: Names
    meta: FileMeta
    size_bytes: int
    sha256: str
    received_at: datetime
    association: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as a row of ``instances``."""
        return {
            "study_instance_uid": self.names.study_instance_uid,
            "series_instance_uid": self.names.series_instance_uid,
            "sop_instance_uid": self.names.sop_instance_uid,
            "sop_class_uid": self.names.sop_class_uid,
            "transfer_syntax_uid": self.meta.transfer_syntax_uid,
            "modality": self.names.modality,
            "path": str(self.file),
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "calling_ae": self.meta.calling_ae,
            "called_ae": self.meta.called_ae,
            "remote_host": self.meta.remote_host,
            "received_at": self.received_at,
            "for_analysis": self.names.sop_class_uid in FOR_ANALYSIS,
        }

    def quarantine_row(self, kept: PurePosixPath, code: str, reason: str) -> dict[str, Any]:
        """Return it as a row of ``quarantine``."""
        return {
            "received_at": self.received_at,
            "code": code,
            "reason": reason,
            "path": str(kept),
            "study_instance_uid": self.names.study_instance_uid,
            "sop_instance_uid": self.names.sop_instance_uid,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "calling_ae": self.meta.calling_ae,
            "remote_host": self.meta.remote_host,
        }


@dataclass(slots=True)
class _Group:
    """What one transaction is going to do with files, and how to undo its moves."""

    stored: list[PurePosixPath] = field(default_factory=list)
    set_aside: list[tuple[PurePosixPath, PurePosixPath]] = field(default_factory=list)  # from, place in quarantine
    surplus: list[PurePosixPath] = field(default_factory=list)  # to delete once committed


_Job = tuple[Callable[[Connection, _Group], Any], "Future[Any]"]


class IntakeWriter:
    """The only writer of the intake. Start it with ``with``; leaving it commits what still waits.

    Raises
    ------
    Misconfigured
        Another process receives into the same storage folder.
    """

    def __init__(self, engine: Engine, spool: Spool) -> None:
        self.engine = engine
        self.spool = spool
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open: set[str] = set()
        self._owed: dict[str, Refusal] = {}  # by SOP Instance UID: noted as soon as the index can be written
        self._thread = threading.Thread(target=self._run, name="intake-committer", daemon=True)
        self._lock_file = (spool.folder / "spool.lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise Misconfigured(
                f"another reception process uses {spool.folder}: stop it, or give this one its own storage.folder"
            ) from None
        with engine.begin() as connection:  # associations of a process that is gone
            connection.execute(delete(tables.associations))
            # whose rows are to go when they come; never fewer than there are rows
            self._refused = refusals.noted(connection)

    def __enter__(self) -> IntakeWriter:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._lock_file.close()

    def commit(self, arrival: Arrival) -> Outcome:
        """Take ``arrival`` in and return once it is durable; raise NotCommitted (its file stays) when it cannot be."""
        return Outcome(self._do(lambda connection, group: self._take_in(connection, group, arrival)))

    def quarantine(self, arrival: Arrival, reason: str) -> None:
        """Keep ``arrival``'s bytes in quarantine as ``unreadable``; return once that is durable."""
        self._do(lambda connection, group: self._set_aside(connection, group, arrival, "unreadable", reason))

    def refuse(self, refusal: Refusal) -> None:
        """Note that an instance was refused, durably; when the index cannot be written it is kept and noted later."""
        self._refused.add(refusal.sop_instance_uid)
        try:
            self._do(_noting(refusal))
        except NotCommitted:
            self._owed[refusal.sop_instance_uid] = refusal

    def record_commitment(
        self, *, transaction_uid: str, committed: Sequence[str], failed: dict[str, int], calling_ae: str, at: datetime
    ) -> None:
        """Record a storage commitment answer; return once it is durable."""
        values = {
            "transaction_uid": transaction_uid,
            "committed": list(committed),
            "failed": failed,
            "calling_ae": calling_ae,
            "received_at": at,
        }
        self._do(lambda connection, _group: connection.execute(insert(tables.commitment_events).values(**values)))

    def record_announcement(
        self, *, series_instance_uid: str, instances: Sequence[str], source: str, calling_ae: str, at: datetime
    ) -> None:
        """Record which instances an MPPS or IAN says a series has; return once it is durable."""
        values = {
            "series_instance_uid": series_instance_uid,
            "instances": list(instances),
            "source": source,
            "calling_ae": calling_ae,
            "received_at": at,
        }
        self._do(lambda connection, _group: connection.execute(insert(tables.announcements).values(**values)))

    def association_closed(self, association: str) -> None:
        """Note that an association on which something was stored has ended; does not wait."""

        def close(connection: Connection, _group: _Group) -> None:
            self._forget_association(connection, association)

        self._jobs.put((close, Future()))

    def _do(self, act: Callable[[Connection, _Group], Any]) -> Any:
        done: Future[Any] = Future()
        self._jobs.put((act, done))
        return done.result()

    def _run(self) -> None:
        purged_at = 0.0
        while True:
            if time.monotonic() - purged_at >= _PURGE_EVERY_S:
                carry_out_purges(self.engine, self.spool)
                self._note_owed()
                purged_at = time.monotonic()
            try:
                jobs = [self._jobs.get(timeout=_PURGE_EVERY_S)]
            except queue.Empty:
                continue
            while len(jobs) < _GROUP and not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
            self._commit_group([job for job in jobs if job is not None])
            if None in jobs:
                return

    def _note_owed(self) -> None:
        """Write the refusals that could not be written when they happened; stop at the first that still cannot."""
        for uid, refusal in list(self._owed.items()):
            done: Future[Any] = Future()
            self._commit_group([(_noting(refusal), done)])
            if done.exception() is not None:
                return
            del self._owed[uid]

    def _commit_group(self, jobs: list[_Job]) -> None:
        group = _Group()
        try:
            with self.engine.begin() as connection:
                results = [act(connection, group) for act, _done in jobs]
                self.spool.sync_folders([*group.stored, *(kept for _file, kept in group.set_aside)])
        except (SQLAlchemyError, OSError) as error:
            self._undo(group)
            if len(jobs) > 1:  # one of them may be at fault: each for itself
                for job in jobs:
                    self._commit_group([job])
                return
            log.error("intake_not_committed", error=type(error).__name__, detail=str(error.__cause__ or error)[:200])
            jobs[0][1].set_exception(NotCommitted(f"the intake cannot be written ({type(error).__name__})"))
            return
        for file in group.surplus:
            self.spool.remove(file)
        for (_act, done), result in zip(jobs, results, strict=True):
            done.set_result(result)

    def _undo(self, group: _Group) -> None:
        self._open.clear()
        for file, kept in reversed(group.set_aside):
            try:
                (self.spool.folder / kept).replace(self.spool.folder / file)
            except OSError as error:
                log.error("move_not_undone", path=str(kept), error=error.strerror)

    def _take_in(self, connection: Connection, group: _Group, arrival: Arrival) -> Outcome:
        known = connection.execute(_KNOWN, {"sop": arrival.names.sop_instance_uid}).one_or_none()
        if known is None:
            group.stored.append(arrival.file)
            connection.execute(_ADD, arrival.row())
            self._note_association(connection, arrival)
            if arrival.names.sop_instance_uid in self._refused:
                refusals.forget(connection, arrival.names.sop_instance_uid)
            return Outcome.STORED
        if known.sha256 == arrival.sha256:
            if known.path != str(arrival.file):
                group.surplus.append(arrival.file)
            return Outcome.DUPLICATE
        if self._in_quarantine(connection, arrival):
            group.surplus.append(arrival.file)
        else:
            reason = "another object of this SOP Instance UID with other content or encoding came first and counts"
            self._set_aside(connection, group, arrival, "different-content", reason)
        return Outcome.CONFLICT

    def _note_association(self, connection: Connection, arrival: Arrival) -> None:
        if arrival.association and arrival.association not in self._open:
            self._forget_association(connection, arrival.association)
            connection.execute(
                insert(tables.associations).values(
                    association=arrival.association, calling_ae=arrival.meta.calling_ae, opened_at=arrival.received_at
                )
            )
            self._open.add(arrival.association)

    def _forget_association(self, connection: Connection, association: str) -> None:
        connection.execute(delete(tables.associations).where(tables.associations.c.association == association))
        self._open.discard(association)

    def _in_quarantine(self, connection: Connection, arrival: Arrival) -> bool:
        kept = tables.quarantine.c
        return (
            connection.execute(
                select(kept.quarantine_id).where(
                    kept.sop_instance_uid == arrival.names.sop_instance_uid, kept.sha256 == arrival.sha256
                )
            ).first()
            is not None
        )

    def _set_aside(self, connection: Connection, group: _Group, arrival: Arrival, code: str, reason: str) -> None:
        kept = self.spool.quarantine(arrival.file, arrival.received_at)
        group.set_aside.append((arrival.file, kept))
        connection.execute(insert(tables.quarantine).values(**arrival.quarantine_row(kept, code, reason)))


def _noting(refusal: Refusal) -> Callable[[Connection, _Group], None]:
    return lambda connection, _group: refusals.note(connection, refusal)
