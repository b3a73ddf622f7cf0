"""One store, one server and one browser for all of these tests, and the pictures they take."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.looking import ROOT_DIR, SCREENSHOTS_DIR, VIEWPORT, Shown, Take
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright
from serving import running

WAIT_MS = 60_000
PANEL = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
"""The UI opens a chat panel over a third of the page at a browser's first visit, but no more."""


@pytest.fixture(scope="package")
def context() -> Iterator[BrowserContext]:
    """A fresh profile of the Chromium on the PATH, which can reach this machine only."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on the PATH: install Debian's package chromium")
    expect.set_options(timeout=WAIT_MS)
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=arguments, timeout=WAIT_MS
        )
        context = browser.new_context(viewport=VIEWPORT, locale="en-US")
        context.set_default_timeout(WAIT_MS)
        context.add_init_script(PANEL)
        yield context
        browser.close()


@pytest.fixture(scope="package")
def shown(context: BrowserContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A scratch copy of the example store, as ``make ui`` shows it until Ctrl-C."""
    folder = tmp_path_factory.mktemp("example")
    scratch_dir, log_path = folder / "ml", folder / "log.txt"
    command = ["make", "--no-print-directory", "-C", str(ROOT_DIR), "ui", f"SCRATCH={scratch_dir}"]
    command += [f"BIN={Path(sys.executable).parent}", "--assume-old=.venv/.package"]

    def link() -> re.Match[str] | None:
        return re.search(r"http://127\.0\.0\.1:\d+/#/experiments/\S+", log_path.read_text())

    with running(command, log_path, link, signal.SIGINT, BROWSER="true") as found:
        yield Shown.at(found[0], scratch_dir)


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new tab, of which a picture is kept where the test failed."""
    page = context.new_page()
    failures = request.session.testsfailed
    yield page
    if request.session.testsfailed > failures:
        page.screenshot(path=SCREENSHOTS_DIR / f"failed_{request.node.name}.png")
    for opened in context.pages:
        opened.close()


@pytest.fixture
def take(page: Page) -> Take:
    """Keep a picture of what is on the page, or of one element, or of another page."""

    def take(name: str, element: Page | Locator | None = None) -> None:
        path = SCREENSHOTS_DIR / f"{name}.png"
        (element or page).screenshot(path=path, animations="disabled")

    return take
