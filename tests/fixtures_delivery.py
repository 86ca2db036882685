"""A node without workers: delivery, and reception for the answers to storage commitments."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from fixtures_net import deliveries_of, queue_results
from sqlalchemy import Engine

from node.config import DestinationSettings, ReceptionSettings, Settings, StorageSettings
from node.dicom_net.delivery import run_delivery
from node.dicom_net.storage_scp import start_server
from node.store.database import open_database
from node.store.intake_writer import IntakeWriter
from node.store.spool import Spool


class Node:
    """A node without workers: reception (for commitment answers) and delivery, in threads."""

    def __init__(self, folder: Path, port: int, *destinations: DestinationSettings) -> None:
        self.settings = Settings(
            reception=ReceptionSettings(host="127.0.0.1", port=port),
            storage=StorageSettings(folder=folder, min_free_mb=0),
            destinations=destinations,
        )
        folder.mkdir(exist_ok=True)
        self.ledger: Engine = open_database(self.settings.storage, "ledger")
        self._intake = open_database(self.settings.storage, "intake")
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Node]:
        self._stop.clear()
        with IntakeWriter(self._intake, Spool(self.settings.storage)) as writer:
            server = start_server(self.settings, writer)
            thread = threading.Thread(target=run_delivery, args=(self.settings, self._stop))
            thread.start()
            try:
                yield self
            finally:
                self._stop.set()
                thread.join()
                server.shutdown()

    def queue(self, *datasets: pydicom.Dataset) -> list[str]:
        return queue_results(self.settings.storage, self.ledger, datasets, [d.name for d in self.settings.destinations])

    def states(self) -> dict[str, str]:
        return {uid: row["state"] for uid, row in deliveries_of(self.ledger).items()}

    def all_are(self, state: str) -> Callable[[], bool]:
        return lambda: set(self.states().values()) == {state}


def destination(port: int, **options: Any) -> DestinationSettings:
    return DestinationSettings(
        **{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "retry_first_s": 0.2,
           "retry_max_s": 1.0, **options}
    )  # fmt: skip
