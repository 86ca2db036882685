"""The worklist's rows, read from the ledger once for all browsers that look at the same moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from sqlalchemy import Engine

from node.store.database import reading
from node.web.queries import Answer, WorklistRow, worklist_rows

MAX_AGE_S = 2.0


class WorklistSnapshot:
    """Rows at most ``MAX_AGE_S`` old; twenty open worklists cost the ledger as much as one."""

    def __init__(self, ledger: Engine) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._rows: Sequence[WorklistRow] = ()
        self._answers: dict[int, Answer] = {}
        self._read_at_s = float("-inf")

    def rows(self) -> Sequence[WorklistRow]:
        """Every study, highest score first."""
        with self._lock:
            if time.monotonic() - self._read_at_s > MAX_AGE_S:
                with reading(self._ledger) as connection:
                    self._rows = worklist_rows(connection, self._answers)
                self._read_at_s = time.monotonic()
            return self._rows
