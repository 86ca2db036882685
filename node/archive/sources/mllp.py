"""Reports that a RIS sends by HL7 v2 over MLLP: a listener that keeps each message before it says AA.

The spool (``mllp/<archive>`` of the storage folder, a folder a day) is the archive: reading it is reading HL7
files. Message bytes are kept as sent. ``location`` is ``host:port`` to listen on. Options: ``tls_certificate``,
``tls_private_key``, ``tls_trusted``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import threading
from pathlib import Path

import hl7
from hl7.mllp import InvalidBlockError, start_hl7_server
from hl7.mllp.streams import HL7StreamReader, HL7StreamWriter

from node import log
from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.database import now

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
STOP_POLL_S = 0.2


def spool_folder(storage: Path, archive: str) -> Path:
    """Where the messages of an archive are kept."""
    return storage / "mllp" / archive


def address(archive: ArchiveSettings) -> tuple[str, int]:
    """Host and port of ``location``; raise Misconfigured."""
    host, _, port = archive.location.rpartition(":")
    if not port.isdigit():
        raise Misconfigured(f"archives.{archive.name}.location: {archive.location!r} is no host:port to listen on")
    return host or "127.0.0.1", int(port)


def keep(folder: Path, content: bytes) -> Path:
    """Write one message durably; the same bytes sent again (the answer was lost) are kept once a day."""
    place = folder / f"{now():%Y%m%d}"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = place / f"{hashlib.sha256(content).hexdigest()[:40]}.hl7"
    if target.exists():
        return target
    unfinished = place / f".{target.name}.{threading.get_ident()}"
    with unfinished.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.rename(target)
    for path in (place, folder):
        entry = os.open(path, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)
    return target


def answer(content: bytes, folder: Path) -> bytes:
    """Keep a message and return its acknowledgement: AA kept, AE could not be kept (send again), AR not HL7."""
    charset = "latin-1"  # every byte has a character, so the header is echoed as it came
    try:
        message = hl7.parse(content.decode(charset).replace("\r\n", "\r").replace("\n", "\r"))
        header = message.segment("MSH")
        if len(header) < 11:
            raise ValueError("MSH is too short")
    except (hl7.HL7Exception, KeyError, ValueError, IndexError):
        log.get().warning("hl7_message_refused", reason="no HL7 message", octets=len(content))
        return b"MSH|^~\\&|FALX||||" + f"{now():%Y%m%d%H%M%S}".encode() + b"||ACK|0|P|2.5\rMSA|AR|0\r"
    try:
        keep(folder, content)
        code = "AA"
    except OSError as error:
        log.get().error("hl7_message_not_kept", reason=error.strerror)
        code = "AE"
    return str(message.create_ack(code, application="FALX", facility="")).encode(charset)


async def _serve(archive: ArchiveSettings, folder: Path, stop: threading.Event) -> None:
    async def talk(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        try:
            while True:
                content = await reader.readblock()
                writer.writeblock(await asyncio.to_thread(answer, content, folder))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the sender hung up
        except (InvalidBlockError, ValueError):
            log.get().warning("hl7_connection_closed", archive=archive.name, reason="no MLLP block, or too long")
        finally:
            writer.close()

    host, port = address(archive)
    try:
        server = await start_hl7_server(talk, host, port, limit=MAX_MESSAGE_BYTES, ssl=_tls(archive))
    except OSError as error:
        raise Misconfigured(
            f"archives.{archive.name}.location: cannot listen on {host}:{port}: {error.strerror}"
        ) from None
    async with server:
        while not stop.is_set():
            await asyncio.sleep(STOP_POLL_S)


def _tls(archive: ArchiveSettings) -> ssl.SSLContext | None:
    options = archive.options
    if "tls_certificate" not in options:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(str(options["tls_certificate"]), str(options.get("tls_private_key") or "") or None)
        if "tls_trusted" in options:
            context.load_verify_locations(str(options["tls_trusted"]))
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"archives.{archive.name}.options: TLS files cannot be used: {error}") from None
    return context


def run_listener(archive: ArchiveSettings, storage: Path, stop: threading.Event) -> None:
    """Listen until ``stop``; blocks. Raise Misconfigured when the port cannot be had."""
    folder = spool_folder(storage, archive.name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    asyncio.run(_serve(archive, folder, stop))
