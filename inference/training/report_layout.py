"""Puts the sentences of a synthetic report on the page: headings present, missing or wrong; paragraphs, lists."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.training.report_grammar import Grammar
from inference.training.report_noise import Style

if TYPE_CHECKING:
    from inference.training.report_writing import Line

_HEADINGS = ("history", "technique", "findings", "impression", "comparison", "addendum")
_ORGANS = ("BRAIN", "VENTRICLES", "PARENCHYMA", "EXTRA-AXIAL SPACES", "VASCULAR", "OTHER", "Posterior fossa", "Brain")


@dataclass(frozen=True, slots=True)
class Section:
    """A named run of sentences."""

    name: str
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class _Page:
    """The writer's habits of layout, drawn once a report."""

    headings: bool
    wrong_heading_share: float
    heading_end: str
    separator: str
    numbered: bool
    organs: bool
    no_stops: bool


def _draw_page(grammar: Grammar, style: Style) -> _Page:
    rng = grammar.rng
    return _Page(
        headings=rng.random() < 0.6,
        wrong_heading_share=rng.choice((0.0, 0.0, 0.1, 0.3)),
        heading_end=rng.choice((": ", ":\n", "\n", ": ", " - ")),
        separator=" " if style.spoken else rng.choice((" ", " ", " ", " ", "\n", "\n", "\n- ")),
        numbered=rng.random() < 0.3,
        organs=rng.random() < 0.08,
        no_stops=rng.random() < 0.06,
    )


def lay_out(
    sections: Sequence[Section], modality: str, grammar: Grammar, style: Style
) -> tuple[str, list[tuple[int, int, Line]]]:
    """Return the text, and each sentence's half-open span in it."""
    rng = grammar.rng
    page = _draw_page(grammar, style)
    pieces: list[str] = []
    spans: list[tuple[int, int, Line]] = []
    length = 0

    def put(text: str) -> None:
        nonlocal length
        pieces.append(text)
        length += len(text)

    if rng.random() < 0.4:
        put(grammar.line("frames", "titles_mr" if modality == "MR" else "titles_ct"))
        put(rng.choice(("\n", "\n\n", ". ", ".\n")))
    for section in sections:
        if not section.lines:
            continue
        named = page.headings or section.name == "addendum"
        if named and rng.random() < 0.85:
            name = rng.choice(_HEADINGS) if rng.random() < page.wrong_heading_share else section.name
            put(style.apply(grammar.line("frames", f"heading_{name}")) + page.heading_end)
        for number, line in enumerate(section.lines):
            put((page.separator if number else "") + _mark(page, section.name, number, rng))
            text = style.apply(line.text)
            if page.no_stops and page.separator != " ":
                text = text.rstrip(".")
            spans.append((length, length + len(text), line))
            put(text)
        put(rng.choice(("\n", "\n\n", "\n")) if named else page.separator.replace("- ", ""))
    return "".join(pieces).rstrip(), spans


def _mark(page: _Page, section: str, number: int, rng: random.Random) -> str:
    if page.numbered and section == "impression":
        return f"{number + 1}. "
    return f"{rng.choice(_ORGANS)}: " if page.organs and section == "findings" else ""
