"""Makes the MR model from nothing: ``python -m inference.training.make_mr``.

Scenes are drawn once into a cache (by seed and generator hash), and training resumes after a kill.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from inference.training.fit_mr import PURPOSE, fit_mr
from inference.training.loop import LoopSettings
from inference.training.mr_cache import fill_cache, generator_hash
from inference.training.records import RunRecord, hash_of_files
from inference.training.train_mr import Source, file_source
from inference.weights import load_weights

STAGES = {"training": range(101_500, 102_100), "validation": range(200_000, 200_200)}
VERSION = "1.2.0"
SLICES = 6  # training looks at runs of neighbouring slices: more different ones a second
REPEATS = 4
WIDTH = 16
SETTINGS = LoopSettings(epochs=3, patience=3, learning_rate=2.5e-3, seed=1)  # 75 minutes of two cores with the CT model


def sources_of(stage: str, seeds: range, folder: Path, processes: int) -> list[Source]:
    """Draw (or find in the cache) the scenes of a stage; the stages share no seed."""

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            print(f"{stage}: {done} of {total} scenes drawn", flush=True)

    found = fill_cache(folder, seeds, processes=processes, progress=progress)
    slices = SLICES if stage == "training" else None
    return [source for seed in found if (source := file_source(folder, seed, slices=slices)) is not None]


def make(
    out: Path,
    cache: Path,
    settings: LoopSettings = SETTINGS,
    *,
    seeds: range = STAGES["training"],
    start: Path | None = None,
    width: int = WIDTH,
    repeats: int = REPEATS,
    processes: int = 2,
) -> None:
    """Draw the cohorts (``seeds``: the training scenes), train, calibrate, and write the model folder.

    ``start``: a model folder whose weights (and width) training starts from; None starts from nothing.
    """
    folder = cache / "mr" / generator_hash()
    stages = {"training": seeds, "validation": STAGES["validation"]}
    sets = {stage: sources_of(stage, numbers, folder, processes) for stage, numbers in stages.items()}
    counts = ", ".join(f"{len(sources)} {stage}" for stage, sources in sets.items())
    parent = load_weights(start)[0].sha256 if start else ""
    counts += f"; on from weights {parent}" if parent else ""
    record = RunRecord(
        purpose=PURPOSE,
        synthetic=True,
        data=f"synthetic heads, contrast drawn anew at each look: {counts}",
        data_sha256=hash_of_files(folder / f"{seed:07d}.npz" for numbers in stages.values() for seed in numbers),
        seed=settings.seed,
        settings={},
    )
    chosen = repr((seeds, parent, width, repeats, settings))  # another choice must not go on from this one's checkpoint
    run = cache / "mr" / f"run-{generator_hash()}-{hashlib.sha256(chosen.encode()).hexdigest()[:12]}"
    fit_mr(
        sets["training"],
        sets["validation"],
        run,
        record=record,
        version=VERSION,
        settings=settings,
        start=start,
        resume=True,
        width=width,
        repeats=repeats,
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
    parser.add_argument("--repeats", type=int, default=REPEATS, help="looks at each scene in an epoch")
    parser.add_argument("--learning-rate", type=float, default=SETTINGS.learning_rate)
    parser.add_argument("--start", type=Path, help="model folder to train on from; its weights stay as they are")
    parser.add_argument("--width", type=int, default=WIDTH, help="channels of the network's finest level")
    parser.add_argument("--first", type=int, default=STAGES["training"].start, help="seed of the first training scene")
    parser.add_argument("--scenes", type=int, default=len(STAGES["training"]))
    parser.add_argument("--seed", type=int, default=SETTINGS.seed)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(max(1, chosen.processes - 1))  # one core draws: sharing it took 0.62 s a step, not 0.35
    settings = replace(
        SETTINGS,
        epochs=chosen.epochs,
        patience=chosen.epochs,
        learning_rate=chosen.learning_rate,
        seed=chosen.seed,
    )
    make(
        chosen.out,
        chosen.cache,
        settings,
        seeds=range(chosen.first, chosen.first + chosen.scenes),
        start=chosen.start,
        width=chosen.width,
        repeats=chosen.repeats,
        processes=chosen.processes,
    )


if __name__ == "__main__":
    main()
