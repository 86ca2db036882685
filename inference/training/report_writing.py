"""The sentences of a synthetic report that carry its facts: asserted, denied, doubted, past, asked for, overruled."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from inference.training.report_grammar import Grammar, phrases

CONCEPTS: dict[str, str] = {
    "haemorrhage": "intracranial_haemorrhage",
    "stroke": "acute_stroke",
    "mass": "mass",
    "vascular": "vascular",
    "hydrocephalus": "hydrocephalus",
    "atrophy": "atrophy",
    "small_vessel": "small_vessel_disease",
    "inflammation": "white_matter_inflammation",
    "encephalomalacia": "encephalomalacia",
}
"""Phrase file -> label."""

_OTHER_ABNORMAL = [(stem, line) for stem in CONCEPTS for line in phrases()[stem].get("notA", ())] + [
    ("", line) for line in phrases()["plain"]["other_abnormal"]
]
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence: what it says is present, and what it leaves open (masked in training)."""

    text: str
    present: frozenset[str] = _NOTHING
    masked: frozenset[str] = _NOTHING


@dataclass(slots=True)
class Draft:
    rng: random.Random
    grammar: Grammar
    modality: str
    positive: list[str]
    other: bool
    masked: set[str] = field(default_factory=set)
    overruled: dict[str, int] = field(default_factory=dict)
    history: list[Line] = field(default_factory=list)
    technique: list[Line] = field(default_factory=list)
    comparison: list[Line] = field(default_factory=list)
    findings: list[Line] = field(default_factory=list)
    impression: list[Line] = field(default_factory=list)
    addendum: list[Line] = field(default_factory=list)

    @property
    def negative(self) -> list[str]:
        return [stem for stem in CONCEPTS if stem not in self.positive and CONCEPTS[stem] not in self.masked]


def labels_of(stem: str) -> frozenset[str]:
    return frozenset((CONCEPTS[stem], "abnormal"))


def heads(draft: Draft, stems: list[str]) -> str:
    heads = [draft.grammar.line(stem, "neg") for stem in stems]
    if len(heads) == 1:
        return heads[0]
    joiner = draft.rng.choice((", ", ", ", " or ", ", or ", " and ", " nor ", ", nor ", "/", ", no ", " or of "))
    last = draft.rng.choice((" or ", " and ", ", or ", ", ", " nor ", " or "))
    return joiner.join(heads[:-1]) + last + heads[-1]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def stop(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


def affirm(draft: Draft, stem: str) -> Line:
    rng, grammar = draft.rng, draft.grammar
    kind = rng.random()
    if kind < 0.52:
        text = grammar.line(stem, "say")
    else:
        noun = grammar.line(stem, "np")
        if kind > 0.96 and draft.negative:
            rival = grammar.line(rng.choice(draft.negative), "np")
            text = grammar.line("frames", "prefer", x=noun, y=rival)
        elif kind < 0.84 or not draft.negative:
            text = grammar.line("frames", "affirm", x=noun)
        else:
            stems = rng.sample(draft.negative, k=min(len(draft.negative), rng.choice((1, 1, 2, 3))))
            text = grammar.line("frames", "other_than", x=noun, xs=heads(draft, stems))
    return Line(stop(capital(text)), labels_of(stem))


def deny(draft: Draft, stems: list[str]) -> Line:
    return Line(stop(capital(draft.grammar.line("frames", "deny", xs=heads(draft, stems)))))


def write_positives(draft: Draft) -> None:
    rng, grammar = draft.rng, draft.grammar
    for stem in draft.positive:
        where = rng.random()
        if where > 0.1:
            for _ in range(1 if rng.random() < 0.75 else 2):
                draft.findings.append(affirm(draft, stem))
            more = phrases()[stem].get("more")
            if more and rng.random() < 0.4:
                draft.findings.append(Line(stop(grammar.line(stem, "more")), frozenset(("abnormal",)), labels_of(stem)))
            if rng.random() < 0.2:
                new = rng.choice(("new", "other", "further", "additional", "fresh", "second", "recent"))
                draft.findings.append(Line(f"No {new} {grammar.line(stem, 'neg')}."))
        if where < 0.1 or rng.random() < 0.5:
            line = Line(stop(grammar.line(stem, "imp")), labels_of(stem)) if rng.random() < 0.6 else affirm(draft, stem)
            draft.impression.append(line)
    if draft.other:
        stem, template = rng.choice(_OTHER_ABNORMAL)
        if CONCEPTS.get(stem) not in draft.masked:
            draft.findings.insert(0, Line(stop(grammar.expand(template)), frozenset(("abnormal",))))


def write_negatives(draft: Draft) -> None:
    rng, grammar = draft.rng, draft.grammar
    denied = [stem for stem in draft.negative if rng.random() < 0.5]
    rng.shuffle(denied)
    while denied:
        count = min(len(denied), rng.choice((1, 1, 1, 2, 2, 3, 4)))
        draft.findings.append(deny(draft, denied[:count]))
        denied = denied[count:]
    for stem in draft.negative:
        if rng.random() < 0.3:
            draft.findings.append(Line(stop(capital(grammar.line(stem, "not0")))))
        if rng.random() < 0.035:
            section = rng.choice(("doubt", "doubt", "past"))
            draft.findings.append(Line(stop(capital(grammar.line("frames", section, xs=grammar.line(stem, "neg"))))))
        if rng.random() < 0.015:
            draft.findings.append(Line(stop(capital(grammar.line("frames", "earlier", x=grammar.line(stem, "np"))))))


def write_open_question(draft: Draft) -> None:
    """A finding that is merely possible: its label, and `abnormal`, are left open."""
    stem = draft.rng.choice(draft.negative)
    text = draft.grammar.line("frames", "maybe", x=draft.grammar.line(stem, "np"))
    draft.masked |= labels_of(stem) if not (draft.positive or draft.other) else {CONCEPTS[stem]}
    draft.findings.append(Line(stop(capital(text)), _NOTHING, labels_of(stem)))


def write_history(draft: Draft) -> None:
    rng, grammar = draft.rng, draft.grammar
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
        if rng.random() < 0.6:
            stem = rng.choice(draft.positive) if draft.positive and rng.random() < 0.3 else rng.choice(list(CONCEPTS))
            draft.history.append(Line(stop(capital(grammar.line(stem, "hist")))))
        else:
            draft.history.append(Line(stop(grammar.line("neutral", "hx"))))
    if rng.random() < 0.5:
        draft.history.insert(0, Line(stop(grammar.line("neutral", "history"))))


def write_addendum(draft: Draft) -> None:
    """A later text that overrules the report: something overlooked, or something withdrawn."""
    rng, grammar = draft.rng, draft.grammar
    kind = rng.random()
    if kind < 0.5 and draft.negative:
        stem = rng.choice(draft.negative)
        draft.addendum.append(Line(stop(draft.grammar.line("frames", "overlooked"))))
        draft.addendum.append(affirm(draft, stem))
        draft.overruled[CONCEPTS[stem]] = 1
    elif kind < 0.75 and draft.negative:
        stem = rng.choice(draft.negative)
        draft.findings.append(affirm(draft, stem))
        verdict = draft.grammar.line("frames", "retraction")
        draft.addendum.append(Line(f"The {grammar.line(stem, 'neg')} described above {verdict}."))
        draft.overruled[CONCEPTS[stem]] = 0
    else:
        draft.addendum.append(Line(stop(grammar.line("neutral", "closing"))))
