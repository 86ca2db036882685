"""A small phrase grammar: sections of templates with ``(a|b)`` choices, ``[x]`` options and ``{slot}`` references.

Files (``report_phrases/*.txt``) hold ``== name label-codes`` headers and one template a line. Knows no reports.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

PHRASES_FOLDER = Path(__file__).parent / "report_phrases"

_SLOTS_BESIDE_THEIR_PHRASES = {
    "neutral": ("hx",),
    "mass": ("tumour",),
    "vascular": ("vessel", "bifurcation"),
    "plain": ("part", "vesselpart", "outside", "who", "thing", "name"),
}
_SPECIAL = re.compile(r"[()\[\]{}|]")
_SPACES = re.compile(r" {2,}")
_SPACE_BEFORE = re.compile(r" ([,.;:])")


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Sequence, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[str | _Choice | _Slot, ...]


def _parse(template: str, position: int, closing: str) -> tuple[_Choice, int]:
    options: list[_Sequence] = []
    parts: list[str | _Choice | _Slot] = []
    while position < len(template):
        character = template[position]
        if character == closing:
            options.append(_Sequence(tuple(parts)))
            return _Choice(tuple(options)), position + 1
        if character == "|" and closing:
            options.append(_Sequence(tuple(parts)))
            parts = []
            position += 1
        elif character == "(":
            choice, position = _parse(template, position + 1, ")")
            parts.append(choice)
        elif character == "[":
            choice, position = _parse(template, position + 1, "]")
            parts.append(_Choice((*choice.options, _Sequence(()))))
        elif character == "{":
            end = template.index("}", position)
            parts.append(_Slot(template[position + 1 : end]))
            position = end + 1
        else:
            match = _SPECIAL.search(template, position)
            end = (
                match.start() if match and match.start() > position else (len(template) if not match else position + 1)
            )
            parts.append(template[position:end])
            position = end
    if closing:
        raise ValueError(f"template without a closing {closing!r}: {template!r}")
    options.append(_Sequence(tuple(parts)))
    return _Choice(tuple(options)), position


@cache
def _compiled(template: str) -> _Choice:
    return _parse(template, 0, "")[0]


@lru_cache(maxsize=1)
def phrases() -> dict[str, dict[str, tuple[str, ...]]]:
    """All phrase files: file stem -> section name -> templates. A malformed template stops here, with its text."""
    files: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in sorted(PHRASES_FOLDER.glob("*.txt")):
        sections: dict[str, list[str]] = {}
        current: list[str] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("=="):
                current = sections.setdefault(line.split()[1], [])
            elif line.strip() and not line.startswith("#"):
                _compiled(line.strip())
                current.append(line.strip())
        files[path.stem] = {name: tuple(lines) for name, lines in sections.items()}
    return files


class Grammar:
    """Expands templates with a random stream; slots come from ``lexicon.txt``, ``extra`` and the caller."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._lexicon = {**phrases()["lexicon"]}
        for stem, slots in _SLOTS_BESIDE_THEIR_PHRASES.items():
            self._lexicon.update({name: phrases()[stem][name] for name in slots})

    def line(self, stem: str, section: str, **slots: str) -> str:
        """One expanded template of a section."""
        return self.expand(self.rng.choice(phrases()[stem][section]), slots)

    def expand(self, template: str, slots: Mapping[str, str] = {}) -> str:
        """Expand one template; white space and punctuation are tidied."""
        text = self._choice(_compiled(template), slots)
        return _SPACE_BEFORE.sub(r"\1", _SPACES.sub(" ", text)).strip()

    def _choice(self, choice: _Choice, slots: Mapping[str, str]) -> str:
        options = choice.options
        sequence = options[0] if len(options) == 1 else options[int(self.rng.random() * len(options))]
        out: list[str] = []
        for part in sequence.parts:
            if isinstance(part, str):
                out.append(part)
            elif isinstance(part, _Choice):
                out.append(self._choice(part, slots))
            else:
                out.append(slots[part.name] if part.name in slots else self._slot(part.name))
        return "".join(out)

    def _slot(self, name: str) -> str:
        return self._choice(_compiled(self.rng.choice(self._lexicon[name])), {})
