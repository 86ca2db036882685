"""What of a series is kept for the models: the head of a body, the brain of a head, everything in doubt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fixtures_bodies import head_ct, long_neck, whole_body

from inference.head_part import cut, only_head, slices_to_keep
from inference.intracranial import intracranial_mask
from inference.result import ModelId, Reason
from inference.slice_level import BRAIN, CLASSES, SliceLevelModel, SliceLevels
from inference.volume import Volume

MODEL = ModelId(name="m", version="1", weights_sha256="0" * 64)


def levels(chance: list[float], step_mm: float = 5.0) -> SliceLevels:
    """Slices with these chances of brain, all read at level 0: no anchor, so the chances alone decide."""
    probabilities = np.full((len(chance), len(CLASSES)), 0.0, dtype=np.float32)
    probabilities[:, BRAIN] = chance
    probabilities[:, 0] = 1 - probabilities[:, BRAIN]
    positions = tuple(step_mm * z for z in range(len(chance)))
    level = np.full(len(chance), 200.0, dtype=np.float32)
    return SliceLevels(probabilities=probabilities, level_mm=level, model=MODEL, positions_mm=positions)


@pytest.fixture(scope="module")
def head() -> Volume:
    return head_ct()


@pytest.fixture(scope="module")
def model() -> SliceLevelModel:
    return SliceLevelModel.load()


def test_a_margin_is_kept_on_both_ends() -> None:
    kept = slices_to_keep(levels([0.01] * 20 + [0.99] * 25 + [0.01] * 10))
    assert kept == range(17, 48)


def test_what_is_in_doubt_beside_the_brain_is_kept() -> None:
    kept = slices_to_keep(levels([0.01] * 12 + [0.3] * 8 + [0.99] * 25 + [0.01] * 10))
    assert kept == range(9, 48)


def test_doubt_does_not_bring_a_whole_body_back() -> None:
    kept = slices_to_keep(levels([0.3] * 200 + [0.99] * 25))
    assert kept is not None
    assert kept.stop == 225
    assert len(kept) < 45


@pytest.mark.parametrize(
    "chance",
    [
        [0.01] * 40,  # no brain at all
        [0.01] * 20 + [0.99] * 4 + [0.01] * 20,  # 15 mm of brain: nobody's head
        [0.99] * 80,  # 400 mm of brain
        [0.01] * 10 + [0.6] * 25 + [0.01] * 10,  # never sure
    ],
)
def test_an_answer_that_makes_no_sense_leaves_everything(chance: list[float]) -> None:
    assert slices_to_keep(levels(chance)) is None


def test_cut_keeps_sources_and_places(head: Volume) -> None:
    part = cut(head, range(4, 20))
    assert part.geometry.slices == head.geometry.slices[4:20]
    assert part.geometry.positions_mm == head.geometry.positions_mm[4:20]
    assert (part.voxels == head.voxels[4:20]).all()
    for index in ((0, 0, 0), (15, 30, 7)):
        here = part.geometry.affine_lps_mm @ np.array([*index, 1])
        there = head.geometry.affine_lps_mm @ np.array([index[0] + 4, *index[1:], 1])
        assert here == pytest.approx(there)


def test_cut_of_uneven_slices_starts_at_the_right_place(head: Volume) -> None:
    positions = np.array(head.geometry.positions_mm)
    positions[3:] += 2.5
    geometry = replace(head.geometry, positions_mm=tuple(positions))
    part = cut(replace(head, geometry=geometry), range(6, 20))
    first = head.geometry.affine_lps_mm @ np.array([0, 0, 0, 1])
    assert part.geometry.affine_lps_mm[2, 3] - first[2] == pytest.approx(positions[6] - positions[0])


def test_a_long_neck_is_left_out_and_no_brain_with_it(head: Volume, model: SliceLevelModel) -> None:
    neck = long_neck(head, 20)
    part = only_head(neck, model.levels(neck))
    assert isinstance(part, Volume)
    assert len(part.voxels) < len(neck.voxels) - 8
    assert any("left out as holding no brain" in note for note in part.notes)
    mask = intracranial_mask(head)
    assert not isinstance(mask, Reason)
    brain = {head.geometry.slices[z].sop_instance_uid for z in np.flatnonzero(mask.any(axis=(1, 2)))}
    assert brain <= {source.sop_instance_uid for source in part.geometry.slices}


def test_the_head_is_found_in_a_whole_body(head: Volume, model: SliceLevelModel) -> None:
    body = whole_body(head)
    part = only_head(body, model.levels(body))
    assert isinstance(part, Volume)
    heads = {source.sop_instance_uid for source in head.geometry.slices}
    kept = [source.sop_instance_uid for source in part.geometry.slices]
    assert sum(uid in heads for uid in kept) >= len(heads) - 8
    assert len(kept) < len(heads) + 10
    mask, alone = intracranial_mask(part), intracranial_mask(head)
    assert not isinstance(mask, Reason)
    assert not isinstance(alone, Reason)
    assert mask.sum() == pytest.approx(alone.sum(), rel=0.03)


def test_a_body_without_a_head_is_declined(head: Volume, model: SliceLevelModel) -> None:
    body = whole_body(head)
    trunk = cut(body, range(90))
    answer = only_head(trunk, model.levels(trunk))
    assert isinstance(answer, Reason)
    assert answer.code == "not_a_head"


def test_a_plain_head_loses_no_brain(head: Volume, model: SliceLevelModel) -> None:
    part = only_head(head, model.levels(head))
    assert isinstance(part, Volume)
    mask = intracranial_mask(head)
    assert not isinstance(mask, Reason)
    kept = {source.sop_instance_uid for source in part.geometry.slices}
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        assert head.geometry.slices[z].sop_instance_uid in kept
