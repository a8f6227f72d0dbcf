"""Each step's effect by several designs: a panel a design, all on one axis."""

from collections.abc import Mapping
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.rows import (
    ITALICS,
    NONE,
    arrow_keys,
    draw_arrows,
    explain_axis,
    in_order,
    limits_of,
    middles_of,
    signed,
    write_labels,
    write_notes,
)
from analysis.figures.style import (
    BAND,
    GAP,
    GREY,
    INK,
    MARGIN,
    ROW,
    SMALL,
    START_COLOR,
    TEXT,
    THICK,
    Page,
    Words,
    height_of,
    section_colors,
    style_axes,
    width_of,
    wrap,
)

MOST = 4  # designs side by side
FARTHEST = 2.0  # times as far as three in four intervals reach: beyond, values stand in figures


def draw_effects(effects: Mapping[str, pd.DataFrame], ladder: pd.DataFrame, words: Words) -> Figure:
    """Draw the effect of each step by several designs, such as on the ladder, left out, alone, averaged over orders.

    A panel a design and a row a step, so that a row is read across. An effect beyond the axis stands in figures at the
    edge. Every second row has a band behind it.

    Args:
        effects: Name of a design -> a frame with the columns step, value, ci_low and ci_high, at most four of them, of
            the same unit and sign (positive where the step helps). A value that is missing leaves a dash.
        ladder: As for `draw_forest`. Drawn are the steps that any of the frames has.
        words: The words around the panels.

    Returns:
        The figure, as tall as its rows need.

    Raises:
        ValueError: If there are more than four designs.
    """
    if len(effects) > MOST:
        raise ValueError(f"effects has {len(effects)} frames, but there is room for {MOST} panels.")
    known = {step for frame in effects.values() for step in frame["step"]}
    table = in_order(pd.DataFrame({"step": sorted(known)}), ladder)
    table["color"] = table["step"].map(section_colors(ladder)).fillna(START_COLOR)
    columns = ["value", "ci_low", "ci_high"]
    by_design = {
        name: frame.set_index("step")[columns].astype(float).reindex(table["step"]) for name, frame in effects.items()
    }
    every = pd.concat(by_design.values()) if by_design else pd.DataFrame(columns=columns, dtype=float)
    ends = (every["ci_low"].fillna(every["value"]), every["ci_high"].fillna(every["value"]))
    limits = limits_of(*ends, every["value"], farthest=FARTHEST)
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        left = 2 * MARGIN + max((width_of(text, TEXT) for text in _labels(page, table)), default=page.labels)
        width = (page.width - MARGIN - left) / max(len(effects), 1) - GAP
        names = [wrap(name, width, TEXT, "bold") for name in effects]
        for i, name in enumerate(names):
            page.text(left + i * (width + GAP), page.y, name, va="top", weight="bold")
        page.y += max((height_of(name, TEXT) for name in names), default=0.0) + GAP / 2
        top, edges = page.y, write_labels(page, table, [ROW] * len(table))
        for i, frame in enumerate(by_design.values()):
            axes = page.rows(left + i * (width + GAP), left + i * (width + GAP) + width)
            axes.set(xlim=limits, ylim=(page.y, top))
            style_axes(axes, y_ticks=False, width=width)
            axes.axvline(0, color=INK, linewidth=THICK, zorder=1.5, gid=f"zero-{i}")
            for j, (row, color, y) in enumerate(
                zip(frame.itertuples(), table["color"], middles_of(edges), strict=True)
            ):
                if j % 2:
                    axes.axhspan(edges[j], edges[j + 1], color=BAND, linewidth=0, alpha=0.5, zorder=0)
                _draw_effect(axes, row, y, f"{i}-{row.Index}", color, limits)
        explain_axis(page, words.axis, left)
        page.legend(_keys(page, every), left)
        write_notes(page, [] if table["adopted"].all() else [ITALICS], left)
        page.close()
    return page.figure


def _labels(page: Page, table: pd.DataFrame) -> list[str]:
    return [wrap(label, page.labels, TEXT) for label in table["label"]]


def _keys(page: Page, every: pd.DataFrame) -> dict[str, Artist]:
    """Return what explains the marks that were drawn."""
    keys: dict[str, Artist] = {}
    if every["ci_low"].notna().any():
        keys["effect and its 95% interval"] = Line2D([], [], color=INK, linewidth=1.3, **_dot(GREY))
    if every["value"].isna().any():
        keys["not known"] = Line2D([], [], color=GREY, linestyle="none", marker="_", markersize=4)
    arrows: dict[str, Artist] = {}
    for axes in page.figure.axes:
        arrows |= arrow_keys(axes)
    return keys | arrows


def _dot(color: str) -> dict[str, Any]:
    return {"marker": "o", "markersize": 4.5, "markerfacecolor": color, "markeredgecolor": INK, "markeredgewidth": 0.6}


def _draw_effect(axes: Axes, row: Any, y: float, name: str, color: str, limits: tuple[float, float]) -> None:
    """Draw an effect with its interval; in figures where it lies beyond the axis; a dash where there is none."""
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "va": "center_baseline"}
    if pd.isna(row.value):
        axes.annotate(NONE, (0, y), (3, 0), color=GREY, gid=f"none-{name}", **style)
        return
    if limits[0] <= row.value <= limits[1]:
        if pd.notna(row.ci_low):
            axes.plot([row.ci_low, row.ci_high], [y, y], color=INK, linewidth=1.3, zorder=2, gid=f"interval-{name}")
        axes.plot([row.value], [y], zorder=3, linestyle="none", gid=f"effect-{name}", **_dot(color))
        draw_arrows(axes, (row.ci_low, row.value, row.ci_high), y, limits, INK, name)
        return
    is_left = row.value < limits[0]
    half = "" if pd.isna(row.ci_low) else f" ± {(row.ci_high - row.ci_low) / 2:.1f}"
    place, ha = ((limits[0], y), "left") if is_left else ((limits[1], y), "right")
    text = f"{signed(row.value, '.1f')}{half}"
    axes.annotate(text, place, (5 if is_left else -5, 0), ha=ha, color=INK, gid=f"value-{name}", **style)
    draw_arrows(axes, (row.value,), y, limits, INK, name)
