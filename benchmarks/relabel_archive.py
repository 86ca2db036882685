"""How fast and in how much memory `falx relabel` labels an archive: the whole command, reading and storing included.

    python -P benchmarks/relabel_archive.py --reports 500000 --json result.json

Writes synthetic reports (every one different) as CSV files into a temporary folder, relabels them in a process of
its own, then runs again with nothing changed, with 1 % of the reports changed, spread over all files (so that every
file is read again), and with 1 % changed in as few files as hold them. ``share`` is the time against the full run.
Memory is the peak of the
resident sizes of the command and its workers together, sampled.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from inference.training.report_corpus import corpus

ROWS_A_FILE = 5000
POOL = 4000  # reports whose sentences are mixed anew; making each from the grammar would take longer than labelling it


def texts(count: int) -> Iterator[str]:
    """Synthetic reports: sentences of a pool of reports in new combinations, with a serial number of their own."""
    rng = random.Random(4)
    pool = [report.text.split(". ") for report in itertools.islice(corpus(POOL, 90_000_000), POOL)]
    for number in range(count):
        first, second = rng.choice(pool), rng.choice(pool)
        cut = rng.randrange(1, max(2, min(len(first), len(second))))
        yield f"Study {number}. " + ". ".join([*first[:cut], *second[cut:]])


def write_archive(folder: Path, count: int) -> list[int]:
    """Write the archive; return the words of each report of a sample."""
    words: list[int] = []
    stream = texts(count)
    for number in range(0, count, ROWS_A_FILE):
        with (folder / f"{number:09}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["acc", "body"])
            for offset, text in enumerate(itertools.islice(stream, ROWS_A_FILE)):
                writer.writerow([f"A{number + offset}", text])
                if offset % 50 == 0:
                    words.append(len(text.split()))
    return words


def change(files: list[Path], every: int) -> int:
    """Change the text of every ``every``-th report of some files; return how many."""
    changed = 0
    for file in files:
        with file.open(newline="", encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
        for row in rows[::every]:
            row[1] += " Reviewed."
            changed += 1
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([header, *rows])
    return changed


def _cpu_seconds() -> float:
    """User and system time of all processes that ended under this one: tells the cost on a machine that is not free."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def relabel(config: Path) -> dict[str, Any]:
    """Run the command; return its counts, seconds and peak memory."""
    began, cpu_before = time.monotonic(), _cpu_seconds()
    command = [
        sys.executable,
        "-m",
        "node.cli",
        "relabel",
        "ris",
        "--now",
        "--no-map",
        "-c",
        str(config),
        "--json",
        "-",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family))
        except psutil.NoSuchProcess:
            pass  # one ended while we counted
        time.sleep(0.5)
    assert process.stdout is not None
    (run,) = json.load(process.stdout)
    seconds, cpu_seconds = time.monotonic() - began, _cpu_seconds() - cpu_before
    read, labelled = run["counts"]["read"], run["counts"]["labelled"]
    return {
        "read": read,
        "labelled": labelled,
        "seconds": round(seconds, 1),
        "per_second": round(labelled / seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_mb": peak // 2**20,
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="", help="folder; default: the shipped model")
    parser.add_argument("--json", default="-")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "archive").mkdir()
        words = write_archive(root / "archive", arguments.reports)
        archive = {
            "name": "ris",
            "source": "csv",
            "location": str(root / "archive"),
            "columns": {"accession_number": "acc", "text": "body"},
            "options": {"workers": arguments.workers} | ({"model": arguments.model} if arguments.model else {}),
        }
        config = root / "config.yaml"
        config.write_text(yaml.safe_dump({"storage": {"folder": str(root / "storage")}, "archives": [archive]}))
        result: dict[str, Any] = {
            "median_words": statistics.median(words),
            "workers": arguments.workers,
            "all": relabel(config),
        }
        result["nothing_changed"] = relabel(config)
        files = sorted((root / "archive").iterdir())
        for name_of_run, chosen, every in (
            ("one_percent_in_all_files", files, 100),
            ("one_percent_in_few_files", files[: max(1, len(files) // 100)], max(1, 100 // len(files))),
        ):
            changed = change(chosen, every)
            again = result[name_of_run] = relabel(config)
            if again["labelled"] != changed:
                raise SystemExit(f"{changed} reports were changed, {again['labelled']} labelled")
            again["share"] = round(again["seconds"] / result["all"]["seconds"], 3)
            again["cpu_share"] = round(again["cpu_seconds"] / result["all"]["cpu_seconds"], 3)
        result["load_average"], result["cores"] = round(os.getloadavg()[0], 1), os.cpu_count()
        store = [path.stat().st_size for path in (root / "storage").rglob("*") if path.is_file()]
        result["store_mb"] = sum(store) // 2**20
    text = json.dumps(result, indent=2)
    print(text) if arguments.json == "-" else Path(arguments.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
