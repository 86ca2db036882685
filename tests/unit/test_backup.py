"""Backup and restore of a node."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from node.backup import back_up, node_lock, restore
from node.config import Settings, StorageSettings
from node.errors import FalxError, Misconfigured
from node.store import ledger
from node.store.database import open_database, reading
from node.store.ledger_tables import audit, studies

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def settings_in(folder: Path) -> Settings:
    return Settings(storage=StorageSettings(folder=folder))


def test_what_was_backed_up_comes_back(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "falx")
    engine = open_database(settings.storage, "ledger")
    with engine.begin() as connection:
        connection.execute(insert(studies).values(study_instance_uid="1.2", first_received_at=T0, last_received_at=T0))
    content = back_up(settings, tmp_path / "b.tar.gz")
    assert content.databases == ("ledger",)
    with engine.begin() as connection:
        connection.execute(studies.delete())
        ledger.record(connection, "lost", at=T0)
    engine.dispose()

    restore(settings, tmp_path / "b.tar.gz")
    engine = open_database(settings.storage, "ledger")
    with reading(engine) as connection:
        assert connection.scalars(select(studies.c.study_instance_uid)).all() == ["1.2"]
        assert connection.scalars(select(audit.c.action)).all() == []
    engine.dispose()
    assert list((tmp_path / "falx" / "backups").glob("before-restore-*/ledger.sqlite"))


def test_restore_refuses_while_the_node_runs(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "falx")
    back_up(settings, tmp_path / "b.tar.gz")
    with node_lock(settings.storage), pytest.raises(FalxError, match="stop it first"):
        restore(settings, tmp_path / "b.tar.gz")


def test_a_file_that_is_no_backup_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"nonsense")
    with pytest.raises(Misconfigured, match=r"x\.tar\.gz is not a backup"):
        restore(settings_in(tmp_path / "falx"), tmp_path / "x.tar.gz")


def test_a_failed_backup_leaves_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "falx")
    engine = open_database(settings.storage, "ledger")
    engine.dispose()
    target = tmp_path / "folder.tar.gz"
    target.mkdir()
    with pytest.raises(OSError, match="folder"):
        back_up(settings, target)
    assert not target.with_name("folder.tar.gz.partial").exists()
