"""A hospital's way: label file and DICOM folder in, model out, evaluated, deployed. Phantoms, not patients."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fixtures_training import write_phantoms

from inference.weights import shipped
from node.worker import model_note

pytestmark = pytest.mark.timeout(1200)  # each test starts the command; two slow cores may be busy
FALX = [str(Path(sys.executable).with_name("falx"))]


def falx(*arguments, status=0):
    done = subprocess.run([*FALX, *map(str, arguments)], capture_output=True, text=True)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Studies, labels, and a model trained on them from nothing."""
    root = tmp_path_factory.mktemp("site")
    folder, labels = write_phantoms(root / "studies", 12)
    options = [o for file in labels for o in ("--labels", file)]
    train = ["train", "mr", "--studies", folder, *options, "--out", root / "model", "--start", "none"]
    done = falx(*train, "--epochs", 2, "--seed", 1, "--json", root / "train.json")
    return root, folder, options, train, done


def test_training_writes_a_verified_model_with_its_record(site):
    root, _, _, _, done = site
    document = json.loads((root / "train.json").read_text())
    metadata = json.loads((root / "model" / "metadata.json").read_text())
    run = json.loads((root / "model" / "run.json").read_text())
    assert document["model_sha256"] == metadata["sha256"]
    assert run["synthetic"] is False
    assert run["data"].startswith("local studies, split by patient")
    assert len(document["test_studies"]) >= 1
    assert {"alert", "triage"} <= set(metadata["operating_points"])
    assert metadata["notice"] == "RESEARCH USE ONLY"
    assert (root / "model" / "curves.png").exists()
    assert "columns ignored: site" in done.stdout


def test_resuming_a_finished_run_changes_nothing(site):
    root, _, _, train, _ = site
    before = json.loads((root / "model" / "metadata.json").read_text())["sha256"]
    falx(*train, "--epochs", 2, "--seed", 1, "--resume")
    assert json.loads((root / "model" / "metadata.json").read_text())["sha256"] == before


def test_evaluation_writes_what_the_issue_asks_and_cases_for_sites(site):
    root, folder, options, _, _ = site
    evaluate = ["evaluate", "mr", "--studies", folder, *options, "--model", root / "model"]
    done = falx(*evaluate, "--json", "-", "--cases", root / "cases.jsonl", "--plots", root / "plots")
    document = json.loads(done.stdout)
    asked = (
        "n positives auc auc_ci ppv sensitivity specificity f1 threshold slice_auc pointing_hit_rate baseline by "
        "model_sha256 data_sha256"
    )
    assert set(asked.split()) <= set(document)
    assert document["n"] + document["undetermined"] == 12
    assert {"asymmetry", "bright"} == set(document["baseline"])
    assert document["by"]["thickness"]["6 mm"]["n"] == document["n"]
    assert (root / "plots" / "calibration-mr.png").exists()
    both = falx("evaluate", "sites", root / "cases.jsonl", root / "cases.jsonl", "--json", "-")
    assert json.loads(both.stdout)["delta_auc"] == 0


def test_calibrating_keeps_the_weights_and_fits_the_numbers(tmp_path):
    falx("cohort", "mr", "--n", 26, "--seed", 8, "--out", tmp_path / "cohort")
    asked = ["--studies", tmp_path / "cohort", "--labels", tmp_path / "cohort" / "labels.csv"]
    done = falx("calibrate", "mr", *asked, "--out", tmp_path / "m", "--json", tmp_path / "c.json", "--prevalence", 0.2)
    assert "mean probability" in done.stdout
    document = json.loads((tmp_path / "c.json").read_text())
    before, now = (json.loads((f / "metadata.json").read_text()) for f in (shipped("mr_abnormality"), tmp_path / "m"))
    assert now["sha256"] == before["sha256"] == document["model_sha256"]
    assert now["calibration"]["identifier"] != before["calibration"]["identifier"]
    assert document["operating_points"]["alert"]["prevalence"] == 0.2
    assert document["mean_probability"] == pytest.approx(document["positive"] / document["studies"], abs=0.05)
    evaluated = falx("evaluate", "mr", *asked, "--model", tmp_path / "m", "--no-baselines", "--json", "-")
    figures = json.loads(evaluated.stdout)
    assert figures["threshold"] == pytest.approx(now["operating_points"]["alert"]["threshold"])
    assert figures["auc"] == pytest.approx(document["auc"])
    assert figures["calibration_error"] == pytest.approx(document["calibration_error"])
    assert model_note(tmp_path / "m").endswith(f"threshold comes from {document['studies']} local studies.")
    again = falx("calibrate", "mr", *asked, "--model", tmp_path / "m", "--out", tmp_path / "m", status=2)
    assert "name a new one" in again.stderr


def test_a_reader_study_is_blinded(site):
    root, folder, options, _, _ = site
    falx(
        "evaluate", "mr", "--studies", folder, *options, "--model", root / "model",
        "--reader-study", root / "readers", "--readers-draw", 4, "--no-baselines",
    )  # fmt: skip
    images = sorted((root / "readers" / "images").iterdir())
    assert [p.name for p in images] == ["CASE-001", "CASE-002", "CASE-003", "CASE-004"]
    import pydicom

    ds = pydicom.dcmread(next(images[0].iterdir()))
    assert str(ds.PatientName) == "CASE-001"
    assert ds.StudyInstanceUID not in (root / "readers" / "key.csv").read_text()


def test_deployment_locks_its_test_set(site):
    root, folder, options, _, _ = site
    config = root / "config.yaml"
    config.write_text(f"storage:\n  folder: {root / 'store'}\n")
    home = root / "store" / "models" / "mr_abnormality"
    assert "no test set is locked yet" in falx("deploy", root / "model", "-c", config, status=2).stderr
    studies = ["--studies", folder, *options]
    done = falx("deploy", root / "model", "-c", config, *studies, "--json", "-", status=None)
    document = json.loads(done.stdout)
    assert done.returncode == (0 if document["accepted"] else 1)
    assert (home / "test_set.json").exists()
    assert (home / "current").exists() == document["accepted"]
    other = falx("deploy", root / "model", "-c", config, "--studies", root, *options, status=1)
    assert "locks another test set" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "none.csv"], "No such file"),
        (["--labels", "EMPTY"], "holds no label column"),
    ],
)
def test_a_label_file_that_cannot_be_used_is_named(site, arguments, message, tmp_path):
    _, folder, _, _, _ = site
    (tmp_path / "empty.csv").write_text("study_instance_uid,colour\n1.2,red\n")
    arguments = [str(tmp_path / "empty.csv") if a == "EMPTY" else a for a in arguments]
    done = falx("evaluate", "mr", "--studies", folder, *arguments, status=2)
    assert message in done.stderr.replace("\n", " ")


def test_too_few_studies_are_refused_with_the_reasons(site, tmp_path):
    _, folder, options, _, _ = site
    done = falx("train", "ct", "--studies", folder, *options, "--out", tmp_path / "m", status=1)
    assert "too few" in done.stderr or "are needed" in done.stderr
