"""What falx says in words, and when: the same verdict in series descriptions, content trees and pictures.

Silence is never an answer, and an incomplete series is never called free of a finding.
"""

from __future__ import annotations

from typing import Literal

from dicom_sr import codes
from dicom_sr.finish import RESEARCH
from dicom_sr.request import Purpose, ResultRequest
from inference.result import Finding

Verdict = Literal["suspected", "not detected", "not analysed"]

LABELS: dict[Purpose, str] = {"ct_haemorrhage": "intracranial_haemorrhage", "mr_abnormality": "abnormal"}
_TITLES: dict[Purpose, str] = {"ct_haemorrhage": "AI ICH", "mr_abnormality": "AI MR"}
_SUBJECTS: dict[Purpose, str] = {"ct_haemorrhage": "", "mr_abnormality": "abnormality "}
_FIRST_SERIES: dict[Purpose, int] = {"ct_haemorrhage": 9000, "mr_abnormality": 9500}
_SERIES_PER_VERSION = 10

BURNED_IN = "AI - RESEARCH - NOT FOR DIAGNOSIS"
DISCLAIMER = "Research use only. Not for clinical use. Unverified algorithm output."


def main_finding(request: ResultRequest) -> Finding | None:
    """Return the finding the task was about, or None when the model gave none."""
    return request.result.findings[0] if request.result and request.result.findings else None


def presence(request: ResultRequest, finding: Finding) -> bool | None:
    """Return whether a finding is present; None when undetermined. Incomplete series never give False."""
    if request.outcome != "analysed" or (request.result and request.result.reason):
        return None
    if finding.present is False and request.possibly_incomplete:
        return None
    return finding.present


def verdict(request: ResultRequest) -> Verdict:
    """Return the task's answer in the words of the series description."""
    finding = main_finding(request)
    present = presence(request, finding) if finding else None
    return "not analysed" if present is None else "suspected" if present else "not detected"


def series_number(request: ResultRequest) -> int:
    """Return the SR's Series Number; each version has its own, so that a reader can tell them apart."""
    before = request.predecessor
    first = _FIRST_SERIES[request.purpose]
    return first if before is None else (before.series_number or first) + _SERIES_PER_VERSION


def headline(request: ResultRequest) -> str:
    """Return the answer in a few words, such as "AI ICH: suspected"."""
    answer = verdict(request)
    subject = "" if answer == "not analysed" else _SUBJECTS[request.purpose]
    return f"{_TITLES[request.purpose]}: {subject}{answer}"


def report_description(request: ResultRequest) -> str:
    """Return the SR's Series Description (LO, at most 64 characters)."""
    text = f"{headline(request)} - {RESEARCH}"
    if request.predecessor is None:
        return text
    number = request.predecessor.series_number or _FIRST_SERIES[request.purpose]
    for replaces in (f" (replaces {number})", f" (repl. {number})"):
        if len(text + replaces) <= 64:
            return text + replaces
    return text


def companion_description(request: ResultRequest, what: str) -> str:
    """Return the Series Description of an object that goes with the SR, such as "heatmap"."""
    return f"{_TITLES[request.purpose]} {what} - {RESEARCH}"


def percent(probability: float) -> float:
    """Return a probability in per cent, to two digits."""
    return round(100.0 * float(probability), 2)


def comments(request: ResultRequest) -> tuple[str, ...]:
    """Return the report's remarks, one sentence or two each; no patient data."""
    found = [DISCLAIMER, f"{_what(request)}: {verdict(request)}.", request.model_note]
    reason = request.reason or (request.result.reason if request.result else None)
    if verdict(request) == "not analysed":
        found.append("This is not a normal result: no statement is made on presence or absence.")
    if reason is not None:
        found.append(f"Reason ({reason.code}): {reason.text}")
    if request.possibly_incomplete:
        found.append("The series is possibly incomplete: absence of a finding is not stated.")
    if request.volume is not None and request.volume.notes:
        found.append(f"Remarks on the images: {', '.join(request.volume.notes)}.")
    if request.predecessor is not None:
        found.append(f"Replaces the earlier result in series {request.predecessor.series_instance_uid}.")
    if not request.unused_series:
        found.append("No other series of the study was left unused.")
    for series in request.unused_series:
        name = f' "{series.description}"' if series.description else ""
        found.append(
            f"Series not used{name} ({series.series_instance_uid}): {series.reason.text} ({series.reason.code})"
        )
    return tuple(found)


def _what(request: ResultRequest) -> str:
    return codes.FINDINGS[LABELS[request.purpose]].text.capitalize()
