"""DICOM files of one series -> one Volume.

Classic and enhanced images, every orientation and transfer syntax. The grid is the source's own: nothing is resampled,
a tilted gantry's shear stands in the affine. Only very thin slices are averaged in groups, to bound memory. Knows no
network, no database, no rules: files that are no series raise Unreadable with a code.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from inference import stacks
from inference.dicom_values import VALUE_FAULTS, integer, number, text, texts
from inference.errors import Unreadable
from inference.frames import Frame, frames_of
from inference.pixels import Stored, stored_frame
from inference.signal import SignalReader
from inference.volume import FloatArray, Geometry, SliceSource, Volume

__all__ = ["MAX_SLICES", "Unreadable", "read_volume"]

MAX_SLICES = 300  # more are averaged in groups: 1,500 slices of 512 x 512 would take 1.5 GB as float32
MAX_BYTES = 2 << 30
_READ_FAILURES = (*VALUE_FAULTS, InvalidDicomError, OSError, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """One frame of one file, with its place."""

    path: Path
    ds: Dataset  # with pixel data, unless the series is too long to be held
    frame: int
    view: Frame
    place: stacks.Place

    def stored(self) -> Stored:
        """Stored values, from memory or from the file."""
        held = "PixelData" in self.ds or "Rows" not in self.ds
        ds = self.ds if held else _read(self.path, with_pixels=True)
        return stored_frame(ds, self.frame)

    @property
    def source(self) -> SliceSource:
        several = (integer(self.ds, "NumberOfFrames") or 1) > 1
        return SliceSource(
            sop_instance_uid=text(self.ds, "SOPInstanceUID"),
            sop_class_uid=text(self.ds, "SOPClassUID"),
            frame_number=self.frame + 1 if several else None,
        )


def read_volume(files: Sequence[Path]) -> Volume:
    """Read the main stack of a series.

    Parameters
    ----------
    files
        Every file of one series, in any order.

    Returns
    -------
    Volume
        Slices ascending along their normal (feet to head when axial); HU for CT, rescaled signal for MR. ``notes`` name
        what was odd, see docs/series.md.

    Raises
    ------
    Unreadable
        With a code: no_files, not_dicom, mixed_series, wrong_modality, colour, mosaic, missing_position,
        missing_pixel_spacing, one_slice, no_pixels, truncated, undecodable, modality_lut, too_large.
    """
    if not files:
        raise Unreadable("no_files", "No file was given.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values, which are dealt with here
        slices, unplaced = _slices(files)
        places = [s.place for s in slices]
        found = stacks.split(places)
        stack = stacks.main_stack(places, found)
        chosen = [slices[i] for i in stack.indices]
        if len(chosen) < 2:
            raise Unreadable("one_slice", "The series has a single slice; a volume needs more.")
        return _volume(chosen, stack, _geometry_notes(chosen, stack, len(found), unplaced))


def _volume(chosen: list[_Slice], stack: stacks.Stack, notes: list[str]) -> Volume:
    first = chosen[0]
    spacing, assumed = _pixel_spacing(first)
    signal = SignalReader.of(first.ds, chosen[len(chosen) // 2].stored())
    step = -(-len(chosen) // MAX_SLICES)
    groups = [chosen[i : i + step] for i in range(0, len(chosen), step)]
    voxels = _empty((len(groups), first.place.rows, first.place.columns))
    for z, group in enumerate(groups):
        _read_group(group, signal, voxels[z])
    notes += signal.finish(voxels)
    notes += ["pixel_spacing_from_diameter"] * assumed + ["averaged_slices"] * (step > 1)
    geometry = _geometry(groups, stack, spacing, voxels.shape)
    return Volume(
        voxels=voxels,
        geometry=geometry,
        modality=signal.modality,
        notes=tuple(notes),
        attributes=_attributes(first, stack),
    )


def _empty(shape: tuple[int, int, int]) -> FloatArray:
    if np.prod(shape, dtype=float) * 4 > MAX_BYTES:
        raise Unreadable("too_large", f"A volume of {' x '.join(map(str, shape))} voxels is larger than falx reads.")
    return np.empty(shape, np.float32)


def _read_group(group: Sequence[_Slice], signal: SignalReader, out: FloatArray) -> None:
    """Convert the slices of one group and average them into ``out``."""
    signal.convert(group[0].stored(), group[0].view, out)
    if len(group) > 1:
        buffer = np.empty_like(out)
        for member in group[1:]:
            signal.convert(member.stored(), member.view, buffer)
            out += buffer
        out /= len(group)


def _slices(files: Sequence[Path]) -> tuple[list[_Slice], int]:
    """Every frame that has a place, and how many have none."""
    held = len(files) <= MAX_SLICES
    slices: list[_Slice] = []
    unplaced = 0
    series: set[str] = set()
    for path in files:
        ds = _read(path, with_pixels=held)
        series.add(text(ds, "SeriesInstanceUID"))
        _check_kind(ds)
        for number_, view in enumerate(frames_of(ds)):
            place = _place(ds, view, number_)
            if place is None:
                unplaced += 1
            else:
                slices.append(_Slice(path=path, ds=ds, frame=number_, view=view, place=place))
    if len(series) > 1:
        raise Unreadable("mixed_series", f"The files belong to {len(series)} different series.")
    if not slices:
        raise Unreadable(
            "missing_position", "No image has Image Position and Orientation (Patient), (0020,0032) and (0020,0037)."
        )
    return slices, unplaced


def _read(path: Path, *, with_pixels: bool) -> Dataset:
    try:
        ds = dcmread(path, force=True, stop_before_pixels=not with_pixels)
        if "SOPClassUID" not in ds and "Rows" not in ds:
            raise Unreadable("not_dicom", f"{path.name} is not a DICOM image.")
    except _READ_FAILURES as error:
        raise Unreadable("not_dicom", f"{path.name} cannot be read as DICOM ({type(error).__name__}).") from None
    return ds


def _check_kind(ds: Dataset) -> None:
    name, types = text(ds, "SOPInstanceUID"), texts(ds, "ImageType")
    if text(ds, "Modality") not in ("CT", "MR"):
        raise Unreadable("wrong_modality", f"{name} is neither CT nor MR.")
    if (integer(ds, "SamplesPerPixel") or 1) > 1 or text(ds, "PhotometricInterpretation") == "PALETTE COLOR":
        raise Unreadable("colour", f"{name} is a colour picture, not a measurement.")
    if not {"MOSAIC", "VFRAME"}.isdisjoint(types):
        raise Unreadable("mosaic", f"{name} packs many slices into one picture (mosaic).")
    if not integer(ds, "Rows") or not integer(ds, "Columns"):
        raise Unreadable("no_pixels", f"{name} is no image: it has no Rows and Columns.")
    if "ModalityLUTSequence" in ds:
        raise Unreadable("modality_lut", f"{name} maps its values by a Modality LUT, which falx does not read.")


def _place(ds: Dataset, view: Frame, frame: int) -> stacks.Place | None:
    position, orientation = view.position_mm, view.orientation
    if position is None or orientation is None or not stacks.is_orientation(orientation):
        return None
    several = (integer(ds, "NumberOfFrames") or 1) > 1
    return stacks.Place(
        position_mm=position,
        orientation=orientation,
        rows=integer(ds, "Rows") or 0,
        columns=integer(ds, "Columns") or 0,
        order=(integer(ds, "InstanceNumber") or 0, frame),
        echo_time_ms=view.echo_time_ms,
        b_value=view.b_value,
        contrasts=(
            view.frame_type if several else "\\".join(texts(ds, "ImageType")),
            view.echo_time_ms,
            view.b_value,
            view.stack if several else None,
            None if several else integer(ds, "TemporalPositionIdentifier"),
            integer(ds, "AcquisitionNumber"),
        ),
    )


def _pixel_spacing(first: _Slice) -> tuple[tuple[float, float], bool]:
    """Spacing between rows and columns in mm, and whether it was worked out from the reconstruction's diameter."""
    spacing = first.view.pixel_spacing_mm
    if spacing is not None:
        return spacing, False
    diameter = first.view.number("CTReconstructionSequence", "ReconstructionDiameter")
    if diameter and diameter > 0 and first.place.rows == first.place.columns:
        return (diameter / first.place.rows, diameter / first.place.columns), True
    raise Unreadable(
        "missing_pixel_spacing",
        f"{text(first.ds, 'SOPInstanceUID')} has no Pixel Spacing (0028,0030); sizes are unknown.",
    )


def _geometry_notes(chosen: Sequence[_Slice], stack: stacks.Stack, n_stacks: int, unplaced: int) -> list[str]:
    missing = stacks.missing_positions(stack.positions_mm)
    shear = stacks.shear_degrees([s.place.position_mm for s in chosen], stack.normal)
    remarks = {
        "gantry_tilt": shear > 0.5,
        "missing_slices": missing > 0,
        "irregular_spacing": not missing and not stacks.is_regular(stack.positions_mm),
        "several_stacks": n_stacks > 1,
        "duplicate_positions": stack.duplicates > 0,
        "left_out_without_position": unplaced > 0,
        "lossy_compressed": text(chosen[0].ds, "LossyImageCompression") == "01",
    }
    return [code for code, holds in remarks.items() if holds]


def _geometry(
    groups: Sequence[Sequence[_Slice]], stack: stacks.Stack, spacing: tuple[float, float], shape: tuple[int, ...]
) -> Geometry:
    step = -(-len(stack.indices) // MAX_SLICES)
    along = [float(np.mean(stack.positions_mm[i : i + step])) for i in range(0, len(stack.positions_mm), step)]
    origins = np.array([np.mean([s.place.position_mm for s in group], axis=0) for group in groups])
    row, column = np.array(groups[0][0].place.orientation[:3]), np.array(groups[0][0].place.orientation[3:])
    direction = (origins[-1] - origins[0]) / (along[-1] - along[0])  # per mm along the normal; sheared when tilted
    affine = np.eye(4)
    affine[:3, 0] = direction * float(np.median(np.diff(along)))
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = row * spacing[1]
    affine[:3, 3] = origins[0]
    return Geometry(
        shape_zyx=(shape[0], shape[1], shape[2]),
        affine_lps_mm=affine,
        frame_of_reference_uid=text(groups[0][0].ds, "FrameOfReferenceUID"),
        slices=tuple(group[len(group) // 2].source for group in groups),
        positions_mm=tuple(along),
    )


def _attributes(first: _Slice, stack: stacks.Stack) -> dict[str, Any]:
    """The few header values that models and evaluation use; None when absent."""
    view, ds = first.view, first.ds
    return {
        "echo_time_ms": view.echo_time_ms,
        "repetition_time_ms": view.number("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
        "inversion_time_ms": view.inversion_time_ms,
        "slice_thickness_mm": view.number("PixelMeasuresSequence", "SliceThickness"),
        "spacing_mm": stack.spacing_mm,
        "tilt_degrees": stack.tilt_degrees,
        "convolution_kernel": view.text("CTReconstructionSequence", "ConvolutionKernel"),
        "field_strength_t": number(ds, "MagneticFieldStrength"),
        "manufacturer": text(ds, "Manufacturer"),
        "model_name": text(ds, "ManufacturerModelName"),
        "series_description": text(ds, "SeriesDescription"),
    }
