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


def test_a_worker_killed_at_each_step_repeats_it(site: tuple[Node, Orthanc], tmp_path: Path) -> None:
    """Each worker answers the study that its predecessor died on, then dies at the next step of another one."""
    node, orthanc = site
    node.extra["models"] = {"studies_at_once": 1}
    deaths = [(step, when, uid("kill", step, when)) for step in STEPS for when in ("before", "after")]
    others = []
    try:
        others.append(start_role(node, "reception"))
        wait_for(node.echo, 90, "reception")
        others.append(start_role(node, "service"))
        for step, when, study in deaths:
            folder = tmp_path / f"in-{step}-{when}"
            files = write_series(
                folder, study=study, series=uid(study, "s"), shape=(32, 128, 128), spacing_mm=(5.0, 1.7, 1.7)
            )
            assert set(node.send(files)) == {0}
            dying = subprocess.run(
                [sys.executable, str(HERE / "dying_worker.py"), step, when, study, "-c", str(node.config)],
                timeout=300,
                cwd=HERE.parents[1],
                env={"PYTHONPATH": str(HERE.parents[1]), "PATH": "/usr/bin:/bin"},
            )
            assert dying.returncode == -signal.SIGKILL, (step, when)
        others.append(start_role(node, "worker"))
        for step, when, study in deaths:
            wait_for(lambda study=study: node.settled(study), 240, f"the answer after the kill {when} {step}")
    finally:
        for process in others:
            process.terminate()
        for process in others:
            process.wait(90)
    for step, when, study in deaths:
        objects = node.rows("objects", study_instance_uid=study)
        assert objects, (step, when)
        found = results_in(orthanc, study)
        assert found == Counter({row["sop_instance_uid"]: 1 for row in objects}), (step, when)
        (task,) = node.rows("tasks", study_instance_uid=study)
        assert task["state"] in ("analysed", "undetermined"), (step, when, task["reason_text"])
        assert {row["state"] for row in node.rows("deliveries", study_instance_uid=study)} == {"confirmed"}, (
            step,
            when,
        )


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
