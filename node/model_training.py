"""`falx train ct|mr`: a folder and a label file in, a model folder out. Patients are split, not studies.

Prepared studies and the checkpoint stay in the output folder, so that a killed run goes on with ``--resume``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.result import Reason
from inference.slice_level import SliceLevelModel
from inference.training.label_file import Labels
from inference.training.mr_local import split_by_patient
from inference.training.records import RunRecord, hash_of_files
from inference.volume import Volume
from inference.weights import Metadata
from node.analysis import read_head
from node.errors import Rejected
from node.local_studies import PURPOSES, LocalStudies, LocalStudy

PARTS = ("training", "validation", "test")
MIN_STUDIES = 6

Keep = Callable[[Volume, Labels, Mapping[str, Labels], Path], Reason | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What `falx train` was asked for. ``start`` None trains from nothing."""

    out: Path
    seed: int
    epochs: int
    start: Path | None
    resume: bool
    version: str
    show_progress: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The prepared studies of each part of the split, and the Study Instance UIDs kept apart for testing."""

    files: Mapping[str, tuple[Path, ...]]
    test_studies: tuple[str, ...]


def prepare(
    local: LocalStudies, modality: str, options: TrainingOptions, on_study: Callable[[], None] = lambda: None
) -> Parts:
    """Prepare every study once and split by patient; studies without a usable head are left out.

    Raises
    ------
    Rejected
        When too few studies remain, or training or validation lacks one of the two classes.
    """
    from inference.training.ct_local import keep_study
    from inference.training.mr_local import keep_sample

    local.need(MIN_STUDIES)
    keep: Keep = keep_study if modality == "ct" else keep_sample
    slice_levels = SliceLevelModel.load()
    kept: list[tuple[LocalStudy, Path]] = []
    for study in local.studies:
        name = hashlib.sha256(study.study_instance_uid.encode()).hexdigest()[:16]
        path = options.out / "prepared" / f"{name}.npz"
        if (options.resume and path.exists()) or _prepare_one(study, path, keep, slice_levels) is None:
            kept.append((study, path))
        on_study()
    if len(kept) < MIN_STUDIES:
        text = f"a brain was found in {len(kept)} of {len(local.studies)} studies; {MIN_STUDIES} are needed"
        raise Rejected("too_few_studies", text)
    label = PURPOSES[modality][1]
    positive = [study.labels[label] == 1 for study, _ in kept]
    parts = split_by_patient([study.patient for study, _ in kept], positive, options.seed)
    files = {
        name: tuple(path for (_, path), part in zip(kept, parts, strict=True) if part == index)
        for index, name in enumerate(PARTS)
    }
    test = tuple(study.study_instance_uid for (study, _), part in zip(kept, parts, strict=True) if part == 2)
    return Parts(files=files, test_studies=test)


def _prepare_one(study: LocalStudy, path: Path, keep: Keep, slice_levels: SliceLevelModel) -> Reason | None:
    """Keep the head of a series, cut out as the node does it; return why there is none."""
    found = read_head(study.files, slice_levels.levels)
    return found if isinstance(found, Reason) else keep(found[1], study.labels, study.slice_labels, path)


def train(parts: Parts, modality: str, purpose: str, options: TrainingOptions) -> Metadata:
    """Train on the prepared parts and write the model folder ``options.out``."""
    everything = [path for files in parts.files.values() for path in files]
    counts = ", ".join(f"{len(files)} {name}" for name, files in parts.files.items())
    record = RunRecord(
        purpose=purpose,
        synthetic=False,
        data=f"local studies, split by patient: {counts}",
        data_sha256=hash_of_files(everything),
        seed=options.seed,
        settings={},
    )
    try:
        return (_train_ct if modality == "ct" else _train_mr)(parts, record, options)
    except ValueError as error:  # one class absent, or nothing to start from
        raise Rejected("cannot_train", f"{counts}: {error}") from error


def _train_mr(parts: Parts, record: RunRecord, options: TrainingOptions) -> Metadata:
    from inference.training.fit_mr import fit_mr
    from inference.training.loop import LoopSettings
    from inference.training.mr_local import local_source, plain_source

    rate = 2e-3 if options.start is None else 5e-4
    return fit_mr(
        [local_source(path) for path in parts.files["training"]],
        [plain_source(path) for path in parts.files["validation"]],
        options.out,
        record=record,
        version=options.version,
        settings=LoopSettings(epochs=options.epochs, learning_rate=rate, seed=options.seed),
        start=options.start,
        resume=options.resume,
        show_progress=options.show_progress,
    )


def _train_ct(parts: Parts, record: RunRecord, options: TrainingOptions) -> Metadata:
    from inference.training.ct_cache import PreparedStudy
    from inference.training.ct_local import load_study
    from inference.training.fit_ct import fit_ct
    from inference.training.train_ct import CtSettings

    def load(files: Sequence[Path]) -> list[PreparedStudy]:
        return [load_study(path) for path in files]

    training = load(parts.files["training"])
    with_slices = [study for study in training if (study.slice_labels[:, 0] >= 0).any()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return fit_ct(
        training,
        load(parts.files["validation"]),
        options.out,
        record=record,
        version=options.version,
        image_level=with_slices,
        settings=CtSettings(seed=options.seed, epochs=options.epochs, steps=60 * options.epochs, device=device),
        start=options.start,
        resume=options.resume,
        show_progress=options.show_progress,
    )
