"""The change of each step with its interval and its verdict."""

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
    BLUE,
    GAP,
    GREEN,
    GREY,
    INK,
    MARGIN,
    ROW,
    SMALL,
    TEXT,
    THIN,
    VERMILION,
    WIDTH,
    Page,
    Words,
    height_of,
    mix,
    width_of,
    wrap,
)
from analysis.metrics import metric_of
from analysis.stats.answers import Answer

NUMBERS, VERDICTS = 1.05, 1.75  # inches
MARGIN_COLOR = "#DCEBF5"
# A verdict's colour and marker, so that neither has to tell it alone.
LOOKS = {
    Answer.HELPS: (BLUE, "^"),
    Answer.HURTS: (VERMILION, "v"),
    Answer.NO_EFFECT: (GREEN, "s"),
    Answer.UNDECIDED: (GREY, "o"),
    Answer.NOT_TESTED: (INK, "x"),
}
PAPER: dict[str, Any] = {"marker": "D", "color": "white", "markeredgecolor": INK, "linestyle": "none"}
PAPER |= {"markersize": 3.2, "markeredgewidth": THIN}
HOLM = (
    "Intervals are of one change alone. Answers allow for {} changes judged together, so that an interval may leave "
    "out 0 and the change still be undecided."
)


def draw_forest(
    verdicts: pd.DataFrame, ladder: pd.DataFrame, words: Words, published: pd.DataFrame | None = None
) -> Figure:
    """Draw the change of each step with its interval and its verdict, a row a step in the ladder's order.

    An interval that would squeeze all others is cut at the edge, with an arrow there; its numbers stand beside it.

    Args:
        verdicts: A row a change, with the columns step, against, metric, delta, ci_low, ci_high, p_adjusted, margin and
            verdict of `verdicts.VERDICT_COLUMNS`. A step without a result has no mark, and its verdict says why.
        ladder: A row a rung in the ladder's order, with the columns rung, label and adopted of
            `compare.LADDER_COLUMNS`.
        words: The words around the marks; `axis` is what changes, with its unit.
        published: The paper's changes in the same shape, of which step and delta are read; it may lack some.

    Returns:
        The figure, 7 inches wide and as tall as its rows need.
    """
    table = in_order(verdicts, ladder)
    paper = {} if published is None else dict(zip(published["step"], published["delta"].astype(float), strict=True))
    table["paper"] = [paper.get(step, np.nan) for step in table["step"]]
    low = table["ci_low"].fillna(table["delta"])
    high = table["ci_high"].fillna(table["delta"])
    limits = limits_of(low, high, table["paper"])
    with matplotlib.style.context("default"):
        page = Page()
        page.head(words.title, words.note)
        told = [wrap(text, VERDICTS, TEXT) for text in table["verdict"]]
        verdict_x = WIDTH - MARGIN - max(width_of(text, TEXT) for text in [*told, "answer"])
        delta_x = verdict_x - GAP - NUMBERS / 2
        for x, head, ha in ((delta_x, "change", "right"), (delta_x + 0.05, "± 95%", "left")):
            page.text(x, page.y, head, ha=ha, va="top", fontsize=SMALL)
        page.text(verdict_x, page.y, "answer", va="top", fontsize=SMALL)
        page.y += height_of("", SMALL) + GAP / 2
        heights = [max(ROW, height_of(text, TEXT) + GAP) for text in told]
        axes, edges = label_rows(page, table, heights, limits, right=verdict_x - NUMBERS - 2 * GAP)
        _draw_margin(axes, table["margin"].astype(float), edges)
        form = metric_of(table["metric"].iloc[0]).digits if len(table) else ""
        rows: list[Any] = list(table.itertuples())
        for row, text, y in zip(rows, told, middles_of(edges), strict=True):
            _draw_change(axes, row, y, limits)
            style: dict[str, Any] = {"va": "center_baseline"}
            number = NONE if pd.isna(row.delta) else signed(row.delta, form)
            page.text(delta_x, y, number, ha="right", gid=f"number-{row.step}", **style)
            if pd.notna(row.ci_high):
                half = format((row.ci_high - row.ci_low) / 2, form)
                page.text(delta_x + 0.05, y, f"± {half}", gid=f"half-{row.step}", **style)
            page.text(
                verdict_x, y, text, gid=f"verdict-{row.step}", color=mix(_look(row.verdict)[0], INK, 0.4), **style
            )
        left = axes.get_position().x0 * WIDTH
        explain_axis(page, words.axis, left)
        page.legend(_forest_keys(table, axes), left)
        notes = [] if len(table) else ["The ladder has no step to judge."]
        tested = int(table["p_adjusted"].notna().sum())
        if tested > 1:
            notes.append(HOLM.format(tested))
        if (table["adopted"] == 0).any():
            notes.append(ITALICS)
        write_notes(page, notes, left)
        page.close()
    return page.figure


def _draw_change(axes: Axes, row: Any, y: float, limits: tuple[float, float]) -> None:
    """Draw a step's change and interval, and the paper's change below."""
    color, marker = _look(row.verdict)
    if pd.notna(row.ci_low):
        axes.plot([row.ci_low, row.ci_high], [y, y], color=color, linewidth=1.3, gid=f"interval-{row.step}")
    if limits[0] <= row.delta <= limits[1]:  # not where it is NaN
        axes.plot([row.delta], [y], color=color, marker=marker, markersize=5, zorder=3, gid=f"change-{row.step}")
    draw_arrows(axes, (row.ci_low, row.delta, row.ci_high), y, limits, color, row.step)
    if limits[0] <= row.paper <= limits[1]:
        axes.plot([row.paper], [y + 0.06], zorder=4, gid=f"paper-{row.step}", **PAPER)
    else:
        draw_arrows(axes, (row.paper,), y + 0.06, limits, "white", f"paper-{row.step}")


def _draw_margin(axes: Axes, margins: "pd.Series[float]", edges: NDArray[np.float64]) -> None:
    """Draw the band of changes that are as good as none, each row to its own margin."""
    if margins.max() > 0:
        y, x = np.repeat(edges, 2)[1:-1], np.repeat(margins.fillna(0), 2)
        axes.fill_betweenx(y, -x, x, color=MARGIN_COLOR, linewidth=0, zorder=0.5, gid="margin")


def _look(verdict: str) -> tuple[str, str]:
    """Return a verdict's colour and marker, from its first words."""
    return next((look for word, look in LOOKS.items() if verdict.startswith(word)), LOOKS[Answer.NOT_TESTED])


def _forest_keys(table: pd.DataFrame, axes: Axes) -> dict[str, Artist]:
    """Return what explains the marks that were drawn."""
    keys: dict[str, Artist] = {}
    for word, (color, marker) in LOOKS.items():
        if (table["verdict"].astype(str).str.startswith(word) & table["delta"].notna()).any():
            keys[word] = Line2D([], [], color=color, marker=marker, markersize=5, linewidth=0)
    margins = table["margin"].dropna().unique()
    if len(margins) and max(margins) > 0:
        size = f" of {margins[0]:g}" if len(margins) == 1 else ""
        keys[f"within the margin{size}: as good as none"] = Patch(facecolor=MARGIN_COLOR)
    if table["paper"].notna().any():
        keys["the paper's change"] = Line2D([], [], **PAPER)
    return keys | arrow_keys(axes)
