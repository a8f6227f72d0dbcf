"""The roadmap figure, a bar a rung from top to bottom: a ladder's frame in, a matplotlib figure out.

The figures hold no pyplot state, so they work without a display and do not pile up in a notebook.

Source: the idea is Figure 2 of Liu et al., "A ConvNet for the 2020s"; the colours are Okabe and Ito's, for all eyes.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib import patheffects, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, ScaledTranslation

from roadmap.ladder import Reference
from roadmap.results import write_atomically

# Inches.
WIDTH, MARGIN, GAP = 7.0, 0.12, 0.08
ROW, BAR, BEHIND = 0.225, 0.13, 0.195
LABELS, COSTS, TICKS, KEY = 1.6, 0.8, 0.22, 0.45  # LABELS is a limit: the column is as wide as its widest label
# Points.
TITLE, TEXT, SMALL, LEADING = 10.0, 7.5, 7.0, 1.25

START_COLOR, PALETTE = "#CC79A7", ("#F0E442", "#56B4E9", "#E69F00", "#0072B2", "#D55E00", "#009E73")
BEHIND_COLOR, REFERENCE_COLOR, INK, FAINT, NOTE_COLOR = "#D4D4D4", "#666666", "#222222", "#E8E8E8", "#FFE9A8"
HATCH, MARKS = "//////", "*†‡§¶"
WORDS = {"missing": "not run yet", "finished": "no result"}  # other states are printed as they are
TEXT_TO_PATH = TextToPath()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a roadmap figure says beside its bars.

    Attributes:
        title: The headline.
        axis: What the bars measure, with its unit.
        start: The network that the ladder starts from, a heading over the first row; none if empty.
        result: The network that it arrives at, named beside the last adopted rung; not named if empty, as for a ladder
            that stops short of it.
        note: What the numbers are, boxed under the title; a proxy says here that it is one.
        reference: The published network in the last row; None where its number cannot be compared.
        behind_label: What the grey bars are.
        behind_reference: The grey bar of the last row.
    """

    title: str
    axis: str
    start: str = ""
    result: str = ""
    note: str = ""
    reference: Reference | None = None
    behind_label: str = ""
    behind_reference: Reference | None = None


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row of the figure. Numbers may be NaN; `word` stands in for a bar that has none."""

    rung: str
    label: str
    heading: str
    color: str
    top1: float
    macs: float
    std: float = math.nan
    n: int = 0
    behind: float = math.nan
    word: str = ""
    erratum: str = ""
    adopted: bool = True
    bold: bool = False


class _Page:
    """A figure that is written from the top down and is as tall as what it holds; (x, y) in inches from the top left."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH, 1))
        self.inches = (
            Affine2D().scale(1, -1) + self.figure.dpi_scale_trans + ScaledTranslation(0, 1, self.figure.transFigure)
        )
        self.y = MARGIN

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text as it is, dollar signs included."""
        style = {"color": INK, "fontsize": TEXT, "linespacing": LEADING * 0.95, "parse_math": False} | style
        self.figure.text(x, y, text, transform=self.inches, **style)

    def paragraph(self, text: str, width: float, *, x: float = MARGIN, size: float = TEXT, **style: Any) -> None:
        """Write a text below what is there, wrapped."""
        text = _wrap(text, width, size, style.get("weight", "normal"))
        self.text(x, self.y, text, fontsize=size, va="top", **style)
        self.y += _height(text, size)


def draw_roadmap(frame: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None = None) -> Figure:
    """Draw a ladder as bars of top-1 accuracy, one rung a row under its heading, with the networks' multiply-adds.

    Bars are the mean over seeds, with the standard deviation where two or more runs give one. A side branch is hatched;
    a rung without a result says why in words. The axis does not start at 0, and says where it does.

    Args:
        frame: A row a rung in the ladder's order, with the columns rung, label, section, adopted, parent, n, top1,
            top1_std, macs, state and erratum of `compare.LADDER_COLUMNS`. An erratum marks the multiply-adds as a
            misprint, so a frame with counted ones leaves it empty.
        chart: The words around the bars.
        behind: The ladder from another base with the same rungs, in grey behind; it may lack some.

    Returns:
        The figure, 7 inches wide and as tall as its rows need.
    """
    rows = _rows(frame, chart, behind)
    page = _Page()
    with matplotlib.style.context("default"):
        page.paragraph(chart.title, WIDTH - 2 * MARGIN, size=TITLE, weight="bold")
        if chart.note:
            page.y += GAP
            box = {"boxstyle": "square,pad=0.4", "facecolor": NOTE_COLOR, "edgecolor": "none"}
            page.paragraph(chart.note, WIDTH - 2 * MARGIN - 0.1, x=MARGIN + 0.05, bbox=box)
        page.y += 2 * GAP
        left, low = _draw_rows(page, rows)
        page.y += TICKS
        page.paragraph(f"{chart.axis}; the axis starts at {low:g}", WIDTH - MARGIN - left, x=left)
        _draw_legend(page, rows, chart.behind_label, left)
        for erratum, mark in _marks(rows).items():
            page.paragraph(f"{mark} {erratum}", WIDTH - 2 * MARGIN, size=SMALL)
        _close(page)
    return page.figure


def _rows(frame: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None) -> list[_Row]:
    """Return the rows to draw: the frame's, then the reference."""
    colors = {section: PALETTE[i % len(PALETTE)] for i, section in enumerate(frame["section"].dropna().unique())}
    shadows = {} if behind is None else behind.set_index("rung")["top1"].to_dict()
    last = next((row["rung"] for row in reversed(frame.to_dict("records")) if row["adopted"]), None)
    rows = []
    for row in frame.to_dict("records"):
        is_start, has_section = pd.isna(row["parent"]), pd.notna(row["section"])
        is_result = bool(chart.result) and row["rung"] == last and not is_start
        rows.append(
            _Row(
                rung=row["rung"],
                # No break after "=", so that the name of the result stays in one piece.
                label=f"{row['label']} =\N{NO-BREAK SPACE}{chart.result}" if is_result else row["label"],
                heading=row["section"] if has_section else chart.start if is_start else "",
                color=colors[row["section"]] if has_section else START_COLOR,
                top1=_number(row["top1"]),
                std=_number(row["top1_std"]) if row["n"] > 1 else math.nan,
                n=row["n"],
                macs=_number(row["macs"]),
                behind=_number(shadows.get(row["rung"])),
                word=WORDS.get(row["state"], row["state"]) if pd.isna(row["top1"]) else "",
                erratum=row["erratum"] if pd.notna(row["macs"]) else "",
                adopted=row["adopted"],
                bold=is_result,
            )
        )
    if chart.reference:
        other = chart.behind_reference
        rows.append(
            _Row(
                rung="reference",
                label=f"{chart.reference.label} / {other.label}" if other else chart.reference.label,
                heading="",
                color=REFERENCE_COLOR,
                top1=chart.reference.top1,
                macs=chart.reference.gmacs * 1e9,
                behind=other.top1 if other else math.nan,
            )
        )
    return rows


def _draw_rows(page: _Page, rows: Sequence[_Row]) -> tuple[float, float]:
    """Draw labels, bars and costs; return where the bars begin on the page (inches) and on the axis (percent)."""
    labels = [_wrap(row.label, LABELS, TEXT, "bold" if row.bold else "normal") for row in rows]
    left = 3 * MARGIN + max((_width(label, TEXT, "bold") for label in labels), default=0)
    right = WIDTH - MARGIN - COSTS
    low, high = _limits(rows, right - left)
    unit, size, digits = ("GFLOPs", 1e9, 2) if max((row.macs for row in rows), default=0) >= 1e9 else ("MFLOPs", 1e6, 1)
    marks = _marks(rows)
    costs = WIDTH - MARGIN - 0.1  # where the digits end; marks hang behind them
    page.text(costs, page.y, f"{unit}\n(multiply-adds)", ha="right", va="top", fontsize=SMALL)

    axes = page.figure.add_axes((left / WIDTH, 0, (right - left) / WIDTH, 1))
    top, heading = page.y, ""
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        if row.heading != heading or index == 0:
            page.y += GAP
            heading = row.heading
            if heading:
                page.paragraph(heading, right - MARGIN, weight="bold", color=_mix(row.color, "black", 0.45))
        height = max(ROW, _height(label, TEXT) + GAP / 2)
        middle = page.y + height / 2
        style = {"va": "center", "weight": "bold" if row.bold else "normal"}
        page.text(2 * MARGIN, middle, label, gid=f"label-{row.rung}", **style)
        _draw_bar(axes, row, middle, low)
        cost = "–" if math.isnan(row.macs) else f"{row.macs / size:.{digits}f}"
        page.text(costs, middle, cost, ha="right", gid=f"cost-{row.rung}", **style)
        if row.erratum:
            page.text(costs + 0.02, middle, marks[row.erratum], va="center", gid=f"mark-{row.rung}")
        page.y += height
    page.y += GAP / 2
    _draw_axis(axes, low, high, top, page.y)
    return left, low


def _draw_bar(axes: Axes, row: _Row, y: float, low: float) -> None:
    """Draw a row's bars, spread and value, or the word for why there are none. Bars start at 0, left of the axis."""
    if not math.isnan(row.behind):
        axes.barh(y, row.behind, height=BEHIND, color=BEHIND_COLOR, gid=f"behind-{row.rung}")
    halo = [patheffects.withStroke(linewidth=1.5, foreground="white")]
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": TEXT, "path_effects": halo}
    if math.isnan(row.top1):
        axes.annotate(row.word, (low, y), (4, 0), style="italic", color="#555555", gid=f"word-{row.rung}", **style)
        return
    fill = row.color if row.adopted else _mix(row.color, "white", 0.7)
    edge = _mix(row.color, "black", 0.15)
    (bar,) = axes.barh(y, row.top1, height=BAR, facecolor=fill, edgecolor=edge, linewidth=0.6, gid=f"bar-{row.rung}")
    if not row.adopted:
        bar.set_hatch(HATCH)
        bar.set_hatch_linewidth(0.6)
    end = row.top1
    if not math.isnan(row.std):
        end += row.std
        axes.errorbar(row.top1, y, xerr=row.std, color=INK, linewidth=0.9, capsize=2, capthick=0.9)
    weight = "bold" if row.bold else "normal"
    axes.annotate(f"{row.top1:.2f}", (end, y), (4, 0), weight=weight, color=INK, gid=f"value-{row.rung}", **style)


def _limits(rows: Sequence[_Row], width: float) -> tuple[float, float]:
    """Return the accuracies between which every bar's end shows, with room for the values, on an axis that wide."""
    spreads = [0 if math.isnan(row.std) else row.std for row in rows]
    ends = [row.top1 + spread for row, spread in zip(rows, spreads, strict=True) if not math.isnan(row.top1)]
    starts = [row.top1 - spread for row, spread in zip(rows, spreads, strict=True) if not math.isnan(row.top1)]
    behind = [row.behind for row in rows if not math.isnan(row.behind)]
    if not ends + behind:
        return 0.0, 100.0
    low, high = min(starts + behind), max(ends + behind)
    span = max(high - low, 2.0)
    first, second, *_ = MaxNLocator(nbins=6).tick_values(high - span, high)
    half = (second - first) / 2
    low = max(0.0, math.floor((low - 0.08 * span) / half) * half)
    room = width / (width - _width("100.00", TEXT, "bold") - 0.1)
    return low, max([low + (end - low) * room for end in ends] + [end + 0.02 * span for end in behind])


def _draw_axis(axes: Axes, low: float, high: float, top: float, bottom: float) -> None:
    axes.set(xlim=(low, high), ylim=(bottom, top), yticks=[])
    ticks = [tick for tick in MaxNLocator(nbins=8).tick_values(low, high) if low <= tick <= min(high, 100)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(length=2, labelsize=SMALL, color=INK, labelcolor=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_legend(page: _Page, rows: Sequence[_Row], behind_label: str, left: float) -> None:
    """Explain what the bars do not say themselves, in one line where it fits."""
    keys: dict[str, Patch | Line2D] = {}
    if not all(row.adopted for row in rows):
        keys["not adopted"] = Patch(facecolor="white", edgecolor=REFERENCE_COLOR, hatch=HATCH, linewidth=0.6)
    if behind_label and not all(math.isnan(row.behind) for row in rows):
        keys[behind_label] = Patch(facecolor=BEHIND_COLOR)
    runs = sorted({row.n for row in rows if not math.isnan(row.std)})
    if runs:
        count = f"{runs[0]} seeds" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} seeds"
        keys[f"standard deviation over {count}"] = Line2D([], [], color=INK, linewidth=0.9, marker="|", markersize=5)
    if not keys:
        return
    page.y += GAP
    labels = [_wrap(label, WIDTH - MARGIN - left - KEY, SMALL) for label in keys]
    fits = sum(KEY + _width(label, SMALL) for label in labels) < WIDTH - MARGIN - left
    legend = page.figure.legend(
        keys.values(),
        labels,
        ncols=len(keys) if fits else 1,
        loc="upper left",
        bbox_to_anchor=(left, page.y),
        bbox_transform=page.inches,
        fontsize=SMALL,
        numpoints=2,
        labelspacing=0.4,
        columnspacing=1.5,
        handlelength=2,
        handletextpad=0.6,
        borderpad=0,
        borderaxespad=0,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    heights = [_height(label, SMALL) + 0.06 for label in labels]
    page.y += max(heights) if fits else sum(heights)


def _close(page: _Page) -> None:
    """Give the figure the height of what it holds, and the axes their place in it."""
    height = page.y + MARGIN
    page.figure.set_size_inches(WIDTH, height)
    for axes in page.figure.axes:
        bottom, top = axes.get_ylim()
        box = axes.get_position()
        axes.set_position((box.x0, 1 - bottom / height, box.width, (bottom - top) / height))


def _marks(rows: Sequence[_Row]) -> dict[str, str]:
    """Return the mark of each erratum: a star, a dagger and so on, doubled when they run out."""
    errata = dict.fromkeys(row.erratum for row in rows if row.erratum)
    return {erratum: MARKS[i % len(MARKS)] * (1 + i // len(MARKS)) for i, erratum in enumerate(errata)}


def _number(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value)


def _mix(color: str, other: str, share: float) -> str:
    return to_hex([a + share * (b - a) for a, b in zip(to_rgb(color), to_rgb(other), strict=True)])


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width in inches of a text as it will be drawn."""
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    lines = text.split("\n")
    return max(TEXT_TO_PATH.get_text_width_height_descent(line, font, ismath=False)[0] for line in lines) / 72


def _height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * size * LEADING / 72


def _wrap(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Break a text into lines no wider than `width` inches, inside words only where one is wider by itself."""
    for columns in range(max(len(text), 1), 0, -1):
        lines = textwrap.wrap(text, columns, break_on_hyphens=False) or [""]
        if all(_width(line, size, weight) <= width for line in lines):
            break
    return "\n".join(lines)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG (200 dpi), SVG and PDF; the same figure gives the same bytes.

    Args:
        figure: The figure.
        stem: The path without its ending.

    Returns:
        The files written.

    Raises:
        UserError: If the folder cannot be written.
    """
    files = []
    # Type 42 keeps the PDF's text selectable, which some publishers require; a salt keeps the SVG's ids from changing.
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "roadmap"}):
        for ending, metadata in {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.items():
            path = stem.with_name(f"{stem.name}.{ending}")
            write_atomically(path, lambda file: figure.savefig(file, format=ending, dpi=200, metadata=metadata))
            files.append(path)
    return files
