"""A row a step: labels, an axis on which extreme intervals are cut, and the arrows that say so."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.style import (
    GAP,
    INK,
    MARGIN,
    ROW,
    SMALL,
    TEXT,
    THICK,
    THIN,
    TICKS,
    Page,
    height_of,
    style_axes,
    width_of,
    wrap,
)
from roadmap.ladder.references import SECTION

ARROW: dict[str, Any] = {"marker": ">", "markeredgecolor": INK, "markeredgewidth": THIN, "markersize": 4}
# An interval may reach this many times as far as three in four do before it is cut, not to squeeze the others.
FARTHEST = 4.0
ITALICS = "In italics: tried and not adopted."
NONE = "–"  # noqa: RUF001  a dash for a gap


def in_order(changes: pd.DataFrame, ladder: pd.DataFrame) -> pd.DataFrame:
    """Return changes in the ladder's order, with label and adopted; a label says against what, if not the rung before.

    The rung before is the last adopted one above.
    """
    rungs = ladder.set_index("rung")
    labels, adopted = rungs["label"].to_dict(), rungs["adopted"].astype(bool).to_dict()
    places = {rung: place for place, rung in enumerate(labels)}
    order = changes["step"].map(places).sort_values(kind="stable", na_position="last").index
    table = changes.loc[order].reset_index(drop=True)
    table["label"] = [labels.get(step, step) for step in table["step"]]
    references = set(ladder.loc[ladder["section"] == SECTION, "rung"]) if "section" in ladder else set()
    table["adopted"] = [adopted.get(step, True) or step in references for step in table["step"]]
    if "against" in table and "parent" in ladder:
        before: dict[Any, Any] = {}
        last: Any = None
        for rung in labels:
            before[rung], last = last, rung if adopted[rung] else last
        for i, (step, against) in enumerate(zip(table["step"], table["against"], strict=True)):
            if before.get(step) != against:
                table.loc[i, "label"] = f"{labels.get(step, step)} (from {labels.get(against, against)})"
    return table


def limits_of(
    low: "pd.Series[float]", high: "pd.Series[float]", dots: "pd.Series[float]", *, farthest: float = FARTHEST
) -> tuple[float, float]:
    """Return an axis on which 0 and all but extreme intervals fit, and all dots that are not extreme."""
    rows = pd.concat([low, high], axis=1).reset_index(drop=True)
    far = rows.abs().max(axis=1)
    fence = farthest * float(far.quantile(0.75)) if far.max() > 0 else np.inf
    ends = [*rows[far <= fence].stack().dropna(), *dots[dots.abs() <= fence]]
    start, end = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
    room = 0.05 * (end - start) or 1.0
    return start - room, end + room


def label_rows(
    page: Page, table: pd.DataFrame, heights: Sequence[float], limits: tuple[float, float], *, right: float
) -> tuple[Axes, NDArray[np.float64]]:
    """Write a label a row, each at least so high, and draw axes beside them; the page goes on below.

    Returns:
        The axes, and the rows' edges on the page, one more than rows.
    """
    labels = [wrap(label, page.labels, TEXT) for label in table["label"]]
    left = 2 * MARGIN + max((width_of(label, TEXT) for label in labels), default=page.labels)
    edges = write_labels(page, table, heights)
    axes = page.rows(left, right)
    axes.set(xlim=limits, ylim=(page.y, edges[0]))
    style_axes(axes, y_ticks=False)
    axes.axvline(0, color=INK, linewidth=THICK, zorder=1.5, gid="zero")
    return axes, edges


def write_labels(page: Page, table: pd.DataFrame, heights: Sequence[float]) -> NDArray[np.float64]:
    """Write a label a row, each at least so high; return the rows' edges on the page, one more than rows."""
    labels = [wrap(label, page.labels, TEXT) for label in table["label"]]
    heights = [max(height, height_of(label, TEXT) + GAP) for height, label in zip(heights, labels, strict=True)]
    edges: NDArray[np.float64] = page.y + np.cumsum([0.0, *heights])
    for step, label, adopted, middle in zip(table["step"], labels, table["adopted"], middles_of(edges), strict=True):
        slant = "normal" if adopted else "italic"
        page.text(MARGIN, middle, label, va="center_baseline", fontstyle=slant, gid=f"label-{step}")
    page.y = edges[-1] + (0 if heights else ROW)
    return edges


def middles_of(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middle of each row."""
    return (edges[:-1] + edges[1:]) / 2


def draw_arrows(
    axes: Axes, values: tuple[float, ...], y: float, limits: tuple[float, float], color: str, name: str
) -> None:
    """Point beyond the edge where a value lies there."""
    for edge, marker, is_beyond in (
        (limits[0], "<", np.nanmin([*values, limits[0]]) < limits[0]),
        (limits[1], ">", np.nanmax([*values, limits[1]]) > limits[1]),
    ):
        if is_beyond:
            style = ARROW | {"marker": marker, "color": color}
            axes.plot([edge], [y], clip_on=False, zorder=4, gid=f"beyond-{name}", **style)


def arrow_keys(axes: Axes) -> dict[str, Artist]:
    """Explain the arrows, if there are any."""
    is_cut = any((line.get_gid() or "").startswith("beyond-") for line in axes.lines)
    return {"goes on beyond the edge": Line2D([], [], linestyle="none", **ARROW, color=INK)} if is_cut else {}


def signed(value: float, form: str) -> str:
    """Return a number with its sign, a true minus."""
    return format(value, f"+{form}").replace("-", "\N{MINUS SIGN}")


def write_notes(page: Page, notes: list[str], left: float) -> None:
    """Write what a reader would stumble over."""
    for note in notes:
        page.y += GAP
        page.paragraph(note, page.width - MARGIN - left, x=left, fontsize=SMALL)


def explain_axis(page: Page, axis: str, left: float) -> None:
    """Say below the ticks what is measured."""
    page.y += TICKS
    page.paragraph(axis, page.width - MARGIN - left, x=left)
