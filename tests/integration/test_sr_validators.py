"""Independent judges of conformance: dciodvfy, PixelMed's DicomSRValidator, dsrdump.

``FALSE_ALARMS`` are the only errors let through, each with its reason.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_sr.build import build_rejection_note, build_results
from dicom_sr.check import checked_bytes
from dicom_sr.request import Predecessor, RejectedObject, ResultRequest, UnusedSeries
from inference.result import Reason
from tests.fixtures_sr import AT, CT_MODEL, STUDY, headers, request, volume

FALSE_ALARMS = {
    r'NUM \(122157,DCM,"Probability"\): Missing value': (
        "PS3.3 C.18.1: Measured Value Sequence is type 2, empty with a Numeric Value Qualifier when there is no value"
    ),
    r"^Error: Template 1410 PlanarROIMeasurements/.* within 1\.\d+\.1: .*: Missing conditional content item$": (
        "the first group is the study's and says that it is TID 1501; PixelMed guesses templates from content, and "
        "takes it for a TID 1410 group without region when there is just one region group beside it, not when there "
        "are none or several"
    ),
    r"^Error - <.*> - Illegal root for UID = <0\.": "dciodvfy, of a source's UID, repeated as it is",
}
PREDECESSOR = Predecessor(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
    sop_instance_uid="2.25.11",
    series_instance_uid="2.25.12",
    series_description="AI ICH: not detected - RESEARCH USE ONLY",
    series_number=9000,
)
UNUSED = UnusedSeries(
    series_instance_uid="1.2.3", description="Knochen 1,0 ä", reason=Reason(code="kernel", text="Bone kernel.")
)
ALL: dict[str, Any] = {"size": 32, "slices": 6}
REQUESTS: dict[str, ResultRequest] = {
    "ct-positive": request(True, **ALL, profile={"parametric_map": True}, unused_series=(UNUSED,)),
    "ct-negative": request(False, **ALL, profile={"heatmap_for_negatives": True}),
    "mr-positive-single-frames": request(
        True, **ALL, modality="MR", profile={"heatmap": "single-frame", "parametric_map": True}
    ),
    "enhanced-source": request(True, **ALL, enhanced=True, profile={"parametric_map": True, "sr": "comprehensive"}),
    "enhanced-sr": request(True, **ALL, profile={"sr": "enhanced"}),
    "uncalibrated": request(True, **ALL, finding={"calibrated": False}),
    "later-version": request(True, **ALL, predecessor=PREDECESSOR, possibly_incomplete=True),
    "undetermined": request(None, **ALL, outcome="undetermined"),
    "unsuitable": request(None, **ALL, outcome="unsuitable", unused_series=(UNUSED,)),
    "failed": request(None, **ALL, outcome="failed", profile={"sr": "comprehensive"}),
    "trial": request(
        True,
        **ALL,
        header={
            "ClinicalTrialSponsorName": "S",
            "ClinicalTrialProtocolID": "P",
            "ClinicalTrialSubjectID": "7",
            "PatientIdentityRemoved": "YES",
        },
    ),
    "bare-header": request(
        True,
        **ALL,
        header={"PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": "", "AccessionNumber": ""},
    ),
}
QUICK = ("ct-positive",)  # PixelMed takes 10 s of processor time a document


def write(of: ResultRequest, folder: Path) -> list[Path]:
    """Write a request's objects as files."""
    paths = []
    for index, made in enumerate(build_results(of)):
        paths.append(folder / f"{index}-{made.kind}.dcm")
        paths[-1].write_bytes(checked_bytes(made.dataset))
    return paths


def note(folder: Path) -> Path:
    """Write a rejection note."""
    rejected = RejectedObject(
        sop_class_uid=PREDECESSOR.sop_class_uid, sop_instance_uid="2.25.11", series_instance_uid="2.25.12"
    )
    made = build_rejection_note(
        header=headers(volume(slices=1, size=16))[0], rejected=[rejected], model=CT_MODEL, text="Wrong.", rejected_at=AT
    )
    path = folder / "note-KO.dcm"
    path.write_bytes(checked_bytes(made.dataset))
    return path


def real_errors(lines: Iterable[str]) -> list[str]:
    """Return the lines that report an error, less the known false alarms."""
    errors = [line for line in lines if line.startswith("Error")]
    return [line for line in errors if not any(re.search(alarm, line) for alarm in FALSE_ALARMS)]


def errors_of_dciodvfy(path: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "dciodvfy said nothing"
    return real_errors(lines)


def errors_of_pixelmed(path: Path) -> list[str]:
    limits = " ".join(f"-Djdk.xml.{name}=0" for name in ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit"))
    done = subprocess.run(
        ["DicomSRValidator", str(path)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "JAVA_TOOL_OPTIONS": limits},  # newer Java refuses style sheets as large as its own
    )
    assert "IOD validation complete" in done.stdout, done.stdout + done.stderr
    return real_errors(done.stdout.splitlines())


@pytest.mark.needs("dciodvfy")
@pytest.mark.parametrize("name", REQUESTS)
def test_dciodvfy_finds_no_error(name: str, tmp_path: Path) -> None:
    for path in write(REQUESTS[name], tmp_path):
        assert errors_of_dciodvfy(path) == [], path.name


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.needs("dciodvfy", "DicomSRValidator")
def test_rejection_note_passes_both_validators(tmp_path: Path) -> None:
    assert errors_of_dciodvfy(note(tmp_path)) == []
    assert errors_of_pixelmed(note(tmp_path)) == []


@pytest.mark.timeout(900)  # a Java start and a 6 MB style sheet each
@pytest.mark.needs("DicomSRValidator")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in REQUESTS]
)
def test_pixelmed_finds_no_error(name: str, tmp_path: Path) -> None:
    documents = [path for path in write(REQUESTS[name], tmp_path) if path.stem.endswith(("SR", "KO"))]
    for path in documents:
        assert errors_of_pixelmed(path) == [], path.name


@pytest.mark.needs("dsrdump")
def test_dsrdump_reads_the_tree(tmp_path: Path) -> None:
    (path,) = [p for p in write(REQUESTS["ct-positive"], tmp_path) if p.stem.endswith("SR")]
    done = subprocess.run(["dsrdump", "+Pl", str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert "Comprehensive 3D SR Document" in done.stdout
    for text in ('(1386000,SCT,"Intracranial hemorrhage")', "Image Region", '"91.37" (%,UCUM,"Percent")', "UNVERIFIED"):
        assert text in done.stdout


@pytest.mark.shared_data
@pytest.mark.needs("dciodvfy")
def test_headers_of_real_scanners_give_conformant_objects(shared_data: Path, tmp_path: Path) -> None:
    """Every vendor's header, however odd, yields a report; those with pixels' geometry, all objects."""
    base = request(True, **ALL, profile={"parametric_map": True})
    count = 0
    for header in _one_header_per_folder(shared_data / "vendors"):
        sources = tuple(_with(header, source) for source in base.sources)
        folder = tmp_path / str(count)
        folder.mkdir()
        for path in write(replace(base, sources=sources), folder):
            assert errors_of_dciodvfy(path) == [], f"{header.filename} {path.name}"
        count += 1
    assert count >= 10


def _one_header_per_folder(vendors: Path) -> Iterable[Dataset]:
    for folder in sorted(path for path in vendors.iterdir() if path.is_dir()):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            header = dcmread(path, stop_before_pixels=True, force=True)
            if header.get("StudyInstanceUID") and header.get("SOPClassUID"):
                yield header
                break


def _with(header: Dataset, source: Dataset) -> Dataset:
    """A real header's patient and study on the test's slice."""
    merged = Dataset()
    merged.update(header)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns"):
        setattr(merged, keyword, source[keyword].value)
    for keyword in ("NumberOfFrames", "InstanceNumber"):
        if keyword in merged:
            delattr(merged, keyword)
    if not header.get("StudyInstanceUID"):
        merged.StudyInstanceUID = STUDY
    return merged
