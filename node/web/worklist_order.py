"""Every study's place in the worklist and the filters it falls under, from as little of the ledger as that takes.

The page's own rows are read afterwards (:mod:`node.web.queries`): a hundred studies, however many there are.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, select

from node.rules.priority import worklist_score
from node.store.database import now, reading
from node.store.ledger_tables import deliveries, series, studies, tasks
from node.study import DeliveryState, Priority, SeriesState, TaskState

MAX_AGE_S = 2.0

FILTERS: dict[str, str] = {
    "all": "All",
    "waiting": "Waiting",
    "present": "Finding present",
    "absent": "Finding absent",
    "undetermined": "Undetermined",
    "unsuitable": "Unsuitable",
    "failed": "Failed",
    "undelivered": "Not yet confirmed",
    "dead": "Delivery failed",
}


class Answer(NamedTuple):
    """A finished task's main finding."""

    label: str = ""
    probability: float | None = None
    present: bool | None = None


class Place(NamedTuple):
    """A study: how urgent (higher first), since when, and the keys of ``FILTERS`` that it belongs to."""

    study_instance_uid: str
    score: float
    last_received_at: datetime
    kinds: frozenset[str]


class WorklistSnapshot:
    """Places at most ``MAX_AGE_S`` old; twenty open worklists cost the ledger as much as one."""

    def __init__(self, ledger: Engine) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._places: Sequence[Place] = ()
        self._answers: dict[int, Answer] = {}
        self._read_at_s = float("-inf")

    def places(self) -> Sequence[Place]:
        """Every study, highest score first."""
        with self._lock:
            if time.monotonic() - self._read_at_s > MAX_AGE_S:
                with reading(self._ledger) as connection:
                    self._places = places(connection, self._answers)
                self._read_at_s = time.monotonic()
            return self._places


def places(connection: Connection, answers: dict[int, Answer] | None = None) -> list[Place]:
    """Every study of the ledger, highest score first.

    ``answers`` holds what earlier calls read of finished tasks, which never change; it is brought up to date.
    """
    known = {} if answers is None else answers
    states = _tasks(connection, known)
    undelivered = _undelivered(connection)
    receiving = set(
        connection.scalars(
            select(series.c.study_instance_uid).where(series.c.state != SeriesState.COMPLETE, series.c.for_analysis)
        )
    )
    statement = select(studies.c.study_instance_uid, studies.c.last_received_at, studies.c.priority)
    at = now()
    found = []
    for uid, received_at, priority in connection.execute(statement):
        mine = states.get(uid, ())
        probability, present = _main(mine)
        age_s = (at - received_at).total_seconds()
        score = worklist_score(probability, present, age_s, priority == Priority.STAT)
        outcomes = tuple((state, answer.present) for state, answer in mine)
        kinds = _kinds(outcomes, uid in receiving, undelivered.get(uid, frozenset()))
        found.append(Place(uid, score, received_at, kinds))
    found.sort(key=lambda place: -place.score)
    return found


def main_findings(connection: Connection, which: ColumnElement[bool]) -> dict[int, Answer]:
    """The main finding of some tasks, taken out of their JSON by the database."""
    main = tasks.c.findings
    values = (main[0, "label"].as_string(), main[0, "probability"].as_float(), main[0, "present"].as_boolean())
    query = select(tasks.c.task_id, *values).where(which)
    return {task_id: Answer(label or "", *rest) for task_id, label, *rest in connection.execute(query)}


def _tasks(connection: Connection, answers: dict[int, Answer]) -> dict[str, list[tuple[str, Answer]]]:
    """State and answer of each study's current tasks."""
    current = connection.execute(
        select(tasks.c.task_id, tasks.c.study_instance_uid, tasks.c.state).where(
            tasks.c.superseded_by.is_(None), ~tasks.c.shadow
        )
    ).all()
    _bring_up_to_date(connection, answers, {row.task_id for row in current if row.state != TaskState.WAITING})
    nothing = Answer()
    states: dict[str, list[tuple[str, Answer]]] = defaultdict(list)
    for task_id, uid, state in current:
        states[uid].append((state, answers.get(task_id, nothing)))
    return states


def _bring_up_to_date(connection: Connection, answers: dict[int, Answer], wanted: set[int]) -> None:
    for gone in answers.keys() - wanted:
        del answers[gone]
    missing = wanted - answers.keys()
    if missing:  # new tasks have the highest numbers
        found = main_findings(connection, tasks.c.task_id >= min(missing))
        answers.update((task_id, found[task_id]) for task_id in missing)


def _undelivered(connection: Connection) -> dict[str, frozenset[str]]:
    """The states of deliveries that are not confirmed, by study."""
    unconfirmed: dict[str, set[str]] = defaultdict(set)
    query = select(deliveries.c.study_instance_uid, deliveries.c.state).where(
        deliveries.c.state.in_([state.value for state in DeliveryState if state is not DeliveryState.CONFIRMED])
    )
    for uid, state in connection.execute(query.distinct()):
        unconfirmed[uid].add(state)
    return {uid: frozenset(found) for uid, found in unconfirmed.items()}


def _main(mine: Sequence[tuple[str, Answer]]) -> tuple[float | None, bool | None]:
    """Probability and presence of the likeliest finding."""
    best = max((answer for _, answer in mine if answer.probability is not None), key=_probability, default=None)
    return (best.probability, best.present) if best else (None, None)


def _probability(answer: Answer) -> float:
    return answer.probability or 0.0


@cache
def _kinds(
    outcomes: tuple[tuple[str, bool | None], ...], receiving: bool, unconfirmed: frozenset[str]
) -> frozenset[str]:
    kinds = {"all"}
    for state, present in outcomes:
        kinds.add(state if state != TaskState.ANALYSED else "present" if present else "absent")
    if receiving or not outcomes:
        kinds.add("waiting")
    if unconfirmed & {DeliveryState.QUEUED, DeliveryState.SENT}:
        kinds.add("undelivered")
    if DeliveryState.DEAD in unconfirmed:
        kinds.add("dead")
    return frozenset(kinds)
