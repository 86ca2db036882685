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
from inference.report_labels import SHIPPED_FOLDER, ReportLabeller
from inference.result import ModelId
from inference.weights import WrongModel, verify
from node.errors import Misconfigured, Transient

PIECE_REPORTS = 64


class LabelEngine(Protocol):
    """Labels batches of reports; opening one raises Misconfigured for a model whose files do not fit its hash."""

    workers: int

    def model_id(self) -> ModelId:
        """Which model labels."""

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label a batch, in order; raise Transient when a worker died, Misconfigured when its model is another."""

    def close(self) -> None:
        """End the workers."""


def verified(folder: Path) -> ModelId:
    """The identity of a model folder, read without loading the model.

    Raises
    ------
    Misconfigured
        When its files are missing or the weights are not those of the hash.
    """
    try:
        return verify(folder).model_id
    except WrongModel as error:
        raise Misconfigured(f"the report model cannot be used: {error}") from None


@functools.cache
def _labeller(folder: str, sha256: str) -> ReportLabeller:
    labeller = ReportLabeller.load(Path(folder))
    if labeller.model_id.weights_sha256 != sha256:
        raise WrongModel(f"{folder} holds another model than the run began with")
    return labeller


def _label(folder: str, sha256: str, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
    return _labeller(folder, sha256).label(texts, modalities)


def set_up_worker(niceness: int = 0) -> None:
    """One thread a worker; a worker whose parent is killed ends too."""
    os.nice(niceness)
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


class LocalEngine:
    """Worker processes of this machine, one a core unless told otherwise; started when there is something to label."""

    def __init__(self, folder: Path | None = None, workers: int = 0, niceness: int = 0) -> None:
        self.folder = folder or SHIPPED_FOLDER
        self._model = verified(self.folder)
        self.workers = workers or os.cpu_count() or 1
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self.workers, spawn, set_up_worker, (niceness,))

    def model_id(self) -> ModelId:
        """Which model labels."""
        return self._model

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label a batch, in order."""
        work = functools.partial(_label, str(self.folder), self.model_id().weights_sha256)
        try:
            return [labels for piece in self._pool.map(work, *_pieces(texts, modalities)) for labels in piece]
        except WrongModel as error:
            raise Misconfigured(str(error)) from None
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
        self.folder = folder or SHIPPED_FOLDER
        self._model = verified(self.folder)
        self._started_here = not ray.is_initialized()
        if self._started_here:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor: Any = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(_RayWorker)
        self._actors = [actor.remote() for _ in range(self.workers)]

    def model_id(self) -> ModelId:
        """Which model labels."""
        return self._model

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label a batch, in order; Ray restarts a worker that died and repeats its piece."""
        from ray.util import ActorPool

        model = (str(self.folder), self.model_id().weights_sha256)
        pieces: Any = list(zip(*_pieces(texts, modalities), strict=True))
        try:
            answers = ActorPool(self._actors).map(lambda actor, piece: actor.label.remote(*model, *piece), pieces)
            return [labels for piece in answers for labels in piece]
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, WrongModel):  # a host of the cluster holds none, or another one
                raise Misconfigured(str(error.cause)) from None
            raise
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

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)

    def label(self, folder: str, sha256: str, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        return _label(folder, sha256, texts, modalities)


def open_engine(name: str, folder: Path | None = None, workers: int = 0, niceness: int = 0) -> LabelEngine:
    """Open ``local`` or ``ray``; raise Misconfigured for another name."""
    if name == "local":
        return LocalEngine(folder, workers, niceness)
    if name == "ray":
        return RayEngine(folder, workers)
    raise Misconfigured(f"no engine is called {name!r}: local or ray")
