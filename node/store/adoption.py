"""At start-up: files of the spool without a row are taken in; nothing that lies there whole is ever discarded.

This is also how a lost index is rebuilt: the file meta of each file holds who sent it (node.store.part10).
"""

from __future__ import annotations

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

import structlog
from sqlalchemy import delete, select, update

from node.config import StorageSettings
from node.errors import Corrupt
from node.store import intake_tables as tables
from node.store.database import open_database, reading
from node.store.intake_writer import Arrival, IntakeWriter, Outcome
from node.store.part10 import FileMeta, Names, promised_content, read_file
from node.store.spool import Spool, sha256_of

log = structlog.get_logger()
_THREADS = 8  # so that their commits form groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What a pass over the spool found."""

    taken_in: int
    quarantined: int
    unfinished: int  # cut short before they were acknowledged: deleted


def adopt(writer: IntakeWriter) -> Adopted:
    """Take in every file that has no row; delete those never finished, quarantine those that cannot be read.

    Parameters
    ----------
    writer
        The started intake writer; nothing may be received before this returns.
    """
    with reading(writer.engine) as connection:
        known = set(connection.execute(select(tables.instances.c.path)).scalars())
    strays = [file for file in writer.spool.files() if str(file) not in known]
    with ThreadPoolExecutor(_THREADS) as threads:
        fates = Counter(threads.map(lambda file: _adopt_file(writer, file), strays))
    found = Adopted(taken_in=fates["taken in"], quarantined=fates["quarantined"], unfinished=fates["unfinished"])
    if strays:
        log.warning("spool_adopted", **asdict(found))
    return found


def rebuild_intake(storage: StorageSettings) -> Adopted:
    """Make the index anew from the spool alone; reception must be stopped.

    Sequence numbers change, and so does the index's generation, so that readers read everything again.
    """
    engine = open_database(storage, "intake")
    with IntakeWriter(engine, Spool(storage)) as writer:
        with engine.begin() as connection:
            connection.execute(delete(tables.instances))
            connection.execute(update(tables.generation).values(generation=uuid.uuid4().hex[:12]))
        found = adopt(writer)
    engine.dispose()
    return found


def _adopt_file(writer: IntakeWriter, file: PurePosixPath) -> str:
    path = writer.spool.folder / file
    status, promised = path.stat(), promised_content(path)
    if status.st_size == 0 or (promised is not None and status.st_size < promised[0]):
        writer.spool.remove(file)
        return "unfinished"
    received_at = datetime.fromtimestamp(status.st_mtime, UTC)
    try:
        meta, offset, names = read_file(path)
        sha256, size = sha256_of(path, offset)
        if promised is not None and (offset + size, sha256) != promised:
            raise Corrupt("its content is not what was written: the disk or a person has changed it")
    except Corrupt as error:
        sha256, size = sha256_of(path, 0)
        unknown = Arrival(
            file=file, names=_UNKNOWN, meta=_UNKNOWN_META, size_bytes=size, sha256=sha256, received_at=received_at
        )
        writer.quarantine(unknown, f"found in the spool: {error}")
        return "quarantined"
    arrival = Arrival(file=file, names=names, meta=meta, size_bytes=size, sha256=sha256, received_at=received_at)
    return "taken in" if writer.commit(arrival) is Outcome.STORED else "set aside"


_UNKNOWN = Names(
    study_instance_uid="",
    series_instance_uid="",
    sop_instance_uid="",
    sop_class_uid="",
    modality="",
    made_by_falx=False,
)
_UNKNOWN_META = FileMeta(
    sop_class_uid="", sop_instance_uid="", transfer_syntax_uid="", calling_ae="", called_ae="", remote_host=""
)
