"""Which MR series is an axial T2 of the head: by parameters first, by descriptions where they fail. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from inference.result import Reason
from node.headers import Header
from node.rules.facts import SeriesFacts, reason

MIN_ECHO_MS = 60.0
MAX_ECHO_MS = 450.0  # beyond: cisternography
MIN_REPETITION_MS = 1500.0
_FLAIR_INVERSION_MS = 1000.0

_T2_WORDS = re.compile(r"\bt2|\btse\b.*\bt2|\bfse\b.*\bt2")
_NAMED: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("flair", "is a FLAIR", re.compile(r"flair|dark[- ]?fluid|\btirm\b|\bdf\b")),
    ("stir", "is a STIR", re.compile(r"\bstir\b")),
    ("diffusion", "is diffusion-weighted or a map of it",
     re.compile(r"\b(dwi\w*|dti\w*|diff\w*|adc\w*|eadc|trace\w*|b ?1000|fa map|ivim|resolve)\b|\bep2d diff")),
    ("gradient_echo", "is a gradient echo (T2*, SWI)",
     re.compile(r"t2\*|t2[- ]?star|\bswi\b|\bswan\b|venobold|\bgre\b|\bhemo\b|\bmerge\b|\bffe\b|\bfl2d|\bmedic\b")),
    ("perfusion", "is perfusion or functional", re.compile(r"\b(perf\w*|pwi|dsc|dce|asl|bold|fmri|epi|resting)\b")),
    ("angiography", "is an angiography", re.compile(r"\b(tof|mra|mrv|angio\w*|phase contrast|pc3d)\b")),
    ("t1", "is T1-weighted", re.compile(r"\bt1|mprage|mp2rage|\bspgr\b|bravo|\btfl3d")),
    ("proton_density", "is proton-density-weighted", re.compile(r"\bpd\b|\bpdw?\b|proton dens\w*|\brho\b")),
)  # fmt: skip


def exclusions(facts: SeriesFacts) -> Iterator[Reason]:
    """Yield the reasons particular to MR not to read the series."""
    header = facts.header
    measured = list(_by_parameters(header))
    yield from measured
    if measured:
        return
    named = _by_words(header)
    weighted = _is_t2_weighted(header)
    if named is not None and not (weighted and named.code in ("t1", "proton_density")):
        yield named
    elif weighted is None and not _T2_WORDS.search(_own_words(header)):
        yield reason("weighting_unknown", "has no echo and repetition time, and its description does not say T2")


def score(facts: SeriesFacts) -> Iterator[tuple[float, Reason]]:
    """Yield points, each with its reason, for what makes a T2 series the better one."""
    header = facts.header
    if _is_t2_weighted(header):
        yield 2.0, reason("t2_by_parameters", f"TE {header.echo_time_ms:.0f} ms, TR {header.repetition_time_ms:.0f} ms")
    else:
        yield 0.0, reason("t2_by_description", "T2 by its description alone")
    if "SE" in header.scanning_sequence and (header.echo_train_length or 0) > 1:
        yield 1.0, reason("turbo_spin_echo", f"turbo spin echo, {header.echo_train_length} echoes")
    if header.echo_time_ms and header.echo_time_ms > 200 and header.mr_acquisition_type != "3D":
        yield -1.0, reason("heavy_t2", "heavily T2-weighted")
    if re.search(r"\b(fs|fat ?sat|spair|spir|dixon)\b", _own_words(header)):
        yield -0.5, reason("fat_suppressed", "fat-suppressed by its description")
    if header.contrast_agent:
        yield -0.5, reason("contrast", "made after contrast agent")


def _by_parameters(header: Header) -> Iterator[Reason]:
    """What the acquisition parameters rule out."""
    sequence, types = set(header.scanning_sequence), {t.upper() for t in header.image_type}
    if types & {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"} or any(t.startswith("PHASE") for t in types):
        yield reason("not_magnitude", f"is not a magnitude image (image type {'/'.join(header.image_type)})")
    if types & {"ADC", "DIFFUSION", "TRACEW", "FA", "EADC", "TENSOR"} or (header.b_value or 0) > 0:
        yield reason("diffusion", "is diffusion-weighted or a map of it")
    if "EP" in sequence:
        yield reason("epi", "is echo-planar")
    elif "GR" in sequence and "SE" not in sequence:
        yield reason("gradient_echo", "is a gradient echo")
    yield from _inversion(header, sequence)
    yield from _weighting(header)


def _inversion(header: Header, sequence: set[str]) -> Iterator[Reason]:
    inversion_ms = header.inversion_time_ms or 0.0
    if inversion_ms >= _FLAIR_INVERSION_MS and (header.echo_time_ms or 100.0) >= MIN_ECHO_MS:
        yield reason("flair", f"is a FLAIR: inversion time {inversion_ms:.0f} ms")
    elif inversion_ms > 0 or "IR" in sequence:
        yield reason("inversion_recovery", "is an inversion recovery (FLAIR, STIR or T1)")


def _weighting(header: Header) -> Iterator[Reason]:
    echo_ms, repetition_ms = header.echo_time_ms, header.repetition_time_ms
    if not echo_ms or not repetition_ms:
        return
    if repetition_ms < MIN_REPETITION_MS and echo_ms < MIN_ECHO_MS:
        yield reason("t1", f"is T1-weighted or a gradient echo: TR {repetition_ms:.0f} ms, TE {echo_ms:.0f} ms")
    elif echo_ms < MIN_ECHO_MS:
        yield reason("proton_density", f"is proton-density-weighted: TE {echo_ms:.0f} ms, below {MIN_ECHO_MS:.0f}")
    elif repetition_ms < MIN_REPETITION_MS:
        yield reason("weighting", f"is not T2-weighted: TR {repetition_ms:.0f} ms, below {MIN_REPETITION_MS:.0f}")
    elif echo_ms > MAX_ECHO_MS:
        yield reason("weighting", f"is a cisternography: TE {echo_ms:.0f} ms, above {MAX_ECHO_MS:.0f}")


def _is_t2_weighted(header: Header) -> bool | None:
    """True or False by TE and TR; None when the header has none."""
    if not header.echo_time_ms or not header.repetition_time_ms:
        return None
    return MIN_ECHO_MS <= header.echo_time_ms <= MAX_ECHO_MS and header.repetition_time_ms >= MIN_REPETITION_MS


def _own_words(header: Header) -> str:
    return f"{header.series_description} | {header.protocol_name} | {header.sequence_name}".lower().replace("_", " ")


def _by_words(header: Header) -> Reason | None:
    words = _own_words(header)
    for code, what, pattern in _NAMED:
        if pattern.search(words):
            return reason(code, f"{what} by its description")
    return None
