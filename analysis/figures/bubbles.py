"""Accuracy against what a model costs, a bubble a model whose area is its multiply-adds.

Source: the idea is Figure 1 of Liu et al., "A ConvNet for the 2020s".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from analysis.figures.label_layout import place_texts
from analysis.figures.style import (
    BLUE,
    GAP,
    GREEN,
    GREY,
    INK,
    MARGIN,
    ORANGE,
    PAPER,
    PINK,
    SKY,
    SMALL,
    THICK,
    THIN,
    TICKS,
    VERMILION,
    YELLOW,
    Page,
    Words,
    mix,
    style_axes,
    width_of,
)

TICK_LABELS, HEIGHT = 0.3, 2.3  # inches
DIAMETER = 1.7  # points of a bubble of 1e9 multiply-adds
KEY_GMACS = (5, 20, 80)
USUAL_SIZE = 224  # of images, which goes without saying
# Families whose variants are one line of work have one colour; any other is grey.
COLORS = {
    "ConvNeXt": VERMILION,
    "Swin": BLUE,
    "DeiT": SKY,
    "ViT": GREEN,
    "RegNetY": PINK,
    "EffNet": YELLOW,
    "EffNetV2": ORANGE,
}


class Axis(NamedTuple):
    """What accuracy is drawn over: how it is called, what it is divided by, and which way is better."""

    label: str
    unit: float
    better: str


AXES = {
    "macs": Axis("multiply-adds (G)", 1e9, "← less is better"),
    "paper_v100_images_per_s": Axis("images/s on a V100, as printed", 1.0, "more is better →"),
    "images_per_s": Axis("images/s on {device}", 1.0, "more is better →"),
}


def draw_bubbles(table: pd.DataFrame, words: Words, panels: Mapping[str, str], device: str = "") -> Figure:
    """Draw top-1 over each cost that is known, a row of panels a cost, a panel a kind of training.

    Args:
        table: A row a model with the columns of `table1.MODEL_COLUMNS`.
        words: The words around the panels; `axis` is the accuracy, with its unit.
        panels: The panels of a row: value of the column training -> title.
        device: What `images_per_s` was measured on.

    Returns:
        The figure.
    """
    panels = {name: title for name, title in panels.items() if (table["training"] == name).any()}
    family = table["model"].str.split("-", n=1).str
    sizes = [f" {size}" if size != USUAL_SIZE else "" for size in table["image_size"]]
    table = table.assign(family=family[0], variant=family[1] + sizes, name=table["model"] + sizes)
    low, high = table["top1"].min(), table["top1"].max()
    room = 0.12 * (high - low) or 0.5  # and more of it above, where names stand over the best
    left = MARGIN + TICK_LABELS
    width = (words.width - MARGIN - left - (len(panels) - 1) * 1.5 * MARGIN) / len(panels)
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        page.paragraph(words.axis, page.width - 2 * MARGIN)
        page.y += GAP
        for cost, axis in AXES.items():
            if table[cost].isna().all():
                continue
            top = page.y
            if cost == "macs":
                for i, title in enumerate(panels.values()):
                    page.text(left + i * (width + 1.5 * MARGIN), top, title, va="top", weight="bold")
                top += 2 * GAP
            below = top
            for i, name in enumerate(panels):
                x, page.y = left + i * (width + 1.5 * MARGIN), top + HEIGHT
                axes = page.panel(x, top, width, HEIGHT)
                own = table[table["training"] == name]
                _draw_panel(axes, own, cost, (low - room, high + 1.5 * room), (width, HEIGHT), f"{cost}-{name}")
                if i:
                    axes.tick_params(labelleft=False)
                page.y += TICKS
                page.paragraph(f"{axis.label.format(device=device)}; {axis.better}", width, x=x)
                lacking = own.loc[own[cost].isna(), "name"].unique()
                if len(lacking):
                    text = f"not known: {', '.join(lacking)}"
                    page.paragraph(text, width, x=x, fontsize=SMALL, color=GREY, gid=f"lacking-{cost}-{name}")
                below = max(below, page.y)
            page.y = below + GAP
        page.legend(_keys(table), left)
        page.close()
    return page.figure


def _draw_panel(
    axes: Axes, table: pd.DataFrame, cost: str, limits: tuple[float, float], size: tuple[float, float], name: str
) -> None:
    """Draw the bubbles of one panel, their names beside them, and a line through each family at one image size."""
    table = table[table[cost].notna()].assign(x=table[cost] / AXES[cost].unit)
    places = np.log10(table["x"].to_numpy(float)) if len(table) else np.array([0.0, 1.0])
    span = max(np.ptp(places), 0.5)
    reach = np.array([diameter_of(macs) / 2 for macs in table["macs"]] or [0.0]) / 72 / size[0] * 1.3 * span
    ends = np.array([(places - reach).min(), (places + reach).max()]) + 0.06 * span * np.array([-1, 1])
    low, high = 10**ends
    axes.set(xlim=(low, high), ylim=limits)
    style_axes(axes, y_ticks=True, width=size[0])
    axes.set_xscale("log")
    decades = np.arange(np.floor(ends[0]), np.ceil(ends[1]) + 1)
    steps = (1, 2, 5) if ends[1] - ends[0] < 2 else (1,)
    axes.set_xticks([tick for decade in decades for step in steps if low <= (tick := step * 10**decade) <= high])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:,g}")
    for (family, _), line in table.sort_values("x").groupby(["family", "image_size"], sort=False):
        axes.plot(line["x"], line["top1"], color=COLORS.get(str(family), GREY), linewidth=THICK, alpha=0.6, zorder=2)
    rows: list[Any] = list(table.sort_values("macs", ascending=False).itertuples())
    for row in rows:  # the largest first, so that none hides another
        color = COLORS.get(row.family, GREY)
        style: dict[str, Any] = {
            "color": color,
            "markeredgecolor": mix(color, "black", 0.4),
            "markeredgewidth": THIN,
            "alpha": 0.7,
        }
        gid = f"bubble-{name}-{row.model} {row.image_size}"
        diameter = diameter_of(row.macs)
        axes.plot([row.x], [row.top1], marker="o", markersize=diameter, zorder=3, gid=gid, **style)
    marks = np.array([[np.log10(row.x), row.top1] for row in rows]).reshape(-1, 2)
    corner = np.array([np.log10(low), limits[0]])
    span = np.array([np.log10(high), limits[1]]) - corner
    texts, inches = [row.variant for row in rows], (marks - corner) / span * size
    diameters = np.array([diameter_of(row.macs) / 72 for row in rows])
    places = place_texts(inches, texts, size, font=SMALL - 0.5, diameters=diameters)
    for row, text, place, mark, diameter in zip(rows, texts, places, inches, diameters, strict=True):
        at, start = place / size * span + corner, mark / size * span + corner
        style = {"ha": "center", "va": "center_baseline", "fontsize": SMALL - 0.5, "parse_math": False}
        style |= {"color": INK, "path_effects": [withStroke(linewidth=1.5, foreground=PAPER)]}
        is_far = np.abs(place - mark).max() > diameter / 2 + width_of(text, SMALL - 0.5) / 2 + 0.08
        arrow = {"arrowstyle": "-", "color": GREY, "linewidth": THIN, "shrinkA": 0, "shrinkB": 0} if is_far else None
        gid = f"name-{name}-{row.model} {row.image_size}"
        ends = (10 ** start[0], start[1]), (10 ** at[0], at[1])
        axes.annotate(text, *ends, arrowprops=arrow, zorder=5, gid=gid, **style)


def diameter_of(macs: float) -> float:
    """Return the diameter in points of the bubble whose area is a number of multiply-adds."""
    return DIAMETER * float(np.sqrt(macs / 1e9))


def _keys(table: pd.DataFrame) -> dict[str, Artist]:
    keys: dict[str, Artist] = {}
    for family in table["family"].unique():
        color = COLORS.get(family, GREY)
        style: dict[str, Any] = {"color": color, "markeredgecolor": mix(color, "black", 0.4), "linewidth": THICK}
        keys[family] = Line2D([], [], marker="o", markersize=5, markeredgewidth=THIN, **style)
    for gmacs in KEY_GMACS:
        style = {"color": PAPER, "markeredgecolor": GREY, "markeredgewidth": THIN, "linestyle": "none"}
        keys[f"{gmacs} G"] = Line2D([], [], marker="o", markersize=diameter_of(1e9 * gmacs), **style)
    return keys
