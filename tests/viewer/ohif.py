"""A real viewer for the tests: OHIF on a PACS's DICOMweb, in headless Chromium.

``tests/viewer/fetch_ohif.sh`` brings OHIF into ``cache/ohif``; :func:`open_in_ohif` serves it, opens a study, opens
each of falx's series and keeps screenshots.
"""

from __future__ import annotations

import http.server
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "cache" / "ohif" / "3.13.2" / "dist"
ARTEFACTS = ROOT / "artefacts"
_CONFIG = """
window.config = {
  routerBasename: '/', extensions: [], modes: [], showStudyList: false, investigationalUseDialog: {option: 'never'},
  defaultDataSourceName: 'pacs',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'pacs',
    configuration: {
      friendlyName: 'pacs', name: 'pacs', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web', wadoUriRoot: '/wado',
      imageRendering: 'wadors', thumbnailRendering: 'wadors', qidoSupportsIncludeField: false,
      supportsFuzzyMatching: false, omitQuotationForMultipartRequest: true, enableStudyLazyLoad: true,
    },
  }],
};
"""
_CHROMIUM = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
    "--disable-background-networking",
]  # fmt: skip
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".wasm": "application/wasm",
          ".svg": "image/svg+xml", ".json": "application/json"}  # fmt: skip
LIMIT_MS = 180_000
ATTEMPTS = 12
REPORT, HEATMAP = re.compile(r"AI \w+: .* - RESEARCH"), re.compile(r"heatmap - RESEARCH")
_SETTLED = """() => document.querySelector('svg.svg-layer text') || document.body.innerText.includes('Show Details')"""


@dataclass
class OhifView:
    """What the viewer showed: the series it lists, the text drawn on the report's image, its errors, screenshots."""

    series: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    screenshots: dict[str, Path] = field(default_factory=dict)


def open_in_ohif(pacs_http: str, study_uid: str, out_dir: Path) -> OhifView:
    """Open a study in OHIF; show the source, the heatmap and the report; return what was seen.

    Parameters
    ----------
    pacs_http
        Orthanc's address, such as ``orthanc.http`` of the test fixture; its DICOMweb plugin must be loaded.
    out_dir
        Where the screenshots go: ``study.png``, ``heatmap.png`` (its middle frame), ``report.png``.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    view = OhifView()
    with _served(pacs_http) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_CHROMIUM)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(LIMIT_MS)
        page.goto(f"{address}/viewer?StudyInstanceUIDs={study_uid}")
        page.get_by_text(REPORT).first.wait_for()
        page.locator("canvas").first.wait_for()
        _dismiss(page)
        view.series = page.locator("[data-cy='studyBrowser-panel']").inner_text().splitlines()
        view.screenshots["study"] = _shot(page, out_dir / "study.png")
        for name, text in (("heatmap", HEATMAP), ("report", REPORT)):
            if _open_series(page, text):
                if text is HEATMAP:
                    _scroll_to_the_middle(page)
                view.screenshots[name] = _shot(page, out_dir / f"{name}.png")
        view.drawn = page.locator("svg.svg-layer text").all_text_contents()
        view.errors = _errors(page)
        browser.close()
    return view


def _dismiss(page: Page) -> None:
    for label in ("Confirm and hide", "Skip all"):
        button = page.get_by_text(label)
        if button.count():
            button.first.click()


def _open_series(page: Page, text: re.Pattern[str]) -> bool:
    """Open a series by double click; False when it is not listed.

    On a busy machine OHIF may place a report's regions after it has drawn the image: scrolling one slice on and back,
    as a reader would, draws them.
    """
    entry = page.get_by_text(text)
    if not entry.count():
        return False
    entry.first.dblclick()
    if text is not REPORT:
        entry.nth(1).wait_for()  # the description, in the viewport too
        return True
    for _ in range(ATTEMPTS):
        try:
            page.wait_for_function(_SETTLED, timeout=LIMIT_MS / ATTEMPTS)
        except PlaywrightTimeout:
            page.locator("canvas").first.hover()
            for step in (100, -100):
                page.mouse.wheel(0, step)
                page.wait_for_timeout(500)
        else:
            return True
    page.screenshot(path=str(ARTEFACTS / "viewer-stuck.png"))
    raise AssertionError(f"OHIF drew nothing on the report; see {ARTEFACTS / 'viewer-stuck.png'}")


def _scroll_to_the_middle(page: Page) -> None:
    """Scroll from frame 1 to the middle one, and wait for the viewer to say that it is there."""
    shown = page.get_by_text(re.compile(r"\(1/\d+\)"))
    frames = int(re.findall(r"\(1/(\d+)\)", shown.first.inner_text())[0])
    page.locator("canvas").first.hover()
    for frame in range(2, frames // 2 + 2):
        page.mouse.wheel(0, 100)
        page.get_by_text(f"({frame}/{frames})").first.wait_for()


def _errors(page: Page) -> list[str]:
    """Return the details of the viewer's own error notices; empty when all went well."""
    details = page.get_by_text("Show Details")
    if not details.count():
        return []
    details.first.click()
    page.wait_for_timeout(1000)
    return page.locator("body").inner_text().splitlines()


def _shot(page: Page, path: Path) -> Path:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2000)  # lets the last frame reach the screen; only the picture depends on it
    page.screenshot(path=str(path))
    return path


@contextmanager
def _served(pacs_http: str) -> Iterator[str]:
    """Serve OHIF and pass /dicom-web through to the PACS on the same origin."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"pacs": pacs_http}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    pacs = ""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith(("/dicom-web", "/wado")):
            self._pass_on()
        elif path == "/app-config.js":
            self._answer(200, "text/javascript", _CONFIG.encode())
        else:
            file = DIST / path.lstrip("/")
            file = file if file.is_file() and file.resolve().is_relative_to(DIST) else DIST / "index.html"
            self._answer(200, _TYPES.get(file.suffix, "application/octet-stream"), file.read_bytes())

    def _pass_on(self) -> None:
        wanted = {name: self.headers[name] for name in ("Accept",) if name in self.headers}
        request = urllib.request.Request(self.pacs + self.path, headers={**wanted, "Host": self.headers["Host"]})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._answer(answer.status, answer.headers["Content-Type"], answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, "text/plain", error.read())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)
