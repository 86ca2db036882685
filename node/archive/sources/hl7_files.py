"""Reports in HL7 v2 ORU messages: files of one or many messages, with or without MLLP framing.

``columns`` says where falx's fields stand, as ``SEGMENT-field`` or ``SEGMENT-field.component``. The text is OBX-5 of
all text OBX of one OBR; OBX-3 with the suffix IMP, GDT, ADT or REC (HL7 v2.x, chapter 7) gives it headings.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path

import hl7

from node.archive.sources.cells import as_text, as_time, modality_of, status_of
from node.archive.sources.columns import checked
from node.archive.sources.folder import FolderSource
from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.labels_values import Flagged, Report

DEFAULT_PLACES = {
    "report_id": "OBR-3.1",
    "accession_number": "OBR-18",
    "study_instance_uid": "ZDS-1.1",
    "modality": "OBR-24",
    "reported_at": "OBR-22",
    "status": "OBR-25",
}
MAX_FILE_BYTES = 256 * 1024 * 1024
_PLACE = re.compile(r"^([A-Z][A-Z0-9]{2})-(\d{1,3})(?:\.(\d{1,3}))?$")
_START = re.compile(rb"(?:^|(?<=[\r\n\x0b]))MSH(?=[^\w\s])")
_CHARSETS = {"UNICODE UTF-8": "utf-8", "UTF-8": "utf-8", "8859/1": "latin-1", "8859/15": "iso8859-15", "ASCII": "ascii"}
_HEADINGS = {"IMP": "Impression", "GDT": "Findings", "ADT": "Addendum", "REC": "Recommendation"}
_TEXT_TYPES = ("TX", "FT", "ST", "")
_OBX_DELETED = ("D", "W", "X")


class Hl7Folder(FolderSource):
    """A message may hold several reports (OBR); each is one."""

    suffixes = (".hl7", ".oru", ".txt", ".msg", ".dat")

    def __init__(self, archive: ArchiveSettings, location: Path | None = None) -> None:
        super().__init__(archive, location)
        self.places = {
            name: _place(archive, name, place) for name, place in {**DEFAULT_PLACES, **archive.columns}.items()
        }

    def records(self, path: Path, key: str) -> Iterator[Report | Flagged]:
        """Read one file."""
        if path.stat().st_size > MAX_FILE_BYTES:
            raise OSError(f"larger than {MAX_FILE_BYTES} bytes")
        content = path.read_bytes()
        starts = [found.start() for found in _START.finditer(content)]
        if not starts:
            yield Flagged(source_position=key, code="unreadable_file", text="no HL7 message in it", ends_part=True)
            return
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(content)], strict=True), start=1):
            yield from self.message(content[start:end].strip(b"\x0b\x1c\r\n"), f"{key}, message {number}")

    def message(self, content: bytes, position: str) -> Iterator[Report | Flagged]:
        """The reports of one message."""
        flags: list[str] = []
        try:
            parsed = hl7.parse(_decoded(content, flags).replace("\r\n", "\r").replace("\n", "\r"))
            groups = list(_groups(parsed))
        except (hl7.HL7Exception, IndexError, ValueError) as error:
            yield Flagged(
                source_position=position, code="unreadable_row", text=f"no HL7 message: {type(error).__name__}"
            )
            return
        if not groups:
            yield Flagged(source_position=position, code="no_report", text="the message holds no OBR segment")
        for number, group in enumerate(groups, start=1):
            yield self._report(parsed, group, f"{position}, OBR {number}" if len(groups) > 1 else position, flags)

    def _report(
        self, message: hl7.Message, group: list[hl7.Segment], position: str, flags: list[str]
    ) -> Report | Flagged:
        cells = {name: _cell(message, group, place) for name, place in self.places.items()}
        texts, other = _texts(message, group)
        if not texts:
            text = "only encapsulated documents (a PDF?)" if other else "no OBX with text"
            return Flagged(source_position=position, code="no_text", text=text)
        mended = list(flags)
        time, is_read = as_time(cells["reported_at"] or _cell(message, group, ("MSH", 7, None)))
        return checked(
            Report(
                report_id=cells["report_id"],
                accession_number=cells["accession_number"],
                study_instance_uid=cells["study_instance_uid"],
                text=as_text("\n".join(texts), mended),
                modality=modality_of(cells["modality"]) or self.archive.modality,
                reported_at=time,
                status=status_of(cells["status"]),
                source_position=position,
                flags=tuple(dict.fromkeys(mended if is_read else [*mended, "bad_time"])),
            )
        )


def _place(archive: ArchiveSettings, name: str, place: str) -> tuple[str, int, int | None]:
    found = _PLACE.match(place)
    if name not in DEFAULT_PLACES or found is None:
        raise Misconfigured(
            f"archives.{archive.name}.columns.{name}: {place!r} is no place in an HL7 message; write SEGMENT-field "
            f"or SEGMENT-field.component (OBR-18, ZDS-1.1) for {', '.join(DEFAULT_PLACES)}"
        )
    segment, field, component = found.groups()
    return segment, int(field), int(component) if component else None


def _decoded(content: bytes, flags: list[str]) -> str:
    """The message as text, in the character set that MSH-18 names, else UTF-8, else Windows-1252."""
    header = content.split(b"\r", 1)[0].split(b"\n", 1)[0].split(content[3:4])
    named = header[17].decode("ascii", "replace").split("~")[0].strip() if len(header) > 17 else ""
    charset = _CHARSETS.get(named, "utf-8")
    return as_text(content.decode(charset, "surrogateescape"), flags)


def _groups(message: hl7.Message) -> Iterator[list[hl7.Segment]]:
    """Each OBR with what follows it, and before it what the whole message shares (MSH, PID, ORC)."""
    shared: list[hl7.Segment] = []
    group: list[hl7.Segment] = []
    for segment in message:
        name = str(segment[0])
        if name == "OBR" and group:
            yield shared + group
            group = []
        (group if group or name == "OBR" else shared).append(segment)
    if group:
        yield shared + group


def _cell(message: hl7.Message, group: list[hl7.Segment], place: tuple[str, int, int | None]) -> str:
    name, field, component = place
    for segment in group:
        if str(segment[0]) == name and len(segment) > field:
            text = str(segment[field]).split("~")[0]
            parts = text.split("^")
            number = component or 1
            return message.unescape(parts[number - 1]).strip() if len(parts) >= number else ""
    return ""


def _texts(message: hl7.Message, group: list[hl7.Segment]) -> tuple[list[str], bool]:
    """The lines of the report, with headings, and whether there were contents that are no text."""
    lines: list[str] = []
    other, heading = False, ""
    for segment in group:
        if str(segment[0]) != "OBX" or len(segment) < 6 or (len(segment) > 11 and str(segment[11]) in _OBX_DELETED):
            continue
        kind, raw = str(segment[2]), str(segment[5])
        if kind in _TEXT_TYPES:
            line = message.unescape(raw.replace("~", "\r")).replace("\r", "\n")
        else:
            line = _encapsulated(raw) if kind == "ED" else ""
            other = other or not line
        suffix = str(segment[3]).upper().split("^")[0].rpartition("&")[2]
        if line.strip() and suffix in _HEADINGS and suffix != heading:
            line, heading = f"{_HEADINGS[suffix]}: {line}", suffix
        lines.append(line)
    return (lines if any(line.strip() for line in lines) else []), other


def _encapsulated(raw: str) -> str:
    """The text of an ED value (source ^ type ^ subtype ^ encoding ^ content) when it is plain text."""
    parts = raw.split("^")
    if len(parts) < 5 or "TEXT" not in (parts[1] + parts[2]).upper():
        return ""
    if parts[3].upper() != "BASE64":
        return parts[4]
    try:
        return base64.b64decode(parts[4], validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error:
        return ""
