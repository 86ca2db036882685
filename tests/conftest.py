"""Fixtures that every area uses: free ports, a folder for falx, a real Orthanc; and what a skip means."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

# two slow, shared cores: a slow example is no failure
hypothesis_settings.register_profile("falx", deadline=None)
hypothesis_settings.load_profile("falx")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REQUIRE_ALL = os.environ.get("FALX_REQUIRE_ALL") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip for absent programs (fail instead under FALX_REQUIRE_ALL=1) and for the absent shared folder."""
    for mark in item.iter_markers("needs"):
        missing = [name for name in mark.args if shutil.which(name) is None and not Path(f"/usr/sbin/{name}").exists()]
        if missing:
            text = f"{', '.join(missing)} not installed: run `make packages-test`"
            pytest.skip(text)
    if _lacks_shared_data(item):
        pytest.skip(f"{SHARED} is absent")


def _lacks_shared_data(item: pytest.Item) -> bool:
    return item.get_closest_marker("shared_data") is not None and not SHARED.is_dir()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under FALX_REQUIRE_ALL=1 every skip is a failure, but those for the absent shared folder."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail") and not _lacks_shared_data(item):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {why} (FALX_REQUIRE_ALL=1 allows no such skip)"
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real series; the test must carry the mark ``shared_data``."""
    return SHARED


def take_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Give free loopback ports."""
    return take_port


def wait_for(condition: Callable[[], object], timeout_s: float = 60.0, what: str = "the condition") -> object:
    """Poll until ``condition()`` is true and return its value; fail the test after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    pytest.fail(f"{what}: not within {timeout_s} s")


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., object]:
    """Poll helper: ``wait_for(condition, timeout_s=60, what="...")``."""
    return wait_for


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc: its DICOM port, AE title and REST address."""

    port: int
    http: str
    ae_title: str = "ORTHANC"

    def get(self, path: str) -> object:
        """GET a REST path, parsed."""
        with urllib.request.urlopen(f"{self.http}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def find(self, level: str, **query: str) -> list[dict[str, object]]:
        """Find resources of a level (Study, Series, Instance) with expanded tags."""
        body = json.dumps({"Level": level, "Query": query, "Expand": True}).encode()
        request = urllib.request.Request(f"{self.http}/tools/find", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return list(json.loads(answer.read()))


def start_orthanc(
    folder: Path, modalities: dict[str, tuple[str, int]], **extra: object
) -> tuple[Orthanc, subprocess.Popen[bytes]]:
    """Start Debian's Orthanc in ``folder``. ``modalities``: AE title -> (host, port), whom it may call back.

    TCP_NODELAY=1 because Debian's DCMTK leaves Nagle's algorithm on (44 ms an answer).
    """
    dicom_port, http_port = take_port(), take_port()
    config = {
        "Name": "falx-test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomCheckModalityHost": False,
        "StableAge": 1,
        "DicomModalities": {
            ae: {"AET": ae, "Host": host, "Port": port, "AllowStorageCommitment": True, "AllowFind": True}
            for ae, (host, port) in modalities.items()
        },
        "Plugins": [str(path) for path in (Path("/usr/share/orthanc/plugins"),) if path.is_dir()],
        **extra,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(config))
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    log = (folder / "orthanc.log").open("wb")
    process = subprocess.Popen(
        [program, str(folder / "orthanc.json")],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    orthanc = Orthanc(port=dicom_port, http=f"http://127.0.0.1:{http_port}")

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail(f"Orthanc ended: {(folder / 'orthanc.log').read_text()[-2000:]}")
        try:
            return bool(orthanc.get("/system"))
        except OSError:
            return False

    wait_for(ready, 60, "Orthanc answering")
    return orthanc, process


@pytest.fixture
def orthanc_factory(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Start Orthancs: ``orthanc_factory({"FALX": ("127.0.0.1", port)})``; all are stopped after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(modalities: dict[str, tuple[str, int]] | None = None, **extra: object) -> Orthanc:
        orthanc, process = start_orthanc(tmp_path / f"orthanc{len(running)}", modalities or {}, **extra)
        running.append(process)
        return orthanc

    yield start
    for process in running:
        process.terminate()
        process.wait(30)
