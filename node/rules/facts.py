"""What the rules of series choice know of one series. Pure; made from headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.result import Reason
from node.errors import Rejected
from node.headers import Header
from node.rules.geometry import SeriesGeometry, geometry_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """One series: a header that stands for it, its geometry, and how many instances it has.

    ``header`` is the main stack's middle slice (any instance's when nothing has a position). ``words`` are the
    descriptions, lower case, for the rules that have nothing better.
    """

    header: Header
    geometry: SeriesGeometry | None
    instances: int
    words: str
    sop_instance_uids: tuple[str, ...]

    @property
    def series_instance_uid(self) -> str:
        """Which series."""
        return self.header.series_instance_uid

    @property
    def study_instance_uid(self) -> str:
        """Of which study."""
        return self.header.study_instance_uid

    @property
    def description(self) -> str:
        """Series description, else protocol name."""
        return self.header.series_description or self.header.protocol_name


def facts_of(headers: Sequence[Header]) -> SeriesFacts:
    """Return the facts of one series from the headers of all its instances.

    Raises
    ------
    Rejected
        No header at all, or the headers name more than one series (``mixed_series``).
    """
    if not headers:
        raise Rejected("empty_series", "the series holds no instance")
    series = {h.series_instance_uid for h in headers}
    if len(series) > 1:
        raise Rejected("mixed_series", f"{len(series)} different series were given as one")
    geometry = geometry_of(headers)
    middle = headers[geometry.slices[len(geometry.slices) // 2][0]] if geometry else headers[len(headers) // 2]
    fields = (middle.series_description, middle.protocol_name, middle.image_comments, middle.study_description)
    return SeriesFacts(
        header=middle,
        geometry=geometry,
        instances=len(headers),
        words=" | ".join(fields).lower().replace("_", " "),
        sop_instance_uids=tuple(h.sop_instance_uid for h in headers),
    )


def flags_of(facts: SeriesFacts) -> tuple[str, ...]:
    """Coded remarks on a series that is read all the same; they go into the task's record."""
    geometry = facts.geometry
    if geometry is None:
        return ()
    remarks = {
        "age_unknown": facts.header.patient_age_years is None,
        "gantry_tilt": geometry.sheared,
        "irregular_spacing": not geometry.regular and not geometry.missing,
        "missing_slices": geometry.missing > 0,
        "several_stacks": len(geometry.stack_sizes) > 1,
        "duplicate_positions": geometry.duplicates > 0,
        "lossy_compressed": facts.header.lossy,
    }
    return tuple(code for code, holds in remarks.items() if holds)


def reason(code: str, text: str) -> Reason:
    """Shorthand for a coded reason."""
    return Reason(code=code, text=text)
