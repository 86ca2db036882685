"""The MR mask on a phantom with known walls, and on the real series when they are there."""

import numpy as np
import pytest

from inference.intracranial_mr import mr_intracranial_mask
from inference.result import Reason
from inference.volume import Geometry, SliceSource, Volume

SPACING_MM = (5.0, 1.0, 1.0)


def volume(voxels, spacing_mm=SPACING_MM):
    step_z, step_y, step_x = spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, step_x], [0, step_y, 0], [step_z, 0, 0]]
    n = len(voxels)
    geometry = Geometry(
        shape_zyx=voxels.shape,
        affine_lps_mm=affine,
        frame_of_reference_uid="",
        slices=tuple(SliceSource(sop_instance_uid=f"2.25.{i + 1}", sop_class_uid="1") for i in range(n)),
        positions_mm=tuple(step_z * i for i in range(n)),
    )
    return Volume(voxels=voxels.astype(np.float32), geometry=geometry, modality="MR")


def ellipsoid(radii_mm, centre_z_mm=70.0, shape=(28, 230, 200)):
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    z, y, x = z * SPACING_MM[0] - centre_z_mm, y - 115.0, x - 100.0
    return (z / radii_mm[0]) ** 2 + (y / radii_mm[1]) ** 2 + (x / radii_mm[2]) ** 2 < 1


def phantom():
    """Brain 400, skull 40, scalp 900, air noise; returns the signal and the true cavity."""
    rng = np.random.default_rng(0)
    signal = np.abs(rng.normal(0, 8, (28, 230, 200)))
    signal[ellipsoid((80, 104, 86))] = 900
    signal[ellipsoid((74, 97, 79))] = 40
    cavity = ellipsoid((66, 88, 70))
    signal[cavity] = 400
    return signal + rng.normal(0, 15, signal.shape), cavity


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_cavity_is_found():
    signal, cavity = phantom()
    mask = mr_intracranial_mask(volume(signal))
    assert not isinstance(mask, Reason)
    assert dice(mask[6:], cavity[6:]) > 0.95
    outside = ~ellipsoid((80, 104, 86))
    assert not (mask & outside).any()


@pytest.mark.parametrize("gain", [0.01, 30.0])
def test_the_unit_of_the_signal_does_not_matter(gain):
    signal, _ = phantom()
    assert dice(mr_intracranial_mask(volume(signal)), mr_intracranial_mask(volume(gain * signal))) > 0.99


def test_coil_shading_does_not_move_the_mask():
    signal, cavity = phantom()
    shaded = signal * np.linspace(0.6, 1.6, signal.shape[1])[None, :, None]
    assert dice(mr_intracranial_mask(volume(shaded))[6:], cavity[6:]) > 0.9


def test_a_dark_and_a_bright_lesion_at_the_rim_stay_inside():
    signal, _cavity = phantom()
    dark = (slice(13, 16), slice(105, 120), slice(50, 62))
    bright = (slice(13, 16), slice(105, 120), slice(140, 160))
    signal[dark], signal[bright] = 150, 1000
    mask = mr_intracranial_mask(volume(signal))
    assert mask[dark].mean() > 0.9
    assert mask[bright].mean() > 0.9


@pytest.mark.parametrize(
    "voxels",
    [
        np.zeros((20, 200, 200)),
        np.full((20, 200, 200), 300.0),
        np.random.default_rng(1).rayleigh(20, (20, 200, 200)),
        np.full((2, 200, 200), 300.0),
        np.full((20, 60, 60), 300.0),
    ],
    ids=["zeros", "constant", "noise", "two slices", "small field"],
)
def test_what_is_no_head_is_refused(voxels):
    refused = mr_intracranial_mask(volume(voxels))
    assert isinstance(refused, Reason)
    assert refused.code in {"not_a_head", "incomplete_head"}


def test_a_leg_is_no_head():
    signal = np.zeros((24, 200, 200))
    y, x = np.ogrid[:200, :200]
    signal[:, np.hypot(y - 100, x - 100) < 60] = 900
    signal[:, np.hypot(y - 100, x - 100) < 52] = 300
    signal[:, np.hypot(y - 100, x - 100) < 14] = 30
    signal[:, np.hypot(y - 100, x - 100) < 9] = 700
    assert isinstance(mr_intracranial_mask(volume(signal)), Reason)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["volunteer", "ms-01-1", "tcga-fg6692"])
def test_real_heads_have_a_brain_of_human_size(name, shared_data):
    from inference.series_reader import read_volume

    real = read_volume(sorted((shared_data / "mr" / name).glob("*.dcm")))
    mask = mr_intracranial_mask(real)
    assert not isinstance(mask, Reason)
    litres = mask.sum() * np.prod(real.geometry.spacing_zyx_mm) / 1e6
    assert 1.1 < litres < 2.1
