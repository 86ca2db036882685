"""From received instances to tasks: take over the intake, judge completeness, choose series, create tasks.

The one place where the rules meet the ledger. Runs as a loop in the service process; every step is one transaction and
can be repeated after a kill.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping

from inference.result import Reason
from node import log
from node.config import ModelSettings, Settings
from node.counting import Ask, Counts
from node.errors import Corrupt
from node.headers import Header, from_json, read_header, to_json
from node.rules.completion import Completion, SeriesView, Verdict, judge
from node.rules.priority import priority_of, urgency
from node.rules.series_choice import Choice, choose_series, facts_of, why_none
from node.store import booking, intake, ledger, refusals
from node.store.booking import Arrival
from node.store.database import now, open_database, reading
from node.study import MODALITY_OF, Priority, SeriesState

BATCH = 400
NO_HEADERS = Reason(code="unreadable", text="No header of the study's images could be read.")


class Assembly:
    """Takes over what reception stored and turns complete series into tasks.

    Parameters
    ----------
    settings
        The configuration.
    intake_engine, ledger_engine
        Open databases; the intake is only read.
    counts
        What query sources say of open series.
    """

    def __init__(self, settings: Settings, intake_engine: Engine, ledger_engine: Engine, counts: Counts) -> None:
        self._settings = settings
        self._intake = intake_engine
        self._ledger = ledger_engine
        self._headers: dict[str, dict[str, Header]] = {}  # of open series: SOP Instance UID -> header
        self._counts = counts
        self._look_again: dict[str, float] = {}  # monotonic time before which silence changes nothing
        self._unchanged_since: dict[str, tuple[int, float]] = {}  # instances held, and the monotonic time since
        self._refusals_seen = 0  # looked through again after a restart
        self._silence_s = {c.ae_title: c.silence_s for c in settings.reception.callers if c.silence_s}

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        while not stop.is_set():
            busy = self.step()
            stop.wait(0.05 if busy else 0.25)

    def step(self) -> bool:
        """Do what there is to do once; True when instances came."""
        came = self._take_over()
        self._reopen_refused()
        self._judge_open_series()
        self._say_unsuitable()
        return came

    def _take_over(self) -> bool:
        name = self._cursor_name()
        with reading(self._ledger) as connection:
            cursor = ledger.cursor(connection, name)
        rows = intake.rows_after(self._intake, cursor, BATCH)
        if not rows:
            return False
        arrivals = []
        for row in rows:
            header = self._read(row)
            if header is not None:
                self._headers_of(row.series_instance_uid)[row.sop_instance_uid] = header
            arrivals.append(_arrival(row, header))
        with self._ledger.begin() as connection:
            booking.take_over(connection, arrivals)
            ledger.set_cursor(connection, name, rows[-1].seq)
        return True

    def _has_more(self, series_instance_uid: str) -> bool:
        with reading(self._ledger) as connection:
            cursor = ledger.cursor(connection, self._cursor_name())
        return intake.has_newer(self._intake, series_instance_uid, cursor)

    def _cursor_name(self) -> str:
        # a rebuilt intake numbers its rows anew, so each generation has a cursor of its own
        return f"intake {intake.generation(self._intake)}"

    def _read(self, row: intake.IntakeRow) -> Header | None:
        try:
            return read_header(self._settings.storage.folder / row.path)
        except (Corrupt, FileNotFoundError) as error:  # stored and acknowledged, so it is booked all the same
            log.get().warning("header_unreadable", sop_instance_uid=row.sop_instance_uid, error=str(error))
            return None

    def _reopen_refused(self) -> None:
        """A series called whole of which an instance was refused since: it is late, whether or not that one comes."""
        new = refusals.after(self._intake, self._refusals_seen)
        if not new:
            return
        for uid in {series for _number, series in new}:
            refused = self._refused(uid)
            with self._ledger.begin() as connection:
                if refused and booking.reopen(connection, uid, why=f"{refused} instances refused", at=now()):
                    log.get().warning("series_refused_in_part", series_instance_uid=uid, instances=refused)
        self._refusals_seen = new[-1][0]

    def _refused(self, series_instance_uid: str) -> int:
        """How many instances of a series are missing because reception refused them."""
        refused = refusals.missing(self._intake, series_instance_uid)
        if not refused:
            return 0
        with reading(self._ledger) as connection:  # what was purged after it was answered is not missing
            return len(refused - ledger.booked(connection, series_instance_uid))

    def _judge_open_series(self) -> None:
        with reading(self._ledger) as connection:
            rows = ledger.open_series(connection)
        if not rows:
            return
        callers = intake.open_callers(self._intake)
        for row in rows:
            self._judge(row, callers)

    def _judge(self, row: RowMapping, callers: set[str]) -> None:
        uid, at = row["series_instance_uid"], now()
        if time.monotonic() < self._look_again.get(uid, 0.0) and self._unchanged_since[uid][0] == row["instances"]:
            return
        completion = self._completion(row, callers, at)
        if completion.verdict != Verdict.COMPLETE:
            # at the latest after a second: a count, an announcement or a closed association may have come
            wait_s = min(1.0, (completion.look_again_at - at).total_seconds())
            self._look_again[uid] = time.monotonic() + wait_s
            return
        if self._has_more(uid):  # it came, and its refusal went, while this was judged
            return
        with self._ledger.begin() as connection:
            ledger.complete_series(
                connection, uid, why=completion.why, possibly_incomplete=completion.possibly_incomplete, at=at
            )
            self._plan(connection, row["study_instance_uid"], at)
        self._headers.pop(uid, None)
        self._unchanged_since.pop(uid, None)
        self._look_again.pop(uid, None)

    def _completion(self, row: RowMapping, callers: set[str], at: datetime) -> Completion:
        uid = row["series_instance_uid"]
        headers = tuple(self._headers_of(uid).values())
        # a monotonic clock of our own, since the wall clock may be set back; after a restart it starts anew
        held, since = self._unchanged_since.get(uid, (-1, 0.0))
        if held != row["instances"]:
            since = time.monotonic() - max(0.0, min((at - row["last_received_at"]).total_seconds(), 1.0))
            self._unchanged_since[uid] = (row["instances"], since)
        listed = intake.announced(self._intake, uid)
        view = SeriesView(
            headers=headers,
            announced_complete=bool(listed) and listed <= set(self._headers_of(uid)),
            first_received_at=row["first_received_at"],
            last_received_at=row["last_received_at"],
            reopened_at=row["reopened_at"] or row["completed_at"],
            study_last_received_at=row["study_last_received_at"],
            sender_association_open=row["calling_ae"] in callers,
            counted=self._counts.of(uid),
            refused=self._refused(uid),
            unreadable=row["instances"] - len(headers),
            unchanged_s=time.monotonic() - since,
        )
        settings = self._settings.completion
        if not row["for_analysis"]:  # nobody waits for it, so silence is enough
            settings = settings.model_copy(update={"silence_without_coverage_s": settings.silence_s})
        return judge(view, at, settings, self._silence_s.get(row["calling_ae"]))

    def _headers_of(self, series_instance_uid: str) -> dict[str, Header]:
        if series_instance_uid not in self._headers:  # after a restart, or late
            with reading(self._ledger) as connection:
                rows = ledger.instances_of(connection, series_instance_uid)
            self._headers[series_instance_uid] = {
                r["sop_instance_uid"]: from_json(r["header"]) for r in rows if r["header"]
            }
        return self._headers[series_instance_uid]

    def _plan(self, connection: Connection, study_instance_uid: str, at: datetime) -> None:
        """Create a task for each model that a complete series of the study now fits better than before."""
        study = ledger.study(connection, study_instance_uid)
        rows = {r["series_instance_uid"]: r for r in ledger.series_of(connection, study_instance_uid)}
        for purpose, model in self._settings.models.enabled.items():
            complete = [
                uid
                for uid, r in rows.items()
                if r["state"] == SeriesState.COMPLETE and r["for_analysis"] and r["modality"] == MODALITY_OF[purpose]
            ]
            choice = self._choose(connection, complete, purpose, model)
            if study is None or choice is None or choice.chosen is None:
                continue
            self._add_task(connection, study, rows[choice.chosen.series_instance_uid], purpose, choice, at)

    def _choose(
        self, connection: Connection, series_uids: Sequence[str], purpose: str, model: ModelSettings
    ) -> Choice | None:
        facts = []
        for uid in series_uids:
            headers = [from_json(r["header"]) for r in ledger.instances_of(connection, uid) if r["header"]]
            if headers:
                facts.append(facts_of(headers))
        return choose_series(facts, purpose, model.series) if facts else None

    def _add_task(
        self, connection: Connection, study: RowMapping, row: RowMapping, purpose: str, choice: Choice, at: datetime
    ) -> None:
        uid = row["series_instance_uid"]
        shadows = [False, True] if self._settings.models.enabled[purpose].shadow_folder else [False]
        for shadow in shadows:
            current = ledger.current_task(connection, study["study_instance_uid"], purpose, shadow=shadow)
            if current is not None and (current["series_instance_uid"], current["series_version"]) == (
                uid,
                row["version"],
            ):
                continue
            ledger.add_task(
                connection,
                {
                    **_task_values(study, purpose, choice, at),
                    "shadow": shadow,
                    "series_instance_uid": uid,
                    "series_version": row["version"],
                    "possibly_incomplete": row["possibly_incomplete"],
                    "last_instance_at": row["last_received_at"],
                },
            )

    def _say_unsuitable(self) -> None:
        """A study of a model's modality that has been silent and has no task gets one that will say so."""
        at = now()
        before = at - timedelta(seconds=self._settings.completion.study_silence_s)
        for purpose, model in self._settings.models.enabled.items():
            with reading(self._ledger) as connection:
                quiet = ledger.silent_studies_without_task(connection, MODALITY_OF[purpose], purpose, before)
            for study_uid in quiet:
                with self._ledger.begin() as connection:
                    study = ledger.study(connection, study_uid)
                    uids = [
                        r["series_instance_uid"]
                        for r in ledger.series_of(connection, study_uid)
                        if r["modality"] == MODALITY_OF[purpose] and r["for_analysis"]
                    ]
                    choice = self._choose(connection, uids, purpose, model)
                    why = why_none(choice, purpose) if choice else NO_HEADERS
                    if study is not None:
                        ledger.add_task(
                            connection,
                            {
                                **_task_values(study, purpose, choice, at),
                                "last_instance_at": study["last_received_at"],
                                "reason_code": why.code,
                                "reason_text": why.text,
                            },
                        )


def _task_values(study: RowMapping, purpose: str, choice: Choice | None, at: datetime) -> dict[str, Any]:
    return {
        "study_instance_uid": study["study_instance_uid"],
        "model": purpose,
        "shadow": False,
        "choice": [asdict(candidate) for candidate in choice.candidates] if choice else [],
        "urgency": urgency(Priority(study["priority"]), MODALITY_OF[purpose]),
        "created_at": at,
    }


def _arrival(row: intake.IntakeRow, header: Header | None) -> Arrival:
    return Arrival(
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        path=row.path,
        sha256=row.sha256,
        header=to_json(header) if header is not None else {},
        received_at=row.received_at,
        intake_seq=row.seq,
        calling_ae=row.calling_ae,
        for_analysis=row.for_analysis,
        modality=header.modality if header else row.modality,
        series_description=header.series_description if header else "",
        study_description=header.study_description if header else "",
        study_date=header.study_date if header else "",
        patient_name=header.patient_name if header else "",
        patient_id=header.patient_id if header else "",
        accession_number=header.accession_number if header else "",
        priority=priority_of(header.requested_priority) if header else Priority.ROUTINE,
    )


def run_assembly(settings: Settings, stop: threading.Event, ask: Ask) -> None:
    """The assembly loop of the service process; ``ask`` is a C-FIND (node.dicom_net.query)."""
    intake_engine, ledger_engine = (open_database(settings.storage, name) for name in ("intake", "ledger"))
    counts = Counts(settings.queries, ask, ledger_engine)
    threading.Thread(target=counts.run, args=(stop,), name="counting", daemon=True).start()
    Assembly(settings, intake_engine, ledger_engine, counts).run(stop)
