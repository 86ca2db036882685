"""The worker process: models loaded once, and again when others are deployed; one claimed task after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Connection, RowMapping

from inference.engine import Engine as InferenceEngine
from inference.weights import METADATA, read_metadata
from node import log
from node.batching import Batcher
from node.config import Settings
from node.errors import Misconfigured, Transient
from node.model_folders import model_folder
from node.pipeline import RETRY, Bench, run_task
from node.store import ledger
from node.store.database import now, open_database
from node.study import TaskState

IDLE_S, LOOK_S = 0.2, 2.0
Serving = dict[str, bytes | None]


def model_note(folder: Path) -> str:
    """What every report says of a model: trained on synthetic heads (recalibrated or not), or its own intended use."""
    metadata = read_metadata(folder)
    here = metadata.training.get("recalibration")
    if metadata.training.get("synthetic", True) and here:
        count = here["studies"]
        return f"Model trained on synthetic heads, not on patients; its threshold comes from {count} local studies."
    if metadata.training.get("synthetic", True):
        return "Model trained, and its threshold chosen, on synthetic heads; not on patients."
    return metadata.intended_use


def load_engine(settings: Settings, folders: Mapping[str, Path]) -> InferenceEngine:
    """Load and warm the models; raise Misconfigured when a folder's hash is wrong or the device is absent."""
    models = settings.models
    threads = models.threads or max(1, (os.cpu_count() or 1) // models.workers)
    points = {
        purpose: model.operating_point for purpose, model in settings.models.enabled.items() if model.operating_point
    }
    try:
        engine = InferenceEngine(folders, device=models.device, threads=threads, operating_points=points)
        engine.warm_up()
    except (ValueError, OSError) as error:
        raise Misconfigured(f"models: {error}") from error
    return engine


def open_bench(settings: Settings) -> Bench:
    """Everything a worker needs, models warm."""
    models = settings.models.enabled
    folders = {purpose: model_folder(settings, purpose).resolve() for purpose in models}  # a link may change meanwhile
    shadows = {purpose: model.shadow_folder for purpose, model in models.items() if model.shadow_folder}
    return Bench(
        settings=settings,
        ledger=open_database(settings.storage, "ledger"),
        engine=Batcher(load_engine(settings, folders)),
        notes={purpose: model_note(folder) for purpose, folder in folders.items()},
        shadow_engine=Batcher(load_engine(settings, shadows)) if shadows else None,
    )


def run_worker(settings: Settings, name: str, stop: threading.Event) -> None:
    """Answer tasks until ``stop``; the tasks in hand are finished first. A newly deployed model is taken up between."""
    seen = _what_serves(settings)
    bench = open_bench(settings)
    with bench.ledger.begin() as connection:
        ledger.release_claims(connection, name)  # of a predecessor that was killed
    log.get().info("worker_ready", worker=name)
    while True:
        seen = _answer_until_models_change(bench, name, stop, seen)
        if stop.is_set():
            return
        try:
            renewed = open_bench(settings)
        except Misconfigured as error:  # a bad model must not stop those that serve
            log.get().error("new_model_refused", worker=name, why=str(error))
        else:
            _close(bench)
            bench = renewed
            log.get().info("models_reloaded", worker=name)


def _close(bench: Bench) -> None:
    for engine in (bench.engine, bench.shadow_engine):
        if isinstance(engine, Batcher):
            engine.close()
    bench.ledger.dispose()


def _answer_until_models_change(bench: Bench, name: str, stop: threading.Event, seen: Serving) -> Serving:
    """Answer tasks with ``bench`` until ``stop`` or until other models are to serve; return what serves then."""
    turn = threading.Event()
    hands = [
        threading.Thread(target=_answer_tasks, args=(bench, f"{name}#{number}", turn), name=f"study-{number}")
        for number in range(bench.settings.models.studies_at_once)
    ]
    for hand in hands:
        hand.start()
    try:
        while not stop.wait(LOOK_S):
            if (now_serving := _what_serves(bench.settings)) != seen:
                return now_serving
        return seen
    finally:
        turn.set()
        for hand in hands:
            hand.join()


def _what_serves(settings: Settings) -> Serving:
    """The description, with hash and thresholds, of each model that is to serve; None where it cannot be read."""
    serving: Serving = {}
    for purpose in settings.models.enabled:
        try:
            serving[purpose] = (model_folder(settings, purpose) / METADATA).read_bytes()
        except OSError:
            serving[purpose] = None
    return serving


def _answer_tasks(bench: Bench, name: str, stop: threading.Event) -> None:
    while not stop.is_set():
        with bench.ledger.begin() as connection:
            task = ledger.claim_task(connection, name, now())
        if task is None:
            stop.wait(IDLE_S)
        else:
            answer(task, bench)


def answer(task: RowMapping, bench: Bench) -> None:
    """Run one task; whatever goes wrong becomes a postponed or, after the last attempt, a failed task."""
    try:
        run_task(task, bench)
    except Transient as error:
        log.get().warning("task_postponed", task=task["task_id"], why=str(error))
        with bench.ledger.begin() as connection:  # nothing is wrong with the task: the attempt does not count
            ledger.postpone_task(connection, task["task_id"], now() + RETRY, attempt=task["attempt"] - 1)
            _record(connection, task, "task_postponed", str(error))
    except Exception as error:  # the worker loop: one bad study must not stop the others
        log.get().error("task_failed", task=task["task_id"], error=type(error).__name__, exc_info=True)
        _try_again_or_fail(task, bench, type(error).__name__)


def _try_again_or_fail(task: RowMapping, bench: Bench, what: str) -> None:
    at = now()
    with bench.ledger.begin() as connection:
        if task["attempt"] <= ledger.MAX_ATTEMPTS:
            until = at + RETRY * 2 ** (task["attempt"] - 1)
            ledger.postpone_task(connection, task["task_id"], until, attempt=task["attempt"])
            _record(connection, task, "task_postponed", what)
            return
        text = f"{what}: no result object could be built; see the log, then `falx retry`"  # shown, since none is sent
        values = {"finished_at": at, "reason_code": "worker_failed", "reason_text": text}
        ledger.finish_task(connection, task["task_id"], TaskState.FAILED, values)
        _record(connection, task, "task_failed", what)


def _record(connection: Connection, task: RowMapping, action: str, why: str) -> None:
    detail = f"{task['model']} version {task['version']}: {why}"
    ledger.record(connection, action, task["study_instance_uid"], at=now(), detail=detail)
