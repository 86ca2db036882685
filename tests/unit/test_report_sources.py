"""Each kind of archive: what is read, what is flagged, what stops before anything runs, going on from a position."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import polars
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import create_engine, text

from node.archive.sources import open_source
from node.config import ArchiveSettings
from node.errors import Misconfigured, Transient
from node.store.labels_values import Flagged, Report

COLUMNS = {"accession_number": "Accession", "text": "Report"}


def archive(
    source: str, location: object, columns: dict[str, str] | None = None, **options: str | int
) -> ArchiveSettings:
    return ArchiveSettings(
        name="ris", source=source, location=str(location), columns=columns or {}, options=dict(options)
    )


def read(settings: ArchiveSettings, storage: Path = Path("/nonexistent")) -> list[Report | Flagged]:
    source = open_source(settings, storage)
    source.check()
    return [record for part in source.parts() for _, record in source.read(part, None)]


def write_csv(path: Path, rows: list[list[str]], header: list[str] | None = None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header or ["Accession", "Report"], *rows])
    return path


# ------------------------------------------------------------------------------------------------ tables of any kind
def test_a_csv_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write_csv(tmp_path / "b.csv", [["3", "Normal MRI head."]])
    write_csv(tmp_path / "a.csv", [["1", 'Quoted "text",\nover lines.'], ["2", "Old infarct."]])
    (tmp_path / ".unfinished.csv").write_text("no header")
    reports = read(archive("csv", tmp_path, COLUMNS))
    assert [(r.accession_number, r.text) for r in reports if isinstance(r, Report)] == [
        ("1", 'Quoted "text",\nover lines.'),
        ("2", "Old infarct."),
        ("3", "Normal MRI head."),
    ]
    assert reports[0].source_position == "a.csv, row 2"


@pytest.mark.parametrize("source", ["csv", "parquet", "jsonl"])
def test_missing_columns_stop_before_anything_runs(tmp_path: Path, source: str) -> None:
    frame = polars.DataFrame({"acc": ["1"], "body": ["text"]})
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[source](
        tmp_path / f"a.{source}"
    )
    with pytest.raises(Misconfigured) as error:
        open_source(archive(source, tmp_path, COLUMNS), tmp_path).check()
    message = str(error.value)
    assert "accession_number -> Accession" in message
    assert "text -> Report" in message
    assert "acc, body" in message


def test_a_field_that_falx_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"no field is called accession;.*accession_number"):
        open_source(archive("csv", tmp_path, {"accession": "x"}), tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="does not exist"):
        open_source(archive("csv", tmp_path / "none", COLUMNS), tmp_path).check()


def test_text_may_be_put_together_from_several_columns(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "a.csv", [["1", "Blood.", "Bleed."], ["2", "", "Normal."]], ["Accession", "findings", "impression"]
    )
    reports = read(archive("csv", tmp_path, {"accession_number": "Accession", "text": "findings + impression"}))
    assert [r.text for r in reports if isinstance(r, Report)] == [
        "Findings: Blood.\nImpression: Bleed.",
        "Impression: Normal.",
    ]


@pytest.mark.parametrize("source", ["csv", "parquet", "jsonl"])
def test_all_fields_arrive(tmp_path: Path, source: str) -> None:
    frame = polars.DataFrame(
        {
            "report_id": ["r1"],
            "accession_number": ["A1"],
            "study_instance_uid": ["1.2.3"],
            "text": ["Normal."],
            "modality": ["MRI"],
            "reported_at": ["2024-03-01T10:00:00+01:00"],
            "status": ["F"],
            "addendum": ["yes"],
        }
    )
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[source](
        tmp_path / f"a.{source}"
    )
    (report,) = read(archive(source, tmp_path))
    assert isinstance(report, Report)
    assert report.reported_at == datetime(2024, 3, 1, 9, tzinfo=UTC)
    assert (report.modality, report.status, report.addendum) == ("MR", "final", True)
    assert (report.report_id, report.study_instance_uid) == ("r1", "1.2.3")


@pytest.mark.parametrize("broken", ["bad.csv.gz", "bad.parquet"])
def test_an_unreadable_file_in_the_middle_is_flagged_and_the_rest_read(tmp_path: Path, broken: str) -> None:
    frame = polars.DataFrame({"Accession": ["1"], "Report": ["text"]})
    kind = "parquet" if broken.endswith("parquet") else "csv"
    (tmp_path / broken).write_bytes(b"\x1f\x8b not what it says")
    for name in ("a", "z"):
        (frame.write_parquet if kind == "parquet" else frame.write_csv)(tmp_path / f"{name}.{kind}")
    first, flag, last = read(archive(kind, tmp_path, COLUMNS))
    assert isinstance(first, Report)
    assert isinstance(last, Report)
    assert isinstance(flag, Flagged)
    assert flag.code == "unreadable_file"
    assert flag.ends_part
    assert flag.source_position == broken


def test_a_truncated_gzip_gives_what_was_read_and_a_flag(tmp_path: Path) -> None:
    lines = "".join(f"{i},report number {i} {hash(str(i))}\n" for i in range(5000))
    content = gzip.compress(("Accession,Report\n" + lines).encode())
    (tmp_path / "a.csv.gz").write_bytes(content[: len(content) // 2])
    records = read(archive("csv", tmp_path, COLUMNS))
    assert len(records) > 100
    assert all(isinstance(r, Report) for r in records[:-1])
    assert isinstance(records[-1], Flagged)


def test_a_file_without_the_columns_among_others_is_flagged(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [["1", "x"]])
    write_csv(tmp_path / "b.csv", [["1", "x"]], ["other", "columns"])
    report, flag = read(archive("csv", tmp_path, COLUMNS))
    assert isinstance(report, Report)
    assert isinstance(flag, Flagged)
    assert flag.code == "missing_column"


def test_a_file_without_a_header_is_not_quoted_and_a_name_in_another_encoding_is_read(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [["1", "x"]])
    write_csv(tmp_path / "b.csv", [], ["7", "Mr Doe fell from the stairs; no haemorrhage was found in his head."])
    (tmp_path / "c.csv").write_bytes(bytes(range(128, 256)) * 9)
    write_csv(Path(os.fsdecode(os.fsencode(tmp_path / "z") + b"\xe4.csv")), [["9", "Normal."]])
    _, headless, noise, latin = read(archive("csv", tmp_path, COLUMNS))
    assert isinstance(headless, Flagged)
    assert isinstance(noise, Flagged)
    assert "Doe" not in headless.text
    assert "its columns are 7, (a cell of 66 characters)" in headless.text
    noise.text.encode("utf-8")
    assert isinstance(latin, Report)
    assert latin.source_position == "z\\udce4.csv, row 2"


def test_ten_megabytes_nul_bytes_and_ragged_rows(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [["1", "word " * 2_000_000], ["2", "before\0after"], ["3"], ["4", "Normal."]])
    long, nul, ragged, good = read(archive("csv", tmp_path, COLUMNS))
    assert isinstance(long, Flagged)
    assert long.code == "too_long"
    assert isinstance(nul, Report)
    assert (nul.text, nul.flags) == ("before after", ("nul_bytes",))
    assert isinstance(ragged, Flagged)
    assert ragged.code == "unreadable_row"
    assert isinstance(good, Report)
    assert good.flags == ()


@pytest.mark.parametrize(
    ("encoding", "flags"), [("utf-8", ()), ("utf-8-sig", ()), ("utf-16", ()), ("cp1252", ("encoding",))]
)
def test_encodings(tmp_path: Path, encoding: str, flags: tuple[str, ...]) -> None:
    (tmp_path / "a.csv").write_bytes("Accession,Report\n1,Blutung – Hirnödem\n".encode(encoding))
    (report,) = read(archive("csv", tmp_path, COLUMNS))
    assert isinstance(report, Report)
    assert report.text == "Blutung – Hirnödem"
    assert report.flags == flags


def test_json_lines_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "Normal."}\n\n[1]\n{"text": \n{"other": 1}\n{"text": "Old \\ud800 infarct"}\n'
    )
    records = read(archive("jsonl", tmp_path))
    assert [r.code if isinstance(r, Flagged) else r.text for r in records] == [
        "Normal.",
        "unreadable_row",
        "unreadable_row",
        "missing_column",
        "Old ? infarct",
    ]


def test_identifiers_that_are_none(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [["A\n1", "x"], ["A" * 65, "x"], ["A2", "x"]])
    records = read(archive("csv", tmp_path, COLUMNS))
    assert [r.code if isinstance(r, Flagged) else r.accession_number for r in records] == ["bad_identifier"] * 2 + [
        "A2"
    ]


def test_other_modalities_are_flagged_and_the_archive_gives_the_default(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [["x", "CR"], ["y", ""], ["z", "mri"]], ["text", "modality"])
    settings = ArchiveSettings(name="a", source="csv", location=str(tmp_path), modality="CT")
    records = read(settings)
    assert [r.code if isinstance(r, Flagged) else r.modality for r in records] == ["other_modality", "CT", "MR"]


def test_reading_goes_on_after_a_position(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [[str(i), f"report {i}"] for i in range(10)])
    source = open_source(archive("csv", tmp_path, COLUMNS), tmp_path)
    (part,) = source.parts()
    whole = list(source.read(part, None))
    assert list(source.read(part, whole[3][0])) == whole[4:]


# ------------------------------------------------------------------------------------------------------------- SQL
@pytest.fixture
def reports_database(tmp_path: Path) -> Path:
    path = tmp_path / "ris.sqlite"
    with create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(text("CREATE TABLE reports (id INTEGER PRIMARY KEY, acc TEXT, body TEXT, changed TEXT)"))
        connection.execute(
            text("INSERT INTO reports VALUES (:i, :a, :b, :c)"),
            [{"i": i, "a": f"A{i}", "b": f"report {i}", "c": f"2024-01-{i % 28 + 1:02d}"} for i in range(1, 2501)],
        )
    return path


SQL_COLUMNS = {"report_id": "id", "accession_number": "acc", "text": "body"}


def test_a_table_is_read_page_by_page_and_on_from_a_position(reports_database: Path) -> None:
    settings = archive("sql", f"sqlite:///{reports_database}", SQL_COLUMNS, table="reports")
    source = open_source(settings, reports_database)
    source.check()
    (part,) = source.parts()
    whole = list(source.read(part, None))
    assert [r.report_id for _, r in whole if isinstance(r, Report)] == [str(i) for i in range(1, 2501)]
    assert list(source.read(part, whole[1499][0])) == whole[1500:]


def test_a_cursor_reads_only_what_is_new(reports_database: Path) -> None:
    settings = archive(
        "sql", f"sqlite:///{reports_database}", SQL_COLUMNS, query="SELECT * FROM reports;", cursor="changed", key="id"
    )
    source = open_source(settings, reports_database)
    source.check()
    (part,) = source.parts()
    assert part.incremental
    whole = list(source.read(part, None))
    assert len({r.report_id for _, r in whole if isinstance(r, Report)}) == 2500
    with create_engine(f"sqlite:///{reports_database}").begin() as connection:
        connection.execute(text("UPDATE reports SET body = 'other', changed = '2024-02-01' WHERE id = 7"))
    ((_, changed),) = source.read(part, whole[-1][0])
    assert isinstance(changed, Report)
    assert (changed.report_id, changed.text) == ("7", "other")


def test_the_database_is_never_written(reports_database: Path) -> None:
    source = open_source(
        archive("sql", f"sqlite:///{reports_database}", SQL_COLUMNS, table="reports"), reports_database
    )
    with source.engine.connect() as connection, pytest.raises(Exception, match="readonly"):  # type: ignore[attr-defined]
        connection.execute(text("DELETE FROM reports"))


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ({"table": "nothing"}, SQL_COLUMNS, "the query cannot run|no such table"),
        ({"query": "SELEC 1"}, SQL_COLUMNS, "syntax error"),
        ({"table": "reports"}, {**SQL_COLUMNS, "text": "report_text"}, r"text -> report_text; its columns are id, acc"),
        ({"table": "reports", "cursor": "updated"}, SQL_COLUMNS, r"options\.cursor: no column updated"),
        ({}, SQL_COLUMNS, "either table or query"),
    ],
)
def test_wrong_sql_settings(
    reports_database: Path, options: dict[str, str], columns: dict[str, str], message: str
) -> None:
    source = open_source(archive("sql", f"sqlite:///{reports_database}", columns, **options), reports_database)
    with pytest.raises(Misconfigured, match=message):
        source.check()


def test_urls_that_cannot_be_used() -> None:
    for url, message in (("no url", "SQLAlchemy URL"), ("sqlite:////nowhere/x.sqlite", "does not exist")):
        with pytest.raises(Misconfigured, match=message):
            open_source(archive("sql", url, SQL_COLUMNS, table="reports"), Path("/"))


def test_a_database_that_goes_away_is_waited_for_then_named(
    reports_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.archive.sources.sql_query.RETRY_S", (0.01,))
    source = open_source(
        archive("sql", f"sqlite:///{reports_database}", SQL_COLUMNS, table="reports"), reports_database
    )
    source.check()
    (part,) = source.parts()
    records = source.read(part, None)
    next(records)
    source.engine.dispose()  # type: ignore[attr-defined]
    reports_database.rename(reports_database.with_suffix(".away"))
    with pytest.raises(Transient, match="goes on from here"):
        list(records)


# ------------------------------------------------------------------------------------------------------------- HL7
def obr(filler: str, accession_number: str, modality: str, status: str, time: str = "") -> str:
    fields = {0: "OBR", 3: filler, 4: "70450^CT head", 18: accession_number, 22: time, 24: modality, 25: status}
    return "|".join(fields.get(number, "") for number in range(26))


MESSAGE = "\r".join(
    [
        r"MSH|^~\&|RIS|H|FALX|H|20240301101500||ORU^R01|17|P|2.5||||||UNICODE UTF-8",
        "PID|1||123||Doe^J",
        "ORC|RE",
        obr("F100^RIS", "A100", "CT", "F", "20240301101000"),
        "OBX|1|TX|70450&GDT||Acute bleed~3 cm \\T\\ oedema.||||||F",
        "OBX|2|FT|70450&IMP||Haemorrhage\\.br\\in the left basal ganglia.||||||F",
        "OBX|3|TX|70450&IMP||deleted||||||D",
        "ZDS|1.2.840.1^RIS^Application^DICOM",
    ]
)


def test_an_oru_message(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_bytes(MESSAGE.encode())
    (report,) = read(archive("hl7", tmp_path))
    assert isinstance(report, Report)
    assert report.text == "Findings: Acute bleed\n3 cm & oedema.\nImpression: Haemorrhage\nin the left basal ganglia."
    assert (report.report_id, report.accession_number, report.study_instance_uid) == ("F100", "A100", "1.2.840.1")
    assert (report.modality, report.status) == ("CT", "final")
    assert report.reported_at is not None


def test_batches_framing_charsets_and_rubbish(tmp_path: Path) -> None:
    latin = (
        MESSAGE.replace("UNICODE UTF-8", "8859/1").replace("oedema", "ödem").replace("F100", "F101").encode("latin-1")
    )
    unnamed = MESSAGE.replace("UNICODE UTF-8", "").replace("oedema", "ödem").replace("F100", "F102").encode("cp1252")
    framed = b"FHS|^~\\&\r" + MESSAGE.encode() + b"\r\x0b" + latin + b"\x1c\r" + unnamed.replace(b"\r", b"\r\n")
    (tmp_path / "a.hl7").write_bytes(framed)
    (tmp_path / "b.hl7").write_bytes(b"\x00\x01 nothing")
    records = read(archive("hl7", tmp_path))
    assert [r.code if isinstance(r, Flagged) else r.report_id for r in records] == [
        "F100",
        "F101",
        "F102",
        "unreadable_file",
    ]
    assert isinstance(records[1], Report)
    assert "ödem" in records[1].text
    assert records[1].flags == ()
    assert isinstance(records[2], Report)
    assert "ödem" in records[2].text
    assert records[2].flags == ("encoding",)


def test_several_obr_and_encapsulated_text(tmp_path: Path) -> None:
    body = base64.b64encode(b"Normal MRI head.").decode()
    message = "\r".join(
        [
            r"MSH|^~\&|RIS|H|FALX|H|20240301||ORU^R01|18|P|2.5",
            obr("F1", "A1", "MR", "P"),
            f"OBX|1|ED|X||RIS^TEXT^plain^Base64^{body}||||||P",
            obr("F2", "A2", "MR", "P"),
            "OBX|1|ED|X||RIS^Application^PDF^Base64^JVBERi0=||||||P",
        ]
    )
    (tmp_path / "a.hl7").write_text(message)
    report, flag = read(archive("hl7", tmp_path))
    assert isinstance(report, Report)
    assert (report.text, report.status, report.accession_number) == ("Normal MRI head.", "preliminary", "A1")
    assert isinstance(flag, Flagged)
    assert flag.code == "no_text"


def test_hl7_places_are_checked(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no place in an HL7 message"):
        open_source(archive("hl7", tmp_path, {"accession_number": "OBR18"}), tmp_path)
    (tmp_path / "a.hl7").write_bytes(MESSAGE.encode())
    (report,) = read(archive("hl7", tmp_path, {"accession_number": "OBR-3.1"}))
    assert isinstance(report, Report)
    assert report.accession_number == "F100"


# ------------------------------------------------------------------------------------------------------------ FHIR
def diagnostic_report(**values: object) -> dict[str, object]:
    return {
        "resourceType": "DiagnosticReport",
        "id": "d1",
        "status": "final",
        "issued": "2024-03-01T10:00:00Z",
        "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": "A7"}],
        "imagingStudy": [{"identifier": {"value": "urn:oid:1.2.3.4"}}],
        "category": [{"coding": [{"code": "RAD"}, {"code": "MR"}]}],
        "presentedForm": [
            {"contentType": "application/pdf", "data": "JVBERi0="},
            {
                "contentType": "text/html; charset=utf-8",
                "data": base64.b64encode(b"<p>Mild <b>atrophy</b> &amp; gliosis.</p>").decode(),
            },
        ],
        "conclusion": "Atrophy.",
        **values,
    }


def test_fhir_resources_bundles_and_ndjson(tmp_path: Path) -> None:
    bundle = {
        "resourceType": "Bundle",
        "entry": [{"resource": {"resourceType": "Patient"}}, {"resource": diagnostic_report()}],
    }
    (tmp_path / "a.json").write_text(json.dumps(bundle))
    withdrawn = diagnostic_report(status="entered-in-error")
    odd = diagnostic_report(presentedForm=7)
    pdf_only = diagnostic_report(
        presentedForm=[{"contentType": "application/pdf", "data": "JVBERi0="}], conclusion=None
    )
    (tmp_path / "b.ndjson").write_text(
        "\n".join(map(json.dumps, [diagnostic_report(id="d2"), withdrawn, odd, pdf_only]))
    )
    (tmp_path / "c.json").write_text("{")
    records = read(archive("fhir", tmp_path))
    assert [r.code if isinstance(r, Flagged) else r.report_id for r in records] == [
        "d1",
        "d2",
        "withdrawn",
        "unreadable_row",
        "no_text",
        "unreadable_file",
    ]
    report = records[0]
    assert isinstance(report, Report)
    assert report.text == "Mild atrophy & gliosis.\nImpression: Atrophy."
    assert (report.accession_number, report.study_instance_uid, report.modality) == ("A7", "1.2.3.4", "MR")


# -------------------------------------------------------------------------------------------------------- DICOM SR
def item(value_type: str, heading: str, **values: object) -> Dataset:
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "1", "99T", heading
    one = Dataset()
    one.ValueType, one.RelationshipType, one.ConceptNameCodeSequence = value_type, "CONTAINS", [name]
    for keyword, value in values.items():
        setattr(one, keyword, value)
    return one


def write_sr(path: Path, **values: object) -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3.9"
    ds.Modality, ds.AccessionNumber, ds.StudyInstanceUID = "SR", "A9", "1.2.3"
    ds.ContentDate, ds.ContentTime, ds.CompletionFlag, ds.VerificationFlag = (
        "20240301",
        "101500",
        "COMPLETE",
        "VERIFIED",
    )
    ds.ModalitiesInStudy = ["CT", "SR"]
    ds.ContentSequence = [
        item("CONTAINER", "Findings", ContentSequence=[item("TEXT", "Finding", TextValue="Dense MCA sign.")]),
        item("TEXT", "Conclusion", TextValue="Acute stroke."),
    ]
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def test_structured_reports_of_people_and_of_devices(tmp_path: Path) -> None:
    write_sr(tmp_path / "a")
    write_sr(tmp_path / "b.dcm", Manufacturer="falx")
    (tmp_path / "c.dcm").write_bytes(b"not DICOM")
    write_sr(tmp_path / "d.dcm", Modality="CT")
    report, device, broken, image = read(archive("dicom-sr", tmp_path))
    assert isinstance(report, Report)
    assert report.text == "Findings:\nDense MCA sign.\nConclusion: Acute stroke."
    assert (report.report_id, report.accession_number, report.modality, report.status) == (
        "1.2.3.9",
        "A9",
        "CT",
        "final",
    )
    assert [flag.code for flag in (device, broken, image) if isinstance(flag, Flagged)] == [
        "device_report",
        "unreadable_file",
        "no_report",
    ]
