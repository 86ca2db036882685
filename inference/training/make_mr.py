"""Makes the MR model from nothing: ``python -m inference.training.make_mr``.

Scenes are drawn once into a cache (by seed and generator hash), and training resumes after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from inference.training.fit_mr import PURPOSE, fit_mr
from inference.training.loop import LoopSettings
from inference.training.mr_cache import fill_cache, generator_hash
from inference.training.records import RunRecord, hash_of_files
from inference.training.train_mr import Source, file_source

STAGES = {"training": (101_500, 102_100), "validation": (200_000, 200_200)}
VERSION = "1.1.0"
SLICES = 6  # training looks at runs of neighbouring slices: more different ones a second
REPEATS = 4
SETTINGS = LoopSettings(epochs=3, patience=3, learning_rate=2.5e-3, seed=1)  # 75 minutes of two cores with the CT model


def sources_of(stage: str, folder: Path, processes: int) -> list[Source]:
    """Draw (or find in the cache) the scenes of a stage; the stages share no seed."""

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            print(f"{stage}: {done} of {total} scenes drawn", flush=True)

    seeds = fill_cache(folder, range(*STAGES[stage]), processes=processes, progress=progress)
    slices = SLICES if stage == "training" else None
    return [source for seed in seeds if (source := file_source(folder, seed, slices=slices)) is not None]


def make(out: Path, cache: Path, settings: LoopSettings = SETTINGS, *, processes: int = 2) -> None:
    """Draw the cohorts, train, calibrate, and write the model folder."""
    folder = cache / "mr" / generator_hash()
    sets = {stage: sources_of(stage, folder, processes) for stage in STAGES}
    counts = ", ".join(f"{len(sources)} {stage}" for stage, sources in sets.items())
    record = RunRecord(
        purpose=PURPOSE,
        synthetic=True,
        data=f"synthetic heads, contrast drawn anew at each look: {counts}",
        data_sha256=hash_of_files(folder.glob("*.npz")),
        seed=settings.seed,
        settings={},
    )
    run = cache / "mr" / f"run-{generator_hash()}-{settings.seed}"
    fit_mr(
        sets["training"],
        sets["validation"],
        run,
        record=record,
        version=VERSION,
        settings=settings,
        resume=True,
        repeats=REPEATS,
        loaders=1,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "run.json", "curves.png", "metadata.json"):
        (out / name).write_bytes((run / name).read_bytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("artefacts/models") / PURPOSE)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--epochs", type=int, default=SETTINGS.epochs)
    parser.add_argument("--seed", type=int, default=SETTINGS.seed)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(max(1, chosen.processes - 1))  # one core draws: sharing it took 0.62 s a step, not 0.35
    settings = replace(SETTINGS, epochs=chosen.epochs, patience=chosen.epochs, seed=chosen.seed)
    make(chosen.out, chosen.cache, settings, processes=chosen.processes)


if __name__ == "__main__":
    main()
