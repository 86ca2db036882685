"""Intake and outbox on PostgreSQL: the same code, the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures_net import arrival, capture, ct_instance, ct_series, deliveries_of, queue_results

from node.config import StorageSettings
from node.errors import Corrupt
from node.store import intake, outbox
from node.store.adoption import adopt
from node.store.database import now, open_database
from node.store.intake_writer import IntakeWriter, Outcome
from node.store.spool import Spool
from node.study import ConfirmedBy, DeliveryState

pytest_plugins = ("fixtures_postgres",)


@pytest.fixture
def storage(tmp_path: Path, postgres_url: str) -> StorageSettings:
    return StorageSettings(folder=tmp_path, database=postgres_url, min_free_mb=0)


def test_intake(storage: StorageSettings, wait_for: Callable[..., object]) -> None:
    engine, spool = open_database(storage, "intake"), Spool(storage)
    one, two, stray = ct_series(3)
    with IntakeWriter(engine, spool) as writer:
        assert writer.commit(arrival(spool, one)) is Outcome.STORED
        assert writer.commit(arrival(spool, one)) is Outcome.DUPLICATE
        other = ct_instance(one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID, seed=3)
        assert writer.commit(arrival(spool, other)) is Outcome.CONFLICT
        assert writer.commit(arrival(spool, two)) is Outcome.STORED
        arrival(spool, stray)
        assert adopt(writer).taken_in == 1
        rows = intake.rows_after(engine, 0)
        assert [r.sop_instance_uid for r in rows] == [d.SOPInstanceUID for d in (one, two, stray)]
        assert intake.open_callers(engine) == {"CT1"}
        assert len(intake.quarantined(engine)) == 1
        writer.record_commitment(
            transaction_uid="2.25.1", committed=["1"], failed={"2": 0x112}, calling_ae="PACS", at=now()
        )
        assert intake.commitment_events_after(engine, 0)[0].failed == {"2": 0x112}
        intake.request_purge(engine, one.StudyInstanceUID, up_to_seq=rows[1].seq, at=now())
        wait_for(lambda: intake.open_purges(engine) == 0, 20, "the purge")
        assert intake.rows_after(engine, 0) == rows[2:]
    engine.dispose()


def test_outbox(storage: StorageSettings) -> None:
    engine = open_database(storage, "ledger")
    picture = capture("1.2.3")
    (uid,) = queue_results(storage, engine, [picture], ["pacs"])
    with engine.begin() as connection:
        (row,) = outbox.next_batch(connection, "pacs", now())
        outbox.move(connection, row["delivery_id"], DeliveryState.SENT, sent_at=now())
        outbox.open_commitment(
            connection, transaction_uid="2.25.1", destination="pacs", delivery_ids=[row["delivery_id"]], at=now()
        )
        assert [r["sop_instance_uid"] for r in outbox.sent_to(connection, "pacs", [uid])] == [uid]
        outbox.confirm(connection, row["delivery_id"], ConfirmedBy.STORAGE_COMMITMENT, now())
    assert deliveries_of(engine)[uid]["confirmed_by"] == "storage-commitment"
    picture.SeriesDescription = "another"
    with pytest.raises(Corrupt):
        queue_results(storage, engine, [picture], ["pacs"])
    engine.dispose()
