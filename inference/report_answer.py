"""What a report model says of one report: a plain value, kept by the label store; knows no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
