"""Synthetic head CT and MR reports with labels for the report and for every sentence. No real report is in it.

A report is drawn as facts first (which labels are present, absent, in the past, in doubt), then as sentences, then as a
writer's style. Present and absent labels share the length distribution and the normal sentences, so that neither the
length nor the layout tells the label.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from inference.labels import REPORT_LABELS
from inference.training.report_filling import draw_words, fill, run_together, trim
from inference.training.report_grammar import Grammar
from inference.training.report_layout import Section, lay_out
from inference.training.report_noise import draw_style
from inference.training.report_writing import (
    CONCEPTS,
    Draft,
    Line,
    labels_of,
    stop,
    write_addendum,
    write_history,
    write_negatives,
    write_open_question,
    write_positives,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticReport:
    """A report's text, its modality, its labels (None = left open), and the spans of its sentences with theirs."""

    text: str
    modality: str
    labels: dict[str, int | None]
    lines: list[tuple[int, int, Line]]


def make_report(seed: int) -> SyntheticReport:
    """The report of a seed: the same seed gives the same report."""
    rng = random.Random(seed)  # noqa: S311 (a corpus, no secret)
    stems = list(CONCEPTS)
    count = rng.choices((0, 1, 2, 3, 4), (0.36, 0.3, 0.22, 0.09, 0.03))[0]
    draft = Draft(
        rng=rng,
        grammar=Grammar(rng),
        modality=rng.choice(("CT", "MR")),
        positive=rng.sample(stems, k=count),
        other=rng.random() < (0.17 if count else 0.25),
    )
    if rng.random() < 0.05:
        write_open_question(draft)
    write_history(draft)
    write_positives(draft)
    write_negatives(draft)
    if rng.random() < 0.05:
        write_addendum(draft)
    if not draft.impression or rng.random() < 0.2:
        if not (draft.positive or draft.other or draft.masked or draft.overruled):
            draft.impression.append(Line(stop(draft.grammar.line("neutral", "imp_normal"))))
        elif rng.random() < 0.3 and draft.modality == "CT" and not {"haemorrhage", "stroke"} & set(draft.positive):
            draft.impression.append(Line("No acute intracranial abnormality."))
    words = draw_words(rng)
    fill(draft, words)
    trim(draft, words)
    rng.shuffle(draft.findings)
    draft.findings = run_together(draft.findings, rng)
    return _compose(draft)


def _compose(draft: Draft) -> SyntheticReport:
    sections = [
        Section("history", draft.history),
        Section("technique", draft.technique),
        Section("comparison", draft.comparison),
        Section("findings", draft.findings),
        Section("impression", draft.impression),
        Section("addendum", draft.addendum),
    ]
    text, lines = lay_out(sections, draft.modality, draft.grammar, draw_style(draft.rng))
    labels: dict[str, int | None] = dict.fromkeys(REPORT_LABELS, 0)
    labels.update(dict.fromkeys(draft.masked, None))
    labels.update({label: 1 for stem in draft.positive for label in labels_of(stem)})
    labels.update(draft.overruled)
    if draft.other or any(value == 1 for value in labels.values()):
        labels["abnormal"] = 1
    modality = draft.modality if draft.rng.random() < 0.9 else ""
    return SyntheticReport(text=text, modality=modality, labels=labels, lines=lines)


def corpus(count: int, first_seed: int) -> Iterator[SyntheticReport]:
    """``count`` reports from consecutive seeds."""
    return (make_report(first_seed + index) for index in range(count))
