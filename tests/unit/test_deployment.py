"""Deployed models: accepted only when no worse, versions side by side, the one before within reach."""

import os
from dataclasses import replace

import pytest
import torch

from inference.calibration import Calibration
from inference.training.evaluation import Case
from inference.weights import METADATA, WEIGHTS, Metadata, OperatingPoint, read_metadata, save_model, sha256_of, shipped
from node.deployment import compare, install, roll_back, which_deployed
from node.errors import Misconfigured, Rejected
from node.model_evaluation import Run, load_cases, save_cases
from node.model_folders import current_folder, model_home

PURPOSE = "mr_abnormality"


def model(folder, value):
    metadata = Metadata(
        name="tiny",
        version=str(value),
        purpose=PURPOSE,
        architecture={},
        operating_points={"alert": OperatingPoint(threshold=0.5)},
        default_operating_point="alert",
        calibration=Calibration(),
        training={"synthetic": True},
        intended_use="tests",
    )
    return save_model(folder, {"a": torch.full((2,), float(value))}, metadata)


def run(probabilities, declined=None):
    cases = tuple(
        Case(
            name=f"s{i}",
            patient=f"patient {i}",
            label=i % 2 == 1,
            probability=p,
            slice_labels=(float("nan"),),
            slice_probabilities=(0.5,),
        )
        for i, p in enumerate(probabilities)
    )
    return Run(
        cases=cases, declined=declined or {}, threshold=0.5, operating_point="alert", model_sha256="", data_sha256=""
    )


GOOD, POOR = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7], [0.1, 0.9, 0.8, 0.2, 0.3, 0.7]


def test_no_worse_is_accepted_worse_is_refused():
    assert compare(run(GOOD), run(POOR)).accepted
    assert compare(run(GOOD), run(GOOD)).accepted
    refused = compare(run(POOR), run(GOOD))
    assert not refused.accepted
    assert "lower than the current" in refused.why


def test_a_model_that_declines_more_is_refused():
    verdict = compare(run([None, *GOOD[1:]], {"unlike_training_data": 1}), run(GOOD))
    assert not verdict.accepted
    assert verdict.why == "declines 1 studies, the current model 0"


def test_install_and_roll_back(tmp_path):
    home = model_home(tmp_path, PURPOSE)
    model(tmp_path / "one", 1), model(tmp_path / "two", 2)
    assert current_folder(tmp_path, PURPOSE) == shipped(PURPOSE)
    install(home, tmp_path / "one")
    install(home, tmp_path / "two")
    assert os.path.realpath(home / "current").endswith(sha256_of(tmp_path / "two" / METADATA)[:12])
    assert which_deployed(tmp_path, "") == PURPOSE
    roll_back(tmp_path, PURPOSE)
    assert os.path.realpath(home / "current").endswith(sha256_of(tmp_path / "one" / METADATA)[:12])
    assert len(list((home / "versions").iterdir())) == 2


def test_the_same_weights_with_another_calibration_are_another_model(tmp_path):
    home = model_home(tmp_path, PURPOSE)
    metadata = model(tmp_path / "one", 1)
    save_model(
        tmp_path / "two",
        {"a": torch.full((2,), 1.0)},
        replace(metadata, calibration=Calibration(identifier="site", kind="platt", slope=2.0)),
    )
    install(home, tmp_path / "one")
    install(home, tmp_path / "two")
    assert read_metadata(current_folder(tmp_path, PURPOSE)).calibration.identifier == "site"
    roll_back(tmp_path, PURPOSE)
    assert read_metadata(current_folder(tmp_path, PURPOSE)).calibration.identifier == ""


def test_rolling_back_the_first_deployment_leaves_the_shipped_model(tmp_path):
    model(tmp_path / "one", 1)
    install(model_home(tmp_path, PURPOSE), tmp_path / "one")
    assert roll_back(tmp_path, PURPOSE) == shipped(PURPOSE)
    with pytest.raises(Rejected, match="no deployed model"):
        roll_back(tmp_path, PURPOSE)


def test_installing_twice_keeps_the_one_before(tmp_path):
    home = model_home(tmp_path, PURPOSE)
    model(tmp_path / "one", 1), model(tmp_path / "two", 2)
    for name in ("one", "two", "two"):
        install(home, tmp_path / name)
    assert os.path.realpath(home / "previous").endswith(sha256_of(tmp_path / "one" / METADATA)[:12])


def test_a_damaged_model_is_not_installed(tmp_path):
    model(tmp_path / "one", 1)
    (tmp_path / "one" / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(Misconfigured, match="copy the model folder again"):
        install(model_home(tmp_path, PURPOSE), tmp_path / "one")
    assert not (model_home(tmp_path, PURPOSE) / "current").exists()


def test_cases_are_kept_without_patients(tmp_path):
    save_cases(run(GOOD), tmp_path / "cases.jsonl")
    assert "patient 1" not in (tmp_path / "cases.jsonl").read_text()
    back = load_cases(tmp_path / "cases.jsonl")
    assert [c.probability for c in back] == GOOD
    (tmp_path / "other.txt").write_text("nonsense")
    with pytest.raises(Misconfigured, match="holds no cases"):
        load_cases(tmp_path / "other.txt")
