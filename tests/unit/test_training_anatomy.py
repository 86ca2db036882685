"""Synthetic heads: deterministic, anatomically plausible, and different from one another."""

import numpy as np
import pytest

from inference.training.anatomy import Tissue, draw_head, draw_traits

SPACING_MM = (5.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def head():
    return draw_head(np.random.default_rng(3), spacing_mm=SPACING_MM)


def test_same_seed_same_head_other_seed_other_head(head):
    again = draw_head(np.random.default_rng(3), spacing_mm=SPACING_MM)
    other = draw_head(np.random.default_rng(4), spacing_mm=SPACING_MM)
    assert np.array_equal(head.labels, again.labels)
    assert np.array_equal(head.grey, again.grey)
    assert head.labels.shape != other.labels.shape or not np.array_equal(head.labels, other.labels)


def test_fractions_fill_the_cavity_and_nothing_else(head):
    total = head.grey + head.white + head.csf
    assert total.max() <= 1.0 + 1e-4
    assert total[head.distance_mm["cavity"] < -2].min() > 0.95
    assert total[head.distance_mm["cavity"] > 3].max() < 0.05


def test_volumes_are_those_of_adults(head):
    voxel_ml = np.prod(SPACING_MM) / 1000
    brain_ml = float((head.grey + head.white).sum()) * voxel_ml
    ventricles_ml = float((head.labels == Tissue.VENTRICLE).sum()) * voxel_ml
    assert 750 < brain_ml < 1600
    assert 5 < ventricles_ml < 150
    assert 950 < head.intracranial.sum() * voxel_ml < 2000


def test_the_skull_encloses_the_cavity_in_a_slice_above_the_base(head):
    z = int(np.argmax(head.intracranial.sum(axis=(1, 2))))
    outside = head.distance_mm["cavity"][z] > 0.5
    shell = outside & (head.distance_mm["cavity"][z] < 2.0)
    assert np.isin(head.labels[z][shell], (Tissue.BONE, Tissue.DIPLOE)).mean() > 0.95


def test_every_tissue_occurs(head):
    assert set(np.unique(head.labels)) >= {int(t) for t in Tissue} - {int(Tissue.DIPLOE)}


def test_orientation_is_lps(head):
    """The globes lie in front (small y), the cerebellum behind (large y); x rises to the patient's left."""
    globes = np.argwhere(head.labels == Tissue.GLOBE).mean(axis=0)
    cerebellum = np.argwhere(head.labels == Tissue.CEREBELLUM).mean(axis=0)
    assert globes[1] < cerebellum[1]
    centre = np.array(head.labels.shape) // 2
    assert head.ras_mm[0][centre[0], centre[1], 0] > head.ras_mm[0][centre[0], centre[1], -1]


def test_age_opens_the_ventricles():
    drawn = [draw_traits(np.random.default_rng(seed)) for seed in range(200)]
    old = [t.ventricle_growth_mm for t in drawn if t.age_years > 75]
    young = [t.ventricle_growth_mm for t in drawn if t.age_years < 45]
    assert np.mean(old) > np.mean(young) + 1.0
    assert all(t.age_years >= 18 for t in drawn)
