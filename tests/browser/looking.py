"""What a person does in the MLflow UI, and what is there to be seen."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import image
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from playwright.sync_api import Locator, Page

MODEL = "lotto_model"
ROOT_DIR = Path(__file__).parents[2]
SCREENSHOTS_DIR = Path(os.environ.get("LOTTO_SCREENSHOTS_DIR") or ROOT_DIR / ".screenshots")
VIEWPORT = {"width": 1600, "height": 1000}
MAX_OPTIONS = 200
COLOURFUL = 0.3
"""Difference between a pixel's strongest and weakest channel, of 1, that no grey has."""

Take = Callable[..., None]
"""``take("runs")`` keeps a picture of the page under that name."""


@dataclass(frozen=True)
class Shown:
    """A store that a server shows: the link that was printed, its folder, and what it holds."""

    link: str
    uri: str
    base_dir: Path
    runs: list[Run]
    versions: list[ModelVersion]
    aliases: dict[str, str]

    @classmethod
    def at(cls, link: str, base_dir: Path) -> Shown:
        uri, _, _ = link.partition("/#/")
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(MODEL)
        return cls(
            link=link,
            uri=uri,
            base_dir=base_dir,
            runs=list(client.search_runs([experiment.experiment_id])),
            versions=list(client.search_model_versions(f"name = '{MODEL}'")),
            aliases=dict(client.get_registered_model(MODEL).aliases),
        )

    @property
    def experiment_url(self) -> str:
        return f"{self.uri}/#/experiments/{self.runs[0].info.experiment_id}"

    @property
    def champion(self) -> ModelVersion:
        """Return the version that the store's one alias names."""
        (number,) = self.aliases.values()
        return next(v for v in self.versions if str(v.version) == str(number))

    def run_of(self, version: ModelVersion) -> Run:
        return next(run for run in self.runs if run.info.run_id == version.run_id)


def open_runs(page: Page, shown: Shown) -> None:
    """Open the table of training runs."""
    page.goto(shown.link)
    page.get_by_text(f"{len(shown.runs)} matching runs").wait_for()


def toggle_columns(page: Page, *columns: str) -> None:
    """Show or hide columns of the table of runs."""
    page.get_by_role("button", name="Columns", exact=True).click()
    search = page.get_by_placeholder("Search columns")
    for column in columns:
        search.fill(column)
        entries = page.get_by_test_id("column-selector-tree").locator("[class*=tree-treenode]")
        entry = entries.filter(has_text=re.compile(f"^{re.escape(column)}$"))
        entry.locator("[class*=tree-title]").click()
    search.press("Escape")
    search.wait_for(state="hidden")


def column(page: Page, name: str, rows: int) -> list[str]:
    """Return the text of a column's cells, from the first row to the last."""
    cells = page.locator(f'[role=gridcell][col-id*="`{name}`"]')
    cells.nth(rows - 1).wait_for()
    by_row = {
        int(str(cell.locator("xpath=..").get_attribute("row-index"))): cell.inner_text()
        for cell in cells.all()
    }
    return [by_row[row].strip() for row in sorted(by_row)]


def compare_all(page: Page, shown: Shown) -> None:
    """Tick every run in the table of runs, and compare them."""
    open_runs(page, shown)
    page.get_by_role("columnheader").get_by_role("checkbox").first.click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text(f"Comparing {len(shown.runs)} Runs").wait_for()


def choose_axes(page: Page, params: Iterable[str], metrics: Iterable[str]) -> None:
    """Choose what the parallel coordinates show."""
    page.get_by_role("button", name="Clear All").click()
    for box, names in zip(page.get_by_role("combobox").all()[:2], (params, metrics), strict=True):
        for name in names:
            _choose(page, box, name)


def _choose(page: Page, box: Locator, name: str) -> None:
    box.click()
    option = page.locator(f'[class*=select-item-option][title="{name}"]:visible')
    for _ in range(MAX_OPTIONS):  # a long list holds only the options near the active one
        if option.count():
            break
        box.press("ArrowDown")
    option.click()
    box.press("Escape")


def follow(link: Locator) -> Page:
    """Click a link, and return the tab in which it opens."""
    if link.get_attribute("target") != "_blank":
        link.click()
        return link.page
    with link.page.expect_popup() as opened:
        link.click()
    return opened.value


def coloured_columns(locator: Locator) -> int:
    """Return in how many of its columns of pixels an element has colour, not only grey."""
    pixels = image.imread(io.BytesIO(locator.screenshot()))[:, :, :3]
    is_coloured = np.ptp(pixels, axis=2) > COLOURFUL
    return int(is_coloured.any(axis=0).sum())
