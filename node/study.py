"""Words of the pipeline: UIDs, states and the one table of transitions for each kind of thing that has a state.

Pure values; knows no disk and no database.
"""

from __future__ import annotations

from enum import StrEnum

from node.errors import FalxError


class SeriesState(StrEnum):
    """Reception of one series."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    LATE = "late"  # an instance came, or was refused, after completion; completes again as a new version


class TaskState(StrEnum):
    """One (study, model, version)."""

    WAITING = "waiting"
    ANALYSED = "analysed"
    UNDETERMINED = "undetermined"
    UNSUITABLE = "unsuitable"
    FAILED = "failed"


class DeliveryState(StrEnum):
    """One (object, destination)."""

    QUEUED = "queued"
    SENT = "sent"
    CONFIRMED = "confirmed"
    DEAD = "dead"


class ConfirmedBy(StrEnum):
    """How a delivery was confirmed, strongest first."""

    STORAGE_COMMITMENT = "storage-commitment"
    C_FIND = "c-find"
    ACCEPTED = "accepted"


class ObjectKind(StrEnum):
    """Kinds of result object."""

    SR = "SR"
    SC = "SC"
    KO = "KO"
    PM = "PM"


class Priority(StrEnum):
    """Reporting priority of a study, as the order says (PS3.3 C.4.11 Requested Procedure Priority)."""

    STAT = "stat"
    ROUTINE = "routine"


CT_HAEMORRHAGE = "ct_haemorrhage"
MR_ABNORMALITY = "mr_abnormality"
MODALITY_OF = {CT_HAEMORRHAGE: "CT", MR_ABNORMALITY: "MR"}
"""What a model reads, by its purpose."""

TRANSITIONS: dict[type[StrEnum], dict[StrEnum, frozenset[StrEnum]]] = {
    SeriesState: {
        SeriesState.RECEIVING: frozenset({SeriesState.COMPLETE}),
        SeriesState.COMPLETE: frozenset({SeriesState.LATE}),
        SeriesState.LATE: frozenset({SeriesState.COMPLETE}),
    },
    TaskState: {
        TaskState.WAITING: frozenset(
            {TaskState.ANALYSED, TaskState.UNDETERMINED, TaskState.UNSUITABLE, TaskState.FAILED}
        ),
        TaskState.FAILED: frozenset(),  # `falx retry` makes a new version, so that no UID names two contents
        TaskState.ANALYSED: frozenset(),
        TaskState.UNDETERMINED: frozenset(),
        TaskState.UNSUITABLE: frozenset(),
    },
    DeliveryState: {
        DeliveryState.QUEUED: frozenset({DeliveryState.SENT, DeliveryState.DEAD}),
        DeliveryState.SENT: frozenset({DeliveryState.CONFIRMED, DeliveryState.QUEUED, DeliveryState.DEAD}),
        DeliveryState.DEAD: frozenset({DeliveryState.QUEUED}),  # `falx retry`
        DeliveryState.CONFIRMED: frozenset(),
    },
}


def check_transition(old: StrEnum, new: StrEnum) -> None:
    """Raise FalxError unless the table of the state's kind allows ``old`` -> ``new``."""
    if new not in TRANSITIONS[type(old)][old]:
        raise FalxError(f"{type(old).__name__}: {old} -> {new} is not allowed")
