"""UIDs that are functions of what they name: the same input always gives the same objects (ADR 0017).

Every UID is ``2.25.`` and a name-based UUID (RFC 9562 version 5) as an integer, PS3.5 B.2.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable

from dicom_sr.request import ResultRequest, Role
from inference.result import ModelId

ENCODER_VERSION = "1"
"""Raise when the same request would give other bytes: new bytes need new UIDs."""

_NAMESPACE = uuid.UUID("6b3f3c0e-6a0d-5d5c-9a55-0f6f2f0a7b11")


def uid_of(*parts: str | int | None) -> str:
    """Return a UID that depends on each part and its place; ``2.25.`` and at most 39 digits."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts)).int}"


def input_key(model: ModelId, operating_point: str, calibration_id: str, sources: Iterable[tuple[str, str]]) -> str:
    """Return the key of a computation: which weights, read how, on which bytes.

    Parameters
    ----------
    sources
        ``(SOP Instance UID, sha256 of the content)`` in any order; a pair given twice counts once.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    document = [model.name, model.weights_sha256, operating_point, calibration_id, sorted(set(map(tuple, sources)))]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def device_uid(model: ModelId) -> str:
    """Return the Device UID (0018,1002): each set of weights is a device of its own (IHE AIR 6.5.3.1)."""
    return uid_of("device", model.weights_sha256)


def tracking_uid(study_instance_uid: str, finding: str, model: ModelId, place: str = "") -> str:
    """Return the Tracking Unique Identifier of a finding: the same in every version of a study's result.

    ``place`` tells the finding on one slice from that of the study.
    """
    return uid_of("tracking", study_instance_uid, finding, model.name, place)


def object_uid(request: ResultRequest, role: Role, sop_class_uid: str, index: int = 0) -> str:
    """Return the SOP Instance UID of a result's object."""
    return uid_of("object", *_version(request), role, sop_class_uid, request.profile.id, index)


def series_uid(request: ResultRequest, role: Role) -> str:
    """Return the Series Instance UID of a result's objects of one role."""
    return uid_of("series", *_version(request), role, request.profile.id)


def _version(request: ResultRequest) -> tuple[str | None, ...]:
    """Return what tells one result of the same input from another.

    The same images may first fail and then succeed, or be called incomplete and then complete: other answers, which
    a PACS must not take for the first one.
    """
    return (
        request.sources[0].StudyInstanceUID,
        request.input_key,
        ENCODER_VERSION,
        request.purpose,
        request.outcome,
        request.reason.code if request.reason else None,
        "possibly incomplete" if request.possibly_incomplete else None,
        request.predecessor.sop_instance_uid if request.predecessor else None,
    )
