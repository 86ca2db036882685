"""Delivery to real peers: falx's own small PACS on a folder (with faults of many kinds), DCMTK and Orthanc."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from fixtures_delivery import Node, destination
from fixtures_net import SR_CLASS, capture, deliveries_of, report
from pydicom.uid import RLELossless, generate_uid

from node.dicom_net.embedded_pacs import EmbeddedPacs
from node.dicom_net.uids import STORAGE_COMMITMENT, STUDY_ROOT_FIND
from node.store.outbox import retry

Wait = Callable[..., object]


class Faulty(EmbeddedPacs):
    """A PACS with the faults that a test gives it."""

    refused_classes: tuple[str, ...] = ()
    refused_syntaxes: tuple[str, ...] = ()
    status_of: Callable[[Any], int | None] = staticmethod(lambda _event: None)
    loses_before_commitment: int = 0

    def contexts(self, proposed: list[Any]) -> list[Any]:
        found = super().contexts(proposed)
        for context in found:
            context.transfer_syntax = [s for s in context.transfer_syntax if s not in self.refused_syntaxes]
        return [c for c in found if c.abstract_syntax not in self.refused_classes and c.transfer_syntax]

    def keep(self, event: Any) -> int:
        status = self.status_of(event)
        return super().keep(event) if status is None else status

    def report_of(self, request: pydicom.Dataset) -> pydicom.Dataset:
        if self.loses_before_commitment:
            self.loses_before_commitment -= 1
            self.forget(str(request.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
        return super().report_of(request)


@pytest.fixture
def pacs(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Faulty]:
    made = Faulty(tmp_path / "pacs", "PACS", free_port(), {})
    yield made
    made.stop()


@pytest.fixture
def make_node(tmp_path: Path, free_port: Callable[[], int], pacs: Faulty) -> Callable[..., Node]:
    def make(**options: Any) -> Node:
        port = free_port()
        pacs._peers["FALX"] = ("127.0.0.1", port)
        return Node(tmp_path / "falx", port, destination(pacs.port, **options))

    return make


def confirmed_by(node: Node) -> set[str]:
    return {row["confirmed_by"] for row in deliveries_of(node.ledger).values()}


def test_confirmed_by_storage_commitment_on_a_new_association(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    pacs.start()
    study = generate_uid()
    with make_node().running() as node:
        uids = node.queue(report(study), capture(study), capture(study))
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    assert confirmed_by(node) == {"storage-commitment"}
    assert {str(d.SOPInstanceUID) for d in pacs.datasets()} == set(uids)


@pytest.mark.parametrize(
    ("refused", "confirm", "by"),
    [
        ((STORAGE_COMMITMENT,), "storage-commitment", "c-find"),
        ((), "c-find", "c-find"),
        ((STORAGE_COMMITMENT, STUDY_ROOT_FIND), "storage-commitment", "accepted"),
        ((), "accepted", "accepted"),
    ],
)
def test_confirmation_falls_back_to_what_the_peer_offers(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait, refused: tuple[str, ...], confirm: str, by: str
) -> None:
    pacs.refused_classes = refused
    pacs.start()
    with make_node(confirm=confirm).running() as node:
        node.queue(capture(generate_uid()))
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    assert confirmed_by(node) == {by}


def test_the_report_goes_first_and_the_bytes_are_those_stored(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    came: list[str] = []
    pacs.status_of = lambda event: came.append(str(event.request.AffectedSOPClassUID))
    pacs.start()
    study = generate_uid()
    picture = capture(study, syntax=RLELossless)
    with make_node().running() as node:
        node.queue(picture, capture(study), report(study))
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    assert came[0] == SR_CLASS
    kept = pydicom.dcmread(next((pacs.folder).rglob(f"{picture.SOPInstanceUID}.dcm")))
    assert kept.file_meta.TransferSyntaxUID == RLELossless
    assert kept.PixelData == picture.PixelData


def test_a_peer_without_rle_gets_it_uncompressed(pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait) -> None:
    pacs.refused_syntaxes = (RLELossless, "1.2.840.10008.1.2.1")  # only Implicit VR Little Endian is left
    pacs.start()
    picture = capture(generate_uid(), syntax=RLELossless)
    with make_node().running() as node:
        node.queue(picture)
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    kept = pydicom.dcmread(next((pacs.folder).rglob(f"{picture.SOPInstanceUID}.dcm")))
    assert (kept.pixel_array == picture.pixel_array).all()


def test_a_peer_that_refuses_reports_gets_the_pictures(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    pacs.refused_classes = (SR_CLASS,)
    pacs.start()
    study = generate_uid()
    with make_node().running() as node:
        text, picture = node.queue(report(study), capture(study))
        wait_for(lambda: node.states() == {text: "dead", picture: "confirmed"}, 60, "both ends")
    assert "sr: comprehensive" in deliveries_of(node.ledger)[text]["error"]


def test_a_refused_object_dies_with_its_status_and_can_be_retried(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    pacs.status_of = lambda event: 0xC123 if event.request.AffectedSOPClassUID == SR_CLASS else None
    pacs.start()
    study = generate_uid()
    with make_node().running() as node:
        text, picture = node.queue(report(study), capture(study))
        wait_for(lambda: node.states() == {text: "dead", picture: "confirmed"}, 60, "both ends")
        row = deliveries_of(node.ledger)[text]
        assert (row["status"], row["attempt"]) == ("0xC123", 1)
        assert "cannot understand" in row["error"]
        pacs.status_of = lambda _event: None
        with node.ledger.begin() as connection:
            from node.store.database import now

            assert retry(connection, study, now()) == 1
        wait_for(node.all_are("confirmed"), 60, "the retried report")


def test_a_peer_out_of_resources_is_asked_again(pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait) -> None:
    answers = iter([0xA700, 0xA700])
    pacs.status_of = lambda _event: next(answers, None)
    pacs.start()
    with make_node().running() as node:
        (uid,) = node.queue(capture(generate_uid()))
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    assert deliveries_of(node.ledger)[uid]["attempt"] == 3


def test_a_peer_that_is_down_gets_everything_when_it_comes_up(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    with make_node().running() as node:
        uids = [node.queue(report(study), capture(study)) for study in (generate_uid(), generate_uid())]
        wait_for(
            lambda: any("no connection" in row["error"] for row in deliveries_of(node.ledger).values()), 60, "a fault"
        )
        assert node.all_are("queued")()
        pacs.start()
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    assert len(pacs.datasets()) == sum(map(len, uids))


def test_with_limited_attempts_an_unreachable_peer_makes_dead_letters(
    make_node: Callable[..., Node], wait_for: Wait
) -> None:
    with make_node(max_attempts=2).running() as node:
        node.queue(capture(generate_uid()))
        wait_for(node.all_are("dead"), 60, "a dead letter")
    (row,) = deliveries_of(node.ledger).values()
    assert "no connection" in row["error"]


def test_an_object_that_ends_the_association_does_not_block_the_others(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    def abort_on_report(event: Any) -> None:
        if event.request.AffectedSOPClassUID == SR_CLASS:
            event.assoc.abort()

    pacs.status_of = abort_on_report
    pacs.start()
    study = generate_uid()
    with make_node().running() as node:
        text, picture = node.queue(report(study), capture(study))
        wait_for(lambda: node.states()[picture] == "confirmed", 60, "the picture")
        assert node.states()[text] == "queued"
        pacs.status_of = lambda _event: None
        wait_for(node.all_are("confirmed"), 60, "the report")


def test_lost_before_commitment_is_sent_again(pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait) -> None:
    """Failure reason 0112: the PACS accepted the object and does not hold it."""
    pacs.loses_before_commitment = 2
    pacs.start()
    with make_node().running() as node:
        (uid,) = node.queue(capture(generate_uid()))
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    row = deliveries_of(node.ledger)[uid]
    assert (row["attempt"], row["confirmed_by"]) == (3, "storage-commitment")


def test_a_pacs_that_always_loses_it_ends_in_a_dead_letter(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    pacs.loses_before_commitment = 1000
    pacs.start()
    with make_node(max_attempts=3).running() as node:
        node.queue(capture(generate_uid()))
        wait_for(node.all_are("dead"), 60, "a dead letter")
    (row,) = deliveries_of(node.ledger).values()
    assert "0x0112" in row["error"]
    assert row["attempt"] == 3


def test_no_commitment_answer_in_time_makes_a_new_transaction(
    pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait
) -> None:
    node = make_node(commitment_timeout_s=1.0)
    right = pacs._peers.pop("FALX")  # the PACS does not know whom to call back
    pacs.start()
    with node.running():
        (uid,) = node.queue(capture(generate_uid()))
        first = wait_for(lambda: deliveries_of(node.ledger)[uid]["transaction_uid"], 60, "a request")
        wait_for(lambda: deliveries_of(node.ledger)[uid]["transaction_uid"] not in (first, ""), 60, "a new request")
        assert node.states() == {uid: "sent"}
        pacs._peers["FALX"] = right
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    assert deliveries_of(node.ledger)[uid]["attempt"] == 1  # asked again, not sent again


def test_delivery_goes_on_where_it_was_stopped(pacs: Faulty, make_node: Callable[..., Node], wait_for: Wait) -> None:
    """Stopped after the object was accepted and before anything was confirmed."""
    node = make_node()
    right = pacs._peers.pop("FALX")
    pacs.start()
    with node.running():
        (uid,) = node.queue(capture(generate_uid()))
        wait_for(lambda: deliveries_of(node.ledger)[uid]["transaction_uid"], 60, "a request")
    pacs._peers["FALX"] = right
    node.settings = node.settings.model_copy(
        update={"destinations": (destination(pacs.port, commitment_timeout_s=0.1),)}
    )
    from sqlalchemy import update

    from node.store.database import now
    from node.store.ledger_tables import deliveries

    with node.ledger.begin() as connection:
        connection.execute(update(deliveries).values(run_after=now()))
    with node.running():
        wait_for(node.all_are("confirmed"), 60, "confirmation")
    assert deliveries_of(node.ledger)[uid]["attempt"] == 1


@pytest.mark.needs("Orthanc")
def test_orthanc_commits(
    tmp_path: Path, free_port: Callable[[], int], orthanc_factory: Callable[..., Any], wait_for: Wait
) -> None:
    port = free_port()
    orthanc = orthanc_factory({"FALX": ("127.0.0.1", port)})
    node = Node(tmp_path / "falx", port, destination(orthanc.port, ae_title="ORTHANC"))
    study = generate_uid()
    with node.running():
        uids = node.queue(report(study), capture(study), capture(study, syntax=RLELossless))
        wait_for(node.all_are("confirmed"), 90, "Orthanc's commitment")
    assert confirmed_by(node) == {"storage-commitment"}
    found = {i["MainDicomTags"]["SOPInstanceUID"] for i in orthanc.find("Instance", StudyInstanceUID=study)}
    assert found == set(uids)


@pytest.mark.needs("storescp")
def test_dcmtk_storescp_accepts(tmp_path: Path, free_port: Callable[[], int], wait_for: Wait) -> None:
    """A peer with storage alone: accepted is the most that can be had."""
    port = free_port()
    out = tmp_path / "received"
    out.mkdir()
    server = subprocess.Popen(["storescp", "-od", str(out), "-aet", "PACS", "--accept-all", str(port)])
    node = Node(tmp_path / "falx", free_port(), destination(port))
    study = generate_uid()
    try:
        with node.running():
            node.queue(report(study), capture(study))
            wait_for(node.all_are("confirmed"), 60, "acceptance")
    finally:
        server.terminate()
        server.wait()
    assert confirmed_by(node) == {"accepted"}
    assert len(list(out.iterdir())) == 2
