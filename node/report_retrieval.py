"""Fetches radiologists' structured reports from a PACS into a folder, day by day: C-FIND, then C-GET.

Days already fetched are not asked for again, but for the last few, in which a report may still come. Options of an
archive of source ``dicom-query``: ``since`` (YYYYMMDD, the first study date), ``look_back_days`` (default 14).
"""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from pathlib import Path

from pydicom import Dataset, dcmwrite

from node import log
from node.archive.sources import Retrieve
from node.config import ArchiveSettings, QuerySettings, Settings
from node.dicom_net.query import find_studies, get_reports
from node.errors import Misconfigured

LOOK_BACK_DAYS = 14
FETCHED = ".fetched-until"
IMAGES = {"CT", "MR"}


def retriever(settings: Settings) -> Retrieve:
    """The function that ``node.archive`` calls to fetch; it calls the PACS as falx's own AE title."""

    def retrieve(archive: ArchiveSettings, folder: Path) -> None:
        source = peer_of(archive)
        day = _first_day(archive, folder)
        while day <= date.today():
            _fetch_day(source, settings.reception.ae_title, day, folder)
            (folder / FETCHED).write_text(day.isoformat(), encoding="ascii")
            day += timedelta(days=1)

    return retrieve


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


def _fetch_day(source: QuerySettings, calling_ae: str, day: date, folder: Path) -> None:
    studies = find_studies(source, calling_ae=calling_ae, study_date=f"{day:%Y%m%d}")
    kept = 0
    for study in studies:
        modalities = _modalities(study)
        if modalities and not ({"SR"} <= modalities and modalities & IMAGES):
            continue
        for report in get_reports(source, str(study.StudyInstanceUID), calling_ae=calling_ae):
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
