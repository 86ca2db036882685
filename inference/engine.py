"""The engine: every model of the node loaded, verified and warm, answering by purpose.

A model class (:class:`inference.haemorrhage.HaemorrhageModel`, :class:`inference.abnormality.AbnormalityModel`) has
``load(folder, device, operating_point)``, ``model_id``, ``warm_up()`` and ``analyse(volumes)``; to add a purpose,
write one and name it in ``MODELS``.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, cast

import torch

from inference.result import InferenceResult, ModelId
from inference.slice_level import SliceLevelModel, SliceLevels
from inference.volume import Volume
from inference.weights import WrongModel, read_metadata, shipped

__all__ = ["MODELS", "Engine", "PurposeModel", "choose_device", "shipped"]

MODELS: Mapping[str, str] = {
    "ct_haemorrhage": "inference.haemorrhage:HaemorrhageModel",
    "mr_abnormality": "inference.abnormality:AbnormalityModel",
}


class PurposeModel(Protocol):
    """What the engine asks of a model. ``analyse`` declines a bad image (a result with ``reason``), never raises."""

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, operating_point: str | None) -> Self:
        """Load verified weights onto ``device``; raise WrongModel for a folder that must not be used."""
        ...

    @property
    def model_id(self) -> ModelId:
        """Which weights these are."""
        ...

    def warm_up(self) -> None:
        """Run once on an empty volume, so that the first patient does not pay for lazy initialisation."""
        ...

    def analyse(self, volumes: Sequence[Volume]) -> list[InferenceResult]:
        """Answer for each volume, in order; slices of all volumes may share batches."""
        ...


class Engine:
    """Loaded models by purpose.

    Parameters
    ----------
    folders
        Model folder of each purpose.
    device
        ``cpu``, ``cuda`` or ``auto`` (CUDA when there is one).
    threads
        CPU threads of a forward pass; 0 leaves torch's choice.
    operating_points
        By purpose; a purpose that is absent uses its model's default.

    Raises
    ------
    WrongModel
        (a ValueError) for a folder that is incomplete, damaged, for another purpose, or without the operating point.
    ValueError
        When CUDA is asked for and absent.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        device: str = "auto",
        threads: int = 0,
        operating_points: Mapping[str, str] | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        points = operating_points or {}
        self._models = {
            purpose: _load(purpose, folder, self.device, points.get(purpose)) for purpose, folder in folders.items()
        }
        self._slice_levels = SliceLevelModel.load()

    def model_id(self, purpose: str) -> ModelId:
        """Return which weights answer for a purpose."""
        return self._model(purpose).model_id

    @property
    def slice_level_id(self) -> ModelId:
        """Which weights place slices."""
        return self._slice_levels.model

    def locate(self, volume: Volume) -> SliceLevels:
        """Say where in the head each slice of a volume lies."""
        return self._slice_levels.levels(volume)

    def warm_up(self) -> None:
        """Warm every model."""
        for model in self._models.values():
            model.warm_up()

    def analyse(self, purpose: str, volume: Volume) -> InferenceResult:
        """Return the model's answer for one volume."""
        return self._model(purpose).analyse([volume])[0]

    def analyse_many(self, requests: Sequence[tuple[str, Volume]]) -> list[InferenceResult]:
        """Answer several requests, in their order; volumes of one purpose go through the model together."""
        by_purpose: dict[str, list[int]] = defaultdict(list)
        for index, (purpose, _) in enumerate(requests):
            by_purpose[purpose].append(index)
        answers: dict[int, InferenceResult] = {}
        for purpose, indices in by_purpose.items():
            results = self._model(purpose).analyse([requests[i][1] for i in indices])
            answers.update(zip(indices, results, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _model(self, purpose: str) -> PurposeModel:
        if purpose not in self._models:
            raise ValueError(f"no model is loaded for {purpose!r}; loaded: {', '.join(sorted(self._models)) or 'none'}")
        return self._models[purpose]


def choose_device(device: str) -> torch.device:
    """Return the torch device for ``auto``, ``cpu`` or ``cuda``; raise ValueError when CUDA is wanted and absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda is configured but torch sees no GPU; install the driver or set device: auto")
    return torch.device(device)


def _load(purpose: str, folder: Path, device: torch.device, operating_point: str | None) -> PurposeModel:
    if purpose not in MODELS:
        raise ValueError(f"falx knows no model purpose {purpose!r}; known: {', '.join(sorted(MODELS))}")
    found = read_metadata(folder).purpose
    if found != purpose:
        raise WrongModel(f"the model in {folder} is for {found!r}, not {purpose!r}; configure the right folder")
    module, name = MODELS[purpose].split(":")
    model_class = cast("type[PurposeModel]", getattr(importlib.import_module(module), name))
    return model_class.load(folder, device=device, operating_point=operating_point)
