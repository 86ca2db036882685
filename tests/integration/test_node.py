"""The whole node against a real Orthanc: studies in by C-STORE, results back, bad input recorded and survived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.conftest import Orthanc, start_orthanc, take_port, wait_for
from tests.fixtures_dicom import uid, write, write_series
from tests.fixtures_node import Node, orthanc_destination

pytestmark = [pytest.mark.needs("Orthanc"), pytest.mark.timeout(600)]
LONG_S = 180


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Orthanc]]:
    folder = tmp_path_factory.mktemp("site")
    port = take_port()
    orthanc, process = start_orthanc(folder / "orthanc", {"FALX": ("127.0.0.1", port)})
    node = Node(folder, port, orthanc_destination(orthanc.port))
    node.start()
    yield node, orthanc
    assert node.stop() == 0
    process.terminate()
    process.wait(30)


def answer(node: Node, study: str) -> dict[str, Any]:
    wait_for(lambda: node.settled(study), LONG_S, f"an answer for {study}; log:\n{node.log()[-1500:]}")
    return max(node.rows("tasks", study_instance_uid=study), key=lambda task: int(task["version"]))


def head(folder: Path, name: str, **more: Any) -> tuple[str, list[Path]]:
    study = uid("node", name)
    return study, write_series(folder / name, study=study, series=uid("node", name, "s"), **more)


def test_a_head_ct_comes_back_once_and_confirmed(site: tuple[Node, Orthanc], tmp_path: Path) -> None:
    node, orthanc = site
    study, files = head(tmp_path, "plain", shape=(32, 128, 128), spacing_mm=(5.0, 1.7, 1.7))
    assert node.send(files) == [0] * len(files)
    task = answer(node, study)
    assert task["state"] in ("analysed", "undetermined"), task["reason_text"]
    deliveries = node.rows("deliveries", study_instance_uid=study)
    assert {one["state"] for one in deliveries} == {"confirmed"}
    assert {one["confirmed_by"] for one in deliveries} == {"storage-commitment"}
    series = orthanc.find("Series", StudyInstanceUID=study)
    descriptions = [item["MainDicomTags"]["SeriesDescription"] for item in series]
    assert any("AI ICH" in text and "RESEARCH USE ONLY" in text for text in descriptions)

    assert node.send(files) == [0] * len(files)  # the same study again
    assert len(node.rows("tasks", study_instance_uid=study)) == 1
    assert node.rows("deliveries", study_instance_uid=study) == deliveries


def test_a_late_slice_makes_a_new_version_with_predecessor(site: tuple[Node, Orthanc], tmp_path: Path) -> None:
    node, _ = site
    study, files = head(tmp_path, "late", shape=(32, 128, 128), spacing_mm=(5.0, 1.7, 1.7))
    node.send(files[:-1])
    first = answer(node, study)
    node.send(files[-1:])
    wait_for(lambda: len(node.rows("tasks", study_instance_uid=study)) == 2, LONG_S, "the second version")
    second = answer(node, study)
    assert second["version"] == 2
    assert {first["state"], second["state"]} <= {"analysed", "undetermined"}
    assert node.rows("tasks", task_id=first["task_id"])[0]["superseded_by"] == second["task_id"]
    old, new = (node.rows("objects", task_id=task["task_id"], role="result")[0] for task in (first, second))
    report = pydicom.dcmread(node.folder / "falx" / new["path"])
    predecessor = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == old["sop_instance_uid"]


def drop(*keywords: str) -> Callable[[Dataset, int], None]:
    def change(ds: Dataset, _index: int) -> None:
        for keyword in keywords:
            if keyword in ds:
                del ds[keyword]

    return change


def put(**values: Any) -> Callable[[Dataset, int], None]:
    def change(ds: Dataset, _index: int) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def odd_patient(ds: Dataset, index: int) -> None:
    if index == 3:
        ds.PatientID = "T-0002"


BAD: list[tuple[str, dict[str, Any], set[str]]] = [
    ("localizer only", {"change": put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])}, {"unsuitable"}),
    (
        "not a head",
        {
            "change": put(
                BodyPartExamined="CHEST",
                SeriesDescription="Thorax 5.0",
                StudyDescription="CT thorax",
                ProtocolName="Thorax",
            )
        },
        {"unsuitable"},
    ),
    ("a child", {"change": put(PatientAge="007Y", PatientBirthDate="20180101")}, {"unsuitable"}),
    ("one slice", {"shape": (1, 64, 64)}, {"unsuitable", "undetermined"}),
    ("no position", {"change": drop("ImagePositionPatient")}, {"unsuitable"}),
    ("no spacing", {"change": drop("PixelSpacing")}, {"unsuitable"}),
    ("no thickness", {"change": drop("SliceThickness", "SpacingBetweenSlices")}, {"analysed", "undetermined"}),
    (
        "no type 2 attributes",
        {
            "change": drop(
                "PatientName", "PatientSex", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"
            )
        },
        {"analysed", "undetermined"},
    ),
    ("two patients in one series", {"change": odd_patient}, {"failed"}),
    (
        "Japanese character set",
        {"change": put(SpecificCharacterSet=["", "ISO 2022 IR 87"])},
        {"analysed", "undetermined"},
    ),
    ("wrong character set", {"change": put(SpecificCharacterSet="NONSENSE 1")}, {"analysed", "undetermined"}),
    (
        "every legal character in the name",
        {"change": put(PatientName="O'Neil-Smith^Ann Marie^^Dr.^=!\"#$%&()*+,/:;<>?@[]_`{|}~")},
        {"analysed", "undetermined"},
    ),
]


@pytest.fixture(scope="module")
def bad_studies(site: tuple[Node, Orthanc], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All the bad studies, sent one after the other without waiting: none may hold up another."""
    node, _ = site
    sent = {}
    for name, how, _states in BAD:
        study, files = head(tmp_path_factory.mktemp("bad"), name.replace(" ", "-"), **how)
        assert set(node.send(files)) == {0}
        sent[name] = study
    return sent


@pytest.mark.parametrize(("name", "states"), [(row[0], row[2]) for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_leaves_a_record_and_stops_nothing(
    site: tuple[Node, Orthanc], bad_studies: dict[str, str], name: str, states: set[str]
) -> None:
    node, _ = site
    study = bad_studies[name]
    task = answer(node, study)
    assert task["state"] in states, (task["reason_code"], task["reason_text"])
    if task["state"] != "analysed":
        assert task["reason_code"]
        assert task["reason_text"].endswith((".", "`", "again"))
    sent = {one["state"] for one in node.rows("deliveries", study_instance_uid=study)}
    assert sent == (set() if name.startswith("two patients") else {"confirmed"})


def test_pixels_that_cannot_be_decoded_are_named(site: tuple[Node, Orthanc], tmp_path: Path) -> None:
    node, _ = site
    study, files = head(tmp_path, "undecodable", transfer_syntax="1.2.840.10008.1.2.4.70")
    damaged = []
    for path in files[::4]:
        ds = pydicom.dcmread(path)
        damaged.append(str(ds.SOPInstanceUID))
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8nonsense" * 20])
        write(ds, path)
    node.send(files)
    task = answer(node, study)
    assert task["state"] == "unsuitable"
    assert any(name in task["reason_text"] for name in damaged)


def test_what_is_not_for_analysis_is_stored_without_a_task(site: tuple[Node, Orthanc], tmp_path: Path) -> None:
    node, _ = site
    ds = Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"  # encapsulated PDF
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("pdf"), uid("pdf", 1), uid("pdf", 2)
    ds.Modality, ds.PatientName, ds.PatientID = "DOC", "Test^Synthetic", "T-1"
    path = write(ds, tmp_path / "a.dcm")
    assert node.send([path]) == [0]
    wait_for(lambda: node.rows("series", study_instance_uid=ds.StudyInstanceUID), 60, "the series in the ledger")
    row = node.rows("series", study_instance_uid=ds.StudyInstanceUID)[0]
    assert row["for_analysis"] is False
    assert node.rows("tasks", study_instance_uid=ds.StudyInstanceUID) == []


def test_the_log_holds_no_patient_data(site: tuple[Node, Orthanc]) -> None:
    node, _ = site
    text = node.log()
    assert text
    for secret in ("Synthetic", "T-0001", "O'Neil", "19600101"):
        assert secret not in text
