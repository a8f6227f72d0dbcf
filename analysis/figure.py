"""The roadmap figure, a bar a rung from top to bottom: a ladder's frame in, a matplotlib figure out.

No pyplot, so figures need no display and do not pile up in a notebook.

Source: the idea is Figure 2 of Liu et al., "A ConvNet for the 2020s"; the colours are Okabe and Ito's, for all eyes.
"""

import math
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Affine2D

from roadmap.ladder import Reference
from roadmap.results import write_atomically

# Inches. The labels' column is as wide as the widest, and no wider than LABELS.
WIDTH, MARGIN, GAP = 7.0, 0.12, 0.08
ROW, BAR, BEHIND = 0.225, 0.13, 0.195
LABELS, COSTS, TICKS, KEY = 1.6, 0.95, 0.22, 0.47
# Points, and lines of text as a multiple of them.
TITLE, TEXT, SMALL, LEADING = 10.0, 7.5, 7.0, 1.25

START_COLOR, PALETTE = "#CC79A7", ("#F0E442", "#56B4E9", "#E69F00", "#0072B2", "#D55E00", "#009E73")
BEHIND_COLOR, REFERENCE_COLOR, NOTE_COLOR, INK, GRID = "#D4D4D4", "#666666", "#FFE9A8", "#222222", "#E8E8E8"
HATCH, THIN, THICK = "//////", 0.6, 0.9
MARKS = "*†‡§¶"
WORDS = {"missing": "not run yet", "finished": "no result"}  # any other state is printed as it is
STEPS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # between ticks, points


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a roadmap figure says beside its bars.

    Attributes:
        title: The headline.
        axis: What the bars measure, with its unit.
        start: The network that the ladder starts from, a heading over the first row; none if empty.
        result: The network that it arrives at, named beside the last adopted rung; empty for a ladder that stops short.
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


class _Page:
    """A figure written from the top down, as tall as what it holds; places are inches from the top left."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH, 1))
        self.flip = Affine2D().scale(1, -1)
        self.inches = self.flip + self.figure.dpi_scale_trans
        self.y = MARGIN

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text as it is, dollar signs included."""
        style = {"color": INK, "fontsize": TEXT, "linespacing": 0.95 * LEADING, "parse_math": False, **style}
        self.figure.text(x, y, text, transform=self.inches, **style)

    def paragraph(self, text: str, width: float, *, x: float = MARGIN, fontsize: float = TEXT, **style: Any) -> None:
        """Write a text below what is there, wrapped."""
        text = _wrap(text, width, fontsize, style.get("weight", "normal"))
        self.text(x, self.y, text, fontsize=fontsize, va="top", **style)
        self.y += _height(text, fontsize)

    def close(self) -> None:
        """Give the figure its height, and its axes, whose y is the page's, their place."""
        height = self.y + MARGIN
        self.flip.translate(0, height)
        self.figure.set_size_inches(WIDTH, height)
        for axes in self.figure.axes:
            (bottom, top), box = axes.get_ylim(), axes.get_position()
            axes.set_position((box.x0, 1 - bottom / height, box.width, (bottom - top) / height))


def draw_roadmap(frame: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None = None) -> Figure:
    """Draw a ladder as bars of top-1 accuracy, one rung a row under its heading, with the networks' multiply-adds.

    Bars are the mean over seeds, with the standard deviation where there are two or more. A side branch is hatched; a
    rung without a result says why in words. The axis does not start at 0, and says where it does.

    Args:
        frame: A row a rung in the ladder's order, with the columns rung, label, section, adopted, parent, n, top1,
            top1_std, macs, state and erratum of `compare.LADDER_COLUMNS`. An erratum marks the row's multiply-adds as
            a misprint, so it is empty where they were counted.
        chart: The words around the bars.
        behind: The ladder from another base with the same rungs, in grey behind; it may lack some.

    Returns:
        The figure, 7 inches wide and as tall as its rows need.
    """
    table = _table(frame, chart, behind)
    notes = [note for note in table["erratum"].unique() if note]
    marks = {note: MARKS[i % len(MARKS)] * (1 + i // len(MARKS)) for i, note in enumerate(notes)}
    with matplotlib.style.context("default"):
        page = _Page()
        page.paragraph(chart.title, WIDTH - 2 * MARGIN, fontsize=TITLE, weight="bold")
        if chart.note:
            page.y += GAP
            box = {"boxstyle": "square,pad=0.4", "facecolor": NOTE_COLOR, "edgecolor": "none"}
            page.paragraph(chart.note, WIDTH - 3 * MARGIN, x=1.5 * MARGIN, bbox=box)
        page.y += 2 * GAP
        axes = _draw_rows(page, table, marks)
        left, (low, _) = axes.get_position().x0 * WIDTH, axes.get_xlim()
        page.y += TICKS
        page.paragraph(f"{chart.axis}; the axis starts at {low:g}", WIDTH - MARGIN - left, x=left)
        _draw_legend(page, table, chart.behind_label, left)
        page.y += GAP
        for note, mark in marks.items():
            page.paragraph(f"{mark} {note}", WIDTH - 2 * MARGIN, fontsize=SMALL)
        page.close()
    return page.figure


def _table(frame: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None) -> pd.DataFrame:
    """Return the frame and the reference as they are to be drawn: with color, heading, behind, word and bold."""
    colors = {section: PALETTE[i % len(PALETTE)] for i, section in enumerate(frame["section"].dropna().unique())}
    shadows = {} if behind is None else dict(zip(behind["rung"], behind["top1"], strict=True))
    adopted = frame.loc[frame["adopted"].astype(bool) & frame["parent"].notna(), "rung"]
    result = adopted.iloc[-1] if chart.result and len(adopted) else None
    rows = frame.to_dict("records")
    for row in rows:
        start = chart.start if pd.isna(row["parent"]) else ""
        row["heading"] = start if pd.isna(row["section"]) else row["section"]
        row["color"] = colors.get(row["section"], START_COLOR)
        row["behind"] = shadows.get(row["rung"])
        row["word"] = WORDS.get(row["state"], row["state"])
        row["bold"] = row["rung"] == result
        if row["bold"]:  # a line may end before "=", not after it
            row["label"] += f" =\N{NO-BREAK SPACE}{chart.result}"
    if chart.reference:
        own, other = chart.reference, chart.behind_reference
        name, shadow = (f"{own.label} / {other.label}", other.top1) if other else (own.label, None)
        row = {"rung": "reference", "label": name, "top1": own.top1, "behind": shadow, "macs": own.gmacs * 1e9, "n": 1}
        rows.append(row | {"adopted": True, "color": REFERENCE_COLOR, "heading": "", "bold": False, "erratum": ""})
    table = pd.DataFrame(rows)
    numbers = ["top1", "top1_std", "macs", "behind"]
    table[numbers] = table[numbers].astype(float)
    table["top1_std"] = table["top1_std"].where(table["n"] > 1)
    table["adopted"] = table["adopted"].astype(bool)
    return table


def _draw_rows(page: _Page, table: pd.DataFrame, marks: dict[str, str]) -> Axes:
    """Draw headings, labels, bars and costs; return the bars' axes."""
    rows: list[Any] = list(table.itertuples())
    labels = [_wrap(row.label, LABELS, TEXT, "bold" if row.bold else "normal") for row in rows]
    headings = [_wrap(row.heading, LABELS + MARGIN, TEXT, "bold") for row in rows]
    labels_width = max(_width(text, TEXT, "bold") for text in labels)
    left = 3 * MARGIN + max(labels_width, *(_width(text, TEXT, "bold") - MARGIN for text in headings))
    right, digits = WIDTH - MARGIN - COSTS, WIDTH - 2 * MARGIN  # a mark hangs behind the digits
    low, high, step = _limits(table, right - left)
    unit, form, size = ("GFLOPs", ".2f", 1e9) if table["macs"].max() >= 1e9 else ("MFLOPs", ".1f", 1e6)
    page.text(digits, page.y, f"{unit}\n(multiply-adds)", ha="right", va="top", fontsize=SMALL)
    axes = page.figure.add_axes((left / WIDTH, 0, (right - left) / WIDTH, 1))
    top, above = page.y, None
    if not headings[0]:  # which would have kept the first row clear of the column's head
        page.y += _height("\n", SMALL)
    for row, label, heading in zip(rows, labels, headings, strict=True):
        if heading != above:
            page.y, above = page.y + GAP, heading
            if heading:
                page.paragraph(heading, LABELS + MARGIN, weight="bold", color=_mix(row.color, "black", 0.45))
        height = max(ROW, _height(label, TEXT) + GAP)
        middle = page.y + height / 2
        style: dict[str, Any] = {"va": "center_baseline", "weight": "bold" if row.bold else "normal"}
        page.text(2 * MARGIN, middle, label, gid=f"label-{row.rung}", **style)
        _draw_bar(axes, row, middle, low, style)
        cost = "-" if pd.isna(row.macs) else format(row.macs / size, form)
        page.text(digits, middle, cost, ha="right", gid=f"cost-{row.rung}", **style)
        if row.erratum:
            page.text(digits + 0.02, middle, marks[row.erratum], gid=f"mark-{row.rung}", **style)
        page.y += height
    page.y += GAP
    axes.set(xlim=(low, high), ylim=(page.y, top), yticks=[], axisbelow=True)
    ticks = [low + i * step for i in range(1 + int((min(high, 100) - low) / step))]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(length=2, labelsize=SMALL, color=INK, labelcolor=INK)
    axes.grid(axis="x", color=GRID, linewidth=THIN)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _draw_bar(axes: Axes, row: Any, y: float, low: float, style: dict[str, Any]) -> None:
    """Draw a row's bars, spread and value, or the word for why there are none. Bars start at 0, left of the axis."""
    if pd.notna(row.behind):
        axes.barh(y, row.behind, height=BEHIND, color=BEHIND_COLOR, gid=f"behind-{row.rung}")
    style = style | {"textcoords": "offset points", "fontsize": TEXT, "color": INK, "parse_math": False}
    style["path_effects"] = [withStroke(linewidth=1.5, foreground="white")]
    if pd.isna(row.top1):
        axes.annotate(row.word, (low, y), (4, 0), fontstyle="italic", gid=f"word-{row.rung}", **style)
        return
    fill, edge = row.color if row.adopted else _mix(row.color, "white", 0.7), _mix(row.color, "black", 0.15)
    (bar,) = axes.barh(y, row.top1, height=BAR, facecolor=fill, edgecolor=edge, linewidth=THIN, gid=f"bar-{row.rung}")
    if not row.adopted:
        bar.set_hatch(HATCH)
        bar.set_hatch_linewidth(THIN)
    end = row.top1
    if pd.notna(row.top1_std):
        end += row.top1_std
        axes.errorbar(row.top1, y, xerr=row.top1_std, color=INK, linewidth=THICK, capthick=THICK, capsize=2)
    axes.annotate(f"{row.top1:.2f}", (end, y), (4, 0), gid=f"value-{row.rung}", **style)


def _limits(table: pd.DataFrame, width: float) -> tuple[float, float, float]:
    """Return where an axis of that many inches begins and ends for every bar's end and value to show, and its step."""
    spread = table["top1_std"].fillna(0)
    low = pd.concat([table["top1"] - spread, table["behind"]]).min()
    if pd.isna(low):
        return 0.0, 100.0, 20.0
    own, other = (table["top1"] + spread).fillna(0).max(), table["behind"].fillna(0).max()
    span = max(own - low, other - low, 2.0)  # a spread of less than 2 points is not blown up
    step = next((step for step in STEPS if span <= 8 * step), STEPS[-1])
    low = max(0.0, math.floor((max(own, other) - 1.08 * span) / step) * step)
    value = _width("100.00", TEXT, "bold") + GAP
    return low, max(low + (own - low) * width / (width - value), other + 0.02 * span), step


def _draw_legend(page: _Page, table: pd.DataFrame, behind_label: str, left: float) -> None:
    """Explain what the bars do not say themselves, in one line where it fits."""
    keys: dict[str, Patch | Line2D] = {}
    if (table["top1"].notna() & ~table["adopted"]).any():
        keys["not adopted"] = Patch(facecolor="white", edgecolor=REFERENCE_COLOR, hatch=HATCH, linewidth=THIN)
    if behind_label and table["behind"].notna().any():
        keys[behind_label] = Patch(facecolor=BEHIND_COLOR)
    runs = table.loc[table["top1_std"].notna(), "n"]
    if len(runs):
        seeds = f"{runs.min()}" if runs.min() == runs.max() else f"{runs.min()} to {runs.max()}"
        line = Line2D([], [], color=INK, linewidth=THICK, marker="|", markersize=5)
        keys[f"standard deviation over {seeds} seeds"] = line
    if not keys:
        return
    width = WIDTH - MARGIN - left
    labels = [_wrap(label, width - KEY, SMALL) for label in keys]
    heights = [_height(label, SMALL) for label in labels]
    fits = sum(KEY + _width(label, SMALL) for label in labels) < width
    page.y += GAP
    legend = page.figure.legend(
        keys.values(),
        labels,
        ncols=len(keys) if fits else 1,
        loc="upper left",
        bbox_to_anchor=(left, page.y),
        bbox_transform=page.inches,
        fontsize=SMALL,
        labelcolor=INK,
        numpoints=2,
        borderpad=0,
        borderaxespad=0,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    page.y += max(heights) if fits else sum(heights) + GAP / 2 * len(labels)


def _mix(color: str, other: str, share: float) -> tuple[float, float, float]:
    r, g, b = (a + share * (b - a) for a, b in zip(to_rgb(color), to_rgb(other), strict=True))
    return r, g, b


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width in inches of a text as it will be drawn."""
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    measure = partial(TextToPath().get_text_width_height_descent, prop=font, ismath=False)
    return max(measure(line)[0] for line in text.split("\n")) / 72


def _height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * size * LEADING / 72


def _wrap(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Break a text into lines no wider than `width` inches, inside words only where one is wider by itself."""

    def broken(columns: int) -> str:
        return "\n".join(textwrap.wrap(text, columns, break_on_hyphens=False))

    fewest, most = 1, max(len(text), 1)
    while fewest < most:
        columns = (fewest + most + 1) // 2
        if _width(broken(columns), size, weight) <= width:
            fewest = columns
        else:
            most = columns - 1
    return broken(fewest)


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
            write_atomically(path, partial(figure.savefig, format=ending, dpi=200, metadata=metadata))
            files.append(path)
    return files
