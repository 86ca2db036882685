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
_EVERYDAY = [
    word
    for line in (_FOLDER / "everyday.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
]
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
_SPARED = frozenset(("with", "without", "none", "neither", "excluded", "absent", "absence", "lack", "free", "fails"))
_WORD = re.compile(r"[A-Za-z]{4,}")
_FILLERS = re.compile(r"\b(there (is|are)|is|are|was|were|the|a|an) ", re.IGNORECASE)
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


def strange_word(rng: random.Random) -> str:
    """A word that says nothing of any label: an everyday one, or one that does not exist."""
    if rng.random() < 0.6:
        return rng.choice(_EVERYDAY)
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4)))


def estrange(text: str, rng: random.Random) -> str:
    """Replace up to three words of a sentence by strange ones; words that deny stay."""
    places = [match.span() for match in _WORD.finditer(text) if match.group().lower() not in _SPARED]
    for start, end in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), reverse=True):
        text = text[:start] + strange_word(rng) + text[end:]
    return text


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


def _wordy(rng: random.Random) -> Rewrite:
    """Words slipped in, in sentences of any kind: what was never seen must neither raise nor hide a finding."""

    def rewrite(text: str) -> str:
        if rng.random() > 0.4:
            return text
        words = text.split(" ")
        for _ in range(rng.randint(1, 3)):
            words.insert(rng.randint(1, len(words)) - 1, strange_word(rng))
        return " ".join(words)

    return rewrite


def _telegraphic(text: str) -> str:
    return _FILLERS.sub("", text)


def _spoken_punctuation(text: str) -> str:
    text = text.replace(",", " comma").replace(":", " colon")
    return (text[:-1] + " period" if text.endswith(".") else text).lower()


def draw_style(rng: random.Random) -> Style:
    """Draw the writer of one report."""
    habits: tuple[tuple[float, Callable[[], Rewrite]], ...] = (
        (0.4, lambda: _translated(rng)),
        (0.5, lambda: american),
        (0.12, lambda: lambda text: _replace_some(text, _ABBREVIATED, 0.6, rng)),
        (0.1, lambda: _telegraphic),
        (0.2, lambda: _wordy(rng)),
        (0.08, lambda: lambda text: _replace_some(text, _MISHEARD, 0.5, rng)),
        (0.3, lambda: _typed(rng, rng.choice((0.01, 0.02, 0.06)))),
    )
    rewrites = [make() for chance, make in habits if rng.random() < chance]
    spoken = rng.random() < 0.02
    if spoken:
        rewrites.append(_spoken_punctuation)
    case = rng.random()
    if case < 0.04:
        rewrites.append(str.upper)
    elif case < 0.1:
        rewrites.append(str.lower)
    return Style(tuple(rewrites), spoken)
