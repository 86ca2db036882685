"""Values of the ledger in words for people: labels, ages, states and their colour."""

from __future__ import annotations

from datetime import datetime

from node.study import CT_HAEMORRHAGE, MR_ABNORMALITY, DeliveryState, SeriesState, TaskState

MODELS = {CT_HAEMORRHAGE: "CT haemorrhage", MR_ABNORMALITY: "MR abnormality"}
_TONES: dict[str, str] = {
    TaskState.ANALYSED: "",
    TaskState.UNDETERMINED: "warn",
    TaskState.UNSUITABLE: "warn",
    TaskState.FAILED: "bad",
    DeliveryState.DEAD: "bad",
    DeliveryState.CONFIRMED: "good",
    SeriesState.LATE: "warn",
}


def label(name: str) -> str:
    """``intracranial_haemorrhage`` -> ``intracranial haemorrhage``."""
    return name.replace("_", " ")


def model(name: str) -> str:
    """A model's purpose in words."""
    return MODELS.get(name, label(name))


def tone(state: str) -> str:
    """The colour class of a state."""
    return _TONES.get(state, "")


def age(seconds: float) -> str:
    """``95`` -> ``1 min``, ``7300`` -> ``2 h``, ``200000`` -> ``2 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def span(hours: float) -> str:
    """``0.2`` -> ``12 min``, ``3.25`` -> ``3.2 h``."""
    return f"{round(hours * 60)} min" if hours < 1 else f"{hours:.1f} h"


def moment(at: datetime | None) -> str:
    """A time as the host's clock shows it, with its zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if at else ""


def person(name: str) -> str:
    """A DICOM person name (PS3.5 6.2.1) as read: ``Doe^Jane^^Dr`` -> ``Doe, Jane``."""
    parts = [part.strip() for part in name.split("=", maxsplit=1)[0].split("^")]
    return ", ".join(part for part in parts[:2] if part)


FILTERS = {"label": label, "model": model, "tone": tone, "age": age, "moment": moment, "span": span, "person": person}
