"""A whole-body CT by the offline way: the head is found, analysed, and reported on its own instances."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from fixtures_bodies import head_ct, whole_body

from inference.engine import Engine, shipped
from inference.training.dicom_writer import SeriesHeader, write_series
from inference.volume import Volume
from node.catalog import scan
from node.config import ModelSettings
from node.offline import SeriesAnswer, infer_folder

PURPOSE = "ct_haemorrhage"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine({PURPOSE: shipped(PURPOSE)}, device="cpu", threads=1)


def answer(engine: Engine, volume: Volume, folder: Path, part: str) -> SeriesAnswer:
    extra = {"BodyPartExamined": part, "SeriesDescription": "Trauma native", "ProtocolName": "Trauma"}
    extra["StudyDescription"] = "CT"
    header = SeriesHeader(key=part, modality="CT", age_years=60, slice_thickness_mm=5.0, extra=extra)
    write_series(volume, header, folder / "in")
    answers = infer_folder(
        scan(folder / "in", lambda _: None),
        folder / "out",
        engine,
        {PURPOSE: ModelSettings(heatmap_for_negatives=True)},
        {PURPOSE: "Model trained on synthetic heads."},
    )
    assert len(answers) == 1
    return answers[0]


def texts(report: pydicom.Dataset) -> list[str]:
    return [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]


@pytest.mark.timeout(900)  # two inferences on a busy machine
def test_the_head_of_a_whole_body_is_analysed(engine: Engine, tmp_path: Path) -> None:
    head = head_ct()
    alone = answer(engine, head, tmp_path / "head", "HEAD")
    found = answer(engine, whole_body(head), tmp_path / "body", "WHOLEBODY")
    assert (alone.state, found.state) == ("analysed", "analysed"), found.reason
    assert found.findings[0].probability == pytest.approx(alone.findings[0].probability, abs=0.1)

    uids = {source.sop_instance_uid for source in head.geometry.slices}
    reported = [one.sop_instance_uid for one in found.findings[0].slices]
    assert sum(uid in uids for uid in reported) >= len(uids) - 8
    assert len(reported) < len(uids) + 10

    objects = [pydicom.dcmread(path) for path in found.objects]
    report = next(ds for ds in objects if ds.Modality == "SR")
    assert any("slices left out as holding no brain" in text for text in texts(report))
    heat = next(
        ds for ds in objects if ds.Modality == "OT" or "SecondaryCapture" in ds.SOPClassUID.name.replace(" ", "")
    )
    assert 1 <= int(heat.get("NumberOfFrames", 1)) <= len(reported)
    referred = {item.value for item in report.iterall() if item.keyword == "ReferencedSOPInstanceUID"}
    read = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (tmp_path / "body/in").iterdir()}
    of_images = referred & read
    assert of_images
    assert of_images <= set(reported)
