"""Opening databases: migration after a backup, refusal of a newer schema, reading beside a writer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from node.config import StorageSettings
from node.errors import Misconfigured
from node.store.database import NAMES, open_database, reading, sqlite_path


def test_every_database_opens_twice(tmp_path: Path) -> None:
    storage = StorageSettings(folder=tmp_path)
    for name in NAMES:
        open_database(storage, name).dispose()
        open_database(storage, name).dispose()
        assert sqlite_path(storage, name).exists()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    storage = StorageSettings(folder=tmp_path)
    open_database(storage, "ledger").dispose()
    with sqlite3.connect(sqlite_path(storage, "ledger")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ledger_9999'")
    connection.close()
    with pytest.raises(Misconfigured, match="newer version"):
        open_database(storage, "ledger")


def test_an_older_schema_is_backed_up_and_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = tmp_path / "migrations"
    (chain / "ledger").mkdir(parents=True)
    source = Path(__file__).resolve().parents[2] / "node" / "store" / "migrations"
    for name in ("env.py", "script.py.mako", "ledger/0001_initial.py"):
        (chain / name).write_text((source / name).read_text())
    (chain / "ledger" / "0002_note.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\nrevision='ledger_0002'\ndown_revision='ledger_0001'\n"
        "branch_labels=None\ndepends_on=None\n"
        "def upgrade():\n    op.add_column('studies', sa.Column('note', sa.String(8)))\n"
    )
    storage = StorageSettings(folder=tmp_path / "falx")
    engine = open_database(storage, "ledger")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO leases VALUES ('kept', 'host', '2026-01-01 00:00:00')"))
    engine.dispose()
    monkeypatch.setattr("node.store.database.MIGRATIONS", chain)
    engine = open_database(storage, "ledger")
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT name FROM leases")) == "kept"
        connection.execute(text("SELECT note FROM studies"))
    engine.dispose()
    copies = list((tmp_path / "falx" / "backups").glob("ledger-before-upgrade-*.sqlite"))
    assert len(copies) == 1
    with sqlite3.connect(copies[0]) as copy:
        assert copy.execute("SELECT name FROM leases").fetchone() == ("kept",)
    copy.close()


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    engine = open_database(StorageSettings(folder=tmp_path), "ledger")
    with engine.begin() as writer:
        writer.execute(text("INSERT INTO leases VALUES ('a', 'b', '2026-01-01 00:00:00')"))
        with reading(engine) as connection:
            assert connection.scalar(text("SELECT count(*) FROM leases")) == 0
    engine.dispose()
