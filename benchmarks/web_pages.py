"""Server time of the worklist over 10,000 studies (target: 500 ms) and of the next batch of 10,000 slices and five
raters (target: 200 ms), beside the processor's time, which a busy machine does not change.

Run alone: `python benchmarks/web_pages.py --json benchmarks/results/web_pages.json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import statistics
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np
from sqlalchemy import insert
from starlette.testclient import TestClient

from node.config import Settings, parse
from node.store import rankings
from node.store.accounts import Role, add_user
from node.store.database import now, open_database, reading
from node.store.rankings import Arrangement
from node.store.rankings_tables import batches
from node.web.app import create_app
from node.web.ranking_desk import RankingDesk, figures
from node.web.worklist_order import MAX_AGE_S

TESTS = Path(__file__).resolve().parents[1] / "tests"
STUDIES, SLICES, SUBMITTED = 10_000, 10_000, 3_000
RATERS = ("ann", "bob", "cay", "dan", "eve")
PASSWORD = "correct horse battery"

Times = dict[str, float]


def summary(times: list[tuple[float, float]]) -> Times:
    """Median and largest."""
    wall, cpu = zip(*times, strict=True)
    return {
        "median_ms": round(statistics.median(wall), 1),
        "largest_ms": round(max(wall), 1),
        "median_cpu_ms": round(statistics.median(cpu), 1),
        "largest_cpu_ms": round(max(cpu), 1),
    }


def ledger_rows() -> ModuleType:
    """The tests' made-up studies: evidence of 30 slices, three deliveries each."""
    spec = importlib.util.spec_from_file_location("fixtures_ledger", TESTS / "fixtures_ledger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_worklist(settings: Settings, repeats: int) -> dict[str, Times]:
    """The page as it opens: the first time after a start, and later, never from the rows kept for two seconds."""
    ledger_rows().fill(open_database(settings.storage, "ledger"), STUDIES)
    add_user(open_database(settings.storage, "accounts"), "vera", PASSWORD, Role.VIEWER)
    times = []
    with TestClient(create_app(settings), headers={"Accept": "text/html"}) as client:
        client.post("/signin", data={"name": "vera", "password": PASSWORD}, follow_redirects=False)
        for _ in range(repeats + 1):
            answer = client.get("/")
            if f"{STUDIES} studies" not in answer.text:
                raise RuntimeError("the worklist does not show the studies; is sign-in broken?")
            wall, cpu = re.findall(r"dur=(\d+)", answer.headers["server-timing"])
            times.append((float(wall), float(cpu)))
            time.sleep(MAX_AGE_S + 0.1)
    return {"first": summary(times[:1]), "later": summary(times[1:])}


def next_batches(settings: Settings, repeats: int) -> Times:
    """What a rater waits for after a submission: the next batch and the figures beside it."""
    engine = open_database(settings.storage, "rankings")
    _large_project(settings)
    with reading(engine) as connection:
        project = rankings.project_named(connection, "big")
    desk = RankingDesk(engine)
    desk.standing(project)
    times = []
    for turn in range(repeats):
        rater = RATERS[turn % len(RATERS)]
        wall, cpu = time.perf_counter(), time.thread_time()
        batch = desk.batch_for(project, rater, "rank")
        figures(project, desk.standing(project), rater)
        times.append((1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - cpu)))
        if batch is None:
            raise RuntimeError("the desk had no batch left to give")
        with engine.begin() as connection:
            order = Arrangement(order=tuple(sorted(batch["items"])))
            saved = rankings.save(connection, batch["batch_id"], rater, order, now())
            rankings.close_batch(connection, saved, rankings.SUBMITTED, now())
    return summary(times)


def _large_project(settings: Settings) -> None:
    rng, at = np.random.default_rng(0), now()
    project = {"name": "big", "lowest": "low", "highest": "high", "classes": [], "batch_size": 8, "repeat_share": 0.1}
    rule = {"min_views": 3, "min_raters": 2, "max_error": 0.5}
    blank = {"rows": 1, "columns": 1, "aspect": 1.0, "window_centre": 0.0, "window_width": 1.0, "path": "none"}
    blank |= {"source_sop_instance_uid": "1.2", "source_group": "g", "unit": ""}
    with open_database(settings.storage, "rankings").begin() as connection:
        key = rankings.add_project(connection, project | rule, at)
        rankings.add_slices(connection, [blank | {"project_id": key, "item": item} for item in range(SLICES)])
        done = []
        for number in range(SUBMITTED):
            items = sorted(int(item) for item in rng.choice(SLICES, 8, replace=False))
            order = {"order": items, "ties": [], "artefacts": [], "answer": None, "history": []}
            who = {"project_id": key, "rater": RATERS[number % 5], "mode": "rank", "state": rankings.SUBMITTED}
            times = {"seconds": 14.0, "created_at": at, "updated_at": at, "submitted_at": at}
            done.append(who | times | {"items": items, "arrangement": order})
        connection.execute(insert(batches), done)


def main() -> None:
    """Measure and print; write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = parse({"storage": {"folder": folder, "min_free_mb": 0}})
        found = {
            "studies": STUDIES,
            "worklist": open_worklist(settings, given.repeats),
            "slices": SLICES,
            "raters": len(RATERS),
            "submitted_batches": SUBMITTED,
            "next_batch": next_batches(settings, 2 * given.repeats),
            "machine": {"cores": os.cpu_count(), "load_1min": os.getloadavg()[0], "python": platform.python_version()},
        }
    text = json.dumps(found, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
