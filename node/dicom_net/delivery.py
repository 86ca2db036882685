"""Delivery: from the outbox to the PACSs. One thread a destination, one association a study, SR first.

    queued ──C-STORE──▶ sent ──commitment | C-FIND | nothing better──▶ confirmed
       ▲ peer cannot now, association ended, instance lost │ refused for good ▶ dead

Every answer is in the ledger before the next object leaves; a process killed between the two sends the same bytes
under the same UID once more. Faults are of three kinds: of the object (dead, the others go on), of the association
(the object in flight waits), of the destination (all wait, longer each time).
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from sqlalchemy import Engine, RowMapping

from node.config import DestinationSettings, Settings
from node.dicom_net import confirmation
from node.dicom_net.commitment_scp import read_report
from node.dicom_net.confirmation import backoff
from node.dicom_net.query import PLAIN
from node.dicom_net.scu import AssociationLost, DestinationFault, Peer, association
from node.dicom_net.store_scu import Answer, SendResult, send_object, storage_contexts, stored_syntax
from node.dicom_net.uids import STORAGE_COMMITMENT, STUDY_ROOT_FIND, VERIFICATION
from node.errors import Corrupt, Transient
from node.store import intake, ledger, outbox
from node.store.database import now, open_database, reading
from node.study import ConfirmedBy, DeliveryState

log = structlog.get_logger()
_LOOK_S = 0.2
_CRASH_PAUSE_S = 5.0
_EVENT_WAIT_S = 1.0  # for a commitment answer on the same association; most peers call back on another
_CONFIRM_AT_ONCE = 200


def run_delivery(settings: Settings, stop: threading.Event) -> None:
    """Deliver until ``stop``: a thread a destination, and one that applies the commitment answers of the intake."""
    engine = open_database(settings.storage, "ledger")
    received = open_database(settings.storage, "intake")
    couriers = [Courier(settings, destination, engine) for destination in settings.destinations]
    answers = CommitmentAnswers(settings, received, engine)
    threads = [
        threading.Thread(target=_keep_going, args=(c.step, stop), name=f"deliver-{c.destination.name}")
        for c in couriers
    ]
    threads.append(threading.Thread(target=_keep_going, args=(answers.step, stop), name="commitment-answers"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    received.dispose()


def _keep_going(step: Callable[[], float], stop: threading.Event) -> None:
    """Call ``step`` until ``stop``; it returns the seconds to wait before the next call."""
    while not stop.is_set():
        try:
            pause_s = step()
        except Exception as error:  # the edge of a worker loop: one destination's trouble must not end the others'
            stack = traceback.format_tb(error.__traceback__)  # without the message, which may quote attribute values
            log.error(
                "delivery_failed", thread=threading.current_thread().name, error=type(error).__name__, stack=stack
            )
            pause_s = _CRASH_PAUSE_S
        stop.wait(pause_s)


class Courier:
    """Carries everything that is due to one destination."""

    def __init__(self, settings: Settings, destination: DestinationSettings, engine: Engine) -> None:
        self.destination = destination
        self._folder = settings.storage.folder
        self._calling_ae = settings.reception.ae_title
        self._known = {destination.name: destination}
        self._engine = engine
        self._longest_retry = timedelta(seconds=destination.retry_max_s)
        self._longest_look = timedelta(seconds=max(destination.commitment_timeout_s, destination.retry_max_s, 600.0))
        self._faults = 0  # in a row
        self._answered = threading.Event()
        self._answer_wait_s = _EVENT_WAIT_S

    def step(self) -> float:
        """Deliver one study, or else look after what was sent; return the seconds to wait."""
        with reading(self._engine) as connection:
            batch = outbox.next_batch(connection, self.destination.name, now(), self._longest_retry)
            waiting = [] if batch else outbox.unconfirmed(connection, self.destination.name, now(), self._longest_look)
        if not batch and not waiting:
            return _LOOK_S
        started = time.monotonic()
        try:
            if batch:
                self._deliver(batch)
            else:
                self._look_after(waiting[:_CONFIRM_AT_ONCE])
        except Transient as error:
            self._faults += 1
            pause_s = backoff(self.destination, self._faults).total_seconds()
            log.warning("destination_fault", destination=self.destination.name, error=str(error), pause_s=pause_s)
            if isinstance(error, DestinationFault):
                self._note_fault(batch, str(error))
            return pause_s
        self._faults = 0
        log.info("delivered", destination=self.destination.name, objects=len(batch), seconds=time.monotonic() - started)
        return 0.0

    def _deliver(self, batch: Sequence[RowMapping]) -> None:
        kinds = [(row["sop_class_uid"], stored_syntax(self._folder / row["path"])) for row in batch]
        with self._association(storage_contexts(kinds)) as opened:
            sent = [row for number, row in enumerate(batch, 1) if self._send(opened, row, number)]
            with reading(self._engine) as connection:
                fresh = outbox.sent_to(connection, self.destination.name, [r["sop_instance_uid"] for r in sent])
            self._confirm(opened, fresh)

    def _association(self, contexts: Sequence[PresentationContext]) -> AbstractContextManager[Association]:
        """With the contexts for confirmation; Verification keeps it open when a peer takes none of the objects."""
        wanted = [*contexts, build_context(VERIFICATION, PLAIN)]
        if self.destination.confirm == "storage-commitment":
            wanted.append(build_context(STORAGE_COMMITMENT, PLAIN))
        if self.destination.confirm != "accepted":
            wanted.append(build_context(STUDY_ROOT_FIND, PLAIN))
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        return association(Peer.of(self.destination), wanted, calling_ae=self._calling_ae, handlers=handlers)

    def _send(self, opened: Association, row: RowMapping, number: int) -> bool:
        """Send one object and note its answer; True when the peer has it."""
        attempt = int(row["attempt"]) + 1
        try:
            result = send_object(opened, self._folder / row["path"], row["sop_class_uid"], number)
        except AssociationLost as error:
            self._later(row, attempt, SendResult(answer=Answer.LATER, text=str(error)))
            raise
        except FileNotFoundError:
            result = SendResult(answer=Answer.REFUSED, text="its file is missing from the outbox; restore a backup")
        if result.answer is Answer.LATER:
            self._later(row, attempt, result)
            return False
        at = now()
        values = {"attempt": attempt, "status": result.status, "error": result.text, "run_after": at}
        with self._engine.begin() as connection:
            if result.answer is Answer.SENT:
                outbox.move(connection, row["delivery_id"], DeliveryState.SENT, sent_at=at, **values)
                return True
            outbox.move(connection, row["delivery_id"], DeliveryState.DEAD, **values)
        log.error("object_refused", destination=self.destination.name, kind=row["kind"], error=result.text)
        return False

    def _later(self, row: RowMapping, attempt: int, result: SendResult) -> None:
        """Keep an object queued for another try; dead when the tries are limited and used up."""
        limit = self.destination.max_attempts
        at = now()
        with self._engine.begin() as connection:
            values = {"attempt": attempt, "status": result.status, "error": result.text}
            if limit and attempt >= limit:
                outbox.move(connection, row["delivery_id"], DeliveryState.DEAD, run_after=at, **values)
            else:
                wait = backoff(self.destination, attempt)
                outbox.put_off(connection, row["delivery_id"], run_after=at + wait, **values)

    def _note_fault(self, batch: Sequence[RowMapping], text: str) -> None:
        """Show why the batch waits. It stays due: the courier pauses, and sends all when the peer is back."""
        limit = self.destination.max_attempts
        with self._engine.begin() as connection:
            for row in batch:
                if not limit:
                    outbox.put_off(connection, row["delivery_id"], error=text)
                elif int(row["attempt"]) + 1 < limit:
                    outbox.put_off(connection, row["delivery_id"], error=text, attempt=int(row["attempt"]) + 1)
                else:
                    outbox.move(connection, row["delivery_id"], DeliveryState.DEAD, error=text, attempt=limit)

    def _look_after(self, rows: Sequence[RowMapping]) -> None:
        """Ask (again) about sent objects: after a restart, or when no commitment answer came in time."""
        at = now()
        with self._engine.begin() as connection:
            for transaction in {row["transaction_uid"] for row in rows} - {""}:
                outbox.close_commitment(connection, transaction, outcome="timeout", at=at)
                log.warning("commitment_timeout", destination=self.destination.name, transaction_uid=transaction)
        if self.destination.confirm == "accepted":
            self._accept(rows)
            return
        with self._association([]) as opened:
            self._confirm(opened, rows)

    def _confirm(self, opened: Association, rows: Sequence[RowMapping]) -> None:
        """Confirm sent objects in the strongest way that is configured and that the peer offers."""
        if not rows:
            return
        offered = {context.abstract_syntax for context in opened.accepted_contexts}
        if STORAGE_COMMITMENT in offered:
            self._answered.clear()
            if confirmation.request_commitment(opened, self._engine, self.destination, rows):
                if not self._answered.wait(self._answer_wait_s):
                    self._answer_wait_s = 0.0  # this peer answers on an association of its own
                return
        if STUDY_ROOT_FIND in offered:
            confirmation.read_back(opened, self._engine, self.destination, rows)
        else:
            self._accept(rows)

    def _accept(self, rows: Sequence[RowMapping]) -> None:
        with self._engine.begin() as connection:
            for row in rows:
                outbox.confirm(connection, row["delivery_id"], ConfirmedBy.ACCEPTED, now())

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        """A commitment answer on the association of the request: applied before it is acknowledged."""
        try:
            report = read_report(event)
        except Corrupt as error:
            log.error("commitment_report_unreadable", destination=self.destination.name, error=str(error))
            return 0x0110, None
        with self._engine.begin() as connection:
            confirmation.apply_report(
                connection,
                self._known,
                transaction_uid=report.transaction_uid,
                committed=report.committed,
                failed=report.failed,
                at=now(),
            )
        self._answered.set()
        return 0x0000, None


class CommitmentAnswers:
    """Applies the commitment answers that reception received on associations of their own."""

    def __init__(self, settings: Settings, received: Engine, engine: Engine) -> None:
        self._destinations = {destination.name: destination for destination in settings.destinations}
        self._received = received
        self._engine = engine
        self._cursor_name = f"commitment-{intake.generation(received)}"

    def step(self) -> float:
        """Apply what came since the last time; the cursor moves in the same transaction."""
        with reading(self._engine) as connection:
            cursor = ledger.cursor(connection, self._cursor_name)
        events = intake.commitment_events_after(self._received, cursor, 100)
        if not events:
            return _LOOK_S
        with self._engine.begin() as connection:
            for event in events:
                confirmation.apply_report(
                    connection,
                    self._destinations,
                    transaction_uid=event.transaction_uid,
                    committed=event.committed,
                    failed=event.failed,
                    at=now(),
                )
            ledger.set_cursor(connection, self._cursor_name, events[-1].event_id)
        return 0.0
