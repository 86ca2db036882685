"""pynetdicom's acceptor with its holes closed; pinned to 3.0.x, since it overrides internals.

What each override cures, here and in ``upper_layer`` (each has a test that fails on the stock class,
tests/integration/test_acceptor.py):

==================  ================================================================================================
`Server`            stock: the TLS handshake runs in the accept loop, so one silent client blocks every other caller
`BoundedSocket`     stock: ``recv`` blocks for ever inside a PDU, so half a PDU leaks a socket and two threads;
                    reads 4 KB at a time; believes any PDU length
`Handler`           stock: deep-copies every presentation context for each association (50 ms)
==================  ================================================================================================
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Any, cast

import structlog
from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from node.dicom_net.upper_layer import BoundedDimse, EventAssociation

log = structlog.get_logger()
_LONGEST_NEGOTIATION_BYTES = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts of 40 transfer syntaxes is half of it


def quiet_library() -> None:
    """Turn off pynetdicom's per-PDU logging, which copies every object once more (and may quote attribute values)."""
    _config.LOG_HANDLER_LEVEL = "none"


class BoundedSocket(AssociationSocket):
    """Reads a PDU in few calls, and within ``pdu_timeout_s`` or not at all."""

    pdu_timeout_s: float = 60.0
    longest_pdu_bytes: int = _LONGEST_NEGOTIATION_BYTES

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly ``nr_bytes``, fewer when the peer closed; raise OSError when it stalls or claims too much."""
        connection = self.socket
        if connection is None:
            return bytearray()
        if nr_bytes > self.longest_pdu_bytes:
            raise OSError(f"the peer announced a PDU of {nr_bytes} bytes")
        buffer = bytearray(nr_bytes)
        view, got = memoryview(buffer), 0
        end = time.monotonic() + self.pdu_timeout_s
        while got < nr_bytes:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("the peer stopped inside a PDU")
            connection.settimeout(left)
            count = connection.recv_into(view[got:])
            if not count:
                break
            got += count
        connection.settimeout(self.pdu_timeout_s)  # sending must not block for ever either
        view.release()
        del buffer[got:]
        return buffer

    def _shutdown_socket(self) -> None:
        """Close even when the peer has gone already; the stock method then leaves the descriptor open."""
        if self.socket is None:
            return
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Handler(RequestHandler):
    """Makes an association of the classes above for one connection."""

    server: Server

    def _create_association(self) -> Association:
        server = self.server
        assoc = EventAssociation(self.ae, "acceptor")
        assoc._server = server
        assoc.name = f"AcceptorThread@{self.client_address[0]}"  # the stock code finds acceptors by this name
        connection = BoundedSocket(assoc, client_socket=self.request)
        connection.pdu_timeout_s = server.pdu_timeout_s
        connection.longest_pdu_bytes = max(self.ae.maximum_pdu_size + 6, _LONGEST_NEGOTIATION_BYTES)
        cast(BoundedDimse, assoc.dimse).longest_object_bytes = server.longest_object_bytes
        assoc.set_socket(connection)
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = list(server.contexts)
        assoc.requestor.address_info = self.remote
        for event, bound in server._handlers.items():
            for function, arguments in bound if isinstance(bound, list) else [bound]:
                if function is not None:
                    assoc.bind(event, function, arguments)
        return assoc


class Server(ThreadedAssociationServer):
    """Accepts connections; handshakes and associations each have a thread of their own, and there is a limit."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        *,
        handlers: list[tuple[Any, ...]],
        tls: ssl.SSLContext | None = None,
        handshake_timeout_s: float = 10.0,
        pdu_timeout_s: float = 60.0,
        longest_object_bytes: int = 2_000_000_000,
    ) -> None:
        self.handshake_timeout_s = handshake_timeout_s
        self.pdu_timeout_s = pdu_timeout_s
        self.longest_object_bytes = longest_object_bytes
        self._tls = tls  # not ssl_context: that one makes the accept loop do the handshake
        self._connecting = 0
        self._count_lock = threading.Lock()
        super().__init__(
            ae, address, ae.ae_title, contexts, ssl_context=None, evt_handlers=handlers, request_handler=Handler
        )
        ae._servers.append(self)

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close connections far beyond the limit unheard; up to it the association is rejected in DICOM's words."""
        with self._count_lock:
            connecting = self._connecting
        return connecting + len(self.active_associations) < 2 * self.ae.maximum_associations + 8

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread."""
        with self._count_lock:
            self._connecting += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: handshake within the time limit, then the association."""
        try:
            request.settimeout(self.handshake_timeout_s)
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                request = self._tls.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError as error:
            log.warning("tls_handshake_failed", host=client_address[0], error=str(error)[:200])
            self.shutdown_request(request)
        finally:
            with self._count_lock:
                self._connecting -= 1
