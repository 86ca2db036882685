"""A volume's geometry as the functional groups of a multi-frame object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicom_sr.identity import uid_of
from inference.volume import Geometry

Vector = npt.NDArray[np.float64]


def ds(value: float) -> str:
    """Return a number as a Decimal String of at most 16 characters."""
    return format_number_as_ds(float(value))


def orientation(geometry: Geometry) -> list[str]:
    """Return Image Orientation (Patient): direction of increasing column, then of increasing row."""
    column, row = geometry.affine_lps_mm[:3, 2], geometry.affine_lps_mm[:3, 1]
    return [ds(part) for part in (*_unit(column), *_unit(row))]


def pixel_spacing(geometry: Geometry) -> list[str]:
    """Return Pixel Spacing in mm: between rows, then between columns."""
    _, row_mm, column_mm = geometry.spacing_zyx_mm
    return [ds(row_mm), ds(column_mm)]


def position(geometry: Geometry, z: int) -> list[str]:
    """Return Image Position (Patient) of slice ``z`` in mm: the centre of its first voxel; irregular steps kept."""
    step, origin = geometry.affine_lps_mm[:3, 0], geometry.affine_lps_mm[:3, 3]
    normal = np.cross(_unit(geometry.affine_lps_mm[:3, 2]), _unit(geometry.affine_lps_mm[:3, 1]))
    step_along_normal_mm = max(abs(float(step @ normal)), 1e-12)
    steps = (geometry.positions_mm[z] - geometry.positions_mm[0]) / step_along_normal_mm
    return [ds(part) for part in origin + step * steps]


def frame_of_reference(geometry: Geometry, series_instance_uid: str) -> str:
    """Return the Frame of Reference UID; a source without one gets its own, shared with nothing else."""
    return geometry.frame_of_reference_uid or uid_of("frame of reference", series_instance_uid)


def shared_groups(geometry: Geometry) -> Dataset:
    """Return the Shared Functional Groups item: pixel measures and plane orientation."""
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing = pixel_spacing(geometry)
    measures.SliceThickness = ds(geometry.spacing_zyx_mm[0])
    plane.ImageOrientationPatient = orientation(geometry)
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures]
    groups.PlaneOrientationSequence = [plane]
    return groups


def frame_groups(geometry: Geometry, z: int) -> Dataset:
    """Return the Per-frame Functional Groups item of slice ``z``: its plane position."""
    plane = Dataset()
    plane.ImagePositionPatient = position(geometry, z)
    groups = Dataset()
    groups.PlanePositionSequence = [plane]
    return groups


def _unit(vector: Vector) -> Vector:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float64)
