"""One archive relabelled with everything that belongs to it: source, engine, run, embedding map."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from sqlalchemy import Engine

from node import log
from node.archive.engines import open_engine, set_up_worker
from node.archive.relabel import Progress, Relabelling, Run
from node.archive.sources import Retrieve, open_source
from node.config import ArchiveSettings, Settings
from node.errors import Transient
from node.store.database import open_database

SCHEDULED_NICENESS = 10  # a scheduled run never takes a core from the analysis of a study


def relabel_archive(
    settings: Settings,
    archive: ArchiveSettings,
    labels: Engine,
    ledger: Engine,
    *,
    engine: str = "",
    trigger: str = "person",
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    retrieve: Retrieve | None = None,
    with_map: bool = True,
) -> Run:
    """Relabel one archive; raise Misconfigured or Transient as :meth:`Relabelling.run` does.

    Options of the archive: ``engine`` (default ``local``), ``model`` (a folder, default the shipped one), ``workers``
    (default all cores), ``niceness`` of the workers, ``map: false`` leaves the map out.
    """
    engine = engine or str(archive.options.get("engine", "local"))
    source = open_source(archive, settings.storage.folder, retrieve)
    source.check()
    options = archive.options
    niceness = int(options.get("niceness", SCHEDULED_NICENESS if trigger == "schedule" else 0))
    label_engine = open_engine(engine, model_folder(archive), int(options.get("workers", 0)), niceness)
    try:
        run = Relabelling(settings.storage, labels, ledger, archive.name, source, label_engine).run(
            trigger=trigger, engine_name=engine, progress=progress, stop=stop
        )
    finally:
        label_engine.close()
    if with_map and options.get("map", True) and run.counts.labelled:
        draw_map(settings, archive, run.set_id)
    return run


def model_folder(archive: ArchiveSettings) -> Path | None:
    """The report model that an archive asks for; None for the shipped one."""
    return Path(str(archive.options["model"])) if "model" in archive.options else None


def draw_map(settings: Settings, archive: ArchiveSettings, set_id: int) -> int:
    """Make the embedding map of a label set; return how many reports are on it.

    In a process of its own: the service process, which calls this, never loads torch.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), set_up_worker) as pool:
        try:
            points = pool.submit(_draw, settings, archive, set_id).result()
        except BrokenProcessPool:
            raise Transient("the process that draws the map died (out of memory?)") from None
    log.get().info("map_drawn", archive=archive.name, set_id=set_id, points=points)
    return points


def _draw(settings: Settings, archive: ArchiveSettings, set_id: int) -> int:
    from inference.report_labels import ReportLabeller
    from node.archive.embedding_map import make_map

    labeller = ReportLabeller.load(model_folder(archive))
    labels = open_database(settings.storage, "labels")
    return make_map(labels, settings.storage.folder, archive.name, set_id, labeller)
