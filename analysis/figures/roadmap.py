"""The roadmap figure, a bar a rung from top to bottom: a ladder's frame in, a matplotlib figure out.

Source: the idea is Figure 2 of Liu et al., "A ConvNet for the 2020s".
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from analysis.figures.rows import arrow_keys, draw_arrows
from analysis.figures.style import (
    GAP,
    GREY,
    GRID,
    INK,
    MARGIN,
    PAPER,
    ROW,
    SHADOW,
    SMALL,
    TEXT,
    THICK,
    THIN,
    TICKS,
    WIDTH,
    Page,
    any_character,
    height_of,
    mix,
    section_colors,
    text_color,
    width_of,
    without_layout_tables,
    wrap,
)
from analysis.ladder_table import notes_of
from analysis.sentences import marked
from analysis.stats.answers import Answer
from roadmap.common.files import write_atomically
from roadmap.ladder.references import SECTION
from roadmap.ladder.schema import Reference

BAR, BEHIND, ANSWER = 0.15, 0.21, 0.17  # inches; the last is the column of the answers' marks
HATCH = "//////"
MARKS = "*†‡§¶"
NBSP = "\N{NO-BREAK SPACE}"
WORDS = {"missing": "not run yet", "finished": "no result"}  # any other state is printed as it is
STEPS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # between ticks, points
UNITS = {"G": 1e9, "M": 1e6, "k": 1e3}
FENCE = 3.0  # quartile ranges beyond which a rung does not stretch the axis
NARROW = 5.0  # inches; a figure below that breaks its headings


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a roadmap figure says beside its bars.

    Attributes:
        title: The title.
        axis: What the bars measure, with its unit.
        start: The network that the ladder starts from, a heading over the first row; none if empty.
        result: The network that it arrives at, named beside the last adopted rung; empty for a ladder that stops short.
        headline: Which steps are answered, in one sentence under the title.
        note: What the numbers are, boxed below it; a proxy says here that it is one.
        width: Of the figure, in inches: 7 for a page, 3.3 for one of two columns.
        reference: The published network in the last row; None where its number cannot be compared.
        behind_label: What the grey bars are.
        behind_reference: The grey bar of the last row.
    """

    title: str
    axis: str
    start: str = ""
    result: str = ""
    headline: str = ""
    note: str = ""
    width: float = WIDTH
    reference: Reference | None = None
    behind_label: str = ""
    behind_reference: Reference | None = None


class _Column(NamedTuple):
    """Where the bars stand, and what their axis shows: inches from the left, points."""

    left: float
    right: float
    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value lies, inches from the axis's low end."""
        return (value - self.low) / (self.high - self.low) * (self.right - self.left)


def draw_roadmap(frame: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None = None) -> Figure:
    """Draw a ladder as bars of top-1 accuracy, one rung a row under its section, with the networks' multiply-adds.

    Bars are the mean over seeds, with the standard deviation where there are two or more. A mark says the answer on
    each step. A side branch is hatched; a rung without a result says why in words. The axis is chosen for the adopted
    rungs, says where it starts, and an arrow points to what lies beyond it.

    Args:
        frame: A row a rung in the ladder's order, with the columns rung, label, section, adopted, parent, n, top1,
            top1_std, macs, state and erratum of `ladder_table.LADDER_COLUMNS`; a column answer may be missing, and
            without any macs there is no column of them. An erratum marks the row's multiply-adds as a misprint, or as
            not matched.
        chart: The words around the bars.
        behind: The ladder from another base with the same rungs, in grey behind; it may lack some.

    Returns:
        The figure, as tall as its rows need. Its artists have gids such as "bar-gelu", to be found and restyled.
    """
    table = _table(frame, chart, behind)
    notes = notes_of(table)
    marks = {note: MARKS[i % len(MARKS)] * (1 + i // len(MARKS)) for i, note in enumerate(notes)}
    with matplotlib.style.context("default"):
        page = Page(chart.width)
        page.head(chart.title, chart.note, chart.headline)
        axes = _draw_rows(page, table, marks)
        left, (low, _) = axes.get_position().x0 * page.width, axes.get_xlim()
        page.y += TICKS
        page.paragraph(f"{chart.axis}; the axis starts at {low:g}", page.width - MARGIN - left, x=left)
        left = left if page.width >= NARROW else MARGIN
        _draw_legend(page, table, chart.behind_label, left, arrow_keys(axes))
        page.y += GAP
        for note, mark in marks.items():
            page.paragraph(f"{mark} {note}", page.width - 2 * MARGIN, fontsize=SMALL)
        page.close()
    return page.figure


def _table(frame: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None) -> pd.DataFrame:
    """Return the frame and the reference as they are to be drawn: with color, heading, behind, word and bold."""
    colors = section_colors(frame)
    shadows = {} if behind is None else dict(zip(behind["rung"], behind["top1"], strict=True))
    adopted = frame.loc[frame["adopted"].astype(bool) & frame["parent"].notna(), "rung"]
    result = adopted.iloc[-1] if chart.result and len(adopted) else None
    rows = frame.to_dict("records")
    for row in rows:
        start = chart.start if pd.isna(row["parent"]) else ""
        row["heading"] = start if pd.isna(row["section"]) else row["section"]
        row["color"] = colors[row["rung"]]
        row["behind"] = shadows.get(row["rung"])
        if row["section"] == SECTION:
            row |= {"behind": None, "adopted": True}
        row["answer"] = str(answer) if isinstance(answer := row.get("answer"), str) else ""
        row["word"] = WORDS.get(row["state"], row["state"])
        row["bold"] = row["rung"] == result
        if row["bold"]:  # a line may end before "=", not after it
            row["label"] += f" ={NBSP}{chart.result}"
    if chart.reference:
        own, other = chart.reference, chart.behind_reference
        name, shadow = (f"{own.label} / {other.label}", other.top1) if other else (own.label, None)
        row = {"rung": "reference", "label": name, "top1": own.top1, "behind": shadow, "macs": own.gmacs * 1e9, "n": 1}
        rows.append(row | {"adopted": True, "color": GREY, "heading": "", "bold": False, "erratum": "", "answer": ""})
    table = pd.DataFrame(rows)
    numbers = ["top1", "top1_std", "macs", "behind"]
    table[numbers] = table[numbers].astype(float)
    table["top1_std"] = table["top1_std"].where(table["n"] > 1)
    table["adopted"] = table["adopted"].astype(bool)
    return table


def _draw_rows(page: Page, table: pd.DataFrame, marks: dict[str, str]) -> Axes:
    """Draw sections, labels, answers, bars and costs; return the bars' axes."""
    rows: list[Any] = list(table.itertuples())
    labels = [wrap(row.label, page.labels, TEXT, "bold" if row.bold else "normal") for row in rows]
    headings = [wrap(row.heading, page.labels + MARGIN, TEXT, "bold") for row in rows]
    largest = table["macs"].max()
    unit, size = next((pair for pair in UNITS.items() if largest >= pair[1]), ("k", 1e3))
    counted = bool(table["macs"].notna().any())
    head = f"{unit}FLOPs\n(multiply-{'' if page.width >= NARROW else chr(10)}adds)" if counted else ""
    column = _column(page, table, labels, headings, head)
    digits = page.width - 2 * MARGIN  # a mark hangs behind the digits
    page.text(digits, page.y, head, ha="right", va="top", fontsize=SMALL)
    axes = page.rows(column.left, column.right)
    top, above = page.y, None
    # The column's head has to stay clear of the first row.
    page.y += max(0.0, height_of(head, SMALL) - (GAP + height_of(headings[0], TEXT) if headings[0] else 0.0))
    for row, label, heading in zip(rows, labels, headings, strict=True):
        if heading != above:
            page.y, above = page.y + GAP, heading
            if heading:
                page.paragraph(heading, page.labels + MARGIN, weight="bold")
        height = max(ROW, height_of(label, TEXT) + GAP)
        middle = page.y + height / 2
        style: dict[str, Any] = {"va": "center_baseline", "weight": "bold" if row.bold else "normal"}
        page.text(2 * MARGIN, middle, label, gid=f"label-{row.rung}", **style)
        if row.answer:
            mark = {"ha": "center", "va": "center_baseline", "weight": "bold", "gid": f"answer-{row.rung}"}
            page.text(column.left - ANSWER / 2, middle, marked(row.answer)[0], **mark)
        _draw_bar(axes, row, middle, column, style)
        if counted:
            cost = "-" if pd.isna(row.macs) else f"{row.macs / size:.2f}"
            page.text(digits, middle, cost, ha="right", gid=f"cost-{row.rung}", **style)
        if row.erratum:
            page.text(digits + 0.02, middle, marks[row.erratum], gid=f"mark-{row.rung}", **style)
        page.y += height
    page.y += GAP
    axes.set(xlim=(column.low, column.high), ylim=(page.y, top), yticks=[], axisbelow=True)
    axes.set_xticks(_ticks(column))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(length=2, labelsize=SMALL, color=INK, labelcolor=INK)
    axes.grid(axis="x", color=GRID, linewidth=THIN)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _column(page: Page, table: pd.DataFrame, labels: list[str], headings: list[str], head: str) -> _Column:
    """Return the place that labels and costs leave to the bars, and their axis."""
    width = max(width_of(text, TEXT, "bold") for text in labels)
    left = 2.5 * MARGIN + max(width, *(width_of(text, TEXT, "bold") - MARGIN for text in headings))
    left += ANSWER if (table["answer"] != "").any() else MARGIN / 2
    right = page.width - 3 * MARGIN - width_of(head, SMALL)
    low, high = _limits(table)
    return _Column(left, right, low, high)


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return an axis on which the adopted rungs show, but for one that would squeeze all others."""
    own = table[table["adopted"] & table["top1"].notna()]
    own = own if len(own) else table[table["top1"].notna()]
    spread = own["top1_std"].fillna(0)
    ends = pd.concat([own["top1"] - spread, own["top1"] + spread, own["top1"], table["behind"].dropna()])
    if ends.empty:
        return 0.0, 100.0
    first, third = pd.concat([own["top1"], table["behind"].dropna()]).quantile([0.25, 0.75])
    reach = FENCE * max(third - first, 1.0)
    ends = ends[ends.between(first - reach, third + reach)]
    low, high = ends.min(), ends.max()
    span = max(high - low, 2.0)  # a spread of less than 2 points is not blown up
    step = _step(1.11 * span)  # that of the whole axis
    return max(0.0, math.floor((high - 1.08 * span) / step) * step), high + 0.05 * span


def _step(span: float) -> float:
    return next((step for step in STEPS if span <= 8 * step), STEPS[-1])


def _ticks(column: _Column) -> list[float]:
    """Return round values from the axis's low end on, as far apart as their labels need."""
    step = _step(column.high - column.low)
    apart = width_of("88.5 ", SMALL)
    step = next((one for one in STEPS if one >= step and column.place(column.low + one) >= apart), STEPS[-1])
    return [column.low + i * step for i in range(1 + int((min(column.high, 100) - column.low) / step))]


def _draw_bar(axes: Axes, row: Any, y: float, column: _Column, style: dict[str, Any]) -> None:
    """Draw a row's bars, spread and value, or the word for why there are none. Bars start at 0, left of the axis."""
    if pd.notna(row.behind):
        axes.barh(y, min(row.behind, column.high), height=BEHIND, color=SHADOW, gid=f"behind-{row.rung}")
    style = style | {"textcoords": "offset points", "fontsize": TEXT, "color": INK, "parse_math": False}
    if pd.isna(row.top1):
        axes.annotate(row.word, (column.low, y), (4, 0), fontstyle="italic", gid=f"word-{row.rung}", **style | _halo())
        return
    fill, edge = row.color if row.adopted else mix(row.color, "white", 0.7), mix(row.color, "black", 0.15)
    if row.top1 >= column.low:
        end = min(row.top1, column.high)
        look: dict[str, Any] = {"facecolor": fill, "edgecolor": edge, "linewidth": THIN, "gid": f"bar-{row.rung}"}
        (bar,) = axes.barh(y, end, height=BAR, **look)
        if not row.adopted:
            bar.set_hatch(HATCH)
            bar.set_hatch_linewidth(THIN)
    spread = 0.0 if pd.isna(row.top1_std) else row.top1_std
    ends = (row.top1 - spread, row.top1 + spread)
    is_beyond = row.top1 < column.low or row.top1 > column.high
    if spread and not is_beyond:
        line: dict[str, Any] = {"color": INK, "linewidth": THICK, "capthick": THICK, "capsize": 2}
        axes.errorbar(row.top1, y, xerr=spread, **line, **_halo(2.5))
    draw_arrows(axes, ends if spread else (row.top1,), y, (column.low, column.high), INK, row.rung)
    value = f"{row.top1:.2f}" + (f" ± {spread:.2f}" if spread and is_beyond else "")
    _write_value(axes, row, y, column, (value, (column.low, column.low) if is_beyond else ends, fill), style)


def _write_value(
    axes: Axes, row: Any, y: float, column: _Column, what: tuple[str, tuple[float, float], Any], style: dict[str, Any]
) -> None:
    """Write a value inside the end of its bar; right of it, or at the axis, where the bar is too short."""
    value, ends, fill = what
    width, room = width_of(value, TEXT, "bold"), column.right - column.left
    start, end = (min(max(column.place(one), 0.0), room) for one in ends)
    style = style | {"gid": f"value-{row.rung}"}
    inside = {"color": text_color(fill), "ha": "right"}
    if start >= width + GAP:
        halo = {} if row.adopted else _halo(2, mix(row.color, "white", 0.7))
        place = start / room * (column.high - column.low) + column.low
        axes.annotate(value, (place, y), (-3, 0), **style | inside | halo)
    elif end + width + GAP <= room:
        place = end / room * (column.high - column.low) + column.low
        axes.annotate(value, (place, y), (5, 0), **style | _halo())
    else:
        axes.annotate(value, (column.low, y), (5, 0), **style | _halo())


def _halo(width: float = 1.5, color: Any = PAPER) -> dict[str, Any]:
    """Return the style that keeps a line or a text clear of what is behind it."""
    return {"path_effects": [withStroke(linewidth=width, foreground=color)]}


def _draw_legend(page: Page, table: pd.DataFrame, behind_label: str, left: float, arrows: dict[str, Artist]) -> None:
    """Explain what the bars do not say themselves."""
    answers = table["answer"].value_counts()
    told = [f"{marked(answer)} ({answers[answer]})".replace(" ", NBSP) for answer in Answer if answer in answers]
    if told:
        page.y += GAP / 2
        page.paragraph("   ".join(told), page.width - MARGIN - left, x=left, fontsize=SMALL, gid="answers")
    keys: dict[str, Artist] = {}
    if (table["top1"].notna() & ~table["adopted"]).any():
        keys["not adopted"] = Patch(facecolor=PAPER, edgecolor=GREY, hatch=HATCH, linewidth=THIN)
    if behind_label and table["behind"].notna().any():
        keys[behind_label] = Patch(facecolor=SHADOW)
    runs = table.loc[table["top1_std"].notna(), "n"]
    if len(runs):
        seeds = f"{runs.min()}" if runs.min() == runs.max() else f"{runs.min()} to {runs.max()}"
        line = Line2D([], [], color=INK, linewidth=THICK, marker="|", markersize=5)
        keys[f"standard deviation over {seeds} seeds"] = line
    page.legend(keys | arrows, left, numpoints=2)


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
    settings = rc_context({"pdf.fonttype": 42, "svg.hashsalt": "roadmap"})
    with settings, any_character(), without_layout_tables():
        for ending in forms:
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending, {})
            path = stem.with_name(f"{stem.name}.{ending}")
            write_atomically(path, partial(figure.savefig, format=ending, dpi=200, metadata=metadata))
            files.append(path)
    return files
