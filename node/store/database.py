"""Opening falx's databases: SQLite files by default, schemas of one PostgreSQL database when a URL is configured.

Each database (``intake``, ``ledger``, ``labels``, ``rankings``, ``accounts``) has its own file or schema, its own
tables (one module beside this one) and its own chain of migrations in ``migrations/<name>/``, so that a long write
to one never delays another.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text

from node.config import StorageSettings
from node.errors import Misconfigured

NAMES = ("intake", "ledger", "labels", "rankings", "accounts")
MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATING = threading.Lock()  # Alembic keeps its context in module globals: one thread at a time


def now() -> datetime:
    """The present as an aware UTC time; the one clock of stored times."""
    return datetime.now(UTC)


def open_database(storage: StorageSettings, name: str) -> Engine:
    """Open database ``name`` and bring its schema up to date; an older SQLite schema is backed up first."""
    if name not in NAMES:
        raise Misconfigured(f"no database is called {name!r}")
    engine = _connect(storage, name)
    with _MIGRATING:
        _migrate(engine, name, storage)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, so that it neither waits for writers nor makes them wait."""
    with engine.connect().execution_options(falx_read=True) as connection, connection.begin():
        yield connection


def sqlite_path(storage: StorageSettings, name: str) -> Path:
    """Where the SQLite file of database ``name`` lies."""
    return storage.folder / "db" / f"{name}.sqlite"


def _connect(storage: StorageSettings, name: str) -> Engine:
    if storage.database:
        return create_engine(
            storage.database, pool_pre_ping=True, connect_args={"options": f"-csearch_path=falx_{name}"}
        )
    path = sqlite_path(storage, name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
    event.listen(engine, "connect", _sqlite_pragmas)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_pragmas(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN below, not sqlite3's own
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Any) -> None:
    # IMMEDIATE: a transaction that will write takes its lock at once, so it can wait instead of failing at upgrade
    read_only = connection.get_execution_options().get("falx_read", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _migrate(engine: Engine, name: str, storage: StorageSettings) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(MIGRATIONS / name))
    config.attributes["falx_name"] = name
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7012)"))
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS falx_{name}"))
        current = MigrationContext.configure(connection).get_current_revision()
        if current == head:
            return
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            raise Misconfigured(
                f"database {name} has schema {current}, which this falx does not know: it was written by a newer "
                "version; install that version again or restore a backup"
            )
        if current is not None and engine.dialect.name == "sqlite":
            _back_up(sqlite_path(storage, name), storage.folder / "backups")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _back_up(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{path.stem}-before-upgrade-{now():%Y%m%dT%H%M%S}.sqlite"
    source = sqlite3.connect(path)
    try:
        with sqlite3.connect(target) as copy:
            source.backup(copy)
        copy.close()
    finally:
        source.close()
    shutil.copymode(path, target)
