"""The bytes of a received instance: its file meta information, written by us, and the few attributes that name it.

The data set itself is never decoded here; what the sender sent is what the file holds.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.errors import Corrupt

IMPLEMENTATION_CLASS_UID = "2.25.253907217311637464131427230347128264061"
IMPLEMENTATION_VERSION_NAME = "FALX_1"
MANUFACTURER = "falx"

FOR_ANALYSIS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4",  # MR
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    }
)

_SOP_CLASS, _SOP_INSTANCE, _MODALITY, _MAKER = 0x00080016, 0x00080018, 0x00080060, 0x00080070
_EQUIPMENT, _STUDY, _SERIES = 0x0018A001, 0x0020000D, 0x0020000E
_WANTED = [_SOP_CLASS, _SOP_INSTANCE, _MODALITY, _MAKER, _EQUIPMENT, _STUDY, _SERIES]
_HEAD_BYTES = 1 << 20
_UID_CHARACTERS = frozenset("0123456789.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What an instance says it is."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str
    made_by_falx: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What falx writes in front of a received data set, and can read back when the index is lost."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    remote_host: str

    def encode(self, size_bytes: int, sha256: str) -> bytes:
        """Return preamble, prefix and File Meta Information (PS3.10 section 7.1) for a data set.

        Besides the required elements it holds who sent the instance and whence (0002,0016), (0002,0018), (0002,0026),
        and as private information (0002,0102) the length and hash of the data set's bytes.
        """
        body = (
            _element(0x0001, b"OB", b"\0\1")
            + _element(0x0002, b"UI", self.sop_class_uid.encode("ascii", "replace"))
            + _element(0x0003, b"UI", self.sop_instance_uid.encode("ascii", "replace"))
            + _element(0x0010, b"UI", self.transfer_syntax_uid.encode("ascii"))
            + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode())
            + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode())
            + _element(0x0016, b"AE", self.calling_ae.encode("ascii", "replace"))
            + _element(0x0018, b"AE", self.called_ae.encode("ascii", "replace"))
            + _element(0x0026, b"UR", f"dicom://{self.remote_host}".encode("ascii", "replace"))
            + _element(0x0100, b"UI", IMPLEMENTATION_CLASS_UID.encode())
            + _element(0x0102, b"OB", f"{size_bytes} {sha256}".encode())
        )
        return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(body))) + body


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"AE":
        value = value.replace(b"\\", b"_")  # not allowed in a title, and would part it in two
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    if vr in (b"OB", b"UR"):
        return struct.pack("<HH2sHI", 2, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def read_names(dataset: BinaryIO, transfer_syntax_uid: str) -> Names:
    """Read an encoded data set's head; raise Corrupt with the reason when it does not say what it is.

    Parameters
    ----------
    dataset
        The data set's bytes without file meta; read from its present position to (0020,000E) at most.
    transfer_syntax_uid
        How they are encoded.
    """
    # pydicom raises whatever broken bytes lead to, also late, when a value is converted; it all means the same
    try:
        return _names(_read_head(dataset, transfer_syntax_uid))
    except (
        BytesLengthException, InvalidDicomError, struct.error, EOFError, OSError, ValueError, TypeError, KeyError,
        AttributeError, NotImplementedError, IndexError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise Corrupt(f"the data set cannot be read: {type(error).__name__}") from error


def _names(head: Dataset) -> Names:
    uids = {}
    for tag, name in (
        (_STUDY, "StudyInstanceUID"),
        (_SERIES, "SeriesInstanceUID"),
        (_SOP_INSTANCE, "SOPInstanceUID"),
        (_SOP_CLASS, "SOPClassUID"),
    ):
        uids[tag] = _text(head, tag)
        problem = uid_problem(uids[tag])
        if problem:
            raise Corrupt(f"{name} {problem}")
    return Names(
        study_instance_uid=uids[_STUDY],
        series_instance_uid=uids[_SERIES],
        sop_instance_uid=uids[_SOP_INSTANCE],
        sop_class_uid=uids[_SOP_CLASS],
        modality=_text(head, _MODALITY)[:16],
        made_by_falx=_is_ours(head),
    )


def uid_problem(uid: str) -> str:
    """Say why ``uid`` cannot name anything; empty when it can.

    Components with leading zeros and the like are against PS3.5 section 9.1 yet sent by scanners in use: they pass.
    """
    if not uid:
        return "is missing"
    if len(uid) > 64:
        return f"is longer than 64 characters ({len(uid)})"
    if not set(uid) <= _UID_CHARACTERS:
        return "holds characters other than digits and dots"
    return ""


def read_file(path: Path) -> tuple[FileMeta, int, Names]:
    """Read a spooled file's meta information, the offset in bytes of its data set, and its names.

    Raises
    ------
    Corrupt
        The file is not a Part 10 file, is cut short, or does not say what it is.
    """
    try:
        with path.open("rb") as file:
            head = read_partial(file, stop_when=lambda tag, _vr, _length: True)
            meta, offset = head.file_meta, _dataset_offset(path)
            syntax = str(meta.TransferSyntaxUID)
            file.seek(offset)
            names = read_names(file, syntax)
    except (InvalidDicomError, AttributeError, struct.error, EOFError, OSError) as error:
        raise Corrupt(f"not a readable DICOM file: {type(error).__name__}") from error
    found = FileMeta(
        sop_class_uid=names.sop_class_uid,
        sop_instance_uid=names.sop_instance_uid,
        transfer_syntax_uid=syntax,
        calling_ae=str(meta.get("SourceApplicationEntityTitle", "") or ""),
        called_ae=str(meta.get("ReceivingApplicationEntityTitle", "") or ""),
        remote_host=str(meta.get("SourcePresentationAddress", "") or "").removeprefix("dicom://"),
    )
    return found, offset, names


def promised_content(path: Path) -> tuple[int, str] | None:
    """Return a spooled file's whole length in bytes and its data set's SHA-256, as its meta information promises.

    None when the file is not one of ours, or is cut short within the meta information.
    """
    try:
        with path.open("rb") as file:
            meta = read_partial(file, stop_when=lambda _tag, _vr, _length: True).file_meta
        if meta.get("PrivateInformationCreatorUID") != IMPLEMENTATION_CLASS_UID:
            return None
        size, sha256 = bytes(meta.PrivateInformation).decode("ascii").split()
        return _dataset_offset(path) + int(size), sha256
    except (Corrupt, InvalidDicomError, AttributeError, struct.error, EOFError, OSError, ValueError):
        return None


def _dataset_offset(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(132)
        group, element, _vr, _length, size = struct.unpack("<HH2sHI", file.read(12))
    if (group, element) != (2, 0):
        raise Corrupt("the file meta information has no group length")
    return int(132 + 12 + size)


def _read_head(dataset: BinaryIO, transfer_syntax_uid: str) -> Dataset:
    syntax = UID(transfer_syntax_uid)
    if syntax == DeflatedExplicitVRLittleEndian:
        dataset = BytesIO(_inflate_head(dataset.read()))
    return read_dataset(
        dataset,
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
        stop_when=_after_series_uid,
        specific_tags=[Tag(tag) for tag in _WANTED],
    )


def _after_series_uid(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _SERIES


def _inflate_head(deflated: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, _HEAD_BYTES)
    except zlib.error as error:
        raise Corrupt("the deflated data set cannot be inflated") from error


def _text(head: Dataset, tag: int) -> str:
    element = head.get(Tag(tag))
    if element is None or element.value is None:
        return ""
    value = element.value
    return str(value).strip(" \0") if isinstance(value, str) else ""


def _is_ours(head: Dataset) -> bool:
    if _text(head, _MAKER).lower() == MANUFACTURER:
        return True
    equipment = head.get(Tag(_EQUIPMENT))
    if equipment is None or equipment.VR != "SQ":
        return False
    return bool(any(_text(item, _MAKER).lower() == MANUFACTURER for item in equipment.value or ()))
