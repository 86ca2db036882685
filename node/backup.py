"""`falx backup` and `falx restore`: what cannot be had again, in one archive.

The databases, the result objects that are not yet confirmed, the report archives' label files and received messages,
and the deployed models. Received images are not in it: falx is no archive, and the intake index is rebuilt from the
spool. PostgreSQL keeps its own backups; the archive then holds the files only, and says so.
"""

from __future__ import annotations

import fcntl
import io
import json
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import select

from node import __version__
from node.config import Settings, StorageSettings
from node.errors import FalxError, Misconfigured
from node.store.database import NAMES, now, open_database, reading, sqlite_path
from node.store.ledger_tables import deliveries, objects
from node.study import DeliveryState

MANIFEST = "falx-backup.json"
FOLDERS = ("labels", "mllp", "retrieved", "models")
"""Folders of the storage folder that go in whole. Their files never change once they have their name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupContent:
    """What an archive holds."""

    version: str
    made_at: str
    databases: tuple[str, ...]
    objects: int
    folders: tuple[str, ...] = ()
    files: int = 0  # in the folders


@contextmanager
def node_lock(storage: StorageSettings) -> Iterator[None]:
    """Held by `falx serve` while it runs; raises FalxError when another process holds it."""
    storage.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (storage.folder / "falx.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FalxError(f"falx is running on {storage.folder}: stop it first (systemctl stop falx)") from None
        yield


def back_up(settings: Settings, target: Path) -> BackupContent:
    """Write an archive of the running or stopped node to ``target`` (.tar.gz); nothing is left when it fails."""
    storage = settings.storage
    databases = () if storage.database else tuple(n for n in NAMES if sqlite_path(storage, n).exists())
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        with tarfile.open(partial, "w:gz") as archive, tempfile.TemporaryDirectory(dir=target.parent) as work:
            for name in databases:
                copy = Path(work) / f"{name}.sqlite"
                _copy_database(sqlite_path(storage, name), copy)
                archive.add(copy, f"db/{name}.sqlite")
            paths = _open_objects(settings)
            for path in paths:
                archive.add(storage.folder / path, path)
            files = _add_folders(archive, storage.folder)  # after the databases: all that these list is there
            content = BackupContent(
                version=__version__,
                made_at=now().isoformat(),
                databases=databases,
                objects=len(paths),
                folders=FOLDERS,
                files=files,
            )
            _add_manifest(archive, content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return content


def _add_folders(archive: tarfile.TarFile, storage: Path) -> int:
    """Add the finished files and links of FOLDERS; return how many."""
    added = 0
    for path in sorted(found for name in FOLDERS for found in (storage / name).rglob("*")):
        inside = path.relative_to(storage)
        unfinished = any(part.startswith(".") or part.endswith((".part", ".partial", ".new")) for part in inside.parts)
        if unfinished or not (path.is_symlink() or path.is_file()):
            continue
        try:
            archive.add(path, inside.as_posix(), recursive=False)
        except FileNotFoundError:  # a file of an older label set, or of a rolled-back run, goes while this runs
            continue
        added += 1
    return added


def _copy_database(source: Path, target: Path) -> None:
    reader, writer = sqlite3.connect(source), sqlite3.connect(target)
    try:
        reader.backup(writer)
    finally:
        reader.close()
        writer.close()


def _open_objects(settings: Settings) -> list[str]:
    """Paths of objects that some destination has not confirmed."""
    engine = open_database(settings.storage, "ledger")
    query = (
        select(objects.c.path)
        .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
        .where(deliveries.c.state != DeliveryState.CONFIRMED)
        .distinct()
    )
    with reading(engine) as connection:
        paths = [path for path in connection.scalars(query) if (settings.storage.folder / path).exists()]
    engine.dispose()
    return paths


def _add_manifest(archive: tarfile.TarFile, content: BackupContent) -> None:
    data = json.dumps(asdict(content)).encode()
    entry = tarfile.TarInfo(MANIFEST)
    entry.size, entry.mode = len(data), 0o600
    archive.addfile(entry, io.BytesIO(data))


def restore(settings: Settings, source: Path) -> BackupContent:
    """Put an archive's content back; present databases and folders are moved to ``backups/``, never deleted."""
    storage = settings.storage
    with node_lock(storage), tempfile.TemporaryDirectory(dir=storage.folder) as work:
        content = _unpack(source, Path(work))
        aside = storage.folder / "backups" / f"before-restore-{now():%Y%m%dT%H%M%S}"
        for name in content.databases:
            _replace_database(Path(work) / "db" / f"{name}.sqlite", sqlite_path(storage, name), aside)
        for name in content.folders:
            _replace_folder(Path(work) / name, storage.folder / name, aside)
        for path in (Path(work) / "outbox").rglob("*"):
            if path.is_file():
                target = storage.folder / path.relative_to(work)
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.move(path, target)
    return content


def _unpack(source: Path, work: Path) -> BackupContent:
    try:
        with tarfile.open(source) as archive:
            archive.extractall(work, filter="data")
            manifest = _read(archive.extractfile(MANIFEST))
    except (OSError, tarfile.TarError, KeyError) as error:
        raise Misconfigured(f"{source} is not a backup of falx: {error}") from None
    content = json.loads(manifest)
    lists = {name: tuple(content.get(name, ())) for name in ("databases", "folders")}
    return BackupContent(**{**content, **lists})


def _read(stream: IO[bytes] | None) -> bytes:
    if stream is None:
        raise KeyError(MANIFEST)
    return stream.read()


def _replace_database(new: Path, place: Path, aside: Path) -> None:
    aside.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in (place, place.with_name(place.name + "-wal"), place.with_name(place.name + "-shm")):
        if old.exists():
            shutil.move(old, aside / old.name)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.move(new, place)


def _replace_folder(new: Path, place: Path, aside: Path) -> None:
    aside.mkdir(parents=True, exist_ok=True, mode=0o700)
    if place.exists():
        shutil.move(place, aside / place.name)
    if new.exists():
        shutil.move(new, place)
