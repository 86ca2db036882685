"""The synthetic CT cohort: deterministic, labelled truthfully, and proper DICOM that reads back unchanged."""

import csv
import subprocess

import numpy as np
import pytest
from scipy import ndimage

from inference.intracranial import intracranial_mask
from inference.series_reader import read_volume
from inference.training.anatomy import CHOROID_RAS_MM, draw_head, draw_traits
from inference.training.blob_baseline import blob_score
from inference.training.canvas import Canvas, push_brain
from inference.training.cohort_ct import LABELS, draw_ct, write_cohort
from inference.training.ct_tissue import clip_like_export, compose_hu
from inference.training.dicom_writer import SeriesHeader, synthetic_uid, write_series
from inference.training.mimics import paint_mimics


@pytest.fixture(scope="module")
def bleeding():
    return draw_ct(8, prevalence=1.0)


@pytest.fixture(scope="module")
def healthy():
    return draw_ct(8, prevalence=0.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort") / "ct"
    return write_cohort(2, 3, out, prevalence=1.0), out


def test_same_seed_same_study(bleeding):
    volume, truth = draw_ct(8, prevalence=1.0)
    assert np.array_equal(volume.voxels, bleeding[0].voxels)
    assert np.array_equal(truth.blood, bleeding[1].blood)
    assert volume.geometry.slices == bleeding[0].geometry.slices


def test_labels_follow_the_blood_that_can_be_seen(bleeding, healthy):
    volume, truth = bleeding
    seen = (truth.blood > 0.5) & (volume.voxels < 100)
    area_mm2 = seen.sum(axis=(2, 3)).T * np.prod(volume.geometry.spacing_zyx_mm[1:])
    assert truth.study_labels[0]
    assert not truth.slice_labels[:, 1:][area_mm2 < 10].any()
    assert truth.slice_labels[:, 1:][area_mm2 > 60].all()
    assert np.array_equal(truth.slice_labels[:, 0], truth.slice_labels[:, 1:].any(axis=1))
    assert not healthy[1].study_labels.any()
    assert healthy[1].blood.max() == 0


def test_acute_blood_is_denser_than_brain_and_lies_in_the_cavity(bleeding):
    volume, truth = bleeding
    blood = truth.blood.max(axis=0) > 0.9
    mask = intracranial_mask(volume)
    assert isinstance(mask, np.ndarray)
    brain = np.median(volume.voxels[mask & (volume.voxels > 0) & (volume.voxels < 80)])
    assert np.median(volume.voxels[blood]) > brain + 10
    # the pixel next to bone reads as bone: what touches the mask counts
    assert ndimage.binary_dilation(mask, np.ones((1, 3, 3), bool))[blood].mean() > 0.95


def test_two_scanners_show_the_same_patient():
    a, truth_a = draw_ct(21, prevalence=1.0, scanner="A")
    b, truth_b = draw_ct(21, prevalence=1.0, scanner="B")
    assert truth_a.facts["kinds"] == truth_b.facts["kinds"]
    assert truth_a.facts["age_years"] == truth_b.facts["age_years"]
    assert not np.array_equal(a.voxels, b.voxels)


def test_the_choroid_plexus_is_denser_than_brain_in_both_atria():
    seen = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        head = draw_head(rng, spacing_mm=(2.5, 1.0, 1.0), size_mm=(236.0, 206.0), traits=draw_traits(rng))
        canvas = Canvas(head, compose_hu(rng, head), np.zeros((5, *head.labels.shape), np.float32))
        brain_hu = np.median(canvas.hu[head.grey + head.white > 0.9])
        before = canvas.hu.copy()
        paint_mimics(canvas, rng)
        for point in CHOROID_RAS_MM:
            window = canvas.window(point, 8.0)
            fluid = head.distance_mm["ventricle"][window] < head.traits.ventricle_growth_mm
            painted = fluid & (canvas.hu[window] - before[window] > 15)
            seen.append(painted.sum() >= 8 and np.median(canvas.hu[window][painted]) > brain_hu)
    assert np.mean(seen) >= 0.75, seen


def test_export_clipping_keeps_the_window_and_nothing_else():
    hu = np.array([-500, -21, 0, 40.2, 99, 130, 1200], np.float32)
    clipped = clip_like_export(hu)
    assert clipped[[0, 1, 5, 6]].tolist() == [-1000, -1000, 1000, 1000]
    assert np.abs(clipped[2:5] - hu[2:5]).max() < 0.3


def test_a_mass_pushes_the_midline_but_not_the_skull():
    from inference.training.anatomy import draw_head

    head = draw_head(np.random.default_rng(1), spacing_mm=(5.0, 2.0, 2.0))
    pushed = push_brain(head, (-45.0, 0.0, 20.0), 8.0, 50.0)
    assert np.array_equal(head.distance_mm["cavity"], pushed.distance_mm["cavity"])
    assert np.abs(head.distance_mm["ventricle"] - pushed.distance_mm["ventricle"]).max() > 2.0


def test_blob_baseline_sees_a_large_bleed_and_declines_without_a_head(bleeding, healthy):
    assert blob_score(bleeding[0]) > 0
    empty, _ = healthy
    water = type(empty)(voxels=np.zeros_like(empty.voxels), geometry=empty.geometry, modality="CT")
    assert blob_score(water) is None


def test_files_read_back_as_drawn(cohort):
    _, out = cohort
    volume, _ = draw_ct(400_000, prevalence=1.0)
    read = read_volume(sorted((out / "series" / "00001").iterdir()))
    assert np.array_equal(read.voxels, volume.voxels)
    assert np.allclose(read.geometry.affine_lps_mm, volume.geometry.affine_lps_mm, atol=1e-3)
    assert [s.sop_instance_uid for s in read.geometry.slices] == [s.sop_instance_uid for s in volume.geometry.slices]


def test_label_files_speak_of_every_study_and_slice(cohort):
    labels, out = cohort
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    with (out / "slice_labels.csv").open() as file:
        slices = list(csv.DictReader(file))
    with (out / "truth.csv").open() as file:
        truth = list(csv.DictReader(file))
    assert set(rows[0]) == {"study_instance_uid", *LABELS}
    assert len(rows) == len(truth) == 2
    assert len(slices) == len(list((out / "series").rglob("*.dcm")))
    for row in rows:
        own = [s for s in slices if s["study_instance_uid"] == row["study_instance_uid"]]
        assert row["intracranial_haemorrhage"] == max(s["intracranial_haemorrhage"] for s in own)
    with np.load(out / "masks" / "00001.npz") as file:
        assert list(file["labels"]) == list(LABELS)
        assert file["mask"].max() <= len(LABELS)


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error(cohort):
    _, out = cohort
    for series in sorted((out / "series").iterdir()):
        file = sorted(series.iterdir())[3]
        said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stderr + said.stdout


def test_the_writer_refuses_children_other_modalities_and_overflow(tmp_path, healthy):
    volume, _ = healthy

    def header(**change):
        return SeriesHeader(**({"key": "k", "modality": "CT", "age_years": 40, "slice_thickness_mm": 5} | change))

    with pytest.raises(ValueError, match="adults"):
        write_series(volume, header(age_years=12), tmp_path)
    with pytest.raises(ValueError, match="CT and MR"):
        write_series(volume, header(modality="US"), tmp_path)
    loud = type(volume)(voxels=volume.voxels * 0 + np.float32(1e6), geometry=volume.geometry, modality="CT")
    with pytest.raises(ValueError, match="16 bits"):
        write_series(loud, header(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_uids_are_legal_and_differ():
    uids = {synthetic_uid("a", n) for n in range(50)}
    assert len(uids) == 50
    assert all(len(uid) <= 64 and uid.startswith("2.25.") for uid in uids)
