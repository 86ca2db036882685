"""Small sources for the encoders' tests: headers and volumes made here, with a bright blob where the finding is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_sr import geometry
from dicom_sr.identity import input_key
from dicom_sr.request import DestinationProfile, Outcome, ResultRequest
from inference.result import Finding, Heatmap, InferenceResult, ModelId, Reason, SliceEvidence
from inference.volume import Geometry, SliceSource, Volume

STUDY = "1.2.826.0.1.3680043.10.1.1"
SERIES = "1.2.826.0.1.3680043.10.1.2"
FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.10.1.3"
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
MR_CLASS = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2.1"
AT = datetime(2026, 11, 24, 3, 4, 5, 678900, tzinfo=UTC)
CT_MODEL = ModelId(name="falx-ct-haemorrhage", version="0.1.0", weights_sha256="ab" * 32)
MR_MODEL = ModelId(name="falx-mr-abnormality", version="0.1.0", weights_sha256="cd" * 32)


def volume(modality: str = "CT", slices: int = 32, size: int = 128, enhanced: bool = False) -> Volume:
    """An ellipsoid head, tilted 10 degrees about x, 5 mm slices, 1.8 mm pixels."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (slices, size, size)), indexing="ij")
    radius = np.sqrt((z / 1.2) ** 2 + (y / 0.85) ** 2 + (x / 0.7) ** 2)
    tissue = 35 + 8 * np.cos(6 * x) * np.cos(5 * y)
    voxels = np.where(radius < 0.95, tissue, np.where(radius < 1.05, 900.0, -1000.0)).astype(np.float32)
    if modality == "CT":
        voxels[_blob(slices, size) > 0.6] = 72
    else:
        voxels = np.where(radius < 1, 400 + 10 * tissue, 5).astype(np.float32)
    angle = np.deg2rad(10)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), -np.sin(angle)])
    normal = np.cross(row, column)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = normal * 5.0, column * 1.8, row * 1.8
    affine[:3, 3] = (-115.0, -100.0, 20.0)
    sop_class = ENHANCED_CT_CLASS if enhanced else CT_CLASS if modality == "CT" else MR_CLASS
    sources = tuple(
        SliceSource(
            sop_instance_uid=f"{SERIES}.1" if enhanced else f"{SERIES}.{n + 1}",
            sop_class_uid=sop_class,
            frame_number=n + 1 if enhanced else None,
        )
        for n in range(slices)
    )
    place = Geometry(
        shape_zyx=voxels.shape,
        affine_lps_mm=affine,
        frame_of_reference_uid=FRAME_OF_REFERENCE,
        slices=sources,
        positions_mm=tuple(5.0 * n for n in range(slices)),
    )
    return Volume(voxels=voxels, geometry=place, modality=modality)


def _blob(slices: int, size: int) -> np.ndarray:
    z, y, x = np.meshgrid(*(np.arange(n) / max(n - 1, 1) for n in (slices, size, size)), indexing="ij")
    return np.exp(-(((z - 0.55) / 0.08) ** 2 + ((y - 0.45) / 0.1) ** 2 + ((x - 0.66) / 0.07) ** 2))


def result(of: Volume, present: bool | None, model: ModelId = CT_MODEL, **changes: Any) -> InferenceResult:
    """A model's answer with the blob as evidence (or nothing, when absent)."""
    slices, size, _ = of.geometry.shape_zyx
    heat = _blob(slices, size).astype(np.float32) * (1.0 if present else 0.2)
    attention = heat.max(axis=(1, 2)) ** 2
    attention = attention / attention.sum()
    scale = 0.95 if present else 0.1
    evidence = tuple(
        SliceEvidence(
            sop_instance_uid=source.sop_instance_uid,
            frame_number=source.frame_number,
            probability=float(scale * heat[n].max()),
            attention=float(attention[n]),
        )
        for n, source in enumerate(of.geometry.slices)
    )
    label = "intracranial_haemorrhage" if of.modality == "CT" else "abnormal"
    main = Finding(
        label=label,
        probability=0.9137 if present else 0.0312,
        threshold=0.42,
        operating_point="balanced",
        present=present,
        slices=evidence,
        **changes,
    )
    extras = tuple(
        replace(main, label=name, probability=0.2, present=False, slices=())
        for name in (("subdural", "intraparenchymal", "intraventricular") if of.modality == "CT" else ("mass",))
    )
    return InferenceResult(
        model=model,
        findings=(main, *extras),
        heatmap=Heatmap(values=heat, geometry=of.geometry),
        calibration_id="platt-1",
    )


def headers(of: Volume, **attributes: Any) -> tuple[Dataset, ...]:
    """Source headers in z order, one per SOP instance."""
    made: dict[str, Dataset] = {}
    for n, source in enumerate(of.geometry.slices):
        header = made.setdefault(source.sop_instance_uid, Dataset())
        if source.frame_number is not None:
            header.NumberOfFrames = source.frame_number
        else:
            header.ImagePositionPatient = [-115.0, -100.0, 20.0 + 5 * n]
        header.SpecificCharacterSet = "ISO_IR 100"
        header.SOPClassUID, header.SOPInstanceUID = source.sop_class_uid, source.sop_instance_uid
        header.StudyInstanceUID, header.SeriesInstanceUID = STUDY, SERIES
        header.FrameOfReferenceUID = FRAME_OF_REFERENCE
        header.Modality = of.modality
        header.Rows, header.Columns = of.geometry.shape_zyx[1:]
        header.PatientName, header.PatientID = "Muster^Jörg", "P-0001"
        header.PatientBirthDate, header.PatientSex = "19500101", "M"
        header.StudyDate, header.StudyTime, header.StudyID = "20261124", "025500", "S1"
        header.AccessionNumber, header.ReferringPhysicianName = "A-0001", "Arzt^A"
        header.StudyDescription, header.SeriesNumber = "Head", 2
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
    return tuple(made.values())


def request(
    present: bool | None = True,
    *,
    modality: str = "CT",
    outcome: Outcome = "analysed",
    slices: int = 32,
    size: int = 128,
    enhanced: bool = False,
    profile: Mapping[str, Any] | None = None,
    header: Mapping[str, Any] | None = None,
    finding: Mapping[str, Any] | None = None,
    **changes: Any,
) -> ResultRequest:
    """A request of the given outcome; ``changes`` replace its fields."""
    image = volume(modality, slices, size, enhanced)
    model = CT_MODEL if modality == "CT" else MR_MODEL
    sources = headers(image, **(header or {}))
    analysed = outcome in ("analysed", "undetermined")
    return replace(
        ResultRequest(
            purpose="ct_haemorrhage" if modality == "CT" else "mr_abnormality",
            outcome=outcome,
            model=model,
            result=result(image, present, model, **(finding or {})) if analysed else None,
            reason=None if outcome == "analysed" else Reason(code="no_axial_series", text="No axial series was found."),
            sources=sources,
            volume=image if analysed else None,
            analysed_at=AT,
            possibly_incomplete=False,
            unused_series=(),
            predecessor=None,
            profile=DestinationProfile(**(profile or {})),
            input_key=input_key(model, "balanced", "platt-1", [(s.SOPInstanceUID, "0" * 64) for s in sources]),
        ),
        **changes,
    )


def source_files(of: ResultRequest) -> list[bytes]:
    """The single-frame source images of a request as Part 10 files."""
    image_of = of.volume or volume("CT", len(of.sources), of.sources[0].Rows)
    place, files = image_of.geometry, []
    for z, header in enumerate(of.sources):
        image = Dataset()
        image.update(header)
        image.ImagePositionPatient = geometry.position(place, z)
        image.ImageOrientationPatient = geometry.orientation(place)
        image.PixelSpacing = geometry.pixel_spacing(place)
        image.SliceThickness = "5"
        image.InstanceNumber, image.SeriesDescription, image.ImageType = z + 1, "Head 5.0", ["ORIGINAL", "PRIMARY"]
        image.RescaleSlope, image.RescaleIntercept = "1", "-1024"
        image.WindowCenter, image.WindowWidth = "40", "80"
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = (image_of.voxels[z] + 1024).astype("<u2").tobytes()
        image["PixelData"].VR = "OW"
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = BytesIO()
        dcmwrite(buffer, image, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files
