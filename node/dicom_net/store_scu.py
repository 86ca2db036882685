"""Sending one stored object on an open association, and what its answer means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pydicom
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from node.dicom_net.scu import AssociationLost

_PROFILE_KEYS = {
    "1.2.840.10008.5.1.4.1.1.88.34": "sr: comprehensive (or enhanced)",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.33": "sr: enhanced",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.22": "sr: comprehensive (or comprehensive-3d)",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.59": "key_objects: false",  # Key Object Selection
    "1.2.840.10008.5.1.4.1.1.7.4": "heatmap: single-frame (or none)",  # Multi-frame True Color SC
    "1.2.840.10008.5.1.4.1.1.7": "heatmap: multi-frame (or none)",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.30": "parametric_map: false",  # Parametric Map
}
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_PROCESSING_FAILURE = 0x0110


class Answer(Enum):
    """What becomes of an object after it was offered."""

    SENT = "sent"  # Success or a warning
    LATER = "later"  # the peer cannot now: try this object again
    REFUSED = "refused"  # the peer never will: dead, and the others go on


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """The answer to one object. ``status`` is 0xNNNN, empty when it was not even offered."""

    answer: Answer
    status: str = ""
    text: str = ""


def storage_contexts(objects: Iterable[tuple[str, str]]) -> list[PresentationContext]:
    """Return the contexts to propose for objects given as (SOP class, transfer syntax as stored).

    Each transfer syntax has its own context, so that the peer's answer tells all it takes: as stored, and both
    uncompressed ones to fall back to.
    """
    wanted: dict[tuple[str, str], None] = {}
    for sop_class, syntax in objects:
        wanted[sop_class, syntax] = None
    for sop_class, _syntax in list(wanted):
        for plain in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
            wanted[sop_class, str(plain)] = None
    return [build_context(sop_class, syntax) for sop_class, syntax in wanted]


def stored_syntax(path: Path) -> str:
    """Return a file's transfer syntax."""
    return str(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID)


def send_object(opened: Association, path: Path, sop_class_uid: str, message_id: int = 1) -> SendResult:
    """C-STORE one file: the bytes as they are when the peer takes their transfer syntax, uncompressed otherwise.

    Raises
    ------
    AssociationLost
        No answer came.
    """
    accepted = {
        str(context.transfer_syntax[0])
        for context in opened.accepted_contexts
        if context.abstract_syntax == sop_class_uid and context.as_scu
    }
    if not accepted:
        return SendResult(answer=Answer.REFUSED, text=_not_negotiated(sop_class_uid))
    _config.STORE_SEND_CHUNKED_DATASET = True  # a path is then sent as its bytes
    syntax = stored_syntax(path)
    try:
        if syntax in accepted and _meta_is_right(path):
            status = opened.send_c_store(path, msg_id=message_id)
        else:
            dataset = pydicom.dcmread(path)
            if syntax not in accepted and UID(syntax).is_compressed and UID(syntax).is_encapsulated:
                dataset.decompress(generate_instance_uid=False)
            status = opened.send_c_store(dataset, msg_id=message_id)
    except RuntimeError as error:  # not established any more
        raise AssociationLost("the association ended") from error
    except (ValueError, AttributeError, NotImplementedError) as error:
        return SendResult(
            answer=Answer.REFUSED, text=f"cannot be sent in a transfer syntax that the peer takes: {str(error)[:150]}"
        )
    return judge(status.get("Status"))


def _meta_is_right(path: Path) -> bool:
    """Whether the file meta names the object it holds; de-identified files often do not, and the data set counts."""
    head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    meta = head.file_meta
    return (meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID")) == (
        head.get("SOPClassUID"),
        head.get("SOPInstanceUID"),
    )


def judge(status: int | None) -> SendResult:
    """Return what a C-STORE status means (PS3.4 table B.2-1, PS3.7 annex C)."""
    if status is None:
        raise AssociationLost("no answer to C-STORE")
    code = f"0x{status:04X}"
    if status == 0x0000:
        return SendResult(answer=Answer.SENT, status=code)
    if status in (0x0001, 0x0107, 0x0116) or status & 0xF000 == 0xB000:
        return SendResult(answer=Answer.SENT, status=code, text=f"accepted with warning {code}")
    if status in _OUT_OF_RESOURCES:
        return SendResult(answer=Answer.LATER, status=code, text=f"the peer is out of resources ({code})")
    if status == _PROCESSING_FAILURE:
        return SendResult(answer=Answer.LATER, status=code, text=f"the peer could not process it now ({code})")
    words = {
        0x0122: "SOP class not supported",
        0x0124: "not authorised",
        0x0117: "invalid object instance",
    }.get(status, {0xA: "data set does not match SOP class", 0xC: "cannot understand"}.get(status >> 12, "refused"))
    return SendResult(answer=Answer.REFUSED, status=code, text=f"the peer refused it: {words} ({code})")


def _not_negotiated(sop_class_uid: str) -> str:
    key = _PROFILE_KEYS.get(sop_class_uid)
    advice = f"; set `{key}` for this destination, or enable the class at the peer" if key else ""
    return f"the peer does not accept {UID(sop_class_uid).name}{advice}"
