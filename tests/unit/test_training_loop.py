"""The training loop: early stopping, and a killed run that goes on where it was and ends where it would have."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fixtures_training import LineRecipe, train_line

from inference.training.loop import CHECKPOINT, Diverged, LoopSettings, Trainer
from inference.training.records import RunRecord

SCRIPT = Path(__file__).resolve().parents[1] / "fixtures_training.py"


def test_it_learns_and_keeps_the_best_epoch(tmp_path):
    fitted = train_line(tmp_path, 20)
    assert fitted.weights["weight"].item() == pytest.approx(3, abs=0.2)
    best = max(row["score"] for row in fitted.history)
    assert fitted.history[fitted.best_epoch - 1]["score"] == best


def test_early_stopping(tmp_path):
    class Worse(LineRecipe):
        def validate(self, device):
            self.score = getattr(self, "score", 0) - 1
            return {"score": float(self.score)}

    trainer = Trainer(Worse(), tmp_path, LoopSettings(epochs=50, patience=3), torch.device("cpu"))
    fitted = trainer.run(show_progress=False)
    assert fitted.best_epoch == 1
    assert len(fitted.history) == 5


def test_numbers_that_are_not_finite_stop_the_training(tmp_path):
    class Endless(LineRecipe):
        def loss(self, batch, device):
            return super().loss(batch, device) * float("nan")

    trainer = Trainer(Endless(), tmp_path, LoopSettings(epochs=2), torch.device("cpu"))
    with pytest.raises(Diverged, match="no longer finite"):
        trainer.run(show_progress=False)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_run_killed_and_resumed_ends_where_an_unbroken_one_does(tmp_path):
    unbroken = train_line(tmp_path / "unbroken", 6)
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(folder), "6", "0.15"])
    deadline = time.monotonic() + 120
    while not (folder / CHECKPOINT).exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(torch.load(folder / CHECKPOINT, weights_only=True)["history"])
    assert 0 < done < 6
    resumed = train_line(folder, 6)
    assert len(resumed.history) == 6
    assert resumed.history == unbroken.history
    for name, tensor in unbroken.weights.items():
        assert torch.equal(tensor, resumed.weights[name])


def test_without_resume_it_begins_anew(tmp_path):
    train_line(tmp_path, 3)
    assert len(train_line(tmp_path, 2, resume=False).history) == 2


def test_the_record_names_its_origin_and_draws_curves(tmp_path):
    record = RunRecord(
        purpose="mr_abnormality",
        synthetic=True,
        data="ten phantoms",
        data_sha256="0" * 64,
        seed=5,
        settings={"epochs": 2},
        history=[{"epoch": 1.0, "loss": 1.0, "score": 0.5}, {"epoch": 2.0, "loss": 0.5, "score": 0.7}],
    )
    record.write(tmp_path)
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["synthetic"] is True
    assert written["versions"]["torch"] == torch.__version__
    assert len(written["history"]) == 2
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert record.summary()["epochs"] == 2
