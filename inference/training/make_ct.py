"""Makes the CT model from nothing: ``python -m inference.training.make_ct``.

Synthetic heads are drawn once into a cache (by seed and generator hash); every stage resumes after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from inference.training.ct_cache import PreparedStudy, fill_cache, generator_hash, load_prepared
from inference.training.fit_ct import PURPOSE, fit_ct
from inference.training.records import RunRecord
from inference.training.train_ct import CtSettings

STAGES = {"image_level": (0, 500), "study_level": (1000, 1140), "validation": (2000, 2220)}
VERSION = "1.2.0"
STEPS = 1_800  # of stage 1: both models in 75 minutes of two cores


def studies_of(stage: str, cache: Path, processes: int) -> list[PreparedStudy]:
    """Draw (or find in the cache) the prepared studies of a stage; the stages share no seed."""
    first, last = STAGES[stage]

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            print(f"{stage}: {done} of {total} heads drawn", flush=True)

    return [
        load_prepared(cache, s) for s in fill_cache(cache, range(first, last), processes=processes, progress=progress)
    ]


def make(out: Path, cache: Path, settings: CtSettings, *, processes: int = 2) -> None:
    """Draw the cohorts, train both stages, calibrate, and write the model folder."""
    folder = cache / "ct" / generator_hash()
    sets = {stage: studies_of(stage, folder, processes) for stage in STAGES}
    counts = ", ".join(f"{len(studies)} {stage}" for stage, studies in sets.items())
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
        resume=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("artefacts/models") / PURPOSE)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(max(1, chosen.processes))
    make(chosen.out, chosen.cache, CtSettings(seed=chosen.seed, steps=chosen.steps), processes=chosen.processes)


if __name__ == "__main__":
    main()
