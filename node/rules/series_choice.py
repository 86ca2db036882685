"""Which series of a study a model reads, and why not the others. Pure (docs/series.md says it in words)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from inference.result import Reason
from node.config import SeriesRules
from node.rules import ct_series, exclusions, mr_series
from node.rules.facts import SeriesFacts, facts_of, flags_of, reason
from node.study import CT_HAEMORRHAGE, MR_ABNORMALITY

__all__ = ["Candidate", "Choice", "SeriesFacts", "choose_series", "facts_of", "why_none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Purpose:
    modality: str
    exclusions: Callable[[SeriesFacts], Iterator[Reason]]
    score: Callable[[SeriesFacts], Iterator[tuple[float, Reason]]]
    wanted: str


_PURPOSES = {
    CT_HAEMORRHAGE: _Purpose(
        modality="CT",
        exclusions=ct_series.exclusions,
        score=ct_series.score,
        wanted="an axial head CT without contrast in a soft-tissue kernel",
    ),
    MR_ABNORMALITY: _Purpose(
        modality="MR", exclusions=mr_series.exclusions, score=mr_series.score, wanted="an axial T2 of the head"
    ),
}
_MODALITY_ALONE = {"wrong_modality"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One series as judged: every reason against it, or, when eligible, the reasons behind its score."""

    series_instance_uid: str
    description: str
    eligible: bool
    score: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The series to read (None: no series fits), all candidates best first, and coded remarks on the chosen one."""

    chosen: SeriesFacts | None
    candidates: tuple[Candidate, ...]
    flags: tuple[str, ...]


def choose_series(study: Sequence[SeriesFacts], purpose: str, rules: SeriesRules) -> Choice:
    """Judge every series of a study for one model.

    Parameters
    ----------
    purpose
        ``CT_HAEMORRHAGE`` or ``MR_ABNORMALITY`` of node.study.
    """
    judged = [(facts, _judge(facts, _PURPOSES[purpose], rules)) for facts in study]
    # equal scores: the later series (by number, then UID) is the scanner's second, better attempt as often as not;
    # what matters is that the choice does not depend on the order of arrival
    judged.sort(key=lambda pair: _rank(*pair), reverse=True)
    best = judged[0][0] if judged and judged[0][1].eligible else None
    return Choice(
        chosen=best,
        candidates=tuple(candidate for _, candidate in judged),
        flags=flags_of(best) if best else (),
    )


def why_none(choice: Choice, purpose: str) -> Reason:
    """Say why no series fits: by the series that came nearest (fewest reasons against it)."""
    wanted = _PURPOSES[purpose]
    near = [c for c in choice.candidates if {r.code for r in c.reasons}.isdisjoint(_MODALITY_ALONE)]
    if not near:
        return reason("wrong_modality", f"The study holds no {wanted.modality} series.")
    nearest = min(near, key=lambda c: len(c.reasons))
    first = nearest.reasons[0]
    count = "" if len(near) == 1 else f"Nearest of {len(near)} {wanted.modality} series: "
    return reason(first.code, f"No series is {wanted.wanted}. {count}{first.text}")


def _judge(facts: SeriesFacts, purpose: _Purpose, rules: SeriesRules) -> Candidate:
    predicates = list(exclusions.exclusions(facts, purpose.modality, rules))
    if not {r.code for r in predicates} & _MODALITY_ALONE:
        predicates += purpose.exclusions(facts)
    against = [reason(r.code, f"The series {r.text}.") for r in predicates]
    points = [] if against else [*_general_score(facts, rules), *purpose.score(facts)]
    return Candidate(
        series_instance_uid=facts.series_instance_uid,
        description=facts.description,
        eligible=not against,
        score=round(sum(p for p, _ in points), 3),
        reasons=tuple(against) if against else tuple(r for _, r in points),
    )


def _rank(facts: SeriesFacts, candidate: Candidate) -> tuple[bool, float, int, int, str]:
    slices = len(facts.geometry.slices) if facts.geometry else 0
    return (candidate.eligible, candidate.score, slices, facts.header.series_number or 0, facts.series_instance_uid)


def _general_score(facts: SeriesFacts, rules: SeriesRules) -> Iterator[tuple[float, Reason]]:
    geometry = facts.geometry
    if geometry is None:
        return
    step = geometry.spacing_mm or geometry.thickness_mm or 0.0
    low, high = rules.prefer_thickness_mm
    if low <= step <= high:
        yield 1.0, reason("thickness", f"slices {step:.1f} mm apart, as preferred")
    elif step > high:
        yield -1.0, reason("thick", f"slices {step:.1f} mm apart, thicker than preferred")
    if geometry.missing:
        yield -1.5, reason("missing_slices", f"{geometry.missing} slices missing")
    elif not geometry.regular:
        yield -0.25, reason("irregular_spacing", "slices unevenly spaced")
    if geometry.coverage_mm > exclusions.HEAD_COVERAGE_LIMIT_MM:
        yield -8.0, reason("longer_than_a_head", f"{geometry.coverage_mm:.0f} mm: a head is looked for in it")
    yield min(geometry.coverage_mm, 160.0) / 160.0, reason("covers", f"covers {geometry.coverage_mm:.0f} mm")
    if any(re.search(p, facts.description, re.IGNORECASE) for p in rules.prefer_descriptions):
        yield 3.0, reason("preferred_by_rule", "description matches prefer_descriptions")
