"""pynetdicom's acceptor with its holes closed; pinned to 3.0.x, since it overrides internals.

What each override cures (each has a test that fails on the stock class, tests/integration/test_acceptor.py):

==================  ================================================================================================
`Server`            stock: the TLS handshake runs in the accept loop, so one silent client blocks every other caller
`BoundedSocket`     stock: ``recv`` blocks for ever inside a PDU, so half a PDU leaks a socket and two threads;
                    reads 4 KB at a time; believes any PDU length
`BoundedDimse`      stock: an object of any size is collected in memory
`EventDul`,         stock: both threads of an association poll every millisecond, so 20 idle associations take a core
`EventAssociation`
`Handler`           stock: deep-copies every presentation context for each association (50 ms)
==================  ================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

log = structlog.get_logger()
_POLL_S = 0.25  # how soon timers and the end of a thread are noticed
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


class _WakingQueue(queue.Queue[Any]):
    """A queue that tells somebody when something was put in."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._wake()


class EventDul(DULServiceProvider):
    """The upper layer's thread, waiting for the socket or for something to send instead of polling."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._fd_lock = threading.Lock()
        self.to_provider_queue = _WakingQueue(self._wake)
        self._run_loop_delay = 0
        self._has_begun = False

    @property
    def has_ended(self) -> bool:
        """Whether the transport connection came and went."""
        return self._has_begun and self.state_machine.current_state == "Sta1"

    def _wake(self) -> None:
        with self._fd_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def kill_dul(self) -> None:
        """Stop the thread soon."""
        super().kill_dul()
        self._wake()

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        """Wait for a primitive, but not for one from a peer that has gone: the stock method waits the whole time."""
        end = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while wait:
            left = max(0.0, end - time.monotonic())
            primitive = super().receive_pdu(wait=True, timeout=min(left, _POLL_S))
            if primitive is not None or self.has_ended or left == 0.0:
                return primitive
        return super().receive_pdu(wait=False)

    def _is_transport_event(self) -> bool:
        self._has_begun = self._has_begun or self.state_machine.current_state != "Sta1"
        waiting = self.socket is not None and self.socket.socket is not None and self.socket._is_connected
        if self.has_ended:
            time.sleep(0.001)  # until the association's thread has noticed
            return False
        if not waiting or self.state_machine.current_state == "Sta13" or not self.event_queue.empty():
            if not waiting:
                time.sleep(0.001)
            return super()._is_transport_event()
        if not self._wait_for_peer():
            return False
        self._read_pdu_data()
        return True

    def _wait_for_peer(self) -> bool:
        connection = self.socket.socket if self.socket is not None else None
        if connection is None or connection.fileno() < 0:
            self.event_queue.put("Evt17")
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLHUP | select.POLLERR)
        poll.register(self._wake_fd, select.POLLIN)
        ready = {fd for fd, _event in poll.poll(_POLL_S * 1000)}
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        return connection.fileno() in ready

    def run_reactor(self) -> None:
        """Run the thread, and give the descriptor back at its end."""
        try:
            super().run_reactor()
        finally:
            with self._fd_lock:
                os.close(self._wake_fd)
                self._wake_fd = -1


class BoundedDimse(DIMSEServiceProvider):
    """Aborts the association when an object grows beyond ``longest_object_bytes``."""

    longest_object_bytes: int = 2_000_000_000

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add a fragment to the message."""
        super().receive_primitive(primitive)
        data_set = self.message.data_set if self.message is not None else None
        if data_set is not None and data_set.tell() > self.longest_object_bytes:
            log.warning("object_too_large", limit_bytes=self.longest_object_bytes)
            self.message = None
            self.dul.event_queue.put("Evt19")


class EventAssociation(Association):
    """An acceptor whose thread sleeps until there is a message, a release or an abort."""

    def __init__(self, ae: ApplicationEntity, mode: str) -> None:
        super().__init__(ae, mode)
        self.token = uuid.uuid4().hex  # names this association in the intake
        self.has_stored = False
        self.permission: object = None
        self._work = threading.Event()
        self.dul = EventDul(self)
        self.dimse = BoundedDimse(self)
        self.dul.to_user_queue = _WakingQueue(self._work.set)
        self.dimse.msg_queue = _WakingQueue(self._work.set)
        self.acse_timeout = ae.acse_timeout  # the setters tell the new upper layer
        self.network_timeout = ae.network_timeout

    def _run_reactor(self) -> None:
        while not self._kill:
            if self.dimse.msg_queue.empty() and self.dul.to_user_queue.empty():
                self._work.wait(_POLL_S)
            self._work.clear()
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            context_id, message = self.dimse.get_msg(block=False)
            if message and context_id is not None:
                self._serve_request(message, context_id)
            if self._has_ended():
                self.kill()

    def _has_ended(self) -> bool:
        if self.is_established and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released, self.is_established = True, False
            evt.trigger(self, evt.EVT_RELEASED, {})
            return True
        if self.acse.is_aborted():
            self.dul.receive_pdu(wait=False)
            self.is_aborted, self.is_established = True, False
            evt.trigger(self, evt.EVT_ABORTED, {})
            return True
        if self.dul.idle_timer_expired():
            self.abort()
            return True
        return not self.dul.is_alive()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Serve any storage class: the stock method refuses those it has not heard of."""
        context = self._accepted_cx.get(context_id)
        if isinstance(msg, C_STORE) and msg.is_valid_request and context is not None and not self._sent_release:
            StorageServiceClass(self).SCP(msg, context)
            return
        super()._serve_request(msg, context_id)


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
        assoc.dimse.longest_object_bytes = server.longest_object_bytes  # type: ignore[attr-defined]  # BoundedDimse
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

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: handshake within the time limit, then the association."""
        with self._count_lock:
            self._connecting += 1
        try:
            request.settimeout(self.handshake_timeout_s)
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                request = self._tls.wrap_socket(request, server_side=True)
        except OSError as error:
            log.warning("tls_handshake_failed", host=client_address[0], error=str(error)[:200])
            self.shutdown_request(request)
            return
        finally:
            with self._count_lock:
                self._connecting -= 1
        super().process_request_thread(request, client_address)
