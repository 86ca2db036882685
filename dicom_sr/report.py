"""The structured report: TID 1500, a TID 1501 group per finding, a TID 1410 region per key slice (ADR 0015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from highdicom import sr
from highdicom.sr.value_types import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_sr import codes, wording
from dicom_sr.evidence import key_slices, peak_outline
from dicom_sr.finish import MANUFACTURER, finish
from dicom_sr.identity import device_uid, object_uid, series_uid, tracking_uid
from dicom_sr.request import ResultRequest, SrKind
from dicom_sr.sources import references, requests
from inference.result import Finding
from inference.volume import SliceSource

_CLASSES: dict[SrKind, type[sr.Comprehensive3DSR | sr.ComprehensiveSR | sr.EnhancedSR]] = {
    "comprehensive-3d": sr.Comprehensive3DSR,
    "comprehensive": sr.ComprehensiveSR,
    "enhanced": sr.EnhancedSR,
}
_SOP_CLASSES: dict[SrKind, str] = {
    "comprehensive-3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}
_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_ACQUISITION = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """A heatmap object the report points to: its dataset, and its frame (1-based) per source slice.

    ``frame_of`` is None for a single-frame object, which shows the slice ``index``.
    """

    dataset: Dataset
    frame_of: dict[int, int] | None
    index: int = 0

    def shows(self, z: int) -> bool:
        """Whether a slice is in the object."""
        return z == self.index if self.frame_of is None else z in self.frame_of


def build_report(request: ResultRequest, pictures: Sequence[Pictures]) -> Dataset:
    """Return the SR for one task.

    Parameters
    ----------
    pictures
        Heatmap objects for the same destination; the report shows them as the visual explanation of its finding.
    """
    evidence = references(request.sources)
    is_ct = request.purpose == "ct_haemorrhage"
    report = sr.MeasurementReport(
        observation_context=_observer(request),
        procedure_reported=codes.CT_PROCEDURE if is_ct else codes.MR_PROCEDURE,
        imaging_measurements=[*_study_groups(request, pictures), *_region_groups(request)],
        title=codes.IMAGING_MEASUREMENT_REPORT,
    )
    content = report[0].ContentSequence
    if request.result is not None:
        content.insert(len(content) - 1, _image_library(request, evidence))
    content.append(_remarks(request))
    sop_class = _SOP_CLASSES[request.profile.sr]
    order = requests(request.sources[0])
    document = _CLASSES[request.profile.sr](
        evidence=[*evidence, *references([shown.dataset for shown in pictures])],
        content=report[0],
        series_instance_uid=series_uid(request, "result"),
        series_number=wording.series_number(request),
        sop_instance_uid=object_uid(request, "result", sop_class),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        performed_procedure_codes=[codes.HEAD_CT if is_ct else codes.BRAIN_MRI],  # TID 1500 has no head (CID 100)
        requested_procedures=order or None,
        previous_versions=_predecessors(request) or None,
    )
    if any(item.scheme_designator == codes.PRIVATE_SCHEME for item in _finding_codes(request)):
        document.CodingSchemeIdentificationSequence = [codes.private_scheme()]
    finish(
        document,
        role="result",
        source=request.sources[0],
        model=request.model,
        at=request.analysed_at,
        description=wording.report_description(request),
        series_number=wording.series_number(request),
    )
    return document


def _observer(request: ResultRequest) -> sr.ObservationContext:
    model = request.model
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(model),
        name=f"{MANUFACTURER} {model.name}",
        manufacturer_name=MANUFACTURER,
        model_name=model.name,
        serial_number=model.weights_sha256[:16],
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=sr.CodedConcept.from_code(codes.DEVICE), observer_identifying_attributes=attributes
        )
    )


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


def _study_groups(
    request: ResultRequest, pictures: Sequence[Pictures]
) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    """Return one TID 1501 group per finding; one that says "undetermined" when the model gave none."""
    findings = request.result.findings if request.result else ()
    if not findings:
        return [_group(request, wording.LABELS[request.purpose], None)]
    groups = [_group(request, finding.label, finding) for finding in findings]
    for shown in pictures:
        groups[0][0].ContentSequence.append(_explanation(request, shown))
    return groups


def _group(request: ResultRequest, label: str, finding: Finding | None) -> sr.MeasurementsAndQualitativeEvaluations:
    code = codes.FINDINGS[label]
    shown = _shown_slice(request, finding)
    present = None if finding is None else wording.presence(request, finding)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(request, label, ""),
        finding_type=code.finding,
        finding_sites=[sr.FindingSite(anatomic_location=code.site)],
        algorithm_id=_algorithm(request, finding),
        measurements=_probability(finding, None if finding is None else finding.probability),
        qualitative_evaluations=[sr.QualitativeEvaluation(name=code.finding, value=_presence_code(present))],
        source_images=None if shown is None else [sr.SourceImageForMeasurementGroup(*_reference(shown))],
    )


def _region_groups(request: ResultRequest) -> list[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
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
                finding_sites=[sr.FindingSite(anatomic_location=code.site)],
                measurements=_probability(finding, finding.slices[z].probability),
            )
        )
    return groups


def _tracking(request: ResultRequest, label: str, place: str, suffix: str = "") -> sr.TrackingIdentifier:
    study = request.sources[0].StudyInstanceUID
    return sr.TrackingIdentifier(
        uid=tracking_uid(study, label, request.model, place), identifier=f"{codes.FINDINGS[label].text}{suffix}"
    )


def _probability(finding: Finding | None, probability: float | None) -> list[sr.Measurement]:
    """Return the number in per cent: a probability when calibrated, else a certainty; none when there is none."""
    if finding is None or probability is None:
        return []
    name = codes.PROBABILITY if finding.calibrated else codes.CERTAINTY
    return [sr.Measurement(name=name, value=wording.percent(probability), unit=codes.PERCENT)]


def _presence_code(present: bool | None) -> Code:
    return codes.UNDETERMINED if present is None else codes.PRESENT if present else codes.ABSENT


def _shown_slice(request: ResultRequest, finding: Finding | None) -> SliceSource | None:
    """Return the one image a group points to: a viewer opens the report on it."""
    slices = analysed_slices(request)
    if not slices:
        first = request.sources[0]
        return _source_of(first) if first.get("Rows") else None
    chosen = key_slices(finding) if finding else ()
    return slices[chosen[0] if chosen else len(slices) // 2]


def analysed_slices(request: ResultRequest) -> tuple[SliceSource, ...]:
    """Return the analysed slices in z order; empty when nothing was analysed."""
    if request.volume is not None:
        return request.volume.geometry.slices
    if request.result is None:
        return ()
    if request.result.heatmap is not None:
        return request.result.heatmap.geometry.slices
    return tuple(_source_of(source) for source in request.sources)


def _source_of(source: Dataset) -> SliceSource:
    frames = int(source.get("NumberOfFrames") or 0)
    return SliceSource(
        sop_instance_uid=source.SOPInstanceUID,
        sop_class_uid=source.SOPClassUID,
        frame_number=max(1, frames // 2) if frames else None,
    )


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


def _image_library(request: ResultRequest, evidence: Sequence[Dataset]) -> ContentItem:
    """Return TID 1600 for the analysed series: shared descriptors once, then bare references, light at any length."""
    library = ContainerContentItem(name=codes.IMAGE_LIBRARY, relationship_type=_CONTAINS)
    group = ContainerContentItem(name=codes.IMAGE_LIBRARY_GROUP, relationship_type=_CONTAINS)
    modality = codes.CT if request.purpose == "ct_haemorrhage" else codes.MR
    items: list[ContentItem] = [CodeContentItem(name=codes.MODALITY, value=modality, relationship_type=_ACQUISITION)]
    if frame_of_reference := evidence[0].get("FrameOfReferenceUID"):
        items.append(
            UIDRefContentItem(name=codes.FRAME_OF_REFERENCE, value=frame_of_reference, relationship_type=_ACQUISITION)
        )
    for image in evidence:
        items.append(
            ImageContentItem(
                name=codes.SOURCE,
                referenced_sop_class_uid=image.SOPClassUID,
                referenced_sop_instance_uid=image.SOPInstanceUID,
                relationship_type=_CONTAINS,
            )
        )
    group.ContentSequence = ContentSequence(items)
    library.ContentSequence = ContentSequence([group])
    return library


def _remarks(request: ResultRequest) -> ContentItem:
    """Return TID 1500's Qualitative Evaluations with the remarks for people."""
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            TextContentItem(name=codes.COMMENT, value=text, relationship_type=_CONTAINS)
            for text in wording.comments(request)
        ]
    )
    return container


def _predecessors(request: ResultRequest) -> list[Dataset]:
    if request.predecessor is None:
        return []
    before = Dataset()
    before.StudyInstanceUID = request.sources[0].StudyInstanceUID
    before.SeriesInstanceUID = request.predecessor.series_instance_uid
    before.SOPClassUID = request.predecessor.sop_class_uid
    before.SOPInstanceUID = request.predecessor.sop_instance_uid
    return [before]


def _finding_codes(request: ResultRequest) -> list[Code]:
    findings = request.result.findings if request.result else ()
    return [codes.FINDINGS[finding.label].finding for finding in findings]
