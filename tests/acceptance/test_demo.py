"""`falx demo`, as a user types it: three studies, everything confirmed, and the CT's result seen in a viewer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from node.demo import draw_studies
from tests.conftest import wait_for
from tests.viewer.ohif import ARTEFACTS, DIST, open_in_ohif

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's three studies, drawn once; a demo does not draw again what it finds in its folder."""
    folder = tmp_path_factory.mktemp("drawn") / "studies"
    draw_studies(folder)
    return folder


def run_demo(work: Path, pacs: str, studies: Path) -> dict[str, Any]:
    shutil.copytree(studies, work / "studies")
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "demo", "--work", str(work), "--json", "-", "--pacs", pacs],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr + (work / "falx.log").read_text()[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def check(document: dict[str, Any]) -> None:
    studies = {study["name"]: study for study in document["studies"]}
    assert set(studies) == {"head CT with haemorrhage", "head CT without", "T2 head MRI"}
    for study in studies.values():
        assert study["state"] == "analysed", study["reason"]
        assert study["objects"]
        assert {one["state"] for one in study["objects"]} == {"confirmed"}
        assert {one["confirmed_by"] for one in study["objects"]} == {"storage-commitment"}
        assert study["objects"][0]["kind"] == "SR"
    positive, negative = studies["head CT with haemorrhage"], studies["head CT without"]
    assert positive["label"] == negative["label"] == "intracranial_haemorrhage"
    assert positive["probability"] > positive["threshold"]
    assert negative["probability"] < negative["threshold"]
    assert {one["kind"] for one in positive["objects"]} == {"SR", "KO", "SC"}


@pytest.mark.needs("Orthanc", "chromium")
def test_the_demo_and_its_ct_in_a_viewer(tmp_path: Path, studies: Path) -> None:
    document = run_demo(tmp_path / "demo", "orthanc", studies)
    assert document["pacs"] == "orthanc"
    check(document)
    assert list((tmp_path / "demo" / "previews").glob("head-CT-with-haemorrhage.png"))
    if not DIST.is_dir():
        pytest.skip("OHIF is not in cache/ohif: run tests/viewer/fetch_ohif.sh")
    config = tmp_path / "demo" / "pacs" / "orthanc.json"
    http = f"http://127.0.0.1:{json.loads(config.read_text())['HttpPort']}"
    program = next(p for p in ("/usr/sbin/Orthanc", "/usr/bin/Orthanc") if Path(p).exists())
    process = subprocess.Popen(
        [program, str(config)], stderr=subprocess.DEVNULL, env={**os.environ, "TCP_NODELAY": "1"}
    )
    try:
        wait_for(lambda: answers(f"{http}/system"), 60, "the demo's Orthanc")
        study = next(s for s in document["studies"] if s["name"] == "head CT with haemorrhage")
        view = open_in_ohif(http, study["study_instance_uid"], ARTEFACTS / "demo")
        listed = "\n".join(view.series)
        assert "AI ICH: suspected - RESEARCH USE ONLY" in listed
        assert "AI ICH heatmap - RESEARCH USE ONLY" in listed
        assert any("Probability" in text for text in view.drawn)
    finally:
        process.terminate()
        process.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def test_the_demo_without_orthanc(tmp_path: Path, studies: Path) -> None:
    document = run_demo(tmp_path / "demo", "embedded", studies)
    assert document["pacs"] == "embedded"
    check(document)
