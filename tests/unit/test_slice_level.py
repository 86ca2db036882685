"""The slice-level model: input, runs of brain, training on a project; the shipped model on real series."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from inference.head_part import only_head
from inference.result import ModelId
from inference.series_reader import read_volume
from inference.slice_level import BRAIN, CLASSES, SIDE_PX, SliceLevelModel, SliceLevels, prepare
from inference.training.slice_level_project import LabelledSlices, train_project
from inference.training.train_slices import vary
from inference.volume import Volume
from inference.weights import shipped
from node.cli import app

MODEL = ModelId(name="m", version="1", weights_sha256="0" * 64)


def levels(brain: list[int]) -> SliceLevels:
    chance = np.zeros((len(brain), len(CLASSES)), dtype=np.float32)
    chance[np.arange(len(brain)), [BRAIN if one else 0 for one in brain]] = 1
    return SliceLevels(probabilities=chance, level_mm=np.zeros(len(brain), dtype=np.float32), model=MODEL)


@pytest.mark.parametrize(
    ("brain", "run"),
    [
        ([0, 0, 1, 1, 1, 1, 0], range(2, 6)),
        ([0, 1, 1, 0, 1, 1, 0], range(1, 6)),  # a doubtful slice inside
        ([1, 0, 0, 0, 0, 1, 1, 1, 0], range(5, 8)),  # a stray vote in the legs of a whole-body series
        ([0, 1, 0, 0, 0, 1, 0], None),
        ([0, 0, 0], None),
    ],
)
def test_longest_run_of_brain(brain: list[int], run: range | None) -> None:
    assert levels(brain).brain_run() == run


def test_a_run_of_little_but_doubt_is_no_head() -> None:
    found = levels([1] * 12)
    found.probabilities[3:, BRAIN] = 0.8
    assert found.brain_run() is None
    found.probabilities[3:9, BRAIN] = 0.95
    assert found.brain_run() == range(12)


def test_prepared_slices_have_one_size_whatever_the_matrix() -> None:
    rng = np.random.default_rng(0)
    for rows, columns, spacing in ((512, 512, 0.45), (256, 320, 0.9), (64, 64, 8.0), (700, 300, 0.3)):
        picture = rng.normal(30, 5, (2, rows, columns)).astype(np.float32)
        assert prepare(picture, (spacing, spacing), True).shape == (2, 2, SIDE_PX, SIDE_PX)
    blank = prepare(np.zeros((1, 128, 128), np.float32), (1, 1), False)
    assert torch.isfinite(blank).all()


def test_ct_and_mr_are_told_apart_and_scaled() -> None:
    picture = np.full((1, 230, 230), 40.0, np.float32)
    ct, mr = prepare(picture, (1, 1), True), prepare(picture, (1, 1), False)
    assert float(ct[0, 0].max()) == pytest.approx(0.5)
    assert float(mr[0, 0].max()) == pytest.approx(1.0)
    assert float(ct[0, 1].min()) == 1.0
    assert float(mr[0, 1].max()) == 0.0


def test_variation_keeps_shape_and_channel() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(4, 2, SIDE_PX, SIDE_PX)
    varied = vary(pictures)
    assert varied.shape == pictures.shape
    assert torch.equal(varied[:, 1], pictures[:, 1])
    assert not torch.equal(varied[:, 0], pictures[:, 0])


def discs(number: int) -> LabelledSlices:
    """Discs that shrink with the level, of ten patients; three classes."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1.5, 1.5, number)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    pictures = [((np.hypot(x, y) < 0.55 - 0.25 * score) * 60).astype(np.int16) for score in scores]
    return LabelledSlices(
        pictures=pictures,
        is_ct=[True] * number,
        aspect=[1.0] * number,
        labels=np.digitize(scores, (-0.5, 0.5)).tolist(),
        scores=scores.tolist(),
        groups=[f"p{index % 10}" for index in range(number)],
        classes=("low", "middle", "high"),
    )


def test_project_is_learned_and_the_model_folder_loads(tmp_path: Path) -> None:
    record = train_project(tmp_path / "model", discs(300), name="discs", epochs=10, seed=0, say=lambda _: None)
    assert record["test"]["accuracy"] > 0.6
    assert record["patients_kept_apart"]
    model = SliceLevelModel.load(tmp_path / "model")
    assert model.classes == ("low", "middle", "high")
    with pytest.raises(ValueError, match="too few"):
        train_project(tmp_path / "none", discs(10), name="few", epochs=1, seed=0, say=lambda _: None)


@pytest.mark.shared_data
def test_shipped_model_on_real_series(shared_data: Path) -> None:
    if not shipped("slice_level").is_dir():
        pytest.skip("no shipped slice-level model")
    from node.slice_projects import evaluate

    result = evaluate(shared_data / "slice_level.csv", shared_data, None, None)
    shares = {name: row["share"] for name, row in result["series"].items()}
    assert len(shares) >= 11
    assert min(shares.values()) >= 0.97, shares
    assert result["share"] >= 0.99, shares


@pytest.mark.shared_data
def test_no_slice_with_brain_is_left_out_of_a_real_series(shared_data: Path) -> None:
    model = SliceLevelModel.load()
    with (shared_data / "slice_level.csv").open(newline="", encoding="utf-8") as file:
        brain = {row["sop_instance_uid"] for row in csv.DictReader(file) if row["brain"] == "1"}
    seen = 0
    for folder in [*(shared_data / "ct").iterdir(), *(shared_data / "mr").iterdir()]:
        if not folder.is_dir():
            continue
        volume = read_volume([path for path in folder.rglob("*") if path.is_file()])
        part = only_head(volume, model.levels(volume))
        assert isinstance(part, Volume), folder.name
        whole, kept = ({one.sop_instance_uid for one in found.geometry.slices} for found in (volume, part))
        assert (whole & brain) <= kept, folder.name
        seen += len(whole & brain)
    assert seen > 200


def test_evaluate_names_the_missing_file(tmp_path: Path) -> None:
    run = CliRunner().invoke(
        app, ["evaluate", "slices", "--labels", str(tmp_path / "none.csv"), "--studies", str(tmp_path)]
    )
    assert run.exit_code != 0
    assert "none.csv" in str(run.exception)
