"""Reception as a process, with real senders: who may call, what is kept, what is answered."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pydicom
import pytest
from fixtures_net import SR_CLASS, ct_instance, ct_series, encode, report
from fixtures_reception import Reception, can_echo, certificates, is_root, running_reception
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from node.dicom_net.sending import send_folder
from node.dicom_net.uids import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, VERIFICATION
from node.store import intake
from node.store.database import open_database

CT = [build_context(CTImageStorage, ExplicitVRLittleEndian)]


@pytest.fixture(scope="module")
def reception(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reception]:
    """One reception for the tests that only send."""
    with running_reception(tmp_path_factory.mktemp("reception")) as running:
        yield running


def write(folder: Path, datasets: list[pydicom.FileDataset]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number:04d}", enforce_file_format=True)
    return folder


def rows_of(reception: Reception, study: str) -> list[intake.IntakeRow]:
    return [row for row in reception.rows() if row.study_instance_uid == study]


def test_reception_and_delivery_never_import_torch() -> None:
    code = (
        "import sys, node.dicom_net.storage_scp, node.dicom_net.delivery, node.dicom_net.query\n"
        "import node.dicom_net.embedded_pacs, node.commands.network\n"
        "sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.needs("storescu", "dcmsend")
@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_dcmtk_sends_a_series_and_the_bytes_are_those_sent(reception: Reception, tmp_path: Path, sender: str) -> None:
    series = ct_series(5, rows=64)
    folder = write(tmp_path / "series", series)
    subprocess.run(
        [sender, "-aet", "CT1", "-aec", "FALX", "+sd", "+r", "127.0.0.1", str(reception.port), str(folder)],
        check=True, capture_output=True,
    )  # fmt: skip
    rows = rows_of(reception, series[0].StudyInstanceUID)
    assert [r.sop_instance_uid for r in rows] == [d.SOPInstanceUID for d in series]
    for row, sent in zip(rows, series, strict=True):
        kept = pydicom.dcmread(reception.folder / row.path)
        assert kept.PixelData == sent.PixelData
        assert (row.calling_ae, row.called_ae, row.remote_host) == ("CT1", "FALX", "127.0.0.1")
        assert row.for_analysis


def test_duplicate_conflict_and_mismatch_have_their_statuses(reception: Reception) -> None:
    association = reception.associate(CT)
    one = ct_series(1)[0]
    other = ct_instance(one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID, seed=5)
    assert association.send_c_store(one).Status == 0x0000
    assert association.send_c_store(one).Status == 0x0000
    assert association.send_c_store(other).Status == 0xB000
    association.release()
    (row,) = rows_of(reception, one.StudyInstanceUID)
    assert reception.content(row) == encode(one)
    kept = [q for q in reception.quarantined() if q.sop_instance_uid == one.SOPInstanceUID]
    assert [q.code for q in kept] == ["different-content"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_says_no_study_is_kept_aside(reception: Reception) -> None:
    association = reception.associate(CT)
    one = ct_series(1)[0]
    del one.StudyInstanceUID
    assert association.send_c_store(one).Status == 0xC000
    trick = ct_instance("../../../../tmp/evil", "1.2.3", generate_uid())
    assert association.send_c_store(trick).Status == 0xC000
    sloppy = ct_instance("1.02.003", "1.2.3.004", generate_uid())  # leading zeros: wrong, and in use
    assert association.send_c_store(sloppy).Status == 0x0000
    association.release()
    kept = {q.sop_instance_uid: q for q in reception.quarantined()}
    assert kept[one.SOPInstanceUID].reason == "StudyInstanceUID is missing"
    assert "characters other than digits and dots" in kept[trick.SOPInstanceUID].reason
    assert (reception.folder / kept[one.SOPInstanceUID].path).read_bytes().endswith(encode(one))
    assert not Path("/tmp/evil").exists()
    assert len(rows_of(reception, "1.02.003")) == 1


def test_other_storage_classes_are_kept_and_not_for_analysis(reception: Reception) -> None:
    private = "1.3.12.2.1107.5.9.1"  # Siemens CSA Non-Image
    association = reception.associate([build_context(SR_CLASS), build_context(private)])
    for sop_class in (SR_CLASS, private):
        one = report(generate_uid())
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = sop_class
        assert association.send_c_store(one).Status == 0x0000
        (row,) = rows_of(reception, one.StudyInstanceUID)
        assert (row.sop_class_uid, row.for_analysis) == (sop_class, False)
    association.release()


@pytest.mark.parametrize("mark", ["manufacturer", "contributing equipment"])
def test_own_results_coming_back_are_ignored(reception: Reception, mark: str) -> None:
    association = reception.associate([build_context(SR_CLASS)])
    one = report(generate_uid())
    if mark == "manufacturer":
        one.Manufacturer = "falx"
    else:
        equipment = pydicom.Dataset()
        equipment.Manufacturer = "FALX"
        one.ContributingEquipmentSequence = [equipment]
    assert association.send_c_store(one).Status == 0x0000
    association.release()
    assert rows_of(reception, one.StudyInstanceUID) == []


def test_callers_are_checked(tmp_path: Path) -> None:
    callers = [
        {"ae_title": "CT1"},
        {"ae_title": "MR1", "hosts": ["10.99.0.0/16"]},
        {"ae_title": "MR2", "hosts": ["localhost"]},
    ]
    with running_reception(tmp_path, reception={"callers": callers}) as reception:
        assert can_echo(reception, "CT1")
        assert can_echo(reception, "MR2")
        assert not can_echo(reception, "MR1")  # the right title from the wrong host
        assert not can_echo(reception, "STRANGER")
        wrong_called = reception.associate([build_context(VERIFICATION)], called="OTHER")
        assert wrong_called.is_rejected
        assert "Called AE title" in wrong_called.acceptor.primitive.reason_str
        log = reception.log.read_text()
    assert "caller_not_allowed" in log
    assert "called_ae_not_recognised" in log


def test_a_destination_may_answer_commitments_and_nothing_else(tmp_path: Path) -> None:
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 4242}
    with running_reception(tmp_path, destinations=[pacs]) as reception:
        from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = STORAGE_COMMITMENT, False, True
        association = reception.associate(
            [build_context(STORAGE_COMMITMENT), build_context(CTImageStorage)], calling="PACS", ext_neg=[role]
        )
        assert [c.abstract_syntax for c in association.accepted_contexts] == [STORAGE_COMMITMENT]
        answer = pydicom.Dataset()
        answer.TransactionUID = "2.25.1"
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3"
        answer.ReferencedSOPSequence = [item]
        failed = pydicom.Dataset()
        failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID, failed.FailureReason = (
            CTImageStorage,
            "1.2.4",
            0x0112,
        )
        answer.FailedSOPSequence = [failed]
        status, _ = association.send_n_event_report(answer, 2, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        assert status.Status == 0x0000
        reception.kill()  # answered means durable
        engine = open_database(reception.settings.storage, "intake")
        (event,) = intake.commitment_events_after(engine, 0)
        engine.dispose()
    assert (event.transaction_uid, event.committed, event.failed) == ("2.25.1", ["1.2.3"], {"1.2.4": 0x0112})


def ask_for_commitment(
    reception: Reception, instances: list[tuple[str, str]], wait_for: Callable[..., object]
) -> tuple[int, pydicom.Dataset | None]:
    answers: list[pydicom.Dataset] = []

    def on_report(event: evt.Event) -> tuple[int, None]:
        answers.append(event.event_information)
        return 0x0000, None

    association = reception.associate(
        [build_context(STORAGE_COMMITMENT)], evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]
    )
    request = pydicom.Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = []
    for sop_class, uid in instances:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        request.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(request, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    if status.Status == 0x0000:
        wait_for(lambda: answers, 30, "the commitment's answer")
    association.release()
    return status.Status, answers[0] if answers else None


def test_commitment_for_others_is_off_by_default(reception: Reception, wait_for: Callable[..., object]) -> None:
    status, answer = ask_for_commitment(reception, [(CTImageStorage, "1.2.3")], wait_for)
    assert (status, answer) == (0x0124, None)


def test_commitment_for_others_holds_what_retention_holds(tmp_path: Path, wait_for: Callable[..., object]) -> None:
    storage = {"keep_received_days": 7, "keep_unanalysed_days": 0.5}
    with running_reception(tmp_path, reception={"commit_for_others": True}, storage=storage) as reception:
        held, gone, brief = ct_series(1)[0], ct_series(1)[0], report(generate_uid())
        association = reception.associate([*CT, build_context(SR_CLASS)])
        for one in (held, gone, brief):
            assert association.send_c_store(one).Status == 0x0000
        association.release()
        (row,) = rows_of(reception, gone.StudyInstanceUID)
        (reception.folder / row.path).unlink()
        asked = [
            (CTImageStorage, held.SOPInstanceUID),
            (CTImageStorage, gone.SOPInstanceUID),
            (SR_CLASS, brief.SOPInstanceUID),
            (SR_CLASS, held.SOPInstanceUID),
            (CTImageStorage, "1.2.3.4"),
        ]
        status, answer = ask_for_commitment(reception, asked, wait_for)
    assert status == 0x0000
    assert answer is not None
    assert [i.ReferencedSOPInstanceUID for i in answer.ReferencedSOPSequence] == [held.SOPInstanceUID]
    assert [i.FailureReason for i in answer.FailedSOPSequence] == [0x0112, 0x0213, 0x0119, 0x0112]


@pytest.mark.needs("openssl", "storescu")
def test_tls_is_mutual(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    certificates(keys)
    tls = {
        "certificate": str(keys / "falx.pem"),
        "private_key": str(keys / "falx.key"),
        "trusted": str(keys / "ca.pem"),
    }
    folder = write(tmp_path / "series", ct_series(2))

    def storescu(*options: str) -> int:
        command = [
            "storescu",
            *options,
            "-aet",
            "CT1",
            "-aec",
            "FALX",
            "+sd",
            "127.0.0.1",
            str(reception.port),
            str(folder),
        ]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    with running_reception(tmp_path / "falx", reception={"tls": tls, "handshake_timeout_s": 3}) as reception:
        known = ("+tls", str(keys / "ct1.key"), str(keys / "ct1.pem"), "+cf", str(keys / "ca.pem"))
        stranger = ("+tls", str(keys / "stranger.key"), str(keys / "stranger.pem"), "+cf", str(keys / "ca.pem"))
        assert storescu(*known) == 0
        assert len(reception.rows()) == 2
        assert storescu(*stranger) != 0
        assert storescu("+tla", "+cf", str(keys / "ca.pem")) != 0  # no certificate
        assert storescu() != 0  # no TLS
        assert len(reception.rows()) == 2
        assert storescu(*known) == 0  # still answering


def test_sigterm_lets_an_association_end_and_refuses_new_ones(tmp_path: Path) -> None:
    with running_reception(tmp_path) as reception:
        association = reception.associate(CT)
        first, second = ct_series(2)
        assert association.send_c_store(first).Status == 0x0000
        reception.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 20
        while can_echo(reception, "CT1") and time.monotonic() < end:
            time.sleep(0.05)
        assert not can_echo(reception, "CT1")
        assert association.send_c_store(second).Status == 0x0000
        association.release()
        assert reception.process.wait(120) == 0
        assert len(reception.rows()) == 2


def test_a_port_in_use_stops_the_start_with_the_remedy(reception: Reception, tmp_path: Path) -> None:
    with running_reception(tmp_path, wait=False, reception={"port": reception.port}) as second:
        assert second.process.wait(240) != 0
        assert f"reception.port {reception.port}" in second.log.read_text()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own with little room."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_until_refused(reception: Reception) -> tuple[list[pydicom.FileDataset], int]:
    association = reception.associate(CT)
    stored = []
    for one in ct_series(40, rows=512):
        status = association.send_c_store(one).Status
        if status != 0x0000:
            association.release()
            return stored, status
        stored.append(one)
    raise AssertionError("never refused")


@pytest.mark.skipif(not is_root(), reason="mounting a tmpfs needs root; the watermark test covers the rest")
def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """A real ENOSPC: 0xA700, no partial file, and it goes on when there is room again."""
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounts")
    subprocess.run(["umount", str(tmp_path)], check=True)
    with small_disk(tmp_path / "disk", 10) as disk, running_reception(disk) as reception:
        stored, status = fill_until_refused(reception)
        assert status == 0xA700
        assert len(stored) > 5
        rows = {row.sop_instance_uid: row for row in reception.rows()}
        assert set(rows) == {d.SOPInstanceUID for d in stored}
        assert all(reception.content(rows[d.SOPInstanceUID]) == encode(d) for d in stored)
        assert {str(p.relative_to(disk / "store")) for p in (disk / "store/spool").rglob("*.dcm")} == {
            row.path for row in rows.values()
        }
        assert can_echo(reception, "CT1")
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        association = reception.associate(CT)
        assert association.send_c_store(ct_series(1, rows=512)[0]).Status == 0x0000
        association.release()


def test_below_the_watermark_it_refuses_before_the_disk_is_full(tmp_path: Path) -> None:
    free_mb = shutil.disk_usage(tmp_path).free // 1_000_000
    with running_reception(tmp_path, storage={"min_free_mb": free_mb + 100_000}) as reception:
        association = reception.associate(CT)
        assert association.send_c_store(ct_series(1)[0]).Status == 0xA700
        association.release()
        assert reception.rows() == []


def test_a_sender_that_dies_mid_object_leaves_nothing(reception: Reception) -> None:
    before = len(reception.rows())
    one = ct_series(1, rows=512)[0]
    association = reception.associate(CT)
    connection = association.dul.socket.socket
    sender = threading.Thread(target=lambda: association.send_c_store(one), daemon=True)
    real_send = association.dul.socket.send
    association.dul.socket.send = lambda data: (real_send(data[: len(data) // 2]), connection.close())[0]
    sender.start()
    sender.join(10)
    assert can_echo(reception, "CT1")
    assert len(reception.rows()) == before
    files = {str(p.relative_to(reception.folder)) for p in (reception.folder / "spool").rglob("*.dcm")}
    assert files == {row.path for row in reception.rows()}


def test_completion_can_see_who_is_still_connected(reception: Reception, wait_for: Callable[..., object]) -> None:
    engine = open_database(reception.settings.storage, "intake")
    association = reception.associate(CT)
    assert association.send_c_store(ct_series(1)[0]).Status == 0x0000
    assert intake.open_callers(engine) == {"CT1"}
    association.release()
    wait_for(lambda: intake.open_callers(engine) == set(), 20, "the association to be forgotten")
    association = reception.associate(CT)
    assert association.send_c_store(ct_series(1)[0]).Status == 0x0000
    association.abort()
    wait_for(lambda: intake.open_callers(engine) == set(), 20, "the aborted association to be forgotten")
    engine.dispose()


@pytest.mark.shared_data
def test_every_transfer_syntax_of_the_real_files_is_kept_as_sent(
    reception: Reception, shared_data: Path, tmp_path: Path
) -> None:
    """cornerstone's CT in 15 transfer syntaxes (one SOP Instance UID: made different here) and NEMA's WG04 set."""
    sent: dict[str, bytes] = {}
    folder = tmp_path / "files"
    folder.mkdir()
    files = [
        *(shared_data / "vendors/cornerstone_ct_16ts").iterdir(),
        *(shared_data / "vendors/nema_wg04").rglob("*_*"),
    ]
    for number, path in enumerate(sorted(p for p in files if p.is_file() and p.suffix != ".zst")):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / str(number))
        sent[dataset.SOPInstanceUID] = _dataset_bytes(folder / str(number))
    result = send_folder(folder, "FALX", "127.0.0.1", reception.port, calling_ae="CT1")
    assert result.refused == []
    kept = {row.sop_instance_uid: row for row in reception.rows()}
    assert len({kept[uid].transfer_syntax_uid for uid in sent}) >= 15
    for uid, content in sent.items():
        assert reception.content(kept[uid]) == content, kept[uid].transfer_syntax_uid


def _dataset_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        pydicom.filereader.read_partial(file, stop_when=lambda _tag, _vr, _length: True)
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def test_associations_beyond_the_limit_are_rejected_in_dicoms_words(
    tmp_path: Path, wait_for: Callable[..., object]
) -> None:
    with running_reception(tmp_path, reception={"max_associations": 2}) as reception:

        def established() -> Association | None:  # the connection that waited for the start may still count
            association = reception.associate(CT)
            return association if association.is_established else None

        kept = [cast(Association, wait_for(established, 60, "an association")) for _n in range(2)]
        third = reception.associate(CT)
        assert third.is_rejected
        assert "limit" in third.acceptor.primitive.reason_str.lower()
        assert kept[0].send_c_store(ct_series(1)[0]).Status == 0x0000
        for association in kept:
            association.release()


def test_an_idle_association_is_ended(tmp_path: Path, wait_for: Callable[..., object]) -> None:
    with running_reception(tmp_path, reception={"idle_timeout_s": 1}) as reception:
        association = reception.associate(CT)
        assert association.is_established
        wait_for(lambda: association.is_aborted, 30, "the idle association's end")


def test_umask_of_the_process_does_not_matter_files_are_private(reception: Reception) -> None:
    association = reception.associate(CT)
    one = ct_series(1)[0]
    assert association.send_c_store(one).Status == 0x0000
    association.release()
    (row,) = rows_of(reception, one.StudyInstanceUID)
    assert os.stat(reception.folder / row.path).st_mode & 0o077 == 0
