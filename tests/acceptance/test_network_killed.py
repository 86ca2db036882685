"""SIGKILL of reception and of delivery under load: nothing acknowledged is lost, no UID has two contents."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import take_port
from fixtures_net import capture, ct_series, deliveries_of, encode, queue_results, report
from fixtures_reception import Reception, running_reception
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom.presentation import build_context

from node.config import load
from node.dicom_net.embedded_pacs import EmbeddedPacs
from node.store.database import open_database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROUNDS, SENDERS = 4, 4


def send_until_killed(reception: Reception, acknowledged: dict[str, bytes], lock: threading.Lock) -> None:
    """Send slices for as long as they are answered; note what was answered with Success."""
    association = reception.associate([build_context(CTImageStorage, ExplicitVRLittleEndian)])
    for one in ct_series(500, rows=256):
        if not association.is_established:
            return
        try:
            status = association.send_c_store(one).get("Status")
        except RuntimeError:
            return
        if status != 0x0000:
            return
        with lock:
            acknowledged[str(one.SOPInstanceUID)] = encode(one)


def test_no_acknowledged_instance_is_lost_when_reception_is_killed(tmp_path: Path) -> None:
    acknowledged: dict[str, bytes] = {}
    lock = threading.Lock()
    chance = random.Random(7)
    for round_number in range(ROUNDS):
        with running_reception(tmp_path) as reception:
            before = len(acknowledged)
            senders = [
                threading.Thread(target=send_until_killed, args=(reception, acknowledged, lock), daemon=True)
                for _n in range(SENDERS)
            ]
            for sender in senders:
                sender.start()
            end = time.monotonic() + 60
            while len(acknowledged) - before < 20 and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 1))
            reception.kill()
            for sender in senders:
                sender.join(60)
            assert len(acknowledged) - before >= 20, f"round {round_number}"
    with running_reception(tmp_path) as reception:  # adopts what the last kill left
        rows = {row.sop_instance_uid: row for row in reception.rows()}
        assert set(acknowledged) <= set(rows)
        for uid, content in acknowledged.items():
            assert reception.content(rows[uid]) == content
        files = {str(p.relative_to(reception.folder)) for p in (reception.folder / "spool").rglob("*") if p.is_file()}
        assert files == {row.path for row in rows.values()}  # every file has its row
        assert reception.quarantined() == []


_DELIVER = (
    "import sys, threading; from pathlib import Path; from node.config import load\n"
    "from node.dicom_net.delivery import run_delivery\n"
    "run_delivery(load(Path(sys.argv[1])), threading.Event())\n"
)


class Counting(EmbeddedPacs):
    """Counts what it is sent, with the content."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.came: Counter[tuple[str, bytes]] = Counter()

    def keep(self, event: Any) -> int:
        self.came[str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()] += 1
        return super().keep(event)


def test_each_result_ends_confirmed_with_the_same_bytes_when_delivery_is_killed(
    tmp_path: Path, wait_for: Callable[..., object]
) -> None:
    pacs = Counting(tmp_path / "pacs", "PACS", take_port(), {})
    pacs.start()
    destination = {
        "name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "retry_first_s": 0.2,
        "retry_max_s": 1.0, "commitment_timeout_s": 5.0,
    }  # fmt: skip
    with running_reception(tmp_path / "falx", destinations=[destination]) as reception:
        pacs._peers["FALX"] = ("127.0.0.1", reception.port)
        config = tmp_path / "falx" / "config.yaml"
        settings = load(config)
        assert yaml.safe_load(config.read_text())["destinations"]
        engine = open_database(settings.storage, "ledger")
        uids = []
        for _n in range(30):
            study = generate_uid()
            uids += queue_results(settings.storage, engine, [report(study), capture(study)], ["pacs"])
        chance = random.Random(3)

        def done() -> bool:
            return {row["state"] for row in deliveries_of(engine).values()} == {"confirmed"}

        for _round in range(6):
            process = subprocess.Popen([sys.executable, "-c", _DELIVER, str(config)])
            before = sum(pacs.came.values())
            end = time.monotonic() + 60
            while sum(pacs.came.values()) < before + 4 and not done() and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.4))
            process.kill()
            process.wait()
        process = subprocess.Popen([sys.executable, "-c", _DELIVER, str(config)])
        try:
            wait_for(done, 240, "every result confirmed")
        finally:
            process.kill()
            process.wait()
        rows = deliveries_of(engine)
        engine.dispose()
    pacs.stop()
    assert set(rows) == set(uids)
    assert {str(d.SOPInstanceUID) for d in pacs.datasets()} == set(uids)
    contents = Counter(uid for uid, _content in pacs.came)
    assert set(contents.values()) == {1}  # however often it was sent, one UID had one content
