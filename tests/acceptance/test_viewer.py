"""A radiologist's view: OHIF on a real PACS shows the report on the key slice and the heatmap beside the source."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from dicom_sr.build import build_results
from dicom_sr.check import checked_bytes
from tests.fixtures_sr import STUDY, request, source_files
from tests.viewer.ohif import ARTEFACTS, DIST, open_in_ohif


@pytest.mark.slow
@pytest.mark.needs("Orthanc", "chromium")
@pytest.mark.skipif(not DIST.is_dir(), reason="OHIF is not in cache/ohif: run tests/viewer/fetch_ohif.sh")
def test_ohif_opens_the_report_on_the_key_slice_and_shows_the_heatmap(orthanc_factory: Callable[..., Any]) -> None:
    orthanc = orthanc_factory()
    of = request(size=256)
    for data in [*source_files(of), *(checked_bytes(made.dataset) for made in build_results(of))]:
        urllib.request.urlopen(urllib.request.Request(f"{orthanc.http}/instances", data=data, method="POST")).close()
    view = open_in_ohif(orthanc.http, STUDY, ARTEFACTS / "viewer")
    listed = "\n".join(view.series)
    for description in ("AI ICH: suspected - RESEARCH USE ONLY", "AI ICH heatmap - RESEARCH USE ONLY", "Head 5.0"):
        assert description in listed
    assert {"study", "heatmap", "report"} <= set(view.screenshots)
    assert any("Probability" in text and "%" in text for text in view.drawn), view.drawn
