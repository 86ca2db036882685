"""The MR model as the engine sees it: evidence that adds up, a heatmap on the source's grid, reasons for refusals."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fixtures_training import phantom

from inference.abnormality import AbnormalityModel
from inference.abnormality_net import AbnormalityNetwork, network_of, slice_channels
from inference.calibration import Calibration
from inference.engine import Engine
from inference.mr_input import from_grid, grid_for, to_grid
from inference.volume import Geometry, SliceSource, Volume
from inference.weights import Metadata, OperatingPoint, WrongModel, save_model

PURPOSE = "mr_abnormality"


def save(folder, limits=None, purpose=PURPOSE):
    torch.manual_seed(0)
    network = AbnormalityNetwork(8, 16)
    metadata = Metadata(
        name="falx-mr-abnormality",
        version="test",
        purpose=purpose,
        architecture={"width": 8, "features": 16, "limits": limits or {}},
        operating_points={"alert": OperatingPoint(threshold=0.6), "triage": OperatingPoint(threshold=0.0)},
        default_operating_point="alert",
        calibration=Calibration(identifier="c-1", kind="platt"),
        training={"synthetic": True},
        intended_use="tests",
    )
    return save_model(folder, network.state_dict(), metadata)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "mr"
    save(path)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    engine = Engine({PURPOSE: folder}, device="cpu")
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def head():
    return phantom(1, lesion=True)[0]


def thin(volume, factor):
    """The same head with every slice cut into ``factor`` thin ones."""
    voxels = np.repeat(volume.voxels, factor, axis=0)
    old = volume.geometry
    affine = old.affine_lps_mm.copy()
    affine[:3, 0] /= factor
    slices = tuple(SliceSource(sop_instance_uid=f"2.25.{i}", sop_class_uid="1") for i in range(len(voxels)))
    step = old.spacing_zyx_mm[0] / factor
    geometry = Geometry(
        shape_zyx=voxels.shape,
        affine_lps_mm=affine,
        frame_of_reference_uid="",
        slices=slices,
        positions_mm=tuple(step * i for i in range(len(voxels))),
    )
    return Volume(voxels=voxels, geometry=geometry, modality="MR")


def test_an_answer_holds_together(engine, head):
    result = engine.analyse(PURPOSE, head)
    main = result.findings[0]
    assert result.reason is None
    assert main.label == "abnormal"
    assert main.operating_point == "alert"
    assert main.present == (main.probability >= main.threshold)
    assert [s.sop_instance_uid for s in main.slices] == [s.sop_instance_uid for s in head.geometry.slices]
    assert sum(s.attention for s in main.slices) == pytest.approx(1, abs=1e-4)
    assert len(result.findings) == 8
    assert not any(f.calibrated for f in result.findings[1:])
    assert result.heatmap.values.shape == head.voxels.shape
    assert 0 <= result.heatmap.values.min() <= result.heatmap.values.max() <= 1
    assert result.calibration_id == "c-1"


def test_the_score_is_the_weighted_sum_of_the_slices_shown():
    torch.manual_seed(1)
    network = AbnormalityNetwork(8, 16).eval()
    x = slice_channels(torch.randn(9, 128, 128), torch.ones(9, 128, 128), [4, 5])
    with torch.inference_mode():
        _, logits, weights, study = network(x, [4, 5])
        _, _, _, alone = network(x[4:], [5])
    assert torch.allclose(study[1], (weights[4:] * logits[4:]).sum(0), atol=1e-5)
    assert torch.allclose(weights[:4].sum(0), torch.ones(8), atol=1e-5)
    assert torch.allclose(study[1:], alone, atol=1e-4), "a study's answer depends on what shares its batch"


def test_a_network_that_compares_sides_sees_the_other_half():
    def reach(mirror):
        """Columns of the map that a change at the left edge moves."""
        torch.manual_seed(1)
        network = AbnormalityNetwork(8, 16, mirror=mirror).eval()
        plain = torch.zeros(1, 128, 128)
        changed = plain.clone()
        changed[:, 60:68, 8:16] = 3.0
        with torch.inference_mode():
            maps = [network(slice_channels(x, torch.ones_like(x), [1]), [1])[0] for x in (plain, changed)]
        moved = (maps[1] - maps[0]).abs().amax((0, 1, 2))
        return moved[60 - 4 :].max() / moved[4:8].max()

    assert reach(mirror=True) > 10 * reach(mirror=False)


def test_a_model_from_before_the_comparison_of_sides_still_loads(engine, head):
    assert engine.analyse(PURPOSE, head).findings[0].probability is not None  # ``save`` writes no "mirror"
    network = network_of({"width": 8, "features": 16, "mirror": True})
    assert network.mirror1 is not None
    assert network_of({"width": 8, "features": 16}).mirror1 is None


def test_batched_and_single_answers_agree(engine, head):
    other = phantom(2, lesion=False)[0]
    many = engine.analyse_many([(PURPOSE, head), (PURPOSE, other), (PURPOSE, head)])
    single = engine.analyse(PURPOSE, other).findings[0].probability
    assert many[1].findings[0].probability == pytest.approx(single, abs=1e-4)
    assert many[0].findings[0].probability == pytest.approx(many[2].findings[0].probability, abs=1e-6)


def test_thin_slices_are_averaged_and_share_their_evidence(engine, head):
    sliced = thin(head, 4)
    result = engine.analyse(PURPOSE, sliced)
    assert len(result.findings[0].slices) == 4 * 24
    assert sum(s.attention for s in result.findings[0].slices) == pytest.approx(1, abs=1e-3)
    assert result.heatmap.values.shape == sliced.voxels.shape


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: replace(v, modality="CT", voxels=v.voxels.copy()), "wrong_modality"),
        (lambda v: replace(v, voxels=np.zeros_like(v.voxels)), "not_a_head"),
    ],
)
def test_what_is_no_head_mr_is_declined(engine, head, change, code):
    result = engine.analyse(PURPOSE, change(head))
    assert result.reason.code == code
    assert result.heatmap is None
    assert result.findings[0].present is None
    assert result.findings[0].probability is None


def test_a_contrast_outside_what_training_saw_is_declined(tmp_path, head):
    save(tmp_path, limits={"high": (50.0, 60.0)})
    result = Engine({PURPOSE: tmp_path}, device="cpu").analyse(PURPOSE, head)
    assert result.reason.code == "unlike_training_data"
    assert "high" in result.reason.text


def test_a_model_for_another_purpose_is_refused(tmp_path, folder):
    save(tmp_path, purpose="slice_level")
    with pytest.raises(WrongModel, match="slice_level"):
        Engine({PURPOSE: tmp_path}, device="cpu")
    with pytest.raises(ValueError, match="knows no model purpose"):
        Engine({"knee": folder}, device="cpu")


def test_weights_of_another_shape_are_refused(tmp_path):
    save(tmp_path)
    text = (tmp_path / "metadata.json").read_text()
    (tmp_path / "metadata.json").write_text(text.replace('"width": 8', '"width": 9'))
    with pytest.raises(WrongModel, match="do not fit the architecture"):
        AbnormalityModel.load(tmp_path, device=torch.device("cpu"), operating_point=None)


def test_an_unknown_operating_point_is_refused(folder):
    with pytest.raises(WrongModel, match="alert, triage"):
        Engine({PURPOSE: folder}, device="cpu", operating_points={PURPOSE: "silent"})


def test_the_grid_there_and_back_keeps_positions(head):
    mask = np.zeros(head.voxels.shape, bool)
    mask[4:20, 20:90, 20:80] = True
    blob = np.zeros(head.voxels.shape, np.float32)
    blob[10:12, 40:50, 60:70] = 1
    grid = grid_for(mask, head.geometry.spacing_zyx_mm)
    back = from_grid(to_grid(blob, grid), grid)
    assert np.argwhere(back > 0.5).mean(axis=0) == pytest.approx(np.argwhere(blob > 0.5).mean(axis=0), abs=0.3)
    coarse = from_grid(to_grid(blob, grid)[:, ::2, ::2], grid)
    assert np.argwhere(coarse > 0.4).mean(axis=0) == pytest.approx(np.argwhere(blob > 0.5).mean(axis=0), abs=0.8)
