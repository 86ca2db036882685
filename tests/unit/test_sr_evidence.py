"""Key slices and outlines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw

from dicom_sr.evidence import MAX_KEY_SLICES, MAX_OUTLINE_POINTS, head_box, key_slices, peak_outline
from inference.result import Finding, SliceEvidence
from tests.fixtures_sr import volume


def finding(attention: list[float], probability: list[float], threshold: float = 0.5) -> Finding:
    slices = tuple(
        SliceEvidence(sop_instance_uid=f"1.{n}", frame_number=None, probability=p, attention=a)
        for n, (a, p) in enumerate(zip(attention, probability, strict=True))
    )
    return Finding(label="mass", probability=0.9, threshold=threshold, operating_point="b", present=True, slices=slices)


@pytest.mark.parametrize(
    ("attention", "probability", "expected"),
    [
        ([0.1, 0.6, 0.25, 0.05], [0.9, 0.9, 0.9, 0.9], (1, 2)),  # 85 % in two slices
        ([0.1, 0.6, 0.25, 0.05], [0.9, 0.9, 0.1, 0.9], (1,)),  # below the threshold: left out
        ([0.1, 0.6, 0.25, 0.05], [0.1, 0.1, 0.1, 0.1], (1,)),  # none above: the most attended one
        ([0.1] * 10, [0.9] * 10, (0, 1, 2, 3, 4)),  # eight slices hold 80 %, five are shown
        ([0.0, 0.0], [0.9, 0.9], (0,)),
        ([], [], ()),
    ],
)
def test_key_slices(attention: list[float], probability: list[float], expected: tuple[int, ...]) -> None:
    assert key_slices(finding(attention, probability)) == expected


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_key_slices_are_few_and_never_none(slices: list[tuple[float, float]]) -> None:
    chosen = key_slices(finding([a for a, _ in slices], [p for _, p in slices]))
    assert 1 <= len(chosen) <= MAX_KEY_SLICES
    assert len(set(chosen)) == len(chosen)


def test_outline_of_a_square_is_its_corners() -> None:
    heat = np.zeros((20, 30), dtype=np.float32)
    heat[5:9, 10:16] = 1
    heat[15, 25] = 0.9  # another warm pixel, not connected
    assert set(peak_outline(heat)) == {(10, 5), (16, 5), (16, 9), (10, 9)}


def test_a_cold_slice_has_no_outline() -> None:
    assert peak_outline(np.zeros((4, 4), dtype=np.float32)) == ()


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (17, 23), elements=st.floats(0, 1, width=32)))
def test_outline_is_closed_inside_the_image_and_holds_the_peak(heat: np.ndarray) -> None:
    outline = peak_outline(heat)
    if heat.max() == 0:
        assert outline == ()
        return
    assert outline[0] == outline[-1]
    assert 4 <= len(outline) <= MAX_OUTLINE_POINTS
    assert all(0 <= x <= 23 and 0 <= y <= 17 for x, y in outline)
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    grid = Image.new("1", (23 * 8, 17 * 8))
    ImageDraw.Draw(grid).polygon([(px * 8, py * 8) for px, py in outline], fill=1, outline=1)
    near = np.asarray(grid)[max(0, y * 8 - 16) : y * 8 + 24, max(0, x * 8 - 16) : x * 8 + 24]
    assert near.any()


def test_head_box_holds_the_skull() -> None:
    assert head_box(volume(size=128), 16) == (17, 7, 111, 121)
