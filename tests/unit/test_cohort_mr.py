"""The synthetic MR cohort: repeatable, the same patient on two scanners, labels that follow what slices show."""

from dataclasses import replace

import numpy as np
import pytest

from inference.intracranial_mr import mr_intracranial_mask
from inference.labels import PUBLISHED_LABELS
from inference.mr_input import prepare
from inference.result import Reason
from inference.training.cohort_mr import acquire, acquire_parts, draw_scene, write_cohort
from inference.training.mr_cache import CachedScene, cached_scene, fill_cache
from inference.training.mr_lesions import PAINTERS, SHARES
from inference.training.mr_local import keep_sample, local_source, plain_source, split_by_patient
from inference.training.mr_scene import TISSUES, mixture_of
from inference.training.mr_signal import CONTRAST, SCANNERS, Landmarks, landmarks, slice_profile, uneven_brain
from inference.training.train_mr import augment, collate, cut_scene, sample_of_scene

FINE_MM = (4.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def scene():
    for seed in range(40):
        drawn = draw_scene(seed, prevalence=1.0, fine_mm=FINE_MM)
        if "encephalomalacia" in drawn.facts["categories"]:
            return drawn
    raise AssertionError("forty abnormal scenes without encephalomalacia")


def test_the_same_seed_gives_the_same_images_another_seed_others(scene):
    one, _ = acquire(scene, 3, scanner="A")
    again, _ = acquire(scene, 3, scanner="A")
    other, _ = acquire(scene, 4, scanner="A")
    assert np.array_equal(one.voxels, again.voxels)
    assert one.voxels.shape != other.voxels.shape or not np.array_equal(one.voxels, other.voxels)
    drawn, redrawn = (draw_scene(5, fine_mm=FINE_MM) for _ in range(2))
    assert np.array_equal(drawn.fractions, redrawn.fractions)
    assert drawn.facts == redrawn.facts


def test_two_scanners_show_the_same_patient_differently(scene):
    (a, truth_a), (b, truth_b) = (acquire(scene, 3, scanner=name) for name in "AB")
    assert a.geometry.spacing_zyx_mm[0] > b.geometry.spacing_zyx_mm[0]
    assert truth_a.facts["categories"] == truth_b.facts["categories"]
    index = PUBLISHED_LABELS.index("encephalomalacia")
    assert truth_a.study_labels[index]
    assert truth_b.study_labels[index]
    litres = [t.facts["lesion_ml"] for t in (truth_a, truth_b)]
    assert litres[0] == pytest.approx(litres[1], rel=0.35)


def test_two_processes_write_what_one_writes(tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        write_cohort(2, 4, tmp_path / name, prevalence=1.0, processes=processes)
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert {"labels.csv", "slice_labels.csv", "truth.csv"} < {str(name) for name in one}
    assert one == two


def test_a_lesion_that_changes_nothing_is_no_finding():
    scene = draw_scene(3, prevalence=0.0, fine_mm=FINE_MM)
    grey, white = scene.fractions[1], scene.fractions[0]
    everywhere = (slice(None),) * 3
    scene.paint(everywhere, (grey > 0.95).astype(np.float32), {"grey": 1.0}, "mass")
    assert not scene.lesions["mass"].any(), "cortex painted as cortex was called a lesion"
    scene.paint(everywhere, (white > 0.95).astype(np.float32), {"grey": 1.0}, "mass")
    assert np.array_equal(scene.lesions["mass"] > 0, scene.lesions["mass"] == 1)
    assert scene.lesions["mass"].sum() > 1000


def test_labels_follow_the_lesions(scene):
    _, truth = acquire(scene, 3, scanner="B")
    assert truth.study_labels[0] == truth.study_labels[1:].any()
    assert np.array_equal(truth.slice_labels[:, 0], truth.slice_labels[:, 1:].any(axis=1))
    shown = (truth.lesions > 0.5).sum(axis=(1, 2)) > 100
    assert truth.slice_labels[shown, 0].all()
    assert not truth.slice_labels[truth.lesions.max(axis=(1, 2)) == 0, 0].any()


def test_a_normal_head_has_variants_and_no_lesion():
    drawn = draw_scene(11, prevalence=0.0, fine_mm=FINE_MM)
    _, truth = acquire(drawn, 11)
    assert not drawn.lesions
    assert not truth.study_labels.any()
    assert drawn.facts["categories"] == []


def test_fluid_is_brightest_and_the_mask_finds_the_brain(scene):
    volume, fractions, _, _ = acquire_parts(scene, 3, scanner="A", pixel_mm=2.0)
    mask = mr_intracranial_mask(volume)
    assert not isinstance(mask, Reason)
    fluid = volume.voxels[mask & (fractions[TISSUES.index("csf")] > 0.95)]
    white = volume.voxels[mask & (fractions[TISSUES.index("white")] > 0.95)]
    assert np.median(fluid) > 1.6 * np.median(white)
    brain = fractions[: TISSUES.index("csf")].sum(axis=0) > 0.5
    assert mask[brain].mean() > 0.85


def test_fractions_are_shares(scene):
    assert scene.fractions.min() > -1e-4
    assert scene.fractions.sum(axis=0).max() < 1.01


def test_every_category_has_a_painter_and_lesions_outshine_cortex():
    assert set(SHARES) == set(PUBLISHED_LABELS[1:])
    assert set(PAINTERS) == set(SHARES) - {"mass", "atrophy"}
    assert sum(SHARES.values()) == pytest.approx(1)
    for brightness in (0.0, 0.3, 1.0):
        mixture = mixture_of(brightness)
        assert sum(mixture.values()) == pytest.approx(1)
        signal = sum(np.mean(CONTRAST[t]) * share for t, share in mixture.items())
        assert signal > np.mean(CONTRAST["grey"])


def test_slice_profiles_average_what_lies_in_the_slice():
    profile = slice_profile(100.0, 2.0, thickness_mm=5.0, gap_mm=1.0, first_mm=0.0)
    assert np.allclose(profile.sum(axis=1), 1)
    centres = profile @ (np.arange(50) * 2.0 + 1.0)
    assert np.allclose(np.diff(centres), 6.0, atol=0.2)


def test_a_healthy_brain_is_uneven_alike_on_both_sides_and_nothing_else_is():
    fractions = np.zeros((len(TISSUES), 4, 40, 40), np.float32)
    fractions[0, :, 5:35, 8:33] = 1.0  # white matter round column 20, no deep grey
    at = landmarks(fractions)
    assert at == Landmarks(pytest.approx(20.0), None)
    field = uneven_brain(np.random.default_rng(2), fractions, (5.0, 3.0, 3.0), at, SCANNERS["wide"])
    brain = fractions[0] > 0
    assert (field[~brain] == 1.0).all()
    assert field[brain].std() > 0.02
    np.testing.assert_allclose(field[..., 8:33], field[..., 8:33][..., ::-1], atol=1e-5)


def test_nuclei_with_iron_lie_beside_the_middle_of_the_deep_grey(scene):
    volume, fractions, _, _ = acquire_parts(scene, 4, scanner="A", pixel_mm=2.0)
    spacing = volume.geometry.spacing_zyx_mm
    at = landmarks(fractions)
    assert at.slice_row is not None
    z, y = (round(v) for v in at.slice_row)
    fields = [uneven_brain(np.random.default_rng(seed), fractions, spacing, at, SCANNERS["wide"]) for seed in range(8)]
    x = round(at.column + 18 / spacing[2]), round(at.column - 18 / spacing[2])
    beside = np.mean([f[z - 1, y, list(x)].mean() for f in fields])
    assert beside < 0.9 * np.mean([f[z + 6, y].max() for f in fields])


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> CachedScene:
    folder = tmp_path_factory.mktemp("cache")
    seeds = fill_cache(folder, [42], processes=1)
    assert seeds == [42]
    return cached_scene(folder, 42, prevalence=1.0)


def test_cached_scenes_train_under_another_scanner_each_time(cached):
    one, two = (sample_of_scene(cached, np.random.default_rng(s)) for s in (1, 2))
    assert not np.allclose(one.image, two.image)
    assert np.array_equal(one.study_labels, two.study_labels)
    batch = collate([augment(one, np.random.default_rng(3)), augment(two, np.random.default_rng(4))])
    assert batch.x.shape[1:] == (4, 128, 128)
    assert batch.lesions.shape == (len(batch.x), 8, 64, 64)
    assert sum(batch.lengths) == len(batch.x)


def test_a_cut_scene_keeps_the_labels_of_what_is_left(cached):
    marked = np.zeros_like(cached.slice_labels)
    marked[len(marked) // 2, [0, 2]] = True
    scene = replace(cached, slice_labels=marked, study_labels=marked.any(axis=0))
    seen = set()
    for seed in range(30):
        cut = cut_scene(scene, np.random.default_rng(seed), 6)
        assert len(cut.mask) == 6
        assert cut.study_labels[2] == cut.slice_labels[:, 2].any()
        seen.add(bool(cut.study_labels[0]))
    assert seen == {True, False}


def test_local_studies_are_kept_and_varied(scene, tmp_path):
    volume, truth = acquire(scene, 3, scanner="A")
    uids = [s.sop_instance_uid for s in volume.geometry.slices]
    slices = {uid: {"abnormal": int(v)} for uid, v in zip(uids, truth.slice_labels[:, 0], strict=True)}
    assert keep_sample(volume, {"abnormal": 1, "mass": None}, slices, tmp_path / "s.npz") is None
    plain, varied = plain_source(tmp_path / "s.npz"), local_source(tmp_path / "s.npz")
    sample = plain(np.random.default_rng(0))
    assert sample.lesions is None
    assert sample.study_labels[0] == 1
    assert np.isnan(sample.study_labels[2])
    assert np.nansum(sample.slice_labels[:, 0]) >= 1
    image, _ = prepare(volume, mr_intracranial_mask(volume))
    assert np.allclose(sample.image, image, atol=0.01)
    assert not np.allclose(varied(np.random.default_rng(1)).image, sample.image)


def test_patients_are_split_not_studies():
    patients = [f"p{i // 3}" for i in range(60)]
    positive = [i // 3 % 4 == 0 for i in range(60)]
    parts = split_by_patient(patients, positive, seed=1)
    by_patient = {p: {part for q, part in zip(patients, parts, strict=True) if q == p} for p in patients}
    assert all(len(found) == 1 for found in by_patient.values())
    for part in range(3):
        assert any(v for v, p in zip(positive, parts, strict=True) if p == part)
        assert not all(v for v, p in zip(positive, parts, strict=True) if p == part)
