"""Archives of reports with their databases, for tests of relabelling; the fixtures are in fixtures_reports.py."""

from __future__ import annotations

import csv
import random
import threading
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import func, select

from node.archive.engines import LabelEngine
from node.archive.relabel import Progress, Relabelling, Run
from node.archive.sources import open_source
from node.config import ArchiveSettings, StorageSettings
from node.store import labels as store
from node.store.database import open_database, reading
from node.store.labels_tables import reports

_FINDINGS = (
    "There is an acute infarct in the left MCA territory with restricted diffusion.",
    "No intracranial haemorrhage.",
    "A 3 cm enhancing mass in the right frontal lobe with surrounding oedema.",
    "Generalised volume loss in excess of age.",
    "Confluent white matter hyperintensities, Fazekas 3.",
    "Multiple ovoid periventricular plaques in keeping with demyelination.",
    "Mature infarct with encephalomalacia in the right occipital lobe.",
    "Acute subdural haematoma along the left convexity, 12 mm deep.",
    "The ventricles are dilated in keeping with obstructive hydrocephalus.",
    "The ventricles and sulci are normal for age.",
    "No restricted diffusion. No mass lesion.",
    "The visualised paranasal sinuses are clear.",
    "Normal flow voids in the major intracranial vessels.",
    "A 6 mm aneurysm of the anterior communicating artery.",
)
COLUMNS = {"accession_number": "acc", "text": "body"}


def report_text(number: int) -> str:
    """A head report; the same number gives the same text, different numbers different ones."""
    chosen = random.Random(number).sample(_FINDINGS, 4)
    return f"MRI head with contrast. Study {number}. " + " ".join(chosen)


class Archive:
    """An archive called ``ris`` of CSV files in a folder, with label store and ledger."""

    def __init__(self, root: Path, engine: LabelEngine, database: str = "") -> None:
        self.folder = root / "archive"
        self.folder.mkdir()
        self.engine = engine
        self.storage = StorageSettings(folder=root / "storage", database=database)
        self.labels = open_database(self.storage, "labels")
        self.ledger = open_database(self.storage, "ledger")

    def write(self, name: str, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("acc", "body")) -> None:
        """Write one file of the archive."""
        with (self.folder / name).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([columns, *rows])

    def run(
        self,
        *,
        engine: LabelEngine | None = None,
        columns: dict[str, str] | None = None,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
    ) -> Run:
        """Relabel the archive."""
        chosen = COLUMNS if columns is None else columns
        settings = ArchiveSettings(name="ris", source="csv", location=str(self.folder), columns=chosen, modality="MR")
        source = open_source(settings, self.storage.folder)
        work = Relabelling(self.storage, self.labels, self.ledger, "ris", source, engine or self.engine)
        return work.run(progress=progress, stop=stop)

    def runs(self) -> list[store.LabelSet]:
        """The run history, newest first."""
        with reading(self.labels) as connection:
            return store.label_sets_of(connection, "ris")

    def rows(self) -> Sequence[store.ReportRow]:
        """All current reports."""
        with reading(self.labels) as connection:
            return store.list_reports(connection, "ris", limit=store.MAX_PAGE).rows

    def current(self) -> int:
        """How many reports the store holds."""
        with reading(self.labels) as connection:
            return store.archives(connection).get("ris", 0)

    def check_sums(self) -> None:
        """Counts add up, and every report that a run labelled has exactly one row of that run."""
        with reading(self.labels) as connection:
            stored = dict(connection.execute(select(reports.c.set_id, func.count()).group_by(reports.c.set_id)).all())
        for one in self.runs():
            assert one.counts.adds_up, one
            assert stored.get(one.set_id, 0) == one.counts.labelled, one
