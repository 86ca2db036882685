"""Headers are read leniently: odd values become None, never an exception."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from fixtures_dicom import uid, write_enhanced, write_series
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.catalog import scan
from node.errors import Corrupt, Rejected
from node.headers import Header, from_json, header_of, read_header, to_json


def test_a_ct_header(tmp_path: Path) -> None:
    header = read_header(write_series(tmp_path, shape=(3, 64, 64))[1])
    assert (header.modality, header.rows, header.columns) == ("CT", 64, 64)
    assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert header.frame_positions_mm[0] == pytest.approx((-108.8, -108.8, -55.0))
    assert header.frame_orientations == ((1, 0, 0, 0, 1, 0),)
    assert header.pixel_spacing_mm == (3.4, 3.4)
    assert (header.slice_thickness_mm, header.convolution_kernel) == (5.0, "H30s")
    assert header.patient_age_years == 65
    assert header.has_valid_uids


def test_an_enhanced_header_has_every_frame(tmp_path: Path) -> None:
    header = read_header(write_enhanced(tmp_path / "e.dcm", shape=(5, 32, 32), echo_times_ms=(20, 100)))
    assert header.number_of_frames == len(header.frame_positions_mm) == 10
    assert header.frame_orientations == ((1, 0, 0, 0, 1, 0),)
    assert header.frame_echo_times_ms == (20, 100) * 5
    assert (header.repetition_time_ms, header.echo_train_length) == (5000, 15)
    assert header.scanning_sequence == ("SE",)
    assert header.pixel_spacing_mm == (3.4, 3.4)


@pytest.mark.parametrize(
    ("age", "born", "studied", "years"),
    [
        ("065Y", "", "20260101", 65),
        ("006M", "", "", 0.5),
        ("010D", "", "", 10 / 365.25),
        ("000Y", "19960101", "20260101", 30),
        ("", "1996.01.01", "20260101", 30),
        ("***", "***", "20260101", None),
        ("", "20270101", "20260101", None),
        ("", "18000101", "20260101", None),
        ("99", "", "", 99),
    ],
)
def test_age(age: str, born: str, studied: str, years: float | None) -> None:
    ds = Dataset()
    ds.PatientAge, ds.PatientBirthDate, ds.StudyDate = age, born, studied
    found = header_of(ds).patient_age_years
    assert found == (None if years is None else pytest.approx(years, abs=0.01))


@pytest.mark.parametrize("keyword", sorted({"ImagePositionPatient", "PixelSpacing", "SliceThickness", "ImageType"}))
@pytest.mark.parametrize("value", [b"", b"x\\y ", b"1\\2", b"nan\\nan\\nan", b"1e400"])
def test_odd_values_become_none(tmp_path: Path, keyword: str, value: bytes) -> None:
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement

    def spoil(ds: Dataset, z: int) -> None:
        tag = Tag(tag_for_keyword(keyword) or 0)
        padded = value + b" " * (len(value) % 2)
        ds._dict[tag] = RawDataElement(tag, dictionary_VR(tag), len(padded), padded, 0, False, True)

    header = read_header(write_series(tmp_path, shape=(1, 8, 8), change=spoil)[0])
    read = {
        "ImagePositionPatient": header.frame_positions_mm[0],
        "PixelSpacing": header.pixel_spacing_mm,
        "SliceThickness": header.slice_thickness_mm,
    }
    allowed = {("PixelSpacing", b"1\\2"): (1.0, 2.0), ("SliceThickness", b"1\\2"): 1.0}
    if keyword in read:
        assert read[keyword] == allowed.get((keyword, value))
    json.dumps(to_json(header))


@pytest.mark.parametrize("name", ["Yamada^Tarou=山田^太郎=やまだ^たろう", "O'Neill^Zoë", "", "^^^^", "a" * 64])
def test_names_of_every_kind(tmp_path: Path, name: str) -> None:
    header = read_header(
        write_series(tmp_path, shape=(1, 8, 8), change=lambda ds, z: setattr(ds, "PatientName", name))[0]
    )
    assert header.patient_name == name


def test_a_wrong_character_set_loses_no_header(tmp_path: Path) -> None:
    def spoil(ds: Dataset, z: int) -> None:
        ds.SpecificCharacterSet = ""
        ds.PatientName = b"Tarou"
        ds.SpecificCharacterSet = "ISO 2022 IR 999"

    assert read_header(write_series(tmp_path, shape=(1, 8, 8), change=spoil)[0]).modality == "CT"


def test_what_is_not_dicom_is_corrupt_and_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for content in (b"", b"not an image", b"\0" * 128 + b"DICM", b"\0" * 4000):
        path.write_bytes(content)
        with pytest.raises(Corrupt, match=r"notes\.txt"):
            read_header(path)


@given(st.binary(max_size=600))
@example(b"\0\0\0\0OB\0\0")  # breaks off in the length of an element
def test_any_bytes_are_a_header_or_corrupt(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + content)
    with contextlib.suppress(Corrupt):  # no other exception
        read_header(path)


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=40))
def test_a_damaged_file_is_a_header_or_corrupt(
    tmp_path_factory: pytest.TempPathFactory, at: int, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        write_series(folder, shape=(1, 8, 8))
    whole = (folder / "0000.dcm").read_bytes()
    at %= len(whole)
    path = tmp_path_factory.getbasetemp() / "spoilt.dcm"
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    with contextlib.suppress(Corrupt):  # no other exception
        json.dumps(to_json(read_header(path)))


@pytest.mark.parametrize("wrong", ["", "1.2.03", "../../etc/passwd", "1.2." + "3" * 64, "1..2", "abc"])
def test_wrong_uids_are_recognised(tmp_path: Path, wrong: str) -> None:
    header = Header(sop_class_uid="1.2", sop_instance_uid="1.2", series_instance_uid="1.2", study_instance_uid=wrong)
    assert not header.has_valid_uids


def test_json_round_trip_and_version(tmp_path: Path) -> None:
    header = read_header(write_enhanced(tmp_path / "e.dcm", shape=(3, 8, 8), echo_times_ms=(20, 100)))
    document = json.loads(json.dumps(to_json(header)))
    assert from_json(document) == header
    with pytest.raises(Corrupt, match="version 99"):
        from_json({**document, "version": 99})


def test_scan_sorts_a_folder_and_lists_what_it_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "a", shape=(4, 8, 8))
    write_series(tmp_path / "b", shape=(3, 8, 8), study=uid(tmp_path / "a", "study"), modality="MR")
    (tmp_path / "a" / "README").write_text("no image")
    (tmp_path / "again.dcm").write_bytes((tmp_path / "a" / "0000.dcm").read_bytes())
    (tmp_path / ".hidden").write_text("x")
    catalog = scan(tmp_path)
    assert [len(s.files) for s in catalog.series] == [4, 3]
    assert [len(s) for s in catalog.studies().values()] == [2]
    assert sorted(left.reason.code for left in catalog.left_out) == ["duplicate", "not_dicom"]
    with pytest.raises(Rejected, match="does not exist"):
        scan(tmp_path / "nowhere")
