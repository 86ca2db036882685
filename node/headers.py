"""The header of one received instance as a plain value: what the rules, the worklist and the ledger need of it.

Reads leniently, since headers in the field are odd: a value that is missing or makes no sense becomes None (a text:
""), never an exception. Knows no pixels, no database. Patient fields are for the worklist and are never logged.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from inference.dicom_values import VALUE_FAULTS, age_years, integer, number, text, texts
from inference.frames import frames_of
from node.errors import Corrupt

Vector3 = tuple[float, float, float]
Vector6 = tuple[float, float, float, float, float, float]
HEADER_VERSION = 1
_UNREADABLE = (*VALUE_FAULTS, InvalidDicomError, OSError, EOFError)
_UID = re.compile(r"^(0|[1-9]\d*)(\.(0|[1-9]\d*))+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One instance's header. Lengths in mm, times in ms, angles in degrees; texts are "" and numbers None when absent.

    ``frame_positions_mm`` and ``frame_orientations`` have one entry for a single-frame image and one a frame for an
    enhanced one (None where a frame has none); of acquisition values that vary by frame, the ``frame_*`` tuples hold
    each frame's, the plain fields the first frame's.
    """

    sop_instance_uid: str = ""
    series_instance_uid: str = ""
    study_instance_uid: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    frame_of_reference_uid: str = ""
    modality: str = ""
    manufacturer: str = ""
    model_name: str = ""
    study_description: str = ""
    series_description: str = ""
    protocol_name: str = ""
    body_part: str = ""
    image_comments: str = ""
    image_type: tuple[str, ...] = ()
    photometric_interpretation: str = ""
    samples_per_pixel: int | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int | None = None
    frame_positions_mm: tuple[Vector3 | None, ...] = ()
    frame_orientations: tuple[Vector6 | None, ...] = ()
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    spacing_between_slices_mm: float | None = None
    reconstruction_diameter_mm: float | None = None
    gantry_tilt_degrees: float | None = None
    convolution_kernel: str = ""
    contrast_agent: str = ""
    lossy: bool = False
    derivation_description: str = ""
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    sequence_name: str = ""
    mr_acquisition_type: str = ""
    echo_time_ms: float | None = None
    frame_echo_times_ms: tuple[float | None, ...] = ()
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_degrees: float | None = None
    echo_train_length: int | None = None
    b_value: float | None = None
    frame_b_values: tuple[float | None, ...] = ()
    frame_types: tuple[str, ...] = ()
    frame_stacks: tuple[str, ...] = ()
    acquisition_number: int | None = None
    instance_number: int | None = None
    temporal_position: int | None = None
    series_number: int | None = None
    patient_age_years: float | None = None
    patient_name: str = ""
    patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    accession_number: str = ""
    requested_priority: str = ""

    @property
    def has_valid_uids(self) -> bool:
        """Whether SOP class, instance, series and study UIDs follow PS3.5 9.1, so that a report can refer to them."""
        uids = (self.sop_class_uid, self.sop_instance_uid, self.series_instance_uid, self.study_instance_uid)
        return all(len(uid) <= 64 and _UID.match(uid) for uid in uids)


def read_header(path: Path) -> Header:
    """Read the header of a DICOM file (up to the pixel data); raise Corrupt naming the file when it is not DICOM."""
    return header_of(read_dataset(path))


def read_dataset(path: Path) -> Dataset:
    """Read a file up to its pixel data. A data set without the Part 10 preamble is taken when it names a SOP class.

    Raises
    ------
    Corrupt
        The file cannot be opened or is not DICOM; the message names it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of every odd value; they become None here
        try:
            ds = dcmread(path, stop_before_pixels=True, force=True)
            if "SOPClassUID" not in ds and "SOPInstanceUID" not in ds:
                raise Corrupt(f"{path}: not a DICOM image (no SOP Class UID, no SOP Instance UID)")
        except _UNREADABLE as error:
            raise Corrupt(f"{path}: not readable as DICOM ({type(error).__name__})") from None
    return ds


def header_of(ds: Dataset) -> Header:
    """Take the header out of a data set (pixels are not looked at)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Header(**_identity(ds), **_image(ds), **_acquisition(ds), **_patient(ds))


def _identity(ds: Dataset) -> dict[str, Any]:
    return {
        "sop_instance_uid": text(ds, "SOPInstanceUID"),
        "series_instance_uid": text(ds, "SeriesInstanceUID"),
        "study_instance_uid": text(ds, "StudyInstanceUID"),
        "sop_class_uid": text(ds, "SOPClassUID"),
        "transfer_syntax_uid": text(getattr(ds, "file_meta", Dataset()), "TransferSyntaxUID"),
        "frame_of_reference_uid": text(ds, "FrameOfReferenceUID"),
        "modality": text(ds, "Modality").upper(),
        "manufacturer": text(ds, "Manufacturer"),
        "model_name": text(ds, "ManufacturerModelName"),
        "study_description": text(ds, "StudyDescription"),
        "series_description": text(ds, "SeriesDescription"),
        "protocol_name": text(ds, "ProtocolName"),
        "image_comments": text(ds, "ImageComments"),
        "series_number": integer(ds, "SeriesNumber"),
        "instance_number": integer(ds, "InstanceNumber"),
        "acquisition_number": integer(ds, "AcquisitionNumber"),
    }


def _image(ds: Dataset) -> dict[str, Any]:
    frames = frames_of(ds)
    first = frames[0]
    return {
        "image_type": texts(ds, "ImageType"),
        "photometric_interpretation": text(ds, "PhotometricInterpretation"),
        "samples_per_pixel": integer(ds, "SamplesPerPixel"),
        "rows": integer(ds, "Rows"),
        "columns": integer(ds, "Columns"),
        "number_of_frames": integer(ds, "NumberOfFrames"),
        "frame_positions_mm": tuple(f.position_mm for f in frames),
        "frame_orientations": _shared(tuple(f.orientation for f in frames)),
        "pixel_spacing_mm": first.pixel_spacing_mm,
        "slice_thickness_mm": first.number("PixelMeasuresSequence", "SliceThickness"),
        "spacing_between_slices_mm": first.number("PixelMeasuresSequence", "SpacingBetweenSlices"),
        "lossy": text(ds, "LossyImageCompression") == "01",
        "derivation_description": text(ds, "DerivationDescription"),
        "temporal_position": first.integer("FrameContentSequence", "TemporalPositionIdentifier")
        if len(frames) > 1
        else integer(ds, "TemporalPositionIdentifier"),
        "frame_types": tuple(f.frame_type for f in frames) if len(frames) > 1 else (),
        "frame_stacks": tuple(f.stack for f in frames) if len(frames) > 1 else (),
    }


def _acquisition(ds: Dataset) -> dict[str, Any]:
    frames = frames_of(ds)
    first = frames[0]
    echoes = tuple(f.echo_time_ms for f in frames)
    b_values = tuple(f.b_value for f in frames)
    return {
        "body_part": text(ds, "BodyPartExamined") or first.text("FrameAnatomySequence", "BodyPartExamined"),
        "reconstruction_diameter_mm": first.number("CTReconstructionSequence", "ReconstructionDiameter"),
        "gantry_tilt_degrees": number(ds, "GantryDetectorTilt"),
        "convolution_kernel": "\\".join(first.texts("CTReconstructionSequence", "ConvolutionKernel")),
        "contrast_agent": text(ds, "ContrastBolusAgent") or _agent_code(ds),
        "scanning_sequence": texts(ds, "ScanningSequence") or _enhanced_sequence(ds),
        "sequence_variant": texts(ds, "SequenceVariant"),
        "sequence_name": text(ds, "SequenceName") or text(ds, "PulseSequenceName"),
        "mr_acquisition_type": text(ds, "MRAcquisitionType"),
        "echo_time_ms": echoes[0],
        "frame_echo_times_ms": _varying(echoes),
        "repetition_time_ms": first.number("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
        "inversion_time_ms": first.inversion_time_ms,
        "flip_angle_degrees": first.number("MRTimingAndRelatedParametersSequence", "FlipAngle"),
        "echo_train_length": first.integer("MRTimingAndRelatedParametersSequence", "EchoTrainLength"),
        "b_value": b_values[0],
        "frame_b_values": _varying(b_values),
    }


def _patient(ds: Dataset) -> dict[str, Any]:
    return {
        "patient_age_years": age_years(ds),
        "patient_name": text(ds, "PatientName"),
        "patient_id": text(ds, "PatientID"),
        "patient_birth_date": text(ds, "PatientBirthDate"),
        "patient_sex": text(ds, "PatientSex"),
        "study_date": text(ds, "StudyDate"),
        "accession_number": text(ds, "AccessionNumber"),
        "requested_priority": text(ds, "RequestedProcedurePriority").upper(),
    }


def _enhanced_sequence(ds: Dataset) -> tuple[str, ...]:
    """Echo Pulse Sequence (0018,9008) and Echo Planar (0018,9018) of enhanced MR in the words of classic MR."""
    words = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(text(ds, "EchoPulseSequence"), ())
    return (*words, "EP") if text(ds, "EchoPlanarPulseSequence") == "YES" else words


def _agent_code(ds: Dataset) -> str:
    items = ds.get("ContrastBolusAgentSequence")
    return text(items[0], "CodeMeaning") if items else ""


def _shared(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """One entry when all frames agree, to keep the stored header short."""
    return values[:1] if len(set(values)) == 1 else values


def _varying(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
    return values if len(set(values)) > 1 else ()


def to_json(header: Header) -> dict[str, Any]:
    """Return the header as JSON values; absent fields are left out."""
    document: dict[str, Any] = {"version": HEADER_VERSION}
    for field in dataclasses.fields(header):
        value = getattr(header, field.name)
        if value != field.default:
            document[field.name] = value
    return document


def from_json(document: dict[str, Any]) -> Header:
    """Return the header that ``to_json`` wrote; raise Corrupt when another version of falx wrote it."""
    if document.get("version") != HEADER_VERSION:
        raise Corrupt(f"stored header has version {document.get('version')!r}, this falx reads {HEADER_VERSION}")
    known = {field.name for field in dataclasses.fields(Header)}
    return Header(**{key: _tuples(value) for key, value in document.items() if key in known})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
