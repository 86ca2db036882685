"""Report archives: one connector a file, all with the same three calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.labels_values import Flagged, Part, Report

Retrieve = Callable[[ArchiveSettings, Path], None]
"""Fetch the SR objects of a PACS that are not yet in the folder; raise Transient when it does not answer."""


class Source(Protocol):
    """An archive of reports."""

    def check(self) -> None:
        """Raise Misconfigured, naming what is wrong, before anything is read."""

    def parts(self) -> Iterator[Part]:
        """What the archive is made of now, always in the same order."""

    def read(self, part: Part, position: str | None) -> Iterator[tuple[str, Report | Flagged]]:
        """(position, record) of a part, after ``position`` (None: from the beginning)."""


def open_source(archive: ArchiveSettings, storage: Path, retrieve: Retrieve | None = None) -> Source:
    """Open an archive; a connector is imported only when it is used."""
    source: Source
    match archive.source:
        case "csv":
            from node.archive.sources.csv_files import CsvFolder

            source = CsvFolder(archive)
        case "parquet":
            from node.archive.sources.parquet_files import ParquetFolder

            source = ParquetFolder(archive)
        case "jsonl":
            from node.archive.sources.jsonl_files import JsonlFolder

            source = JsonlFolder(archive)
        case "sql":
            from node.archive.sources.sql_query import SqlQuery

            source = SqlQuery(archive)
        case "fhir":
            from node.archive.sources.fhir_files import FhirFolder

            source = FhirFolder(archive)
        case "hl7" | "mllp":
            source = _hl7(archive, storage)
        case "dicom-sr" | "dicom-query":
            source = _dicom(archive, storage, retrieve)
    return source


def _hl7(archive: ArchiveSettings, storage: Path) -> Source:
    from node.archive.sources.hl7_files import Hl7Folder

    if archive.source == "hl7":
        return Hl7Folder(archive)
    from node.archive.sources.mllp import address, spool_folder

    address(archive)
    folder = spool_folder(storage, archive.name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Hl7Folder(archive, folder)


def _dicom(archive: ArchiveSettings, storage: Path, retrieve: Retrieve | None) -> Source:
    from node.archive.sources.dicom_sr import DicomSrFolder, PacsSource

    if archive.source == "dicom-sr":
        return DicomSrFolder(archive)
    if retrieve is None:
        raise Misconfigured(f"archives.{archive.name}: this command cannot query a PACS; `falx relabel` can")
    return PacsSource(archive, storage / "retrieved" / archive.name, retrieve)
