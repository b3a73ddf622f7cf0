"""The picture of ``accuracy --plot``: hits by draw, save by save, with the band of chance."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from lotto_mlflow import chance
from lotto_mlflow.errors import Fix, MissingExtraError
from lotto_mlflow.operations.accuracy import SIGNIFICANT, p_as_text
from lotto_mlflow.records import ModelAccuracy, Prediction
from lotto_mlflow.text import counted, safe_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel: TypeAlias = tuple[ModelAccuracy, Sequence[Prediction]]
"""A row of the table, and the predictions that it is made of, in the order of their draws."""

MOST_PANELS = 60
"""More are too small to read, and too many pixels."""
_MOST_COLUMNS = 5
_PANEL_INCHES = (3.4, 2.6)
_MARGIN_INCHES = 0.85
_DOTS_PER_INCH = 130
_LONGEST_NAME = 40
_MANY_DRAWS = 60
_BAND = "95 % of chance for the average"
_USUAL, _DIFFERING, _CHANCE = "#1f5fa8", "#c8401e", "#8c8c8c"


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
            fix=Fix("shell", {"command": ["pip", "install", "lotto-mlflow[plot]"]}, before="call"),
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
        shown = sorted(shown, key=lambda panel: (panel[0].p_adjusted, panel[0].p_value))[
            :MOST_PANELS
        ]
        notes.append(f"the picture shows the {MOST_PANELS} of {len(panels)} with the lowest p")
    names = [safe_line(row.model) for row, _ in shown]
    families, unknown = _fonts_for("".join(names))
    if unknown:
        notes.append(
            "no font of this machine has some letters of the names, which the picture shows in "
            "Latin ones; for Korean, install one such as NanumGothic (Debian: fonts-nanum)"
        )
    with mpl.rc_context(), style.context("default"):
        mpl.rcParams["font.family"] = families
        figure = _figure(shown, [_readable(name, unknown) for name in names])
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue(), notes


def _figure(panels: Sequence[Panel], names: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    columns = min(len(panels), 3 if len(panels) <= 9 else _MOST_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    width, height = _PANEL_INCHES
    scale = 1.6 if columns < 3 else 1.0
    size = scale * width * columns, scale * height * rows + _MARGIN_INCHES
    figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, one in enumerate(axes.flat):
        if place < len(panels):
            _draw(one, panels[place], names[place])
        else:
            one.remove()
    figure.supxlabel("draw", fontsize=10)
    figure.supylabel("hits per game", fontsize=10)
    handles, texts = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles,
        texts,
        loc="outside upper center",
        ncols=4 if columns > 1 else 2,
        fontsize=9,
        frameon=False,
    )
    return figure


def _draw(axes: Axes, panel: Panel, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    row, predictions = panel
    draws = [one.draw_no for one in predictions]
    games = [len(one.games) for one in predictions]
    hits = [sum(one.hits or ()) for one in predictions]
    each = [h / g for h, g in zip(hits, games, strict=True)]
    average = [h / g for h, g in zip(accumulate(hits), accumulate(games), strict=True)]
    band = chance.band(chance.spread_of(one.games) for one in predictions)
    low, high = zip(band[0], *band, band[-1], strict=True)
    sides = draws[0] - 0.5, draws[-1] + 0.5  # so that the band of one draw has a width
    colour = _DIFFERING if row.p_adjusted < SIGNIFICANT else _USUAL
    axes.fill_between(
        [sides[0], *draws, sides[1]], low, high, color=_CHANCE, alpha=0.25, lw=0, label=_BAND
    )
    axes.axhline(chance.HITS_PER_GAME, color=_CHANCE, lw=1, ls="--", label="chance, 0.8")
    size = 2.5 if len(draws) > _MANY_DRAWS else 3.5
    axes.plot(
        draws, each, "o", color=colour, ms=size, mew=0, alpha=0.45, label="one draw", clip_on=False
    )
    axes.plot(draws, average, color=colour, lw=1.6, label="average so far")
    axes.set_title(_title(row, name), fontsize=8.5, color=colour, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8)
    axes.set_xlim(*sides)
    axes.set_ylim(0, 1.05 * max(*each, *high))
    axes.grid(alpha=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _title(row: ModelAccuracy, name: str) -> str:
    kind = "backtest of " if row.is_backtest else ""
    version = "" if row.version is None else f"version {row.version}, "
    draws = counted(row.draws, "draw")
    figures = f"{row.hits_per_game:.3f} hits per game, adjusted p {p_as_text(row.p_adjusted)}"
    return f"{_elided(name)}\n{version}{kind}{draws}\n{figures}"


def _elided(name: str) -> str:
    """Return a name without its middle where it is too long; both ends tell names apart."""
    cells = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in name]
    if sum(cells) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    start = sum(total <= half for total in accumulate(cells))
    end = sum(total <= half for total in accumulate(reversed(cells)))
    return f"{name[:start]}…{name[len(name) - end :]}"


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


def _readable(name: str, unknown: Iterable[str]) -> str:
    """Return a name with letters that no font has in Latin ones: Hangul as it is read."""
    return "".join(_in_latin(c) if c in unknown else c for c in name)


def _in_latin(letter: str) -> str:
    name = unicodedata.name(letter, "")
    kind, _, reading = name.rpartition(" ")
    return reading.lower() if kind == "HANGUL SYLLABLE" else f"U+{ord(letter):04X}"
