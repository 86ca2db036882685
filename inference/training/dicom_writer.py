"""Synthetic volumes as DICOM series: complete headers as scanners of invented makers would write them.

Names, makers and places are invented and say so; UIDs derive from the seed (2.25., PS3.5 B.2), so that writing twice
gives the same files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from inference.volume import Volume

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
IMPLEMENTATION_UID = UID("2.25.30861938250918241327465371208455391029")


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """An invented maker: how it names itself and fills headers."""

    manufacturer: str
    model: str
    software: str
    descriptions: Mapping[str, tuple[str, ...]]
    intercept: int
    station: str


MAKERS = (
    Maker(
        manufacturer="Synthetica Imaging",
        model="HeadForge 64",
        software="hf-4.2",
        descriptions={"CT": ("Head routine 5.0 soft", "CT Head w/o"), "MR": ("t2_tse_tra", "AX T2")},
        intercept=-1024,
        station="SYNTH01",
    ),
    Maker(
        manufacturer="Phantomworks Medical",
        model="Axial One",
        software="PW12.1",
        descriptions={"CT": ("HEAD WO CONTRAST", "BRAIN STANDARD"), "MR": ("AX T2 FSE", "T2 AXIAL")},
        intercept=0,
        station="PHANT7",
    ),
    Maker(
        manufacturer="Testbild Systems",
        model="TB-CM 3",
        software="R5.0.3",
        descriptions={"CT": ("Schaedel nativ 4.0", "CCT"), "MR": ("T2W_TSE", "T2 tra")},
        intercept=-1000,
        station="TB3",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeader:
    """What a series says besides its pixels.

    ``key`` names the study and decides every UID, date and choice of maker; ``age_years`` is at least 18;
    ``extra`` holds further attributes by DICOM keyword (they win). Studies of one ``patient`` share the Patient ID;
    by default every study is another patient's.
    """

    key: str
    modality: str
    age_years: float
    slice_thickness_mm: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    patient: str = ""


def synthetic_uid(*parts: object) -> str:
    """A UID that is a function of its parts: 2.25. and 122 bits of a SHA-256."""
    digest = hashlib.sha256("/".join(str(p) for p in ("falx-synthetic", *parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big') >> 6}"


def write_series(volume: Volume, header: SeriesHeader, folder: Path) -> list[Path]:
    """Write one file per slice as ``NNNN.dcm``; returns the paths in z order.

    Raises
    ------
    ValueError
        For another modality than CT or MR, an age under 18, or values that do not fit 16 bits.
    """
    if header.modality not in ("CT", "MR"):
        raise ValueError(f"only CT and MR can be written, not {header.modality!r}")
    if header.age_years < 18:
        raise ValueError(f"synthetic patients are adults; age_years is {header.age_years}")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(header.key.encode()).digest()[:8], "big"))
    maker = MAKERS[int(rng.integers(len(MAKERS)))]
    common = _common(header, maker, rng)
    intercept = maker.intercept if header.modality == "CT" else 0
    stored = np.round(volume.voxels) - intercept
    signed = header.modality == "CT" and (intercept == 0 or stored.min() < 0)
    low, high = (-32768, 32767) if signed else (0, 65535)
    if stored.min() < low or stored.max() > high:
        raise ValueError(f"voxels {volume.voxels.min()}..{volume.voxels.max()} do not fit 16 bits")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for z in range(volume.voxels.shape[0]):
        ds = _slice(volume, z, common, header, intercept, signed)
        ds.PixelData = stored[z].astype("<i2" if signed else "<u2").tobytes()
        path = folder / f"{z + 1:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _common(header: SeriesHeader, maker: Maker, rng: np.random.Generator) -> dict[str, Any]:
    """Attributes of patient, study, series and equipment, the same on every slice."""
    code, patient = (
        hashlib.sha256(name.encode()).hexdigest()[:8].upper() for name in (header.key, header.patient or header.key)
    )
    date = f"20{int(rng.integers(18, 25)):02d}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 28)):02d}"
    time = f"{int(rng.integers(0, 24)):02d}{int(rng.integers(0, 60)):02d}{int(rng.integers(0, 60)):02d}"
    description = str(rng.choice(maker.descriptions[header.modality]))
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": CT_IMAGE_STORAGE if header.modality == "CT" else MR_IMAGE_STORAGE,
        "StudyDate": date,
        "SeriesDate": date,
        "AcquisitionDate": date,
        "ContentDate": date,
        "StudyTime": time,
        "SeriesTime": time,
        "AcquisitionTime": time,
        "ContentTime": time,
        "AccessionNumber": f"S{code}",
        "Modality": header.modality,
        "Manufacturer": maker.manufacturer,
        "ManufacturerModelName": maker.model,
        "SoftwareVersions": maker.software,
        "StationName": maker.station,
        "DeviceSerialNumber": f"{int(rng.integers(10_000, 99_999))}",
        "InstitutionName": "Synthetic cohort (no patients)",
        "ReferringPhysicianName": "",
        "StudyDescription": "CT head" if header.modality == "CT" else "MR head",
        "SeriesDescription": description,
        "ProtocolName": description,
        "PatientName": f"SYNTHETIC^{header.modality}{patient}",
        "PatientID": f"SYN-{patient}",
        "PatientBirthDate": "",
        "PatientSex": str(rng.choice(["M", "F"])),
        "PatientAge": f"{int(header.age_years):03d}Y",
        "BodyPartExamined": str(rng.choice(["HEAD", "BRAIN"])),
        "PatientPosition": "HFS",
        "StudyInstanceUID": synthetic_uid(header.key, "study"),
        "SeriesInstanceUID": synthetic_uid(header.key, "series"),
        "FrameOfReferenceUID": synthetic_uid(header.key, "frame"),
        "StudyID": code[:4],
        "SeriesNumber": int(rng.integers(2, 6)),
        "AcquisitionNumber": 1,
        "PositionReferenceIndicator": "",
        "SliceThickness": _decimal(header.slice_thickness_mm),
    }
    return values | (_ct_values(rng) if header.modality == "CT" else _mr_values(rng)) | dict(header.extra)


def _ct_values(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "KVP": _decimal(float(rng.choice([100, 120, 120, 130]))),
        "XRayTubeCurrent": int(rng.integers(150, 400)),
        "ExposureTime": int(rng.integers(700, 2000)),
        "ConvolutionKernel": str(rng.choice(["SOFT-30", "STANDARD", "HEAD-SMOOTH"])),
        "GantryDetectorTilt": "0",
        "DataCollectionDiameter": "500",
        "RescaleType": "HU",
        "WindowCenter": "40",
        "WindowWidth": "80",
    }


def _mr_values(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "ScanningSequence": "SE",
        "SequenceVariant": "SK",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": _decimal(float(rng.integers(3000, 7000))),
        "EchoTime": _decimal(float(rng.integers(80, 120))),
        "EchoTrainLength": int(rng.integers(8, 24)),
        "MagneticFieldStrength": str(rng.choice(["1.5", "3"])),
        "FlipAngle": "150",
    }


def _slice(
    volume: Volume, z: int, common: Mapping[str, Any], header: SeriesHeader, intercept: int, signed: bool
) -> Dataset:
    geometry = volume.geometry
    affine = geometry.affine_lps_mm
    _, row_mm, column_mm = geometry.spacing_zyx_mm
    ds = Dataset()
    for keyword, value in common.items():
        setattr(ds, keyword, value)
    instance_uid = UID(geometry.slices[z].sop_instance_uid)
    ds.SOPInstanceUID = instance_uid
    ds.InstanceNumber = z + 1
    position = affine[:3, 3] + z * affine[:3, 0]
    ds.ImagePositionPatient = [_decimal(v) for v in position]
    ds.ImageOrientationPatient = [_decimal(v) for v in (*(affine[:3, 2] / column_mm), *(affine[:3, 1] / row_mm))]
    ds.SliceLocation = _decimal(float(position[2]))
    ds.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    if header.modality == "MR":
        ds.SpacingBetweenSlices = _decimal(geometry.spacing_zyx_mm[0])
    else:
        ds.RescaleIntercept, ds.RescaleSlope = str(intercept), "1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = volume.voxels.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(signed)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = instance_uid
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    return ds


def _decimal(value: float) -> str:
    """A DS value of at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"
