"""A maker of DICOM series for tests: real files on disk, any geometry, any transfer syntax, any defect.

    files = write_series(tmp_path / "ct")                             # 32 x 64 x 64 axial head CT, 5 mm
    files = write_series(folder, modality="MR", shape=(24, 64, 64), tilt_degrees=12)
    files = write_series(folder, change=lambda ds, z: delattr(ds, "PixelSpacing"))
    file = write_enhanced(folder / "e.dcm", modality="MR", shape=(24, 64, 64))

The head is an ellipsoid: skin, skull (1000 HU), brain (35 HU) around air (-1000 HU); in MR a T2-like signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter

ROOT = "1.2.826.0.1.3680043.10.1234."  # for UIDs of these tests alone
CT_CLASS, MR_CLASS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CLASS = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
Change = Callable[[Dataset, int], object]


def uid(*words: object) -> str:
    """A UID that is the same for the same words."""
    return str(generate_uid(prefix=ROOT, entropy_srcs=[str(w) for w in words] or ["falx"]))


def head(shape_zyx: tuple[int, int, int], modality: str = "CT") -> np.ndarray:
    """An ellipsoid head, float [z, y, x]: HU, or a T2-like signal."""
    axes = [np.linspace(-1, 1, n) for n in shape_zyx]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((z * 0.85) ** 2 + (y * 1.15) ** 2 + (x * 1.35) ** 2)
    noise = np.random.default_rng(7).normal(0, 3, shape_zyx)
    blur = (0, max(0.7, shape_zyx[1] / 128), max(0.7, shape_zyx[2] / 128))  # partial volume, as every scanner makes it
    if modality == "CT":
        levels = np.select([radius < 0.82, radius < 0.9, radius < 0.97], [35.0, 1000.0, -80.0], -1000.0)
    else:
        levels = np.select([radius < 0.3, radius < 0.82, radius < 0.9, radius < 0.97], [900.0, 400.0, 30.0, 300.0], 5.0)
    values = gaussian_filter(levels, blur) + np.where(levels > -900, noise, 0.0)
    return values if modality == "CT" else np.maximum(values, 0.0)


def orientation_of(tilt_degrees: float, plane: str = "axial") -> tuple[list[float], np.ndarray]:
    """Image orientation and normal of a plane tilted about x."""
    tilt = np.radians(tilt_degrees)
    row, column = {
        "axial": ([1.0, 0, 0], [0, np.cos(tilt), np.sin(tilt)]),
        "sagittal": ([0, 1.0, 0], [0, 0, -1.0]),
        "coronal": ([1.0, 0, 0], [0, 0, -1.0]),
    }[plane]
    return [*map(float, row), *map(float, column)], np.cross(row, column)


def base_dataset(modality: str, study: str, series: str, instance: str, sop_class: str) -> Dataset:
    """Patient, study, series and equipment of one instance; invented throughout."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = instance
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.FrameOfReferenceUID = uid(study, "frame")
    ds.PatientName, ds.PatientID, ds.PatientSex = "Test^Synthetic", "T-0001", "O"
    ds.PatientBirthDate, ds.PatientAge = "19600101", "065Y"
    ds.StudyDate, ds.StudyTime, ds.ContentDate, ds.ContentTime = "20260102", "101500", "20260102", "101600"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "A-0001", "1", ""
    ds.StudyDescription, ds.SeriesNumber, ds.PositionReferenceIndicator = f"{modality} head", 2, ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = modality, "Example", "Scanner 1"
    ds.SoftwareVersions, ds.DeviceSerialNumber, ds.PatientPosition = "1", "1", "HFS"
    return ds


def _acquisition(ds: Dataset, modality: str) -> None:
    if modality == "CT":
        ds.SeriesDescription, ds.ProtocolName = "Head 5.0 H30s", "Head routine"
        ds.ImageType, ds.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "HEAD"
        ds.KVP, ds.ConvolutionKernel, ds.RescaleType = 120, "H30s", "HU"
    else:
        ds.SeriesDescription, ds.ProtocolName = "T2 TSE axial", "t2_tse_tra"
        ds.ImageType, ds.BodyPartExamined = ["ORIGINAL", "PRIMARY", "M", "ND"], "HEAD"
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "SK", "", "2D"
        ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength, ds.MagneticFieldStrength = 100, 5000, 15, 1.5


def set_pixels(ds: Dataset, stored: np.ndarray, bits: int = 16, signed: bool = False) -> None:
    """Put stored values [..., y, x] into the data set, uncompressed."""
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, ds.get("PhotometricInterpretation", "MONOCHROME2")
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    ds.PixelData = stored.astype(("i" if signed else "u") + ("1" if bits <= 8 else "2")).tobytes()


def write_series(
    folder: Path,
    *,
    modality: str = "CT",
    shape: tuple[int, int, int] = (32, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 3.4, 3.4),
    positions_mm: Sequence[float] | None = None,
    tilt_degrees: float = 0.0,
    gantry_tilt_degrees: float = 0.0,
    plane: str = "axial",
    voxels: np.ndarray | None = None,
    slope: float = 1.0,
    intercept: float | None = None,
    bits: int = 16,
    signed: bool = False,
    transfer_syntax: str = ExplicitVRLittleEndian,
    study: str = "",
    series: str = "",
    change: Change | None = None,
) -> list[Path]:
    """Write one classic series, one file a slice, feet to head, and return the files in that order.

    ``gantry_tilt_degrees`` tilts the slices while they advance along z (a sheared CT stack); ``tilt_degrees`` tilts the
    whole stack. ``positions_mm`` overrules even spacing. ``change(ds, z)`` edits each data set before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study, series = study or uid(folder, "study"), series or uid(folder, modality, "series")
    voxels = head(shape, modality) if voxels is None else voxels
    intercept = intercept if intercept is not None else (-1024.0 if modality == "CT" and not signed else 0.0)
    orientation, normal = orientation_of(tilt_degrees or gantry_tilt_degrees, plane)
    step = np.array([0.0, 0.0, 1.0]) if gantry_tilt_degrees else normal
    along = positions_mm if positions_mm is not None else [z * spacing_mm[0] for z in range(shape[0])]
    origin = np.array([-shape[2] * spacing_mm[2] / 2, -shape[1] * spacing_mm[1] / 2, -60.0])
    files = []
    for z in range(shape[0]):
        ds = base_dataset(modality, study, series, uid(series, z), CT_CLASS if modality == "CT" else MR_CLASS)
        _acquisition(ds, modality)
        ds.InstanceNumber, ds.AcquisitionNumber = z + 1, 1
        ds.ImagePositionPatient = [f"{v:.6g}" for v in origin + along[z] * step]
        ds.ImageOrientationPatient = [f"{v:.8g}" for v in orientation]
        ds.PixelSpacing, ds.SliceThickness = [spacing_mm[1], spacing_mm[2]], spacing_mm[0]
        if gantry_tilt_degrees:
            ds.GantryDetectorTilt = gantry_tilt_degrees
        if modality == "CT":
            ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        set_pixels(ds, np.round((voxels[z] - intercept) / slope), bits, signed)
        if change:
            change(ds, z)
        files.append(write(ds, folder / f"{z:04d}.dcm", transfer_syntax))
    return files


def write(ds: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a Part 10 file in a transfer syntax (compressing it when that is a compressed one)."""
    if transfer_syntax != ExplicitVRLittleEndian:
        if transfer_syntax in UNCOMPRESSED:
            ds.file_meta.TransferSyntaxUID = transfer_syntax
            if transfer_syntax == "1.2.840.10008.1.2.2" and ds.BitsAllocated == 16:
                ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        else:
            _compress(ds, transfer_syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
COMPRESSED = (
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless SV1
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
)


def _compress(ds: Dataset, transfer_syntax: str) -> None:
    import imagecodecs
    from pydicom.encaps import encapsulate

    if transfer_syntax == "1.2.840.10008.1.2.5":
        ds.compress(transfer_syntax, generate_instance_uid=False)
        return
    dtype = ("i" if ds.PixelRepresentation else "u") + ("1" if ds.BitsAllocated == 8 else "2")
    frames = np.frombuffer(ds.PixelData, dtype).reshape(-1, ds.Rows, ds.Columns)
    encode = {
        "1.2.840.10008.1.2.4.57": lambda a: imagecodecs.ljpeg_encode(a.view("u2") if a.itemsize == 2 else a),
        "1.2.840.10008.1.2.4.70": lambda a: imagecodecs.ljpeg_encode(a.view("u2") if a.itemsize == 2 else a),
        "1.2.840.10008.1.2.4.80": lambda a: imagecodecs.jpegls_encode(a.view("u2") if a.itemsize == 2 else a),
        "1.2.840.10008.1.2.4.90": lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True, level=0),
        "1.2.840.10008.1.2.4.201": imagecodecs.htj2k_encode,
    }[transfer_syntax]
    ds.PixelData = encapsulate([bytes(encode(np.ascontiguousarray(f))) for f in frames])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = transfer_syntax


def write_enhanced(
    path: Path,
    *,
    modality: str = "MR",
    shape: tuple[int, int, int] = (24, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 3.4, 3.4),
    echo_times_ms: Sequence[float] = (100.0,),
    voxels: np.ndarray | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    change: Change | None = None,
) -> Path:
    """Write one enhanced multi-frame object: all slices for each echo time, the echoes interleaved by slice."""
    ds = base_dataset(modality, uid(path, "study"), uid(path, "series"), uid(path), ENHANCED_CLASS[modality])
    _acquisition(ds, modality)
    for keyword in (
        "EchoTime",
        "RepetitionTime",
        "ScanningSequence",
        "SequenceVariant",
        "ConvolutionKernel",
        "RescaleType",
    ):
        if keyword in ds:
            delattr(ds, keyword)
    voxels = head(shape, modality) if voxels is None else voxels
    intercept = -1024.0 if modality == "CT" else 0.0
    orientation, normal = orientation_of(0.0)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME" if modality == "CT" else "M", "NONE"]
    ds.EchoPulseSequence, ds.InstanceNumber = "SPIN", 1
    shared = Dataset()
    shared.PlaneOrientationSequence = _one(ImageOrientationPatient=orientation)
    shared.PixelMeasuresSequence = _one(PixelSpacing=list(spacing_mm[1:]), SliceThickness=spacing_mm[0])
    shared.PixelValueTransformationSequence = _one(RescaleIntercept=intercept, RescaleSlope=1, RescaleType="HU")
    if modality == "MR":
        shared.MRTimingAndRelatedParametersSequence = _one(RepetitionTime=5000, FlipAngle=90, EchoTrainLength=15)
    else:
        shared.CTReconstructionSequence = _one(ConvolutionKernel="H30s", ReconstructionDiameter=220)
    ds.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames, pixels = [], []
    origin = np.array([-110.0, -110.0, -60.0])
    for z in range(shape[0]):
        for number, echo in enumerate(echo_times_ms):
            frame = Dataset()
            frame.PlanePositionSequence = _one(
                ImagePositionPatient=[round(float(v), 4) for v in origin + z * spacing_mm[0] * normal]
            )
            frame.FrameContentSequence = _one(StackID="1", InStackPositionNumber=z + 1)
            if modality == "MR":
                frame.MREchoSequence = _one(EffectiveEchoTime=echo)
            frames.append(frame)
            pixels.append(np.round(voxels[z] - intercept) / (number + 1))
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    ds.NumberOfFrames = len(frames)
    set_pixels(ds, np.stack(pixels))
    if change:
        change(ds, 0)
    return write(ds, path, transfer_syntax)


def _one(**values: object) -> DicomSequence:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return DicomSequence([item])
