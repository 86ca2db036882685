"""The haemorrhage model: what enters the softmax, what comes back on the source grid, what is declined."""

import numpy as np
import pytest
import torch

from inference.calibration import Calibration
from inference.ct_input import (
    BRAIN_MEDIAN_HU,
    COLUMNS,
    ROWS,
    prepare_ct,
    resample_like,
    to_source_grid,
    without_partial_volume,
)
from inference.haemorrhage import LABEL, HaemorrhageModel, read, unlike_training
from inference.haemorrhage_net import HaemorrhageNetwork, StudyNetwork, slice_channels
from inference.intracranial import intracranial_mask
from inference.labels import HAEMORRHAGE_KINDS
from inference.training.cohort_ct import draw_ct
from inference.volume import Geometry, SliceSource, Volume
from inference.weights import Metadata, OperatingPoint, WrongModel, save_model, shipped

SHAPE = {"width": 4, "features": 8, "hidden": 4}


@pytest.fixture(scope="module")
def head():
    volume, _ = draw_ct(8, prevalence=1.0, scanner="A")
    return volume


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return HaemorrhageNetwork(**SHAPE).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("model")
    metadata = Metadata(
        name="tiny",
        version="0",
        purpose="ct_haemorrhage",
        architecture=SHAPE,
        operating_points={"alert": OperatingPoint(threshold=0.9), "triage": OperatingPoint(threshold=0.0)},
        default_operating_point="alert",
        calibration=Calibration(identifier="test", kind="platt", slope=1.0, intercept=0.1),
        training={},
        intended_use="test",
    )
    save_model(path, network.state_dict(), metadata)
    return path


def replaced(volume, voxels, modality="CT"):
    return Volume(voxels=np.asarray(voxels, np.float32), geometry=volume.geometry, modality=modality)


def test_padding_never_enters_the_softmax():
    torch.manual_seed(0)
    study = StudyNetwork(feature_size=14, hidden=4).eval()
    features = torch.randn(1, 5, 14)
    alone, attention = study(features, torch.tensor([5]))
    padded = torch.cat([features, torch.full((1, 7, 14), 50.0)], dim=1)
    beside = torch.cat([padded, torch.randn(1, 12, 14)])
    together, shared = study(beside, torch.tensor([5, 12]))
    assert torch.allclose(alone[0], together[0], atol=1e-5)
    assert torch.allclose(attention[0], shared[0, :5], atol=1e-6)
    assert shared[0, 5:].abs().max() == 0
    assert torch.allclose(shared.sum(dim=1), torch.ones(2))


def test_what_lies_outside_the_mask_cannot_speak():
    hu = torch.full((1, 64, 64), 40.0)
    mask = torch.zeros(1, 64, 64)
    mask[:, 20:40, 20:40] = 1
    loud = hu.clone()
    loud[:, :12] = 90.0
    assert torch.equal(slice_channels(hu, mask, hu, hu), slice_channels(loud, mask, loud, loud))
    loud[:, 25, 25] = 90.0
    assert not torch.equal(slice_channels(hu, mask, hu, hu), slice_channels(loud, mask, loud, loud))


def test_prepared_brain_has_its_median_at_33_hu_and_maps_return_to_their_place(head):
    mask = intracranial_mask(head)
    prepared = prepare_ct(head, mask)
    assert prepared.hu.shape[1:] == (ROWS, COLUMNS)
    inside = prepared.hu[prepared.mask]
    assert abs(np.median(inside[(inside > 0) & (inside < 80)]) - BRAIN_MEDIAN_HU) < 1.5
    back = to_source_grid(prepared, resample_like(prepared, mask.astype(np.float32))) > 0.5
    used = prepared.group >= 0
    assert 2 * (back & mask)[used].sum() / (back[used].sum() + mask[used].sum()) > 0.98


def test_thin_slices_are_grouped_and_share_their_groups_answer(head, folder):
    thin = np.repeat(head.voxels, 4, axis=0)
    affine = head.geometry.affine_lps_mm.copy()
    affine[:3, 0] /= 4
    geometry = Geometry(
        shape_zyx=thin.shape,
        affine_lps_mm=affine,
        frame_of_reference_uid="",
        slices=tuple(SliceSource(sop_instance_uid=f"1.{z}", sop_class_uid="1.2") for z in range(len(thin))),
        positions_mm=tuple(float(z) for z in range(len(thin))),
    )
    volume = Volume(voxels=thin, geometry=geometry, modality="CT")
    prepared = prepare_ct(volume, intracranial_mask(volume))
    assert len(prepared.hu) < len(thin) / 3
    model = HaemorrhageModel.load(folder, device=torch.device("cpu"))
    finding = model.analyse([volume])[0].findings[0]
    assert len(finding.slices) == len(thin)
    assert sum(s.attention for s in finding.slices) == pytest.approx(1.0, abs=1e-4)


def test_an_answer_is_complete(head, folder):
    model = HaemorrhageModel.load(folder, device=torch.device("cpu"))
    model.warm_up()
    first, second = model.analyse([head, head])
    assert first.findings[0] == second.findings[0]
    main = first.findings[0]
    assert main.label == LABEL
    assert 0 <= main.probability <= 1
    assert main.present == (main.probability >= main.threshold)
    assert [f.label for f in first.findings[1:]] == list(HAEMORRHAGE_KINDS)
    assert [s.sop_instance_uid for s in main.slices] == [s.sop_instance_uid for s in head.geometry.slices]
    assert first.heatmap.values.shape == head.voxels.shape
    assert first.heatmap.values[~intracranial_mask(head)].max() == 0
    assert first.calibration_id == "test"
    assert first.model == model.model_id


def test_the_operating_point_decides_present(head, folder):
    loose = HaemorrhageModel.load(folder, device=torch.device("cpu"), operating_point="triage")
    assert loose.analyse([head])[0].findings[0].present is True
    with pytest.raises(WrongModel, match="no operating point"):
        HaemorrhageModel.load(folder, device=torch.device("cpu"), operating_point="absent")


def test_mirroring_the_head_changes_nothing(head, network):
    prepared = prepare_ct(head, intracranial_mask(head))
    plain = read(network, prepared.hu, prepared.mask, torch.device("cpu"))
    flipped = read(network, prepared.hu[:, :, ::-1], prepared.mask[:, :, ::-1], torch.device("cpu"))
    assert np.allclose(plain.logits, flipped.logits, atol=1e-4)
    assert np.allclose(plain.blood, flipped.blood[:, :, ::-1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mr", "unsupported_modality"),
        ("water", "no_skull"),
        ("noise", "too_noisy"),
        ("contrast", "contrast_suspected"),
        ("shifted", "unusual_density"),
    ],
)
def test_what_is_no_plain_head_ct_is_undetermined(head, folder, name, code):
    hu = head.voxels.copy()
    mask = intracranial_mask(head)
    modality = "CT"
    if name == "mr":
        modality = "OT"
    elif name == "water":
        hu[:] = 0
    elif name == "noise":
        hu[mask] += np.random.default_rng(0).normal(0, 45, int(mask.sum())).astype(np.float32).clip(-60, 60)
    elif name == "contrast":  # vessels: columns of 5 x 5 pixels every 26
        y, x = np.mgrid[: hu.shape[1], : hu.shape[2]]
        hu[mask & ((y % 26 < 5) & (x % 26 < 5))] = 180
    elif name == "shifted":
        hu[mask & (hu < 80)] = np.clip(hu[mask & (hu < 80)] + 28, -100, 90)
    result = HaemorrhageModel.load(folder, device=torch.device("cpu")).analyse([replaced(head, hu, modality)])[0]
    assert result.reason is not None, name
    assert result.reason.code == code
    assert result.findings[0].present is None
    assert result.findings[0].probability is None
    assert result.heatmap is None


def test_synthetic_heads_are_not_unlike_training(head):
    assert unlike_training(prepare_ct(head, intracranial_mask(head))) is None


@pytest.mark.shared_data
def test_real_scans(shared_data):
    """A smoke test on eight real CTs: no normal alerted, heatmap peaks in the mask and, in most bleeds, on blood."""
    import csv

    from inference.series_reader import read_volume

    with (shared_data / "ct_labels.csv").open() as file:
        labelled = {row["sop_instance_uid"]: row["haemorrhage"] == "1" for row in csv.DictReader(file)}
    model = HaemorrhageModel.load(shipped("ct_haemorrhage"), device=torch.device("cpu"))
    alerted, pointed, bleeds = [], 0, 0
    for folder in sorted((shared_data / "ct").iterdir()):
        volume = read_volume(sorted(folder.glob("*.dcm")))
        result = model.analyse([volume])[0]
        assert result.reason is None, folder.name
        truth = [labelled[s.sop_instance_uid] for s in volume.geometry.slices]
        heat = result.heatmap.values
        peak = np.unravel_index(int(heat.argmax()), heat.shape)
        assert intracranial_mask(volume)[peak]
        if any(truth):
            bleeds += 1
            pointed += truth[int(peak[0])]
        elif result.findings[0].present:
            alerted.append(folder.name)
    assert alerted == []
    assert bleeds == 4
    assert pointed >= 3


def test_the_sloping_vault_is_taken_off_near_the_vertex_only():
    y, x = np.mgrid[:192, :160]
    radius = [60, 70, 60, 40, 12, 8]
    mask = np.stack([np.hypot(y - 96, x - 80) < r for r in radius])
    kept = without_partial_volume(mask)
    assert np.array_equal(kept[0], mask[0])
    assert 0.9 * mask[1].sum() < kept[1].sum() < mask[1].sum()
    assert np.hypot(*(np.argwhere(kept[3]) - (96, 80)).T).max() <= 12 + 8
    assert not kept[-1].any()
    assert (kept & ~mask).sum() == 0
