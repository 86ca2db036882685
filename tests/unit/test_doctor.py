"""What `falx doctor` finds, and that each fault names its remedy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import take_port
from sqlalchemy import insert

from node.config import Settings, parse
from node.doctor import Diagnosis, examine
from node.store.database import now, open_database
from node.store.ledger_tables import series, studies


def settings_in(folder: Path, **sections: Any) -> Settings:
    return parse(
        {
            "storage": {"folder": str(folder), "min_free_mb": 1},
            "reception": {"host": "127.0.0.1", "port": take_port(), "callers": [{"ae_title": "PACS"}]},
            "web": {"port": take_port()},
            **sections,
        }
    )


def archive(folder: Path, **values: Any) -> dict[str, Any]:
    columns = {"accession_number": "acc", "text": "body"}
    return {"name": "ris", "source": "csv", "location": str(folder), "columns": columns, **values}


def found(settings: Settings) -> dict[str, Diagnosis]:
    diagnoses = examine(settings)
    for one in diagnoses:
        assert one.ok is (one.remedy == ""), one
    return {one.what: one for one in diagnoses}


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "a.csv").write_text("acc,body\nA1,Normal.\n")
    return folder


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as holder:  # bound, and nobody answers
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_a_good_configuration_has_faults_in_nothing_but_its_destinations(tmp_path: Path, reports: Path) -> None:
    diagnoses = found(settings_in(tmp_path, archives=[archive(reports)]))
    assert [what for what, one in diagnoses.items() if not one.ok] == ["destinations"]
    assert diagnoses["archive ris"].found.startswith("csv, next run 20")
    assert "hash right" in diagnoses["model ct_haemorrhage"].found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cron": "0 2 * *"}, "archives.ris.cron: '0 2 * *' must have five fields"),
        ({"cron": "0 25 * * *"}, "archives.ris.cron: '0 25 * * *' is no cron expression"),
        ({"location": "/nowhere"}, "archives.ris.location: /nowhere does not exist"),
        ({"columns": {"accession_number": "acc", "text": "report"}}, "report"),
        ({"source": "mllp", "location": "nowhere"}, "is no host:port to listen on"),
    ],
)
def test_an_archive_that_cannot_be_read_or_scheduled_is_named(
    tmp_path: Path, reports: Path, values: dict[str, Any], said: str
) -> None:
    diagnosis = found(settings_in(tmp_path, archives=[archive(reports, **values)]))["archive ris"]
    assert not diagnosis.ok
    assert said in diagnosis.found


def test_faults_of_the_network_are_named(tmp_path: Path, busy_port: int) -> None:
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": take_port()}
    reception = {"host": "127.0.0.1", "port": busy_port, "accept_unknown_callers": True}
    diagnoses = found(settings_in(tmp_path, reception=reception, destinations=[destination]))
    faults = {what for what, one in diagnoses.items() if not one.ok}
    assert faults == {"callers", "reception port", "C-ECHO to pacs"}


def test_faults_of_the_machine_are_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    settings = settings_in(
        tmp_path,
        storage={"folder": str(tmp_path), "min_free_mb": 10**9},
        models={"ct_haemorrhage": {"folder": str(model)}},
    )
    engine = open_database(settings.storage, "ledger")
    later = now() + timedelta(hours=1)
    with engine.begin() as connection:
        connection.execute(
            insert(studies).values(study_instance_uid="1", first_received_at=later, last_received_at=later)
        )
        connection.execute(
            insert(series).values(
                series_instance_uid="1.1",
                study_instance_uid="1",
                state="receiving",
                modality="CT",
                description="",
                calling_ae="PACS",
                instances=1,
                for_analysis=True,
                first_received_at=later,
                last_received_at=later,
            )
        )
    engine.dispose()
    faults = {what for what, one in found(settings).items() if not one.ok}
    assert faults == {"destinations", "free disk", "model ct_haemorrhage", "clock"}
