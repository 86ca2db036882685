"""Sentences of many reports -> flat arrays for the network. Words are looked up once and kept; knows no torch."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.report_lexicon import CUES, N_SCOPES, cue_of, role_of, scopes
from inference.report_text import Sentence

Ints = npt.NDArray[np.int64]

N_FINDING_CUES = 9
N_KEYWORDS = 2 * N_FINDING_CUES
_MAX_WORDS = 150_000
"""Words kept before the table starts afresh: garbage in an archive must not fill the memory."""

SECTIONS: tuple[tuple[str, str], ...] = (
    ("history", r"clinical|indication|history|reason|question|anamnesis|request|referral|motive|query|presentation"),
    ("technique", r"technique|protocol|method|sequences|procedure|scan param|scanning"),
    ("comparison", r"comparison|prior|compared to"),
    ("findings", r"findings?|report|results?|description|imaging findings|body of|evaluation|brain|image"),
    (
        "impression",
        r"impression|conclusions?|opinion|summary|assessment|diagnos|comment|interpretation|dx|in total|judg",
    ),
    ("addendum", r"addendum|supplement|amended|correction|late addition|final"),
)
_HEADING = re.compile(
    r"\W{0,3}(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in SECTIONS) + r")[^:.\n]{0,30}(?:[:\n]|-\s|$)",
    re.IGNORECASE,
)
_SECTION_INDEX = {name: index + 1 for index, (name, _) in enumerate(SECTIONS)}
N_SECTIONS = len(SECTIONS) + 1
MODALITIES = ("", "CT", "MR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Reports as flat arrays. T tokens, S sentences, R reports; every report has at least one sentence.

    ``words`` [T] rows of the word table; ``cues`` [T]; ``scopes`` [T]; ``sentence_of_token`` [T]; ``grams`` [T, 2]
    hashed (word with its scope, word pair); ``sections`` [S]; ``report_of_sentence`` [S]; ``place`` [S] order within
    the report; ``modality`` [R]; ``keywords`` [R, 18] affirmed and denied mentions.
    """

    words: Ints
    cues: Ints
    scopes: Ints
    sentence_of_token: Ints
    grams: Ints
    sections: Ints
    report_of_sentence: Ints
    place: Ints
    modality: Ints
    keywords: npt.NDArray[np.float32]

    @property
    def reports(self) -> int:
        """Number of reports."""
        return int(self.modality.size)

    @property
    def sentences(self) -> int:
        """Number of sentences."""
        return int(self.sections.size)


def stable_hash(text: str) -> int:
    """The same number for the same text on every machine and in every process."""
    return zlib.crc32(text.encode("utf-8", "replace"))


def char_grams(word: str) -> list[int]:
    """Hashes of the word's pieces of 3 to 5 characters, ends marked: misspelt words come near the right ones."""
    marked = f"<{word[:24]}>"
    return [stable_hash(marked[i : i + n]) for n in (3, 4, 5) for i in range(max(1, len(marked) - n + 1))]


class WordTable:
    """Rows for words in order of first sight; what each row means is computed once."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all words."""
        self.generation = getattr(self, "generation", 0) + 1
        self._rows: dict[str, int] = {}
        self._cues: list[int] = []
        self._roles: list[int] = []
        self._hashes: list[int] = []
        self.words: list[str] = []

    def _add(self, word: str) -> int:
        row = len(self.words)
        self._rows[word] = row
        self.words.append(word)
        self._cues.append(cue_of(word))
        self._roles.append(role_of(word))
        self._hashes.append(stable_hash(word))
        return row

    def batch(self, reports: Sequence[Sequence[Sentence]], texts: Sequence[str], modalities: Sequence[str]) -> Batch:
        """Turn split reports into arrays; ``texts`` are the clean texts that the sentences point into."""
        if len(self.words) > _MAX_WORDS:
            self.clear()
        rows: list[int] = []
        lengths: list[int] = []
        sections: list[int] = []
        known = self._rows
        for sentences, text in zip(reports, texts, strict=True):
            section = 0
            for sentence in sentences:
                rows.extend([known[word] if word in known else self._add(word) for word in sentence.tokens])
                lengths.append(len(sentence.tokens))
                section = section_of(text, sentence, section)
                sections.append(section)
        counts = np.array([len(sentences) for sentences in reports], dtype=np.int64)
        return self._arrays(
            np.array(rows, dtype=np.int64), np.array(lengths, dtype=np.int64), sections, counts, modalities
        )

    def _arrays(self, rows: Ints, lengths: Ints, sections: list[int], counts: Ints, modalities: Sequence[str]) -> Batch:
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        cues = np.array(self._cues, dtype=np.int64)[rows]
        scope = scopes(np.array(self._roles, dtype=np.int64)[rows], starts)
        hashes = np.array(self._hashes, dtype=np.int64)[rows]
        following = np.where(np.arange(rows.size) + 1 == np.repeat(starts + lengths, lengths), 1, np.roll(hashes, -1))
        grams = np.stack((hashes * N_SCOPES + scope, (hashes * 31 + following * 7919) ^ (hashes >> 7)), axis=1)
        report_of_sentence = np.repeat(np.arange(counts.size), counts)
        sentence_of_token = np.repeat(np.arange(lengths.size), lengths)
        return Batch(
            words=rows,
            cues=cues,
            scopes=scope,
            sentence_of_token=sentence_of_token,
            grams=grams,
            sections=np.array(sections, dtype=np.int64),
            report_of_sentence=report_of_sentence,
            place=np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts),
            modality=np.array(
                [MODALITIES.index(name) if name in MODALITIES else 0 for name in modalities], dtype=np.int64
            ),
            keywords=_keywords(cues, scope, report_of_sentence[sentence_of_token], counts.size),
        )


def _keywords(cues: Ints, scope: Ints, report_of_token: Ints, reports: int) -> npt.NDArray[np.float32]:
    named = (cues > 0) & (cues <= N_FINDING_CUES)
    denied = (scope[named] != 0).astype(np.int64)
    cell = report_of_token[named] * N_KEYWORDS + (cues[named] - 1) + N_FINDING_CUES * denied
    return np.log1p(np.bincount(cell, minlength=reports * N_KEYWORDS)).reshape(reports, N_KEYWORDS).astype(np.float32)


def section_of(text: str, sentence: Sentence, current: int) -> int:
    """Section that a sentence opens by a heading, else the current one. A hint: headings are often wrong."""
    match = _HEADING.match(text, sentence.start, min(sentence.end + 1, sentence.start + 48))
    return _SECTION_INDEX[match.lastgroup or ""] if match else current


assert CUES[N_FINDING_CUES - 1][0] == "encephalomalacia"
