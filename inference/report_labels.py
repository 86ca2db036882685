"""Report text -> probabilities of the ten labels, with the sentences that decided.

Knows no archive, no database and no DICOM. Definitions of the labels: ``docs/labels.md``. Importing this module does
not import torch; loading a model does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference.result import ModelId

if TYPE_CHECKING:
    from inference.report_scoring import ReportScorer

SHIPPED_FOLDER = Path(__file__).parent / "models" / "report_labels"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLabels:
    """What a model says of one report.

    Attributes
    ----------
    probabilities
        Label -> calibrated probability, 0..1. Empty when the text was not usable: falx does not guess.
    labels
        Label -> 1 present, 0 absent, None undecidable (inside the abstention band, or the text was not usable).
        Always holds all ten labels.
    evidence
        Label -> half-open spans, in Unicode code points of the text as given, of the sentences that decided; in order
        of appearance, not overlapping. Empty for a label that is absent.
    flags
        Why the text is unusable (``empty``, ``non_english``, ``non_head``, ``absurd``, ``too_long``), or what was done
        to it (``repaired_encoding``: NUL, control or undecodable characters were read as spaces).
    """

    probabilities: Mapping[str, float]
    labels: Mapping[str, int | None]
    evidence: Mapping[str, tuple[Span, ...]]
    flags: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """True when the model gave an answer."""
        return bool(self.probabilities)


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
