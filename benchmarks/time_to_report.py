"""Seconds from a study's last instance to its report accepted by the PACS, through the whole node, less the silence.

    python -P benchmarks/time_to_report.py [--studies 6] [--drawn DIR] [--json FILE]

falx and a test PACS (Orthanc when it is installed) run as in `falx demo`. Synthetic head CTs of 32 slices, with and
without haemorrhage in turn, their pixels repeated to 512x512, are sent one after the other; the models are warm. The
clock starts when reception has the last instance and stops when the PACS has answered the report's C-STORE;
`completion.silence_s`, for which falx waits by configuration, is taken off. Bar: 5.04 s on two cores, the time a scan
takes in Wu et al. 2024.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pydicom
from sqlalchemy import Engine, RowMapping, select

from inference.training import cohort_ct
from node.config import Settings, load
from node.demo import PacsKind, free_port, running_node, running_pacs, write_config
from node.dicom_net.sending import send_folder
from node.store.database import open_database, reading
from node.store.ledger_tables import deliveries, objects, series, tasks

SLICES, SIZE, COVERED_MM = 32, 512, 120.0
LONGEST_S = 300.0


def draw(folder: Path, seed: int, prevalence: float) -> Path:
    """The 32 uppermost slices of a synthetic head CT that has as many, as one folder of files of 512x512."""
    chosen = folder / f"study-{seed}"
    if chosen.exists():
        return chosen
    for number in range(50):
        place = folder / f"{seed}-{number}"
        cohort_ct.write_cohort(1, seed + number, place, prevalence=prevalence)
        slices = sorted(map(pydicom.dcmread, place.rglob("*.dcm")), key=lambda ds: float(ds.ImagePositionPatient[2]))
        if len(slices) >= SLICES and float(slices[0].SliceThickness) * SLICES >= COVERED_MM:
            chosen.mkdir()
            for index, one in enumerate(slices[-SLICES:]):
                enlarge(one).save_as(chosen / f"{index:04d}.dcm")
            return chosen
    raise RuntimeError(f"no synthetic study of {SLICES} slices in 50 draws")


def enlarge(one: pydicom.FileDataset) -> pydicom.FileDataset:
    """Each pixel repeated, so that the slice has 512 rows and columns."""
    times = SIZE // int(one.Rows)
    pixels = one.pixel_array.repeat(times, axis=0).repeat(times, axis=1)
    one.Rows, one.Columns = pixels.shape
    one.PixelSpacing = [float(step) / times for step in one.PixelSpacing]
    one.PixelData = pixels.tobytes()
    return one


def wait_for_report(engine: Engine, study: str) -> tuple[RowMapping, RowMapping]:
    """Until the study's report is accepted: its task with its series' completion, and the report's delivery."""
    task = select(tasks, series.c.completed_at).join(
        series, series.c.series_instance_uid == tasks.c.series_instance_uid
    )
    report = select(deliveries).join(objects, objects.c.sop_instance_uid == deliveries.c.sop_instance_uid)
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        with reading(engine) as connection:
            row = connection.execute(report.where(objects.c.study_instance_uid == study, objects.c.kind == "SR"))
            sent = row.mappings().first()
            if sent is not None and sent["sent_at"] is not None:
                answered = connection.execute(task.where(tasks.c.study_instance_uid == study)).mappings().first()
                if answered is None:
                    raise RuntimeError(f"the series of study {study} was not chosen: see falx status")
                return answered, sent
        time.sleep(0.1)
    raise RuntimeError(f"no report of study {study} within {LONGEST_S:.0f} s")


def measure(settings: Settings, engine: Engine, pacs_ae: str, pacs_port: int, source: Path) -> dict[str, float | str]:
    """Send one study as a PACS routes it, and time its report's stages in seconds."""
    send_folder(source, pacs_ae, "127.0.0.1", pacs_port, calling_ae="DEMO")
    sent = send_folder(source, "FALX", "127.0.0.1", settings.reception.port, calling_ae="DEMO")
    task, report = wait_for_report(engine, sent.results[0][0].study_instance_uid)
    last, silence_s = task["last_instance_at"], settings.completion.silence_s
    return {
        "state": str(task["state"]),
        "completion_s": (task["completed_at"] - last).total_seconds() - silence_s,
        "read_and_model_s": float(task["seconds"]),
        "claim_to_queued_s": (task["finished_at"] - task["completed_at"]).total_seconds(),
        "delivery_s": (report["sent_at"] - task["finished_at"]).total_seconds(),
        "seconds": (report["sent_at"] - last).total_seconds() - silence_s,
    }


def run(sources: list[Path], folder: Path) -> dict[str, object]:
    """Measure each study but the first, which warms everything."""
    port = free_port()
    with running_pacs(folder / "pacs", port, PacsKind.AUTO) as pacs:
        config = write_config(folder, port, pacs)
        settings = load(config)
        with running_node(config, settings, folder / "falx.log"):
            engine = open_database(settings.storage, "ledger")
            rows = [measure(settings, engine, pacs.ae_title, pacs.port, source) for source in sources][1:]
            engine.dispose()
        kind = pacs.kind
    stages = [name for name in rows[0] if name != "state"]
    return {
        "pacs": kind,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_after": os.getloadavg()[0],
        "slices": SLICES,
        "median": {name: round(statistics.median(float(row[name]) for row in rows), 2) for name in stages},
        "highest_s": round(max(float(row["seconds"]) for row in rows), 2),
        "studies": rows,
    }


def main() -> None:
    """Run, print the medians, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=6)
    parser.add_argument("--drawn", type=Path, help="keep the drawn studies there, or take those that are there")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="falx-time-") as folder:
        drawn = options.drawn or Path(folder) / "studies"
        drawn.mkdir(parents=True, exist_ok=True)
        sources = [draw(drawn, 950_000 + 100 * n, float(n % 2)) for n in range(options.studies + 1)]
        found = run(sources, Path(folder))
    print(json.dumps({k: v for k, v in found.items() if k != "studies"}), file=sys.stderr)
    if options.json:
        text = json.dumps(found, indent=2) + "\n"
        sys.stdout.write(text) if options.json == "-" else Path(options.json).write_text(text)


if __name__ == "__main__":
    main()
