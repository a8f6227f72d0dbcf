"""What each step is worth, in several ways side by side."""

from collections.abc import Mapping
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
    ORANGE,
    PINK,
    ROW,
    SMALL,
    THICK,
    THIN,
    WIDTH,
    Page,
    Words,
    mix,
)

PITCH, BAR = 0.078, 0.065  # inches
SERIES = ((BLUE, ""), (ORANGE, "////"), (GREEN, "...."), (PINK, "xxxx"))


def draw_effects(effects: Mapping[str, pd.DataFrame], ladder: pd.DataFrame, words: Words) -> Figure:
    """Draw what each step is worth in several ways, such as on the ladder, left out, alone and by Shapley's value.

    Args:
        effects: Name -> a frame with the columns step, value, ci_low and ci_high, at most four of them, of the same
            unit and sign (positive where the step helps). A value that is missing leaves a gap with a dash.
        ladder: As for `draw_forest`. Drawn are the steps that any of the frames has.
        words: The words around the bars.

    Returns:
        The figure, 7 inches wide and as tall as its rows need.

    Raises:
        ValueError: If there are more than four ways.
    """
    if len(effects) > len(SERIES):
        raise ValueError(f"effects has {len(effects)} frames, but there are looks for {len(SERIES)}.")
    known = {step for frame in effects.values() for step in frame["step"]}
    table = in_order(pd.DataFrame({"step": sorted(known)}), ladder)
    columns = ["value", "ci_low", "ci_high"]
    ways = [frame.set_index("step")[columns].astype(float).reindex(table["step"]) for frame in effects.values()]
    every = pd.concat(ways) if ways else pd.DataFrame(columns=columns, dtype=float)
    limits = limits_of(every["ci_low"].fillna(every["value"]), every["ci_high"].fillna(every["value"]), every["value"])
    with matplotlib.style.context("default"):
        page = Page()
        page.head(words.title, words.note)
        heights = [max(ROW, len(ways) * PITCH + GAP)] * len(table)
        axes, edges = label_rows(page, table, heights, limits, right=WIDTH - MARGIN)
        for i, way in enumerate(ways):
            color, hatch = SERIES[i]
            for row, middle in zip(way.itertuples(), middles_of(edges), strict=True):
                y = middle + (i - (len(ways) - 1) / 2) * PITCH
                _draw_effect(axes, row, y, f"{i}-{row.Index}", color, hatch, limits)
        left = axes.get_position().x0 * WIDTH
        explain_axis(page, words.axis, left)
        keys: dict[str, Artist] = {
            name: Patch(facecolor=mix(color, "white", 0.2 if hatch == "" else 0.5), edgecolor=INK, hatch=hatch, lw=THIN)
            for name, (color, hatch) in zip(effects, SERIES, strict=False)
        }
        if every["ci_low"].notna().any():
            keys["95% interval"] = Line2D([], [], color=INK, linewidth=THICK)
        if every["value"].isna().any():
            keys["not known"] = Line2D([], [], color=GREY, linestyle="none", marker="_", markersize=4)
        page.legend(keys | arrow_keys(axes), left)
        notes = [f"Beyond the edge: {text}." for text in [_values_beyond(effects, table, limits)] if text]
        notes += [] if table["adopted"].all() else [ITALICS]
        write_notes(page, notes, left)
        page.close()
    return page.figure


def _draw_effect(
    axes: Axes, row: Any, y: float, name: str, color: str, hatch: str, limits: tuple[float, float]
) -> None:
    """Draw a bar with its interval, or a dash."""
    if pd.isna(row.value):
        style: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "color": GREY}
        axes.annotate(NONE, (0, y), (3, 0), va="center_baseline", gid=f"none-{name}", **style)
        return
    face = mix(color, "white", 0.2 if hatch == "" else 0.5)
    (bar,) = axes.barh(y, row.value, BAR, facecolor=face, edgecolor=INK, linewidth=THIN, gid=f"effect-{name}")
    if hatch:
        bar.set_hatch(hatch)
        bar.set_hatch_linewidth(THIN)
    if pd.notna(row.ci_low):
        axes.plot([row.ci_low, row.ci_high], [y, y], color=INK, linewidth=THICK, zorder=3, gid=f"interval-{name}")
    draw_arrows(axes, (row.ci_low, row.value, row.ci_high), y, limits, INK, name)


def _values_beyond(effects: Mapping[str, pd.DataFrame], table: pd.DataFrame, limits: tuple[float, float]) -> str:
    """Return in words the values whose bars are cut."""
    labels, told = dict(zip(table["step"], table["label"], strict=True)), []
    for name, frame in effects.items():
        for step, value in zip(frame["step"], frame["value"].astype(float), strict=True):
            if value < limits[0] or value > limits[1]:
                told.append(f"{labels[step]} {signed(value, '.2f')} ({name})")
    return ", ".join(told)
