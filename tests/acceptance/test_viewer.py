"""A radiologist's view: OHIF on a real PACS shows the report on the key slice and the heatmap beside the source."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from dicom_sr.build import build_results
from dicom_sr.check import checked_bytes
from dicom_sr.request import ResultRequest
from tests.fixtures_sr import STUDY, request, source_files
from tests.viewer.ohif import ARTEFACTS, DIST, OhifView, open_in_ohif

pytestmark = [pytest.mark.slow, pytest.mark.needs("Orthanc", "chromium"), pytest.mark.timeout(900)]


@pytest.fixture
def show(orthanc_factory: Callable[..., Any]) -> Callable[[ResultRequest, str], OhifView]:
    """Send a result with its sources to Orthanc and open the study in OHIF."""
    if not DIST.is_dir():
        pytest.skip("OHIF is not in cache/ohif: run tests/viewer/fetch_ohif.sh")

    def shown(of: ResultRequest, folder: str) -> OhifView:
        orthanc = orthanc_factory()
        for data in [*source_files(of), *(checked_bytes(made.dataset) for made in build_results(of))]:
            urllib.request.urlopen(
                urllib.request.Request(f"{orthanc.http}/instances", data=data, method="POST")
            ).close()
        return open_in_ohif(orthanc.http, STUDY, ARTEFACTS / folder)

    return shown


def test_ohif_opens_the_report_on_the_key_slice_and_shows_the_heatmap(show: Callable[..., OhifView]) -> None:
    view = show(request(size=256), "viewer")
    listed = "\n".join(view.series)
    for description in ("AI ICH: suspected - RESEARCH USE ONLY", "AI ICH heatmap - RESEARCH USE ONLY", "Head 5.0"):
        assert description in listed
    assert view.errors == []
    assert set(view.screenshots) == {"study", "heatmap", "report"}
    assert "AI ICH: suspected: Probability: 91.37 %" in view.drawn
    assert "Probability: 94.93 %" in view.drawn  # the key slice's own, beside its region


@pytest.mark.parametrize(
    ("of", "folder", "drawn"),
    [
        (lambda: request(False, size=256), "viewer-negative", "AI ICH: not detected: Probability: 3.12 %"),
        (lambda: request(outcome="unsuitable", size=256), "viewer-unsuitable", "AI ICH: not analysed: "),
    ],
)
def test_ohif_opens_a_report_without_finding_on_an_image(
    show: Callable[..., OhifView], of: Callable[[], ResultRequest], folder: str, drawn: str
) -> None:
    view = show(of(), folder)
    assert view.errors == []
    assert view.drawn == [drawn]
