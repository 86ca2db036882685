"""The label names that every file, table, page and DICOM object of falx uses.

Definitions are in ``docs/labels.md``; the first eight labels are those of Wood et al., Eur Radiol 2022,
haemorrhage and hydrocephalus are falx's own.
"""

from __future__ import annotations

REPORT_LABELS: tuple[str, ...] = (
    "abnormal",
    "acute_stroke",
    "mass",
    "atrophy",
    "vascular",
    "small_vessel_disease",
    "white_matter_inflammation",
    "encephalomalacia",
    "intracranial_haemorrhage",
    "hydrocephalus",
)
PUBLISHED_LABELS: tuple[str, ...] = REPORT_LABELS[:8]
HAEMORRHAGE_KINDS: tuple[str, ...] = (
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
    "extradural",
)
ALL_LABELS: tuple[str, ...] = REPORT_LABELS + HAEMORRHAGE_KINDS

_ALIASES: dict[str, str] = {
    "haemorrhage": "intracranial_haemorrhage",
    "hemorrhage": "intracranial_haemorrhage",
    "intracranial_hemorrhage": "intracranial_haemorrhage",
    "any": "intracranial_haemorrhage",
    "epidural": "extradural",
}


def canonical(name: str) -> str | None:
    """Return the canonical label for a column or field name, or None when it is no label of falx."""
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    key = _ALIASES.get(key, key)
    return key if key in ALL_LABELS else None
