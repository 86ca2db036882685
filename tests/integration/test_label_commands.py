"""`falx relabel` and `falx labels ...` as a person types them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from report_archive import COLUMNS, report_text
from typer.testing import CliRunner

from node.cli import app
from node.errors import Misconfigured, Rejected

pytest_plugins = ("fixtures_reports",)


class Falx:
    """Runs commands with one config.yaml."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        (root / "archive").mkdir()
        archive = {
            "name": "ris",
            "source": "csv",
            "location": str(root / "archive"),
            "columns": COLUMNS,
            "modality": "MR",
            "options": {"model": str(model), "workers": 1},
        }
        self.config.write_text(yaml.safe_dump({"storage": {"folder": str(root / "storage")}, "archives": [archive]}))

    def write(self, rows: list[tuple[str, str]]) -> None:
        with (self.root / "archive" / "a.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("acc", "body"), *rows])

    def __call__(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "-c", str(self.config)])
        structlog.reset_defaults()  # the command's log goes to a stream that ends with it
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        target = self.root / "out.json"
        self(*arguments, "--json", str(target))
        return json.loads(target.read_text())


@pytest.fixture
def falx(tmp_path: Path, tiny_model: Callable[[int], Path]) -> Falx:
    return Falx(tmp_path, tiny_model(1))


def test_from_an_archive_to_a_label_file(falx: Falx) -> None:
    falx.write([(f"A{i}", report_text(i)) for i in range(12)])
    (first,) = falx.json("relabel", "ris", "--now")
    assert first["counts"]["new"] == 12
    assert first["model"]["name"] == "tiny_reports"
    falx.write([(f"A{i}", report_text(i if i else 77)) for i in range(13)] + [("A99", "x" * 50_000)])
    said = falx("relabel", "--now", "--no-map")
    assert "1 new, 1 changed" in said
    assert "RESEARCH USE ONLY" in said
    runs = falx.json("labels", "runs")
    assert [run["state"] for run in runs] == ["complete", "complete"]
    (flag,) = falx.json("labels", "runs", "--flagged", str(runs[0]["set_id"]))
    assert flag["code"] == "too_long"
    said = falx("labels", "correct", "ris", "A3", "mass=1", "hemorrhage=")
    group = said.split()[-1]
    changes = falx.json("labels", "diff", "1", "2")
    assert {change["why"] for change in changes} <= {"new report", "text changed", "correction"}
    assert {change["report_id"] for change in changes} <= {"A0", "A12", "A3"}
    assert report_text(77)[:20] not in falx("labels", "diff", "1", "2"), "texts only when asked for"
    done = falx.json("labels", "export", "ris", "--out", str(falx.root / "labels.csv"))
    assert done["rows"] == 13
    with (falx.root / "labels.csv").open(newline="") as stream:
        rows = {row["accession_number"]: row for row in csv.DictReader(stream)}
    assert (rows["A3"]["mass"], rows["A3"]["intracranial_haemorrhage"]) == ("1", "")
    assert "2 corrections undone" in falx("labels", "undo", group)
    assert "13 reports on the map" in falx("labels", "map", "ris")
    assert falx.json("watch") == []
    assert "no analysed study yet" in falx("watch", "ct_haemorrhage")


def test_when_an_archive_is_due(falx: Falx) -> None:
    falx.write([("A1", report_text(1))])
    said = falx("relabel", "ris")
    assert "last run never" in said
    assert falx.json("labels", "runs") == []


def test_what_cannot_be_done_is_said(falx: Falx) -> None:
    with pytest.raises(Misconfigured, match=r"no archive called 'pacs'; it has: ris"):
        falx("relabel", "pacs", "--now")
    falx.write([("A1", report_text(1))])
    falx("relabel", "ris", "--now", "--no-map")
    for arguments, message in (
        (("labels", "diff", "1", "7"), "no label set 7"),
        (("labels", "correct", "ris", "A1", "mass=maybe"), "label=1"),
        (("labels", "correct", "ris", "A1", "moss=1"), "no such label"),
        (("labels", "correct", "ris", "A7", "mass=1"), "no such report"),
        (("watch", "moss"), "ct_haemorrhage"),
        (("labels", "export", "moss", "--out", str(falx.root / "x.csv")), "'moss' has no labels; there are: ris"),
    ):
        with pytest.raises(Rejected, match=message):
            falx(*arguments)
