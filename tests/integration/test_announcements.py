"""MPPS and IAN tell that a series is complete: what they list is kept, and read by the assembly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE
from sqlalchemy import Engine

from node.config import CallerSettings, ReceptionSettings, Settings, StorageSettings
from node.dicom_net.storage_scp import start_server
from node.dicom_net.uids import INSTANCE_AVAILABILITY, PERFORMED_STEP
from node.store import intake
from node.store.database import open_database
from node.store.intake_writer import IntakeWriter
from node.store.spool import Spool


@pytest.fixture
def reception(tmp_path: Path) -> Iterator[tuple[int, Engine]]:
    settings = Settings(
        storage=StorageSettings(folder=tmp_path, min_free_mb=1),
        reception=ReceptionSettings(host="127.0.0.1", port=0, callers=(CallerSettings(ae_title="CT1"),)),
    )
    engine = open_database(settings.storage, "intake")
    with IntakeWriter(engine, Spool(settings.storage)) as writer:
        server = start_server(settings, writer)
        yield server.port, engine
        server.shutdown()
    engine.dispose()


def item(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def test_a_completed_step_lists_its_instances(reception: tuple[int, Engine]) -> None:
    port, engine = reception
    ae = AE(ae_title="CT1")
    ae.add_requested_context(PERFORMED_STEP)
    association = ae.associate("127.0.0.1", port, ae_title="FALX")
    assert association.is_established
    started = item(PerformedProcedureStepStatus="IN PROGRESS", PerformedSeriesSequence=[])
    status, _ = association.send_n_create(started, PERFORMED_STEP, "1.2.3")
    assert status.Status == 0
    series = item(SeriesInstanceUID="1.2.4", ReferencedImageSequence=[item(ReferencedSOPInstanceUID="1.2.4.1")])
    assert intake.announced(engine, "1.2.4") == frozenset()
    ended = item(PerformedProcedureStepStatus="COMPLETED", PerformedSeriesSequence=[series])
    status, _ = association.send_n_set(ended, PERFORMED_STEP, "1.2.3")
    assert status.Status == 0
    association.release()
    assert intake.announced(engine, "1.2.4") == {"1.2.4.1"}


def test_what_is_available_is_listed_and_what_is_offline_is_not(reception: tuple[int, Engine]) -> None:
    port, engine = reception
    ae = AE(ae_title="CT1")
    ae.add_requested_context(INSTANCE_AVAILABILITY)
    association = ae.associate("127.0.0.1", port, ae_title="FALX")
    assert association.is_established
    listed = [
        item(ReferencedSOPInstanceUID="1.2.5.1", InstanceAvailability="ONLINE"),
        item(ReferencedSOPInstanceUID="1.2.5.2", InstanceAvailability="OFFLINE"),
    ]
    notice = item(
        StudyInstanceUID="1.2",
        ReferencedSeriesSequence=[item(SeriesInstanceUID="1.2.5", ReferencedSOPSequence=listed)],
    )
    status, _ = association.send_n_create(notice, INSTANCE_AVAILABILITY, "1.2.9")
    assert status.Status == 0
    association.release()
    assert intake.announced(engine, "1.2.5") == {"1.2.5.1"}


def test_a_stranger_may_announce_nothing(reception: tuple[int, Engine]) -> None:
    port, _ = reception
    ae = AE(ae_title="STRANGER")
    ae.add_requested_context(PERFORMED_STEP)
    assert ae.associate("127.0.0.1", port, ae_title="FALX").is_rejected
