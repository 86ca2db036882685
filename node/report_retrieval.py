"""Fetches radiologists' structured reports from a PACS into a folder, day by day: C-FIND, then C-GET or C-MOVE.

Days already fetched are not asked for again, but for the last few, in which a report may still come. Options of an
archive of source ``dicom-query``: ``since`` (YYYYMMDD, the first study date), ``look_back_days`` (default 14),
``move_ae_title`` and ``move_port``: with them the PACS is asked to move the reports to that AE title, which falx is
while it asks; without them they come by C-GET on falx's own association.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

from pydicom import Dataset, dcmwrite

from node import log
from node.archive.sources import Retrieve
from node.config import ArchiveSettings, QuerySettings, Settings
from node.dicom_net.move import ReportMover
from node.dicom_net.query import find_studies, get_reports
from node.errors import Misconfigured

LOOK_BACK_DAYS = 14
FETCHED = ".fetched-until"
IMAGES = {"CT", "MR"}
_AE_TITLE_CHARACTERS = 16
ReportsOf = Callable[[str], list[Dataset]]


def retriever(settings: Settings) -> Retrieve:
    """The function that ``node.archive`` calls to fetch; it calls the PACS as falx's own AE title."""

    def retrieve(archive: ArchiveSettings, folder: Path) -> None:
        source = peer_of(archive)
        day = _first_day(archive, folder)
        calling_ae = settings.reception.ae_title
        with _way(archive, source, settings) as reports_of:
            while day <= date.today():
                _fetch_day(source, calling_ae, reports_of, day, folder)
                (folder / FETCHED).write_text(day.isoformat(), encoding="ascii")
                day += timedelta(days=1)

    return retrieve


@contextmanager
def _way(archive: ArchiveSettings, source: QuerySettings, settings: Settings) -> Iterator[ReportsOf]:
    """How the reports of a study come: by C-MOVE to the port that the options name, else by C-GET."""
    options, calling_ae = archive.options, settings.reception.ae_title
    if "move_port" not in options and "move_ae_title" not in options:
        yield lambda uid: get_reports(source, uid, calling_ae=calling_ae)
        return
    title, port = str(options.get("move_ae_title", "")), str(options.get("move_port", ""))
    if not 0 < len(title) <= _AE_TITLE_CHARACTERS:
        raise Misconfigured(f"archives.{archive.name}.options.move_ae_title: give 1 to 16 characters, not {title!r}")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Misconfigured(f"archives.{archive.name}.options.move_port: give the port to listen on, not {port!r}")
    with ReportMover(
        source, calling_ae=calling_ae, ae_title=title, port=int(port), host=settings.reception.host
    ) as mover:
        yield mover.reports


def peer_of(archive: ArchiveSettings) -> QuerySettings:
    """The PACS of ``location: AETITLE@host:port``; raise Misconfigured."""
    ae_title, _, address = archive.location.partition("@")
    host, _, port = address.rpartition(":")
    if not ae_title or not host or not port.isdigit():
        raise Misconfigured(f"archives.{archive.name}.location: write AETITLE@host:port, not {archive.location!r}")
    return QuerySettings(ae_title=ae_title, host=host, port=int(port))


def _first_day(archive: ArchiveSettings, folder: Path) -> date:
    since = str(archive.options.get("since", ""))
    try:
        first = datetime.strptime(since, "%Y%m%d").date()
    except ValueError:
        raise Misconfigured(f"archives.{archive.name}.options.since: give the first study date as YYYYMMDD") from None
    fetched = folder / FETCHED
    if not fetched.exists():
        return first
    look_back = timedelta(days=int(archive.options.get("look_back_days", LOOK_BACK_DAYS)))
    return max(first, date.fromisoformat(fetched.read_text(encoding="ascii")) - look_back)


def _fetch_day(source: QuerySettings, calling_ae: str, reports_of: ReportsOf, day: date, folder: Path) -> None:
    studies = find_studies(source, calling_ae=calling_ae, study_date=f"{day:%Y%m%d}")
    kept = 0
    for study in studies:
        modalities = _modalities(study)
        if modalities and not ({"SR"} <= modalities and modalities & IMAGES):
            continue
        for report in reports_of(str(study.StudyInstanceUID)):
            kept += _keep(report, modalities, folder / f"{day:%Y%m%d}")
    log.get().info("reports_fetched", day=f"{day:%Y%m%d}", studies=len(studies), reports=kept)


def _modalities(study: Dataset) -> set[str]:
    value = study.get("ModalitiesInStudy") or []
    return {value} if isinstance(value, str) else {str(item) for item in value}


def _keep(report: Dataset, modalities: set[str], folder: Path) -> bool:
    target = folder / f"{report.SOPInstanceUID}.dcm"
    if target.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    report.ModalitiesInStudy = sorted(modalities)
    unfinished = folder / f".{target.name}"
    dcmwrite(unfinished, report, enforce_file_format=True)
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.rename(target)
    return True
