"""The scheduler runs by cron, once a period, and makes up for missed runs; MLLP messages are kept, then answered."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import hl7
import pytest
from hl7.client import MLLPClient
from report_archive import COLUMNS, Archive, report_text
from sqlalchemy import update

from node.archive import schedule
from node.archive.engines import LocalEngine
from node.archive.sources import open_source
from node.archive.sources.mllp import answer, run_listener, spool_folder
from node.config import ArchiveSettings, Settings
from node.errors import Misconfigured
from node.store.database import now
from node.store.labels_tables import label_sets

pytest_plugins = ("fixtures_reports",)


def settings_of(archive: Archive, model: Path, cron: str, **more: Any) -> Settings:
    ris = ArchiveSettings(
        name="ris",
        source="csv",
        location=str(archive.folder),
        columns=COLUMNS,
        cron=cron,
        modality="MR",
        options={"model": str(model), "workers": 1, "niceness": 0, "map": False},
    )
    return Settings(storage=archive.storage, archives=(ris, *more.get("archives", ())))


@contextmanager
def scheduling(settings: Settings) -> Iterator[threading.Event]:
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            schedule.run_scheduler(settings, stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not failed, failed


@pytest.fixture
def archive(tmp_path: Path, label_engine: LocalEngine) -> Archive:
    return Archive(tmp_path, label_engine)


@pytest.mark.timeout(600)
def test_a_cron_trigger_relabels_a_changed_archive_in_the_next_period(
    archive: Archive, tiny_model: Callable[[int], Path], wait_for: Callable[..., Any]
) -> None:
    archive.write("a.csv", [(f"A{i}", report_text(i)) for i in range(20)])

    def complete() -> list[Any]:
        return [one for one in archive.runs() if one.state == "complete"]

    with scheduling(settings_of(archive, tiny_model(1), "*/3 * * * * *")):
        wait_for(complete, 240, "the first period")
        archive.write("b.csv", [(f"B{i}", report_text(50 + i)) for i in range(5)])
        wait_for(lambda: any(one.counts.read == 5 for one in complete()), 240, "the next period")
    first = archive.runs()[-1]
    assert (first.counts.new, first.trigger) == (20, "schedule")
    assert sum(one.counts.labelled for one in archive.runs()) == 25, "nothing is labelled twice"
    starts = [one.started_at for one in archive.runs()]
    assert len({start.replace(microsecond=0) for start in starts}) == len(starts), "one run a period"


def test_a_run_missed_while_falx_was_down_is_made_up_for_once(
    archive: Archive, tiny_model: Callable[[int], Path], wait_for: Callable[..., Any]
) -> None:
    archive.write("a.csv", [("A1", report_text(1))])
    archive.run()
    with archive.labels.begin() as connection:
        connection.execute(update(label_sets).values(started_at=now() - timedelta(days=3)))
    archive.write("a.csv", [("A1", report_text(1)), ("A2", report_text(2))])
    with scheduling(settings_of(archive, tiny_model(1), "0 2 * * *")):
        wait_for(lambda: len([one for one in archive.runs() if one.state == "complete"]) == 2, 200, "the missed run")
    assert len(archive.runs()) == 2


def test_an_archive_that_is_not_due_is_left_alone(archive: Archive, tiny_model: Callable[[int], Path]) -> None:
    settings = settings_of(archive, tiny_model(1), "0 2 * * *")
    ran: list[str] = []
    scheduler = schedule.make_scheduler(settings, archive.labels, lambda one: ran.append(one.name))
    (job,) = scheduler.get_jobs()
    assert (job.id, job.func_ref, list(job.args)) == ("ris", "node.archive.schedule:relabel", ["ris"])
    assert (job.coalesce, job.max_instances) == (True, 1)
    archive.write("a.csv", [("A1", report_text(1))])
    archive.run()
    schedule.relabel("ris")
    assert ran == [], "another host has just done it"
    without = Settings(storage=archive.storage)
    schedule.make_scheduler(without, archive.labels, lambda _one: None)
    with pytest.raises(KeyError):
        schedule.relabel("ris")  # the job of an archive that vanished from config.yaml


def test_a_wrong_cron_expression_stops_the_start(archive: Archive, tiny_model: Callable[[int], Path]) -> None:
    with pytest.raises(Misconfigured, match=r"archives\.ris\.cron"):
        schedule.run_scheduler(settings_of(archive, tiny_model(1), "at noon"), threading.Event())


# ------------------------------------------------------------------------------------------------------------ MLLP
MESSAGE = (
    "MSH|^~\\&|RIS|H|FALX|H|20240301101500||ORU^R01|17|P|2.5\r"
    "OBR|1||F100|||||||||||||||A100||||20240301||MR|F\r"
    "OBX|1|TX|X||Acute infarct.||||||F"
)


@pytest.fixture
def listening(tmp_path: Path, free_port: Callable[[], int], wait_for: Callable[..., Any]) -> Iterator[ArchiveSettings]:
    port = free_port()
    settings = ArchiveSettings(name="oru", source="mllp", location=f"127.0.0.1:{port}")
    stop = threading.Event()
    thread = threading.Thread(target=run_listener, args=(settings, tmp_path, stop))
    thread.start()

    def up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(up, 60, "the listener")
    yield settings
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def send(settings: ArchiveSettings, *messages: str | bytes) -> list[hl7.Message]:
    host, _, port = settings.location.rpartition(":")
    with MLLPClient(host, int(port)) as client:
        return [hl7.parse(client.send_message(message).decode().strip("\x0b\x1c\r") + "\r") for message in messages]


def test_messages_are_kept_then_acknowledged_and_can_be_read(listening: ArchiveSettings, tmp_path: Path) -> None:
    second = MESSAGE.replace("F100", "F101").replace("|17|", "|18|")
    answers = send(listening, MESSAGE, second, MESSAGE)
    assert [(str(a.segment("MSA")[1]), str(a.segment("MSA")[2])) for a in answers] == [
        ("AA", "17"),
        ("AA", "18"),
        ("AA", "17"),
    ]
    source = open_source(listening, tmp_path)
    source.check()
    records = [record for part in source.parts() for _, record in source.read(part, None)]
    assert sorted(record.report_id for record in records) == ["F100", "F101"]  # type: ignore[union-attr]
    kept = list(spool_folder(tmp_path, "oru").rglob("*.hl7"))
    assert {path.read_bytes() for path in kept} == {MESSAGE.encode(), second.encode()}


def test_what_is_no_message_is_refused_and_the_connection_stays(listening: ArchiveSettings) -> None:
    refused, kept = send(listening, "HELLO", MESSAGE)
    assert str(refused.segment("MSA")[1]) == "AR"
    assert str(kept.segment("MSA")[1]) == "AA"


def test_a_message_that_cannot_be_kept_is_not_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = answer(MESSAGE.encode(), tmp_path / "file")
    assert b"MSA|AE|17" in said


@pytest.mark.parametrize("location", ["nowhere", "host:port", ""])
def test_an_address_that_is_none(tmp_path: Path, location: str) -> None:
    with pytest.raises(Misconfigured, match="host:port"):
        open_source(ArchiveSettings(name="oru", source="mllp", location=location), tmp_path)


def test_a_port_in_use_stops_the_start(listening: ArchiveSettings, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot listen"):
        run_listener(listening, tmp_path, threading.Event())
