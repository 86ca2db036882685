"""A whole node for tests: configuration, `falx serve` as a real process, and looks into its databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.presentation import build_context
from sqlalchemy import Engine, select

from node.config import Settings, load
from node.store.database import open_database, reading
from node.store.ledger_tables import deliveries, objects, series, tasks

SENDER = "TESTER"
QUICK = {"silence_s": 1.5, "silence_without_coverage_s": 4, "cap_s": 40, "study_silence_s": 8}


@dataclass
class Node:
    """One node in a folder."""

    folder: Path
    port: int
    pacs: Mapping[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _engine: Engine | None = None

    @property
    def config(self) -> Path:
        """Its config.yaml, written when first asked for."""
        path = self.folder / "config.yaml"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            document: dict[str, Any] = {
                "reception": {
                    "host": "127.0.0.1",
                    "port": self.port,
                    "callers": [{"ae_title": SENDER}, {"ae_title": "ORTHANC"}],
                },
                "storage": {"folder": str(self.folder / "falx"), "min_free_mb": 10, "purge_below_free_mb": 0},
                "completion": QUICK,
                "destinations": [dict(self.pacs)] if self.pacs else [],
                "web": {"port": 0},
            }
            for key, value in self.extra.items():
                document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
            path.write_text(yaml.safe_dump(document))
        return path

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return load(self.config)

    @property
    def ledger(self) -> Engine:
        """Its ledger, opened once."""
        if self._engine is None:
            self._engine = open_database(self.settings.storage, "ledger")
        return self._engine

    def start(self, command: Sequence[str] = ()) -> None:
        """Start `falx serve` and wait for its port."""
        log = (self.folder / "falx.log").open("ab") if self.config.exists() else None
        program = list(command) or [sys.executable, "-m", "node.cli", "serve"]
        self.process = subprocess.Popen([*program, "-c", str(self.config)], stderr=log, start_new_session=True)
        end = time.monotonic() + 90
        while not self.echo():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"falx did not start:\n{self.log()[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> int:
        """SIGTERM, and wait for the drain; returns the exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(90)
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL the whole process group, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
        self.process = None

    def log(self) -> str:
        """What it logged."""
        path = self.folder / "falx.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def echo(self) -> bool:
        """Whether reception answers a C-ECHO."""
        ae = AE(ae_title=SENDER)
        ae.add_requested_context("1.2.840.10008.1.1")
        association = ae.associate("127.0.0.1", self.port, ae_title="FALX")
        if not association.is_established:
            return False
        status = association.send_c_echo()
        association.release()
        return bool(status) and status.Status == 0

    def send(self, files: Sequence[Path]) -> list[int]:
        """C-STORE files as they are; returns the statuses (-1: no answer)."""
        datasets = [dcmread(path, force=True) for path in files]
        pairs = {(str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID)) for ds in datasets}
        ae = AE(ae_title=SENDER)
        ae.requested_contexts = [build_context(abstract, [syntax]) for abstract, syntax in sorted(pairs)]
        association = ae.associate("127.0.0.1", self.port, ae_title="FALX")
        assert association.is_established
        statuses = []
        for ds in datasets:
            answer = association.send_c_store(ds)
            statuses.append(int(answer.Status) if answer else -1)
        association.release()
        return statuses

    def rows(self, table: str, **where: object) -> list[dict[str, Any]]:
        """Rows of a ledger table."""
        found = {"tasks": tasks, "series": series, "deliveries": deliveries, "objects": objects}[table]
        query = select(found)
        for column, value in where.items():
            query = query.where(found.c[column] == value)
        with reading(self.ledger) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def settled(self, study_instance_uid: str) -> bool:
        """Whether the study has a final task and all its objects are confirmed or dead."""
        theirs = self.rows("tasks", study_instance_uid=study_instance_uid)
        sent = self.rows("deliveries", study_instance_uid=study_instance_uid)
        return (
            bool(theirs)
            and all(task["state"] != "waiting" for task in theirs)
            and all(one["state"] in ("confirmed", "dead") for one in sent)
        )


def orthanc_destination(port: int, **more: Any) -> dict[str, Any]:
    """A destinations entry for a test Orthanc."""
    return {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": port, "retry_first_s": 0.5, **more}
