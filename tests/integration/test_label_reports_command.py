"""`falx label-reports` on good and bad files: every row accounted for, in order; formats; errors come first."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars
import pytest
from typer.testing import CliRunner

from inference.labels import REPORT_LABELS
from inference.report_labels import SHIPPED_FOLDER
from node.cli import app
from node.errors import Misconfigured

DEV_SET = Path(__file__).parents[1] / "data" / "report_dev_set.jsonl"
GOOD = "MRI brain. There is an acute infarct in the left frontal lobe. No haemorrhage."


def falx(*arguments: object) -> str:
    """Run in this process (a start of torch a call is slow); return standard output."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception:
        raise result.exception
    return result.stdout


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_contract_on_the_development_set(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code = "import sys; from node.cli import main; sys.argv[0] = 'falx'; main()"
    command = [sys.executable, "-c", code, "label-reports", str(DEV_SET), "--out", str(out), "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    given = rows_of(DEV_SET)
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [row["id"] for row in given]
    assert json.loads(done.stdout)["rows"] == json.loads(done.stdout)["labelled"] == len(given)
    sha256 = json.loads((SHIPPED_FOLDER / "metadata.json").read_text())["sha256"]
    for row, source in zip(rows, given, strict=True):
        assert set(row) == {"id", "probabilities", "labels", "evidence", "flags", "model"}
        assert set(row["probabilities"]) == set(row["labels"]) == set(row["evidence"]) == set(REPORT_LABELS)
        assert row["model"]["sha256"] == sha256
        for label, value in row["labels"].items():
            assert value in (1, 0, None)
            assert value == 0 or row["evidence"][label]
            for start, end in row["evidence"][label]:
                assert source["text"][start:end].strip()


def test_bad_rows_are_flagged_and_the_run_goes_on(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        json.dumps({"id": 1, "text": GOOD, "modality": "MR"}).encode(),
        b"this is no json",
        json.dumps({"id": "no-text"}).encode(),
        json.dumps({"id": "number", "text": 7, "modality": "CT"}).encode(),
        json.dumps({"id": "empty", "text": "", "modality": "CT"}).encode(),
        json.dumps({"id": "nul", "text": GOOD.replace(" ", "\x00", 2), "modality": None}).encode(),
        ('{"id": "latin", "modality": "MR", "text": "' + GOOD + ' Lésion."}').encode("latin-1"),
        json.dumps(
            {"id": "german", "text": "Keine Blutung, kein Infarkt, das Ventrikelsystem ist nicht erweitert."}
        ).encode(),
        json.dumps({"id": "chest", "text": "CT chest: no pleural effusion, lungs clear, heart normal."}).encode(),
        json.dumps({"id": "huge", "text": "No mass. " * 1_200_000, "modality": "CT"}).encode(),
        json.dumps({"id": "surrogate \ud800", "text": GOOD + " \ud800"}).encode(),
        b"",
        b"[1, 2, 3]",
        json.dumps({"id": 1, "text": GOOD, "modality": "MRI"}).encode(),
    ]
    source.write_bytes(b"\n".join(lines))
    falx("label-reports", source, "--out", out, "--processes", 1, "--json", tmp_path / "sum.json")
    rows = rows_of(out)
    flags = [row["flags"] for row in rows]
    assert flags == [
        [],
        ["unreadable_row", "not_json"],
        ["unreadable_row", "text_missing"],
        ["unreadable_row", "text_is_no_string"],
        ["empty"],
        ["repaired_encoding"],
        ["repaired_encoding"],
        ["non_english"],
        ["non_head"],
        ["too_long"],
        ["repaired_encoding"],
        ["unreadable_row", "not_json"],
        [],
    ]
    for row in rows:
        told = not row["flags"] or row["flags"] == ["repaired_encoding"]
        assert bool(row["probabilities"]) == told
        assert row["labels"]["acute_stroke"] == (1 if told else None)
    summary = json.loads((tmp_path / "sum.json").read_text())
    assert summary["rows"] == 13 == summary["labelled"] + summary["declined"] + summary["unreadable"]
    assert rows[0]["probabilities"] == pytest.approx(rows[-1]["probabilities"], abs=1e-4)


def test_two_processes_say_what_one_says_in_the_same_order(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(
        "\n".join(json.dumps({**row, "id": f"{row['id']}-{n}"}) for n in range(4) for row in rows_of(DEV_SET))
    )
    outputs = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.jsonl"
        falx("label-reports", source, "--out", out, "--processes", processes)
        outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1]


def test_csv_and_parquet_give_the_same_as_jsonl(tmp_path: Path) -> None:
    rows = [{"id": row["id"], "text": row["text"], "modality": row["modality"]} for row in rows_of(DEV_SET)[:12]]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["modality", "id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    polars.DataFrame(rows).write_parquet(tmp_path / "in.parquet")
    outputs = set()
    for suffix in ("jsonl", "csv", "parquet"):
        out = tmp_path / f"{suffix}.out"
        falx("label-reports", tmp_path / f"in.{suffix}", "--out", out, "--processes", 1)
        outputs.add(out.read_bytes())
    assert len(outputs) == 1


def test_a_utf16_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "text": GOOD}), encoding="utf-16")
    out = tmp_path / "out.jsonl"
    falx("label-reports", tmp_path / "in.jsonl", "--out", out, "--processes", 1)
    assert rows_of(out)[0]["labels"]["acute_stroke"] == 1


def test_errors_come_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("accession,report\n1,x\n")
    out = tmp_path / "out.jsonl"
    with pytest.raises(Misconfigured, match="lacks the column id and text"):
        falx("label-reports", tmp_path / "in.csv", "--out", out)
    with pytest.raises(Misconfigured, match="no such file"):
        falx("label-reports", tmp_path / "absent.jsonl", "--out", out)
    changed = tmp_path / "model"
    shutil.copytree(SHIPPED_FOLDER, changed)
    (changed / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(Misconfigured, match="SHA-256"):
        falx("label-reports", DEV_SET, "--out", out, "--model", changed)
    assert not out.exists()
