"""Model folders: a hash that does not fit stops the start; nothing but safetensors is read."""

import json
import subprocess
import sys

import pytest
import torch

from inference.calibration import Calibration
from inference.weights import METADATA, WEIGHTS, Metadata, OperatingPoint, WrongModel, load_weights, save_model, verify


def metadata(**changes):
    values = {
        "name": "tiny",
        "version": "1",
        "purpose": "mr_abnormality",
        "architecture": {"width": 4},
        "operating_points": {"alert": OperatingPoint(threshold=0.7), "triage": OperatingPoint(threshold=0.2)},
        "default_operating_point": "alert",
        "calibration": Calibration(identifier="c1", kind="platt", slope=2.0, intercept=-1.0),
        "training": {"synthetic": True, "seed": 1},
        "intended_use": "tests",
    }
    return Metadata(**(values | changes))


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model", {"a": torch.arange(4.0)}, metadata())
    return tmp_path / "model"


def test_what_is_saved_is_loaded(folder):
    loaded, tensors = load_weights(folder)
    assert torch.equal(tensors["a"], torch.arange(4.0))
    assert loaded == metadata(sha256=loaded.sha256)
    assert loaded.notice == "RESEARCH USE ONLY"
    assert loaded.model_id.weights_sha256 == loaded.sha256
    assert loaded.operating_point("triage")[1].threshold == 0.2
    assert loaded.operating_point()[0] == "alert"


def test_changed_weights_are_refused(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(WrongModel, match="copy the model folder again"):
        load_weights(folder)


def test_a_pickle_with_the_right_hash_is_refused(folder):
    torch.save({"a": torch.zeros(1)}, folder / WEIGHTS)
    document = json.loads((folder / METADATA).read_text())
    from inference.weights import sha256_of

    document["sha256"] = sha256_of(folder / WEIGHTS)
    (folder / METADATA).write_text(json.dumps(document))
    with pytest.raises(WrongModel, match="not a safetensors file"):
        load_weights(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"name": "x"}'])
def test_broken_metadata_is_named(folder, text):
    (folder / METADATA).write_text(text)
    with pytest.raises(WrongModel, match=METADATA):
        verify(folder)


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(WrongModel, match=r"metadata\.json is missing"):
        verify(tmp_path / "nowhere")
    (folder / WEIGHTS).unlink()
    with pytest.raises(WrongModel, match=r"model\.safetensors is missing"):
        verify(folder)


def test_an_unknown_operating_point_is_refused_with_the_known_ones():
    with pytest.raises(WrongModel, match="alert, triage"):
        metadata().operating_point("silent")


def test_reading_metadata_does_not_import_torch(folder):
    check = "import sys; from pathlib import Path; from inference.weights import verify; verify(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", f"{check}; sys.exit('torch' in sys.modules)", str(folder)])
    assert done.returncode == 0
