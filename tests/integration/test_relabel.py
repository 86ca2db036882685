"""Relabelling runs with real databases and a tiny model: what is labelled, what is flagged, counts that add up."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report_archive import Archive, report_text

from node.archive.engines import LocalEngine, open_engine
from node.errors import Misconfigured, Transient
from node.store import labels as store
from node.store import leases
from node.store.database import reading

if TYPE_CHECKING:
    from fixtures_postgres import PostgresServer

pytest_plugins = ("fixtures_reports", "fixtures_postgres")


@pytest.fixture(params=["sqlite", "postgresql"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, label_engine: LocalEngine) -> Archive:
    """An archive of CSV files with its databases, in SQLite and in PostgreSQL."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return Archive(tmp_path, label_engine, database=url)


@pytest.fixture
def sqlite_archive(tmp_path: Path, label_engine: LocalEngine) -> Archive:
    """The same in SQLite only."""
    return Archive(tmp_path, label_engine)


def test_a_run_labels_what_is_new_changed_or_of_another_model(archive: Archive, other_engine: LocalEngine) -> None:
    archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(40)])
    archive.write("b.csv", [(f"B{i}", report_text(100 + i)) for i in range(20)])
    first = archive.run()
    assert (first.counts.new, first.counts.read) == (60, 60)
    again = archive.run()
    assert (again.counts.read, again.counts.labelled) == (0, 0), "unchanged files are not read again"
    archive.write("b.csv", [(f"B{i}", report_text(100 + i if i else 999)) for i in range(25)])
    changed = archive.run()
    assert (changed.counts.new, changed.counts.changed, changed.counts.unchanged) == (5, 1, 19)
    remodelled = archive.run(engine=other_engine)
    assert (remodelled.counts.remodelled, remodelled.counts.read) == (65, 65)
    assert remodelled.model.weights_sha256 != first.model.weights_sha256
    archive.check_sums()


def test_reports_that_leave_the_archive_are_counted_and_kept(archive: Archive) -> None:
    archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(10)])
    archive.write("b.csv", [(f"B{i}", report_text(i + 50)) for i in range(10)])
    archive.run()
    archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(7)])
    (archive.folder / "b.csv").unlink()
    shrunk = archive.run()
    assert (shrunk.counts.gone, shrunk.counts.unchanged) == (13, 7)
    assert archive.current() == 20, "labels are kept"
    archive.write("c.csv", [(f"B{i}", report_text(i + 50)) for i in range(10)])
    back = archive.run()
    assert (back.counts.unchanged, back.counts.new) == (10, 0)
    assert sum(row.is_gone for row in archive.rows()) == 3


def test_duplicates_two_reports_of_an_exam_and_reports_without_one(archive: Archive) -> None:
    same, other = report_text(1), report_text(2)
    archive.write("a.csv", [("A1", same), ("A1", same), ("A1", other), ("", report_text(3)), ("A2", report_text(4))])
    first = archive.run()
    assert (first.counts.new, first.counts.duplicates) == (4, 1)
    ids = [row.report_id for row in archive.rows()]
    assert len(set(ids)) == 4
    assert [i for i in ids if i.startswith("A1~")]
    assert [i for i in ids if i.startswith("text~")]
    archive.write("a.csv", [("A1", same), ("A1", other), ("", report_text(3)), ("A2", report_text(4)), ("A3", "x")])
    second = archive.run()
    assert (second.counts.unchanged, second.counts.new, second.counts.gone) == (4, 1, 0)
    archive.check_sums()


def test_versions_under_one_report_id_the_later_counts(archive: Archive) -> None:
    columns = ("report_id", "text", "reported_at")
    archive.write(
        "a.csv",
        [
            ("r1", "Preliminary: haemorrhage.", "2024-01-01T10:00"),
            ("r1", "Final: no haemorrhage.", "2024-01-01T12:00"),
            ("r1", "Older still.", "2024-01-01T09:00"),
            ("r2", "No time.", ""),
            ("r2", "No time either.", ""),
        ],
        columns,
    )
    run = archive.run(columns={})
    assert (run.counts.new, run.counts.superseded, run.counts.flagged) == (2, 2, 1)
    with reading(archive.labels) as connection:
        view = store.get_report(connection, archive.storage.folder, "ris", "r1")
        flags = store.flagged_of(connection, run.set_id)
    assert view is not None
    assert view.text == "Final: no haemorrhage."
    assert [(flag[0], flag[1]) for flag in flags] == [("a.csv, row 6", "duplicate_report_id")]
    archive.check_sums()


def test_bad_rows_and_files_are_flagged_and_the_run_goes_on(archive: Archive) -> None:
    archive.write("a.csv", [("A1", report_text(1)), ("A2", "word " * 2_000_000), ("A3", "nul\0byte " + report_text(3))])
    (archive.folder / "b.csv.gz").write_bytes(b"\x1f\x8b broken")
    (archive.folder / "c.csv").write_bytes("acc,body\nC1,Blutung – nicht ausgeschlossen\n".encode("cp1252"))
    archive.write("d.csv", [("D1",), ("D2", report_text(4))])
    archive.write("e.csv", [("E1", "x")], ("other", "names"))
    run = archive.run()
    assert (run.counts.new, run.counts.flagged) == (4, 4)
    archive.check_sums()
    with reading(archive.labels) as connection:
        codes = sorted(code for _, code, _ in store.flagged_of(connection, run.set_id))
    assert codes == ["missing_column", "too_long", "unreadable_file", "unreadable_row"]
    flags = {row.report_id: row.flags for row in archive.rows()}
    assert "nul_bytes" in flags["A3"]
    assert "encoding" in flags["C1"]
    again = archive.run()
    assert (again.counts.read, again.counts.flagged) == (2, 2), "only what was broken is tried again"
    assert again.counts.gone == 0


def test_wrong_columns_stop_before_anything_is_stored(sqlite_archive: Archive) -> None:
    sqlite_archive.write("a.csv", [("A1", "x")], ("nothing", "fits"))
    with pytest.raises(Misconfigured, match=r"text -> body.*nothing, fits"):
        sqlite_archive.run()
    assert sqlite_archive.runs() == []


def test_a_model_whose_hash_does_not_fit_is_not_used(
    sqlite_archive: Archive,
    tiny_model: Callable[[int], Path],
    tmp_path: Path,
) -> None:
    sqlite_archive.write("a.csv", [("A1", report_text(1))])
    folder = shutil.copytree(tiny_model(1), tmp_path / "damaged")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 0xFF
    weights.write_bytes(bytes(content))
    with pytest.raises(Misconfigured, match="damaged"):
        open_engine("local", folder, 1)


def test_a_model_that_is_exchanged_during_a_run_is_not_used(
    sqlite_archive: Archive,
    tiny_model: Callable[[int], Path],
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(tiny_model(1), tmp_path / "model")
    engine = open_engine("local", folder, 1)
    shutil.copytree(tiny_model(2), folder, dirs_exist_ok=True)
    sqlite_archive.write("a.csv", [("A1", report_text(1))])
    try:
        with pytest.raises(Misconfigured, match="another model"):
            sqlite_archive.run(engine=engine)
    finally:
        engine.close()
    assert sqlite_archive.current() == 0


def test_a_run_that_was_stopped_goes_on_with_the_same_set(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.archive.relabel.BATCH_REPORTS", 5)
    for name in "abc":
        archive.write(f"{name}.csv", [(f"{name}{i}", report_text(ord(name) * 100 + i)) for i in range(15)])
    stop = threading.Event()
    with pytest.raises(Transient, match="stopped"):
        archive.run(stop=stop, progress=lambda counts, _ended: stop.set() if counts.read >= 20 else None)
    (half,) = archive.runs()
    assert half.state == "failed"
    assert 20 <= half.counts.read < 45
    whole = archive.run()
    assert whole.set_id == half.set_id
    assert (whole.counts.new, whole.counts.duplicates, whole.counts.unchanged) == (45, 0, 0)
    assert archive.current() == 45
    archive.check_sums()


def test_another_model_after_a_stop_makes_a_new_set(
    sqlite_archive: Archive,
    other_engine: LocalEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.archive.relabel.BATCH_REPORTS", 5)
    sqlite_archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(30)])
    stop = threading.Event()
    with pytest.raises(Transient):
        sqlite_archive.run(stop=stop, progress=lambda _counts, _ended: stop.set())
    done = sqlite_archive.runs()[0].counts.new
    run = sqlite_archive.run(engine=other_engine)
    assert [one.state for one in sqlite_archive.runs()] == ["complete", "interrupted"]
    assert (run.counts.remodelled, run.counts.new) == (done, 30 - done)
    sqlite_archive.check_sums()


def test_a_file_that_changes_while_the_run_is_down_is_counted_afresh(
    sqlite_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.archive.relabel.BATCH_REPORTS", 5)
    sqlite_archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(30)])
    stop = threading.Event()
    with pytest.raises(Transient):
        sqlite_archive.run(stop=stop, progress=lambda _counts, _ended: stop.set())
    sqlite_archive.write("a.csv", [(f"A{i}", report_text(i)) for i in reversed(range(29))])
    run = sqlite_archive.run()
    assert run.counts.read == 29
    assert run.counts.adds_up
    assert sqlite_archive.current() == 29


def test_only_one_process_is_at_an_archive(sqlite_archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_archive.write("a.csv", [("A1", report_text(1))])
    with monkeypatch.context() as patch:
        patch.setattr(leases, "this_process", lambda: "another-host:1:1")
        assert leases.acquire(sqlite_archive.ledger, "relabel:ris", leases.timedelta(minutes=5))
    with pytest.raises(Transient, match="another process"):
        sqlite_archive.run()
    with monkeypatch.context() as patch:
        host = leases.this_process().split(":")[0]
        patch.setattr(leases, "this_process", lambda: f"{host}:999999999:1")
        leases.release(sqlite_archive.ledger, "relabel:ris")
    with monkeypatch.context() as patch:
        patch.setattr(leases, "this_process", lambda: "another-host:1:1")
        leases.release(sqlite_archive.ledger, "relabel:ris")
        patch.setattr(leases, "this_process", lambda: f"{host}:999999999:1")
        leases.acquire(sqlite_archive.ledger, "relabel:ris", leases.timedelta(minutes=5))
    assert sqlite_archive.run().counts.new == 1, "the lease of a dead process of this host does not hold"


def test_orphaned_label_files_are_removed(sqlite_archive: Archive) -> None:
    sqlite_archive.write("a.csv", [("A1", report_text(1))])
    place = sqlite_archive.storage.folder / "labels" / "ris"
    place.mkdir(parents=True)
    (place / "000001-left.parquet").write_bytes(b"x")
    (place / "000001-left.part").write_bytes(b"x")
    sqlite_archive.run()
    assert len(list(place.iterdir())) == 1


@pytest.mark.needs("runuser")
def test_the_label_database_away_in_mid_run(
    tmp_path: Path,
    label_engine: LocalEngine,
    postgres_server: PostgresServer,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.archive.relabel.BATCH_REPORTS", 5)
    monkeypatch.setattr("node.archive.relabel.DATABASE_RETRY_S", 0.1)
    archive = Archive(tmp_path, label_engine, database=postgres_url)
    archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(40)])
    went: list[threading.Timer] = []

    def interrupt(_counts: object, _ended: int) -> None:
        if not went:
            postgres_server.stop()
            went.append(threading.Timer(1.0, postgres_server.start))
            went[0].start()

    run = archive.run(progress=interrupt)
    went[0].join()
    assert run.counts.new == 40
    assert archive.current() == 40
    archive.check_sums()


@pytest.mark.needs("runuser")
def test_the_label_database_away_for_long_stops_the_run_and_the_next_goes_on(
    tmp_path: Path,
    label_engine: LocalEngine,
    postgres_server: PostgresServer,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.archive.relabel.BATCH_REPORTS", 5)
    monkeypatch.setattr("node.archive.relabel.DATABASE_PATIENCE_S", 0.5)
    archive = Archive(tmp_path, label_engine, database=postgres_url)
    archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(40)])
    stopped: list[bool] = []

    def interrupt(_counts: object, _ended: int) -> None:
        if not stopped:
            stopped.append(True)
            postgres_server.stop()

    try:
        with pytest.raises(Transient, match="the next run goes on") as error:
            archive.run(progress=interrupt)
        assert report_text(1)[:30] not in str(error.value)
    finally:
        postgres_server.start()
    run = archive.run()
    assert (run.counts.new, archive.current(), len(archive.runs())) == (40, 40, 1)
    archive.check_sums()


def test_a_killed_worker_stops_the_run_and_the_next_goes_on(
    sqlite_archive: Archive,
    tiny_model: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.archive.relabel.BATCH_REPORTS", 5)
    sqlite_archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(30)])
    engine = LocalEngine(tiny_model(1), 1)

    def kill(_counts: object, _ended: int) -> None:
        for process in list(engine._pool._processes.values()):
            process.kill()

    try:
        with pytest.raises(Transient, match="labelling process died"):
            sqlite_archive.run(engine=engine, progress=kill)
    finally:
        engine.close()
    assert sqlite_archive.run().counts.new == 30
    assert sqlite_archive.current() == 30


def test_labels_evidence_and_probabilities_come_back_as_the_model_gave_them(
    sqlite_archive: Archive,
    label_engine: LocalEngine,
) -> None:
    texts = [report_text(i) for i in range(600)]  # more than one row group
    sqlite_archive.write("a.csv", [(f"A{i}", text) for i, text in enumerate(texts)])
    sqlite_archive.run()
    said = label_engine.label(texts[510:515], ["MR"] * 5)
    with reading(sqlite_archive.labels) as connection:
        for i, expected in zip(range(510, 515), said, strict=True):
            view = store.get_report(connection, sqlite_archive.storage.folder, "ris", f"A{i}")
            assert view is not None
            assert view.text == texts[i]
            assert view.model_labels == dict(expected.labels)
            spans = {label: found for label, found in expected.evidence.items() if found}
            assert view.evidence == spans
            assert view.probabilities == pytest.approx(dict(expected.probabilities), abs=1e-6)
