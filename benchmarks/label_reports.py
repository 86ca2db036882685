"""How fast `falx label-reports` is: the whole command, with its start, its reading and its writing.

    python benchmarks/label_reports.py --reports 20000 --json benchmarks/results/label_reports.json

The reports are put together here from sentences of the training corpus: a median of 140 words, at least 80 % of the
sentences unique (both are measured and reported). Memory is the largest sum of the resident sets of the processes.
RESEARCH USE ONLY.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from inference.report_text import sentence_spans
from inference.training.report_corpus import make_report

WANTED_PER_SECOND = 675
POOL_REPORTS = 4000


def sentence_pool() -> list[str]:
    """The sentences of synthetic reports: making each report anew would take longer than labelling it."""
    pool: list[str] = []
    for seed in range(POOL_REPORTS):
        text = make_report(2_000_000_000 + seed).text
        pool.extend(text[start:end].replace("\n", " ") for start, end in sentence_spans(text))
    return pool


def make_text(pool: list[str], rng: random.Random) -> str:
    """Sentences of the pool up to a length drawn around 140 words; an image number makes most of them unique."""
    words = int(min(400, max(30, rng.lognormvariate(4.89, 0.45))))
    sentences: list[str] = []
    while words > 0:
        sentence = rng.choice(pool)
        if rng.random() < 0.85:
            sentence = f"{sentence.rstrip('.')} (series {rng.randint(2, 40)} image {rng.randint(1, 400)})."
        sentences.append(sentence)
        words -= len(sentence.split())
    return rng.choice((" ", " ", "\n")).join(sentences)


def write_reports(path: Path, count: int) -> dict[str, float]:
    """Write the file; return its median words and its share of unique sentences (over the first 20,000 reports)."""
    lengths: list[int] = []
    sentences: list[str] = []
    pool, rng = sentence_pool(), random.Random(7)
    with path.open("w", encoding="utf-8") as file:
        for seed in range(count):
            text = make_text(pool, rng)
            if seed < 20_000:
                lengths.append(len(text.split()))
                sentences.extend(text[a:b] for a, b in sentence_spans(text))
            file.write(json.dumps({"id": f"r{seed}", "text": text, "modality": "MR" if seed % 2 else "CT"}) + "\n")
    return {
        "median_words": statistics.median(lengths),
        "unique_sentence_share": round(len(set(sentences)) / len(sentences), 3),
        "sentences_per_report": round(len(sentences) / len(lengths), 1),
    }


def run(source: Path, out: Path, processes: int, model: Path | None) -> tuple[float, float, float]:
    """Seconds, CPU seconds (children included) and peak MB of one run of the command."""
    code = "import sys; sys.argv = ['falx', *sys.argv[1:]]; from node.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "label-reports",
        str(source),
        "--out",
        str(out),
        "--processes",
        str(processes),
        *(["--model", str(model)] if model else []),
    ]
    before = os.times()
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    peak = 0.0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family) / 2**20)
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    after = os.times()
    if process.returncode:
        raise SystemExit(f"the command failed with exit status {process.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu, peak


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", type=Path, help="model folder; default: the shipped one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--reports-file", type=Path, help="keep the reports here, or take those that are there")
    parser.add_argument("--make-only", action="store_true", help="write the reports, measure nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, out = options.reports_file or Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        described = source.with_suffix(".corpus.json")
        if not source.exists():
            described.write_text(json.dumps(write_reports(source, options.reports)), encoding="utf-8")
        corpus = json.loads(described.read_text(encoding="utf-8"))
        if options.make_only:
            return
        seconds, cpu, peak = run(source, out, options.processes, options.model)
        with out.open("rb") as file:
            rows = sum(1 for _ in file)
    result = {
        "reports": rows,
        **corpus,
        "processes": options.processes,
        "seconds": round(seconds, 2),
        "reports_per_second": round(rows / seconds, 1),
        "cpu_seconds": round(cpu, 2),
        "reports_per_cpu_second_x2": round(2 * rows / cpu, 1),
        "peak_rss_mb": round(peak),
        "wanted_per_second": WANTED_PER_SECOND,
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
