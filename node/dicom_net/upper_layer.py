"""The threads of an acceptor's association, waiting for events instead of polling; pinned to pynetdicom 3.0.x.

==================  ================================================================================================
`EventDul`,         stock: both threads of an association poll every millisecond, so 20 idle associations take a core,
`EventAssociation`  and a connection that ends before its request holds a thread for the whole ACSE timeout;
                    half an object is forgotten; an answer to a C-STORE is built by way of two data sets
`BoundedDimse`      stock: an object of any size is collected in memory
`SteadyTimer`       stock: setting the clock forward ends every association
==================  ================================================================================================
"""

from __future__ import annotations

import os
import queue
import select
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

import structlog
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.timer import Timer

log = structlog.get_logger()
_POLL_S = 0.25  # how soon timers and the end of a thread are noticed
_HEAD_BYTES = 1 << 20


class _WakingQueue(queue.Queue[Any]):
    """A queue that tells somebody when something was put in."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._wake()


class SteadyTimer(Timer):
    """A timer that a change of the system's clock does not reach."""

    @property
    def remaining(self) -> float:
        """Seconds until expiry; negative after it."""
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return self.timeout
        end = time.monotonic() if self._end_time is None else self._end_time
        return self.timeout - (end - self._start_time)

    def start(self) -> None:
        """Start, or start again."""
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        """Stop."""
        self._end_time = time.monotonic()


class EventDul(DULServiceProvider):
    """The upper layer's thread, waiting for the socket or for something to send instead of polling."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._fd_lock = threading.Lock()
        self.to_provider_queue = _WakingQueue(self._wake)
        self._run_loop_delay = 0
        self._idle_timer, self.artim_timer = SteadyTimer(60), SteadyTimer(30)  # the association sets the times
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
    _is_over = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add a fragment to the message."""
        if self._is_over:
            return
        super().receive_primitive(primitive)
        data_set = self.message.data_set if self.message is not None else None
        if data_set is not None and data_set.tell() > self.longest_object_bytes:
            log.warning("object_too_large", limit_bytes=self.longest_object_bytes)
            self._is_over = True
            data_set.truncate(_HEAD_BYTES)  # enough to tell whose it was
            self.dul.event_queue.put("Evt19")


class EventAssociation(Association):
    """An acceptor whose thread sleeps until there is a message, a release or an abort."""

    def __init__(self, ae: ApplicationEntity, mode: str) -> None:
        super().__init__(ae, mode)
        self.token = uuid.uuid4().hex  # names this association in the intake
        self.has_stored = False
        self.sending: tuple[str, str] | None = None  # Study and Series Instance UID of the last object
        self.unplaced: list[tuple[str, str]] = []  # (SOP Instance UID, why) of refused objects of an unknown series
        self.permission: object = None
        self.on_end: Callable[[EventAssociation], None] | None = None  # called last, by this thread
        self.after_answer: list[Callable[[], None]] = []  # run in threads once the present request is answered
        self._work = threading.Event()
        self.dul = EventDul(self)
        self.dimse = BoundedDimse(self)
        self.dul.to_user_queue = _WakingQueue(self._work.set)
        self.dimse.msg_queue = _WakingQueue(self._work.set)
        self.acse_timeout = ae.acse_timeout  # the setters tell the new upper layer
        self.network_timeout = ae.network_timeout

    def run_reactor(self) -> None:
        """Negotiate and serve until the end; an error of ours aborts, or the peer would wait for its timeout."""
        try:
            super().run_reactor()
        except Exception as error:
            log.error("association_failed", error=type(error).__name__, exc_info=True)
            self.abort()
        finally:
            if self.on_end is not None:
                self.on_end(self)

    def unfinished(self) -> tuple[str, str, BytesIO] | None:
        """Return SOP Instance UID, Transfer Syntax UID and first bytes of the object that is half received, if any."""
        message = self.dimse.message
        context = self._accepted_cx.get(message.context_id or 0) if message is not None else None
        if not isinstance(message, C_STORE_RQ) or context is None or message.data_set is None:
            return None
        message.data_set.seek(0)
        sop_instance_uid = str(message.command_set.get("AffectedSOPInstanceUID", ""))
        return sop_instance_uid, context.transfer_syntax[0], message.data_set

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
                while self.after_answer:
                    threading.Thread(target=self.after_answer.pop(), name="after-answer", daemon=True).start()
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
        """Serve any storage class, at the cost of its bytes: the stock method refuses those it has not heard of."""
        context = self._accepted_cx.get(context_id)
        if isinstance(msg, C_STORE) and msg.is_valid_request and context is not None and not self._sent_release:
            self._serve_store(msg, context)
            return
        super()._serve_request(msg, context_id)

    def _serve_store(self, request: C_STORE, context: PresentationContext) -> None:
        status = evt.trigger(self, evt.EVT_C_STORE, {"request": request, "context": context.as_tuple})
        if self.is_established:
            answer = P_DATA()
            content = b"\x03" + store_response(request, cast(int, status))
            answer.presentation_data_value_list.append((cast(int, context.context_id), content))
            self.dul.send_pdu(answer)


def store_response(request: C_STORE, status: int) -> bytes:
    """Return the command set of a C-STORE-RSP (PS3.7 9.3.1.2), Implicit VR Little Endian.

    Written out, since building it by way of data sets costs a quarter of all that a slice costs.
    """

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    def uid(value: object) -> bytes:
        content = str(value).encode("ascii", "replace")
        return content + b"\0" * (len(content) % 2)

    body = (
        element(0x0002, uid(request.AffectedSOPClassUID))
        + element(0x0100, struct.pack("<H", 0x8001))
        + element(0x0120, struct.pack("<H", request.MessageID))
        + element(0x0800, struct.pack("<H", 0x0101))  # no data set
        + element(0x0900, struct.pack("<H", status))
        + element(0x1000, uid(request.AffectedSOPInstanceUID))
    )
    return element(0x0000, struct.pack("<I", len(body))) + body
