"""Asking other nodes: C-ECHO, C-FIND for counts and read-back, C-GET of reports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_context

from node.config import DestinationSettings, QuerySettings
from node.dicom_net.scu import AssociationLost, DestinationFault, Peer, association
from node.dicom_net.uids import STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION
from node.errors import Transient

PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
REPORT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """What came of a C-ECHO; ``text`` says it in words."""

    ok: bool
    text: str
    seconds: float


def echo(destination: DestinationSettings | QuerySettings, calling_ae: str) -> EchoResult:
    """Verify a peer with C-ECHO (PS3.4 annex A); never raises for what the peer does."""
    start = time.monotonic()
    peer = Peer.of(destination)
    try:
        with association(peer, [build_context(VERIFICATION, PLAIN)], calling_ae=calling_ae) as opened:
            status = opened.send_c_echo()
            code = status.get("Status")
    except DestinationFault as error:
        return EchoResult(ok=False, text=str(error), seconds=time.monotonic() - start)
    seconds = time.monotonic() - start
    if code != SUCCESS:
        said = "no answer" if code is None else f"status 0x{code:04X}"
        return EchoResult(ok=False, text=f"{peer}: {said} to C-ECHO", seconds=seconds)
    return EchoResult(ok=True, text=f"{peer} answers in {seconds * 1000:.0f} ms", seconds=seconds)


def series_instance_count(
    query: QuerySettings, study_instance_uid: str, series_instance_uid: str, *, calling_ae: str
) -> int | None:
    """Ask how many instances a series has: Number of Series Related Instances (0020,1209), or a count of the images.

    Returns None when the source does not know the series.

    Raises
    ------
    Transient
        The source cannot be reached or did not answer properly.
    """
    with association(Peer.of(query), [build_context(STUDY_ROOT_FIND, PLAIN)], calling_ae=calling_ae) as opened:
        keys = _keys("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID=series_instance_uid)
        keys.NumberOfSeriesRelatedInstances = None
        answers = list(find(opened, keys))
        if not answers:
            return None
        told = answers[0].get("NumberOfSeriesRelatedInstances")
        if told is not None:
            return int(told)
        return len(find_instances(opened, study_instance_uid, series_instance_uid)) or None


def find_instances(
    opened: Association, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str = ""
) -> set[str]:
    """Return the SOP Instance UIDs that the peer lists for a series (IMAGE level), or the one asked about."""
    keys = _keys(
        "IMAGE",
        StudyInstanceUID=study_instance_uid,
        SeriesInstanceUID=series_instance_uid,
        SOPInstanceUID=sop_instance_uid,
    )
    return {str(answer.get("SOPInstanceUID", "")) for answer in find(opened, keys)} - {""}


def find(opened: Association, keys: Dataset) -> Iterator[Dataset]:
    """Give the identifiers that match ``keys`` (Study Root C-FIND).

    Raises
    ------
    AssociationLost
        The association ended.
    Transient
        The peer answered with a failure.
    """
    for status, identifier in opened.send_c_find(keys, STUDY_ROOT_FIND):
        code = status.get("Status")
        if code is None:
            raise AssociationLost("no answer to C-FIND")
        if code in PENDING and identifier is not None:
            yield identifier
        elif code != SUCCESS and code not in PENDING:
            raise Transient(f"C-FIND failed with status 0x{code:04X}")


def _keys(level: str, **uids: str) -> Dataset:
    keys = Dataset()
    keys.QueryRetrieveLevel = level
    for name, value in uids.items():
        setattr(keys, name, value)
    return keys


def find_studies(
    query: QuerySettings, *, calling_ae: str, study_date: str, modality: str = "", returned: Sequence[str] = ()
) -> list[Dataset]:
    """List the studies of a date or range (``YYYYMMDD-YYYYMMDD``); ``returned`` names further attributes wanted."""
    keys = _keys("STUDY", StudyInstanceUID="", StudyDate=study_date, AccessionNumber="", ModalitiesInStudy=modality)
    for name in returned:
        if name not in keys:
            setattr(keys, name, None)
    with association(Peer.of(query), [build_context(STUDY_ROOT_FIND, PLAIN)], calling_ae=calling_ae) as opened:
        return list(find(opened, keys))


def report_series(opened: Association, study_instance_uid: str) -> list[Dataset]:
    """Keys (SERIES level) that retrieve each series of structured reports of a study."""
    keys = _keys("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID="", Modality="SR")
    found = list(find(opened, keys))
    return [
        _keys("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID=str(series.SeriesInstanceUID))
        for series in found
    ]


def get_reports(query: QuerySettings, study_instance_uid: str, *, calling_ae: str) -> list[Dataset]:
    """Fetch the structured reports of a study by C-GET, on our own association, so no port needs to be open.

    Raises
    ------
    Transient
        The source cannot be reached, or the retrieval failed.
    """
    found: list[Dataset] = []

    def keep(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        found.append(dataset)
        return SUCCESS

    contexts = [build_context(STUDY_ROOT_FIND, PLAIN), build_context(STUDY_ROOT_GET, PLAIN)]
    roles = []
    for sop_class in REPORT_CLASSES:
        contexts.append(build_context(sop_class, PLAIN))
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = UID(sop_class), False, True
        roles.append(role)
    handlers = [(evt.EVT_C_STORE, keep)]
    peer = Peer.of(query)
    with association(peer, contexts, calling_ae=calling_ae, handlers=handlers, negotiation=roles) as opened:
        for wanted in report_series(opened, study_instance_uid):
            for status, _identifier in opened.send_c_get(wanted, STUDY_ROOT_GET):
                code = status.get("Status")
                if code is None:
                    raise AssociationLost(f"{peer}: no answer to C-GET")
                if code != SUCCESS and code not in PENDING:
                    raise Transient(f"{peer}: C-GET failed with status 0x{code:04X}")
    return found
