"""What all figures share: a page that is written from the top down, colours and marks, the width of a text.

No pyplot, so figures need no display and do not pile up in a notebook.

Source: the colours are Okabe and Ito's, for all eyes.
"""

import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerLine2D
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from matplotlib.transforms import Affine2D

from analysis.stats.answers import Answer
from roadmap.ladder.references import SECTION

# Inches. A column of labels is as wide as the widest, and no wider than LABELS.
WIDTH, MARGIN, GAP, ROW = 7.0, 0.12, 0.08, 0.225
LABELS, TICKS, KEY = 1.6, 0.22, 0.47
# Points, and lines of text as a multiple of them.
TITLE, TEXT, SMALL, LEADING = 10.0, 7.5, 7.0, 1.25
THIN, THICK = 0.6, 0.9

YELLOW, SKY, ORANGE, BLUE, VERMILION, GREEN, PINK = (
    "#F0E442",
    "#56B4E9",
    "#E69F00",
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
)
BROWN = "#8B6B4F"  # beside theirs, for a ladder of seven sections
START_COLOR, PALETTE = PINK, (YELLOW, SKY, ORANGE, BLUE, VERMILION, GREEN, BROWN)
INK, GREY, GRID, PAPER, SHADOW, BAND = "#222222", "#666666", "#E8E8E8", "#FFFFFF", "#D4D4D4", "#DCEBF5"
# These stay as they are where a page turns dark: what they are written on does.
NOTE_COLOR, NOTE_INK, ON_LIGHT, ON_DARK = "#FFE9A8", "#2B2300", "#111111", "#FDFDFD"
LAYOUT_TABLES = ("GSUB", "GPOS", "GDEF", "MATH")  # parts of a font that say how letters join
# An answer's marker in axes, so that colour need not say it; `analysis.sentences.MARKS` has its marks in a text.
MARKERS = {
    Answer.HELPS: "^",
    Answer.HURTS: "v",
    Answer.NO_EFFECT: "s",
    Answer.UNDECIDED: "o",
    Answer.NOT_TESTED: "x",
}


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a figure says around its marks.

    Attributes:
        title: The headline.
        axis: What is measured, with its unit.
        note: What the numbers are, boxed under the title; a proxy says here that it is one.
        width: Of the figure, in inches.
    """

    title: str
    axis: str
    note: str = ""
    width: float = WIDTH


class Page:
    """A figure written from the top down, as tall as what it holds; places are inches from the top left.

    Attributes:
        figure: The figure.
        width: Its width.
        labels: The widest that a column of labels may be.
        y: Where the next thing goes.
    """

    def __init__(self, width: float = WIDTH) -> None:
        self.figure = Figure(figsize=(width, 1))
        self.width, self.labels = width, min(LABELS, 0.3 * width)
        self.flip = Affine2D().scale(1, -1)
        self.inches = self.flip + self.figure.dpi_scale_trans
        self.y = MARGIN
        self.panels: dict[Axes, tuple[float, float]] = {}

    def head(self, title: str, note: str, headline: str = "") -> None:
        """Write the title, the answer in one sentence, and the note in its box."""
        self.paragraph(title, self.width - 2 * MARGIN, fontsize=TITLE, weight="bold")
        if headline:
            self.y += GAP / 2
            self.paragraph(headline, self.width - 2 * MARGIN, fontsize=TEXT + 0.5, gid="headline")
        if note:
            self.y += GAP
            box = {"boxstyle": "square,pad=0.4", "facecolor": NOTE_COLOR, "edgecolor": "none"}
            self.paragraph(note, self.width - 3 * MARGIN, x=1.5 * MARGIN, color=NOTE_INK, bbox=box)
        self.y += 2 * GAP

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text as it is, dollar signs included."""
        style = {"color": INK, "fontsize": TEXT, "linespacing": 0.95 * LEADING, "parse_math": False, **style}
        self.figure.text(x, y, text, transform=self.inches, **style)

    def paragraph(self, text: str, width: float, *, x: float = MARGIN, fontsize: float = TEXT, **style: Any) -> None:
        """Write a text below what is there, wrapped."""
        text = wrap(text, width, fontsize, style.get("weight", "normal"))
        self.text(x, self.y, text, fontsize=fontsize, va="top", **style)
        self.y += height_of(text, fontsize)

    def mark(self, x: float | list[float], y: float | list[float], **style: Any) -> None:
        """Draw a marker or a line outside of axes, such as a key's."""
        xs, ys = (value if isinstance(value, list) else [value] for value in (x, y))
        self.figure.add_artist(Line2D(xs, ys, transform=self.inches, **style))

    def rows(self, left: float, right: float) -> Axes:
        """Return axes whose y is the page's, between two x; the caller sets where they begin and end (`ylim`)."""
        axes: Axes = self.figure.add_axes((left / self.width, 0, (right - left) / self.width, 1))
        return axes

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes with a y of their own."""
        place = (left / self.width, 0, width / self.width, 1)
        axes: Axes = self.figure.add_axes(place, label=f"panel {len(self.panels)}")
        self.panels[axes] = (top, height)
        return axes

    def legend(self, keys: Mapping[str, Artist], left: float, numpoints: int = 1) -> None:
        """Explain marks below what is there, in as many columns as fit."""
        if not keys:
            return
        width = self.width - MARGIN - left
        labels = [wrap(label, width - KEY, SMALL) for label in keys]
        widths = [KEY + width_of(label, SMALL) for label in labels]

        def taken(columns: int) -> float:
            places = np.array_split(widths, columns)  # as matplotlib shares them out
            return sum(float(max(place)) for place in places)

        columns = next(n for n in range(len(labels), 0, -1) if n == 1 or taken(n) < width)
        heights = np.array_split([height_of(label, SMALL) for label in labels], columns)
        self.y += GAP
        legend = self.figure.legend(
            keys.values(),
            labels,
            ncols=columns,
            loc="upper left",
            bbox_to_anchor=(left, self.y),
            bbox_transform=self.inches,
            fontsize=SMALL,
            labelcolor=INK,
            numpoints=numpoints,
            handler_map={key: HandlerLine2D(numpoints=1) for key in keys.values() if _is_marker(key)},
            borderpad=0,
            borderaxespad=0,
            frameon=False,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        self.y += max(float(sum(place)) + GAP / 2 * (len(place) - 1) for place in heights)

    def close(self) -> None:
        """Give the figure its height, and its axes their place."""
        height = self.y + MARGIN
        self.flip.translate(0, height)
        self.figure.set_size_inches(self.width, height)
        for axes in self.figure.axes:
            (bottom, top), box = axes.get_ylim(), axes.get_position()
            if axes in self.panels:
                top, tall = self.panels[axes]
                bottom = top + tall
            axes.set_position((box.x0, 1 - bottom / height, box.width, (bottom - top) / height))


def _is_marker(key: Artist) -> bool:
    """Whether a legend's key is a marker without a line, which stands there once."""
    return isinstance(key, Line2D) and key.get_linestyle() == "None"


def style_axes(axes: Axes, *, y_ticks: bool, width: float | None = None, whole: bool = False) -> None:
    """Draw plain axes with round ticks and a grid; the axes have their limits already.

    Args:
        axes: The axes.
        y_ticks: Whether there are ticks along y too.
        width: Inches; given for panels side by side, whose ticks' labels must not reach into the next one.
        whole: Whether x has whole numbers alone.
    """
    locator = MaxNLocator(5 if y_ticks else 7, steps=[1, 2, 5, 10], integer=whole, min_n_ticks=1)
    low, high = axes.get_xlim()
    ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
    if width is not None:
        over = [width_of(f"{tick:,g}", SMALL) / 2 - MARGIN / 2 for tick in ticks]
        places = [(tick - low) / (high - low) * width for tick in ticks]
        kept = zip(ticks, places, over, strict=True)
        ticks = [tick for tick, place, half in kept if half <= place <= width - half]
    axes.set_xticks(ticks)
    bottom, top = sorted(axes.get_ylim())
    places_y = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(bottom, top) if y_ticks else []
    axes.set_yticks([tick for tick in places_y if bottom <= tick <= top])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.tick_params(length=2, labelsize=SMALL, color=INK, labelcolor=INK)
    axes.grid(axis="both" if y_ticks else "x", color=GRID, linewidth=THIN)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def section_colors(ladder: pd.DataFrame) -> "pd.Series[str]":
    """Return the colour of each rung, by its id: that of its section, the same in every figure of a ladder.

    Args:
        ladder: A row a rung in the ladder's order, with the columns rung and section; the latter may be missing.
    """
    sections = ladder["section"] if "section" in ladder else pd.Series(None, ladder.index, dtype=object)
    named = [section for section in sections.dropna().unique() if section != SECTION]
    colors = {section: PALETTE[i % len(PALETTE)] for i, section in enumerate(named)} | {SECTION: GREY}
    return pd.Series([colors.get(section, START_COLOR) for section in sections], ladder["rung"].to_list(), dtype=str)


def text_color(ground: str | tuple[float, float, float]) -> str:
    """Return the darker or lighter ink that is easier to read on a colour."""
    return max((ON_LIGHT, ON_DARK), key=lambda ink: abs(_lightness(ink) - _lightness(ground)))


def _lightness(color: str | tuple[float, float, float]) -> float:
    """Return how light a colour looks, from 0 to 1: the cube root of its relative luminance (WCAG)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return float(np.cbrt(np.dot((0.2126, 0.7152, 0.0722), linear)))


def mix(color: str, other: str, share: float) -> tuple[float, float, float]:
    """Return a colour with a share of another in it."""
    r, g, b = (a + share * (b - a) for a, b in zip(to_rgb(color), to_rgb(other), strict=True))
    return r, g, b


@contextmanager
def any_character() -> Iterator[None]:
    """Let a character that the font lacks be drawn as a box, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@contextmanager
def without_layout_tables() -> Iterator[None]:
    """Leave layout tables out of a PDF's fonts: letters are placed already, and reading takes half a second."""
    from fontTools.subset import Options  # type: ignore[import-untyped]  # what matplotlib takes its fonts apart with

    default = getattr(Options, "_drop_tables_default", [])
    Options._drop_tables_default = [*default, *LAYOUT_TABLES]
    try:
        yield
    finally:
        Options._drop_tables_default = default


@cache
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Return the width in inches of a text as it will be drawn."""
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    measure = partial(TextToPath().get_text_width_height_descent, prop=font, ismath=False)
    with any_character():
        return max(measure(line)[0] for line in text.split("\n")) / 72


def height_of(text: str, size: float) -> float:
    """Return the height in inches that a text takes on the page."""
    return (text.count("\n") + 1) * size * LEADING / 72


def wrap(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Break a text into lines no wider than `width` inches, inside words only where one is wider by itself."""

    def broken(columns: int) -> str:
        return "\n".join(textwrap.wrap(text, columns, break_on_hyphens=False))

    fewest, most = 1, max(len(text), 1)
    while fewest < most:
        columns = (fewest + most + 1) // 2
        if width_of(broken(columns), size, weight) <= width:
            fewest = columns
        else:
            most = columns - 1
    return broken(fewest)
