"""A worker takes a newly deployed model up between two studies, and keeps the old one when the new one is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from inference.weights import METADATA, WEIGHTS, read_metadata, sha256_of, shipped
from node.deployment import install
from tests.conftest import take_port, wait_for
from tests.fixtures_dicom import uid, write_series
from tests.fixtures_node import Node

PURPOSE = "ct_haemorrhage"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "node", take_port())
    made.start()
    yield made
    made.kill()


def another_model(folder: Path) -> Path:
    """The shipped model with one weight a little different, under its own hash."""
    shutil.copytree(shipped(PURPOSE), folder)
    tensors = load_file(folder / WEIGHTS)
    name = min(tensors)
    tensors[name] = tensors[name] * 1.001
    save_file(tensors, folder / WEIGHTS)
    document = json.loads((folder / METADATA).read_text())
    document |= {"sha256": sha256_of(folder / WEIGHTS), "version": "9.9.9"}
    (folder / METADATA).write_text(json.dumps(document))
    return folder


def version_that_answers(node: Node, name: str) -> str:
    study = uid("model change", name)
    files = write_series(
        node.folder / name, study=study, series=uid(study), shape=(32, 64, 64), spacing_mm=(5.0, 3.4, 3.4)
    )
    assert set(node.send(files)) == {0}
    wait_for(lambda: node.settled(study), 180, f"an answer for {name}; log:\n{node.log()[-1500:]}")
    (task,) = node.rows("tasks", study_instance_uid=study)
    return str(task["model_version"])


def test_a_worker_takes_up_what_is_deployed(node: Node, tmp_path: Path) -> None:
    home = node.settings.storage.folder / "models" / PURPOSE
    assert version_that_answers(node, "before") == read_metadata(shipped(PURPOSE)).version

    install(home, another_model(tmp_path / "candidate"))
    wait_for(lambda: "models_reloaded" in node.log(), 120, "the new model loaded")
    assert version_that_answers(node, "after") == "9.9.9"

    broken = another_model(tmp_path / "broken")
    document = json.loads((broken / METADATA).read_text())
    (broken / METADATA).write_text(json.dumps({**document, "version": "10.0.0", "sha256": "0" * 64}))
    (home / "current").unlink()
    (home / "current").symlink_to(broken)
    wait_for(lambda: "new_model_refused" in node.log(), 120, "the broken model refused")
    assert version_that_answers(node, "still") == "9.9.9"
    assert node.stop() == 0
