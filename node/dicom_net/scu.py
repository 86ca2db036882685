"""Associations that falx opens: quick to answer, bounded in time, and with the peer's own words when they fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node.config import DestinationSettings, QuerySettings, TlsSettings
from node.dicom_net import tls
from node.dicom_net.acceptor import quiet_library
from node.errors import Transient
from node.store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

CONNECT_S = 10.0
NEGOTIATE_S = 30.0
ANSWER_S = 120.0  # a PACS may take its time over a large object
MAX_CONTEXTS = 128  # PS3.8: odd numbers from 1 to 255


class DestinationFault(Transient):
    """The peer cannot be reached, or does not let us in: everything for it waits."""


class AssociationLost(Transient):
    """The association ended, or an answer did not come: what was being sent is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An application entity to call."""

    ae_title: str
    host: str
    port: int
    tls: TlsSettings = field(default_factory=TlsSettings)

    @classmethod
    def of(cls, settings: DestinationSettings | QuerySettings) -> Peer:
        """Return the peer that a part of the configuration names."""
        secure = settings.tls if isinstance(settings, DestinationSettings) else TlsSettings()
        return cls(ae_title=settings.ae_title, host=settings.host, port=settings.port, tls=secure)

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@contextmanager
def association(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae: str,
    handlers: Sequence[tuple[Any, ...]] = (),
    negotiation: Sequence[Any] = (),
) -> Iterator[Association]:
    """Open an association and release it at the end; abort it when the body raises.

    Raises
    ------
    DestinationFault
        No connection, no TLS, or the association was rejected; the text says which.
    """
    quiet_library()
    entity = ApplicationEntity(calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = 131072
    entity.connection_timeout, entity.acse_timeout = CONNECT_S, NEGOTIATE_S
    entity.dimse_timeout = entity.network_timeout = ANSWER_S
    secure = tls.client_context(peer.tls)
    opened = entity.associate(
        peer.host,
        peer.port,
        contexts=list(contexts),
        ae_title=peer.ae_title,
        ext_neg=list(negotiation),
        evt_handlers=[(evt.EVT_CONN_OPEN, _on_open), (evt.EVT_PDU_SENT, _on_sent), *handlers],
        tls_args=(secure, peer.host) if secure else None,
    )
    if not opened.is_established:
        raise DestinationFault(f"{peer}: {_why(opened)}")
    try:
        yield opened
    except BaseException:
        opened.abort()
        raise
    if opened.is_established:
        opened.release()


def _on_open(event: evt.Event) -> None:
    """Send at once (no Nagle), and never wait for ever for the rest of a PDU."""
    connection = _socket(event)
    if connection is not None:
        connection.settimeout(ANSWER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _on_sent(event)


def _on_sent(event: evt.Event) -> None:
    """Acknowledge the peer's next packet at once: a peer with Nagle's algorithm on waits for that (44 ms)."""
    connection = _socket(event)
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _socket(event: evt.Event) -> socket.socket | None:
    transport = event.assoc.dul.socket
    return transport.socket if transport is not None else None


def _why(failed: Association) -> str:
    if failed.is_rejected:
        answer = failed.acceptor.primitive
        reason = getattr(answer, "reason_str", "") if answer is not None else ""
        return f"association rejected ({reason or 'no reason given'})"
    if failed.acceptor.primitive is not None:
        return "none of the proposed presentation contexts was accepted"
    return "no connection, or no answer to the association request"
