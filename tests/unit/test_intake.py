"""The intake: group commit, duplicates, quarantine, adoption, rebuild, purge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures_net import arrival, ct_instance, ct_series
from sqlalchemy import Engine, text

from node.config import StorageSettings
from node.errors import Misconfigured
from node.store import intake
from node.store.adoption import adopt, rebuild_intake
from node.store.database import open_database
from node.store.intake_writer import Arrival, IntakeWriter, NotCommitted, Outcome
from node.store.part10 import read_file
from node.store.spool import Spool


class Parts:
    """A storage folder with its spool, engine and running writer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.storage = StorageSettings(folder=folder, min_free_mb=0)
        self.spool = Spool(self.storage)
        self.engine: Engine = open_database(self.storage, "intake")
        self.writer = IntakeWriter(self.engine, self.spool)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "store")
    with made.writer:
        yield made
    made.engine.dispose()


def test_commit_gives_rows_in_order_with_readable_files(parts: Parts) -> None:
    series = ct_series(5)
    for one in series:
        assert parts.writer.commit(arrival(parts.spool, one)) is Outcome.STORED
    rows = intake.rows_after(parts.engine, 0)
    assert [r.sop_instance_uid for r in rows] == [d.SOPInstanceUID for d in series]
    assert [r.seq for r in rows] == sorted(r.seq for r in rows)
    assert all(r.for_analysis and r.modality == "CT" for r in rows)
    meta, _offset, names = read_file(parts.storage.folder / rows[0].path)
    assert (meta.calling_ae, meta.called_ae, meta.remote_host) == ("CT1", "FALX", "127.0.0.1")
    assert names.sop_instance_uid == series[0].SOPInstanceUID
    assert intake.rows_after(parts.engine, rows[2].seq, 1)[0] == rows[3]


def test_many_threads_are_committed_together(parts: Parts) -> None:
    arrivals = [arrival(parts.spool, d, association=f"a{n}") for n, d in enumerate(ct_series(64))]
    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(parts.writer.commit, arrivals)) == {Outcome.STORED}
    assert len(intake.rows_after(parts.engine, 0)) == 64


def test_same_content_is_no_new_work(parts: Parts) -> None:
    one = ct_series(1)[0]
    assert parts.writer.commit(arrival(parts.spool, one)) is Outcome.STORED
    again = arrival(parts.spool, one)
    assert parts.writer.commit(again) is Outcome.DUPLICATE
    assert len(list(parts.spool.files())) == 1
    assert len(intake.rows_after(parts.engine, 0)) == 1
    assert intake.quarantined(parts.engine) == []


def test_same_uid_other_content_keeps_the_first_and_quarantines_the_second_once(parts: Parts) -> None:
    one = ct_series(1)[0]
    parts.writer.commit(arrival(parts.spool, one))
    before = (parts.storage.folder / intake.rows_after(parts.engine, 0)[0].path).read_bytes()
    other = ct_instance(one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID, seed=9)
    for _again in range(2):
        assert parts.writer.commit(arrival(parts.spool, other)) is Outcome.CONFLICT
    assert (parts.storage.folder / intake.rows_after(parts.engine, 0)[0].path).read_bytes() == before
    kept = intake.quarantined(parts.engine)
    assert [k.code for k in kept] == ["different-content"]
    assert (parts.storage.folder / kept[0].path).read_bytes().endswith(other.PixelData)


def test_same_uid_in_another_study_is_a_conflict_too(parts: Parts) -> None:
    one = ct_series(1)[0]
    parts.writer.commit(arrival(parts.spool, one))
    moved = ct_instance("1.2.3.4", "1.2.3.4.5", one.SOPInstanceUID)
    assert parts.writer.commit(arrival(parts.spool, moved)) is Outcome.CONFLICT
    assert len(list(parts.spool.files())) == 1


def test_open_callers(parts: Parts, wait_for: Callable[..., object]) -> None:
    first, second = ct_series(2)
    parts.writer.commit(arrival(parts.spool, first, calling_ae="CT1", association="x"))
    parts.writer.commit(arrival(parts.spool, second, calling_ae="MR1", association="y"))
    assert intake.open_callers(parts.engine) == {"CT1", "MR1"}
    parts.writer.association_closed("x")
    wait_for(lambda: intake.open_callers(parts.engine) == {"MR1"}, 10, "the association to be forgotten")


def test_an_intake_that_cannot_be_written_refuses_and_goes_on_afterwards(parts: Parts) -> None:
    first, second = ct_series(2)
    with parts.engine.begin() as connection:
        connection.execute(text("ALTER TABLE instances RENAME TO away"))
    lost = arrival(parts.spool, first)
    with pytest.raises(NotCommitted):
        parts.writer.commit(lost)
    assert list(parts.spool.files()) == [lost.file]  # left to the caller, who is to take it away
    with parts.engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO instances"))
    assert parts.writer.commit(arrival(parts.spool, second)) is Outcome.STORED


def test_files_without_a_row_are_adopted_unfinished_ones_dropped_and_damaged_ones_kept(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "store")
    whole, cut, empty, cut_in_header, changed = (arrival(parts.spool, d, calling_ae="MR7") for d in ct_series(5))

    def content(one: Arrival) -> Path:
        return parts.storage.folder / one.file

    content(cut).write_bytes(content(cut).read_bytes()[:-10])
    content(empty).write_bytes(b"")
    content(cut_in_header).write_bytes(content(cut_in_header).read_bytes()[:700])
    content(changed).write_bytes(content(changed).read_bytes()[:-1] + b"!")
    foreign = content(whole).with_name("0" * 32 + ".dcm")
    foreign.write_bytes(b"not dicom")
    with parts.writer:
        found = adopt(parts.writer)
        assert (found.taken_in, found.quarantined, found.unfinished) == (1, 2, 3)
        assert adopt(parts.writer).taken_in == 0
    (row,) = intake.rows_after(parts.engine, 0)
    assert (row.sop_instance_uid, row.calling_ae, row.sha256) == (whole.names.sop_instance_uid, "MR7", whole.sha256)
    assert list(parts.spool.files()) == [whole.file]
    kept = {(parts.storage.folder / q.path).read_bytes()[-1:] for q in intake.quarantined(parts.engine)}
    assert kept == {b"m", b"!"}


def test_rebuild_gives_the_same_rows_and_a_new_generation(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "store")
    with parts.writer:
        for one in ct_series(6):
            parts.writer.commit(arrival(parts.spool, one))
    before, generation = intake.rows_after(parts.engine, 0), intake.generation(parts.engine)
    assert rebuild_intake(parts.storage).taken_in == 6

    def told(rows: list[intake.IntakeRow]) -> set[tuple[str, ...]]:
        return {(r.sop_instance_uid, r.path, r.sha256, r.calling_ae, r.called_ae, r.remote_host) for r in rows}

    assert told(intake.rows_after(parts.engine, 0)) == told(before)
    assert intake.generation(parts.engine) != generation


def test_purge_is_carried_out_by_the_writer_and_spares_what_came_later(
    parts: Parts, wait_for: Callable[..., object]
) -> None:
    series = ct_series(3)
    for one in series[:2]:
        parts.writer.commit(arrival(parts.spool, one))
    newest = intake.rows_after(parts.engine, 0)[-1].seq
    parts.writer.commit(arrival(parts.spool, series[2]))
    intake.request_purge(parts.engine, series[0].StudyInstanceUID, up_to_seq=newest, at=datetime.now(UTC))
    wait_for(lambda: intake.open_purges(parts.engine) == 0, 20, "the purge")
    left = intake.rows_after(parts.engine, 0)
    assert [r.sop_instance_uid for r in left] == [series[2].SOPInstanceUID]
    assert [str(f) for f in parts.spool.files()] == [left[0].path]


def test_quarantine_is_let_go_after_its_days(tmp_path: Path, wait_for: Callable[..., object]) -> None:
    parts = Parts(tmp_path / "store")
    parts.spool.keep_quarantine = timedelta(seconds=2)
    one = ct_series(1)[0]
    with parts.writer:
        parts.writer.quarantine(arrival(parts.spool, one), "a test")
        (kept,) = intake.quarantined(parts.engine)
        assert (parts.storage.folder / kept.path).exists()
        wait_for(lambda: not intake.quarantined(parts.engine), 30, "the quarantine to expire")
    assert not (parts.storage.folder / kept.path).exists()


def test_sequence_numbers_are_not_used_twice(parts: Parts, wait_for: Callable[..., object]) -> None:
    first, second = ct_series(1)[0], ct_series(1)[0]
    parts.writer.commit(arrival(parts.spool, first))
    seq = intake.rows_after(parts.engine, 0)[0].seq
    intake.request_purge(parts.engine, first.StudyInstanceUID, up_to_seq=seq, at=datetime.now(UTC))
    wait_for(lambda: not intake.rows_after(parts.engine, 0), 20, "the purge")
    parts.writer.commit(arrival(parts.spool, second))
    assert intake.rows_after(parts.engine, 0)[0].seq > seq


def test_a_second_reception_on_the_same_folder_is_refused(parts: Parts) -> None:
    with pytest.raises(Misconfigured, match="another reception process"):
        IntakeWriter(parts.engine, parts.spool)


def test_commitment_answers_are_kept_in_order(parts: Parts) -> None:
    at = datetime.now(UTC)
    for n in range(2):
        parts.writer.record_commitment(
            transaction_uid=f"1.2.{n}", committed=["1.1"], failed={"1.9": 0x112}, calling_ae="PACS", at=at
        )
    events = intake.commitment_events_after(parts.engine, 0)
    assert [e.transaction_uid for e in events] == ["1.2.0", "1.2.1"]
    assert events[0].failed == {"1.9": 0x112}
    assert intake.commitment_events_after(parts.engine, events[0].event_id)[0].transaction_uid == "1.2.1"
