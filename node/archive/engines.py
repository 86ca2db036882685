"""Where the report model runs: processes of this machine, or Ray.

Both hand pieces of a batch to workers that hold the model and give the answers back in order.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from inference.report_answer import ReportLabels
from inference.report_labels import ReportLabeller
from inference.result import ModelId
from node.errors import Misconfigured, Transient

PIECE_REPORTS = 64
NICENESS = 10  # relabelling never takes a core from the analysis of a study


class LabelEngine(Protocol):
    """Labels batches of reports."""

    workers: int

    def model_id(self) -> ModelId:
        """Which model labels; raise Misconfigured when its files are missing or not those of their hash."""

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label a batch, in order; raise Transient when a worker died."""

    def close(self) -> None:
        """End the workers."""


@functools.cache
def _labeller(folder: str) -> ReportLabeller:
    return ReportLabeller.load(Path(folder) if folder else None)


def _identify(folder: str) -> ModelId:
    return _labeller(folder).model_id


def _label(folder: str, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
    return _labeller(folder).label(texts, modalities)


def set_up_worker() -> None:
    """One thread a worker; a worker whose parent is killed ends too."""
    os.nice(NICENESS)
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _pieces(texts: Sequence[str], modalities: Sequence[str]) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
    starts = range(0, len(texts), PIECE_REPORTS)
    return [texts[s : s + PIECE_REPORTS] for s in starts], [modalities[s : s + PIECE_REPORTS] for s in starts]


def _wrong_model(folder: Path | None, error: Exception) -> Misconfigured:
    return Misconfigured(f"the report model {folder or '(shipped)'} cannot be used: {error}")


class LocalEngine:
    """Worker processes of this machine, one a core unless told otherwise."""

    def __init__(self, folder: Path | None = None, workers: int = 0) -> None:
        self.folder = folder
        self.workers = workers or os.cpu_count() or 1
        self._pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), set_up_worker)
        self._name = str(folder or "")

    def model_id(self) -> ModelId:
        """Which model labels."""
        try:
            return self._pool.submit(_identify, self._name).result()
        except (FileNotFoundError, ValueError) as error:
            raise _wrong_model(self.folder, error) from None
        except BrokenProcessPool:
            raise Transient("a labelling process died at its start: is there enough memory?") from None

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label a batch, in order."""
        try:
            answers = self._pool.map(functools.partial(_label, self._name), *_pieces(texts, modalities))
            return [labels for piece in answers for labels in piece]
        except BrokenProcessPool:
            raise Transient("a labelling process died (out of memory?); the next run goes on from here") from None

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(cancel_futures=True)


class RayEngine:
    """The same on Ray actors: the cluster of RAY_ADDRESS, or one that is started on this machine."""

    def __init__(self, folder: Path | None = None, workers: int = 0) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError:
            raise Misconfigured("--engine ray needs Ray: pip install 'falx[ray]'") from None
        self._ray = ray
        self.folder = folder
        self._started_here = not ray.is_initialized()
        if self._started_here:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor: Any = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(_RayWorker)
        self._actors = [actor.remote(str(folder or "")) for _ in range(self.workers)]

    def model_id(self) -> ModelId:
        """Which model labels; every worker must hold the same."""
        try:
            found = self._ray.get([actor.model_id.remote() for actor in self._actors])
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FileNotFoundError | ValueError):
                raise _wrong_model(self.folder, error.cause) from None
            raise
        if len(set(found)) != 1:
            raise Misconfigured(f"the hosts of the Ray cluster hold different report models in {self.folder}")
        model: ModelId = found[0]
        return model

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label a batch, in order; Ray restarts a worker that died and repeats its piece."""
        from ray.util import ActorPool

        pool = ActorPool(self._actors)
        try:
            pieces: Any = list(zip(*_pieces(texts, modalities), strict=True))
            return [labels for piece in pool.map(lambda actor, p: actor.label.remote(*p), pieces) for labels in piece]
        except self._ray.exceptions.RayActorError as error:
            raise Transient(f"a labelling worker of the Ray cluster is gone: {type(error).__name__}") from None

    def close(self) -> None:
        """End the workers, and Ray when it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started_here:
            self._ray.shutdown()


class _RayWorker:
    """Holds the model in a process of the cluster."""

    def __init__(self, folder: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.folder = folder

    def model_id(self) -> ModelId:
        return _identify(self.folder)

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        return _label(self.folder, texts, modalities)


def open_engine(name: str, folder: Path | None = None, workers: int = 0) -> LabelEngine:
    """Open ``local`` or ``ray``; raise Misconfigured for another name."""
    if name == "local":
        return LocalEngine(folder, workers)
    if name == "ray":
        return RayEngine(folder, workers)
    raise Misconfigured(f"no engine is called {name!r}: local or ray")
