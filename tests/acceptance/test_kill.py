"""SIGKILL at each numbered step of the pipeline, and of everything at once: nothing lost, nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.dying_worker import STEPS
from tests.conftest import Orthanc, take_port, wait_for
from tests.fixtures_dicom import uid, write_series
from tests.fixtures_node import Node, orthanc_destination

pytestmark = [pytest.mark.slow, pytest.mark.needs("Orthanc"), pytest.mark.timeout(900)]
HERE = Path(__file__).parent


@pytest.fixture
def site(tmp_path: Path, orthanc_factory: Callable[..., Orthanc]) -> Iterator[tuple[Node, Orthanc]]:
    port = take_port()
    orthanc = orthanc_factory({"FALX": ("127.0.0.1", port)})
    node = Node(tmp_path, port, orthanc_destination(orthanc.port))
    yield node, orthanc
    node.kill()


def results_in(orthanc: Orthanc, study: str) -> Counter[str]:
    """SOP Instance UIDs of falx's objects in the PACS."""
    found: Counter[str] = Counter()
    for item in orthanc.find("Series", StudyInstanceUID=study):
        if "RESEARCH USE ONLY" in str(item["MainDicomTags"].get("SeriesDescription", "")):  # type: ignore[attr-defined]
            for instance in item["Instances"]:  # type: ignore[attr-defined]
                tags = orthanc.get(f"/instances/{instance}")
                found[tags["MainDicomTags"]["SOPInstanceUID"]] += 1  # type: ignore[index]
    return found


def start_role(node: Node, role: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "node.cli", "serve", "-c", str(node.config), "--role", role])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_a_step_repeats_it(site: tuple[Node, Orthanc], tmp_path: Path, step: str, when: str) -> None:
    node, orthanc = site
    study = uid("kill", step, when)
    files = write_series(tmp_path / "in", study=study, shape=(32, 128, 128), spacing_mm=(5.0, 1.7, 1.7))
    others = []
    try:
        others.append(start_role(node, "reception"))
        wait_for(node.echo, 90, "reception")
        others.append(start_role(node, "service"))
        assert set(node.send(files)) == {0}
        dying = subprocess.run(
            [sys.executable, str(HERE / "dying_worker.py"), step, when, "-c", str(node.config)],
            timeout=300,
            cwd=HERE.parents[1],
            env={"PYTHONPATH": str(HERE.parents[1]), "PATH": "/usr/bin:/bin"},
        )
        assert dying.returncode == -signal.SIGKILL
        others.append(start_role(node, "worker"))
        wait_for(lambda: node.settled(study), 240, "the answer after the kill")
    finally:
        for process in others:
            process.terminate()
        for process in others:
            process.wait(90)
    objects = node.rows("objects", study_instance_uid=study)
    assert objects
    assert results_in(orthanc, study) == Counter({row["sop_instance_uid"]: 1 for row in objects})
    assert len(node.rows("tasks", study_instance_uid=study)) == 1
    assert {row["state"] for row in node.rows("deliveries", study_instance_uid=study)} == {"confirmed"}


def test_everything_killed_again_and_again_loses_nothing(site: tuple[Node, Orthanc], tmp_path: Path) -> None:
    node, orthanc = site
    studies = [uid("storm", number) for number in range(4)]
    acknowledged: dict[str, str] = {}
    for number, study in enumerate(studies):
        files = write_series(
            tmp_path / f"in{number}",
            study=study,
            series=uid(study, "s"),
            shape=(32, 96, 96),
            spacing_mm=(5.0, 2.2, 2.2),
        )
        node.start()
        statuses = node.send(files)
        acknowledged |= {str(path): study for path, status in zip(files, statuses, strict=True) if status == 0}
        wait_for(lambda: bool(node.rows("tasks")), 60, "a task") if number % 2 else None
        node.kill()
    assert len(acknowledged) == 4 * 32
    node.start()
    for study in studies:
        wait_for(lambda study=study: node.settled(study), 300, "all answers")
    for study in studies:
        assert sum(row["instances"] for row in node.rows("series", study_instance_uid=study)) == 32
        expected = Counter({row["sop_instance_uid"]: 1 for row in node.rows("objects", study_instance_uid=study)})
        assert expected
        assert results_in(orthanc, study) == expected
    assert node.stop() == 0
