"""What falx takes over from the sources: patient, study, order, references. Always as UTF-8, never retyped.

Source headers come in every character set, with attributes missing that the standard demands. highdicom is therefore
never given patient data (it would refuse some, and log some): objects are built on bare references and
:func:`take_over` adds the patient and the study afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items

from dicom_sr.request import MixedSources

UTF8 = "ISO_IR 192"
_MUST_AGREE = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate")
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_OPTIONAL = (
    "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved",
    "DeidentificationMethod", "StudyDescription", "TimezoneOffsetFromUTC",
)  # fmt: skip
_TRIAL = (
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
)  # fmt: skip
_TRIAL_TYPE_1 = (
    ("ClinicalTrialSponsorName",),
    ("ClinicalTrialProtocolID",),
    ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
)
_TRIAL_TYPE_2 = ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName")
_ORDER = (
    "RequestedProcedureID", "RequestedProcedureDescription", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)  # fmt: skip
_SYNTAX = {
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "DS": re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?"),
}


def require_one_study(sources: Iterable[Dataset]) -> None:
    """Raise MixedSources, naming the attribute and never its value, unless all sources are of one patient and study."""
    seen: dict[str, str] = {}
    for source in sources:
        for keyword in _MUST_AGREE:
            value = _text(source, keyword).rstrip("^ ").casefold()
            if seen.setdefault(keyword, value) != value:
                raise MixedSources(
                    f"the source instances differ in {keyword}: the result is held; "
                    "have the sender correct the study and send it again"
                )
    if not seen.get("StudyInstanceUID"):
        raise MixedSources("StudyInstanceUID is missing from the source instances: the result cannot be filed")


def references(sources: Sequence[Dataset]) -> list[Dataset]:
    """Return one light dataset per source: what is needed to refer to it, and an empty patient."""
    found = []
    for source in sources:
        item = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"):
            setattr(item, keyword, source.get(keyword))
        for keyword in ("Rows", "Columns", "NumberOfFrames", "FrameOfReferenceUID"):
            if source.get(keyword):
                setattr(item, keyword, source.get(keyword))
        for keyword in _TYPE_2:
            setattr(item, keyword, None)
        found.append(item)
    return found


def take_over(source: Dataset, target: Dataset) -> None:
    """Write the source's patient and study into ``target``, in UTF-8, with what type 2 demands present.

    Values that break their VR's syntax (dates, times, ages) are left empty; names and ids are kept as they are.
    """
    target.SpecificCharacterSet = UTF8
    target.StudyInstanceUID = source.StudyInstanceUID
    for keyword in _TYPE_2:
        _put(target, keyword, _text(source, keyword))
    if target.PatientSex not in ("M", "F", "O", ""):
        target.PatientSex = ""
    for keyword in _OPTIONAL:
        if text := _text(source, keyword):
            _put(target, keyword, text)
    if target.get("PatientIdentityRemoved") == "YES" and not target.get("DeidentificationMethod"):
        target.DeidentificationMethod = "not stated by the sender"  # type 1C; PixelMed calls its absence an error
    if all(any(_text(source, keyword) for keyword in alternatives) for alternatives in _TRIAL_TYPE_1):
        for keyword in _TRIAL:
            if (text := _text(source, keyword)) or keyword in _TRIAL_TYPE_2:
                _put(target, keyword, text)


def requests(source: Dataset) -> list[Dataset]:
    """Return the Referenced Request items (0040,A370) that the source's order data allow; empty when there are none."""
    order = next(iter(source.get("RequestAttributesSequence") or ()), Dataset())
    accession_number = _text(source, "AccessionNumber")
    known = {keyword: _text(order, keyword) or _text(source, keyword) for keyword in _ORDER}
    if not (accession_number or known["RequestedProcedureID"]):
        return []
    item = Dataset()
    item.StudyInstanceUID = source.StudyInstanceUID
    item.ReferencedStudySequence = Items()
    _put(item, "AccessionNumber", accession_number)
    item.RequestedProcedureCodeSequence = Items()
    for keyword, text in known.items():
        _put(item, keyword, text)
    return [item]


def _text(source: Dataset, keyword: str) -> str:
    """Return an attribute as decoded text; empty when it is missing or cannot be read."""
    try:
        value = source.get(keyword)
    except (ValueError, UnicodeError):
        return ""
    if value is None:
        return ""
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return text.strip(" \0").encode("utf-8", "replace").decode()


def _put(target: Dataset, keyword: str, text: str) -> None:
    """Set an attribute without judging names and ids: a patient keeps the name the PACS knows."""
    vr = dictionary_VR(keyword)
    if vr in _SYNTAX and not _SYNTAX[vr].fullmatch(text):
        text = ""
    tag = tag_for_keyword(keyword)
    assert tag is not None  # keywords are those above
    target.add(DataElement(tag, vr, text, validation_mode=config.IGNORE))
