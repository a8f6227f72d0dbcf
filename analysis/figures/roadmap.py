"""The roadmap figure, a bar a rung from top to bottom: a ladder's frame in, a matplotlib figure out.

Source: the idea is Figure 2 of Liu et al., "A ConvNet for the 2020s".
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from analysis.figures.style import (
    GAP,
    GREY,
    GRID,
    INK,
    LABELS,
    MARGIN,
    ROW,
    SMALL,
    START_COLOR,
    TEXT,
    THICK,
    THIN,
    TICKS,
    WIDTH,
    Page,
    height_of,
    mix,
    section_colors,
    width_of,
    wrap,
)
from analysis.ladder_table import notes_of
from roadmap.common.files import write_atomically
from roadmap.ladder.references import SECTION
from roadmap.ladder.schema import Reference

BAR, BEHIND, COSTS = 0.13, 0.195, 0.95  # inches
BEHIND_COLOR = "#D4D4D4"
HATCH = "//////"
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
        headline: The sentence that says which steps are answered, under the note.
        width: Of the figure in inches.
        reference: The published network in the last row; None where its number cannot be compared.
        behind_label: What the grey bars are.
        behind_reference: The grey bar of the last row.
    """

    title: str
    axis: str
    start: str = ""
    result: str = ""
    note: str = ""
    headline: str = ""
    width: float = WIDTH
    reference: Reference | None = None
    behind_label: str = ""
    behind_reference: Reference | None = None


def draw_roadmap(frame: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None = None) -> Figure:
    """Draw a ladder as bars of top-1 accuracy, one rung a row under its heading, with the networks' multiply-adds.

    Bars are the mean over seeds, with the standard deviation where there are two or more. A side branch is hatched; a
    rung without a result says why in words. The axis does not start at 0, and says where it does.

    Args:
        frame: A row a rung in the ladder's order, with the columns rung, label, section, adopted, parent, n, top1,
            top1_std, macs, state and erratum of `compare.LADDER_COLUMNS`. An erratum marks the row's multiply-adds as
            a misprint, or as not matched.
        chart: The words around the bars.
        behind: The ladder from another base with the same rungs, in grey behind; it may lack some.

    Returns:
        The figure, 7 inches wide and as tall as its rows need.
    """
    table = _table(frame, chart, behind)
    notes = notes_of(table)
    marks = {note: MARKS[i % len(MARKS)] * (1 + i // len(MARKS)) for i, note in enumerate(notes)}
    with matplotlib.style.context("default"):
        page = Page()
        page.head(chart.title, chart.note)
        if chart.headline:
            page.paragraph(chart.headline, WIDTH - 2 * MARGIN)
            page.y += GAP
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
    colors = section_colors(frame["section"])
    shadows = {} if behind is None else dict(zip(behind["rung"], behind["top1"], strict=True))
    adopted = frame.loc[frame["adopted"].astype(bool) & frame["parent"].notna(), "rung"]
    result = adopted.iloc[-1] if chart.result and len(adopted) else None
    rows = frame.to_dict("records")
    for row in rows:
        start = chart.start if pd.isna(row["parent"]) else ""
        row["heading"] = start if pd.isna(row["section"]) else row["section"]
        row["color"] = colors.get(row["section"], START_COLOR)
        row["behind"] = shadows.get(row["rung"])
        if row["section"] == SECTION:
            row |= {"color": GREY, "behind": None, "adopted": True}
        row["word"] = WORDS.get(row["state"], row["state"])
        row["bold"] = row["rung"] == result
        if row["bold"]:  # a line may end before "=", not after it
            row["label"] += f" =\N{NO-BREAK SPACE}{chart.result}"
    if chart.reference:
        own, other = chart.reference, chart.behind_reference
        name, shadow = (f"{own.label} / {other.label}", other.top1) if other else (own.label, None)
        row = {"rung": "reference", "label": name, "top1": own.top1, "behind": shadow, "macs": own.gmacs * 1e9, "n": 1}
        rows.append(row | {"adopted": True, "color": GREY, "heading": "", "bold": False, "erratum": ""})
    table = pd.DataFrame(rows)
    numbers = ["top1", "top1_std", "macs", "behind"]
    table[numbers] = table[numbers].astype(float)
    table["top1_std"] = table["top1_std"].where(table["n"] > 1)
    table["adopted"] = table["adopted"].astype(bool)
    return table


def _draw_rows(page: Page, table: pd.DataFrame, marks: dict[str, str]) -> Axes:
    """Draw headings, labels, bars and costs; return the bars' axes."""
    rows: list[Any] = list(table.itertuples())
    labels = [wrap(row.label, LABELS, TEXT, "bold" if row.bold else "normal") for row in rows]
    headings = [wrap(row.heading, LABELS + MARGIN, TEXT, "bold") for row in rows]
    labels_width = max(width_of(text, TEXT, "bold") for text in labels)
    left = 3 * MARGIN + max(labels_width, *(width_of(text, TEXT, "bold") - MARGIN for text in headings))
    right, digits = WIDTH - MARGIN - COSTS, WIDTH - 2 * MARGIN  # a mark hangs behind the digits
    low, high, step = _limits(table, right - left)
    unit, form, size = ("GFLOPs", ".2f", 1e9) if table["macs"].max() >= 1e9 else ("MFLOPs", ".1f", 1e6)
    page.text(digits, page.y, f"{unit}\n(multiply-adds)", ha="right", va="top", fontsize=SMALL)
    axes = page.rows(left, right)
    top, above = page.y, None
    if not headings[0]:  # which would have kept the first row clear of the column's head
        page.y += height_of("\n", SMALL)
    for row, label, heading in zip(rows, labels, headings, strict=True):
        if heading != above:
            page.y, above = page.y + GAP, heading
            if heading:
                page.paragraph(heading, LABELS + MARGIN, weight="bold", color=mix(row.color, "black", 0.45))
        height = max(ROW, height_of(label, TEXT) + GAP)
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
    fill, edge = row.color if row.adopted else mix(row.color, "white", 0.7), mix(row.color, "black", 0.15)
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
    value = width_of("100.00", TEXT, "bold") + GAP
    return low, max(low + (own - low) * width / (width - value), other + 0.02 * span), step


def _draw_legend(page: Page, table: pd.DataFrame, behind_label: str, left: float) -> None:
    """Explain what the bars do not say themselves, in one line where it fits."""
    keys: dict[str, Artist] = {}
    if (table["top1"].notna() & ~table["adopted"]).any():
        keys["not adopted"] = Patch(facecolor="white", edgecolor=GREY, hatch=HATCH, linewidth=THIN)
    if behind_label and table["behind"].notna().any():
        keys[behind_label] = Patch(facecolor=BEHIND_COLOR)
    runs = table.loc[table["top1_std"].notna(), "n"]
    if len(runs):
        seeds = f"{runs.min()}" if runs.min() == runs.max() else f"{runs.min()} to {runs.max()}"
        line = Line2D([], [], color=INK, linewidth=THICK, marker="|", markersize=5)
        keys[f"standard deviation over {seeds} seeds"] = line
    page.legend(keys, left, numpoints=2)


def save_figure(figure: Figure, stem: Path, forms: Iterable[str] = ("png", "svg", "pdf")) -> list[Path]:
    """Write a figure as PNG (200 dpi), SVG and PDF; the same figure gives the same bytes.

    Args:
        figure: The figure.
        stem: The path without its ending.
        forms: Which of the three.

    Returns:
        The files written.

    Raises:
        UserError: If the folder cannot be written.
    """
    files = []
    # Type 42 keeps the PDF's text selectable, which some publishers require; a salt keeps the SVG's ids from changing.
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "roadmap"}):
        for ending in forms:
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending, {})
            path = stem.with_name(f"{stem.name}.{ending}")
            write_atomically(path, partial(figure.savefig, format=ending, dpi=200, metadata=metadata))
            files.append(path)
    return files
