"""Pure parts of the network: who may call, what is a storage class, what a status means, timers, file meta."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from fixtures_net import ct_series, encode
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context
from pynetdicom.timer import Timer

from node.config import CallerSettings, DestinationSettings, ReceptionSettings, Settings, TlsSettings
from node.dicom_net import tls
from node.dicom_net.callers import Permission, permission
from node.dicom_net.presentation import FOR_ANALYSIS, NOT_FOR_ANALYSIS, TRANSFER_SYNTAXES, accepted_contexts, is_storage
from node.dicom_net.scu import AssociationLost
from node.dicom_net.store_scu import Answer, judge, storage_contexts
from node.dicom_net.upper_layer import SteadyTimer, store_response
from node.errors import Corrupt, Misconfigured
from node.store.part10 import FileMeta, read_names, uid_problem

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
SETTINGS = Settings(
    reception=ReceptionSettings(
        callers=(
            CallerSettings(ae_title="ANYWHERE"),
            CallerSettings(ae_title="NETWORK", hosts=("10.1.0.0/16", "192.168.1.5")),
            CallerSettings(ae_title="NAMED", hosts=("localhost",)),
        )
    ),
    destinations=(DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=104),),
)


@pytest.mark.parametrize(
    ("calling", "host", "expected"),
    [
        ("ANYWHERE", "203.0.113.9", Permission.EVERYTHING),
        ("NETWORK", "10.1.200.3", Permission.EVERYTHING),
        ("NETWORK", "192.168.1.5", Permission.EVERYTHING),
        ("NETWORK", "::ffff:10.1.200.3", Permission.EVERYTHING),
        ("NETWORK", "10.2.0.1", Permission.NOTHING),
        ("NAMED", "127.0.0.1", Permission.EVERYTHING),
        ("NAMED", "203.0.113.9", Permission.NOTHING),
        ("PACS", "127.0.0.1", Permission.COMMITMENT),
        ("PACS", "203.0.113.9", Permission.NOTHING),
        ("anywhere", "127.0.0.1", Permission.NOTHING),
        ("", "127.0.0.1", Permission.NOTHING),
    ],
)
def test_permission(calling: str, host: str, expected: Permission) -> None:
    assert permission(SETTINGS, calling, host) is expected


def test_unknown_callers_may_be_let_in() -> None:
    settings = SETTINGS.model_copy(update={"reception": ReceptionSettings(accept_unknown_callers=True)})
    assert permission(settings, "STRANGER", "203.0.113.9") is Permission.EVERYTHING


@pytest.mark.parametrize(
    ("uid", "storage"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", True),
        ("1.2.840.10008.5.1.4.1.1.88.34", True),
        ("1.2.840.10008.5.1.4.1.1.5", True),  # retired: Nuclear Medicine
        ("1.2.840.10008.5.1.4.1.1.999", True),  # not in our dictionary
        ("1.3.12.2.1107.5.9.1", True),  # private
        ("1.2.840.10008.1.1", False),
        ("1.2.840.10008.1.20.1", False),  # Storage Commitment
        ("1.2.840.10008.1.3.10", False),  # Media Storage Directory
        ("1.2.840.10008.5.1.4.1.2.2.1", False),  # Study Root FIND
        ("1.2.840.10008.5.1.4.31", False),  # Modality Worklist
    ],
)
def test_is_storage(uid: str, storage: bool) -> None:
    assert is_storage(UID(uid)) is storage


def test_the_lists_of_the_conformance_statement_are_what_negotiation_does() -> None:
    assert len(FOR_ANALYSIS) == 6
    proposed = [build_context(uid, TRANSFER_SYNTAXES[-1]) for uid in (*FOR_ANALYSIS, *NOT_FOR_ANALYSIS)]
    assert len(accepted_contexts(proposed, Permission.EVERYTHING)) == len(proposed)
    assert accepted_contexts(proposed, Permission.COMMITMENT) == []


def test_one_class_in_several_contexts_prefers_uncompressed() -> None:
    ct = FOR_ANALYSIS[0]
    packed = build_context(ct, ["1.2.840.10008.1.2.4.90"])
    both = build_context(ct, ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2"])
    (context,) = accepted_contexts([packed, both], Permission.EVERYTHING)
    assert context.transfer_syntax == ["1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0x0000, Answer.SENT), (0xB000, Answer.SENT), (0xB007, Answer.SENT), (0x0001, Answer.SENT),
        (0xA700, Answer.LATER), (0xA7FF, Answer.LATER), (0x0110, Answer.LATER),
        (0xA900, Answer.REFUSED), (0xC000, Answer.REFUSED), (0xCFFF, Answer.REFUSED), (0x0122, Answer.REFUSED),
        (0x0124, Answer.REFUSED), (0x0212, Answer.REFUSED),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, answer: Answer) -> None:
    result = judge(status)
    assert result.answer is answer
    assert result.status == f"0x{status:04X}"
    assert bool(result.text) is (status != 0x0000)


def test_no_status_is_a_lost_association() -> None:
    with pytest.raises(AssociationLost):
        judge(None)


def test_contexts_hold_each_syntax_apart_and_both_uncompressed_ones() -> None:
    contexts = storage_contexts([("1.2.3", "1.2.840.10008.1.2.5"), ("1.2.3", "1.2.840.10008.1.2.1")])
    assert [c.transfer_syntax for c in contexts] == [
        ["1.2.840.10008.1.2.5"], ["1.2.840.10008.1.2.1"], ["1.2.840.10008.1.2"],
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "expires"), [(Timer, True), (SteadyTimer, False)])
def test_setting_the_clock_forward_expires_no_timer(
    kind: type[Timer], expires: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = kind(60)
    timer.start()
    an_hour_on = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: an_hour_on)
    assert timer.expired is expires
    monkeypatch.undo()
    timer.timeout = -1
    assert timer.expired


@given(
    st.text("0123456789.", min_size=1, max_size=64),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=16),
    st.integers(0, 2**40),
)
def test_file_meta_can_be_read_back(uid: str, calling: str, size: int) -> None:
    meta = FileMeta(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae=calling,
        called_ae="FALX",
        remote_host="10.0.0.1",
    )
    content = meta.encode(size, "ab" * 32)
    read = pydicom.dcmread(BytesIO(content))
    assert read.file_meta.MediaStorageSOPInstanceUID == uid
    assert str(read.file_meta.SourceApplicationEntityTitle or "").strip() == calling.strip().replace("\\", "_")
    assert bytes(read.file_meta.PrivateInformation).decode().split() == [str(size), "ab" * 32]
    assert read.file_meta.FileMetaInformationGroupLength == len(content) - 144


@given(st.binary(max_size=400))
def test_names_of_any_bytes_are_read_or_refused_cleanly(content: bytes) -> None:
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"):
        with pytest.raises(Corrupt):
            read_names(BytesIO(content), syntax)


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8))
def test_names_of_damaged_headers_are_read_or_refused_cleanly(place: int, damage: bytes) -> None:
    content = bytearray(encode(_SLICE))
    content[place : place + len(damage)] = damage
    try:
        names = read_names(BytesIO(content), ExplicitVRLittleEndian)
    except Corrupt:
        return
    assert not uid_problem(names.study_instance_uid)


_SLICE = ct_series(1)[0]


def test_unusable_tls_files_stop_the_start_and_say_so(tmp_path: Path) -> None:
    for name in ("c", "k", "t"):
        (tmp_path / name).write_text("not a certificate")
    settings = TlsSettings(certificate=tmp_path / "c", private_key=tmp_path / "k", trusted=tmp_path / "t")
    with pytest.raises(Misconfigured, match="PEM"):
        tls.server_context(settings)
    assert tls.server_context(TlsSettings()) is None


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xB000, 0xC000])
@pytest.mark.parametrize("instance", ["1.2.3.4", "1.2.3.45"])  # of even and odd length
def test_the_answer_to_a_c_store_is_what_pynetdicom_would_say(status: int, instance: str) -> None:
    request = C_STORE()
    request.MessageID, request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = 7, CTImageStorage, instance
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo, answer.Status = 7, status
    answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID = CTImageStorage, instance
    message = C_STORE_RSP()
    message.primitive_to_message(answer)
    (fragment,) = message.encode_msg(1, 16384)
    assert fragment.presentation_data_value_list == [(1, b"\x03" + store_response(request, status))]
