"""`falx demo`: the whole way once, on embedded defaults: a PACS, the node, studies sent, results confirmed.

The PACS is Orthanc when it is installed, else the embedded one. The three studies are drawn by the generators of the
training cohorts. Everything lies in one folder and is started anew each time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from node.config import DestinationSettings, Settings, load
from node.errors import FalxError

LONGEST_S = 900.0


class PacsKind(StrEnum):
    """Which test PACS; ``auto`` is Orthanc when it is installed."""

    AUTO = "auto"
    ORTHANC = "orthanc"
    EMBEDDED = "embedded"


ORTHANC = ("Orthanc", "/usr/sbin/Orthanc", "/usr/bin/Orthanc")
STUDIES = (
    # name, modality, seed of the generator (never trained on), with a finding or without
    ("head CT with haemorrhage", "ct", 900_001, 1.0),
    ("head CT without", "ct", 900_002, 0.0),
    ("T2 head MRI", "mr", 900_003, 1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacs:
    """A running test PACS."""

    kind: str
    ae_title: str
    port: int
    look: str


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def draw_studies(folder: Path) -> dict[str, Path]:
    """Write the three studies as DICOM series; returns name -> folder."""
    from inference.training import cohort_ct, cohort_mr

    writers: dict[str, Callable[..., Path]] = {"ct": cohort_ct.write_cohort, "mr": cohort_mr.write_cohort}
    written = {}
    for name, modality, seed, prevalence in STUDIES:
        place = folder / name.replace(" ", "-")
        if not (place / "labels.csv").exists():
            writers[modality](1, seed, place, prevalence=prevalence)
        written[name] = place
    return written


@contextmanager
def running_pacs(folder: Path, falx_port: int, kind: PacsKind) -> Iterator[Pacs]:
    """A PACS that knows falx, started and stopped."""
    program = next((found for name in ORTHANC if (found := shutil.which(name))), None)
    if program is None and kind is PacsKind.ORTHANC:
        raise FalxError("Orthanc is not installed: docker/install.sh packages, or --pacs embedded")
    if program is not None and kind is not PacsKind.EMBEDDED:
        with _orthanc(program, folder, falx_port) as pacs:
            yield pacs
        return
    from node.dicom_net.embedded_pacs import EmbeddedPacs

    port = free_port()
    embedded = EmbeddedPacs(folder, "PACS", port, {"FALX": ("127.0.0.1", falx_port)})
    embedded.start()
    try:
        yield Pacs(kind="embedded", ae_title="PACS", port=port, look=f"files in {folder}")
    finally:
        embedded.stop()


@contextmanager
def _orthanc(program: str, folder: Path, falx_port: int) -> Iterator[Pacs]:
    folder.mkdir(parents=True, exist_ok=True)
    port, http = free_port(), free_port()
    config = {
        "Name": "falx demo",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": {"falx": {"AET": "FALX", "Host": "127.0.0.1", "Port": falx_port}},
        "Plugins": [str(p) for p in (Path("/usr/share/orthanc/plugins"),) if p.is_dir()],
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(config, indent=2))
    # without TCP_NODELAY Debian's DCMTK waits 44 ms an answer
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(path)], stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"})
    try:
        _wait(lambda: _http_answers(f"http://127.0.0.1:{http}/system"), process, "Orthanc", folder / "orthanc.log", 60)
        look = f"http://127.0.0.1:{http}/app/explorer.html  (start it again with: TCP_NODELAY=1 {program} {path})"
        yield Pacs(kind="orthanc", ae_title="ORTHANC", port=port, look=look)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def running_node(config: Path, settings: Settings, log: Path) -> Iterator[None]:
    """`falx serve`, started and drained."""
    from node.dicom_net.query import echo

    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "node.cli", "serve", "-c", str(config)], stderr=stream)
    itself = DestinationSettings(name="falx", ae_title="FALX", host="127.0.0.1", port=settings.reception.port)
    try:
        _wait(lambda: echo(itself, "DEMO").ok, process, "falx", log, 90)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def _http_answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310  loopback
            return True
    except OSError:
        return False


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path, longest_s: float) -> None:
    end = time.monotonic() + longest_s
    while not ready():
        if process.poll() is not None:
            raise FalxError(f"{what} ended at once with status {process.returncode}; see {log}")
        if time.monotonic() > end:
            raise FalxError(f"{what} does not answer after {longest_s:.0f} s; see {log}")
        time.sleep(0.1)


def write_config(folder: Path, falx_port: int, pacs: Pacs) -> Path:
    """The demo's config.yaml: defaults, but for short waits."""
    document = {
        "reception": {
            "port": falx_port,
            "host": "127.0.0.1",
            "callers": [{"ae_title": "DEMO"}, {"ae_title": pacs.ae_title}],
        },
        "storage": {"folder": str(folder / "falx"), "min_free_mb": 200, "purge_below_free_mb": 0},
        "completion": {"silence_s": 2, "silence_without_coverage_s": 6, "cap_s": 60, "study_silence_s": 15},
        "destinations": [
            {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port, "retry_first_s": 1}
        ],
        "web": {"port": free_port()},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def run_demo(folder: Path, given: Path | None, pacs_kind: PacsKind, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the demo in ``folder`` (emptied but for the drawn studies); returns the document of ``--json``.

    Raises
    ------
    FalxError
        When something does not start, is refused, or is not confirmed in time; the message names the log.
    """
    from node.dicom_net.sending import send_folder

    for name in ("falx", "pacs", "previews"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if given is None:
        say("drawing three synthetic studies")
        sources = draw_studies(folder / "studies")
    else:
        sources = {given.name: given}
    falx_port = free_port()
    with running_pacs(folder / "pacs", falx_port, pacs_kind) as pacs:
        config = write_config(folder, falx_port, pacs)
        settings = load(config)
        say(f"starting falx on port {falx_port} and {pacs.kind} on port {pacs.port}")
        with running_node(config, settings, folder / "falx.log"):
            from node.demo_results import follow, write_previews

            sent: dict[str, str] = {}
            for name, source in sources.items():
                say(f"sending {name}")
                # as a modality would: to the PACS, so that a viewer has the images, and by its route to falx
                send_folder(source, pacs.ae_title, "127.0.0.1", pacs.port, calling_ae="DEMO")
                report = send_folder(source, "FALX", "127.0.0.1", falx_port, calling_ae="DEMO")
                sent |= {file.study_instance_uid: name for file, _ in report.results}
            say("waiting for the PACS to confirm every result")
            studies = follow(settings, sent, folder / "falx.log", LONGEST_S)
            write_previews(settings, studies, folder / "previews")
    return {"pacs": pacs.kind, "studies": studies, "look": pacs.look, "previews": str(folder / "previews")}
