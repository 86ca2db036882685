"""Which CT series is a head CT without contrast in a soft-tissue kernel. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

from inference.result import Reason
from node.rules.facts import SeriesFacts, reason

_WITHOUT = re.compile(
    r"\b(non[- ]?contrast|no contrast|without( iv)?( contrast)?|w/?o( iv)?( contrast)?|unenhanced|nativ\w*|plain|"
    r"nc(ct)?|pre[- ]?contrast|sans (injection|contraste)|ohne km)\b|c-(?!\w)"
)
_WITH = re.compile(
    r"\b(cta|ctp|ctv|angio\w*|venogra\w*|perfusion|post[- ]?(contrast|gad)|with( iv)? contrast|w/? ?contrast|contrast|"
    r"enhanced|avec injection|mit km|kontrast|arterial|venous|bolus|monitoring|smart ?prep)\b|c\+|\+c\b"
)
_NO_AGENT = {"", "NO", "NONE", "N", "0", "NO CONTRAST", "WITHOUT", "NON", "NEIN", "NONCONTRAST", "NULL"}
_BONE_WORDS = re.compile(r"\b(bone|sharp|os|osseux|knochen|lung|edge|hr|temporal)\b")


class Kernel(StrEnum):
    """What a convolution kernel is made for."""

    SOFT = "soft"
    SHARP = "sharp"
    UNKNOWN = "unknown"


def exclusions(facts: SeriesFacts) -> Iterator[Reason]:
    """Yield the reasons particular to CT not to read the series."""
    agent = facts.header.contrast_agent.upper().strip(" .")
    if agent not in _NO_AGENT:
        yield reason("contrast", "was made with a contrast agent (0018,0010)")
    elif _says_contrast(facts):
        yield reason("contrast", "is a contrast, angiography or perfusion series by its description")
    kernel = kernel_of(facts)
    if kernel is Kernel.SHARP:
        yield reason(
            "kernel", f"is made for bone, not brain (kernel {facts.header.convolution_kernel or 'by description'})"
        )


def score(facts: SeriesFacts) -> Iterator[tuple[float, Reason]]:
    """Yield points, each with its reason, for what makes a CT series the better one."""
    if kernel_of(facts) is Kernel.SOFT:
        yield 2.0, reason("soft_kernel", f"soft-tissue kernel {facts.header.convolution_kernel}")
    if _WITHOUT.search(facts.words):
        yield 0.5, reason("said_unenhanced", "description says without contrast")


def kernel_of(facts: SeriesFacts) -> Kernel:
    """Sort a kernel by the maker's naming; an unnamed kernel by the description."""
    name = facts.header.convolution_kernel.split("\\")[0].upper().strip()
    known = _by_name(name)
    if known is Kernel.UNKNOWN and _BONE_WORDS.search(facts.header.series_description.lower().replace("_", " ")):
        return Kernel.SHARP
    return known


def _by_name(name: str) -> Kernel:
    for pattern, decide in _NAMES:
        match = re.match(pattern, name)
        if match:
            return decide(match)
    return Kernel.UNKNOWN


def _siemens(match: re.Match[str]) -> Kernel:
    """H/J/B/Hr/Hc/Qr...NN: the number is the sharpness; brain kernels are 20 to 48."""
    return Kernel.SHARP if int(match[1]) >= 55 else Kernel.SOFT


def _toshiba(match: re.Match[str]) -> Kernel:
    """FC01-29 and FC62-69 soft tissue and brain; FC30-39, 80-92 bone; FC50-59 lung (Toshiba/Canon filter names)."""
    number = int(match[1])
    return Kernel.SOFT if number < 30 or 40 <= number < 50 or 60 <= number < 70 else Kernel.SHARP


def _soft(_: re.Match[str]) -> Kernel:
    return Kernel.SOFT


def _sharp(_: re.Match[str]) -> Kernel:
    return Kernel.SHARP


_NAMES = (
    (r"(?:BONE|EDGE|LUNG|ULTRA|SHARP|HD BONE|Y?-?SHARP)", _sharp),
    (r"(?:SOFT|STANDARD|STND|STD|BRAIN|SMOOTH|CEREBR|HEAD|FBP SOFT)", _soft),
    (r"FC(\d{2})", _toshiba),
    (r"(?:H|J|B|HR|HC|HV|HF|BR|BV|BF|QR|U|T|I)(\d{2})[A-Z]?\b", _siemens),
    (r"(?:UA|UB|UC|A|B|EB|EC)$", _soft),  # Philips brain and body filters
    (r"(?:D|E|L|YA|YB|YC|YD|DETAIL)$", _sharp),
)


def _says_contrast(facts: SeriesFacts) -> bool:
    own = f"{facts.header.series_description} | {facts.header.protocol_name}".lower().replace("_", " ")
    return bool(_WITH.search(_WITHOUT.sub(" ", own)))
