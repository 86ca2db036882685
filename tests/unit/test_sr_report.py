"""The content tree says what the task says: one answer whatever the outcome, regions, algorithm, remarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_sr.build import build_rejection_note, build_results
from dicom_sr.check import checked_bytes
from dicom_sr.identity import device_uid
from dicom_sr.request import Predecessor, RejectedObject, ResultRequest, UnusedSeries
from inference.result import Reason
from tests.fixtures_sr import AT, CT_MODEL, STUDY, headers, request, volume

SR_3D = "1.2.840.10008.5.1.4.1.1.88.34"
EARLIER = Predecessor(
    sop_class_uid=SR_3D,
    sop_instance_uid="2.25.11",
    series_instance_uid="2.25.12",
    series_description="AI ICH: not detected - RESEARCH USE ONLY",
    series_number=9000,
)


def report(of: ResultRequest) -> Dataset:
    """The SR as its reader gets it."""
    return dcmread(BytesIO(checked_bytes(build_results(of)[0].dataset)))


def walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def named(item: Dataset, code: str) -> list[Dataset]:
    """All items of a tree with that concept."""
    return [
        i for i in walk(item) if i.get("ConceptNameCodeSequence") and i.ConceptNameCodeSequence[0].CodeValue == code
    ]


def groups(document: Dataset, template: str) -> list[Dataset]:
    return [g for g in named(document, "125007") if g.ContentTemplateSequence[0].TemplateIdentifier == template]


def answer(document: Dataset, code: str = "1386000") -> str:
    (item,) = named(groups(document, "1501")[0], code)
    return str(item.ConceptCodeSequence[0].CodeMeaning)


@pytest.mark.parametrize(
    ("of", "description", "meaning"),
    [
        (request(True, size=64), "AI ICH: suspected - RESEARCH USE ONLY", "Present"),
        (request(False, size=64), "AI ICH: not detected - RESEARCH USE ONLY", "Absent"),
        (request(None, size=64, outcome="undetermined"), "AI ICH: not analysed - RESEARCH USE ONLY", "Undetermined"),
        (request(None, size=64, outcome="unsuitable"), "AI ICH: not analysed - RESEARCH USE ONLY", "Undetermined"),
        (request(None, size=64, outcome="failed"), "AI ICH: not analysed - RESEARCH USE ONLY", "Undetermined"),
        (
            request(False, size=64, possibly_incomplete=True),
            "AI ICH: not analysed - RESEARCH USE ONLY",
            "Undetermined",
        ),
        (request(True, size=64, possibly_incomplete=True), "AI ICH: suspected - RESEARCH USE ONLY", "Present"),
    ],
    ids=["positive", "negative", "undetermined", "unsuitable", "failed", "incomplete-negative", "incomplete-positive"],
)
def test_every_outcome_has_one_report_that_says_so(of: ResultRequest, description: str, meaning: str) -> None:
    made = build_results(of)
    assert [m.kind for m in made].count("SR") == 1
    assert made[0].kind == "SR"
    document = report(of)
    assert document.SeriesDescription == description
    assert answer(document) == meaning
    assert bool(groups(document, "1410")) == (meaning == "Present")
    assert len(groups(document, "1501")) == 1
    texts = [i.TextValue for i in named(document, "121106")]
    assert any("Research use only" in text for text in texts)
    assert any("synthetic heads" in text for text in texts)
    if meaning == "Undetermined":
        assert any("not a normal result" in text for text in texts)


def test_incomplete_series_never_says_absent_of_any_finding() -> None:
    document = report(request(False, size=64, possibly_incomplete=True))
    assert "272519000" not in {
        i.ConceptCodeSequence[0].CodeValue for i in walk(document) if i.get("ConceptCodeSequence")
    }


def test_a_result_with_a_reason_is_undetermined() -> None:
    of = request(False, size=64)
    assert of.result is not None
    reason = Reason(code="not_a_head", text="The volume does not look like a head.")
    document = report(replace(of, outcome="undetermined", result=replace(of.result, reason=reason)))
    assert answer(document) == "Undetermined"
    assert any("not_a_head" in i.TextValue for i in named(document, "121106"))


def test_mr_report_in_words_and_codes() -> None:
    document = report(request(True, modality="MR", size=64))
    assert document.SeriesDescription == "AI MR: abnormality suspected - RESEARCH USE ONLY"
    assert answer(document, "263654008") == "Present"
    assert document.SeriesNumber == 9500


def test_each_key_slice_has_a_region_with_probability_and_tracking() -> None:
    document = report(request(True))
    regions = groups(document, "1410")
    assert 1 <= len(regions) <= 5
    uids = {named(group, "112040")[0].UID for group in groups(document, "1501") + regions}
    assert len(uids) == 1 + len(regions)
    for group in regions:
        (scoord,) = [i for i in walk(group) if i.ValueType == "SCOORD"]
        assert scoord.GraphicType == "POLYLINE"
        assert scoord.GraphicData[:2] == scoord.GraphicData[-2:]
        (number,) = named(group, "122157")
        assert number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "%"
        assert 42 <= number.MeasuredValueSequence[0].NumericValue <= 100


def test_study_group_points_to_one_source_image_and_to_the_heatmap() -> None:
    made = build_results(request(True))
    (group,) = groups(made[0].dataset, "1501")
    assert len(named(group, "121112")) == 2  # the image, and the head on it that the number comes from
    (explanation,) = named(group, "130401")
    heatmap = next(m.dataset for m in made if m.kind == "SC")
    assert explanation.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == heatmap.SOPInstanceUID


@pytest.mark.parametrize(("calibrated", "code"), [(True, "122157"), (False, "111012")])
def test_number_is_a_probability_only_when_calibrated(calibrated: bool, code: str) -> None:
    document = report(request(True, size=64, finding={"calibrated": calibrated}))
    (number,) = [i for i in groups(document, "1501")[0].ContentSequence if i.ValueType == "NUM"]
    assert number.ConceptNameCodeSequence[0].CodeValue == code
    assert number.MeasuredValueSequence[0].NumericValue == 91.37


def test_a_missing_number_is_empty_and_says_why() -> None:
    document = report(request(size=64, outcome="unsuitable"))
    (number,) = named(document, "122157")
    assert len(number.MeasuredValueSequence) == 0
    assert number.NumericValueQualifierCodeSequence[0].CodeValue == "114007"


def test_equipment_observer_and_algorithm_name_the_same_model() -> None:
    """IHE AIR 6.5.3.1-1: the values agree wherever they stand."""
    document = report(request(True, size=64))
    equipment = document.ContributingEquipmentSequence[0]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    group = groups(document, "1501")[0]
    assert {equipment.Manufacturer, document.Manufacturer, named(document, "121014")[0].TextValue,
            named(group, "122405")[0].TextValue} == {"falx"}  # fmt: skip
    assert {equipment.ManufacturerModelName, document.ManufacturerModelName, named(document, "121015")[0].TextValue,
            named(group, "111001")[0].TextValue} == {CT_MODEL.name}  # fmt: skip
    assert {equipment.SoftwareVersions, document.SoftwareVersions, named(group, "111003")[0].TextValue} == {
        CT_MODEL.version
    }
    assert {equipment.DeviceUID, named(document, "121012")[0].UID} == {device_uid(CT_MODEL)}
    parameters = {i.TextValue.split("=")[0] for i in named(group, "111002")}
    assert parameters == {"model_sha256", "input_key", "operating_point", "threshold", "calibration"}


def test_kinds_of_haemorrhage_are_further_findings_with_site_and_number() -> None:
    document = report(request(True, size=64))
    (container,) = named(document, "C0034375")
    found = [i for i in container.ContentSequence if i.ValueType == "CODE"]
    assert len(found) == 3
    for item in found:
        assert named(item, "363698007")
        assert named(item, "122157")[0].MeasuredValueSequence[0].NumericValue == 20


def test_unused_series_are_listed_with_reasons() -> None:
    unused = UnusedSeries(
        series_instance_uid="1.2.3", description="Bone 1.0", reason=Reason(code="kernel", text="Bone kernel.")
    )
    texts = [i.TextValue for i in named(report(request(False, size=64, unused_series=(unused,))), "121106")]
    assert any("Bone 1.0" in text and "1.2.3" in text and "Bone kernel." in text for text in texts)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("present", [True, False])
def test_a_later_version_names_what_it_replaces(modality: str, present: bool) -> None:
    document = report(request(present, modality=modality, size=64, predecessor=EARLIER))
    assert "9000" in document.SeriesDescription
    assert "RESEARCH USE ONLY" in document.SeriesDescription
    assert document.SeriesNumber == 9010
    before = document.PredecessorDocumentsSequence[0]
    assert before.StudyInstanceUID == STUDY
    assert before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.11"


def test_flags_times_and_order() -> None:
    document = report(request(True, size=64, header={"RequestedProcedureID": "RP1"}))
    assert (document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert (document.ContentDate, document.ContentTime) == ("20261124", "030405.678900")
    order = document.ReferencedRequestSequence[0]
    assert (order.AccessionNumber, order.RequestedProcedureID) == ("A-0001", "RP1")
    assert "ReferencedRequestSequence" not in report(request(size=64, header={"AccessionNumber": ""}))


def test_times_follow_the_zone_of_the_sources() -> None:
    document = report(request(True, size=64, header={"TimezoneOffsetFromUTC": "+0530"}))
    assert (document.ContentDate, document.ContentTime) == ("20261124", "083405.678900")


def test_library_and_evidence_hold_the_analysed_series_and_stay_light_at_1500_slices() -> None:
    of = request(True, size=32, slices=1500)
    data = checked_bytes(build_results(of)[0].dataset)
    document = dcmread(BytesIO(data))
    assert len(named(named(document, "111028")[0], "260753009")) == 1500
    assert len(data) < 600_000


@pytest.mark.parametrize("slices", [1, 2])
def test_short_series(slices: int) -> None:
    for made in build_results(request(True, slices=slices, profile={"parametric_map": True})):
        checked_bytes(made.dataset)


@pytest.mark.parametrize(("kind", "last"), [("comprehensive-3d", "34"), ("comprehensive", "33"), ("enhanced", "22")])
def test_same_tree_in_every_sop_class(kind: str, last: str) -> None:
    document = report(request(True, size=64, profile={"sr": kind}))
    assert len(groups(document, "1410")) > 0
    assert document.SOPClassUID == f"1.2.840.10008.5.1.4.1.1.88.{last}"


def test_same_request_gives_the_same_bytes() -> None:
    def written(of: ResultRequest) -> list[bytes]:
        return [checked_bytes(made.dataset) for made in build_results(of)]

    options: dict[str, Any] = {"size": 64, "profile": {"parametric_map": True}}
    assert written(request(True, **options)) == written(request(True, **options))


def test_rejection_note_names_the_objects() -> None:
    note = build_rejection_note(
        header=headers(volume(slices=1, size=16))[0],
        rejected=[RejectedObject(sop_class_uid=SR_3D, sop_instance_uid="2.25.11", series_instance_uid="2.25.12")],
        model=CT_MODEL,
        text="Superseded by a later version.",
        rejected_at=AT,
    )
    document = dcmread(BytesIO(checked_bytes(note.dataset)))
    assert document.ConceptNameCodeSequence[0].CodeValue == "113001"
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.ReferencedSeriesSequence[0].SeriesInstanceUID == "2.25.12"
    assert evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.11"
