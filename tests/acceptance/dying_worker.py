"""A worker that kills itself before or after a step of the pipeline on one study; test_kill.py runs it as a process.

python dying_worker.py STEP before|after STUDY_INSTANCE_UID -c config.yaml
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping

import node.pipeline
import node.worker
from node import log, service
from node.config import load
from node.worker import run_worker

STEPS = ("gather", "answered_before", "analyse_series", "build", "store", "commit")


def dying(step: Callable[..., Any], when: str) -> Callable[..., Any]:
    def run(*args: Any, **named: Any) -> Any:
        if at_hand == study and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = step(*args, **named)
        if at_hand == study:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return run


def noting(run_task: Callable[..., None]) -> Callable[..., None]:
    def run(task: RowMapping, bench: Any) -> None:
        global at_hand  # noqa: PLW0603  one study at a time in this process
        at_hand = task["study_instance_uid"]
        run_task(task, bench)

    return run


if __name__ == "__main__":
    name, when, study, _, config = sys.argv[1:6]
    at_hand = ""
    assert name in STEPS
    setattr(node.pipeline, name, dying(getattr(node.pipeline, name), when))
    node.worker.run_task = noting(node.pipeline.run_task)
    settings = load(Path(config))
    assert settings.models.studies_at_once == 1
    log.set_up(settings.log, "dying-worker")
    run_worker(settings, service.worker_name("worker-0"), service.stop_on_signals())
