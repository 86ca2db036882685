"""What reception did not keep is known to the assembly: such a series is never called whole until it came (ADR 50)."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import wait_for
from fixtures_net import arrival, ct_instance, ct_series
from fixtures_reception import Reception, running_reception
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom.presentation import build_context
from sqlalchemy import Engine, select, text, update

from node.assembly import Assembly
from node.config import Settings, StorageSettings
from node.counting import Counts
from node.store import intake, intake_tables, refusals
from node.store.database import now, open_database, reading
from node.store.expiry import carry_out_purges
from node.store.intake_writer import IntakeWriter
from node.store.ledger_tables import instances, series, tasks
from node.store.refusals import Refusal
from node.store.spool import Spool

CT = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
QUICK = {"silence_s": 0.3, "silence_without_coverage_s": 0.8, "study_silence_s": 3600}


class Site:
    """An intake with its writer and an assembly over it, stepped by hand."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings.model_validate(
            {"storage": {"folder": str(folder), "min_free_mb": 0}, "completion": QUICK}
        )
        storage: StorageSettings = self.settings.storage
        self.intake: Engine = open_database(storage, "intake")
        self.ledger: Engine = open_database(storage, "ledger")
        self.spool = Spool(storage)
        self.writer = IntakeWriter(self.intake, self.spool)
        self.restart()

    def restart(self) -> None:
        """A new assembly, as after a kill."""
        counts = Counts((), lambda _source, _study, _series: None, self.ledger)
        self.assembly = Assembly(self.settings, self.intake, self.ledger, counts)

    def take(self, *datasets: Dataset) -> None:
        for one in datasets:
            self.writer.commit(arrival(self.spool, one, association=""))

    def refuse(self, one: Dataset) -> None:
        self.writer.refuse(refusal(one))

    def series(self, uid: str) -> dict[str, object]:
        with reading(self.ledger) as connection:
            row = connection.execute(select(series).where(series.c.series_instance_uid == uid)).mappings().one()
        return dict(row)

    def tasks(self) -> list[tuple[int, bool]]:
        with reading(self.ledger) as connection:
            return [(r.version, r.possibly_incomplete) for r in connection.execute(select(tasks).order_by("version"))]

    def until_version(self, uid: str, version: int) -> dict[str, object]:
        def stepped() -> bool:
            self.assembly.step()
            row = self.series(uid)
            return row["state"] == "complete" and row["version"] == version

        wait_for(stepped, 30, f"version {version} of the series")
        return self.series(uid)


def refusal(one: Dataset) -> Refusal:
    return Refusal(
        study_instance_uid=one.StudyInstanceUID,
        series_instance_uid=one.SeriesInstanceUID,
        sop_instance_uid=one.SOPInstanceUID,
        calling_ae="CT1",
        why="0xA700",
        refused_at=now(),
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "store")
    with made.writer:
        yield made
    made.intake.dispose()
    made.ledger.dispose()


def test_a_series_with_a_refused_end_is_flagged_until_that_end_comes(site: Site) -> None:
    slices = ct_series(30)  # 28 of them cover 140 mm without a gap
    uid = slices[0].SeriesInstanceUID
    site.take(*slices[:28])
    site.refuse(slices[28])
    site.refuse(slices[29])
    site.refuse(slices[29])  # tried again: one instance still
    first = site.until_version(uid, 1)
    assert first["possibly_incomplete"]
    assert first["completion"] == "long silent: 2 instances refused and not sent again"
    assert site.tasks() == [(1, True)]
    site.take(slices[28])
    second = site.until_version(uid, 2)
    assert (second["possibly_incomplete"], second["completion"]) == (
        True,
        "long silent: 1 instances refused and not sent again",
    )
    site.take(slices[29])
    third = site.until_version(uid, 3)
    assert (third["possibly_incomplete"], third["completion"]) == (False, "silent, covered, no gap")
    assert refusals.count(site.intake) == 0


def test_a_refusal_after_completion_opens_the_series_again(site: Site) -> None:
    slices = ct_series(30)
    uid = slices[0].SeriesInstanceUID
    site.take(*slices[:28])
    assert not site.until_version(uid, 1)["possibly_incomplete"]
    site.refuse(slices[28])
    site.restart()
    assert site.until_version(uid, 2)["possibly_incomplete"]
    for _ in range(3):  # and that once
        site.assembly.step()
    assert site.series(uid)["version"] == 2


def test_a_late_end_counts_from_its_own_arrival_and_with_the_slices_before_it(site: Site) -> None:
    slices = ct_series(30)
    uid = slices[0].SeriesInstanceUID
    site.take(*slices[:28])
    site.until_version(uid, 1)
    yesterday = now() - timedelta(days=1)
    with site.ledger.begin() as connection:
        connection.execute(
            update(series).values(first_received_at=yesterday, last_received_at=yesterday, completed_at=yesterday)
        )
        connection.execute(update(instances).values(received_at=yesterday))
    site.restart()
    for one in slices[28:]:  # one by one, and still one version
        site.take(one)
        site.assembly.step()
    assert not site.until_version(uid, 2)["possibly_incomplete"]


def test_a_header_that_cannot_be_read_counts_as_missing(site: Site) -> None:
    slices = ct_series(29)
    uid = slices[0].SeriesInstanceUID
    site.take(*slices)
    path = site.settings.storage.folder / intake.rows_after(site.intake, 28)[0].path
    path.write_bytes(path.read_bytes()[:200])
    row = site.until_version(uid, 1)
    assert (row["possibly_incomplete"], row["completion"]) == (
        True,
        "long silent: 1 instances have no readable header",
    )


def test_what_is_held_already_is_not_missing_when_it_is_refused_again(site: Site) -> None:
    slices = ct_series(28)
    site.take(*slices)
    site.refuse(slices[5])
    assert refusals.count(site.intake) == 0
    assert not site.until_version(slices[0].SeriesInstanceUID, 1)["possibly_incomplete"]


def test_refusals_that_cannot_be_written_are_written_as_soon_as_they_can(site: Site) -> None:
    one, other = ct_series(2)
    with site.intake.begin() as connection:
        connection.execute(text("ALTER TABLE refusals RENAME TO away"))
    site.refuse(one)
    site.refuse(other)
    with site.intake.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO refusals"))
    wait_for(lambda: refusals.count(site.intake) == 2, 20, "the refusals written")


def test_refusals_are_forgotten_with_their_study_and_by_age(site: Site) -> None:
    old, purged, kept = ct_series(1)[0], ct_series(1)[0], ct_series(1)[0]
    for one in (old, purged, kept):
        site.refuse(one)
    found = intake_tables.refusals
    with site.intake.begin() as connection:
        age = now() - timedelta(days=site.settings.storage.keep_objects_days + 1)
        connection.execute(update(found).where(found.c.sop_instance_uid == old.SOPInstanceUID).values(refused_at=age))
    intake.request_purge(site.intake, purged.StudyInstanceUID, up_to_seq=0, at=now())
    carry_out_purges(site.intake, site.spool)
    left = [one for one in (old, purged, kept) if refusals.missing(site.intake, one.SeriesInstanceUID)]
    assert left == [kept]


# ------------------------------------------------------------------------------------- what reception counts
@pytest.fixture(scope="module")
def reception(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reception]:
    with running_reception(tmp_path_factory.mktemp("reception"), reception={"max_object_mb": 1}) as running:
        yield running


@pytest.fixture
def refused_of(reception: Reception) -> Iterator[Callable[[Dataset], dict[str, str]]]:
    engine = open_database(reception.settings.storage, "intake")

    def read(one: Dataset) -> dict[str, str]:
        found = intake_tables.refusals
        query = select(found).where(found.c.series_instance_uid == one.SeriesInstanceUID)
        with reading(engine) as connection:
            return {row.sop_instance_uid: row.why for row in connection.execute(query)}

    yield read
    engine.dispose()


def without_series(one: Dataset) -> Dataset:
    broken = ct_instance(one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID)
    del broken.SeriesInstanceUID
    return broken


@pytest.mark.parametrize("order", ["first", "last"])
def test_an_unreadable_object_counts_for_the_series_around_it(
    reception: Reception, refused_of: Callable[[Dataset], dict[str, str]], order: str
) -> None:
    good, bad = ct_series(2)
    association = reception.associate(CT)
    pair = [without_series(bad), good] if order == "first" else [good, without_series(bad)]
    assert {association.send_c_store(one).Status for one in pair} == {0x0000, 0xC000}
    assert refused_of(good) == {bad.SOPInstanceUID: "0xC000"}
    assert association.send_c_store(bad).Status == 0x0000  # sent again, whole
    association.release()
    assert refused_of(good) == {}


def test_an_object_beyond_the_limit_counts(
    reception: Reception, refused_of: Callable[[Dataset], dict[str, str]]
) -> None:
    small = ct_series(1)[0]
    large = ct_instance(small.StudyInstanceUID, small.SeriesInstanceUID, generate_uid(), rows=1024)
    association = reception.associate(CT)
    assert association.send_c_store(small).Status == 0x0000
    assert "Status" not in association.send_c_store(large)
    association.abort()
    wait_for(lambda: refused_of(small) == {large.SOPInstanceUID: "ended early"}, 20, "the large object noted")


def test_an_object_cut_off_in_the_middle_counts_until_it_is_sent_again(
    reception: Reception, refused_of: Callable[[Dataset], dict[str, str]]
) -> None:
    one = ct_series(1, rows=512)[0]
    association = reception.associate(CT)
    connection, real_send, sent = association.dul.socket.socket, association.dul.socket.send, []

    def send(data: bytes) -> None:  # the request and some of the object, then the cable is pulled
        real_send(data)
        sent.append(len(data))
        if sum(sent) > 100_000:
            connection.close()

    association.dul.socket.send = send
    threading.Thread(target=lambda: association.send_c_store(one), daemon=True).start()
    wait_for(lambda: refused_of(one) == {one.SOPInstanceUID: "ended early"}, 30, "the half object noted")
    association = reception.associate(CT)
    assert association.send_c_store(one).Status == 0x0000
    association.release()
    assert refused_of(one) == {}


@pytest.mark.needs("mount")
def test_a_full_disk_counts_even_when_the_index_could_not_be_written_at_first(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "falx-test", str(disk)], check=False).returncode:
        pytest.skip("needs root and mount: run as root")
    try:
        with running_reception(disk) as reception:
            association, statuses = reception.associate(CT), []
            slices = ct_series(24, rows=512)
            for one in slices:
                statuses.append(association.send_c_store(one).Status)
                if statuses.count(0xA700) == 1:
                    (disk / "filler").write_bytes(b"\0" * 4096)
            association.release()
            assert set(statuses) == {0x0000, 0xA700}
            subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
            engine = open_database(reception.settings.storage, "intake")
            missing = {one.SOPInstanceUID for one, status in zip(slices, statuses, strict=True) if status}
            uid = slices[0].SeriesInstanceUID
            wait_for(lambda: refusals.missing(engine, uid) == missing, 30, "every refusal noted")
            engine.dispose()
    finally:
        time.sleep(0.1)
        subprocess.run(["umount", "-l", str(disk)], check=True)
