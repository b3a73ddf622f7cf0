"""What a person sees in the MLflow UI of the example store, in a real browser."""

from __future__ import annotations

import re

import pytest
from browser import looking
from browser.looking import MODEL, Shown, Take
from playwright.sync_api import Page, expect

PARAMS = ["estimator", "max_depth"]
METRICS = ["test_log_loss", "test_hits_per_draw", "test_calibration_error"]
LINE = "fold_log_loss"
FOLDS = 5
LIVE = "live.hits_per_game"
DRAWS = 30
PLOTS = ["probability_per_number.png", "hits_per_draw.png"]

pytestmark = pytest.mark.xdist_group("browser")  # one browser, whatever the number of workers


def test_the_runs_table_shows_every_run_with_its_metrics(
    page: Page, shown: Shown, take: Take
) -> None:
    looking.open_runs(page, shown)
    looking.toggle_columns(page, *METRICS, "Source")
    newest_first = sorted(shown.runs, key=lambda run: -run.info.start_time)
    for metric in METRICS:
        found = looking.column(page, metric, len(shown.runs))
        expected = [run.data.metrics[metric] for run in newest_first]
        assert [float(text) for text in found] == pytest.approx(expected, abs=1e-3)
    for run in shown.runs:
        link = page.locator(f'[role=gridcell] a[href*="/runs/{run.info.run_id}"]')
        expect(link).to_have_text(str(run.info.run_name))
    take("runs")


def test_the_compare_page_of_all_runs_draws_parallel_coordinates_with_the_chosen_axes(
    page: Page, shown: Shown, take: Take
) -> None:
    looking.compare_all(page, shown)
    looking.choose_axes(page, PARAMS, METRICS)
    plot = page.locator(".js-plotly-plot")
    expect(plot.locator(".axis-title")).to_have_text(PARAMS + METRICS)
    drawn = plot.evaluate("plot => plot.data[0].dimensions.map(axis => [axis.label, axis.values])")
    values = {label: sorted(numbers) for label, numbers in drawn}
    for metric in METRICS:
        assert values[metric] == pytest.approx(sorted(r.data.metrics[metric] for r in shown.runs))
    assert len(values["estimator"]) == len(shown.runs)
    width = plot.bounding_box()
    assert width is not None
    assert looking.coloured_columns(plot) > width["width"] / 2
    take("compare")


def test_a_metric_list_is_drawn_as_a_line_for_each_run(
    page: Page, shown: Shown, take: Take
) -> None:
    looking.compare_all(page, shown)
    page.get_by_role("link", name=LINE, exact=True).click()
    plot = page.locator(".js-plotly-plot")
    lines = plot.locator(".scatterlayer path.js-line")
    expect(lines.first).to_be_visible()
    shapes = {line.get_attribute("d") for line in lines.all()}
    distinct = {run.data.metrics[LINE] for run in shown.runs}
    assert len(shapes) >= len(distinct)
    assert all("L" in str(shape) for shape in shapes)
    traces = plot.evaluate("plot => plot.data.map(trace => trace.y.length)")
    assert traces == [FOLDS] * len(traces)
    assert len(traces) >= len(shown.runs)
    take("metric")


def test_the_live_accuracy_of_all_models_is_drawn_as_lines_in_one_chart(
    page: Page, shown: Shown, take: Take
) -> None:
    looking.compare_all(page, shown)
    page.get_by_role("link", name=LIVE, exact=True).click()
    plot = page.locator(".js-plotly-plot")
    lines = plot.locator(".scatterlayer path.js-line")
    expect(lines.first).to_be_visible()
    predicting = [run for run in shown.runs if LIVE in run.data.metrics]
    assert len(predicting) == 3
    traces = plot.evaluate("plot => plot.data.map(trace => trace.y.length)")
    drawn = [length for length in traces if length]  # a run without has an empty one
    assert drawn == [DRAWS] * len(drawn)
    assert len(drawn) >= len(predicting)
    assert len({line.get_attribute("d") for line in lines.all()}) >= len(predicting)
    take("live_accuracy")


def test_the_registered_model_shows_versions_tags_and_the_alias(
    page: Page, shown: Shown, take: Take
) -> None:
    page.goto(f"{shown.uri}/#/models/{MODEL}")
    for version in shown.versions:
        row = page.get_by_role("row").filter(
            has=page.get_by_role("link", name=f"Version {version.version}", exact=True)
        )
        for key in ("model_name", "sha256", "saved_at"):
            expect(row).to_contain_text(f"{key}: {version.tags[key]}")
        aliases = [a for a, number in shown.aliases.items() if str(number) == str(version.version)]
        tag = re.compile(r"^@\s*champion$")  # the description names it, too
        expect(row.get_by_text(tag)).to_have_count(len(aliases))
    take("registered_model")


def test_a_version_leads_to_its_run_and_from_there_to_its_logged_model(
    page: Page, shown: Shown, take: Take
) -> None:
    version, run = shown.champion, shown.run_of(shown.champion)
    model_id = version.tags["model_id"]
    page.goto(f"{shown.uri}/#/models/{MODEL}/versions/{version.version}")
    expect(page.get_by_text("@ champion")).to_be_visible()
    expect(page.get_by_role("cell", name=model_id)).to_be_visible()
    take("version")
    page.locator(f'a[href*="/runs/{run.info.run_id}"]').first.click()
    expect(page).to_have_url(re.compile(f"/runs/{run.info.run_id}"))
    expect(page.get_by_title(version.tags["sha256"])).to_be_visible()
    take("run")
    model_page = looking.follow(page.locator(f'a[href*="/models/{model_id}"]').first)
    expect(model_page).to_have_url(re.compile(f"/models/{model_id}"))
    expect(model_page.get_by_role("link", name=str(run.info.run_name)).first).to_be_visible()
    back = model_page.locator(f'a[href*="/models/{MODEL}/versions/{version.version}"]').first
    expect(back).to_be_visible()
    take("logged_model", model_page)


def test_the_plots_show_in_the_artifact_pane(page: Page, shown: Shown, take: Take) -> None:
    run = shown.run_of(shown.champion)
    page.goto(f"{shown.experiment_url}/runs/{run.info.run_id}/artifacts")
    for plot in PLOTS:
        page.get_by_text(plot, exact=True).first.click()
        picture = page.get_by_role("img", name=plot)
        expect(picture).to_be_visible()
        width = picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)")
        assert width > 0
        take(f"artifact_{plot.removesuffix('.png')}")
