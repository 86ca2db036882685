"""The report's measurement groups: TID 1501 for the study, TID 1410 for each key slice's region (ADR 0015).

Tried with OHIF 3.13: a group none of whose numbers has coordinates opens as an empty black viewport, so the study's
number is inferred from the head on its most telling slice, and further findings are evaluations, not groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom import sr
from highdicom.sr.value_types import (
    CodeContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code

from dicom_sr import codes, wording
from dicom_sr.evidence import Pictures, head_box, key_slices, peak_outline, shown_slice
from dicom_sr.finish import MANUFACTURER
from dicom_sr.identity import tracking_uid
from dicom_sr.request import ResultRequest
from inference.result import Finding
from inference.volume import SliceSource

_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_MODIFIER = sr.RelationshipTypeValues.HAS_CONCEPT_MOD
_PROPERTY = sr.RelationshipTypeValues.HAS_PROPERTIES
Group = sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations


def study_group(request: ResultRequest, pictures: Sequence[Pictures]) -> sr.MeasurementsAndQualitativeEvaluations:
    """Return the TID 1501 group with the task's answer; there is one whatever the outcome."""
    finding, label = wording.main_finding(request), wording.LABELS[request.purpose]
    code = codes.FINDINGS[label]
    shown = shown_slice(request, finding)
    present = None if finding is None else wording.presence(request, finding)
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(request, label, ""),
        finding_type=code.finding,
        finding_sites=[sr.FindingSite(anatomic_location=code.site)],
        algorithm_id=_algorithm(request, finding),
        measurements=[_study_number(request, finding, shown)],
        qualitative_evaluations=[sr.QualitativeEvaluation(name=code.finding, value=_presence_code(present))],
        source_images=None if shown is None else [sr.SourceImageForMeasurementGroup(*_reference(shown))],
    )
    group[0].ContentSequence.append(
        TextContentItem(name=codes.COMMENT, value=wording.headline(request), relationship_type=_CONTAINS)
    )
    group[0].ContentSequence.extend(_explanation(request, picture) for picture in pictures)
    return group


def region_groups(request: ResultRequest) -> list[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    """Return a TID 1410 group per key slice of a positive study whose heatmap has a peak there."""
    finding, result = wording.main_finding(request), request.result
    if finding is None or result is None or result.heatmap is None or not wording.presence(request, finding):
        return []
    code = codes.FINDINGS[finding.label]
    groups = []
    for z in key_slices(finding):
        outline = peak_outline(result.heatmap.values[z])
        if not outline:
            continue
        slice_source = result.heatmap.geometry.slices[z]
        place = f"{slice_source.sop_instance_uid}#{slice_source.frame_number or 1}"
        region = sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=np.array(outline),
            source_image=sr.SourceImageForRegion(*_reference(slice_source)),
        )
        groups.append(
            sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracking(request, finding.label, place, f" slice {z + 1}"),
                referenced_region=region,
                finding_type=code.finding,
                measurements=[_number(finding, finding.slices[z].probability)],
            )
        )
    return groups


def empty_missing_numbers(item: Dataset) -> None:
    """Empty the measured value of every number, at any depth, that is marked as missing.

    Done in the finished document, since highdicom cannot build one with an empty value (type 2 in PS3.3 C.18.1).
    """
    if item.get("ValueType") == "NUM" and "NumericValueQualifierCodeSequence" in item:
        item.MeasuredValueSequence = Items()
    for child in item.get("ContentSequence", ()):
        empty_missing_numbers(child)


def further_evaluations(request: ResultRequest) -> list[ContentItem]:
    """Return the model's further findings: present, absent or undetermined, with site and number."""
    return [_evaluation(request, finding) for finding in (request.result.findings[1:] if request.result else ())]


def _evaluation(request: ResultRequest, finding: Finding) -> ContentItem:
    code = codes.FINDINGS[finding.label]
    present = wording.presence(request, finding)
    item = CodeContentItem(name=code.finding, value=_presence_code(present), relationship_type=_CONTAINS)
    site = CodeContentItem(name=codes.FINDING_SITE, value=code.site, relationship_type=_MODIFIER)
    item.ContentSequence = ContentSequence([site])
    if finding.probability is not None:
        number = NumContentItem(
            name=_number_name(finding),
            value=wording.percent(finding.probability),
            unit=codes.PERCENT,
            relationship_type=_PROPERTY,
        )
        item.ContentSequence.append(number)
    return item


def _algorithm(request: ResultRequest, finding: Finding | None) -> sr.AlgorithmIdentification:
    """Return TID 4019: with these and the images, the number can be computed again."""
    model = request.model
    parameters = [f"model_sha256={model.weights_sha256}", f"input_key={request.input_key}"]
    if finding is not None:
        parameters += [f"operating_point={finding.operating_point}", f"threshold={finding.threshold:.6g}"]
        calibration = request.result.calibration_id if request.result and finding.calibrated else ""
        parameters.append(f"calibration={calibration or 'none'}")
    return sr.AlgorithmIdentification(
        name=model.name, version=model.version, manufacturer=MANUFACTURER, parameters=parameters
    )


def _tracking(request: ResultRequest, label: str, place: str, suffix: str = "") -> sr.TrackingIdentifier:
    study = request.sources[0].StudyInstanceUID
    return sr.TrackingIdentifier(
        uid=tracking_uid(study, label, request.model, place), identifier=f"{codes.FINDINGS[label].text}{suffix}"
    )


def _number_name(finding: Finding | None) -> Code:
    """A calibrated number is a probability, any other a certainty."""
    return codes.CERTAINTY if finding is not None and not finding.calibrated else codes.PROBABILITY


def _number(finding: Finding, probability: float) -> sr.Measurement:
    return sr.Measurement(name=_number_name(finding), value=wording.percent(probability), unit=codes.PERCENT)


def _study_number(request: ResultRequest, finding: Finding | None, shown: SliceSource | None) -> sr.Measurement:
    """Return the study's number in per cent, inferred from the head on the shown slice.

    Without a number the reason is coded, and :func:`empty_missing_numbers` takes the placeholder away.
    """
    probability = None if finding is None else finding.probability
    number = sr.Measurement(
        name=_number_name(finding),
        value=wording.percent(probability or 0.0),
        unit=codes.PERCENT,
        referenced_coordinates=None if shown is None else [_head_on(request, shown)],
    )
    if probability is None:
        failed = request.outcome in ("failed", "undetermined")
        reason = codes.MEASUREMENT_FAILURE if failed else codes.MEASUREMENT_NOT_ATTEMPTED
        number[0].NumericValueQualifierCodeSequence = [codes.code_item(reason)]
    return number


def _head_on(request: ResultRequest, shown: SliceSource) -> sr.CoordinatesForMeasurement:
    """Return the frame around the head on a slice; around the whole image when it was not read."""
    source = next(image for image in request.sources if image.SOPInstanceUID == shown.sop_instance_uid)
    box = (0, 0, source.Columns, source.Rows)
    if request.volume is not None:
        box = head_box(request.volume, request.volume.geometry.slices.index(shown)) or box
    left, top, right, bottom = box
    return sr.CoordinatesForMeasurement(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(
            [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], dtype=np.float64
        ),
        source_image=sr.SourceImageForRegion(*_reference(shown)),
        purpose=codes.SOURCE_OF_MEASUREMENT,
    )


def _presence_code(present: bool | None) -> Code:
    return codes.UNDETERMINED if present is None else codes.PRESENT if present else codes.ABSENT


def _reference(source: SliceSource) -> tuple[str, str, list[int] | None]:
    frames = None if source.frame_number is None else [source.frame_number]
    return source.sop_class_uid, source.sop_instance_uid, frames


def _explanation(request: ResultRequest, shown: Pictures) -> ContentItem:
    """Return the reference to the heatmap's key frames."""
    finding = wording.main_finding(request)
    frames = None
    if shown.frame_of is not None and finding is not None:
        frames = sorted(shown.frame_of[z] for z in key_slices(finding) if z in shown.frame_of) or None
    return ImageContentItem(
        name=codes.VISUAL_EXPLANATION,
        referenced_sop_class_uid=shown.dataset.SOPClassUID,
        referenced_sop_instance_uid=shown.dataset.SOPInstanceUID,
        referenced_frame_numbers=frames,
        relationship_type=_CONTAINS,
    )
