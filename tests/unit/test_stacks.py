"""Slices into stacks: sorting, repeated positions, gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.stacks import Place, is_orientation, is_regular, main_stack, missing_positions, split

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def place(z: float, order: int = 0, orientation: tuple[float, ...] = AXIAL, **values: object) -> Place:
    position = (z, 0.0, 0.0) if orientation == SAGITTAL else (0.0, 0.0, z)
    return Place(
        position_mm=position,
        orientation=orientation,  # type: ignore[arg-type]
        rows=64,
        columns=64,
        order=(order, 0),
        **values,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("positions", "step", "missing"),
    [
        ([0, 5, 10, 15, 20], None, 0),
        ([0, 5, 15, 20, 25, 30], None, 1),
        ([0, 5, 10, 15, 30, 35, 40, 45], None, 2),
        ([0, 2.5, 5, 7.5, 10, 15, 20, 25, 30], None, 0),
        ([0, 2.5, 5, 7.5, 10, 15, 20, 25, 35, 40, 45, 50], None, 1),
        ([0, 10, 15, 20, 25, 30], None, 1),
        ([0, 10, 20, 30, 40], 5.0, 4),
        ([0, 6, 12, 18, 24], 5.0, 0),
        ([0, 5, 15, 25, 30], None, 2),
        ([0, 5.1, 9.9, 15.05, 20], None, 0),
        ([0], 5.0, 0),
    ],
)
def test_missing_positions(positions: list[float], step: float | None, missing: int) -> None:
    assert missing_positions(positions, step) == missing


@given(st.permutations(range(20)), st.sampled_from([1.0, 2.5, 5.0]), st.booleans())
def test_slices_are_sorted_feet_to_head_whatever_their_order(order: list[int], step: float, flipped: bool) -> None:
    orientation = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if flipped else AXIAL
    places = [place(step * z, orientation=orientation) for z in order]
    (stack,) = split(places)
    assert [places[i].position_mm[2] for i in stack.indices] == [step * z for z in range(20)]
    assert stack.duplicates == 0
    assert is_regular(stack.positions_mm)


def test_a_localizer_beside_an_axial_stack_is_set_apart() -> None:
    places = [place(x, orientation=SAGITTAL) for x in range(3)] + [place(5.0 * z) for z in range(20)]
    stacks = split(places)
    assert [len(s.indices) for s in stacks] == [20, 3]
    assert main_stack(places, stacks).normal == (0.0, 0.0, 1.0)


def test_axial_is_read_before_a_larger_sagittal_stack() -> None:
    places = [place(x, orientation=SAGITTAL) for x in range(60)] + [place(5.0 * z) for z in range(24)]
    assert len(main_stack(places, split(places)).indices) == 24


def test_of_two_echoes_the_later_is_the_t2() -> None:
    places = [
        place(5.0 * z, order=2 * z + n, echo_time_ms=echo, contrasts=("M", echo))
        for z in range(20)
        for n, echo in enumerate((20.0, 100.0))
    ]
    stacks = split(places)
    assert [s.duplicates for s in stacks] == [0, 0]
    assert {places[i].echo_time_ms for i in main_stack(places, stacks).indices} == {100.0}


def test_of_equal_slices_the_first_instance_is_kept() -> None:
    places = [place(5.0 * z, order=z) for z in range(10)] + [place(15.0, order=99)]
    (stack,) = split(places)
    assert (len(stack.indices), stack.duplicates) == (10, 1)
    assert 10 not in stack.indices


@given(st.lists(st.floats(-200, 200), min_size=1, max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_every_place_is_used_once_or_counted_as_duplicate(zs: list[float], sagittal: list[bool]) -> None:
    places = [place(z, i, SAGITTAL if s else AXIAL) for i, (z, s) in enumerate(zip(zs, sagittal, strict=False))]
    stacks = split(places)
    used = [i for s in stacks for i in s.indices]
    assert len(used) == len(set(used))
    assert len(used) + sum(s.duplicates for s in stacks) == len(places)
    for stack in stacks:
        assert np.all(np.diff(stack.positions_mm) > 0)


def test_orientation_must_be_two_unit_vectors_at_right_angles() -> None:
    assert is_orientation(AXIAL)
    assert not is_orientation((0.0,) * 6)
    assert not is_orientation((1.0, 0.0, 0.0, 1.0, 0.0, 0.0))
