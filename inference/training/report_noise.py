"""How one finding comes to be written in a hundred ways: spelling, translation, dictation, typing, abbreviation, case.

Each style is drawn once a report and applied to every sentence, so that lengths stay known to the corpus.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Rewrite = Callable[[str], str]

_FOLDER = Path(__file__).parent / "report_phrases" / "style"


def _table(name: str) -> list[tuple[str, list[str]]]:
    lines = (_FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(pattern, options.split("|")) for pattern, options in pairs]


def _rules(name: str, flags: int = 0) -> list[tuple[re.Pattern[str], list[str]]]:
    return [(re.compile(pattern, flags), options) for pattern, options in _table(name)]


_AMERICAN = [(british, options[0]) for british, options in _table("american")]
_TRANSLATED = _rules("translated")
_ABBREVIATED = _rules("abbreviated")
_MISHEARD = _rules("misheard", re.IGNORECASE)
_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: row[max(0, place - 1) : place] + row[place + 1 : place + 2]
    for row in _KEY_ROWS
    for place, key in enumerate(row)
}
_WORD = re.compile(r"[A-Za-z]{4,}")
_ARTICLES = re.compile(r"\b(the|a|an) ", re.IGNORECASE)


def american(text: str) -> str:
    """Respell a British sentence."""
    for british, respelt in _AMERICAN:
        if british in text:
            text = text.replace(british, respelt)
    return text


def _replace_some(text: str, rules: list[tuple[re.Pattern[str], list[str]]], share: float, rng: random.Random) -> str:
    for pattern, options in rules:
        if rng.random() < share:
            text = pattern.sub(rng.choice(options), text)
    return text


def misspell(word: str, rng: random.Random) -> str:
    """One typing error: swapped, dropped, doubled or neighbouring letter, or a split word."""
    place = rng.randrange(1, len(word) - 1)
    kind = rng.random()
    if kind < 0.28:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind < 0.55:
        return word[:place] + word[place + 1 :]
    if kind < 0.7:
        return word[:place] + word[place] + word[place:]
    if kind < 0.9:
        return word[:place] + rng.choice(_NEIGHBOURS.get(word[place].lower(), "e")) + word[place + 1 :]
    return word[:place] + " " + word[place:]


@dataclass(frozen=True, slots=True)
class Style:
    """What a report's writer does to every sentence."""

    rewrites: tuple[Rewrite, ...]
    spoken: bool

    def apply(self, text: str) -> str:
        """Rewrite one sentence."""
        for rewrite in self.rewrites:
            text = rewrite(text)
        return text


def _translated(rng: random.Random) -> Rewrite:
    share = rng.choice((0.25, 0.5, 0.8))
    articles = rng.choice((0.0, 0.3, 0.8))

    def rewrite(text: str) -> str:
        text = _replace_some(text, _TRANSLATED, share, rng)
        if articles:
            text = _ARTICLES.sub(lambda match: "" if rng.random() < articles else match.group(), text)
        return text

    return rewrite


def _typed(rng: random.Random, rate: float) -> Rewrite:
    def rewrite(text: str) -> str:
        return _WORD.sub(lambda m: misspell(m.group(), rng) if rng.random() < rate else m.group(), text)

    return rewrite


def _spoken_punctuation(text: str) -> str:
    text = text.replace(",", " comma").replace(":", " colon")
    return (text[:-1] + " period" if text.endswith(".") else text).lower()


def draw_style(rng: random.Random) -> Style:
    """Draw the writer of one report."""
    rewrites: list[Rewrite] = []
    if rng.random() < 0.4:
        rewrites.append(_translated(rng))
    if rng.random() < 0.5:
        rewrites.append(american)
    if rng.random() < 0.12:
        rewrites.append(lambda text: _replace_some(text, _ABBREVIATED, 0.6, rng))
    if rng.random() < 0.08:
        rewrites.append(lambda text: _replace_some(text, _MISHEARD, 0.5, rng))
    if rng.random() < 0.3:
        rewrites.append(_typed(rng, rng.choice((0.01, 0.02, 0.06))))
    spoken = rng.random() < 0.02
    if spoken:
        rewrites.append(_spoken_punctuation)
    case = rng.random()
    if case < 0.04:
        rewrites.append(str.upper)
    elif case < 0.1:
        rewrites.append(str.lower)
    return Style(tuple(rewrites), spoken)
