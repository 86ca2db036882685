"""C-STORE reception beside Orthanc and DCMTK's storescp, in paired rounds: only ratios of one round mean anything.

    python benchmarks/receive.py [--rounds 5] [--associations 1 4] [--instances 80] [--json FILE]

Each round starts every server anew on empty storage, in rotated order, and sends it the same CT slices (512x512,
16 bit) with PDUs that were built beforehand, so that the server is what is timed. The reference servers run with
TCP_NODELAY=1: Debian's DCMTK otherwise waits 44 ms an answer, and every ratio to that is worthless. falx answers after
the file, its folder and the index row are synced; Orthanc syncs the file alone, storescp nothing. Each server is sent a
few slices before the clock starts, as one that has run for a while. On a busy machine the processor's milliseconds an
instance say what the clock cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

CT, EXPLICIT, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.1"
ROOT = "1.2.826.0.1.3680043.10.9999"
PDU_BYTES = 131072
WARM_UP = 8  # slices
PIXEL_BYTES = 512 * 512 * 2
HERE = Path(__file__).parent


def element(group: int, number: int, vr: str, value: bytes | str | int) -> bytes:
    """One element in Explicit VR Little Endian."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    content = value.encode() if isinstance(value, str) else value
    if len(content) % 2:
        content += b"\0" if vr == "UI" else b" "
    if vr == "OW":
        return struct.pack("<HH2sHI", group, number, vr.encode(), 0, len(content)) + content
    return struct.pack("<HH2sH", group, number, vr.encode(), len(content)) + content


def ct_slice(study: str, number: int, pixels: bytes) -> tuple[str, bytes]:
    """SOP Instance UID and data set of one CT slice."""
    sop = f"{study}.1.{number}"
    head: list[tuple[int, int, str, bytes | str | int]] = [
        (8, 0x16, "UI", CT),
        (8, 0x18, "UI", sop),
        (8, 0x20, "DA", "20240102"),
        (8, 0x60, "CS", "CT"),
        (8, 0x70, "LO", "SYNTHETIC"),
        (0x10, 0x10, "PN", "SYNTHETIC^HEAD"),
        (0x20, 0x0D, "UI", study),
        (0x20, 0x0E, "UI", f"{study}.1"),
        (0x20, 0x13, "IS", str(number)),
        (0x28, 0x10, "US", 512),
        (0x28, 0x11, "US", 512),
        (0x28, 0x100, "US", 16),
        (0x7FE0, 0x10, "OW", pixels),
    ]
    return sop, b"".join(element(*one) for one in head)


def command_set(elements: Sequence[tuple[int, bytes]]) -> bytes:
    """A DIMSE command set."""
    body = b"".join(struct.pack("<HHI", 0, number, len(v)) + v for number, v in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def p_data(control: int, payload: bytes) -> bytes:
    """One P-DATA-TF PDU on context 1."""
    return struct.pack(">BBIIBB", 4, 0, len(payload) + 6, len(payload) + 2, 1, control) + payload


def store_request(sop: str, dataset: bytes, message_id: int, pdu_bytes: int) -> bytes:
    """A whole C-STORE-RQ as PDUs."""

    def uid(value: str) -> bytes:
        return value.encode() + (b"\0" if len(value) % 2 else b"")

    command = command_set(
        [(2, uid(CT)), (0x100, struct.pack("<H", 1)), (0x110, struct.pack("<H", message_id)),
         (0x700, struct.pack("<H", 0)), (0x800, struct.pack("<H", 1)), (0x1000, uid(sop))]
    )  # fmt: skip
    step = pdu_bytes - 6
    cuts = range(0, len(dataset), step)
    return p_data(3, command) + b"".join(
        p_data(2 if c + step >= len(dataset) else 0, dataset[c : c + step]) for c in cuts
    )


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """The next PDU's type and body."""

    def exactly(count: int) -> bytes:
        got = b""
        while len(got) < count:
            block = connection.recv(count - len(got))
            if not block:
                raise ConnectionError("the server closed the connection")
            got += block
        return got

    head = exactly(6)
    return head[0], exactly(struct.unpack(">I", head[2:])[0])


def associate(port: int, ae_title: str) -> tuple[socket.socket, int]:
    """An association for CT; the socket and the largest PDU the server takes."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "BENCH", ae_title
    context = build_context(CT, EXPLICIT)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, ROOT
    primitive.user_information = [length, implementation]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(request.encode())
    kind, body = read_pdu(connection)
    if kind != 2:
        raise ConnectionError("association refused")
    place = body.find(b"\x51\0\0\4")
    return connection, min(struct.unpack(">I", body[place + 4 : place + 8])[0] or PDU_BYTES, PDU_BYTES)


def send(port: int, objects: Sequence[tuple[str, bytes]], start: threading.Barrier, took: list[float]) -> None:
    """One association that sends and waits for each answer; seconds of each are added to ``took``."""
    connection, pdu_bytes = associate(port, "BENCH_SCP")
    requests = [store_request(sop, dataset, n + 1, pdu_bytes) for n, (sop, dataset) in enumerate(objects)]
    start.wait()
    for request in requests:
        begin = time.perf_counter()
        connection.sendall(request)
        kind, body = read_pdu(connection)
        place = body.find(b"\0\0\0\x09\2\0\0\0")
        if kind != 4 or body[place + 8 : place + 10] != b"\0\0":
            raise ConnectionError("not answered with Success")
        took.append(time.perf_counter() - begin)
    connection.sendall(b"\5\0\0\0\0\4\0\0\0\0")
    read_pdu(connection)
    connection.close()


def free_port() -> int:
    """A loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def falx(port: int, folder: Path) -> list[str]:
    """Start command of falx's reception."""
    return [sys.executable, str(HERE / "reception_process.py"), str(port), "BENCH_SCP", str(folder)]


def storescp(port: int, folder: Path) -> list[str]:
    """Start command of DCMTK's storescp."""
    return ["storescp", "--fork", "--max-pdu", "131072", "-od", str(folder), "-aet", "BENCH_SCP", str(port)]


def orthanc(port: int, folder: Path) -> list[str]:
    """Start command of Orthanc."""
    config = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": port,
        "HttpPort": free_port(),
        "DicomAet": "BENCH_SCP",
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(folder / "orthanc.json")]


def installed() -> dict[str, Callable[[int, Path], list[str]]]:
    """The servers that can be run here."""
    found: dict[str, Callable[[int, Path], list[str]]] = {"falx": falx}
    if shutil.which("storescp"):
        found["storescp"] = storescp
    if shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists():
        found["orthanc"] = orthanc
    return found


def run_once(
    start: Callable[[int, Path], list[str]], groups: Sequence[Sequence[tuple[str, bytes]]]
) -> tuple[float, float, float]:
    """Instances a second, median answer and processor time an instance (both in milliseconds) of a fresh server."""
    with tempfile.TemporaryDirectory(prefix="falx-receive-") as folder:
        port = free_port()
        environment = {**os.environ, "TCP_NODELAY": "1"}
        server = subprocess.Popen(
            start(port, Path(folder)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until_ready(port, server)
            warm = [ct_slice(f"{ROOT}.999", n, groups[0][0][1][-PIXEL_BYTES:]) for n in range(WARM_UP)]
            send(port, warm, threading.Barrier(1), [])
            os.sync()
            took: list[float] = []
            used_s = processor_s(server.pid)
            barrier = threading.Barrier(len(groups) + 1)
            threads = [threading.Thread(target=send, args=(port, g, barrier, took)) for g in groups]
            for thread in threads:
                thread.start()
            barrier.wait(60)
            begin = time.perf_counter()
            for thread in threads:
                thread.join()
            seconds = time.perf_counter() - begin
            used_s = processor_s(server.pid) - used_s
        finally:
            server.terminate()
            server.wait(60)
    count = sum(map(len, groups))
    if len(took) != count:
        raise RuntimeError(f"{len(took)} of {count} instances were answered")
    return count / seconds, statistics.median(took) * 1000, used_s * 1000 / count


def processor_s(pid: int) -> float:
    """Processor time of a server so far, with that of its children that have ended."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until an association is accepted."""
    end = time.monotonic() + 60
    while True:
        try:
            associate(port, "BENCH_SCP")[0].close()
            return
        except OSError:
            if time.monotonic() > end or server.poll() is not None:
                raise
            time.sleep(0.05)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--instances", type=int, default=80)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    pixels = np.random.default_rng(7).integers(0, 4096, (512, 512)).astype("<u2").tobytes()
    servers = installed()
    measured: dict[int, dict[str, list[tuple[float, float, float]]]] = {
        count: {name: [] for name in servers} for count in options.associations
    }
    for number in range(options.rounds):
        order = list(servers)
        order = order[number % len(order) :] + order[: number % len(order)]
        for count in options.associations:
            each = options.instances // count
            for name in order:
                groups = [
                    [ct_slice(f"{ROOT}.{number + 1}.{count}.{a + 1}", n + 1, pixels) for n in range(each)]
                    for a in range(count)
                ]
                measured[count][name].append(run_once(servers[name], groups))
    report = summary(measured, list(servers))
    for row in report["rows"]:
        ratios = "  ".join(f"/{k} {v['median']:.2f} ({v['min']:.2f}-{v['max']:.2f})" for k, v in row["ratios"].items())
        rate = f"{row['per_s']:7.1f}/s  {row['answer_ms']:6.2f} ms  {row['processor_ms']:5.2f} ms of processor"
        print(f"{row['server']:9} {row['associations']} assoc. {rate}  {ratios}")
    if options.json:
        text = json.dumps(report, indent=2) + "\n"
        sys.stdout.write(text) if options.json == "-" else Path(options.json).write_text(text)


def summary(
    measured: dict[int, dict[str, list[tuple[float, float, float]]]], names: Sequence[str]
) -> dict[str, list[dict]]:
    """Medians, and ratios of instances a second within each round."""
    rows = []
    for count, by_server in measured.items():
        for name in names:
            runs = by_server[name]
            ratios = {}
            for other in names:
                if other != name:
                    each = [a[0] / b[0] for a, b in zip(runs, by_server[other], strict=True)]
                    ratios[other] = {"median": statistics.median(each), "min": min(each), "max": max(each)}
            rows.append(
                {
                    "server": name,
                    "associations": count,
                    "per_s": statistics.median(r[0] for r in runs),
                    "answer_ms": statistics.median(r[1] for r in runs),
                    "processor_ms": statistics.median(r[2] for r in runs),
                    "rounds": len(runs),
                    "ratios": ratios,
                }
            )
    return {"rows": rows}


if __name__ == "__main__":
    main()
