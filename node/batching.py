"""Micro-batches across studies: threads that each follow one study share one engine, which answers what waits together.

Each thread reads, encodes and stores its own study; only the forward passes meet here, so a GPU sees batches and a CPU
is not idle while another study is decoded.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from inference.result import InferenceResult, ModelId
from inference.slice_level import SliceLevels
from inference.volume import Volume

LARGEST = 8
_Request = tuple[str, Volume, Future[InferenceResult]]


class BatchEngine(Protocol):
    """What is asked of the engine behind it (inference.engine.Engine)."""

    def analyse_many(self, requests: Sequence[tuple[str, Volume]]) -> list[InferenceResult]:
        """Answer several requests, in their order."""

    def model_id(self, purpose: str) -> ModelId:
        """Return which weights answer for a purpose."""

    @property
    def slice_level_id(self) -> ModelId:
        """Which weights place slices."""

    def locate(self, volume: Volume) -> SliceLevels:
        """Say where in the head each slice lies; called from many threads."""


class Batcher:
    """An Analyst for many threads; ``close`` ends its own."""

    def __init__(self, engine: BatchEngine) -> None:
        self._engine = engine
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def model_id(self, purpose: str) -> ModelId:
        """Return which weights answer for a purpose."""
        return self._engine.model_id(purpose)

    @property
    def slice_level_id(self) -> ModelId:
        """Which weights place slices."""
        return self._engine.slice_level_id

    def locate(self, volume: Volume) -> SliceLevels:
        """Say where in the head each slice lies, in the caller's thread: a series is a batch of its own."""
        return self._engine.locate(volume)

    def analyse(self, purpose: str, volume: Volume) -> InferenceResult:
        """Return the answer for one volume; what the engine raises for its batch is raised here."""
        answer: Future[InferenceResult] = Future()
        self._waiting.put((purpose, volume, answer))
        return answer.result()

    def close(self) -> None:
        """Answer what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < LARGEST and not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            self._answer(batch)

    def _answer(self, batch: list[_Request]) -> None:
        try:
            results = self._engine.analyse_many([(purpose, volume) for purpose, volume, _ in batch])
        except Exception as error:  # handed to every study of the batch; their worker loop decides
            for _, _, answer in batch:
                answer.set_exception(error)
            return
        for (_, _, answer), result in zip(batch, results, strict=True):
            answer.set_result(result)
