"""Heatmaps: the source's geometry, the words in the pixels, no patient in them; key objects and parametric map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_sr.build import build_results
from dicom_sr.check import checked_bytes
from dicom_sr.preview import png, render_slice, window_of
from dicom_sr.request import ResultObject, ResultRequest
from tests.fixtures_sr import ENHANCED_CT_CLASS, FRAME_OF_REFERENCE, request


def made(of: ResultRequest, kind: str) -> list[Dataset]:
    """The objects of a kind, as their reader gets them."""
    objects: Sequence[ResultObject] = build_results(of)
    return [dcmread(BytesIO(checked_bytes(o.dataset))) for o in objects if o.kind == kind]


def test_multi_frame_heatmap_lies_on_the_sources_geometry() -> None:
    of = request(True, size=96)
    (heatmap,) = made(of, "SC")
    assert heatmap.pixel_array.shape == (32, 96, 96, 3)
    assert heatmap.FrameOfReferenceUID == FRAME_OF_REFERENCE
    assert heatmap.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
    shared = heatmap.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [1.8, 1.8]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    assert np.allclose(orientation, [1, 0, 0, 0, np.cos(np.deg2rad(10)), -np.sin(np.deg2rad(10))])
    assert of.volume is not None
    for z, frame in enumerate(heatmap.PerFrameFunctionalGroupsSequence):
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        expected = of.volume.geometry.affine_lps_mm @ (z, 0, 0, 1)
        assert np.allclose(position, expected[:3], atol=1e-4)


def test_frames_follow_the_sources_instance_numbers() -> None:
    of = request(True, size=64)
    for number, source in enumerate(reversed(of.sources), 1):
        source.InstanceNumber = number
    (heatmap,) = made(of, "SC")
    places = [
        float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in heatmap.PerFrameFunctionalGroupsSequence
    ]
    assert places == sorted(places, reverse=True)
    assert list(heatmap.SliceLocationVector) == [5.0 * z for z in reversed(range(32))]


def test_irregular_spacing_is_kept() -> None:
    of = request(True, slices=4, size=64)
    assert of.volume is not None
    assert of.result is not None
    assert of.result.heatmap is not None
    place = replace(of.volume.geometry, positions_mm=(0.0, 5.0, 20.0, 25.0))
    of = replace(
        of,
        volume=replace(of.volume, geometry=place),
        result=replace(of.result, heatmap=replace(of.result.heatmap, geometry=place)),
    )
    (heatmap,) = made(of, "SC")
    points = [f.PlanePositionSequence[0].ImagePositionPatient for f in heatmap.PerFrameFunctionalGroupsSequence]
    steps = np.linalg.norm(np.diff(np.array(points, dtype=float), axis=0), axis=1)
    assert np.allclose(steps, [5, 15, 5], atol=1e-4)


def test_pixels_say_research_and_hold_no_patient() -> None:
    of = request(True, size=256)
    (heatmap,) = made(of, "SC")
    assert of.volume is not None
    assert heatmap.BurnedInAnnotation == "YES"
    plain = np.asarray(render_slice(of.volume, None, 0, overlay=False))
    text = heatmap.pixel_array[0].astype(int) - plain
    rows, columns = np.nonzero(np.abs(text).max(axis=2) > 60)
    assert rows.size > 200  # words
    assert rows.min() > 0.85 * 256  # at the bottom edge
    assert columns.min() > 256 * 0.15  # away from the corners, where viewers write
    assert columns.max() < 256 * 0.85
    anonymous = made(replace(of, sources=tuple(_renamed(source) for source in of.sources)), "SC")[0]
    assert anonymous.PixelData == heatmap.PixelData


def _renamed(source: Dataset) -> Dataset:
    other = Dataset()
    other.update(source)
    other.PatientName, other.PatientID, other.PatientBirthDate = "Other^Name", "X", "20000101"
    return other


def test_long_series_shows_key_slices_and_their_neighbours() -> None:
    (heatmap,) = made(request(True, slices=120, size=32), "SC")
    assert 5 <= heatmap.NumberOfFrames <= 25
    assert len(heatmap.SourceImageSequence) == heatmap.NumberOfFrames


def test_single_frame_fallback_has_one_object_per_key_slice() -> None:
    frames = made(request(True, size=64, profile={"heatmap": "single-frame"}), "SC")
    assert 1 <= len(frames) <= 5
    assert len({f.SeriesInstanceUID for f in frames}) == 1
    assert [f.InstanceNumber for f in frames] == list(range(1, len(frames) + 1))
    assert all(f.pixel_array.shape == (64, 64, 3) for f in frames)


@pytest.mark.parametrize(
    ("of", "kinds"),
    [
        (request(True, size=32, profile={"heatmap": "none"}), "SR KO"),
        (request(True, size=32, profile={"key_objects": False}), "SR SC"),
        (request(True, size=32, profile={"parametric_map": True}), "SR KO SC PM"),
        (request(False, size=32), "SR"),
        (request(False, size=32, profile={"heatmap_for_negatives": True}), "SR SC"),
        (request(None, size=32, outcome="undetermined"), "SR"),
        (request(None, size=32, outcome="failed"), "SR"),
    ],
)
def test_profile_and_outcome_choose_the_objects_in_the_order_they_are_sent(of: ResultRequest, kinds: str) -> None:
    assert " ".join(dict.fromkeys(o.kind for o in build_results(of))) == kinds


def test_enhanced_source_is_referenced_by_frame() -> None:
    of = request(True, size=64, enhanced=True)
    (heatmap,), (selection,) = made(of, "SC"), made(of, "KO")
    (source,) = heatmap.SourceImageSequence
    assert source.ReferencedSOPClassUID == ENHANCED_CT_CLASS
    assert list(source.ReferencedFrameNumber) == list(range(1, 33))
    image = next(i for i in selection.ContentSequence if i.ValueType == "IMAGE").ReferencedSOPSequence[0]
    assert len(image.ReferencedFrameNumber) >= 1


def test_parametric_map_holds_the_same_array() -> None:
    of = request(True, size=64, profile={"parametric_map": True})
    (parametric,) = made(of, "PM")
    assert of.result is not None
    assert of.result.heatmap is not None
    heights = [
        float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in parametric.PerFrameFunctionalGroupsSequence
    ]  # highdicom orders the frames by position
    assert np.array_equal(parametric.pixel_array[np.argsort(heights)], of.result.heatmap.values)
    assert parametric.ContentQualification == "RESEARCH"
    mapping = parametric.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.RealWorldValueSlope == 1


def test_overlay_colours_only_what_is_warm() -> None:
    of = request(True, size=64)
    assert of.volume is not None
    assert of.result is not None
    plain = np.asarray(render_slice(of.volume, of.result.heatmap, 17, overlay=False)).astype(int)
    warm = np.asarray(render_slice(of.volume, of.result.heatmap, 17, overlay=True)).astype(int)
    assert of.result.heatmap is not None
    changed = np.abs(warm - plain).max(axis=2) > 1
    assert changed.any()
    assert not changed[of.result.heatmap.values[17] < 0.25].any()
    assert Image.open(BytesIO(png(render_slice(of.volume, None, 0, overlay=False)))).size == (64, 64)


def test_windows() -> None:
    ct, mr = request(size=32).volume, request(modality="MR", size=32).volume
    assert ct is not None
    assert mr is not None
    assert window_of(ct) == (40.0, 80.0)
    centre, width = window_of(mr)
    assert 0 < centre < 2000
    assert width > 0
