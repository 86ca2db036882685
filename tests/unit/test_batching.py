"""Threads that share an engine: each gets its own answer, waiting requests go together, faults reach everybody."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from inference.result import InferenceResult, ModelId
from inference.volume import Geometry, SliceSource, Volume
from node.batching import LARGEST, Batcher


def volume(number: int) -> Volume:
    geometry = Geometry(
        shape_zyx=(1, 1, 1),
        affine_lps_mm=np.eye(4),
        frame_of_reference_uid="",
        slices=(SliceSource(sop_instance_uid=f"1.{number}", sop_class_uid="1"),),
        positions_mm=(0.0,),
    )
    return Volume(voxels=np.full((1, 1, 1), number, np.float32), geometry=geometry, modality="CT")


class Recorder:
    """An engine that answers with the volume's value, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()

    def model_id(self, purpose: str) -> ModelId:
        return ModelId(name=purpose, version="1", weights_sha256="0")

    def analyse_many(self, requests: Sequence[tuple[str, Volume]]) -> list[InferenceResult]:
        self.gate.wait(10)
        self.batches.append(len(requests))
        if any(purpose == "broken" for purpose, _ in requests):
            raise RuntimeError("no memory")
        return [
            InferenceResult(
                model=self.model_id(purpose), findings=(), heatmap=None, calibration_id=str(int(v.voxels[0, 0, 0]))
            )
            for purpose, v in requests
        ]


def test_every_thread_gets_its_own_answer_and_waiting_ones_go_together() -> None:
    engine = Recorder()
    batcher = Batcher(engine)
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(batcher.analyse, "a", volume(number)) for number in range(20)]
        engine.gate.set()
        assert [answer.result(10).calibration_id for answer in answers] == [str(n) for n in range(20)]
    batcher.close()
    assert sum(engine.batches) == 20
    assert max(engine.batches) <= LARGEST
    assert len(engine.batches) < 20


def test_a_fault_reaches_whoever_asked_and_the_next_is_answered() -> None:
    engine = Recorder()
    engine.gate.set()
    batcher = Batcher(engine)
    with pytest.raises(RuntimeError, match="no memory"):
        batcher.analyse("broken", volume(1))
    assert batcher.analyse("a", volume(2)).calibration_id == "2"
    batcher.close()
