"""The spool: received instances as durable Part 10 files, and what is done so that none that was acknowledged is lost.

A file is written in its place and synced by the thread that received it; its folders are synced and its row committed
by the one committer (node.store.intake_writer); no rename, which would cost one more journal commit. Its file meta
says how long its content is and the hash of it, so that a file without a row can be told whole from cut short.
Paths are hashes of UIDs: whatever a sender calls an instance, its path stays inside the spool.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from node.config import StorageSettings
from node.errors import FalxError

SPOOL = "spool"
QUARANTINE = "quarantine"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageFull(FalxError):
    """No room for another instance: answer 0xA700 and keep nothing of it."""


def instance_path(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> PurePosixPath:
    """Return where an instance lies, relative to the storage folder; a pure function of any three strings."""
    study = _hash(study_instance_uid)
    return PurePosixPath(SPOOL, study[:2], study, _hash(series_instance_uid), f"{_hash(sop_instance_uid)}.dcm")


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Spool:
    """The files below ``storage.folder``; safe to use from several threads of one process."""

    def __init__(self, storage: StorageSettings) -> None:
        self.folder = storage.folder
        self.keep_quarantine = timedelta(days=storage.keep_objects_days)
        self._min_free_bytes = storage.min_free_mb * 1_000_000
        self._lasting: set[Path] = set()  # folders whose entry in their parent is known to be synced
        self._lock = threading.Lock()
        for name in (SPOOL, QUARANTINE):
            (self.folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_folder(self.folder / name)
        sync_folder(self.folder)

    def check_free(self, size_bytes: int) -> None:
        """Raise StorageFull when writing ``size_bytes`` would leave less than ``storage.min_free_mb``."""
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize - size_bytes < self._min_free_bytes:
            raise StorageFull(
                "free space is below storage.min_free_mb: purge, or give the storage folder a larger disk"
            )

    def write(self, wanted: PurePosixPath, meta: bytes, dataset: memoryview) -> PurePosixPath:
        """Write and sync ``meta`` and ``dataset``; return where, relative to the storage folder.

        That is ``wanted``, or a name beside it when a file is there: which of the two counts is decided at commit.

        Raises
        ------
        StorageFull
            The disk, quota or file size limit was reached; nothing is left behind.
        """
        self.check_free(len(meta) + dataset.nbytes)
        place = wanted
        for _attempt in range(8):
            try:
                _write_synced(self.folder / place, meta, dataset)
                return place
            except FileExistsError:
                place = wanted.with_stem(f"{wanted.stem}-{uuid.uuid4().hex[:12]}")
            except FileNotFoundError:  # first of its series, or a purge has just removed the empty folder
                (self.folder / place).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                (self.folder / place).unlink(missing_ok=True)
                if error.errno in _FULL:
                    raise StorageFull(f"{self.folder}: {error.strerror}") from error
                raise
        raise OSError(errno.EAGAIN, "the folder of a series vanishes while it is written to", str(self.folder / place))

    def sync_folders(self, files: list[PurePosixPath]) -> None:
        """Make the names of ``files`` last: their folders, and every new folder above up to the storage folder."""
        for folder in {self.folder / file.parent for file in files}:
            sync_folder(folder)
            with self._lock:
                known = folder in self._lasting
                above = () if known else (folder, *folder.parents)
                fresh = [f for f in above if self.folder in f.parents and f not in self._lasting]
            for child in fresh:
                sync_folder(child.parent)
            with self._lock:
                self._lasting.update(fresh)

    def quarantine(self, file: PurePosixPath, at: datetime) -> PurePosixPath:
        """Move a file to the quarantine; return its path there, relative to the storage folder."""
        kept = PurePosixPath(QUARANTINE, f"{at:%Y%m%d}", f"{uuid.uuid4().hex}.dcm")
        (self.folder / kept.parent).mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(self.folder / file, self.folder / kept)
        return kept

    def remove(self, file: PurePosixPath) -> None:
        """Delete one file (it may be gone already) and the folders that this leaves empty."""
        path = self.folder / file
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder.parent == self.folder:
                break
            with self._lock:
                self._lasting.discard(folder)  # before it goes: a folder made anew is then synced anew
            try:
                folder.rmdir()
            except OSError:  # not empty: another series or study is in it
                break

    def files(self) -> Iterator[PurePosixPath]:
        """Give every file of the spool, relative to the storage folder."""
        for path in sorted((self.folder / SPOOL).rglob("*.dcm")):
            yield PurePosixPath(path.relative_to(self.folder).as_posix())


def _write_synced(path: Path, meta: bytes, dataset: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest: list[memoryview] = [memoryview(meta), dataset]
        while rest:
            written = os.writev(descriptor, rest)
            while rest and written >= rest[0].nbytes:
                written -= rest.pop(0).nbytes
            if rest and written:
                rest[0] = rest[0][written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path, offset: int) -> tuple[str, int]:
    """Return the SHA-256 of a file's bytes from ``offset`` on, and how many there are."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
