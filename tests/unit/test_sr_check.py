"""An object that breaks a rule is never sent; the fault is named, the patient is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_sr import codes
from dicom_sr.build import build_results
from dicom_sr.check import NotConformant, checked_bytes
from tests.fixtures_sr import request


def objects() -> dict[str, Dataset]:
    """One object of each kind, read back: highdicom shares some items between objects, and the tests spoil them."""
    made = build_results(request(True, slices=4, size=32, profile={"parametric_map": True}))
    return {m.kind: dcmread(BytesIO(checked_bytes(m.dataset))) for m in made}


def _other_study(sr: Dataset) -> None:
    sr.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = "1.2.3"


def _lost_evidence(sr: Dataset) -> None:
    del sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]


def _unknown_code(sr: Dataset) -> None:
    sr.ContentSequence[0].ConceptCodeSequence[0].CodeValue = "made-up"


def _undeclared_scheme(sr: Dataset) -> None:
    sr.PerformedProcedureCodeSequence = [codes.code_item(codes.FINDINGS["vascular"].finding)]


def _set(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


@pytest.mark.parametrize(
    ("kind", "spoil", "fault"),
    [
        ("SR", _set("ContentQualification", "PRODUCT"), "ContentQualification"),
        ("SR", _set("SeriesDescription", "AI ICH: suspected"), "RESEARCH USE ONLY"),
        ("SR", _set("SOPInstanceUID", "1.2.03"), "SOPInstanceUID"),
        ("SR", _set("VerificationFlag", "VERIFIED"), "UNVERIFIED"),
        ("SR", _set("Manufacturer", ""), "Manufacturer"),
        ("SR", _set("SpecificCharacterSet", "ISO_IR 100"), "ISO_IR 192"),
        ("SR", _other_study, "another study"),
        ("SR", _lost_evidence, "not in the evidence"),
        ("SR", _unknown_code, "made-up"),
        ("SR", _undeclared_scheme, "99FALX"),
        ("KO", _set("ContentDate", ""), "ContentDate"),
        ("SC", _set("BurnedInAnnotation", "NO"), "BurnedInAnnotation"),
        ("SC", lambda sc: sc.PerFrameFunctionalGroupsSequence.pop(), "per-frame"),
        ("PM", lambda pm: delattr(pm, "PatientID"), "PatientID"),
    ],
)
def test_broken_rule_is_named(kind: str, spoil: Callable[[Dataset], None], fault: str) -> None:
    dataset = objects()[kind]
    checked_bytes(dataset)
    spoil(dataset)
    with pytest.raises(NotConformant, match=fault) as raised:
        checked_bytes(dataset)
    assert "Muster" not in str(raised.value)
    assert "P-0001" not in str(raised.value)


def test_long_value_is_named() -> None:
    dataset = objects()["SR"]
    dataset.add_new("SoftwareVersions", "LO", "x" * 64)
    checked_bytes(dataset)
    dataset["SoftwareVersions"]._value = "x" * 65
    with pytest.raises(NotConformant, match="SoftwareVersions"):
        checked_bytes(dataset)


def test_private_codes_are_declared() -> None:
    of = request(True, modality="MR", slices=4, size=32)
    assert of.result is not None
    findings = (of.result.findings[0], replace(of.result.findings[1], label="small_vessel_disease"))
    made = build_results(replace(of, result=replace(of.result, findings=findings)))[0].dataset
    checked_bytes(made)
    assert made.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == codes.PRIVATE_SCHEME
