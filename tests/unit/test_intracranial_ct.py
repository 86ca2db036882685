"""The CT mask: right size and place on heads that differ, and a coded refusal of what is no head."""

import numpy as np
import pytest

from inference.intracranial import intracranial_mask
from inference.result import Reason
from inference.training.cohort_ct import draw_ct
from inference.training.ct_tissue import clip_like_export
from inference.volume import Geometry, SliceSource, Volume


def volume_of(hu, spacing=(5.0, 1.0, 1.0), modality="CT"):
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    return Volume(
        voxels=np.ascontiguousarray(hu, np.float32),
        geometry=Geometry(
            shape_zyx=hu.shape,
            affine_lps_mm=affine,
            frame_of_reference_uid="",
            slices=tuple(SliceSource(sop_instance_uid=f"1.{z}", sop_class_uid="1.2") for z in range(len(hu))),
            positions_mm=tuple(float(z * spacing[0]) for z in range(len(hu))),
        ),
        modality=modality,
    )


def sphere_head(thickness=6.0, radius=75.0, brain=35.0, shape=(32, 220, 220)):
    """A ball of brain in a bony shell under scalp, 5 mm slices; the base is open as at the foramen magnum."""
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    r = np.sqrt((z * 5.0) ** 2 + (y * 0.85) ** 2 + x**2)
    hu = np.full(shape, -1000.0, np.float32)
    hu[r < radius + thickness + 5] = 40
    hu[r < radius + thickness] = 1000
    hu[r < radius] = brain
    hu[::, ::2, ::3] += 4  # some texture
    return hu, r < radius


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def found(hu, **more):
    mask = intracranial_mask(volume_of(hu, **more))
    assert isinstance(mask, np.ndarray), mask
    return mask


def test_a_closed_skull_gives_its_cavity():
    hu, truth = sphere_head()
    assert dice(found(hu), truth) > 0.95


def test_a_childs_thin_skull():
    hu, truth = sphere_head(thickness=2.5, radius=66)
    assert dice(found(hu), truth) > 0.93


def test_a_fracture_does_not_open_the_mask():
    hu, truth = sphere_head()
    hu[12:22, 30:60, 108:111] = np.where(hu[12:22, 30:60, 108:111] > 500, 40, hu[12:22, 30:60, 108:111])
    assert dice(found(hu), truth) > 0.94


def test_a_craniectomy_keeps_the_brain_and_leaves_the_scalp():
    hu, truth = sphere_head()
    gap = hu[12:22, :, :45]
    gap[gap > 500] = 45
    mask = found(hu)
    assert dice(mask, truth) > 0.88
    assert mask[truth].mean() > 0.85


def test_a_frontal_sinus_is_left_out():
    hu, truth = sphere_head(thickness=12)
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in hu.shape], indexing="ij")
    r = np.sqrt((z * 5.0) ** 2 + (y * 0.85) ** 2 + x**2)
    sinus = (r > 78) & (r < 84) & (y < -70) & (np.abs(x) < 25) & (np.abs(z) < 4)
    hu[sinus] = -950
    mask = found(hu)
    assert dice(mask, truth) > 0.94
    assert mask[sinus].mean() < 0.1


def test_blood_at_the_inner_table_and_calcium_inside_stay_in():
    hu, _ = sphere_head()
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in hu.shape], indexing="ij")
    r = np.sqrt((z * 5.0) ** 2 + (y * 0.85) ** 2 + x**2)
    film = (r > 72) & (r < 75) & (np.abs(z) < 5) & (x > 0)
    hu[film] = 70
    hu[14:17, 105:112, 100:106] = 400
    mask = found(hu)
    assert mask[film].mean() > 0.9
    assert mask[14:17, 105:112, 100:106].all()


@pytest.mark.parametrize("seed", [3, 6, 11])
def test_synthetic_heads(seed):
    """Held against the anatomy the head was drawn from, over slices above the skull base; clipped exports too."""
    volume, _ = draw_ct(seed, prevalence=0.0, scanner="A")
    mask = intracranial_mask(volume)
    assert isinstance(mask, np.ndarray)
    millilitres = mask.sum() * np.prod(volume.geometry.spacing_zyx_mm) / 1000
    assert 900 < millilitres < 2200
    clipped = intracranial_mask(Volume(voxels=clip_like_export(volume.voxels), geometry=volume.geometry, modality="CT"))
    assert isinstance(clipped, np.ndarray)
    assert dice(clipped, mask) > 0.95


@pytest.mark.parametrize(
    ("name", "hu", "code"),
    [
        ("water phantom", np.zeros((30, 256, 256), np.float32), "no_skull"),
        ("air", np.full((30, 256, 256), -1000, np.float32), "no_skull"),
        ("too few slices", np.zeros((2, 256, 256), np.float32), "not_a_head"),
        ("too small", np.zeros((30, 40, 40), np.float32), "not_a_head"),
    ],
)
def test_what_is_no_head_is_refused(name, hu, code):
    answer = intracranial_mask(volume_of(hu))
    assert isinstance(answer, Reason), name
    assert answer.code == code


def test_a_trunk_is_refused():
    """A ring of ribs around soft tissue and lung, wider than any skull."""
    _, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in (30, 256, 256)], indexing="ij")
    r = np.sqrt((y * 1.4 * 1.3) ** 2 + (x * 1.4) ** 2)
    hu = np.full(r.shape, -1000.0, np.float32)
    hu[r < 170] = 30
    hu[r < 155] = 700
    hu[r < 148] = -850
    hu[(r < 148) & (np.abs(x) < 30)] = 40
    answer = intracranial_mask(volume_of(hu, spacing=(5.0, 1.4, 1.4)))
    assert isinstance(answer, Reason)
    assert answer.code in {"not_a_head", "no_skull"}


def test_another_modality_is_refused():
    hu, _ = sphere_head()
    answer = intracranial_mask(volume_of(hu, modality="PT"))
    assert isinstance(answer, Reason)
    assert answer.code == "unsupported_modality"


@pytest.mark.shared_data
def test_real_heads_all_have_a_plausible_mask(shared_data):
    from inference.series_reader import read_volume

    folders = sorted((shared_data / "ct").iterdir())
    assert folders
    for folder in folders:
        volume = read_volume(sorted(folder.glob("*.dcm")))
        mask = intracranial_mask(volume)
        assert isinstance(mask, np.ndarray), folder.name
        millilitres = mask.sum() * np.prod(volume.geometry.spacing_zyx_mm) / 1000
        assert 1100 < millilitres < 2200, folder.name
        inside = volume.voxels[mask]
        assert 20 < np.median(inside) < 45
        assert (inside > 100).mean() < 0.05
        slices = np.flatnonzero(mask.any(axis=(1, 2)))
        assert np.array_equal(slices, np.arange(slices[0], slices[-1] + 1)), folder.name
