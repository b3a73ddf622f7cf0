"""What a person sees on a terminal, as a picture."""

from __future__ import annotations

import io
import re

import pytest
from browser.looking import Shown, Take
from playwright.sync_api import Page, expect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from test_cli_terminal import on_terminal

COLUMNS = 144
pytestmark = pytest.mark.xdist_group("browser")


def test_the_list_of_models_is_shown_with_metrics_version_and_alias(
    page: Page, shown: Shown, take: Take
) -> None:
    options = ("--metric", "test_log_loss", "--metric", "test_hits_per_draw")
    printed = on_terminal("list", *options, "--base-dir", shown.base_dir, COLUMNS=str(COLUMNS))
    terminal = Console(width=COLUMNS, record=True, file=io.StringIO())
    terminal.print("[bold green]$[/] lotto-mlflow list", *options, highlight=False)
    terminal.print(Text.from_ansi(printed.replace("\r\n", "\n")))
    page.set_content(terminal.export_html(theme=MONOKAI, inline_styles=True))
    page.add_style_tag(content="body {width: fit-content; margin: 0; padding: 0 1em}")
    names = [str(run.info.run_name) for run in shown.runs]
    expect(page.locator("body")).to_contain_text("champion")
    text = page.locator("body").inner_text()
    assert set(re.findall(r"lotto_model_\w+", text)) == set(names)
    take("list", element=page.locator("body"))
