"""Report text -> probabilities of the ten labels, with the sentences that decided.

Knows no archive, no database and no DICOM. Definitions of the labels: ``docs/labels.md``. Importing this module does
not import torch; loading a model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference.report_answer import ReportLabels, Span
from inference.result import ModelId

if TYPE_CHECKING:
    from inference.report_scoring import ReportScorer

__all__ = ["SHIPPED_FOLDER", "ReportLabeller", "ReportLabels", "Span"]

SHIPPED_FOLDER = Path(__file__).parent / "models" / "report_labels"


class ReportLabeller:
    """A loaded report model. One object serves one process; calls are not thread-safe."""

    def __init__(self, scorer: ReportScorer) -> None:
        self._scorer = scorer

    @classmethod
    def load(cls, folder: Path | None = None) -> ReportLabeller:
        """Load a model folder (``model.safetensors`` + ``metadata.json``); None loads the shipped model.

        Raises
        ------
        FileNotFoundError, ValueError
            When a file is missing, or the weights are not those whose hash the metadata holds.
        """
        from inference.report_scoring import load_scorer

        return cls(load_scorer(folder or SHIPPED_FOLDER))

    @property
    def model_id(self) -> ModelId:
        """Name, version and weights' SHA-256 of the loaded model."""
        return self._scorer.model_id

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label reports; ``modalities`` holds "CT", "MR" or "" (unknown) for each. Any string is accepted as a text."""
        if len(texts) != len(modalities):
            raise ValueError(f"{len(texts)} texts but {len(modalities)} modalities: give one for each")
        return self._scorer.label(texts, modalities)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector a report, float32 ``[reports, dimensions]``, unit length, for the embedding map."""
        return self._scorer.embed(texts)
