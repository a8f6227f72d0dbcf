"""Accuracy of every rung under attacks and corruptions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.style
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.rows import ITALICS, NONE, explain_axis, in_order, label_rows, middles_of, write_notes
from analysis.figures.style import (
    BLUE,
    GAP,
    INK,
    MARGIN,
    ORANGE,
    SMALL,
    THICK,
    Page,
    Words,
    height_of,
    mix,
    width_of,
)
from roadmap.robustness.settings import FGSM, PGD, STEPS, name_of

LINE, HEAD = 0.11, "mCE (%)"  # inches between the lines of a row; the heading of its number
MASKED = "†"


class _Series(NamedTuple):
    """What is drawn of a column: its name in the key, its look, the line of the row that it stands on."""

    label: str
    look: dict[str, Any]
    line: int


def draw_robustness(frame: pd.DataFrame, radii: Sequence[float], ladder: pd.DataFrame, words: Words) -> Figure:
    """Draw the accuracy of each rung as it is, under attacks of several radii, and under corruptions.

    Marks are means over seeds, lines through them their standard deviation.

    Args:
        frame: A row a run, with the columns of `analysis.evaluations.robustness.ROBUSTNESS_COLUMNS`.
        radii: Those of the attacks, in 255ths.
        ladder: As for `draw_forest`. Drawn are the rungs that the frame has.
        words: The words around the marks; `axis` is what they measure, with its unit.

    Returns:
        The figure, as tall as its rows need.
    """
    series = _series_of(radii)
    groups = frame.groupby("rung", sort=False)
    means, spreads = groups[[*series, "mce"]].mean(), groups[list(series)].std()
    masked = groups["masks_gradients"].any()
    table = in_order(pd.DataFrame({"step": list(means.index)}), ladder)
    table["label"] = [
        f"{label} {MASKED}" if masked[rung] else label
        for rung, label in zip(table["step"], table["label"], strict=True)
    ]
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        right = page.width - MARGIN
        if means["mce"].notna().any():
            page.text(right, page.y, HEAD, ha="right", va="top", fontsize=SMALL)
            page.y += height_of("", SMALL) + GAP / 2
        limits = (0.0, min(100.0, 1.05 * float(means[list(series)].to_numpy().max())))
        axes, edges = label_rows(
            page, table, [3 * LINE + GAP] * len(table), limits, right=right - width_of(HEAD, SMALL) - 2 * GAP
        )
        for rung, middle in zip(table["step"], middles_of(edges), strict=True):
            for name, one in series.items():
                y = middle + (one.line - 1) * LINE
                _draw_mark(axes, means.loc[rung, name], spreads.loc[rung, name], y, one.look, f"{name}-{rung}")
            mce = means.loc[rung, "mce"]
            page.text(right, middle, NONE if pd.isna(mce) else f"{mce:.1f}", ha="right", va="center_baseline")
        left = axes.get_position().x0 * page.width
        explain_axis(page, words.axis, left)
        keys: dict[str, Artist] = {one.label: Line2D([], [], linestyle="none", **one.look) for one in series.values()}
        page.legend(keys, left)
        notes = [f"{MASKED} Gradients are masked: accuracy under FGSM and PGD means nothing."] if masked.any() else []
        notes += [] if table["adopted"].all() else [ITALICS]
        write_notes(page, notes, left)
        page.close()
    return page.figure


def _series_of(radii: Sequence[float]) -> dict[str, _Series]:
    """Return what is drawn, by the columns of the frame; the farther attacks reach, the darker their marks."""
    size: dict[str, Any] = {"markersize": 4.5, "markeredgewidth": THICK}
    drawn = {"clean_top1": _Series("as they are", size | {"marker": "o", "color": INK}, 0)}
    drawn |= {"corrupted_top1": _Series("corrupted (mean)", size | {"marker": "s", "color": ORANGE}, 0)}
    for attack, title, line in ((PGD, f"PGD-{STEPS}", 1), (FGSM, "FGSM", 2)):
        for i, radius in enumerate(radii):
            color = mix(BLUE, "white", 0.6 * (1 - (i + 1) / len(radii)))
            face = color if attack == PGD else "white"
            look = size | {"marker": "D" if attack == PGD else "v", "markeredgecolor": color, "color": face}
            drawn[name_of(attack, radius)] = _Series(f"{title}, {radius:g}/255", look, line)
    return drawn


def _draw_mark(axes: Axes, mean: float, spread: float, y: float, look: dict[str, Any], name: str) -> None:
    if pd.isna(mean):
        return
    if pd.notna(spread):
        color = look.get("markeredgecolor", look["color"])
        axes.plot([mean - spread, mean + spread], [y, y], color=color, linewidth=THICK, gid=f"spread-{name}")
    axes.plot([mean], [y], zorder=3, gid=f"mark-{name}", linestyle="none", **look)
