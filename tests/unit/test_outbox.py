"""The outbox: queued once, one UID for one content, states by the table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pydicom
import pytest
from fixtures_net import capture, deliveries_of, queue_results, report
from sqlalchemy import Engine

from node.config import StorageSettings
from node.errors import Corrupt, FalxError
from node.store import outbox
from node.store.database import now, open_database
from node.study import ConfirmedBy, DeliveryState

STUDY = "1.2.826.0.1.3680043.10.9999.1"


@pytest.fixture
def storage(tmp_path: Path) -> StorageSettings:
    return StorageSettings(folder=tmp_path)


@pytest.fixture
def ledger(storage: StorageSettings) -> Iterator[Engine]:
    engine = open_database(storage, "ledger")
    yield engine
    engine.dispose()


def test_objects_are_stored_whole_and_queued_sr_first(storage: StorageSettings, ledger: Engine) -> None:
    picture, text = capture(STUDY), report(STUDY)
    queue_results(storage, ledger, [picture, text], ["pacs", "other"])
    with ledger.begin() as connection:
        batch = outbox.next_batch(connection, "pacs", now())
    assert [row["sop_instance_uid"] for row in batch] == [text.SOPInstanceUID, picture.SOPInstanceUID]
    stored = pydicom.dcmread(storage.folder / batch[1]["path"])
    assert stored.PixelData == picture.PixelData
    assert str(batch[1]["path"]).startswith("outbox/")


def test_queueing_twice_changes_nothing(storage: StorageSettings, ledger: Engine) -> None:
    picture = capture(STUDY)
    queue_results(storage, ledger, [picture], ["pacs"])
    before = deliveries_of(ledger)
    queue_results(storage, ledger, [picture], ["pacs"])
    assert deliveries_of(ledger) == before


def test_one_uid_never_names_two_contents(storage: StorageSettings, ledger: Engine) -> None:
    picture = capture(STUDY)
    queue_results(storage, ledger, [picture], ["pacs"])
    first = [p.read_bytes() for p in (storage.folder / "outbox").rglob("*.dcm")]
    picture.SeriesDescription = "another"
    with pytest.raises(Corrupt, match="names other content"):
        queue_results(storage, ledger, [picture], ["pacs"])
    assert first[0] in [p.read_bytes() for p in (storage.folder / "outbox").rglob("*.dcm")]
    assert len(deliveries_of(ledger)) == 1


def test_states_follow_the_table(storage: StorageSettings, ledger: Engine) -> None:
    (uid,) = queue_results(storage, ledger, [capture(STUDY)], ["pacs"])
    delivery = deliveries_of(ledger)[uid]["delivery_id"]
    with ledger.begin() as connection, pytest.raises(FalxError, match="not allowed"):
        outbox.confirm(connection, delivery, ConfirmedBy.ACCEPTED, now())
    with ledger.begin() as connection:
        assert outbox.move(connection, delivery, DeliveryState.SENT, sent_at=now())
        assert not outbox.move(connection, delivery, DeliveryState.SENT)
        outbox.confirm(connection, delivery, ConfirmedBy.C_FIND, now())
        outbox.confirm(connection, delivery, ConfirmedBy.ACCEPTED, now())  # a second confirmation changes nothing
    assert deliveries_of(ledger)[uid]["confirmed_by"] == "c-find"


def test_retry_queues_the_dead_but_not_the_cancelled(storage: StorageSettings, ledger: Engine) -> None:
    dead, cancelled = capture(STUDY), capture("1.2.3.4")
    queue_results(storage, ledger, [dead], ["pacs"])
    queue_results(storage, ledger, [cancelled], ["pacs"])
    task = 2
    with ledger.begin() as connection:
        rows = deliveries_of(ledger)
        outbox.move(connection, rows[dead.SOPInstanceUID]["delivery_id"], DeliveryState.DEAD, error="refused")
        assert outbox.cancel(connection, task, why="replaced by version 2", at=now()) == 1
        assert outbox.retry(connection, None, now()) == 1
    rows = deliveries_of(ledger)
    assert rows[dead.SOPInstanceUID]["state"] == "queued"
    assert (rows[cancelled.SOPInstanceUID]["state"], rows[cancelled.SOPInstanceUID]["error"]) == (
        "dead",
        "replaced by version 2",
    )


def test_what_is_put_off_is_not_due_yet(storage: StorageSettings, ledger: Engine) -> None:
    (uid,) = queue_results(storage, ledger, [capture(STUDY)], ["pacs"])
    with ledger.begin() as connection:
        later = now() + timedelta(minutes=5)
        outbox.put_off(connection, deliveries_of(ledger)[uid]["delivery_id"], run_after=later)
        assert outbox.next_batch(connection, "pacs", now()) == []
        assert len(outbox.next_batch(connection, "pacs", later)) == 1
        assert outbox.counts(connection) == {("pacs", "queued"): 1}


def test_after_the_clock_was_set_back_nothing_waits_for_the_old_time(storage: StorageSettings, ledger: Engine) -> None:
    (uid,) = queue_results(storage, ledger, [capture(STUDY)], ["pacs"])
    with ledger.begin() as connection:
        in_an_hour, longest = now() + timedelta(hours=1), timedelta(minutes=15)
        outbox.put_off(connection, deliveries_of(ledger)[uid]["delivery_id"], run_after=in_an_hour)
        assert outbox.next_batch(connection, "pacs", now()) == []
        assert len(outbox.next_batch(connection, "pacs", now(), longest)) == 1
        assert outbox.next_batch(connection, "pacs", in_an_hour - timedelta(minutes=5), longest) == []


def test_a_batch_holds_one_study_the_oldest_first(storage: StorageSettings, ledger: Engine) -> None:
    first = queue_results(storage, ledger, [capture("1.2.1"), capture("1.2.1")], ["pacs"])
    queue_results(storage, ledger, [capture("1.2.2")], ["pacs"])
    with ledger.begin() as connection:
        assert {r["sop_instance_uid"] for r in outbox.next_batch(connection, "pacs", now())} == set(first)


def test_the_answer_to_a_commitment_finds_its_destination(storage: StorageSettings, ledger: Engine) -> None:
    (uid,) = queue_results(storage, ledger, [capture(STUDY)], ["pacs"])
    delivery = deliveries_of(ledger)[uid]["delivery_id"]
    with ledger.begin() as connection:
        outbox.move(connection, delivery, DeliveryState.SENT, sent_at=now())
        outbox.open_commitment(
            connection, transaction_uid="2.25.7", destination="pacs", delivery_ids=[delivery], at=now()
        )
        assert outbox.commitment_destination(connection, "2.25.7") == "pacs"
        assert outbox.commitment_destination(connection, "2.25.8") is None
        assert [r["sop_instance_uid"] for r in outbox.in_transaction(connection, "2.25.7")] == [uid]
        assert outbox.close_commitment(connection, "2.25.7", outcome="committed", at=now())
        assert not outbox.close_commitment(connection, "2.25.7", outcome="committed", at=now())


def test_the_header_is_read_from_the_stored_object(storage: StorageSettings, ledger: Engine) -> None:
    text = report(STUDY)
    text.SeriesDescription = "AI ICH: suspected - RESEARCH USE ONLY"
    queue_results(storage, ledger, [text], ["pacs"])
    with ledger.begin() as connection:
        (row,) = outbox.objects_of(connection, 1, "p")
        assert outbox.objects_of(connection, 1, "another profile") == []
    assert outbox.header_of(storage, row).SeriesDescription == "AI ICH: suspected - RESEARCH USE ONLY"
