"""Key Object Selections: the key slices of a positive study, and the rejection notes that withdraw old objects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from highdicom import ko
from highdicom.sr import CodedConcept, DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_sr import codes, wording
from dicom_sr.evidence import Pictures, analysed_slices, key_slices
from dicom_sr.finish import MANUFACTURER, RESEARCH, finish
from dicom_sr.identity import device_uid, object_uid, series_uid, uid_of
from dicom_sr.request import RejectedObject, ResultRequest
from dicom_sr.sources import references, requests, require_one_study
from inference.result import ModelId
from inference.volume import SliceSource

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
RejectionTitle = Literal["quality", "patient-safety", "retention-expired"]
_TITLES: dict[RejectionTitle, Code] = {
    "quality": codes.REJECTED_QUALITY,
    "patient-safety": codes.REJECTED_SAFETY,
    "retention-expired": codes.RETENTION_EXPIRED,
}


def build_key_objects(request: ResultRequest, pictures: Sequence[Pictures]) -> Dataset | None:
    """Return the selection of a positive study's key slices and heatmap objects; None when it has no key slice."""
    finding, slices = wording.main_finding(request), analysed_slices(request)
    chosen = sorted(key_slices(finding)) if finding else []
    if not chosen or finding is None:
        return None
    evidence = {source.SOPInstanceUID: source for source in references(request.sources)}
    wanted = {slices[z].sop_instance_uid: evidence[slices[z].sop_instance_uid] for z in chosen}
    selected = [*wanted.values(), *references([shown.dataset for shown in pictures])]
    text = codes.FINDINGS[finding.label].text
    document = _selection(
        selected,
        title=codes.OF_INTEREST,
        text=f"{wording.DISCLAIMER} Key images for suspected {text}.",
        model=request.model,
        sop_instance_uid=object_uid(request, "key-objects", KEY_OBJECT_SELECTION),
        series_instance_uid=series_uid(request, "key-objects"),
        order=requests(request.sources[0]),
    )
    _name_frames(document, [slices[z] for z in chosen])
    finish(
        document,
        role="key-objects",
        source=request.sources[0],
        model=request.model,
        at=request.analysed_at,
        description=wording.companion_description(request, "key images"),
        series_number=wording.series_number(request),
    )
    return document


def _name_frames(document: Dataset, chosen: Sequence[SliceSource]) -> None:
    """Add the frame numbers to references to multi-frame sources, which highdicom's selection cannot give."""
    for item in document.ContentSequence:
        if item.ValueType != "IMAGE":
            continue
        reference = item.ReferencedSOPSequence[0]
        frames = [s.frame_number for s in chosen if s.sop_instance_uid == reference.ReferencedSOPInstanceUID]
        if frames and frames[0] is not None:
            reference.ReferencedFrameNumber = frames


def rejection_note(
    *,
    header: Dataset,
    rejected: Sequence[RejectedObject],
    model: ModelId,
    text: str,
    rejected_at: datetime,
    title: RejectionTitle,
) -> Dataset:
    """Return an IOCM rejection note (IHE RAD TF-3, 4.66): a key object selection that names the withdrawn objects."""
    if not rejected:
        raise ValueError("rejected: a rejection note must name at least one object")
    require_one_study([header])
    selected = []
    for item in rejected:
        reference = references([header])[0]
        reference.SOPClassUID, reference.SOPInstanceUID = item.sop_class_uid, item.sop_instance_uid
        reference.SeriesInstanceUID = item.series_instance_uid
        selected.append(reference)
    names = sorted(item.sop_instance_uid for item in rejected)
    document = _selection(
        selected,
        title=_TITLES[title],
        text=f"{RESEARCH}. {text}",
        model=model,
        sop_instance_uid=uid_of("rejection note", title, *names),
        series_instance_uid=uid_of("rejection note series", title, *names),
        order=requests(header),
    )
    finish(
        document,
        role="rejection-note",
        source=header,
        model=model,
        at=rejected_at,
        description=f"AI result withdrawn - {RESEARCH}",
        series_number=9000,
    )
    return document


def _selection(
    selected: Sequence[Dataset],
    *,
    title: Code,
    text: str,
    model: ModelId,
    sop_instance_uid: str,
    series_instance_uid: str,
    order: Sequence[Dataset],
) -> ko.KeyObjectSelectionDocument:
    observer = ObserverContext(
        observer_type=CodedConcept.from_code(codes.DEVICE),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=device_uid(model), name=f"{MANUFACTURER} {model.name}", manufacturer_name=MANUFACTURER,
            model_name=model.name,
        ),
    )  # fmt: skip
    document = ko.KeyObjectSelectionDocument(
        evidence=selected,
        content=ko.KeyObjectSelection(
            document_title=title, referenced_objects=selected, observer_device_context=observer, description=text
        ),
        series_instance_uid=series_instance_uid,
        series_number=1,
        sop_instance_uid=sop_instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        requested_procedures=list(order) or None,
    )
    for item in document.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE"):
            del item.ConceptNameCodeSequence  # highdicom writes a purpose, which TID 2010 forbids
    return document
