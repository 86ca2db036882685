"""The ledger's rules: take-over, states, the queue's order, versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from node.config import StorageSettings
from node.errors import FalxError
from node.store import booking, ledger
from node.store.database import open_database, reading
from node.store.ledger_tables import instances, series, tasks
from node.study import SeriesState, TaskState

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(StorageSettings(folder=tmp_path), "ledger")
    yield opened
    opened.dispose()


def arrival(number: int, study: str = "1.2.3", series_uid: str = "1.2.3.1", modality: str = "CT") -> booking.Arrival:
    return booking.Arrival(
        sop_instance_uid=f"{series_uid}.{number}",
        series_instance_uid=series_uid,
        study_instance_uid=study,
        path=f"spool/{number}.dcm",
        sha256="0" * 64,
        header={"modality": modality},
        received_at=T0 + timedelta(seconds=number),
        intake_seq=number,
        calling_ae="PACS",
        for_analysis=True,
        modality=modality,
    )


def task(study: str, *, urgency: int = 1, model: str = "ct_haemorrhage", at: datetime = T0) -> dict[str, object]:
    return {
        "study_instance_uid": study,
        "model": model,
        "shadow": False,
        "urgency": urgency,
        "last_instance_at": at,
        "created_at": at,
        "series_instance_uid": f"{study}.1",
        "series_version": 1,
    }


def book(engine: Engine, *studies: str) -> None:
    with engine.begin() as connection:
        for number, study in enumerate(studies):
            booking.take_over(connection, [arrival(number, study, f"{study}.1")])


def test_taking_over_twice_books_once(engine: Engine) -> None:
    for _ in range(2):
        with engine.begin() as connection:
            booking.take_over(connection, [arrival(1), arrival(2)])
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(instances)) == 2
        assert connection.scalar(select(series.c.instances)) == 2


def test_an_instance_after_completion_makes_the_series_late(engine: Engine) -> None:
    book(engine, "1.2")
    with engine.begin() as connection:
        ledger.complete_series(connection, "1.2.1", why="silent", possibly_incomplete=False, at=T0)
    with engine.begin() as connection:
        booking.take_over(connection, [arrival(9, "1.2", "1.2.1")])
        row = connection.execute(select(series)).one()
    assert row.state == SeriesState.LATE
    with engine.begin() as connection:
        ledger.complete_series(connection, "1.2.1", why="silent", possibly_incomplete=False, at=T0)
        assert connection.scalar(select(series.c.version)) == 2


def test_a_complete_series_cannot_complete_again(engine: Engine) -> None:
    book(engine, "1.2")
    with engine.begin() as connection:
        ledger.complete_series(connection, "1.2.1", why="silent", possibly_incomplete=False, at=T0)
        with pytest.raises(FalxError, match="complete -> complete"):
            ledger.complete_series(connection, "1.2.1", why="silent", possibly_incomplete=False, at=T0)


def test_the_queue_is_stat_then_ct_then_age(engine: Engine) -> None:
    book(engine, "1", "2", "3", "4")
    with engine.begin() as connection:
        ledger.add_task(connection, task("1", urgency=2, at=T0))
        ledger.add_task(connection, task("2", urgency=1, at=T0 + timedelta(minutes=5)))
        ledger.add_task(connection, task("3", urgency=1, at=T0 + timedelta(minutes=2)))
        ledger.add_task(connection, task("4", urgency=0, at=T0 + timedelta(minutes=9)))
    order = []
    for _ in range(5):
        with engine.begin() as connection:
            claimed = ledger.claim_task(connection, "w", T0 + timedelta(hours=1))
            order.append(claimed["study_instance_uid"] if claimed else None)
    assert order == ["4", "3", "2", "1", None]


def test_a_dead_workers_task_is_claimed_again(engine: Engine) -> None:
    book(engine, "1")
    with engine.begin() as connection:
        ledger.add_task(connection, task("1"))
    at = T0 + timedelta(hours=1)
    with engine.begin() as connection:
        assert ledger.claim_task(connection, "host/worker-0", at)
    with engine.begin() as connection:
        assert ledger.claim_task(connection, "host/worker-1", at) is None
        assert ledger.release_claims(connection, "host/worker-0") == 1
        again = ledger.claim_task(connection, "host/worker-1", at)
    assert again is not None
    assert again["attempt"] == 2


def test_a_new_version_supersedes_the_old(engine: Engine) -> None:
    book(engine, "1")
    ids = []
    for _ in range(2):
        with engine.begin() as connection:
            ids.append(ledger.add_task(connection, task("1")))
            ledger.claim_task(connection, "w", T0 + timedelta(hours=1))
            ledger.finish_task(connection, ids[-1], TaskState.ANALYSED, {"finished_at": T0})
    with reading(engine) as connection:
        rows = connection.execute(select(tasks).order_by(tasks.c.version)).all()
    assert [(r.version, r.superseded_by) for r in rows] == [(1, ids[1]), (2, None)]


def test_a_version_waits_until_the_one_before_it_is_final(engine: Engine) -> None:
    book(engine, "1")
    at = T0 + timedelta(hours=1)
    with engine.begin() as connection:
        first = ledger.add_task(connection, task("1"))
        assert ledger.claim_task(connection, "a", at)
        second = ledger.add_task(connection, {**task("1"), "series_version": 2})
        assert second != first
        assert ledger.claim_task(connection, "b", at) is None
        ledger.finish_task(connection, first, TaskState.ANALYSED, {"finished_at": T0})
        claimed = ledger.claim_task(connection, "b", at)
    assert claimed is not None
    assert claimed["task_id"] == second


def test_a_waiting_task_is_replaced_not_doubled(engine: Engine) -> None:
    book(engine, "1")
    with engine.begin() as connection:
        first = ledger.add_task(connection, task("1"))
        assert ledger.add_task(connection, {**task("1"), "series_version": 2}) == first


def test_a_final_task_never_changes(engine: Engine) -> None:
    book(engine, "1")
    with engine.begin() as connection:
        task_id = ledger.add_task(connection, task("1"))
        ledger.finish_task(connection, task_id, TaskState.FAILED, {"finished_at": T0})
        with pytest.raises(FalxError, match="failed -> analysed"):
            ledger.finish_task(connection, task_id, TaskState.ANALYSED, {"finished_at": T0})


def test_silent_studies_are_those_without_a_task(engine: Engine) -> None:
    book(engine, "1", "2")
    with engine.begin() as connection:
        ledger.add_task(connection, task("1"))
        later = T0 + timedelta(hours=1)
        assert ledger.silent_studies_without_task(connection, "CT", "ct_haemorrhage", later) == ["2"]
        assert ledger.silent_studies_without_task(connection, "MR", "mr_abnormality", later) == []
        assert ledger.silent_studies_without_task(connection, "CT", "ct_haemorrhage", T0) == []
