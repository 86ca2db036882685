"""The whole command, killed with SIGKILL again and again: no report is labelled twice, none is missed. And on Ray."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from report_archive import Archive, report_text
from sqlalchemy import func, select

from node.archive.engines import LocalEngine, RayEngine
from node.config import StorageSettings
from node.store.database import open_database, reading, sqlite_path
from node.store.labels_tables import label_files, label_sets, reports

pytest_plugins = ("fixtures_reports",)
REPORTS, FILES, KILLS = 12_000, 4, 3


def write_archive(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        with (folder / f"{number}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["acc", "body"])
            writer.writerows([f"A{i}", report_text(i)] for i in range(number, REPORTS, FILES))


def falx(config: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "node.cli", "relabel", "ris", "--now", "--no-map", "-c", str(config), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def progress_of(storage: StorageSettings) -> int:
    if not sqlite_path(storage, "labels").exists():
        return 0
    with reading(open_database(storage, "labels")) as connection:
        return int(connection.scalar(select(func.sum(label_sets.c.read))) or 0)


def kill_after(process: subprocess.Popen[bytes], storage: StorageSettings, read: int) -> None:
    """SIGKILL the command, not its workers: those must notice by themselves."""
    workers: list[psutil.Process] = []
    end = time.monotonic() + 240
    while progress_of(storage) < read:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < end
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive, "workers of a killed command end"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_again_and_again_no_report_is_labelled_twice_or_missed(
    tmp_path: Path, tiny_model: Callable[[int], Path]
) -> None:
    write_archive(tmp_path / "archive")
    config, storage = tmp_path / "config.yaml", StorageSettings(folder=tmp_path / "storage")
    archive = {
        "name": "ris",
        "source": "csv",
        "location": str(tmp_path / "archive"),
        "columns": {"accession_number": "acc", "text": "body"},
        "modality": "MR",
        "options": {"model": str(tiny_model(1)), "workers": 2},
    }
    config.write_text(yaml.safe_dump({"storage": {"folder": str(storage.folder)}, "archives": [archive]}))
    before = 0
    for _ in range(KILLS):
        kill_after(falx(config), storage, before + 1)
        before = progress_of(storage)
        assert before < REPORTS
    last = falx(config, "--json", "-")
    out, err = last.communicate(timeout=600)
    assert last.returncode == 0, err.decode()
    (run,) = json.loads(out)
    counts = run["counts"]
    assert (counts["read"], counts["new"], counts["labelled"]) == (REPORTS, REPORTS, REPORTS)
    check_whole(storage, REPORTS)
    with reading(open_database(storage, "labels")) as connection:
        (one,) = connection.execute(select(label_sets)).all()
    assert (one.state, one.resumed) == ("complete", KILLS)


def check_whole(storage: StorageSettings, expected: int) -> None:
    """One current row a report, one row in the files a row in the index, no file that nobody knows."""
    with reading(open_database(storage, "labels")) as connection:
        assert connection.scalar(select(func.count()).select_from(reports)) == expected
        assert connection.scalar(select(func.count(func.distinct(reports.c.report_id)))) == expected
        listed = {row.path: row.rows for row in connection.execute(select(label_files))}
    on_disk = {
        p.relative_to(storage.folder).as_posix(): p for p in (storage.folder / "labels").rglob("*") if p.is_file()
    }
    assert set(on_disk) == set(listed)
    ids: list[str] = []
    for name, path in on_disk.items():
        found: list[Any] = pq.read_table(path, columns=["report_id"])["report_id"].to_pylist()
        assert len(found) == listed[name]
        ids += found
    assert len(ids) == len(set(ids)) == expected


@pytest.mark.slow
def test_the_same_run_on_ray(tmp_path: Path, tiny_model: Callable[[int], Path], label_engine: LocalEngine) -> None:
    archive = Archive(tmp_path, label_engine)
    rows = [(f"A{i}", report_text(i)) for i in range(300)]
    archive.write("a.csv", rows)
    engine = RayEngine(tiny_model(1), 2)
    try:
        run = archive.run(engine=engine)
        texts = [text for _, text in rows]
        assert engine.label(texts, ["MR"] * 300) == label_engine.label(texts, ["MR"] * 300)
    finally:
        engine.close()
    assert run.counts.new == 300
    assert run.model == label_engine.model_id()
    archive.check_sums()
