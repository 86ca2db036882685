"""The sentences of a synthetic report that say nothing of a label, and how many of them there are."""

from __future__ import annotations

import random

from inference.training.report_noise import estrange, strange_word
from inference.training.report_writing import Draft, Line, capital, deny, stop

_SMALL_WORDS = ("the", "is", "in", "of", "with", "and", "a", "there", "shows")


def fill(draft: Draft, words: int) -> None:
    """Add neutral sentences until the report has about its drawn length."""
    rng, grammar = draft.rng, draft.grammar
    technique = "technique_mr" if draft.modality == "MR" else "technique_ct"
    sections = (draft.history, draft.findings, draft.impression, draft.addendum)
    written = sum(len(line.text.split()) for section in sections for line in section)
    if rng.random() < 0.6 and written + 12 < words:
        for _ in range(rng.choice((1, 1, 2, 3))):
            draft.technique.append(Line(stop(grammar.line("neutral", technique))))
    if rng.random() < 0.4:
        draft.comparison.append(Line(stop(grammar.line("neutral", "comparison"))))
    written += sum(len(line.text.split()) for line in (*draft.technique, *draft.comparison))
    while written < words:
        if rng.random() < 0.12:
            line, target = Line(stop(grammar.line("neutral", "closing"))), draft.impression
        elif rng.random() < 0.03:
            line, target = Line(strange_words(rng)), draft.findings
        elif rng.random() < 0.12 and draft.negative:
            line, target = deny(draft, [rng.choice(draft.negative)]), draft.findings
        elif rng.random() < 0.2 and draft.negative:
            line, target = Line(stop(capital(grammar.line(rng.choice(draft.negative), "not0")))), draft.findings
        else:
            line, target = _plain(draft)
        if not line.masked and rng.random() < 0.08:
            line = Line(estrange(line.text, rng))
        target.append(line)
        written += len(line.text.split())


def _plain(draft: Draft) -> tuple[Line, list[Line]]:
    """A sentence that finds nothing, and where it goes."""
    rng, grammar = draft.rng, draft.grammar
    kind = rng.random()
    if kind < 0.45:
        return Line(stop(capital(grammar.line("neutral", "normal")))), draft.findings
    if kind < 0.85:
        return Line(stop(capital(grammar.line("plain", "normal")))), draft.findings
    where = draft.history if rng.random() < 0.5 else draft.impression
    return Line(stop(capital(grammar.line("plain", "background")))), where


def trim(draft: Draft, words: int) -> None:
    """Drop what a short report would not say: never a sentence with a finding."""
    sections = (draft.technique, draft.comparison, draft.history, draft.findings)
    written = sum(len(line.text.split()) for section in (*sections, draft.impression) for line in section)
    for section in sections:
        for line in [line for line in section if not line.present and not line.masked]:
            if written <= words * 1.2:
                return
            section.remove(line)
            written -= len(line.text.split())


def draw_words(rng: random.Random) -> int:
    if rng.random() < 0.12:
        return rng.randint(6, 35)
    return int(min(320, max(25, rng.lognormvariate(4.85, 0.5))))


def run_together(lines: list[Line], rng: random.Random) -> list[Line]:
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


def strange_words(rng: random.Random) -> str:
    """A sentence of words that mean nothing, so that no label learns to fire on what it has never seen."""
    words = [strange_word(rng) for _ in range(rng.randint(3, 12))]
    for _ in range(rng.randint(0, 5)):
        words.insert(rng.randrange(len(words)), rng.choice(_SMALL_WORDS))
    return stop(capital(" ".join(words)))
