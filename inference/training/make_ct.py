"""Makes the CT model from nothing: ``python -m inference.training.make_ct``.

Synthetic heads are drawn once into a cache (by seed and generator hash); every stage resumes after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from inference.training.ct_cache import PreparedStudy, fill_cache, generator_hash, load_prepared
from inference.training.fit_ct import PURPOSE, fit_ct
from inference.training.records import RunRecord
from inference.training.train_ct import CtSettings
from inference.weights import load_weights

STAGES = {"image_level": range(500), "study_level": range(1000, 1140), "validation": range(2000, 2220)}
VERSION = "1.4.0"
STEPS = 1_800  # of stage 1: both models in 75 minutes of two cores


def studies_of(stage: str, seeds: range, cache: Path, processes: int) -> list[PreparedStudy]:
    """Draw (or find in the cache) the prepared studies of a stage; the stages share no seed."""

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            print(f"{stage}: {done} of {total} heads drawn", flush=True)

    return [load_prepared(cache, s) for s in fill_cache(cache, seeds, processes=processes, progress=progress)]


def make(
    out: Path,
    cache: Path,
    settings: CtSettings,
    *,
    stages: Mapping[str, range] = STAGES,
    start: Path | None = None,
    processes: int = 2,
) -> None:
    """Draw the cohorts (seeds in ``stages``), train both stages, calibrate, and write the model folder.

    ``start``: a model folder whose weights training starts from; None starts from nothing.
    """
    folder = cache / "ct" / generator_hash()
    sets = {stage: studies_of(stage, seeds, folder, processes) for stage, seeds in stages.items()}
    counts = ", ".join(f"{len(studies)} {stage}" for stage, studies in sets.items())
    counts += f"; on from weights {load_weights(start)[0].sha256}" if start else ""
    record = RunRecord(
        purpose=PURPOSE,
        synthetic=True,
        data=f"synthetic heads: {counts}",
        data_sha256=generator_hash(),
        seed=settings.seed,
        settings={},
    )
    fit_ct(
        sets["study_level"],
        sets["validation"],
        out,
        image_level=sets["image_level"],
        record=record,
        version=VERSION,
        settings=settings,
        start=start,
        resume=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("artefacts/models") / PURPOSE)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=CtSettings().learning_rate)
    parser.add_argument("--start", type=Path, help="model folder to train on from; its weights stay as they are")
    parser.add_argument("--width", type=int, default=CtSettings().width, help="twice that of --start: it is widened")
    parser.add_argument("--first", type=int, default=STAGES["image_level"].start, help="seed of stage 1's first head")
    parser.add_argument("--heads", type=int, default=len(STAGES["image_level"]), help="of stage 1")
    parser.add_argument(
        "--study-heads", type=int, default=len(STAGES["study_level"]), help="of stage 2; 0: as --start has it"
    )
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(max(1, chosen.processes))
    second = STAGES["study_level"].start
    stages = {
        "image_level": range(chosen.first, chosen.first + chosen.heads),
        "study_level": range(second, second + chosen.study_heads),
        "validation": STAGES["validation"],
    }
    settings = CtSettings(seed=chosen.seed, width=chosen.width, steps=chosen.steps, learning_rate=chosen.learning_rate)
    make(chosen.out, chosen.cache, settings, stages=stages, start=chosen.start, processes=chosen.processes)


if __name__ == "__main__":
    main()
