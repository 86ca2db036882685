"""Reports in a PACS (Orthanc): found by C-FIND, fetched by C-GET, kept, labelled; asked for again only where needed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from node.archive.sources import open_source
from node.config import ArchiveSettings, Settings
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


@pytest.mark.needs("Orthanc")
def test_reports_of_a_pacs_are_fetched_once_and_read(tmp_path: Path, orthanc_factory: Callable[..., Any]) -> None:
    today = date.today()
    orthanc = orthanc_factory({"FALX": ("127.0.0.1", 104)}, DicomAlwaysAllowGet=True)
    own = study(today, "Result of a device.", manufacturer="falx")
    store(orthanc.port, [*study(today - timedelta(days=2), "Acute infarct."), *study(today, "No haemorrhage."), *own])
    archive = ArchiveSettings(
        name="pacs",
        source="dicom-query",
        location=f"ORTHANC@127.0.0.1:{orthanc.port}",
        options={"since": f"{today - timedelta(days=5):%Y%m%d}", "look_back_days": 3},
    )
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
    [("127.0.0.1:104", {"since": "20240101"}, "AETITLE@host:port"), ("PACS@127.0.0.1:104", {}, r"options\.since")],
)
def test_settings_that_cannot_work(tmp_path: Path, location: str, options: dict[str, str], message: str) -> None:
    archive = ArchiveSettings(name="pacs", source="dicom-query", location=location, options=options)
    with pytest.raises(Misconfigured, match=message):
        list(open_source(archive, tmp_path, retriever(Settings())).parts())
