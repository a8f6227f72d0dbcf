"""Accuracy against what it costs: multiply-adds, training speed, memory, each rung a dot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from analysis.figures.label_layout import place_texts
from analysis.figures.style import (
    GAP,
    GREY,
    INK,
    MARGIN,
    PAPER,
    SMALL,
    THICK,
    THIN,
    TICKS,
    Page,
    Words,
    height_of,
    mix,
    section_colors,
    style_axes,
    wrap,
)
from roadmap.ladder.references import SECTION

TICK_LABELS, HEIGHT, DOT = 0.42, 2.4, 0.085  # inches
PATH_COLOR, FRONT_COLOR = "#A8A8A8", INK
NUMBER = SMALL - 0.5  # points
FENCE = 3.0  # quartile ranges
WORDS = {"missing": "not run yet", "finished": "no result"}


class Cost(NamedTuple):
    """What accuracy is held against: its name, whether more (1) or less (-1) is better, and (size, unit) to show it."""

    label: str
    better: int
    units: tuple[tuple[float, str], ...] = ((1.0, ""),)


COSTS = {
    "macs": Cost("multiply-adds", -1, ((1e9, " (G)"), (1e6, " (M)"), (1e3, " (k)"))),
    "train_images_per_s": Cost("training images/s", 1),
    "peak_memory_mb": Cost("peak memory", -1, ((1e3, " (GB)"), (1.0, " (MB)"))),
}


def pareto_front(x: ArrayLike, y: ArrayLike, *, x_better: int) -> NDArray[np.bool_]:
    """Return which points no other is better than: in one of the two, and at least as good in the other.

    Args:
        x: A cost, shape (points,); a point with NaN is never of the front and beats none.
        y: Of which more is better.
        x_better: 1 where more of x is better, -1 where less is.
    """
    x, y = x_better * np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    as_good = (x[:, None] >= x) & (y[:, None] >= y)
    beats = as_good & ((x[:, None] > x) | (y[:, None] > y))
    front: NDArray[np.bool_] = ~beats.any(axis=0) & ~np.isnan(x) & ~np.isnan(y)
    return front


def draw_tradeoff(table: pd.DataFrame, words: Words, costs: Sequence[str] = tuple(COSTS)) -> Figure:
    """Draw accuracy against costs, a panel each, with the ladder's path and the Pareto front. Rungs are numbered.

    A rung far below all others is drawn at the bottom edge with its accuracy in figures.

    Args:
        table: A row a rung in the ladder's order, with the columns rung, label, section, adopted, top1 (percent) and
            those of the costs; NaN is not known. With a column state, the key says why there is no accuracy.
        words: The words around the panels; `axis` is the accuracy, with its unit.
        costs: Of `COSTS`. One that no rung with an accuracy has gets no panel.

    Returns:
        The figure, .
    """
    table = table.reset_index(drop=True)
    table["number"] = range(1, len(table) + 1)
    table["color"] = section_colors(table).to_numpy()
    table["filled"] = table["adopted"].astype(bool) | (table["section"] == SECTION)
    table["top1"] = table["top1"].astype(float)
    shown = [name for name in costs if name in table and (table["top1"].notna() & table[name].notna()).any()]
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        page.paragraph(words.axis, page.width - 2 * MARGIN)
        page.y += GAP
        if not shown:
            page.paragraph("No rung has both an accuracy and a cost yet.", page.width - 2 * MARGIN, fontstyle="italic")
        left = MARGIN + TICK_LABELS
        width = (page.width - MARGIN - left - (len(shown) - 1) * 1.5 * MARGIN) / max(len(shown), 1)
        top, below = page.y, page.y
        limits = _limits(table["top1"])
        for i, name in enumerate(shown):
            x = left + i * (width + 1.5 * MARGIN)
            axes = page.panel(x, top, width, HEIGHT)
            page.y = top + HEIGHT
            unit = _draw_panel(axes, table, name, limits, (width, HEIGHT))
            if i:
                axes.tick_params(labelleft=False)
            _explain(page, table, name, unit, x, width)
            below = max(below, page.y)
        page.y = below
        if shown:
            page.legend(_keys(table, shown), left)
            page.y += 1.5 * GAP
        _list_rungs(page, table)
        page.close()
    return page.figure


def _limits(top1: "pd.Series[float]") -> tuple[float, float]:
    """Return an axis for accuracies; a few far below all others do not stretch it."""
    if top1.isna().all():
        return 0.0, 100.0
    first, third = top1.quantile([0.25, 0.75])
    low = top1[top1 >= first - FENCE * max(third - first, 1.0)].min()
    room = 0.08 * (top1.max() - low) or 0.5
    return low - room, top1.max() + room


def _draw_panel(
    axes: Axes, table: pd.DataFrame, name: str, limits: tuple[float, float], size: tuple[float, float]
) -> str:
    """Draw one cost's panel; return the unit that it is drawn in."""
    cost = COSTS[name]
    known = table["top1"].notna() & table[name].notna()
    largest = table.loc[known, name].max()
    scale, unit = next(((scale, unit) for scale, unit in cost.units if largest >= scale), cost.units[-1])
    x, y = table[name].astype(float) / scale, table["top1"].clip(lower=limits[0])
    room = 0.1 * (x[known].max() - x[known].min()) or 0.1 * abs(x[known].max()) or 1.0
    axes.set(xlim=(x[known].min() - room, x[known].max() + room), ylim=limits)
    style_axes(axes, y_ticks=True, width=size[0])
    path = table["adopted"].astype(bool)
    axes.plot(x[path], y[path], color=PATH_COLOR, linewidth=THICK, zorder=2, gid=f"path-{name}")
    front = _draw_front(axes, x, y, pareto_front(x, table["top1"], x_better=cost.better), cost.better, name)
    marks = np.column_stack([x, y])[known]
    rows: list[Any] = list(table[known].itertuples())
    for row, (at, height) in zip(rows, marks, strict=True):
        _draw_dot(axes, row, at, height, is_below=row.top1 < limits[0], name=name)
    texts = [f"{row.number}" + (f": {row.top1:.1f}" if row.top1 < limits[0] else "") for row in rows]
    low = np.array([axes.get_xlim()[0], limits[0]])
    span = np.array([axes.get_xlim()[1], limits[1]]) - low
    lines = [(line - low) / span * size for line in (np.column_stack([x[path], y[path]]), front)]
    diameters = np.full(len(marks), DOT)
    places = place_texts((marks - low) / span * size, texts, size, font=NUMBER, diameters=diameters, lines=lines)
    for rung, mark, text, place in zip(table.loc[known, "rung"], marks, texts, places, strict=True):
        far = np.hypot(*(place - (mark - low) / span * size)) > 2.2 * DOT
        at = place / size * span + low
        arrow = {"arrowstyle": "-", "color": GREY, "linewidth": THIN, "shrinkA": 0, "shrinkB": 2} if far else None
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": NUMBER, "color": INK}
        style["path_effects"] = [withStroke(linewidth=1.5, foreground=PAPER)]
        axes.annotate(text, mark, at, arrowprops=arrow, zorder=5, gid=f"number-{name}-{rung}", **style)
    return unit


def _draw_front(
    axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]", on: NDArray[np.bool_], better: int, name: str
) -> NDArray[np.float64]:
    """Draw the best accuracy that is to be had at each cost or a better one; return the line's corners."""
    points = sorted(zip(x[on], y[on], strict=True), key=lambda point: -better * point[0])
    worst, bottom = axes.get_xlim()[0 if better > 0 else 1], axes.get_ylim()[0]
    xs = [points[0][0], *(at for at, _ in points), worst]
    ys = [min(bottom, points[0][1]), *(height for _, height in points), points[-1][1]]
    style: dict[str, Any] = {"drawstyle": "steps-post", "linestyle": (0, (4, 2)), "color": FRONT_COLOR}
    axes.plot(xs, ys, linewidth=THICK, zorder=2.5, gid=f"front-{name}", **style)
    return np.column_stack([np.repeat(xs, 2)[1:], np.repeat(ys, 2)[:-1]])


def _draw_dot(axes: Axes, row: Any, x: float, y: float, *, is_below: bool, name: str) -> None:
    style: dict[str, Any] = {"color": row.color if row.filled else PAPER, "markeredgewidth": THICK}
    style |= {"markeredgecolor": mix(row.color, "black", 0.3), "marker": "v" if is_below else "o", "markersize": 5}
    axes.plot([x], [y], zorder=3, clip_on=False, gid=f"dot-{name}-{row.rung}", **style)


def _explain(page: Page, table: pd.DataFrame, name: str, unit: str, x: float, width: float) -> None:
    """Say below a panel what it shows, which way is better, and which rungs it lacks."""
    cost = COSTS[name]
    page.y += TICKS
    page.paragraph(f"{cost.label}{unit}", width, x=x)
    side = "more is better →" if cost.better > 0 else "← less is better"
    page.paragraph(side, width, x=x, fontsize=SMALL, color=GREY)
    lacking = table.loc[table["top1"].notna() & table[name].isna(), "number"]
    if len(lacking):
        page.paragraph("not known: " + ", ".join(map(str, lacking)), width, x=x, fontsize=SMALL, gid=f"lacking-{name}")


def _keys(table: pd.DataFrame, shown: Sequence[str]) -> dict[str, Artist]:
    keys: dict[str, Artist] = {
        "the ladder's path": Line2D([], [], color=PATH_COLOR, linewidth=THICK),
        "Pareto front of these means": Line2D([], [], color=FRONT_COLOR, linewidth=THICK, linestyle=(0, (4, 2))),
    }
    hollow: dict[str, Any] = {"color": PAPER, "markeredgecolor": GREY, "markersize": 5, "linestyle": "none"}
    if (~table["filled"] & table["top1"].notna()).any():
        keys["not adopted"] = Line2D([], [], marker="o", **hollow)
    if (table["top1"] < _limits(table["top1"])[0]).any():
        keys["below the edge"] = Line2D([], [], marker="v", **hollow)
    return keys


def _list_rungs(page: Page, table: pd.DataFrame) -> None:
    """Write which number is which rung, under their headings, in three columns."""
    width = (page.width - 2 * MARGIN) / 3
    items: list[tuple[str, Any]] = []
    above = None
    rows: list[Any] = list(table.itertuples())
    for row in rows:
        if pd.notna(row.section) and row.section != above:
            items.append((wrap(str(row.section), width - MARGIN, SMALL, "bold"), None))
        above = row.section
        label = str(row.label)
        if pd.isna(row.top1):
            state = getattr(row, "state", "finished")
            label += f" ({WORDS.get(state, state)})"
        items.append((wrap(label, width - 0.5, SMALL), row))
    heights = [height_of(text, SMALL) + 0.02 for text, _ in items]
    column, top, used, lowest = 0, page.y, 0.0, page.y
    for i, ((text, row), height) in enumerate(zip(items, heights, strict=True)):
        needed = height + (heights[i + 1] if row is None else 0)  # a heading goes with its first rung
        if used and used + needed > sum(heights) / 3 + max(heights) and column < 2:
            column, used = column + 1, 0.0
        x, y = MARGIN + column * width, top + used
        if row is None:
            page.text(x, y, text, va="top", fontsize=SMALL, weight="bold")
        else:
            middle = y + height_of("", SMALL) / 2
            style = {"color": row.color if row.filled else PAPER, "markeredgecolor": mix(row.color, "black", 0.3)}
            page.mark(x + 0.06, middle, marker="o", markersize=5, markeredgewidth=THICK, gid=f"key-{row.rung}", **style)
            page.text(x + 0.3, y, f"{row.number}", va="top", ha="right", fontsize=SMALL)
            page.text(x + 0.37, y, text, va="top", fontsize=SMALL, gid=f"label-{row.rung}")
        used += height
        lowest = max(lowest, top + used)
    page.y = lowest
