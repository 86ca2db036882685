"""Start falx's reception alone, for benchmarks: ``python benchmarks/reception_process.py PORT AE_TITLE FOLDER``."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from node import log
from node.config import LogSettings, ReceptionSettings, Settings, StorageSettings
from node.dicom_net.storage_scp import run_reception


def main() -> None:
    """Run until SIGTERM."""
    port, ae_title, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    log.set_up(LogSettings(level="warning"), "reception")
    reception = ReceptionSettings(host="127.0.0.1", port=port, ae_title=ae_title, accept_unknown_callers=True)
    run_reception(Settings(reception=reception, storage=StorageSettings(folder=folder, min_free_mb=10)), stop)


if __name__ == "__main__":
    main()
