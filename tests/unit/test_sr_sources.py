"""Sources in every character set, with attributes missing or wrong, or of two patients."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_sr.build import build_results
from dicom_sr.check import checked_bytes
from dicom_sr.request import MixedSources
from dicom_sr.sources import require_one_study, take_over
from tests.fixtures_sr import STUDY, headers, request, volume

CHARSETS = [
    ("", "Doe^Jane"),
    ("ISO_IR 100", "Müller^Jörg"),
    ("ISO_IR 144", "Иванов^Пётр"),
    ("ISO_IR 192", "Łukasiewicz^Ząb=漢字^名"),
    ("GB18030", "张^伟"),
    ("ISO 2022 IR 87", "Doe^Jane"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    (["", ""], "Doe^Jane"),
]


def read_back(header: Dataset) -> Dataset:
    """A header as it comes from a file: raw bytes in its own character set."""
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, header, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))


def sr_of(header: dict[str, Any]) -> Dataset:
    of = request(True, slices=3, size=32, profile={"heatmap": "none"})
    sources = headers(volume(slices=3, size=32))
    for source in sources:
        for keyword, value in header.items():
            if value is None:
                if keyword in source:
                    delattr(source, keyword)
            else:
                setattr(source, keyword, value)
    return dcmread(
        BytesIO(checked_bytes(build_results(replace(of, sources=tuple(map(read_back, sources))))[0].dataset))
    )


@pytest.mark.parametrize(("charset", "name"), CHARSETS, ids=[str(charset) for charset, _ in CHARSETS])
def test_names_survive_every_character_set(charset: str | list[str], name: str) -> None:
    document = sr_of({"SpecificCharacterSet": charset, "PatientName": name})
    assert document.SpecificCharacterSet == "ISO_IR 192"
    assert str(document.PatientName) == name


def test_a_wrong_character_set_stops_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = sr_of({"SpecificCharacterSet": "ISO_IR 99999", "PatientName": "Doe^Jane"})
    assert str(document.PatientName) == "Doe^Jane"


@pytest.mark.parametrize(
    "keyword",
    [
        "PatientName", "PatientID", "PatientSex", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate",
        "StudyTime", "ReferringPhysicianName", "FrameOfReferenceUID", "SpecificCharacterSet", "StudyDescription",
        "SliceThickness", "PixelSpacing", "ImagePositionPatient", "SeriesNumber",
    ],
)  # fmt: skip
def test_a_missing_attribute_stops_nothing(keyword: str) -> None:
    header: dict[str, Any] = {keyword: None}
    if keyword == "SpecificCharacterSet":
        header |= {"PatientName": "Doe^Jane"}
    document = sr_of(header)
    assert "PatientName" in document
    assert document.StudyInstanceUID == STUDY


def test_everything_missing_at_once_still_gives_all_objects() -> None:
    of = request(True, size=32, slices=4, profile={"parametric_map": True})
    bare = []
    for source in of.sources:
        item = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns"):
            setattr(item, keyword, source[keyword].value)
        bare.append(item)
    made = build_results(replace(of, sources=tuple(bare)))
    assert {m.kind for m in made} == {"SR", "KO", "SC", "PM"}
    for each in made:
        checked_bytes(each.dataset)


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientSex", "male", ""),
        ("PatientBirthDate", "1950.01.01", ""),
        ("PatientBirthDate", "unknown", ""),
        ("StudyTime", "25:99", ""),
        ("PatientAge", "76", None),
    ],
)
def test_values_that_break_their_syntax_are_left_empty(keyword: str, value: str, expected: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings_before = config.settings.writing_validation_mode
        config.settings.writing_validation_mode = config.IGNORE
        try:
            document = sr_of({keyword: value})
        finally:
            config.settings.writing_validation_mode = settings_before
    assert (document.get(keyword) or "") == (expected or "")


NAME_TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\=^"), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(family=NAME_TEXT, given_name=NAME_TEXT)
def test_every_legal_name_is_kept_and_never_logged(
    family: str, given_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{family.strip() or 'X'}^{given_name.strip() or 'Y'}"
    source = headers(volume(slices=1, size=16))[0]
    source.SpecificCharacterSet = "ISO_IR 192"
    source.PatientName = name
    target = Dataset()
    with caplog.at_level(logging.DEBUG):
        take_over(read_back(source), target)
    assert str(target.PatientName).rstrip("^ ") == name.rstrip("^ ")
    assert family not in caplog.text or len(family) < 4


def test_patient_data_is_neither_logged_nor_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    odd = "Zzyzx " * 15  # longer than a component may be, and without a caret
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        of = request(True, slices=3, size=32)
        for source in of.sources:
            source.add_new("PatientName", "PN", odd)
        warned.clear()
        for made in build_results(of):
            checked_bytes(made.dataset)
    assert "Zzyzx" not in caplog.text
    assert not any("Zzyzx" in str(warning.message) for warning in warned)


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID"])
def test_mixed_sources_name_the_attribute_not_its_value(keyword: str) -> None:
    of = request(True, slices=3, size=32)
    setattr(of.sources[1], keyword, {"PatientBirthDate": "19770707"}.get(keyword, "1.2.777"))
    with pytest.raises(MixedSources, match=keyword) as raised:
        build_results(of)
    assert "777" not in str(raised.value)


def test_names_that_differ_in_empty_components_are_one_patient() -> None:
    sources = headers(volume(slices=2, size=16))
    sources[0].PatientName, sources[1].PatientName = "Doe^Jane", "DOE^Jane^^^"
    require_one_study(sources)


def test_clinical_trial_and_deidentification_are_complete() -> None:
    target = Dataset()
    source = headers(
        volume(slices=1, size=16),
        ClinicalTrialSponsorName="S",
        ClinicalTrialProtocolID="P",
        ClinicalTrialSubjectID="7",
        PatientIdentityRemoved="YES",
    )[0]
    take_over(source, target)
    assert target.ClinicalTrialSiteID == ""
    assert target.DeidentificationMethod
