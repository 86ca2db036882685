"""Which texts are no head report in English: flagged before any model speaks, because a model always has an answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from inference.report_lexicon import cue_of
from inference.report_text import MAX_REPORT_CHARACTERS, Sentence

WORDS_FILE = Path(__file__).parent / "report_words.txt"
"""Words of radiology reports in English, one a line; written by the training recipe."""

_ENGLISH_WORDS = """the of is no and in with there are to for not or was on at by from be this that as an which has have
without"""
_FOREIGN_WORDS = """der und kein keine keinen nicht ohne nach bei des ist eine einer im zum zur auf mit den vom
le les pas sans une du dans est aux sur avec au elle ne ou el los las del sin con por lo que para como
di il della nel nella gli dei non sono alla senza da das dos em nos sem uma ao nie jest bez oraz w z po przy
het een van geen niet zijn wordt met bij naar ve bir ile olarak icin olup mevcut och inte ingen utan till ett
som ikke uden ei ja"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_FOREIGN = frozenset(_FOREIGN_WORDS.split())
_HEAD = re.compile(
    r"brain|^head|cereb|intracran|crani|skull|calvar|ventric|^sulc|^gyr|midline|frontal|parietal|temporal|occipital|thalam"
    r"|^pons|pontine|pituit|hypophys|^sella|subdural|subarach|extradural|epidural|encephal|cortical|basal|capsul|convexit"
    r"|^white$|h?ippocamp|sylvian|falx|tentori|corpus|callos|demyelin|infarct|microangio|fazekas|mening|cistern|fissure|^iam"
    r"|acoustic|aneurysm|willis|^mca$|^aca$|^pca$|orbit|tonsil|chiasm|neuro"
)
_ELSEWHERE = re.compile(
    r"^lungs?$|pulmon|pleura|chest|thora|liver|hepat|abdom|pelvi|spleen|splenic|kidney|renal|lumbar|sacr|knee|^hips?$|shoulder"
    r"|menisc|ligament|tendon|bowel|colon|uter|ovar|prostat|bladder|breast|mammo|femor|femur|tibia|fibula|ankle|wrist|elbow"
    r"|^discs?$|^disks?$|vertebra[el]?$|foraminal|facet|aort|cardi|heart|pancrea|gallbl|bronch|mediast|stomach|gastr|intestin"
    r"|^l[1-5]$|^s1$|humer|radius|ulna|rotator|cuff|patell|acetab|oesoph|esoph|adrenal|ureter|lobule"
)
_MIN_WORDS_TO_JUDGE = 6
_NO_HEAD_WORDS = 30
_SHORT_CHARACTERS = 12
_HEAD_BIT, _ELSEWHERE_BIT, _KNOWN_BIT, _ENGLISH_BIT, _FOREIGN_BIT, _CUE_BIT, _WORD_BIT = (1 << n for n in range(7))


@lru_cache(maxsize=1)
def known_words() -> frozenset[str]:
    """The words of ``report_words.txt``."""
    return frozenset(WORDS_FILE.read_text(encoding="utf-8").split())


@lru_cache(maxsize=100_000)
def _bits(word: str) -> int:
    if not word[0].isalpha():
        return 0
    bits = _WORD_BIT
    bits |= _HEAD_BIT if _HEAD.search(word) else 0
    bits |= _ELSEWHERE_BIT if _ELSEWHERE.search(word) else 0
    bits |= _KNOWN_BIT if word in known_words() or len(word) == 1 else 0
    bits |= _ENGLISH_BIT if word in _ENGLISH else 0
    bits |= _FOREIGN_BIT if word in _FOREIGN else 0
    return bits | (_CUE_BIT if cue_of(word) else 0)


def unusable(text: str, sentences: Sequence[Sentence]) -> str | None:
    """Why a text is not to be labelled (a flag of `ReportLabels`); None when it is fine.

    Lenient on purpose: a head report wrongly refused is lost, a strange text that is let through scores low.
    """
    if len(text) > MAX_REPORT_CHARACTERS:
        return "too_long"
    tokens = [word for sentence in sentences for word in sentence.tokens]
    bits = Counter(map(_bits, tokens))
    words = bits.total() - bits[0]
    if words == 0:
        return "empty"
    head, known = _count(bits, _HEAD_BIT), _count(bits, _KNOWN_BIT)
    english, foreign = _count(bits, _ENGLISH_BIT), _count(bits, _FOREIGN_BIT)
    if _is_foreign(text, words, known, english, foreign):
        return "non_english"
    if _is_absurd(tokens, words, known):
        return "absurd"
    return "non_head" if _is_elsewhere(bits, words, head) else None


def _count(bits: Counter[int], one: int) -> int:
    return sum(count for value, count in bits.items() if value & one)


def _is_elsewhere(bits: Counter[int], words: int, head: int) -> bool:
    elsewhere = _count(bits, _ELSEWHERE_BIT)
    if (elsewhere >= 2 and head * 2 < elsewhere) or (elsewhere >= 1 and head == 0 and words >= _MIN_WORDS_TO_JUDGE):
        return True
    return head == 0 and words > _NO_HEAD_WORDS and _count(bits, _CUE_BIT) < 4


def _is_foreign(text: str, words: int, known: int, english: int, foreign: int) -> bool:
    start = text[:2000]
    letters = [] if start.isascii() else [character for character in start if character.isalpha()]
    if letters and sum(ord(character) > 0x24F for character in letters) > 0.3 * len(letters):
        return True
    if words < _MIN_WORDS_TO_JUDGE:
        return False
    return (foreign >= 2 and foreign > 1.5 * english and known < 0.7 * words) or (
        foreign >= 1 and english == 0 and known < 0.35 * words
    )


def _is_absurd(tokens: Sequence[str], words: int, known: int) -> bool:
    if words >= _MIN_WORDS_TO_JUDGE:
        if known < 0.3 * words:
            return True
        distinct = sum(token[0].isalpha() for token in set(tokens))
        return words > 40 and distinct < 0.08 * words
    return known == 0 and sum(len(token) for token in tokens) > _SHORT_CHARACTERS
