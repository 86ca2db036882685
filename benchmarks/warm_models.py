"""Seconds a warm model needs for a study: head CT of 32 slices, T2 head MRI of 24 (target: 1 s on two CPU cores).

Volumes are synthetic; the time is that of `Engine.analyse`: mask, input, network, heatmap on the source's grid.
Run alone: `python benchmarks/warm_models.py --json inference.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from inference.engine import Engine, shipped
from inference.training.cohort_ct import draw_ct
from inference.training.cohort_mr import draw_mr
from inference.volume import Volume

WANTED = {"ct_haemorrhage": 32, "mr_abnormality": 24}


def first_slices(volume: Volume, count: int) -> Volume:
    """The upper ``count`` slices of a volume, which hold the brain."""
    keep = slice(max(0, volume.voxels.shape[0] - count), None)
    geometry = volume.geometry
    return replace(
        volume,
        voxels=volume.voxels[keep].copy(),
        geometry=replace(
            geometry,
            shape_zyx=(len(geometry.slices[keep]), *geometry.shape_zyx[1:]),
            slices=geometry.slices[keep],
            positions_mm=geometry.positions_mm[keep],
            affine_lps_mm=geometry.affine_lps_mm.copy(),
        ),
    )


def volumes(purpose: str) -> Volume:
    """A synthetic study of the size asked for."""
    draw = draw_ct if purpose == "ct_haemorrhage" else draw_mr
    for seed in range(50):
        volume, _ = draw(seed, prevalence=1.0)
        if volume.voxels.shape[0] >= WANTED[purpose]:
            return first_slices(volume, WANTED[purpose])
    raise RuntimeError(f"no synthetic study of {WANTED[purpose]} slices in 50 draws")


def measure(purpose: str, threads: int, repeats: int) -> dict[str, object]:
    """Median and range of ``repeats`` warm analyses, the processor's seconds beside the clock's."""
    engine = Engine({purpose: shipped(purpose)}, device="cpu", threads=threads)
    engine.warm_up()
    volume = volumes(purpose)
    engine.analyse(purpose, volume)
    wall, processor = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        result = engine.analyse(purpose, volume)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {
        "slices": int(volume.voxels.shape[0]),
        "pixels": list(volume.voxels.shape[1:]),
        "answered": result.reason is None,
        "median_s": statistics.median(wall),
        "range_s": [min(wall), max(wall)],
        "median_processor_s": statistics.median(processor),
        "repeats": repeats,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both purposes and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=11)
    chosen = parser.parse_args(arguments)
    document: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "threads": chosen.threads,
        "torch": torch.__version__,
    }
    for purpose in WANTED:
        document[purpose] = measure(purpose, chosen.threads, chosen.repeats)
    text = json.dumps(document, indent=2)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
