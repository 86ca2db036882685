"""Falx's own rules for an object, held against the bytes that will be sent (decision 10).

The validators of the test suite (dciodvfy, PixelMed) judge conformance; these rules are for the node, at run time, on
every object: one that breaks a rule is never queued.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr import codedict  # noqa: F401  fills the dictionary below
from pydicom.sr._concepts_dict import concepts

from dicom_sr import codes
from dicom_sr.finish import RESEARCH
from dicom_sr.sources import UTF8

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_SOURCE_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST = {"LO": 64, "SH": 16, "CS": 16, "DS": 16, "IS": 12, "UI": 64, "LT": 10240, "ST": 1024}
_FROM_SOURCE = {"PatientID", "StudyID", "AccessionNumber", "StudyDescription", "IssuerOfPatientID"}
_OWN_UIDS = ("SOPInstanceUID", "SeriesInstanceUID")
_TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber",
    "InstanceNumber", "SeriesDescription", "ContentDate", "ContentTime", "SpecificCharacterSet", "Manufacturer",
    "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "ContributingEquipmentSequence",
)  # fmt: skip
_TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber")
_TREE = ("ValueType", "ConceptNameCodeSequence", "ContentSequence", "CurrentRequestedProcedureEvidenceSequence")
_TYPE_1_OF: dict[str, tuple[str, ...]] = {
    "SR": (*_TREE, "CompletionFlag", "VerificationFlag", "PreliminaryFlag"),
    "KO": _TREE,
    "OT": ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
}


class NotConformant(ValueError):
    """An object breaks a rule; the text names the attribute or reference, never patient data."""


def checked_bytes(dataset: Dataset) -> bytes:
    """Return the object as Part 10 bytes, after reading them back and holding them against every rule.

    Raises
    ------
    NotConformant
        Naming every rule that is broken.
    """
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    written = dcmread(BytesIO(buffer.getvalue()))
    faults = [fault for rule in _RULES for fault in rule(written)]
    if faults:
        raise NotConformant(f"{written.get('SeriesDescription', 'object')}: " + "; ".join(faults))
    return buffer.getvalue()


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    """Yield every item of every sequence of that name, at any depth."""
    for element in _elements(dataset):
        if element.keyword == keyword:
            yield from element.value


def _required(dataset: Dataset) -> Iterator[str]:
    for keyword in (*_TYPE_1, *_TYPE_1_OF.get(str(dataset.get("Modality", "")), ())):
        if keyword not in dataset or dataset[keyword].is_empty:
            yield f"{keyword} is missing or empty"
    for keyword in _TYPE_2:
        if keyword not in dataset:
            yield f"{keyword} is missing"


def _uids(dataset: Dataset) -> Iterator[str]:
    """Ours must be valid; those of the sources are repeated as the PACS knows them, if they can be UIDs at all."""
    for keyword in _OWN_UIDS:
        if not _UID.fullmatch(str(dataset.get(keyword, ""))):
            yield f"{keyword} is no valid UID"
    for element in _elements(dataset):
        if element.VR == "UI" and not element.is_empty:
            values = [element.value] if isinstance(element.value, str) else element.value
            if not all(_SOURCE_UID.fullmatch(value) for value in values):
                yield f"{element.keyword} holds characters that no UID has"


def _sizes(dataset: Dataset) -> Iterator[str]:
    for element in _elements(dataset):
        longest = _LONGEST.get(element.VR)
        if longest is None or element.keyword in _FROM_SOURCE or element.is_empty:
            continue
        values = element.value if element.VM > 1 else [element.value]
        if any(len(str(getattr(value, "original_string", value))) > longest for value in values):
            yield f"{element.keyword} is longer than {longest} characters"


def _one_study(dataset: Dataset) -> Iterator[str]:
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PredecessorDocumentsSequence"):
        if any(item.StudyInstanceUID != dataset.get("StudyInstanceUID") for item in dataset.get(keyword, ())):
            yield f"{keyword} names another study"
    if "PertinentOtherEvidenceSequence" in dataset:
        yield "PertinentOtherEvidenceSequence: evidence of another study"


def _evidence(dataset: Dataset) -> Iterator[str]:
    """Every object the tree points to must stand in the evidence, or a PACS cannot find it."""
    named = {
        reference.ReferencedSOPInstanceUID
        for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", ())
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }
    for item in _items(dataset, "ContentSequence"):
        for reference in item.get("ReferencedSOPSequence", ()):
            if reference.ReferencedSOPInstanceUID not in named:
                yield f"{reference.ReferencedSOPInstanceUID} is referenced but is not in the evidence"


def _research(dataset: Dataset) -> Iterator[str]:
    if dataset.get("ContentQualification") != "RESEARCH":
        yield "ContentQualification is not RESEARCH"
    if RESEARCH not in str(dataset.get("SeriesDescription", "")):
        yield f"SeriesDescription does not say {RESEARCH}"
    if dataset.get("Modality") in ("SR", "KO"):
        texts = [item.TextValue for item in dataset.get("ContentSequence", ()) if "TextValue" in item]
        texts += [item.TextValue for item in _items(dataset, "ContentSequence") if "TextValue" in item]
        if not any(RESEARCH in text.upper() for text in texts):
            yield f"no text of the content tree says {RESEARCH}"
    elif "PixelData" in dataset and dataset.get("BurnedInAnnotation") != "YES":
        yield "BurnedInAnnotation is not YES: the pictures must carry the words RESEARCH"
    if dataset.get("VerificationFlag", "UNVERIFIED") != "UNVERIFIED":
        yield "VerificationFlag must be UNVERIFIED"


def _codes(dataset: Dataset) -> Iterator[str]:
    declared = {item.CodingSchemeDesignator for item in dataset.get("CodingSchemeIdentificationSequence", ())}
    for item in (found for element in _elements(dataset) if element.VR == "SQ" for found in element.value):
        if "CodeValue" not in item:
            continue
        scheme, value = item.CodingSchemeDesignator, item.CodeValue
        if not is_known(scheme, value):
            yield f"code ({value}, {scheme}) is in no table"
        if scheme == codes.PRIVATE_SCHEME and scheme not in declared:
            yield f"coding scheme {scheme} is not declared"


def is_known(scheme: str, value: str) -> bool:
    """Whether a code is in pydicom's dictionary of PS3.16 or on falx's list of allowed codes."""
    if (scheme, value) in codes.ALLOWED:
        return True
    by_keyword: dict[str, Any] = concepts.get(scheme, {})
    return any(value in meanings for meanings in by_keyword.values())


def _frames(dataset: Dataset) -> Iterator[str]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame is not None and len(per_frame) != dataset.get("NumberOfFrames"):
        yield f"{dataset.get('NumberOfFrames')} frames, but {len(per_frame)} per-frame items"


def _charset(dataset: Dataset) -> Iterator[str]:
    if dataset.get("SpecificCharacterSet") != UTF8:
        yield f"SpecificCharacterSet is not {UTF8}"


_RULES: tuple[Callable[[Dataset], Iterator[str]], ...] = (
    _required, _uids, _sizes, _one_study, _evidence, _research, _codes, _frames, _charset,
)  # fmt: skip
