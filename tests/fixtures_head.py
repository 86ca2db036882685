"""Small synthetic CT heads as DICOM files: an ellipsoid of brain in a shell of bone, a bleed on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def head_hu(slices: int = 24, size: int = 96, *, seed: int = 0, bleed: bool = True) -> np.ndarray:
    """HU ``[z, y, x]`` of a head, neck at z 0, vertex at the end; size falls towards the vertex."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[0:slices, 0:size, 0:size].astype(float)
    level = z / (slices - 1)
    radius = 0.40 * size * np.sqrt(np.clip(1 - (0.95 * level) ** 2, 0.02, 1))
    r = np.hypot((x - size / 2) / 0.85, y - size / 2)
    hu = np.full(r.shape, -1000.0)
    hu[r < radius + 5] = 900
    hu[r < radius] = 35
    hu[(np.hypot(x - size / 2, (y - size / 2) / 1.8) < 0.09 * size) & (r < radius) & (level > 0.3) & (level < 0.7)] = 8
    if bleed:
        hu[((x - size * 0.62) ** 2 + (y - size * 0.45) ** 2 < (0.09 * size) ** 2) & (abs(level - 0.55) < 0.12)] = 72
    return hu + rng.normal(0, 3, r.shape)


def write_head(
    folder: Path, study: str, *, name: str = "Phantom^Head", patient_id: str = "P1", **drawn: Any
) -> list[Path]:
    """Write a head as one CT series of study ``study``; returns the files in z order."""
    folder.mkdir(parents=True, exist_ok=True)
    hu = head_hu(**drawn)
    paths = []
    for z, plane in enumerate(hu):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{study}.1.{z + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, f"{study}.1", f"{study}.9"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = name, patient_id, "19500101", "O"
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260102", "030405", "A1", "1"
        ds.ReferringPhysicianName = ""
        ds.Modality, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "CT", "falx test", 1, z + 1
        ds.SeriesDescription, ds.StudyDescription = "Head 5 mm", "Head plain"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-100, -100, 5.0 * z], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [200 / plane.shape[0]] * 2, 5
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
        ds.WindowCenter, ds.WindowWidth = 40, 80
        ds.KVP = 120
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = np.clip(plane + 1024, 0, 4095).astype("<u2").tobytes()
        paths.append(folder / f"{z:03}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths
