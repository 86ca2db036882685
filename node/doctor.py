"""`falx doctor`: looks at everything that a node needs, and says what to do about each fault."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from node.config import Settings
from node.errors import FalxError
from node.store.database import NAMES, now, open_database, reading
from node.store.ledger_tables import deliveries, series
from node.store.outbox import WITHDRAWN
from node.study import DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at. ``remedy`` is empty when all is well."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Diagnosis]:
    """Run every examination; none raises."""
    examinations: list[Callable[[Settings], Iterator[Diagnosis]]] = [
        _callers,
        _folder,
        _databases,
        _ports,
        _destinations,
        _archives,
        _models,
        _device,
        _clock,
        _dead_letters,
    ]
    return [diagnosis for one in examinations for diagnosis in one(settings)]


def _callers(settings: Settings) -> Iterator[Diagnosis]:
    reception = settings.reception
    if reception.accept_unknown_callers:
        yield Diagnosis(
            what="callers",
            ok=False,
            found="any AE title may send",
            remedy="list the PACS under reception.callers and set accept_unknown_callers: false",
        )
    elif not reception.callers and not settings.destinations:
        yield Diagnosis(
            what="callers", ok=False, found="nobody may send", remedy="list the PACS under reception.callers"
        )
    else:
        yield Diagnosis(what="callers", ok=True, found=", ".join(c.ae_title for c in reception.callers) or "none")
    if not settings.destinations:
        yield Diagnosis(
            what="destinations", ok=False, found="none", remedy="name the PACS under destinations: results go nowhere"
        )


def _folder(settings: Settings) -> Iterator[Diagnosis]:
    storage = settings.storage
    if not storage.folder.is_dir() or not os.access(storage.folder, os.W_OK):
        yield Diagnosis(
            what="storage folder",
            ok=False,
            found=f"{storage.folder} is absent or not writable",
            remedy=f"install -d -m 700 -o falx -g falx {storage.folder}",
        )
        return
    free_mb = shutil.disk_usage(storage.folder).free // 2**20
    short = free_mb < storage.min_free_mb
    yield Diagnosis(
        what="free disk",
        ok=not short,
        found=f"{free_mb} MB free, refusing below {storage.min_free_mb} MB",
        remedy="free space, run `falx purge`, or lower storage.min_free_mb" if short else "",
    )


def _databases(settings: Settings) -> Iterator[Diagnosis]:
    for name in NAMES:
        try:
            engine = open_database(settings.storage, name)
            with reading(engine) as connection:
                connection.execute(select(1))
            engine.dispose()
        except (FalxError, SQLAlchemyError, OSError) as error:
            yield Diagnosis(
                what=f"database {name}",
                ok=False,
                found=str(error).splitlines()[0],
                remedy="check storage.database and storage.folder; `falx restore` brings a backup back",
            )
        else:
            yield Diagnosis(what=f"database {name}", ok=True, found="open, schema up to date")


def _ports(settings: Settings) -> Iterator[Diagnosis]:
    for what, host, port in (
        ("reception port", settings.reception.host, settings.reception.port),
        ("web port", settings.web.host, settings.web.port),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                running = _answers(host, port)
                yield Diagnosis(
                    what=what,
                    ok=running,
                    found=f"{host}:{port} is in use" + (" (a server answers: falx, if it runs)" if running else ""),
                    remedy="" if running else f"{error.strerror}: choose another port or give the right",
                )
            else:
                yield Diagnosis(what=what, ok=True, found=f"{host}:{port} is free (falx is not running)")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1" if host == "0.0.0.0" else host, port), timeout=2):  # noqa: S104
            return True
    except OSError:
        return False


def _destinations(settings: Settings) -> Iterator[Diagnosis]:
    from node.dicom_net.query import echo

    for destination in settings.destinations:
        answer = echo(destination, settings.reception.ae_title)
        yield Diagnosis(
            what=f"C-ECHO to {destination.name}",
            ok=answer.ok,
            found=answer.text,
            remedy=""
            if answer.ok
            else f"check host, port and AE title of {destination.ae_title}, the firewall, and that it knows"
            f" {settings.reception.ae_title}",
        )


def _archives(settings: Settings) -> Iterator[Diagnosis]:
    """Schedule, place and columns of each report archive, as a run would find them."""
    from node.archive.cron import trigger_of
    from node.archive.sources import open_source
    from node.report_retrieval import retriever

    for archive in settings.archives:
        try:
            trigger = trigger_of(archive.cron, f"archives.{archive.name}.cron")
            open_source(archive, settings.storage.folder, retriever(settings)).check()
        except (FalxError, OSError) as error:
            yield Diagnosis(
                what=f"archive {archive.name}",
                ok=False,
                found=str(error),
                remedy="correct it in config.yaml; docs/report_archive.md names the options of each source",
            )
        else:
            following = trigger.get_next_fire_time(None, now().astimezone())
            when = f"next run {following:%Y-%m-%d %H:%M}" if following else "its schedule names no day to come"
            yield Diagnosis(what=f"archive {archive.name}", ok=True, found=f"{archive.source}, {when}")


def _models(settings: Settings) -> Iterator[Diagnosis]:
    from inference.weights import read_metadata, verify
    from node.model_folders import model_folder

    for purpose in settings.models.enabled:
        folder: Path = model_folder(settings, purpose)
        try:
            verify(folder)
            metadata = read_metadata(folder)
        except (ValueError, OSError) as error:
            yield Diagnosis(
                what=f"model {purpose}",
                ok=False,
                found=str(error),
                remedy="install falx again, or `falx deploy` the model again",
            )
        else:
            yield Diagnosis(what=f"model {purpose}", ok=True, found=f"{metadata.name} {metadata.version}, hash right")


def _device(settings: Settings) -> Iterator[Diagnosis]:
    import torch

    wanted, there = settings.models.device, torch.cuda.is_available()
    if wanted == "cuda" and not there:
        yield Diagnosis(
            what="GPU",
            ok=False,
            found="models.device is cuda, but none is found",
            remedy="install the driver, or set auto",
        )
    else:
        yield Diagnosis(what="GPU", ok=True, found=torch.cuda.get_device_name(0) if there else "none; CPU is used")


def _clock(settings: Settings) -> Iterator[Diagnosis]:
    """A clock behind what is booked already was set back; ages and silences would be wrong."""
    try:
        engine = open_database(settings.storage, "ledger")
        with reading(engine) as connection:
            newest = connection.scalar(select(func.max(series.c.last_received_at)))
        engine.dispose()
    except (FalxError, SQLAlchemyError, OSError):
        return
    behind_s = (newest - now()).total_seconds() if newest is not None else 0.0
    yield Diagnosis(
        what="clock",
        ok=behind_s < 5,
        found=f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
        + (f", {behind_s:.0f} s behind the newest series" if behind_s >= 5 else ""),
        remedy="set the clock (chrony or systemd-timesyncd)" if behind_s >= 5 else "",
    )


def _dead_letters(settings: Settings) -> Iterator[Diagnosis]:
    try:
        engine = open_database(settings.storage, "ledger")
        with reading(engine) as connection:
            dead = connection.scalar(
                select(func.count())
                .select_from(deliveries)
                .where(deliveries.c.state == DeliveryState.DEAD, deliveries.c.status != WITHDRAWN)
            )
        engine.dispose()
    except (FalxError, SQLAlchemyError, OSError):
        return
    yield Diagnosis(
        what="undelivered results",
        ok=not dead,
        found=f"{dead} dead",
        remedy="`falx status` lists them with their errors; mend the cause, then `falx retry`" if dead else "",
    )
