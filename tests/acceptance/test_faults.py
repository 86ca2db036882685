"""Faults of the world around the node: PACS down, disk full while results are written, thousands of slices."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Orthanc, start_orthanc, take_port, wait_for
from tests.fixtures_dicom import uid, write_series
from tests.fixtures_node import Node, orthanc_destination

pytestmark = [pytest.mark.slow, pytest.mark.needs("Orthanc"), pytest.mark.timeout(900)]


@pytest.fixture
def node_factory(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(folder: Path, port: int, pacs_port: int, **extra: object) -> Node:
        made.append(Node(folder, port, orthanc_destination(pacs_port), extra=dict(extra)))
        return made[-1]

    yield make
    for node in made:
        node.kill()


def test_a_pacs_that_was_down_gets_everything_later(tmp_path: Path, node_factory: Callable[..., Node]) -> None:
    port, pacs_port = take_port(), take_port()
    node = node_factory(tmp_path / "node", port, pacs_port)
    node.start()
    study = uid("down")
    files = write_series(tmp_path / "in", study=study, shape=(32, 128, 128), spacing_mm=(5.0, 1.7, 1.7))
    node.send(files)
    wait_for(lambda: node.rows("deliveries", study_instance_uid=study), 120, "queued results")
    wait_for(lambda: all(row["error"] for row in node.rows("deliveries")), 120, "the fault named at every delivery")
    assert {row["state"] for row in node.rows("deliveries")} == {"queued"}
    assert all("ORTHANC" in row["error"] for row in node.rows("deliveries")), node.rows("deliveries")[0]["error"]
    _, process = start_orthanc(tmp_path / "orthanc", {"FALX": ("127.0.0.1", port)}, DicomPort=pacs_port)
    try:
        wait_for(lambda: node.settled(study), 240, "delivery after the PACS came back")
        assert {row["state"] for row in node.rows("deliveries")} == {"confirmed"}
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "falx-test", str(place)]).returncode
    ):
        pytest.skip("needs root and mount: run as root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_refuses_politely_and_recovers(
    tmp_path: Path, small_disk: Path, node_factory: Callable[..., Node], orthanc_factory: Callable[..., Orthanc]
) -> None:
    port = take_port()
    orthanc = orthanc_factory({"FALX": ("127.0.0.1", port)})
    node = node_factory(small_disk / "node", port, orthanc.port, storage={"min_free_mb": 46})
    node.start()
    study = uid("full")
    files = write_series(tmp_path / "in", study=study, shape=(40, 512, 512), spacing_mm=(6.0, 0.45, 0.45))
    statuses = node.send(files)
    accepted = statuses.count(0)
    assert 110 < accepted * 6.0 < 240, "what is accepted must look like a whole head"
    assert set(statuses) == {0, 0xA700}
    assert sum(row["instances"] for row in node.rows("series", study_instance_uid=study)) <= accepted
    wait_for(lambda: node.settled(study), 240, "an answer on what was accepted")
    (task,) = node.rows("tasks", study_instance_uid=study)
    assert task["possibly_incomplete"]
    assert task["state"] != "analysed" or task["findings"][0]["present"] is not False

    subprocess.run(["mount", "-o", "remount,size=160m", str(small_disk)], check=True)
    assert set(node.send([file for file, status in zip(files, statuses, strict=True) if status])) == {0}
    wait_for(lambda: len(node.rows("tasks", study_instance_uid=study)) == 2, 120, "a version on the whole series")
    wait_for(lambda: node.settled(study), 240, "an answer on the whole series")
    assert not max(node.rows("tasks", study_instance_uid=study), key=lambda row: int(row["version"]))[
        "possibly_incomplete"
    ]
    assert node.stop() == 0


def test_no_room_for_results_postpones_them(
    tmp_path: Path, small_disk: Path, node_factory: Callable[..., Node], orthanc_factory: Callable[..., Orthanc]
) -> None:
    port = take_port()
    orthanc = orthanc_factory({"FALX": ("127.0.0.1", port)})
    node = node_factory(small_disk / "node", port, orthanc.port, storage={"min_free_mb": 1})
    (small_disk / "node" / "falx").mkdir(parents=True)
    outbox = small_disk / "outbox"
    outbox.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "falx-outbox", str(outbox)], check=True)
    (small_disk / "node" / "falx" / "outbox").symlink_to(outbox)
    try:
        node.start()
        study = uid("no room")
        node.send(write_series(tmp_path / "in", study=study, shape=(32, 128, 128), spacing_mm=(5.0, 1.7, 1.7)))
        wait_for(lambda: "task_postponed" in node.log(), 120, "the task postponed")
        (task,) = node.rows("tasks", study_instance_uid=study)
        assert (task["state"], task["attempt"]) == ("waiting", 0)
        subprocess.run(["mount", "-o", "remount,size=32m", str(outbox)], check=True)
        wait_for(lambda: node.settled(study), 240, "the result once there is room")
        assert node.rows("deliveries", state="confirmed")
        assert node.stop() == 0
    finally:
        node.kill()
        subprocess.run(["umount", "-l", str(outbox)], check=True)


def test_fifteen_hundred_thin_slices(
    tmp_path: Path, node_factory: Callable[..., Node], orthanc_factory: Callable[..., Orthanc]
) -> None:
    port = take_port()
    orthanc = orthanc_factory({"FALX": ("127.0.0.1", port)})
    # sending takes minutes on a slow machine, and one answer is wanted
    patient = {"silence_s": 8, "silence_without_coverage_s": 60, "cap_s": 900}
    node = node_factory(tmp_path / "node", port, orthanc.port, completion=patient)
    node.start()
    study = uid("thin")
    files = write_series(tmp_path / "in", study=study, shape=(1500, 128, 128), spacing_mm=(0.12, 1.7, 1.7))
    start = time.monotonic()
    assert set(node.send(files)) == {0}
    wait_for(lambda: node.settled(study), 600, "an answer for 1,500 slices")
    (task,) = node.rows("tasks", study_instance_uid=study)
    assert task["state"] in ("analysed", "undetermined"), task["reason_text"]
    print(f"1,500 slices answered in {time.monotonic() - start:.0f} s")
    assert node.stop() == 0
