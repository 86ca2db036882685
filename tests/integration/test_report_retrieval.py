"""Reports in a PACS (Orthanc): found by C-FIND, fetched by C-GET or C-MOVE, kept; asked for again only where needed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt

from node.archive.sources import open_source
from node.config import ArchiveSettings, Settings
from node.dicom_net.uids import STUDY_ROOT_FIND, STUDY_ROOT_MOVE
from node.errors import Misconfigured, Transient
from node.report_retrieval import FETCHED, retriever
from node.store.labels_values import Flagged, Report


def study(day: date, text: str, manufacturer: str = "RIS") -> list[Dataset]:
    """A CT image and a structured report of one study."""
    uid = generate_uid()
    found = []
    for sop_class, modality in ((CTImageStorage, "CT"), (BasicTextSRStorage, "SR")):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_class, generate_uid(), modality
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid, generate_uid()
        ds.PatientID, ds.PatientName, ds.StudyDate, ds.AccessionNumber = "1", "Doe^J", f"{day:%Y%m%d}", uid[-12:]
        ds.StudyTime, ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.Manufacturer = "", "", 1, 1, manufacturer
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if modality == "SR":
            item = Dataset()
            item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", text
            ds.ValueType, ds.ContentSequence = "CONTAINER", [item]
            ds.ContentDate, ds.ContentTime = f"{day:%Y%m%d}", "101500"
            ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "VERIFIED"
        found.append(ds)
    return found


def store(port: int, datasets: list[Dataset]) -> None:
    ae = AE("TEST")
    for sop_class in (CTImageStorage, BasicTextSRStorage):
        ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", port, ae_title="ORTHANC")
    assert assoc.is_established
    for ds in datasets:
        assert assoc.send_c_store(ds).Status == 0
    assoc.release()


def archive_of(orthanc: Any, **options: str | int) -> ArchiveSettings:
    """A PACS archive that begins five days ago."""
    since = f"{date.today() - timedelta(days=5):%Y%m%d}"
    return ArchiveSettings(
        name="pacs",
        source="dicom-query",
        location=f"ORTHANC@127.0.0.1:{orthanc.port}",
        options={"since": since, "look_back_days": 3, **options},
    )


@pytest.mark.needs("Orthanc")
@pytest.mark.parametrize("way", ["C-GET", "C-MOVE"])
def test_reports_of_a_pacs_are_fetched_once_and_read(
    way: str, tmp_path: Path, orthanc_factory: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    today = date.today()
    port = free_port()
    nodes = {"FALX": ("127.0.0.1", 104), "FALXSR": ("127.0.0.1", port)}
    orthanc = orthanc_factory(nodes, DicomAlwaysAllowGet=way == "C-GET", DicomAlwaysAllowMove=True)
    own = study(today, "Result of a device.", manufacturer="falx")
    store(orthanc.port, [*study(today - timedelta(days=2), "Acute infarct."), *study(today, "No haemorrhage."), *own])
    archive = archive_of(orthanc, **({} if way == "C-GET" else {"move_ae_title": "FALXSR", "move_port": port}))
    source = open_source(archive, tmp_path, retriever(Settings()))
    source.check()

    def read() -> list[Report | Flagged]:
        return [record for part in source.parts() for _, record in source.read(part, None)]

    records = read()
    assert sorted(r.text if isinstance(r, Report) else r.code for r in records) == [
        "Acute infarct.",
        "No haemorrhage.",
        "device_report",
    ]
    report = next(r for r in records if isinstance(r, Report))
    assert (report.modality, report.status) == ("CT", "final")
    assert report.accession_number
    folder = tmp_path / "retrieved" / "pacs"
    assert (folder / FETCHED).read_text() == today.isoformat()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.dcm")}
    store(orthanc.port, study(today, "Came late."))
    assert len(read()) == 4
    assert all(path.stat().st_mtime_ns == at for path, at in times.items()), "nothing is kept twice"
    assert pydicom.dcmread(next(iter(times))).Modality == "SR"


def fetched(archive: ArchiveSettings, folder: Path) -> list[Any]:
    return list(open_source(archive, folder, retriever(Settings())).parts())


@pytest.mark.needs("Orthanc")
def test_what_a_pacs_cannot_move_names_the_remedy_and_goes_on_when_it_is_mended(
    tmp_path: Path, orthanc_factory: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    port, elsewhere = free_port(), free_port()
    nodes = {"FALX": ("127.0.0.1", 104), "FALXSR": ("127.0.0.1", port), "WRONG": ("127.0.0.1", elsewhere)}
    orthanc = orthanc_factory(nodes, DicomAlwaysAllowMove=True)
    store(orthanc.port, study(date.today(), "No haemorrhage."))

    # Orthanc answers 0xC000, not 0xA801, for a destination it does not know
    with pytest.raises(Transient, match=rf"C-MOVE to NOBODY .*DicomModalities\) has AE title NOBODY .* port {port}"):
        fetched(archive_of(orthanc, move_ae_title="NOBODY", move_port=port), tmp_path)
    with pytest.raises(Transient, match=rf"C-MOVE to WRONG failed.*check that its list .* port {port}"):
        fetched(archive_of(orthanc, move_ae_title="WRONG", move_port=port), tmp_path)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        with pytest.raises(Misconfigured, match=rf"port {port} .*move_port"):
            fetched(archive_of(orthanc, move_ae_title="FALXSR", move_port=port), tmp_path)
    assert len(fetched(archive_of(orthanc, move_ae_title="FALXSR", move_port=port), tmp_path)) == 1


def test_a_pacs_that_sends_moved_reports_elsewhere_is_told_from_one_without_reports(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """A PACS that answers 0xA801, and one that reports success while nothing arrives."""
    for status, error, match in (
        (0xA801, Misconfigured, "unknown"),
        (0x0000, Transient, "points elsewhere"),
    ):
        pacs = pacs_that_moves_with(status)
        archive = ArchiveSettings(
            name="pacs",
            source="dicom-query",
            location=f"PACS@127.0.0.1:{pacs.port}",
            options={"since": f"{date.today():%Y%m%d}", "move_ae_title": "FALXSR", "move_port": free_port()},
        )
        with pytest.raises(error, match=match):
            fetched(archive, tmp_path)
        pacs.shutdown()


def pacs_that_moves_with(status: int) -> Any:
    """A PACS of one study with one report series, which answers each C-MOVE with ``status`` and sends nothing."""

    def on_find(event: Any) -> Iterator[tuple[int, Dataset]]:
        answer = Dataset()
        answer.StudyInstanceUID, answer.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        answer.ModalitiesInStudy = ["CT", "SR"]
        yield 0xFF00, answer

    def on_move(event: Any) -> Iterator[Any]:
        if status:
            yield None, None
        else:
            yield "127.0.0.1", sink.server_address[1]
            yield 1
            yield 0xFF00, study(date.today(), "Moved.")[1]

    sink_ae = AE("FALXSR")
    sink_ae.add_supported_context(BasicTextSRStorage, ExplicitVRLittleEndian)
    sink = sink_ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0)])
    ae = AE("PACS")
    for sop_class in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE):
        ae.add_supported_context(sop_class, [ExplicitVRLittleEndian])
    ae.add_requested_context(BasicTextSRStorage, ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, on_find), (evt.EVT_C_MOVE, on_move)]
    )
    server.port = server.server_address[1]
    return server


def test_a_pacs_that_does_not_answer(tmp_path: Path, free_port: Callable[[], int]) -> None:
    archive = ArchiveSettings(
        name="pacs",
        source="dicom-query",
        location=f"PACS@127.0.0.1:{free_port()}",
        options={"since": f"{date.today():%Y%m%d}"},
    )
    with pytest.raises(Transient, match="PACS"):
        list(open_source(archive, tmp_path, retriever(Settings())).parts())


@pytest.mark.parametrize(
    ("location", "options", "message"),
    [
        ("127.0.0.1:104", {"since": "20240101"}, "AETITLE@host:port"),
        ("PACS@127.0.0.1:104", {}, r"options\.since"),
        ("PACS@127.0.0.1:104", {"since": "20240101", "move_port": "11114"}, r"options\.move_ae_title"),
        ("PACS@127.0.0.1:104", {"since": "20240101", "move_ae_title": "FALXSR"}, r"options\.move_port"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, location: str, options: dict[str, str], message: str) -> None:
    archive = ArchiveSettings(name="pacs", source="dicom-query", location=location, options=options)
    with pytest.raises(Misconfigured, match=message):
        list(open_source(archive, tmp_path, retriever(Settings())).parts())
