"""The structured report: TID 1500 with the answer, the key slices' regions, and what people must know (ADR 0015)."""

from __future__ import annotations

from collections.abc import Sequence

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
from dicom_sr.evidence import Pictures
from dicom_sr.finish import MANUFACTURER, finish
from dicom_sr.groups import empty_missing_numbers, further_evaluations, region_groups, study_group
from dicom_sr.identity import device_uid, object_uid, series_uid
from dicom_sr.request import ResultRequest, SrKind
from dicom_sr.sources import references, requests

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
        imaging_measurements=[study_group(request, pictures), *region_groups(request)],
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
    empty_missing_numbers(document)
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
    """Return TID 1500's Qualitative Evaluations: further findings, and the remarks for people."""
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    texts = [
        TextContentItem(name=codes.COMMENT, value=text, relationship_type=_CONTAINS)
        for text in wording.comments(request)
    ]
    container.ContentSequence = ContentSequence([*further_evaluations(request), *texts])
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
