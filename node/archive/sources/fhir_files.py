"""Reports in FHIR DiagnosticReport resources: JSON (one resource or a Bundle) and NDJSON (bulk export), R4 and R5.

The text is the plain or HTML ``presentedForm``, else the narrative, followed by ``conclusion`` where that is not in it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from node.archive.sources.cells import as_text, as_time, modality_of, status_of
from node.archive.sources.columns import checked
from node.archive.sources.folder import FolderSource, open_text
from node.archive.sources.jsonl_files import json_lines
from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.labels_values import Flagged, Report

MAX_FILE_BYTES = 256 * 1024 * 1024
_UID = re.compile(r"^(?:urn:oid:)?([0-2](?:\.\d+)+)$")
_WITHDRAWN = ("entered-in-error", "cancelled")


class FhirFolder(FolderSource):
    """DiagnosticReports; other resources of a Bundle are passed over."""

    suffixes = (".json", ".ndjson", ".ndjson.gz", ".jsonl")

    def __init__(self, archive: ArchiveSettings) -> None:
        super().__init__(archive)
        if archive.columns:
            raise Misconfigured(f"archives.{archive.name}.columns: FHIR resources need no mapping; take it out")

    def records(self, path: Path, key: str) -> Iterator[Report | Flagged]:
        """Read one file."""
        for number, resource in enumerate(self._resources(path, key), start=1):
            if isinstance(resource, Flagged):
                yield resource
            elif resource.get("resourceType") == "DiagnosticReport":
                yield self.report(resource, f"{key}, resource {number}")

    def _resources(self, path: Path, key: str) -> Iterator[dict[str, Any] | Flagged]:
        if not path.name.endswith(".json"):
            yield from json_lines(path, key)
            return
        if path.stat().st_size > MAX_FILE_BYTES:
            raise OSError(f"larger than {MAX_FILE_BYTES} bytes: export as NDJSON")
        with open_text(path) as stream:
            try:
                content = json.load(stream)
            except (ValueError, RecursionError):
                content = None
        if not isinstance(content, dict):
            yield Flagged(source_position=key, code="unreadable_file", text="no FHIR resource", ends_part=True)
        elif content.get("resourceType") == "Bundle":
            yield from (
                entry["resource"] for entry in content.get("entry", []) if isinstance(entry.get("resource"), dict)
            )
        else:
            yield content

    def report(self, resource: dict[str, Any], position: str) -> Report | Flagged:
        """One DiagnosticReport as a report."""
        try:
            return self._report(resource, position)
        except (TypeError, AttributeError, KeyError, IndexError) as error:
            return Flagged(
                source_position=position, code="unreadable_row", text=f"no DiagnosticReport: {type(error).__name__}"
            )

    def _report(self, resource: dict[str, Any], position: str) -> Report | Flagged:
        state = resource.get("status", "")
        if state in _WITHDRAWN:
            return Flagged(source_position=position, code="withdrawn", text=f"status {state}")
        flags: list[str] = []
        text = _text(resource, flags)
        if not text.strip():
            return Flagged(
                source_position=position, code="no_text", text="no presentedForm, narrative or conclusion in text"
            )
        time, is_read = as_time(resource.get("issued") or resource.get("effectiveDateTime"))
        return checked(
            Report(
                report_id=resource.get("id", ""),
                accession_number=_accession(resource),
                study_instance_uid=_study_uid(resource),
                text=text,
                modality=_modality(resource) or self.archive.modality,
                reported_at=time,
                status=status_of(state),
                source_position=position,
                flags=tuple(dict.fromkeys(flags if is_read else [*flags, "bad_time"])),
            )
        )


def _text(resource: dict[str, Any], flags: list[str]) -> str:
    body = ""
    for form in resource.get("presentedForm", []):
        kind = form.get("contentType", "text/plain").split(";")[0].strip()
        if kind in ("text/plain", "text/html") and form.get("data"):
            try:
                content = as_text(base64.b64decode(form["data"], validate=True), flags)
            except binascii.Error:
                flags.append("encoding")
                continue
            body = _without_tags(content) if kind == "text/html" else content
            break
    body = body or _without_tags(as_text(resource.get("text", {}).get("div"), flags))
    conclusion = as_text(resource.get("conclusion"), flags)
    if conclusion.strip() and conclusion.strip() not in body:
        body = f"{body}\nImpression: {conclusion}" if body.strip() else conclusion
    return body


def _accession(resource: dict[str, Any]) -> str:
    """The identifier of type ACSN, of the report or of the order it is based on."""
    identifiers = list(resource.get("identifier", []))
    identifiers += [order["identifier"] for order in resource.get("basedOn", []) if "identifier" in order]
    for identifier in identifiers:
        if any(coding.get("code") == "ACSN" for coding in identifier.get("type", {}).get("coding", [])):
            return str(identifier.get("value", ""))
    return ""


def _study_uid(resource: dict[str, Any]) -> str:
    """Study Instance UID of the imaging study (``imagingStudy`` in R4, ``study`` in R5)."""
    for reference in [*resource.get("imagingStudy", []), *resource.get("study", [])]:
        found = _UID.match(str(reference.get("identifier", {}).get("value", "")))
        if found:
            return found.group(1)
    return ""


def _modality(resource: dict[str, Any]) -> str:
    categories = resource.get("category", [])
    categories = categories if isinstance(categories, list) else [categories]
    codes = [coding.get("code", "") for category in categories for coding in category.get("coding", [])]
    found = [modality_of(code) for code in codes]
    return next((modality for modality in found if modality in ("CT", "MR")), "")


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("br", "p", "div", "li", "tr", "h1", "h2", "h3", "h4"):
            self.words.append("\n")


def _without_tags(html: str) -> str:
    reader = _Words()
    reader.feed(html)
    reader.close()
    return re.sub(r"\n\s*\n+", "\n", "".join(reader.words)).strip()
