"""Those labels train the models: reports, `falx relabel`, `falx labels export`, `falx train mr`, as typed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fixtures_training import write_phantoms

pytestmark = pytest.mark.timeout(1200)  # starts the command three times; two slow cores may be busy
TEXTS = (
    "MRI brain. The ventricles and sulci are normal for age. No restricted diffusion. No mass. Normal study.",
    "MRI brain. There is a 3 cm enhancing mass in the right frontal lobe with vasogenic oedema, suspicious for glioma.",
)


def falx(*arguments: object) -> str:
    command = [str(Path(sys.executable).with_name("falx")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_reports_label_the_studies_that_train_a_model(tmp_path: Path) -> None:
    folder, (truth, _slices) = write_phantoms(tmp_path / "studies", 12)
    with truth.open(newline="") as stream:
        expected = {row["study_instance_uid"]: row["abnormal"] for row in csv.DictReader(stream)}
    (tmp_path / "archive").mkdir()
    with (tmp_path / "archive" / "reports.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["study_instance_uid", "text"])
        writer.writerows((uid, TEXTS[int(abnormal)]) for uid, abnormal in expected.items())
    config = tmp_path / "config.yaml"
    archive = {"name": "ris", "source": "csv", "location": str(tmp_path / "archive"), "modality": "MR"}
    config.write_text(
        yaml.safe_dump(
            {"storage": {"folder": str(tmp_path / "storage")}, "archives": [archive | {"options": {"workers": 1}}]}
        )
    )
    labels = tmp_path / "labels.parquet"

    falx("relabel", "ris", "--now", "--no-map", "-c", config)
    exported = json.loads(falx("labels", "export", "ris", "--out", labels, "-c", config, "--json", "-"))
    assert exported["rows"] == 12
    falx(
        "train", "mr", "--studies", folder, "--labels", labels, "--out", tmp_path / "model",
        "--start", "none", "--epochs", 1, "--json", tmp_path / "train.json",
    )  # fmt: skip

    trained = json.loads((tmp_path / "train.json").read_text())
    run = json.loads((tmp_path / "model" / "run.json").read_text())
    assert run["synthetic"] is False
    assert len(trained["test_studies"]) >= 1
    assert set(trained["test_studies"]) <= set(expected)
    assert (tmp_path / "model" / "model.safetensors").exists()
