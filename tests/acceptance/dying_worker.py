"""A worker that kills itself once before or after a step of the pipeline; run by test_kill.py as a process of its own.

python dying_worker.py STEP before|after -c config.yaml
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import node.pipeline
from node import log, service
from node.config import load
from node.worker import run_worker

STEPS = ("gather", "answered_before", "analyse_series", "build", "store", "commit")


def dying(step: Callable[..., Any], when: str) -> Callable[..., Any]:
    def run(*args: Any, **named: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        step(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return run


if __name__ == "__main__":
    name, when, _, config = sys.argv[1:5]
    assert name in STEPS
    setattr(node.pipeline, name, dying(getattr(node.pipeline, name), when))
    settings = load(Path(config))
    log.set_up(settings.log, "dying-worker")
    run_worker(settings, service.worker_name("worker-0"), service.stop_on_signals())
