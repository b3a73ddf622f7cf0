"""The picture of ``accuracy --plot``: hits by draw, save by save, with the band of chance."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lotto_mlflow import chance
from lotto_mlflow.errors import Fix, MissingExtraError
from lotto_mlflow.operations.accuracy import SIGNIFICANT, label_of, p_as_text
from lotto_mlflow.records import ModelAccuracy, Prediction
from lotto_mlflow.text import safe_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 60
"""More are too small to read, and too many pixels."""
_MOST_COLUMNS = 5
_PANEL_INCHES = (3.4, 2.5)
_MARGIN_INCHES = 0.85
_LONGEST_LABEL = 38
_USUAL, _TOLD, _CHANCE = "#1f5fa8", "#c8401e", "#8c8c8c"


@dataclass(frozen=True)
class Panel:
    """A row of the table, and the predictions that it is made of, in the order of their draws."""

    row: ModelAccuracy
    predictions: Sequence[Prediction]


def check_matplotlib() -> None:
    """See that matplotlib can be imported.

    Raises
    ------
    MissingExtraError
        If it cannot.
    """
    try:
        import matplotlib  # noqa: F401 - imported lazily
    except ImportError as cause:
        raise MissingExtraError(
            f"a picture needs matplotlib, which cannot be imported ({cause})",
            fix=Fix("shell", {"command": ["pip", "install", "lotto-mlflow[plot]"]}),
            extra="plot",
        ) from cause


def picture_of(panels: Sequence[Panel]) -> tuple[bytes, list[str]]:
    """Draw a picture.

    Parameters
    ----------
    panels : sequence of Panel
        What to draw, at least one; of more than `MOST_PANELS`, those with the lowest p-values.

    Returns
    -------
    content : bytes
        The picture as PNG.
    notes : list of str
        What a person should know of it.

    Notes
    -----
    Neither the settings nor the figures of the caller's matplotlib are used or changed.
    """
    import matplotlib as mpl  # imported lazily
    from matplotlib import style

    shown, notes = list(panels), []
    if len(shown) > MOST_PANELS:
        shown = sorted(shown, key=lambda panel: panel.row.p_adjusted)[:MOST_PANELS]
        notes.append(f"the picture shows the {MOST_PANELS} of {len(panels)} with the lowest p")
    labels = [safe_line(label_of(panel.row)) for panel in shown]
    families, unknown = _fonts_for("".join(labels))
    if unknown:
        notes.append(
            "no font of this machine has some letters of the names, which the picture shows in "
            "Latin ones; for Korean, install one such as NanumGothic (Debian: fonts-nanum)"
        )
    with mpl.rc_context(), style.context("default"):
        mpl.rcParams["font.family"] = families
        figure = _figure(shown, [_readable(label, unknown) for label in labels])
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue(), notes


def _figure(panels: Sequence[Panel], labels: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    columns = min(len(panels), _MOST_COLUMNS if len(panels) > 9 else 3)
    rows = math.ceil(len(panels) / columns)
    width, height = _PANEL_INCHES
    scale = 1.5 if columns < 3 else 1.0
    size = scale * width * columns, scale * height * rows + _MARGIN_INCHES
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for place, one in enumerate(axes.flat):
        if place < len(panels):
            _draw(one, panels[place], labels[place])
        else:
            one.remove()
    figure.supxlabel("draw", fontsize=10)
    figure.supylabel("hits per game", fontsize=10)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return figure


def _draw(axes: Axes, panel: Panel, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    predictions, row = panel.predictions, panel.row
    draws = [one.draw_no for one in predictions]
    games = [len(one.games) for one in predictions]
    hits = [sum(one.hits or ()) for one in predictions]
    low, high = zip(*chance.band(chance.spread_of(one.games) for one in predictions), strict=True)
    average = [h / g for h, g in zip(accumulate(hits), accumulate(games), strict=True)]
    colour = _TOLD if row.p_adjusted < SIGNIFICANT else _USUAL
    each = [h / g for h, g in zip(hits, games, strict=True)]
    small = 2 if len(draws) > 60 else 3.5
    axes.fill_between(draws, low, high, color=_CHANCE, alpha=0.25, lw=0, label="95 % of chance")
    axes.axhline(chance.HITS_PER_GAME, color=_CHANCE, lw=1, ls="--", label="chance, 0.8")
    axes.plot(draws, each, "o", color=colour, ms=small, mew=0, alpha=0.4, label="one draw")
    axes.plot(draws, average, color=colour, lw=1.6, label="average so far")
    title = f"{row.hits_per_game:.3f} in {row.draws} draws, adjusted p {p_as_text(row.p_adjusted)}"
    axes.set_title(f"{_elided(label)}\n{title}", fontsize=8.5, color=colour, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8, labelleft=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _elided(label: str) -> str:
    """Return a label without its middle where it is too long; both ends tell names apart."""
    cells = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in label]
    if sum(cells) <= _LONGEST_LABEL:
        return label
    half = (_LONGEST_LABEL - 1) // 2
    start = sum(total <= half for total in accumulate(cells))
    end = sum(total <= half for total in accumulate(reversed(cells)))
    return f"{label[:start]}…{label[len(label) - end :]}"


def _fonts_for(text: str) -> tuple[list[str], frozenset[str]]:
    """Return families that have the letters of a text, and the letters that none has."""
    from matplotlib import font_manager

    families = ["DejaVu Sans"]  # which comes with matplotlib
    missing = set(text) - _letters_of(font_manager.findfont(families[0]))
    paths: Iterable[str] = font_manager.findSystemFonts() if missing else ()
    for path in sorted(paths, key=lambda path: ("bold" in path.lower(), path)):
        found = missing & _letters_of(path)
        if found:
            font_manager.fontManager.addfont(path)
            families.append(font_manager.get_font(path).family_name)
            missing -= found
        if not missing:
            break
    return families, frozenset(missing)


def _letters_of(path: str) -> set[str]:
    from matplotlib import font_manager

    try:
        return set(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # no font, or one that FreeType does not read
        return set()


def _readable(label: str, unknown: Iterable[str]) -> str:
    """Return a label with letters that no font has in Latin ones: Hangul as it is read."""
    return "".join(_in_latin(c) if c in unknown else c for c in label)


def _in_latin(letter: str) -> str:
    name: Any = unicodedata.name(letter, "")
    kind, _, reading = name.rpartition(" ")
    return reading.lower() if kind == "HANGUL SYLLABLE" else f"U+{ord(letter):04X}"
