"""Relabels each archive when its cron expression says so. config.yaml is the truth: jobs are made from it at start.

A job is this module's path and an archive's name; nothing is pickled, nothing of a job outlives the process. What must
outlive it, when an archive last ran and how far it came, is in the label store. So a run that was due while falx was
down, or that was killed, is made up for at the next start, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from node import log
from node.archive.cron import trigger_of, was_due
from node.archive.job import relabel_archive
from node.archive.sources import Retrieve
from node.archive.sources.mllp import run_listener
from node.config import ArchiveSettings, Settings
from node.errors import FalxError
from node.store import labels_runs
from node.store.database import now, open_database, reading

RELABEL = "node.archive.schedule:relabel"
STOP_POLL_S = 1.0
_at_work: dict[str, Callable[[], None]] = {}


def relabel(archive: str) -> None:
    """The job: relabel one archive of the running scheduler."""
    _at_work[archive]()


def make_scheduler(settings: Settings, labels: Engine, run: Callable[[ArchiveSettings], None]) -> BaseScheduler:
    """A scheduler with one job an archive, not started; ``run`` does the work in its thread."""
    scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(1)})
    _at_work.clear()  # archives that config.yaml no longer names have no job
    for archive in settings.archives:
        trigger = trigger_of(archive.cron, f"archives.{archive.name}.cron")
        _at_work[archive.name] = _job(archive, trigger, labels, run)
        first = {"next_run_time": datetime.now().astimezone()} if _owes(labels, archive, trigger) else {}
        scheduler.add_job(
            RELABEL,
            trigger,
            args=[archive.name],
            id=archive.name,
            replace_existing=True,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
            **first,
        )
    return scheduler


def _owes(labels: Engine, archive: ArchiveSettings, trigger: BaseTrigger) -> bool:
    """Whether a run was due while nobody was there to do it, or one stopped half-way."""
    with reading(labels) as connection:
        last = labels_runs.last_started_at(connection, archive.name)
        return labels_runs.unfinished(connection, archive.name) or was_due(trigger, last, now())


def _job(
    archive: ArchiveSettings, trigger: BaseTrigger, labels: Engine, run: Callable[[ArchiveSettings], None]
) -> Callable[[], None]:
    def work() -> None:
        with reading(labels) as connection:
            last = labels_runs.last_started_at(connection, archive.name)
        if last is not None and not _owes(labels, archive, trigger):
            log.get().info("relabelling_skipped", archive=archive.name, reason="another host did it")
            return
        try:
            run(archive)
        except FalxError as error:  # noted in the run history; the next period tries again
            log.get().error("relabelling_failed", archive=archive.name, reason=str(error))
        except DBAPIError as error:
            log.get().error("relabelling_failed", archive=archive.name, reason=f"database: {type(error.orig).__name__}")

    return work


def run_scheduler(settings: Settings, stop: threading.Event, retrieve: Retrieve | None = None) -> None:
    """Schedule all archives and listen for those that are sent by MLLP, until ``stop``; blocks.

    Parameters
    ----------
    retrieve
        Fetches structured reports from a PACS (``node.report_retrieval``), for archives of source ``dicom-query``.

    Raises
    ------
    Misconfigured
        When a cron expression or an MLLP address cannot be used.
    """
    if not settings.archives:
        stop.wait()
        return
    labels = open_database(settings.storage, "labels")
    ledger = open_database(settings.storage, "ledger")

    def run(archive: ArchiveSettings) -> None:
        relabel_archive(settings, archive, labels, ledger, trigger="schedule", stop=stop, retrieve=retrieve)

    scheduler = make_scheduler(settings, labels, run)
    failed: list[FalxError] = []
    listeners = [
        threading.Thread(target=_listen, args=(archive, settings, stop, failed), name=f"mllp-{archive.name}")
        for archive in settings.archives
        if archive.source == "mllp"
    ]
    for listener in listeners:
        listener.start()
    scheduler.start()
    try:
        while not stop.wait(STOP_POLL_S) and not failed:
            pass
    finally:
        stop.set()
        scheduler.shutdown(wait=True)
        for listener in listeners:
            listener.join()
    if failed:
        raise failed[0]


def _listen(archive: ArchiveSettings, settings: Settings, stop: threading.Event, failed: list[FalxError]) -> None:
    try:
        run_listener(archive, settings.storage.folder, stop)
    except FalxError as error:
        failed.append(error)
