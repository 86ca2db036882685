"""Two service processes over one storage folder: one is at work, the other takes over when that one has died."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from conftest import take_port
from fixtures_net import deliveries_of, queue_results, report
from pydicom.uid import generate_uid

from node import service
from node.config import load
from node.dicom_net.embedded_pacs import EmbeddedPacs
from node.store.database import open_database


class Counting(EmbeddedPacs):
    """Counts what it is sent."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.came: Counter[str] = Counter()

    def keep(self, event: Any) -> int:
        self.came[str(event.request.AffectedSOPInstanceUID)] += 1
        return super().keep(event)


def start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "node.cli", "serve", "-c", str(config), "--role", "service"]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stderr=stream)


def test_a_second_service_waits_and_takes_over(tmp_path: Path, wait_for: Callable[..., object]) -> None:
    pacs = Counting(tmp_path / "pacs", "PACS", take_port(), {})
    pacs.start()
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "confirm": "c-find"}
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {"storage": {"folder": str(tmp_path / "falx")}, "destinations": [destination], "web": {"port": 0}}
        )
    )
    settings = load(config)
    service.prepare(settings)
    engine = open_database(settings.storage, "ledger")
    logs = [tmp_path / name for name in ("first.log", "second.log")]
    processes = []

    def says(number: int, word: str) -> bool:
        return word in logs[number].read_text()

    def confirmed(uids: list[str]) -> bool:
        rows = deliveries_of(engine)
        return all(rows[uid]["state"] == "confirmed" for uid in uids)

    try:
        processes.append(start(config, logs[0]))
        wait_for(lambda: says(0, "service_active"), 120, "the first at work")
        processes.append(start(config, logs[1]))
        wait_for(lambda: says(1, "service_standby"), 120, "the second waiting")
        sent = [
            uid for _ in range(5) for uid in queue_results(settings.storage, engine, [report(generate_uid())], ["pacs"])
        ]
        wait_for(lambda: confirmed(sent), 120, "the first's deliveries")
        assert not says(1, "delivered")
        processes[0].kill()
        processes[0].wait()
        wait_for(lambda: says(1, "service_active"), 120, "the second taking over")
        later = queue_results(settings.storage, engine, [report(generate_uid())], ["pacs"])
        wait_for(lambda: confirmed(later), 120, "the second's delivery")
        assert pacs.came == Counter([*sent, *later])
        processes[1].terminate()
        assert processes[1].wait(90) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
        engine.dispose()
        pacs.stop()
