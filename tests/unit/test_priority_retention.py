"""Order of the queue and of the worklist; what may be deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import StorageSettings
from node.rules.priority import priority_of, urgency, worklist_score
from node.rules.retention import StoredStudy, purgeable
from node.study import DeliveryState, Priority, SeriesState, TaskState

DAY_S = 86400.0
NOW = datetime(2026, 1, 20, tzinfo=UTC)
SETTINGS = StorageSettings()  # received 7 days, not for analysis 1 day, objects 30 days
DONE = StoredStudy(
    study_instance_uid="1.2",
    last_received_at=NOW - timedelta(days=8),
    for_analysis=True,
    series=(SeriesState.COMPLETE,),
    tasks=(TaskState.ANALYSED,),
    deliveries=(DeliveryState.CONFIRMED,) * 3,
    objects_created_at=NOW - timedelta(days=8),
)


def test_stat_then_ct_then_the_rest() -> None:
    assert urgency(Priority.STAT, "MR") < urgency(Priority.ROUTINE, "CT") < urgency(Priority.ROUTINE, "MR")
    assert [priority_of(p) for p in ("STAT", "high ", "ROUTINE", "")] == ["stat", "stat", "routine", "routine"]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 30 * DAY_S))
def test_more_probable_comes_first_and_waiting_only_helps(p: float, q: float, waited_s: float) -> None:
    low, high = sorted((p, q))
    assert worklist_score(low, None, waited_s, False) <= worklist_score(high, None, waited_s, False)
    assert worklist_score(p, None, waited_s, False) <= worklist_score(p, None, waited_s + 60, False)
    assert worklist_score(p, None, waited_s, True) > worklist_score(q, True, waited_s + 300 * DAY_S, False)


def test_a_negative_does_not_starve() -> None:
    assert worklist_score(0.01, False, 1.1 * DAY_S, False) > worklist_score(0.99, True, 0, False)


def test_no_answer_is_not_an_all_clear() -> None:
    assert worklist_score(None, None, 0, False) > worklist_score(0.1, False, 0, False)


@pytest.mark.parametrize(
    ("study", "low_space", "instances", "objects", "why"),
    [
        (DONE, False, True, False, "older than 7 days"),
        (replace(DONE, objects_created_at=NOW - timedelta(days=31)), False, True, True, "older"),
        (replace(DONE, last_received_at=NOW - timedelta(days=6)), False, False, False, "kept for 7 days"),
        (replace(DONE, last_received_at=NOW - timedelta(days=6)), True, True, False, "space"),
        (replace(DONE, deliveries=(DeliveryState.CONFIRMED, DeliveryState.SENT)), True, False, False, "1 deliveries"),
        (replace(DONE, deliveries=(DeliveryState.DEAD,)), True, False, False, "not confirmed"),
        (replace(DONE, tasks=(TaskState.ANALYSED, TaskState.WAITING)), True, False, False, "waits"),
        (replace(DONE, tasks=(), last_received_at=NOW - timedelta(hours=23)), True, False, False, "not yet judged"),
        (replace(DONE, tasks=(), deliveries=()), False, True, False, "older than 7 days"),  # its model is switched off
        (replace(DONE, tasks=(TaskState.FAILED,)), True, False, False, "falx retry"),
        (replace(DONE, series=(SeriesState.COMPLETE, SeriesState.RECEIVING)), True, False, False, "received"),
        (replace(DONE, held=True), True, False, False, "held"),
        (replace(DONE, for_analysis=False, tasks=(), deliveries=()), False, True, False, "older than 1 days"),
        (replace(DONE, last_received_at=NOW + timedelta(days=3)), False, False, False, "kept"),
    ],
)  # fmt: skip
def test_purgeable(study: StoredStudy, low_space: bool, instances: bool, objects: bool, why: str) -> None:
    answer = purgeable(study, NOW, SETTINGS, low_space)
    assert (answer.instances, answer.objects) == (instances, objects)
    assert why in answer.why
