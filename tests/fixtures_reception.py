"""Reception as a process of its own, as `falx serve` runs it, and raw access to what it kept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import take_port
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node.config import DestinationSettings, Settings, load
from node.dicom_net.query import echo
from node.store import intake
from node.store.database import open_database
from node.store.part10 import read_file

_RUN = (
    "import sys, threading, signal; from pathlib import Path; from node.config import load\n"
    "from node.dicom_net.storage_scp import run_reception\n"
    "stop = threading.Event(); signal.signal(signal.SIGTERM, lambda *_: stop.set())\n"
    "run_reception(load(Path(sys.argv[1])), stop)\n"
)


@dataclass
class Reception:
    """A running reception process."""

    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return self.settings.reception.port

    @property
    def folder(self) -> Path:
        return self.settings.storage.folder

    def rows(self) -> list[intake.IntakeRow]:
        engine = open_database(self.settings.storage, "intake")
        try:
            return intake.rows_after(engine, 0, 100_000)
        finally:
            engine.dispose()

    def quarantined(self) -> list[intake.Quarantined]:
        engine = open_database(self.settings.storage, "intake")
        try:
            return intake.quarantined(engine)
        finally:
            engine.dispose()

    def content(self, row: intake.IntakeRow) -> bytes:
        """The data set's bytes as kept."""
        path = self.folder / row.path
        _meta, offset, _names = read_file(path)
        return path.read_bytes()[offset:]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def associate(
        self, contexts: list[PresentationContext], *, calling: str = "CT1", called: str = "FALX", **options: Any
    ) -> Association:
        entity = ApplicationEntity(calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
        entity.connection_timeout = 10
        entity.requested_contexts = contexts
        return entity.associate("127.0.0.1", self.port, ae_title=called, **options)


@contextmanager
def running_reception(folder: Path, *, wait: bool = True, **sections: Any) -> Iterator[Reception]:
    """Start reception with these sections of config.yaml; SIGTERM at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    reception = {"host": "127.0.0.1", "port": take_port(), "callers": [{"ae_title": "CT1"}]}
    document = {
        **sections,
        "reception": {**reception, **sections.get("reception", {})},
        "storage": {"folder": str(folder / "store"), "min_free_mb": 0, **sections.get("storage", {})},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    settings = load(config)
    settings.storage.folder.mkdir(exist_ok=True)
    log = folder / "reception.log"
    with log.open("ab") as stream:
        process = subprocess.Popen([sys.executable, "-c", _RUN, str(config)], stderr=stream, stdout=stream)
    running = Reception(settings, process, log)
    try:
        if wait:
            _wait_until_listening(running)
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(180)


def _wait_until_listening(running: Reception) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert running.process.poll() is None, running.log.read_text()[-2000:]
        try:
            with socket.create_connection(("127.0.0.1", running.port), timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("reception does not listen")


def can_echo(running: Reception, calling: str) -> bool:
    """Whether a caller may verify."""
    peer = DestinationSettings(name="falx", ae_title="FALX", host="127.0.0.1", port=running.port)
    return echo(peer, calling).ok


def is_root() -> bool:
    """Whether tmpfs can be mounted."""
    return os.geteuid() == 0


def certificates(folder: Path) -> None:
    """A small authority, a server and a client certificate of it, and a stranger's."""
    folder.mkdir()

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
        "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    for name in ("falx", "ct1"):
        run(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", f"{name}.pem")  # fmt: skip
    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stranger",
        "-keyout", "stranger.key", "-out", "stranger.pem")  # fmt: skip
