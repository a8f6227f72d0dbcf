"""The change of each step with its interval and the answer: a forest plot."""

from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from analysis.figures.rows import (
    ITALICS,
    NONE,
    arrow_keys,
    draw_arrows,
    explain_axis,
    in_order,
    label_rows,
    limits_of,
    middles_of,
    signed,
    write_notes,
)
from analysis.figures.style import (
    BAND,
    GAP,
    GREY,
    INK,
    MARGIN,
    MARKERS,
    PAPER,
    ROW,
    SMALL,
    START_COLOR,
    TEXT,
    THICK,
    THIN,
    Page,
    Words,
    height_of,
    section_colors,
    width_of,
    wrap,
)
from analysis.metrics import metric_of
from analysis.sentences import MARKS
from analysis.stats.answers import Answer

NUMBERS, VERDICTS = 1.05, 1.75  # inches
PAPERS: dict[str, Any] = {"marker": "D", "color": PAPER, "markeredgecolor": INK, "linestyle": "none"}
PAPERS |= {"markersize": 3.2, "markeredgewidth": THIN}
NARROW = 5.5  # inches; a figure below that leaves the answers to their marks
HOLM = (
    "Intervals are of one change alone. Answers allow for {} changes judged together, so that an interval may leave "
    "out 0 and the change still be undecided."
)


def draw_forest(
    verdicts: pd.DataFrame, ladder: pd.DataFrame, words: Words, published: pd.DataFrame | None = None
) -> Figure:
    """Draw the change of each step with its 95% interval and the answer, a row a step in the ladder's order.

    A marker's shape is the answer, its colour the step's section.

    An interval that would squeeze all others is cut at the edge, with an arrow there; its numbers stand beside it.

    Args:
        verdicts: A row a change, with the columns step, against, metric, delta, ci_low, ci_high, p_adjusted, margin,
            answer and verdict of `verdicts.VERDICT_COLUMNS`. A step without a result has no marker, and its verdict
            says why.
        ladder: A row a rung in the ladder's order, with the columns rung, label, section and adopted of
            `ladder_table.LADDER_COLUMNS`; section may be missing.
        words: The words around the marks; `axis` is what changes, with its unit.
        published: The paper's changes in the same shape, of which step and delta are read; it may lack some.

    Returns:
        The figure, as tall as its rows need.
    """
    table = in_order(verdicts, ladder)
    paper = {} if published is None else dict(zip(published["step"], published["delta"].astype(float), strict=True))
    table["color"] = table["step"].map(section_colors(ladder)).fillna(START_COLOR)
    table["paper"] = [paper.get(step, np.nan) for step in table["step"]]
    low = table["ci_low"].fillna(table["delta"])
    high = table["ci_high"].fillna(table["delta"])
    limits = limits_of(low, high, table["paper"])
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        told = [_answer_of(row, narrow=page.width < NARROW) for row in table.itertuples()]
        answer = "answer" if page.width >= NARROW else ""
        verdict_x = page.width - MARGIN - max(width_of(text, TEXT) for text in [*told, answer])
        delta_x = verdict_x - GAP - NUMBERS / 2
        for x, head, ha in ((delta_x, "change", "right"), (delta_x + 0.05, "± 95%", "left")):
            page.text(x, page.y, head, ha=ha, va="top", fontsize=SMALL)
        page.text(verdict_x, page.y, answer, va="top", fontsize=SMALL)
        page.y += height_of("", SMALL) + GAP / 2
        heights = [max(ROW, height_of(text, TEXT) + GAP) for text in told]
        axes, edges = label_rows(page, table, heights, limits, right=verdict_x - NUMBERS - 2 * GAP)
        draw_margin(axes, table["margin"].astype(float), edges)
        form = metric_of(table["metric"].iloc[0]).digits if len(table) else ""
        rows: list[Any] = list(table.itertuples())
        for row, text, y in zip(rows, told, middles_of(edges), strict=True):
            draw_change(axes, row, y, limits)
            _write_numbers(page, row, y, delta_x, form)
            page.text(verdict_x, y, text, gid=f"verdict-{row.step}", va="center_baseline")
        left = axes.get_position().x0 * page.width
        explain_axis(page, words.axis, left)
        left = left if page.width >= NARROW else MARGIN
        page.legend(forest_keys(table, axes), left)
        write_notes(page, _notes(table), left)
        page.close()
    return page.figure


def _write_numbers(page: Page, row: Any, y: float, x: float, form: str) -> None:
    """Write a change and half its interval, left and right of `x`."""
    change = NONE if pd.isna(row.delta) else signed(row.delta, form)
    page.text(x, y, change, ha="right", va="center_baseline", gid=f"number-{row.step}")
    if pd.notna(row.ci_high):
        half = format((row.ci_high - row.ci_low) / 2, form)
        page.text(x + 0.05, y, f"± {half}", va="center_baseline", gid=f"half-{row.step}")


def _notes(table: pd.DataFrame) -> list[str]:
    """Return what the marks do not say themselves."""
    notes = [] if len(table) else ["The ladder has no step to judge."]
    tested = int(table["p_adjusted"].notna().sum())
    if tested > 1:
        notes.append(HOLM.format(tested))
    if (table["adopted"] == 0).any():
        notes.append(ITALICS)
    return notes


def _answer_of(row: Any, *, narrow: bool) -> str:
    """Return a row's answer in words after its mark; the mark alone in a narrow figure."""
    mark = MARKS[Answer(row.answer)] if row.answer else ""
    return mark if narrow else wrap(f"{mark} {row.verdict}".strip(), VERDICTS, TEXT)


def _marker(answer: str, color: Any) -> dict[str, Any]:
    """Return how a change is marked: hollow where it is not answered."""
    is_answered = answer in (Answer.HELPS, Answer.HURTS, Answer.NO_EFFECT)
    style: dict[str, Any] = {"marker": MARKERS.get(Answer(answer), "o") if answer else "o", "markersize": 5.5}
    return style | {"color": color if is_answered else PAPER, "markeredgecolor": INK, "markeredgewidth": THICK}


def draw_change(axes: Axes, row: Any, y: float, limits: tuple[float, float]) -> None:
    """Draw a step's change and interval, and the paper's change below."""
    if pd.notna(row.ci_low):
        axes.plot([row.ci_low, row.ci_high], [y, y], color=INK, linewidth=1.3, gid=f"interval-{row.step}")
    if limits[0] <= row.delta <= limits[1]:  # not where it is NaN
        axes.plot([row.delta], [y], zorder=3, gid=f"change-{row.step}", **_marker(row.answer, row.color))
    draw_arrows(axes, (row.ci_low, row.delta, row.ci_high), y, limits, INK, row.step)
    if limits[0] <= row.paper <= limits[1]:
        axes.plot([row.paper], [y + 0.06], zorder=4, gid=f"paper-{row.step}", **PAPERS)
    else:
        draw_arrows(axes, (row.paper,), y + 0.06, limits, PAPER, f"paper-{row.step}")


def draw_margin(axes: Axes, margins: "pd.Series[float]", edges: NDArray[np.float64]) -> None:
    """Draw the band of changes that are as good as none, each row to its own margin."""
    if margins.max() > 0:
        y, x = np.repeat(edges, 2)[1:-1], np.repeat(margins.fillna(0), 2)
        axes.fill_betweenx(y, -x, x, color=BAND, linewidth=0, zorder=0.5, gid="margin")


def forest_keys(table: pd.DataFrame, axes: Axes) -> dict[str, Artist]:
    """Return what explains the marks that were drawn."""
    keys: dict[str, Artist] = {}
    for answer in Answer:
        if ((table["answer"] == answer) & table["delta"].notna()).any():
            keys[answer] = Line2D([], [], linewidth=0, **_marker(answer, GREY))
    margins = table["margin"].dropna().unique()
    if len(margins) and max(margins) > 0:
        size = f" of {margins[0]:g}" if len(margins) == 1 else ""
        keys[f"within the margin{size}: as good as none"] = Patch(facecolor=BAND)
    if table["paper"].notna().any():
        keys["the paper's change"] = Line2D([], [], **PAPERS)
    return keys | arrow_keys(axes)
