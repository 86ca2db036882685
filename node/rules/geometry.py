"""A series' geometry from its headers: stacks, coverage, gaps, tilt. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from inference import stacks
from node.headers import Header

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesGeometry:
    """The stack that would be analysed, and what else is in the series. Lengths in mm, angles in degrees.

    ``slices`` name the stack's images feet to head as (index into the headers, frame counted from 1 or None).
    ``coverage_mm`` is the stack's extent and one slice more; ``missing`` counts positions absent from its spacing.
    """

    slices: tuple[tuple[int, int | None], ...]
    normal: tuple[float, float, float]
    tilt_degrees: float
    positions_mm: tuple[float, ...]
    spacing_mm: float | None
    thickness_mm: float | None
    coverage_mm: float
    field_of_view_mm: tuple[float, float] | None
    regular: bool
    missing: int
    duplicates: int
    stack_sizes: tuple[int, ...]
    unplaced: int
    sheared: bool


def geometry_of(headers: Sequence[Header]) -> SeriesGeometry | None:
    """Return the geometry of a series' main stack; None when no image has position, orientation and size."""
    places, origins, unplaced = _places(headers)
    if not places:
        return None
    found = stacks.split(places)
    stack = stacks.main_stack(places, found)
    first = headers[origins[stack.indices[0]][0]]
    thickness = first.slice_thickness_mm if first.slice_thickness_mm and first.slice_thickness_mm > 0 else None
    return SeriesGeometry(
        slices=tuple(origins[i] for i in stack.indices),
        normal=stack.normal,
        tilt_degrees=stack.tilt_degrees,
        positions_mm=stack.positions_mm,
        spacing_mm=stack.spacing_mm,
        thickness_mm=thickness,
        coverage_mm=stack.extent_mm + (stack.spacing_mm or thickness or 0.0),
        field_of_view_mm=_field_of_view(first),
        regular=stacks.is_regular(stack.positions_mm),
        missing=stacks.missing_positions(stack.positions_mm, _expected_step(first, thickness)),
        duplicates=stack.duplicates,
        stack_sizes=tuple(len(s.indices) for s in found),
        unplaced=unplaced,
        sheared=stacks.shear_degrees([places[i].position_mm for i in stack.indices], stack.normal) > 0.5,
    )


def _places(headers: Sequence[Header]) -> tuple[list[stacks.Place], list[tuple[int, int | None]], int]:
    places: list[stacks.Place] = []
    origins: list[tuple[int, int | None]] = []
    unplaced = 0
    for index, header in enumerate(headers):
        if not header.rows or not header.columns:
            unplaced += 1
            continue
        for frame, position in enumerate(header.frame_positions_mm):
            orientation = _pick(header.frame_orientations, frame)
            if position is None or orientation is None or not stacks.is_orientation(orientation):
                unplaced += 1
                continue
            places.append(_place(header, frame, position, orientation))
            origins.append((index, frame + 1 if (header.number_of_frames or 1) > 1 else None))
    return places, origins, unplaced


def _place(header: Header, frame: int, position: stacks.Vector3, orientation: stacks.Vector6) -> stacks.Place:
    echo = _pick(header.frame_echo_times_ms, frame) if header.frame_echo_times_ms else header.echo_time_ms
    b_value = _pick(header.frame_b_values, frame) if header.frame_b_values else header.b_value
    frame_type = _pick(header.frame_types, frame) or "\\".join(header.image_type)
    return stacks.Place(
        position_mm=position,
        orientation=orientation,
        rows=header.rows or 0,
        columns=header.columns or 0,
        order=(header.instance_number or 0, frame),
        echo_time_ms=echo,
        b_value=b_value,
        contrasts=(
            frame_type,
            echo,
            b_value,
            _pick(header.frame_stacks, frame),
            header.temporal_position,
            header.acquisition_number,
        ),
    )


def _pick(values: Sequence[T], frame: int) -> T | None:
    """A frame's value; one value stands for all frames."""
    if len(values) == 1:
        return values[0]
    return values[frame] if frame < len(values) else None


def _field_of_view(header: Header) -> tuple[float, float] | None:
    if header.pixel_spacing_mm is None or not header.rows or not header.columns:
        return None
    return header.rows * header.pixel_spacing_mm[0], header.columns * header.pixel_spacing_mm[1]


def _expected_step(header: Header, thickness_mm: float | None) -> float | None:
    """The step between slices that the header promises; None when it says nothing that can be relied on.

    CT slices are not farther apart than thick. Of MR's Spacing Between Slices some vendors write the gap alone.
    """
    stated = header.spacing_between_slices_mm
    if stated and stated > 0 and (thickness_mm is None or stated >= 0.99 * thickness_mm):
        return stated
    return thickness_mm if header.modality == "CT" else None
