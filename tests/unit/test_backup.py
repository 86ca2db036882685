"""Backup and restore of a node."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from inference.engine import shipped
from inference.labels import REPORT_LABELS
from inference.report_labels import ReportLabels
from node.archive.sources.mllp import keep, spool_folder
from node.backup import back_up, node_lock, restore
from node.config import Settings, StorageSettings
from node.deployment import install
from node.errors import FalxError, Misconfigured
from node.store import labels_files, ledger
from node.store.database import open_database, reading
from node.store.labels_values import LabelledReport, Report
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


REPORT = b"MSH|^~\\&|RIS||||20260101||ORU^R01|1|P|2.5\rOBX|1|TX|||Normal."


def write_label_set(settings: Settings, text: str, set_id: int) -> str:
    """One label file of one report."""
    found = dict.fromkeys(REPORT_LABELS, 0)
    row = LabelledReport(
        report_id=f"r{set_id}",
        report=Report(report_id=f"r{set_id}", text=text, source_position="a.csv:1"),
        labels=ReportLabels(probabilities=dict.fromkeys(found, 0.1), labels=found, evidence={}),
        part_id=1,
    )
    return labels_files.write(settings.storage.folder, "ris", set_id, [row])


def test_label_files_received_messages_and_deployed_models_come_back(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "falx")
    folder = settings.storage.folder
    kept = write_label_set(settings, "Normal study.", 1)
    before = (folder / kept).read_bytes()
    (folder / kept).with_suffix(".part").write_bytes(b"unfinished")
    message = keep(spool_folder(folder, "ris"), REPORT)
    install(folder / "models" / "ct_haemorrhage", shipped("ct_haemorrhage"))
    deployed = (folder / "models" / "ct_haemorrhage" / "current" / "metadata.json").read_bytes()
    content = back_up(settings, tmp_path / "b.tar.gz")
    assert (content.databases, content.files) == ((), 5)

    shutil.rmtree(folder / "labels")
    shutil.rmtree(folder / "models")
    message.write_bytes(b"overwritten")
    later = write_label_set(settings, "Infarct.", 2)
    restore(settings, tmp_path / "b.tar.gz")
    assert (folder / kept).read_bytes() == before
    assert labels_files.read(folder, kept, [0])[0].text == "Normal study."
    assert message.read_bytes() == REPORT
    assert not (folder / kept).with_suffix(".part").exists()
    assert (folder / "models" / "ct_haemorrhage" / "current" / "metadata.json").read_bytes() == deployed
    assert (folder / "models" / "ct_haemorrhage" / "current").is_symlink()
    assert not (folder / later).exists()
    (aside,) = (folder / "backups").glob("before-restore-*")
    assert (aside / later).exists()
    assert (aside / message.relative_to(folder)).read_bytes() == b"overwritten"


def test_a_backup_of_an_older_falx_leaves_the_folders_alone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "falx")
    kept = write_label_set(settings, "Normal study.", 1)
    manifest = {"version": "0.1.0", "made_at": "2026-01-01T00:00:00+00:00", "databases": [], "objects": 0}
    with tarfile.open(tmp_path / "old.tar.gz", "w:gz") as archive:
        data = json.dumps(manifest).encode()
        entry = tarfile.TarInfo("falx-backup.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    assert restore(settings, tmp_path / "old.tar.gz").folders == ()
    assert (settings.storage.folder / kept).exists()
