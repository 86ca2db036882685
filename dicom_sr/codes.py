"""Every coded concept that falx writes, in one place; none is written anywhere else.

A code is taken from pydicom's dictionary of PS3.16, or stands in ``ALLOWED`` with the reason why it may be used
(:mod:`tests.unit.test_sr_codes` holds the whole module against the dictionary). Codes of falx's own carry the private
designator ``99FALX``, which every object that uses one declares (0008,0110).
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

PRIVATE_SCHEME = "99FALX"

# document
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
MODALITY = Code("121139", "DCM", "Modality")
FRAME_OF_REFERENCE = Code("112227", "DCM", "Frame of Reference UID")
COMMENT = Code("121106", "DCM", "Comment")
SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
SOURCE = Code("260753009", "SCT", "Source")
VISUAL_EXPLANATION = Code("130401", "DCM", "Visual explanation")
DEVICE = Code("121007", "DCM", "Device")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

# what is measured, and the answers
PROBABILITY = Code("122157", "DCM", "Probability")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
UNDETERMINED = Code("373068000", "SCT", "Undetermined")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
MEASUREMENT_FAILURE = Code("114006", "DCM", "Measurement failure")
MEASUREMENT_NOT_ATTEMPTED = Code("114007", "DCM", "Measurement not attempted")
ACTIVATION = Code("130402", "DCM", "Class activation")

# key objects and rejection notes (CID 7010)
OF_INTEREST = Code("113000", "DCM", "Of Interest")
REJECTED_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
REJECTED_SAFETY = Code("113037", "DCM", "Rejected for Patient Safety Reasons")
RETENTION_EXPIRED = Code("113039", "DCM", "Data Retention Policy Expired")

# procedures, modalities, places
CT_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")
MR_PROCEDURE = Code("25056-3", "LN", "MRI unspecified body region")
HEAD_CT = Code("24725-4", "LN", "Head CT")
BRAIN_MRI = Code("24590-2", "LN", "Brain MRI")
CT = Code("CT", "DCM", "Computed Tomography")
MR = Code("MR", "DCM", "Magnetic Resonance")
HEAD = Code("69536005", "SCT", "Head")
BRAIN = Code("12738006", "SCT", "Brain")
INTRACRANIAL = Code("128319008", "SCT", "Intracranial structure")
VENTRICLE = Code("35764002", "SCT", "Brain ventricle")
SUBARACHNOID_SPACE = Code("33930006", "SCT", "Cranial Subarachnoid Space")
HEMORRHAGE = Code("50960005", "SCT", "Hemorrhage")

ALLOWED: dict[tuple[str, str], str] = {
    ("RFC5646", "en-US"): "language of the report; language tags stand in no dictionary of PS3.16",
    ("UMLS", "C0034375"): "TID 1500 row 12 names it; pydicom's dictionary holds no UMLS codes",
    (
        "SCT",
        "35486000",
    ): "SNOMED CT 'Subdural hemorrhage': seen with this name in independent public code; no DICOM CID",
    (
        "SCT",
        "82999001",
    ): "SNOMED CT 'Epidural hemorrhage': seen with this name in independent public code; no DICOM CID",
    ("99FALX", "FALX-VASCULAR"): "no code covers aneurysm, malformation, stenosis and thrombosis together",
    ("99FALX", "FALX-SVD"): "no safe public code for small vessel disease was found",
    ("99FALX", "FALX-WMI"): "no safe public code for white matter inflammation was found",
    ("99FALX", "FALX-ENCEPHALOMALACIA"): "no safe public code for encephalomalacia was found",
    ("99FALX", "FALX-HYDROCEPHALUS"): "no safe public code for hydrocephalus was found",
}


@dataclass(frozen=True, slots=True)
class FindingCode:
    """A label's finding and where it is; ``text`` is the label in a radiologist's words."""

    finding: Code
    site: Code
    text: str


FINDINGS: dict[str, FindingCode] = {
    "intracranial_haemorrhage": FindingCode(
        Code("1386000", "SCT", "Intracranial hemorrhage"), INTRACRANIAL, "intracranial haemorrhage"
    ),
    "intraparenchymal": FindingCode(HEMORRHAGE, BRAIN, "intraparenchymal haemorrhage"),
    "intraventricular": FindingCode(HEMORRHAGE, VENTRICLE, "intraventricular haemorrhage"),
    "subarachnoid": FindingCode(HEMORRHAGE, SUBARACHNOID_SPACE, "subarachnoid haemorrhage"),
    "subdural": FindingCode(Code("35486000", "SCT", "Subdural hemorrhage"), INTRACRANIAL, "subdural haemorrhage"),
    "extradural": FindingCode(Code("82999001", "SCT", "Epidural hemorrhage"), INTRACRANIAL, "extradural haemorrhage"),
    "abnormal": FindingCode(Code("263654008", "SCT", "Abnormal"), BRAIN, "abnormality"),
    "acute_stroke": FindingCode(Code("230690007", "SCT", "Cerebrovascular Accident or Stroke"), BRAIN, "acute stroke"),
    "mass": FindingCode(Code("4147007", "SCT", "Mass"), INTRACRANIAL, "mass"),
    "atrophy": FindingCode(Code("13331008", "SCT", "Atrophy"), BRAIN, "atrophy"),
    "vascular": FindingCode(
        Code("FALX-VASCULAR", PRIVATE_SCHEME, "Vascular abnormality"), INTRACRANIAL, "vascular abnormality"
    ),
    "small_vessel_disease": FindingCode(
        Code("FALX-SVD", PRIVATE_SCHEME, "Small vessel disease"), BRAIN, "small vessel disease"
    ),
    "white_matter_inflammation": FindingCode(
        Code("FALX-WMI", PRIVATE_SCHEME, "White matter inflammation"), BRAIN, "white matter inflammation"
    ),
    "encephalomalacia": FindingCode(
        Code("FALX-ENCEPHALOMALACIA", PRIVATE_SCHEME, "Encephalomalacia"), BRAIN, "encephalomalacia"
    ),
    "hydrocephalus": FindingCode(
        Code("FALX-HYDROCEPHALUS", PRIVATE_SCHEME, "Hydrocephalus"), VENTRICLE, "hydrocephalus"
    ),
}


def private_scheme() -> Dataset:
    """Return the Coding Scheme Identification item (0008,0110) that declares falx's own codes."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "falx findings without a public code"
    return item


def code_item(code: Code) -> Dataset:
    """Return a code as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
