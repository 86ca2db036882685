"""Every code falx writes is in PS3.16 as pydicom knows it, with that meaning, or is allowed by name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pydicom.sr import codedict  # noqa: F401  fills the dictionary
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from dicom_sr import codes
from inference.labels import HAEMORRHAGE_KINDS, REPORT_LABELS


def written() -> Iterator[Code]:
    """All codes of the module."""
    yield from (value for value in vars(codes).values() if isinstance(value, Code))
    for finding in codes.FINDINGS.values():
        yield from (finding.finding, finding.site)


@pytest.mark.parametrize("code", sorted(set(written())), ids=lambda code: f"{code.scheme_designator}-{code.value}")
def test_code_is_in_the_dictionary_or_allowed(code: Code) -> None:
    assert len(code.meaning) <= 64
    if (code.scheme_designator, code.value) in codes.ALLOWED:
        return
    meanings = {
        re.sub(r" \((disorder|attribute)\)$", "", known[code.value][0].casefold())  # SNOMED's semantic tag
        for known in concepts[code.scheme_designator].values()
        if code.value in known
    }
    assert code.meaning.casefold() in meanings


def test_allowed_codes_are_used_and_not_in_the_dictionary() -> None:
    used = {(code.scheme_designator, code.value) for code in written()}
    for scheme, value in codes.ALLOWED:
        assert (scheme, value) in used or scheme == "RFC5646"
        assert not any(value in known for known in concepts.get(scheme, {}).values())


def test_every_label_has_a_finding_of_its_own() -> None:
    assert set(codes.FINDINGS) == {*REPORT_LABELS, *HAEMORRHAGE_KINDS}
    assert len({(f.finding, f.site) for f in codes.FINDINGS.values()}) == len(codes.FINDINGS)
