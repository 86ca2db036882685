"""`falx rank new --received`, `status` and `export`, by the command line over a node's own databases."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import fixtures_head as heads
import pytest
import yaml
from click.testing import Result
from sqlalchemy import Engine, insert
from typer.testing import CliRunner

from node.cli import app
from node.config import load
from node.errors import Misconfigured, Rejected
from node.store import rankings
from node.store.database import now, open_database, reading
from node.store.ledger_tables import instances, series, studies
from node.store.rankings import Arrangement

SLICES = 24


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose ledger knows one received head, and a series that is not for analysis."""
    storage = tmp_path / "falx"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"storage": {"folder": str(storage), "min_free_mb": 0}}), encoding="utf-8")
    files = heads.write_head(storage / "spool", "1.2.3.4", name="Secret^Name", patient_id="SECRET1", slices=SLICES)
    at = now()
    times = {"first_received_at": at, "last_received_at": at}
    with open_database(load(path).storage, "ledger").begin() as connection:
        connection.execute(insert(studies), {"study_instance_uid": "1.2.3.4", **times})
        for uid, wanted in (("1.2.3.4.1", True), ("1.2.3.4.2", False)):
            row = {"series_instance_uid": uid, "study_instance_uid": "1.2.3.4", "state": "complete", **times}
            connection.execute(insert(series), row | {"for_analysis": wanted})
        for z, file in enumerate(files):
            of = "1.2.3.4.1" if z else "1.2.3.4.2"  # the lowest slice lies in the series that is not for analysis
            row = {"sop_instance_uid": f"1.2.3.4.1.{z + 1}", "series_instance_uid": of, "study_instance_uid": "1.2.3.4"}
            stored = {"path": str(file.relative_to(storage)), "sha256": "0" * 64, "header": {}, "intake_seq": z + 1}
            connection.execute(insert(instances), row | stored | {"received_at": at})
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rank", *arguments])


def made(config: Path) -> Engine:
    """The project ``levels`` from what was received."""
    done = run(
        "new", "--name", "levels", "--axis", "neck -> vertex", "--classes", "low,high", "--received", "-c", str(config)
    )
    assert done.exit_code == 0, done.output
    return open_database(load(config).storage, "rankings")


def rank_all(engine: Engine) -> None:
    """Two raters order everything rightly, three times over, by overlapping batches."""
    with reading(engine) as connection:
        rows = rankings.slices_of(connection, 1)
    by_level = [row["item"] for row in sorted(rows, key=lambda row: _level(row["source_sop_instance_uid"]))]
    for turn in range(12):
        batch = by_level[turn % 3 :: 3][:8] if turn % 2 else by_level[turn : turn + 8]
        with engine.begin() as connection:
            rater = ("ann", "bob")[turn % 2]
            row = rankings.add_batch(connection, 1, rater, "rank", batch, now(), None)
            saved = rankings.save(connection, row["batch_id"], rater, Arrangement(order=tuple(batch)), now())
            rankings.close_batch(connection, saved, rankings.SUBMITTED, now())


def _level(uid: str) -> int:
    return int(uid.rsplit(".", 1)[1])


def test_a_project_is_made_of_what_was_received_for_analysis(config: Path, tmp_path: Path) -> None:
    engine = made(config)
    with reading(engine) as connection:
        project = rankings.project_named(connection, "levels")
        rows = rankings.slices_of(connection, project["project_id"])
    assert (project["lowest"], project["highest"], project["classes"]) == ("neck", "vertex", ["low", "high"])
    assert len(rows) == SLICES - 1
    assert "1.2.3.4.1.1" not in {row["source_sop_instance_uid"] for row in rows}
    kept = [path for path in (tmp_path / "falx").rglob("*") if path.is_file() and "spool" not in path.parts]
    assert not any(b"SECRET1" in path.read_bytes() for path in kept if "ranking" in str(path))


def test_one_source_must_be_named(config: Path, tmp_path: Path) -> None:
    both = run("new", "--name", "a", "--axis", "a -> b", "--received", "--studies", str(tmp_path), "-c", str(config))
    neither = run("new", "--name", "a", "--axis", "a -> b", "-c", str(config))
    for answer in (both, neither):
        assert isinstance(answer.exception, Misconfigured)
        assert "--studies DIR or --received" in str(answer.exception)
    no_arrow = run("new", "--name", "a", "--axis", "neck vertex", "--received", "-c", str(config))
    assert "--axis" in str(no_arrow.exception)


def test_status_tells_progress_weights_and_agreement(config: Path) -> None:
    engine = made(config)
    empty = json.loads(run("status", "levels", "-c", str(config)).stdout)
    assert (empty["slices"], empty["views_done"], empty["enough"]) == (SLICES - 1, 0, False)
    rank_all(engine)
    said = json.loads(run("status", "levels", "-c", str(config)).stdout)
    assert said["views_done"] > 0.5 * said["views_needed"]
    assert set(said["rater_weights"]) == {"ann", "bob"}
    assert said["connected"] is True
    assert said["agreement"]["tau_with_scale"] > 0.9
    assert said["agreement"]["kappa_cuts"] is None
    with engine.begin() as connection:
        for rater, score in (("ann", 0.0), ("bob", 0.1)):
            rankings.set_cut(connection, 1, rater, 0, score, now())
    after = json.loads(run("status", "levels", "-c", str(config)).stdout)
    assert after["agreement"]["kappa_cuts"] > 0.8
    unknown = run("status", "nothing", "-c", str(config))
    assert isinstance(unknown.exception, Rejected)
    assert "nothing" in str(unknown.exception)


def test_export_joins_the_newest_labels_to_their_instances(config: Path, tmp_path: Path) -> None:
    engine = made(config)
    early = run("export", "levels", "--out", str(tmp_path / "none.csv"), "-c", str(config))
    assert isinstance(early.exception, Rejected)
    assert "cut-points" in str(early.exception)
    with engine.begin() as connection:
        rows = rankings.slices_of(connection, 1)
        for version in (0, 1):  # the second set turns the classes round
            labels = [
                {
                    "item": row["item"],
                    "score": _level(row["source_sop_instance_uid"]) / 10,
                    "error": 0.1,
                    "class_index": int((_level(row["source_sop_instance_uid"]) > 12) != bool(version)),
                    "uncertain": _level(row["source_sop_instance_uid"]) in (12, 13),
                }
                for row in rows
            ]
            newest = rankings.add_label_set(connection, 1, {"cuts": [1.2]}, labels, "ann", now())
    out = tmp_path / "labels.csv"
    done = run("export", "levels", "--out", str(out), "-c", str(config))
    assert done.exit_code == 0, done.output
    with out.open(newline="", encoding="utf-8") as file:
        found = {row["sop_instance_uid"]: row for row in csv.DictReader(file)}
    assert set(found) == {row["source_sop_instance_uid"] for row in rows}
    assert found["1.2.3.4.1.20"]["class"] == "low"
    assert found["1.2.3.4.1.5"]["class"] == "high"
    assert found["1.2.3.4.1.12"]["uncertain"] == "1"
    assert float(found["1.2.3.4.1.20"]["score"]) == pytest.approx(2.0)
    assert {row["label_set"] for row in found.values()} == {str(newest)}
