"""Why a series of any modality is not read: no image, localizer, derived, no head, child, geometry. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from inference.result import Reason
from node.config import SeriesRules
from node.rules.facts import SeriesFacts, reason

ANALYSABLE_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
}
_HEAD_PARTS = {"HEAD", "BRAIN", "SKULL", "HEADNECK", "NEUROCRANIUM", "CRANIUM", "WHOLEBRAIN", "SELLA", "KOPF", "TETE"}
_PARTS_WITH_HEAD = _HEAD_PARTS | {"WHOLEBODY"}
_HEAD_WORDS = re.compile(
    r"\b(head|brain|skull|crani\w*|cerebr\w*|kopf|sch(ä|ae)del|hirn|c(é|e)r(é|e)br\w*|cr(â|a)ne|neuro)\b"
)
_BODY_WORDS = re.compile(
    r"\b(chest|thora\w*|abdom\w*|pelvi\w*|lung|liver|cardiac|heart|spine|lumb\w*|cervical|c-?spine|t-?spine|l-?spine|"
    r"neck|knee|shoulder|hip|ankle|wrist|prostate|breast|extremit\w*|urogra\w*|colon\w*)\b"
)
_LOCALIZER_WORDS = re.compile(
    r"\b(localizer|localiser|scout|survey|surview|topogram|scano(gram)?|3-?plane|plan scan|loc)\b"
)
_DERIVED_WORDS = re.compile(
    r"\b(mpr|mip|minip|vrt?|3d recon|reformat\w*|curved|subtraction|subtracted|dose|screen ?save|fusion)\b"
)
_PHANTOM_WORDS = re.compile(r"\b(phantom|water cal\w*|daily qa|quality assurance|acr|qc)\b")
_DERIVED_TYPES = {
    "MIP",
    "MINIP",
    "MPR",
    "VRT",
    "VOLUME_RENDERED",
    "PROJECTION IMAGE",
    "REFORMATTED",
    "CSA MIP",
    "CSA MPR",
}
_HEAD_FIELD_LIMIT_MM = 350.0
HEAD_COVERAGE_LIMIT_MM = 400.0
"""A longer series is of more than a head and its neck: the slice-level model looks for the head in it (ADR 0055)."""


def exclusions(facts: SeriesFacts, modality: str, rules: SeriesRules) -> Iterator[Reason]:
    """Yield every reason, common to CT and MR, not to read the series."""
    kind = ANALYSABLE_SOP_CLASSES.get(facts.header.sop_class_uid)
    if kind != modality:
        stated = facts.header.modality or "no modality"
        yield reason("wrong_modality", f"is not a {modality} image series (modality {stated}, or its SOP class)")
        return
    if not facts.header.has_valid_uids:
        yield reason(
            "invalid_uid", "has a SOP, series or study UID that breaks PS3.5 9.1; a report could not refer to it"
        )
    yield from _kind_of_image(facts)
    yield from _body(facts)
    yield from _age(facts, rules)
    yield from _geometry(facts, rules)
    yield from _configured(facts, rules)


def _kind_of_image(facts: SeriesFacts) -> Iterator[Reason]:
    header, types = facts.header, {t.upper() for t in facts.header.image_type}
    if "LOCALIZER" in types or _LOCALIZER_WORDS.search(header.series_description.lower().replace("_", " ")):
        yield reason("localizer", "is a localizer")
    if _is_mosaic(facts):
        yield reason("mosaic", "packs many slices into one picture (mosaic)")
    if types & _DERIVED_TYPES and "ORIGINAL" not in types:
        yield reason("derived", f"is reformatted or projected (image type {'/'.join(header.image_type)})")
    elif "DERIVED" in types and not _only_recompressed(facts):
        yield reason("derived", f"is derived from other images (image type {'/'.join(header.image_type)})")
    elif _DERIVED_WORDS.search(header.series_description.lower().replace("_", " ")):
        yield reason("derived", "is reformatted, projected or a dose page by its description")
    if "SCREEN SAVE" in types or (header.samples_per_pixel or 1) > 1:
        yield reason("colour", "is a colour picture, not a measurement")
    if _PHANTOM_WORDS.search(f"{facts.words} {header.patient_name.lower()}"):
        yield reason("phantom", "is of a phantom by its description")


def _is_mosaic(facts: SeriesFacts) -> bool:
    return not {"MOSAIC", "VFRAME"}.isdisjoint(facts.header.image_type)


def _only_recompressed(facts: SeriesFacts) -> bool:
    """Archives mark an image as derived when they compress it; its pixels still are the scanner's."""
    types = [t.upper() for t in facts.header.image_type]
    return (facts.header.lossy or "compress" in facts.header.derivation_description.lower()) and types[1:2] == [
        "PRIMARY"
    ]


def _body(facts: SeriesFacts) -> Iterator[Reason]:
    part = re.sub(r"[^A-Z]", "", facts.header.body_part.upper())
    if part and not any(part.startswith(head) or head in part for head in _PARTS_WITH_HEAD):
        yield reason("not_a_head", f"is not of the head (body part {facts.header.body_part[:16]})")
        return
    if not part and _BODY_WORDS.search(facts.words) and not _HEAD_WORDS.search(facts.words):
        yield reason("not_a_head", "is not of the head by its description")
        return
    geometry = facts.geometry
    if geometry is None or geometry.tilt_degrees > 45 or _is_mosaic(facts):
        return
    if geometry.coverage_mm > HEAD_COVERAGE_LIMIT_MM:
        return
    if geometry.field_of_view_mm and min(geometry.field_of_view_mm) > _HEAD_FIELD_LIMIT_MM and not part:
        yield reason("not_a_head", f"has the field of view of a body: {geometry.field_of_view_mm[0]:.0f} mm")


def _age(facts: SeriesFacts, rules: SeriesRules) -> Iterator[Reason]:
    age = facts.header.patient_age_years
    if age is not None and age < rules.min_age_years:
        yield reason("child", f"is of a patient younger than {rules.min_age_years:.0f} years")


def _geometry(facts: SeriesFacts, rules: SeriesRules) -> Iterator[Reason]:
    geometry = facts.geometry
    if geometry is None:
        yield reason("missing_position", "no image has Image Position and Orientation (Patient), Rows and Columns")
        return
    if facts.header.pixel_spacing_mm is None and facts.header.reconstruction_diameter_mm is None:
        yield reason("missing_pixel_spacing", "has no Pixel Spacing (0028,0030), so sizes are unknown")
    slices = len(geometry.slices)
    if geometry.tilt_degrees > rules.max_tilt_degrees:
        yield reason("not_axial", f"is not axial: tilted {geometry.tilt_degrees:.0f} degrees")
    if slices < rules.min_slices:
        yield reason("too_few_slices", f"has {slices} slices of one stack, {rules.min_slices} are needed")
    elif slices > rules.max_slices:
        yield reason("too_many_slices", f"has {slices} slices, more than {rules.max_slices}")
    if geometry.coverage_mm < rules.min_coverage_mm and slices >= rules.min_slices:
        yield reason(
            "coverage", f"covers {geometry.coverage_mm:.0f} mm of the head, {rules.min_coverage_mm:.0f} are needed"
        )


def _configured(facts: SeriesFacts, rules: SeriesRules) -> Iterator[Reason]:
    for pattern in rules.exclude_descriptions:
        if re.search(pattern, facts.description, re.IGNORECASE):
            yield reason("excluded_by_rule", f"description matches exclude_descriptions {pattern!r}")
