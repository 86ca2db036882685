"""What pages and commands do with label sets: list, search, correct, undo, diff, export, map, watch."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from report_archive import Archive, report_text
from sqlalchemy import insert

from inference.labels import REPORT_LABELS
from inference.training.label_file import read_label_file
from node.archive.embedding_map import make_map
from node.archive.engines import LocalEngine
from node.errors import Corrupt, Misconfigured, Rejected
from node.store import labels as store
from node.store import labels_corrections as corrections
from node.store.database import now, reading
from node.store.labels_diff import CORRECTION, MODEL, NEW, TEXT, UNDONE, Change, diff
from node.store.labels_export import Exported, export
from node.store.labels_map import read_map
from node.store.ledger_tables import studies, tasks
from node.watch import watch, wilson

pytest_plugins = ("fixtures_reports",)

HAEMORRHAGE = "Acute subdural haematoma along the left convexity, with haemorrhage."
COLUMNS = ("report_id", "accession_number", "study_instance_uid", "text", "reported_at", "addendum")


@pytest.fixture
def archive(tmp_path: Path, label_engine: LocalEngine) -> Archive:
    return Archive(tmp_path, label_engine)


def correct(archive: Archive, ids: list[str], by: str = "reader", **values: int | None) -> str:
    with archive.labels.begin() as connection:
        return corrections.correct(
            connection, archive.storage.folder, archive="ris", report_ids=ids, values=values, by=by
        )


def changes(archive: Archive, first: int, second: int) -> list[Change]:
    with reading(archive.labels) as connection:
        return list(diff(connection, archive.storage.folder, first, second))


def found(archive: Archive, pattern: str, **options: Any) -> list[str]:
    with reading(archive.labels) as connection:
        hits = store.search(connection, archive.storage.folder, "ris", pattern, **options)
    return sorted(row.report_id for row in hits.rows)


def labels_of(archive: Archive, report_id: str) -> dict[str, int | None]:
    with reading(archive.labels) as connection:
        view = store.get_report(connection, archive.storage.folder, "ris", report_id)
    assert view is not None
    return dict(view.row.labels)


# ---------------------------------------------------------------------------------------------- lists and searches
def test_pages_of_reports_and_of_those_with_a_label(archive: Archive) -> None:
    archive.write("a.csv", [(f"A{i:02}", report_text(i)) for i in range(30)])
    archive.run()
    seen: list[str] = []
    after: int | None = 0
    with reading(archive.labels) as connection:
        while after is not None:
            page = store.list_reports(connection, "ris", after=after, limit=7)
            seen += [row.report_id for row in page.rows]
            after = page.next_after
        every = store.list_reports(connection, "ris").rows
        for label in ("mass", "hydrocephalus"):
            for value in (1, 0, None):
                wanted = [row.report_id for row in every if row.labels[label] is value]
                rows = store.list_reports(connection, "ris", label=label, value=value).rows
                assert [row.report_id for row in rows] == wanted
    assert seen == [f"A{i:02}" for i in range(30)]


def test_search_by_keyword_and_by_regular_expression(archive: Archive) -> None:
    archive.write("a.csv", [("1", "Old INFARCT."), ("2", "No mass (a+b)."), ("3", "12 mm lesion."), ("4", "Infarct?")])
    archive.run()
    assert found(archive, "infarct") == ["1", "4"]
    assert found(archive, "(a+b)") == ["2"]
    assert found(archive, r"\d+ mm", is_regex=True) == ["3"]
    assert found(archive, "infarct", limit=1) == ["4"] or found(archive, "infarct", limit=1) == ["1"]
    archive.write("a.csv", [("1", "Now normal."), ("2", "No mass (a+b)."), ("3", "12 mm lesion."), ("4", "Infarct?")])
    archive.run()
    assert found(archive, "infarct") == ["4"], "only texts that are current"
    for pattern, is_regex in (("(", True), ("", False), ("x" * 501, False)):
        with pytest.raises(Rejected):
            found(archive, pattern, is_regex=is_regex)


def test_a_lost_label_file_is_named(archive: Archive) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE)])
    archive.run()
    (file,) = (archive.storage.folder / "labels" / "ris").iterdir()
    file.unlink()
    with pytest.raises(Corrupt, match=f"{file.name} is missing"):
        labels_of(archive, "A1")
    with pytest.raises(Corrupt, match="restore the folder labels/"):
        found(archive, "haematoma")


def test_a_hostile_pattern_is_quick(archive: Archive) -> None:
    archive.write("a.csv", [("1", "a" * 30_000)])
    archive.run()
    began = now()
    assert found(archive, r"(a+)+$b", is_regex=True) == []
    assert now() - began < timedelta(seconds=10)


# ----------------------------------------------------------------------------------------------------- corrections
def test_a_correction_overrides_models_and_is_kept_until_undone(archive: Archive, other_engine: LocalEngine) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE), ("A2", HAEMORRHAGE)])
    archive.run()
    said = labels_of(archive, "A1")["mass"]
    group = correct(archive, ["A1", "A2"], mass=None, atrophy=1)
    assert labels_of(archive, "A1") | {"mass": None, "atrophy": 1} == labels_of(archive, "A1")
    archive.run(engine=other_engine)
    assert labels_of(archive, "A2")["atrophy"] == 1
    with archive.labels.begin() as connection:
        assert corrections.undo(connection, group, "reader") == 4
        assert corrections.undo(connection, group, "reader") == 0
    assert labels_of(archive, "A1")["mass"] == said
    with reading(archive.labels) as connection:
        view = store.get_report(connection, archive.storage.folder, "ris", "A1")
    assert view is not None
    assert {(c.label, c.made_by, c.how, c.undone_by) for c in view.corrections} == {
        ("mass", "reader", "manual", "reader"),
        ("atrophy", "reader", "manual", "reader"),
    }
    assert all(c.probability is not None for c in view.corrections)


def test_undo_takes_back_ones_own_last_action_only(archive: Archive) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE)])
    archive.run()
    correct(archive, ["A1"], "anna", mass=1)
    correct(archive, ["A1"], "ben", mass=0)
    with archive.labels.begin() as connection:
        assert corrections.undo_last(connection, "ris", "anna") is not None
        assert corrections.undo_last(connection, "ris", "anna") is None
    assert labels_of(archive, "A1")["mass"] == 0


def test_a_text_that_changed_since_it_was_corrected_is_told(archive: Archive) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE)])
    archive.run()
    correct(archive, ["A1"], mass=1)
    archive.write("a.csv", [("A1", HAEMORRHAGE + " Addendum: no mass.")])
    archive.run()
    with reading(archive.labels) as connection:
        view = store.get_report(connection, archive.storage.folder, "ris", "A1")
    assert view is not None
    assert view.text_changed_since_correction
    assert view.row.labels["mass"] == 1


@pytest.mark.parametrize(
    ("ids", "values"),
    [(["A1"], {"moss": 1}), (["A1"], {"mass": 2}), (["A1"], {}), (["nobody"], {"mass": 1}), ([], {"mass": 1})],
)
def test_wrong_corrections_store_nothing(archive: Archive, ids: list[str], values: dict[str, int]) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE)])
    archive.run()
    with pytest.raises(Rejected):
        correct(archive, ids, **values)
    with reading(archive.labels) as connection:
        assert corrections.history(connection, "ris", "A1") == []


# ------------------------------------------------------------------------------------------------------------ diff
def test_a_diff_says_what_changed_and_why(archive: Archive, other_engine: LocalEngine) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE), ("A2", "Normal."), ("A3", "Normal too.")])
    first = archive.run().set_id
    archive.write("a.csv", [("A1", "No abnormality."), ("A2", "Normal."), ("A3", "Normal too."), ("A4", "New.")])
    second = archive.run().set_id
    texts = changes(archive, first, second)
    assert {(c.report_id, c.why) for c in texts if c.why == NEW} == {("A4", NEW)}
    changed = [c for c in texts if c.why == TEXT]
    assert {c.report_id for c in changed} <= {"A1"}
    for change in changed:
        assert change.before is not None
        assert change.before.value != change.after.value
        for side, text in ((change.before, HAEMORRHAGE), (change.after, "No abnormality.")):
            assert side.sentences == tuple(text[start:end] for start, end in side.spans)
    group = correct(archive, ["A2"], vascular=1)
    third = archive.run(engine=other_engine).set_id
    models = changes(archive, second, third)
    assert {c.why for c in models} <= {MODEL, CORRECTION}
    (made,) = [c for c in models if c.why == CORRECTION]
    assert (made.report_id, made.label, made.by, made.after.value) == ("A2", "vascular", "reader", 1)
    before = {row.report_id: row for row in archive.rows()}
    assert before["A2"].labels["vascular"] == 1
    with archive.labels.begin() as connection:
        corrections.undo(connection, group, "chief")
    fourth = archive.run().set_id
    assert [(c.label, c.by) for c in changes(archive, third, fourth) if c.why == UNDONE] == [("vascular", "chief")]
    with pytest.raises(Rejected, match="older set first"):
        changes(archive, second, first)
    with pytest.raises(Rejected, match="no label set 99"):
        changes(archive, first, 99)


# ---------------------------------------------------------------------------------------------------------- export
def exported(archive: Archive, out: Path, **options: Any) -> tuple[Exported, list[dict[str, str]]]:
    with reading(archive.labels) as connection, reading(archive.ledger) as ledger:
        done = export(connection, ledger, archive.storage.folder, "ris", out, **options)
    if out.suffix == ".parquet":
        return done, pq.read_table(out).to_pylist()
    with out.open(newline="", encoding="utf-8") as stream:
        return done, list(csv.DictReader(stream))


def receive(archive: Archive, *rows: tuple[str, str, str]) -> None:
    with archive.ledger.begin() as connection:
        for uid, accession_number, patient_id in rows:
            connection.execute(
                insert(studies).values(
                    study_instance_uid=uid,
                    accession_number=accession_number,
                    patient_id=patient_id,
                    first_received_at=now(),
                    last_received_at=now(),
                )
            )


def test_an_export_is_joined_to_the_received_studies(archive: Archive, tmp_path: Path) -> None:
    receive(archive, ("1.1", "A1", "p1"), ("1.2", "A2", "p2"), ("1.3", "A2", "p3"), ("1.9", "A9", "p9"))
    archive.write(
        "a.csv",
        [("A1", HAEMORRHAGE), ("A2", report_text(2)), ("A3", report_text(3)), ("", report_text(4))],
    )
    run = archive.run()
    correct(archive, ["A1"], mass=1)
    done, rows = exported(archive, tmp_path / "labels.csv")
    assert [(row["study_instance_uid"], row["accession_number"]) for row in rows] == [("1.1", "A1"), ("", "A3")]
    assert (done.joined, done.ambiguous_accession, done.without_exam, done.studies_without_report) == (1, 1, 1, 3)
    assert rows[0]["mass"] == "1"
    assert rows[0]["corrected"] == "mass"
    assert rows[0]["model_sha256"] == run.model.weights_sha256
    assert set(REPORT_LABELS) <= set(rows[0])
    assert 0.0 <= float(rows[0]["p_intracranial_haemorrhage"]) <= 1.0
    done, only = exported(archive, tmp_path / "received.parquet", received_only=True)
    assert [row["study_instance_uid"] for row in only] == ["1.1"]
    assert only[0]["mass"] == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_training_reads_what_is_exported(archive: Archive, tmp_path: Path, suffix: str) -> None:
    receive(archive, ("1.1", "A1", "p1"))
    archive.write("a.csv", [("A1", HAEMORRHAGE), ("A2", report_text(2))])
    archive.run()
    correct(archive, ["A1"], mass=None, atrophy=1)
    out = tmp_path / f"labels.{suffix}"
    exported(archive, out)
    read = read_label_file(out)
    expected = {row.accession_number: dict(row.labels) for row in archive.rows()}
    assert read.by_study == {"1.1": expected["A1"]}
    assert read.by_accession == expected
    assert (expected["A1"]["mass"], expected["A1"]["atrophy"]) == (None, 1)
    assert set(read.ignored) == {"reports", "corrected"}


def test_an_export_of_an_earlier_set(archive: Archive, tmp_path: Path) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE)])
    first = archive.run().set_id
    archive.write("a.csv", [("A1", "No abnormality."), ("A2", report_text(1))])
    archive.run()
    _, then = exported(archive, tmp_path / "then.csv", set_id=first)
    _, today = exported(archive, tmp_path / "now.csv")
    assert [row["accession_number"] for row in then] == ["A1"]
    assert [row["accession_number"] for row in today] == ["A2", "A1"] or len(today) == 2


def test_several_reports_of_one_examination_become_one_row(archive: Archive, tmp_path: Path) -> None:
    archive.write(
        "a.csv",
        [
            ("r1", "A1", "1.1", HAEMORRHAGE, "2024-01-01T10:00", ""),
            ("r2", "A1", "1.1", "No abnormality.", "2024-01-01T12:00", ""),
            ("r3", "A2", "1.2", "No abnormality.", "2024-01-01T10:00", ""),
            ("r4", "A2", "1.2", HAEMORRHAGE, "2024-01-01T12:00", "yes"),
        ],
        COLUMNS,
    )
    archive.run(columns={})
    single = {row.report_id: row.labels for row in archive.rows()}
    _, rows = exported(archive, tmp_path / "labels.parquet")
    by_uid = {row["study_instance_uid"]: row for row in rows}
    assert len(rows) == 2
    for label in REPORT_LABELS:
        assert by_uid["1.1"][label] == single["r2"][label], "the later report counts"
        expected = 1 if single["r4"][label] == 1 else single["r3"][label]
        assert by_uid["1.2"][label] == expected, "an addendum adds to the report"
    assert by_uid["1.2"]["reports"] == 2


def test_an_export_that_cannot_be(archive: Archive, tmp_path: Path) -> None:
    archive.write("a.csv", [("A1", HAEMORRHAGE)])
    archive.run()
    with pytest.raises(Misconfigured, match=r"\.csv or \.parquet"):
        exported(archive, tmp_path / "labels.xlsx")
    with pytest.raises(Rejected, match="no label set 9"):
        exported(archive, tmp_path / "labels.csv", set_id=9)
    assert list(tmp_path.glob("*labels*")) == []


# ------------------------------------------------------------------------------------------------- map, agreement
def test_the_embedding_map_holds_each_report_once(
    archive: Archive,
    tiny_model: Callable[[int], Path],
) -> None:
    from inference.report_labels import ReportLabeller

    archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(40)])
    run = archive.run()
    labeller = ReportLabeller.load(tiny_model(1))
    assert make_map(archive.labels, archive.storage.folder, "ris", run.set_id, labeller) == 40
    points = read_map(archive.storage.folder, "ris")
    assert {point.report_id for point in points} == {f"A{i}" for i in range(40)}
    assert all(0.0 <= value <= 1.0 for point in points for value in (point.x, point.y))
    assert read_map(archive.storage.folder, "ris", run.set_id) == points
    assert read_map(archive.storage.folder, "ris", run.set_id + 1) == []
    with reading(archive.labels) as connection:
        rows = store.reports_of(connection, "ris", [points[5].row_id, points[2].row_id, 10**9])
    assert [row.report_id for row in rows] == [points[5].report_id, points[2].report_id]


def test_the_image_model_watched_with_the_reports_that_came_later(archive: Archive) -> None:
    receive(archive, *((f"1.{i}", f"A{i}", f"p{i}") for i in range(10)))
    archive.write("a.csv", [(f"A{i}", "Normal.") for i in range(8)])
    archive.run()
    for i in range(8):
        correct(archive, [f"A{i}"], intracranial_haemorrhage=int(i < 4))
    with archive.ledger.begin() as connection:
        for i in range(10):
            present = i in (0, 1, 2, 7, 8)
            connection.execute(
                insert(tasks).values(
                    study_instance_uid=f"1.{i}",
                    model="ct_haemorrhage",
                    version=1,
                    shadow=False,
                    state="analysed",
                    last_instance_at=now(),
                    created_at=now(),
                    run_after=now(),
                    finished_at=now() if i < 9 else datetime(2026, 1, 5, tzinfo=UTC),
                    findings=[{"label": "intracranial_haemorrhage", "present": present}],
                )
            )
    with reading(archive.labels) as labels, reading(archive.ledger) as ledger:
        earlier, month = watch(labels, ledger, "ct_haemorrhage")
        assert watch(labels, ledger, "mr_abnormality") == []
        with pytest.raises(Rejected):
            watch(labels, ledger, "moss")
    assert (month.both_present, month.only_report, month.only_model, month.both_absent) == (3, 1, 1, 3)
    assert month.without_report == 1, "its report has not come, or says neither yes nor no"
    assert (month.agreement.value, month.agreement.n) == (0.75, 8)
    assert month.kappa == pytest.approx(0.5)
    assert (month.agreement.low, month.agreement.high) == pytest.approx(wilson(6, 8))
    assert wilson(6, 8) == pytest.approx((0.4093, 0.9285), abs=1e-3)
    assert (month.ppv.value, month.ppv.n) == (0.75, 4)
    assert (month.sensitivity.value, month.specificity.value) == (0.75, 0.75)
    assert (earlier.month, earlier.studies, earlier.without_report) == ("2026-01", 0, 1)
    assert (earlier.ppv.value, earlier.kappa) == (None, None)
