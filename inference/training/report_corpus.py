"""Synthetic head CT and MR reports with labels for the report and for every sentence. No real report is in it.

A report is drawn as facts first (which labels are present, absent, in the past, in doubt), then as sentences, then as a
writer's style. Present and absent labels share the length distribution and the normal sentences, so that neither the
length nor the layout tells the label.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from inference.labels import REPORT_LABELS
from inference.training.report_grammar import Grammar, phrases
from inference.training.report_layout import Section, lay_out
from inference.training.report_noise import draw_style

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

_OTHER_ABNORMAL = [(stem, template) for stem in CONCEPTS for template in phrases()[stem].get("notA", ())]
_NOTHING: frozenset[str] = frozenset()
_SYLLABLES = (
    "ba",
    "lor",
    "ten",
    "mi",
    "quo",
    "sil",
    "ver",
    "ra",
    "den",
    "po",
    "lex",
    "um",
    "is",
    "gan",
    "fo",
    "ch",
    "ost",
)
_SMALL_WORDS = ("the", "is", "in", "of", "with", "and", "a", "there", "shows")


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence: what it says is present, and what it leaves open (masked in training)."""

    text: str
    present: frozenset[str] = _NOTHING
    masked: frozenset[str] = _NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticReport:
    """A report's text, its modality, its labels (None = left open), and the spans of its sentences with theirs."""

    text: str
    modality: str
    labels: dict[str, int | None]
    lines: list[tuple[int, int, Line]]


@dataclass(slots=True)
class _Draft:
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


def _labels_of(stem: str) -> frozenset[str]:
    return frozenset((CONCEPTS[stem], "abnormal"))


def _heads(draft: _Draft, stems: list[str]) -> str:
    heads = [draft.grammar.line(stem, "neg") for stem in stems]
    if len(heads) == 1:
        return heads[0]
    joiner = draft.rng.choice((", ", ", ", " or ", ", or ", " and ", " nor ", ", nor ", "/", ", no ", " or of "))
    last = draft.rng.choice((" or ", " and ", ", or ", ", ", " nor ", " or "))
    return joiner.join(heads[:-1]) + last + heads[-1]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _stop(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


def _affirm(draft: _Draft, stem: str) -> Line:
    rng, grammar = draft.rng, draft.grammar
    kind = rng.random()
    if kind < 0.52:
        text = grammar.line(stem, "say")
    else:
        noun = grammar.line(stem, "np")
        if kind < 0.84 or not draft.negative:
            text = grammar.line("frames", "affirm", x=noun)
        else:
            stems = rng.sample(draft.negative, k=min(len(draft.negative), rng.choice((1, 1, 2, 3))))
            text = grammar.line("frames", "other_than", x=noun, xs=_heads(draft, stems))
    return Line(_stop(_capital(text)), _labels_of(stem))


def _deny(draft: _Draft, stems: list[str]) -> Line:
    return Line(_stop(_capital(draft.grammar.line("frames", "deny", xs=_heads(draft, stems)))))


def _write_positives(draft: _Draft) -> None:
    rng, grammar = draft.rng, draft.grammar
    for stem in draft.positive:
        where = rng.random()
        if where > 0.1:
            for _ in range(1 if rng.random() < 0.75 else 2):
                draft.findings.append(_affirm(draft, stem))
            more = phrases()[stem].get("more")
            if more and rng.random() < 0.4:
                draft.findings.append(
                    Line(_stop(grammar.line(stem, "more")), frozenset(("abnormal",)), _labels_of(stem))
                )
            if rng.random() < 0.2:
                new = rng.choice(("new", "other", "further", "additional", "fresh", "second", "recent"))
                draft.findings.append(Line(f"No {new} {grammar.line(stem, 'neg')}."))
        if where < 0.1 or rng.random() < 0.5:
            line = (
                Line(_stop(grammar.line(stem, "imp")), _labels_of(stem)) if rng.random() < 0.6 else _affirm(draft, stem)
            )
            draft.impression.append(line)
    if draft.other:
        stem, template = rng.choice(_OTHER_ABNORMAL)
        if CONCEPTS[stem] not in draft.masked:
            draft.findings.insert(0, Line(_stop(grammar.expand(template)), frozenset(("abnormal",))))


def _write_negatives(draft: _Draft) -> None:
    rng, grammar = draft.rng, draft.grammar
    denied = [stem for stem in draft.negative if rng.random() < 0.5]
    rng.shuffle(denied)
    while denied:
        count = min(len(denied), rng.choice((1, 1, 1, 2, 2, 3, 4)))
        draft.findings.append(_deny(draft, denied[:count]))
        denied = denied[count:]
    for stem in draft.negative:
        if rng.random() < 0.3:
            draft.findings.append(Line(_stop(_capital(grammar.line(stem, "not0")))))
        if rng.random() < 0.035:
            section = rng.choice(("doubt", "doubt", "past"))
            draft.findings.append(Line(_stop(_capital(grammar.line("frames", section, xs=grammar.line(stem, "neg"))))))


def _write_open_question(draft: _Draft) -> None:
    """A finding that is merely possible: its label, and `abnormal`, are left open."""
    stem = draft.rng.choice(draft.negative)
    text = draft.grammar.line("frames", "maybe", x=draft.grammar.line(stem, "np"))
    draft.masked |= _labels_of(stem) if not (draft.positive or draft.other) else {CONCEPTS[stem]}
    draft.findings.append(Line(_stop(_capital(text)), _NOTHING, _labels_of(stem)))


def _write_history(draft: _Draft) -> None:
    rng, grammar = draft.rng, draft.grammar
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
        if rng.random() < 0.6:
            stem = rng.choice(draft.positive) if draft.positive and rng.random() < 0.3 else rng.choice(list(CONCEPTS))
            draft.history.append(Line(_stop(_capital(grammar.line(stem, "hist")))))
        else:
            draft.history.append(Line(_stop(grammar.line("neutral", "hx"))))
    if rng.random() < 0.5:
        draft.history.insert(0, Line(_stop(grammar.line("neutral", "history"))))


def _write_addendum(draft: _Draft) -> None:
    """A later text that overrules the report: something overlooked, or something withdrawn."""
    rng, grammar = draft.rng, draft.grammar
    kind = rng.random()
    if kind < 0.5 and draft.negative:
        stem = rng.choice(draft.negative)
        draft.addendum.append(Line(_stop(draft.grammar.line("frames", "overlooked"))))
        draft.addendum.append(_affirm(draft, stem))
        draft.overruled[CONCEPTS[stem]] = 1
    elif kind < 0.75 and draft.negative:
        stem = rng.choice(draft.negative)
        draft.findings.append(_affirm(draft, stem))
        verdict = draft.grammar.line("frames", "retraction")
        draft.addendum.append(Line(f"The {grammar.line(stem, 'neg')} described above {verdict}."))
        draft.overruled[CONCEPTS[stem]] = 0
    else:
        draft.addendum.append(Line(_stop(grammar.line("neutral", "closing"))))


def _fill(draft: _Draft, words: int) -> None:
    """Add neutral sentences until the report has about its drawn length."""
    rng, grammar = draft.rng, draft.grammar
    technique = "technique_mr" if draft.modality == "MR" else "technique_ct"
    sections = (draft.history, draft.findings, draft.impression, draft.addendum)
    written = sum(len(line.text.split()) for section in sections for line in section)
    if rng.random() < 0.6 and written + 12 < words:
        for _ in range(rng.choice((1, 1, 2, 3))):
            draft.technique.append(Line(_stop(grammar.line("neutral", technique))))
    if rng.random() < 0.4:
        draft.comparison.append(Line(_stop(grammar.line("neutral", "comparison"))))
    written += sum(len(line.text.split()) for line in (*draft.technique, *draft.comparison))
    while written < words:
        if rng.random() < 0.12:
            line, target = Line(_stop(grammar.line("neutral", "closing"))), draft.impression
        elif rng.random() < 0.03:
            line, target = Line(_strange_words(rng)), draft.findings
        elif rng.random() < 0.12 and draft.negative:
            line, target = _deny(draft, [rng.choice(draft.negative)]), draft.findings
        elif rng.random() < 0.2 and draft.negative:
            line, target = Line(_stop(_capital(grammar.line(rng.choice(draft.negative), "not0")))), draft.findings
        else:
            line, target = Line(_stop(_capital(grammar.line("neutral", "normal")))), draft.findings
        target.append(line)
        written += len(line.text.split())


def _trim(draft: _Draft, words: int) -> None:
    """Drop what a short report would not say: never a sentence with a finding."""
    sections = (draft.technique, draft.comparison, draft.history, draft.findings)
    written = sum(len(line.text.split()) for section in (*sections, draft.impression) for line in section)
    for section in sections:
        for line in [line for line in section if not line.present and not line.masked]:
            if written <= words * 1.2:
                return
            section.remove(line)
            written -= len(line.text.split())


def _draw_words(rng: random.Random) -> int:
    if rng.random() < 0.12:
        return rng.randint(6, 35)
    return int(min(320, max(25, rng.lognormvariate(4.85, 0.5))))


def make_report(seed: int) -> SyntheticReport:
    """The report of a seed: the same seed gives the same report."""
    rng = random.Random(seed)  # noqa: S311 (a corpus, no secret)
    stems = list(CONCEPTS)
    count = rng.choices((0, 1, 2, 3, 4), (0.36, 0.3, 0.22, 0.09, 0.03))[0]
    draft = _Draft(
        rng=rng,
        grammar=Grammar(rng),
        modality=rng.choice(("CT", "MR")),
        positive=rng.sample(stems, k=count),
        other=rng.random() < (0.17 if count else 0.25),
    )
    if rng.random() < 0.05:
        _write_open_question(draft)
    _write_history(draft)
    _write_positives(draft)
    _write_negatives(draft)
    if rng.random() < 0.05:
        _write_addendum(draft)
    if not draft.impression or rng.random() < 0.2:
        if not (draft.positive or draft.other or draft.masked or draft.overruled):
            draft.impression.append(Line(_stop(draft.grammar.line("neutral", "imp_normal"))))
        elif rng.random() < 0.3 and draft.modality == "CT" and not {"haemorrhage", "stroke"} & set(draft.positive):
            draft.impression.append(Line("No acute intracranial abnormality."))
    words = _draw_words(rng)
    _fill(draft, words)
    _trim(draft, words)
    rng.shuffle(draft.findings)
    draft.findings = _run_together(draft.findings, rng)
    return _compose(draft)


def _run_together(lines: list[Line], rng: random.Random) -> list[Line]:
    """Write some neighbours as one sentence, which then says what both say."""
    share = rng.choice((0.0, 0.1, 0.3))
    joined: list[Line] = []
    for line in lines:
        if joined and rng.random() < share and len(joined[-1].text) < 160:
            before = joined.pop()
            second = line.text[:1].lower() + line.text[1:] if line.text[1:2].islower() else line.text
            glue = rng.choice((", ", "; ", " and ", ", and ", ", while ", " - ", ", with ", " as well as "))
            text = before.text.rstrip(".") + glue + second
            joined.append(Line(text, before.present | line.present, before.masked | line.masked))
        else:
            joined.append(line)
    return joined


def _strange_words(rng: random.Random) -> str:
    """A sentence of words that mean nothing, so that no label learns to fire on what it has never seen."""
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(rng.randint(3, 12))]
    for _ in range(rng.randint(0, 5)):
        words.insert(rng.randrange(len(words)), rng.choice(_SMALL_WORDS))
    return _stop(_capital(" ".join(words)))


def _compose(draft: _Draft) -> SyntheticReport:
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
    labels.update({label: 1 for stem in draft.positive for label in _labels_of(stem)})
    labels.update(draft.overruled)
    if draft.other or any(value == 1 for value in labels.values()):
        labels["abnormal"] = 1
    modality = draft.modality if draft.rng.random() < 0.9 else ""
    return SyntheticReport(text=text, modality=modality, labels=labels, lines=lines)


def corpus(count: int, first_seed: int) -> Iterator[SyntheticReport]:
    """``count`` reports from consecutive seeds."""
    return (make_report(first_seed + index) for index in range(count))
