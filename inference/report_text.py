"""Report text -> sentences of tokens, with offsets into the text as given. Knows no labels and no model.

Cleaning keeps one character for one (or an offset map), so that evidence spans point into what the archive holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_REPORT_CHARACTERS = 40_000
"""Longer texts are no single report (7,000 words); they are flagged, not read."""

MAX_SENTENCE_TOKENS = 64

_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127, 65279, 65533), " ")
_DIRTY = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffd\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"\d+(?:[.,]\d+)?|[^\W\d_]+(?:['’][^\W\d_]+)?|[?,:;/%<>+()]")
_BOUNDARY = re.compile(
    r"(?P<stop>[.!?]+[\"')\]]*)(?=\s|$)"  # a full stop
    r"|(?P<blank>\n[ \t\r]*\n\s*)"  # an empty line
    r"|(?P<line>\r?\n)(?=[ \t]*(?:[-*•]|\d{1,2}[.)]\s|[A-Z0-9(]))"  # a line that starts like a sentence
    r"|(?P<glued>(?<=[a-z]{2})\.(?=[A-Z][a-z]))"  # "seen.No"
    r"|(?P<spoken>\b(?:period|full stop|new paragraph)\b)",
)
_ABBREVIATIONS = frozenset(
    [
        "dr",
        "mr",
        "mrs",
        "ms",
        "prof",
        "vs",
        "approx",
        "ca",
        "e.g",
        "i.e",
        "eg",
        "ie",
        "resp",
        "incl",
        "fig",
        "no",
        "nr",
        "st",
        "dept",
        "tel",
        "cf",
        "max",
        "min",
        "z.b",
        "susp",
        "dd",
        "adv",
    ]
)
_WRAPPED_LINE_CHARACTERS = 60
_SPOKEN_STOPS = 3
_LAST_WORD = re.compile(r"([A-Za-z.]+|\d{1,2})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanText:
    """Readable text. ``offsets[i]`` is where character i stood in the text as given; None when nothing moved."""

    text: str
    offsets: list[int] | None
    repaired: bool

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Turn a half-open span of ``text`` into one of the text as given."""
        if self.offsets is None or end <= start:
            return start, end
        return self.offsets[start], self.offsets[end - 1] + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence: its half-open span in the clean text and its lower-cased tokens."""

    start: int
    end: int
    tokens: list[str]


def clean(text: str) -> CleanText:
    """Replace NUL, control and undecodable characters by spaces; a text with a NUL at every second place loses them."""
    if not _DIRTY.search(text):
        return CleanText(text=text, offsets=None, repaired=False)
    if text.count("\x00") > len(text) * 0.3:  # UTF-16 that was read as an 8-bit encoding
        kept = [index for index, character in enumerate(text) if character != "\x00"]
        inner = "".join(text[index] for index in kept)
        return CleanText(text=_SURROGATE.sub(" ", inner.translate(_CONTROL)), offsets=kept, repaired=True)
    return CleanText(text=_SURROGATE.sub(" ", text.translate(_CONTROL)), offsets=None, repaired=True)


def tokens_of(text: str) -> list[str]:
    """Lower-cased words, short numbers as they are, longer ones by their shape, and punctuation with a meaning."""
    return [_shape(token) if token[0].isdigit() else token for token in _TOKEN.findall(text.lower())]


def _shape(number: str) -> str:
    if len(number) == 1 or number == "10":
        return number
    if "." in number or "," in number:
        return "0.0"
    return "00" if len(number) == 2 else "000"


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Half-open spans of the sentences: full stops, empty lines, and line breaks that are not mere wrapping."""
    spans: list[tuple[int, int]] = []
    spoken = text.lower().count(" period") >= _SPOKEN_STOPS
    start = 0
    for match in _BOUNDARY.finditer(text):
        kind = match.lastgroup
        if kind == "spoken" and not spoken:
            continue
        if kind == "stop" and match.group() == "." and _is_abbreviation(text, start, match.start()):
            continue
        if kind == "line" and _is_wrapped(text, start, match.start()):
            continue
        _append(spans, text, start, match.end())
        start = match.end()
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if any(character.isalnum() for character in stripped):
        begin = start + len(piece) - len(piece.lstrip())
        spans.append((begin, begin + len(stripped)))


def _is_abbreviation(text: str, start: int, stop: int) -> bool:
    match = _LAST_WORD.search(text, max(start, stop - 12), stop)
    if match is None:
        return False
    word = match.group()
    if word.isdigit():  # "1." opens a list entry; "at 12." closes a sentence
        return not text[start : match.start()].strip()
    if word.lower() in _ABBREVIATIONS:
        return word.lower() != "no" or text[stop + 1 : stop + 3].strip().isdigit()
    return len(word) == 1 and word.isupper() and word not in "LRN"


def _is_wrapped(text: str, start: int, line_end: int) -> bool:
    line_start = text.rfind("\n", start, line_end) + 1 or start
    line = text[line_start:line_end].rstrip()
    following = text[line_end : line_end + 40].lstrip()[:1]
    return len(line) >= _WRAPPED_LINE_CHARACTERS and line[-1:] not in ".:;!?" and following not in "-*•"


def split(text: str) -> list[Sentence]:
    """Split a clean text into sentences; a run-on of more than ``MAX_SENTENCE_TOKENS`` tokens is cut at a separator."""
    sentences: list[Sentence] = []
    for start, end in sentence_spans(text):
        tokens = tokens_of(text[start:end])
        if len(tokens) <= MAX_SENTENCE_TOKENS:
            if tokens:
                sentences.append(Sentence(start=start, end=end, tokens=tokens))
        else:
            sentences.extend(_cut(text, start, end))
    return sentences


def _cut(text: str, start: int, end: int) -> list[Sentence]:
    pieces: list[Sentence] = []
    matches = list(_TOKEN.finditer(text, start, end))
    while matches:
        head = matches[:MAX_SENTENCE_TOKENS]
        if len(matches) > MAX_SENTENCE_TOKENS:
            separators = [i for i, match in enumerate(head) if match.group() in ";,:" and i >= MAX_SENTENCE_TOKENS // 3]
            head = head[: separators[-1] + 1] if separators else head
        begin, finish = head[0].start(), head[-1].end()
        pieces.append(Sentence(start=begin, end=finish, tokens=tokens_of(text[begin:finish])))
        matches = matches[len(head) :]
    return pieces
