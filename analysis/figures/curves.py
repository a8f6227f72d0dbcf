"""Learning curves: the training loss by epoch, a panel a heading."""

from collections.abc import Sequence
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import (
    GAP,
    INK,
    MARGIN,
    SMALL,
    TEXT,
    THICK,
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

COLUMN, TICK_LABELS, HEIGHT, KEY = 2.3, 0.42, 1.5, 0.33  # inches; the first is the width that a panel is worth
BEFORE_COLOR = "#9A9A9A"
DARK, LIGHT = 0.5, 0.25  # shares of black and white in the first and the last shade of a section's colour
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2)))
MARKERS = "osD^vP"
FEW = 12  # epochs that are marked one by one
DODGE = 0.12  # between rungs, of an axis one epoch wide
TALL = 2.0  # times the median first loss, beyond which a curve leaves its panel


def draw_curves(curves: pd.DataFrame, ladder: pd.DataFrame, words: Words) -> Figure:
    """Draw each rung's training loss, the mean over seeds with their range, in a panel a section.

    Lines are shades of their section's colour. The rung before a section's first is in its panel too, in grey. The
    panels share their axes.

    Args:
        curves: A row a rung, seed and epoch with the columns rung, seed, epoch and train_loss
            (`analysis.run_frames.collect_curves`). Losses that are not finite are left out.
        ladder: A row a rung in the ladder's order, with the columns rung, label, section, adopted and parent of
            `ladder_table.LADDER_COLUMNS`.
        words: The words around the panels; `axis` is the loss.

    Returns:
        The figure.
    """
    finite = curves[np.isfinite(curves["train_loss"].astype(float))]
    spread = finite.groupby(["rung", "epoch"])["train_loss"].agg(["mean", "min", "max"])
    by_rung = {str(rung): group.droplevel("rung") for rung, group in spread.groupby(level="rung")}
    panels = _panels(ladder)
    columns = max(1, min(int(words.width / COLUMN), len(panels)))
    gap = 1.5 * MARGIN
    width = (words.width - 2 * MARGIN - TICK_LABELS - (columns - 1) * gap) / columns
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        page.paragraph(f"{words.axis}, by epoch", page.width - 2 * MARGIN)
        page.y += GAP
        if finite.empty:
            page.paragraph("No run has an epoch behind it yet.", page.width - 2 * MARGIN, fontstyle="italic")
            panels = []
        for start in range(0, len(panels), columns):
            row = panels[start : start + columns]
            lefts = [MARGIN + TICK_LABELS + i * (width + gap) for i in range(len(row))]
            top = page.y
            ends = [_write_key(page, panel, by_rung, left, top, width) for panel, left in zip(row, lefts, strict=True)]
            page.y = max(ends) + GAP / 2
            for i, (panel, left) in enumerate(zip(row, lefts, strict=True)):
                axes = page.panel(left, page.y, width, HEIGHT)
                _draw_panel(axes, panel, by_rung, _limits(by_rung), width)
                axes.tick_params(labelleft=i == 0)
            page.y += HEIGHT + TICKS + GAP
        if len(finite):
            several = finite.groupby(["rung", "epoch"])["seed"].nunique().max() > 1
            _write_notes(page, by_rung, several=bool(several))
        page.close()
    return page.figure


class _Line:
    """A rung in a panel: its name and looks; grey where it is the one before."""

    def __init__(self, rung: str, label: str, place: int | None, color: Any = BEFORE_COLOR) -> None:
        self.rung, self.label, self.place, self.color = rung, label, place, color
        self.dash = "-" if place is None else DASHES[place % len(DASHES)]
        self.marker = "s" if place is None else MARKERS[place % len(MARKERS)]
        self.gid = f"before-{rung}" if place is None else f"curve-{rung}"


def _panels(ladder: pd.DataFrame) -> list[tuple[str, list[_Line]]]:
    """Return for each heading its rungs, the one before them first; a start that is shown there has no panel."""
    labels, colors = dict(zip(ladder["rung"], ladder["label"], strict=True)), section_colors(ladder)
    sections = ladder["section"].fillna("").astype(str)
    panels = []
    for heading in sections.unique():
        rungs = ladder[sections == heading]
        before = rungs["parent"].iloc[0]
        lines = [_Line(before, f"{labels[before]} (the rung before)", None)] if before in labels else []
        lines += [
            _Line(
                rung,
                label if adopted or heading == SECTION else f"{label} (not adopted)",
                place,
                _shade(colors[rung], place / max(len(rungs) - 1, 1)),
            )
            for place, (rung, label, adopted) in enumerate(
                zip(rungs["rung"], rungs["label"], rungs["adopted"].astype(bool), strict=True)
            )
        ]
        panels.append((heading, lines))
    (_, first), *others = panels
    is_before = len(first) == 1 and any(line.gid == f"before-{first[0].rung}" for _, lines in others for line in lines)
    return others if is_before else panels


def _shade(color: str, share: float) -> tuple[float, float, float]:
    """Return a shade of a colour, from the darkest (0) to the lightest (1)."""
    amount = DARK - share * (DARK + LIGHT)
    return mix(color, "black", amount) if amount > 0 else mix(color, "white", -amount)


def _limits(by_rung: dict[str, pd.DataFrame]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the axes of epochs and losses that all panels share; a curve that explodes does not stretch them."""
    last = max(group.index.max() for group in by_rung.values())
    first_epoch = min(group.index.min() for group in by_rung.values())
    low = min(group["min"].min() for group in by_rung.values())
    fence = TALL * float(np.median([group["mean"].iloc[0] for group in by_rung.values()]))
    high = min(max(group["max"].max() for group in by_rung.values()), max(fence, low))
    room = 0.06 * (high - low) or 0.1
    side = 0.04 * (last - first_epoch) or 0.5
    return (first_epoch - side, last + side), (low - room, high + room)


def _longest(by_rung: dict[str, pd.DataFrame]) -> int:
    return max(len(group) for group in by_rung.values())


def _draw_panel(
    axes: Axes,
    panel: tuple[str, list[_Line]],
    by_rung: dict[str, pd.DataFrame],
    limits: tuple[tuple[float, float], tuple[float, float]],
    width: float,
) -> None:
    axes.set(xlim=limits[0], ylim=limits[1])
    style_axes(axes, y_ticks=True, width=width, whole=True)
    is_point = _longest(by_rung) == 1
    lines = [line for line in panel[1] if line.rung in by_rung]
    for i, line in enumerate(lines):
        group = by_rung[line.rung]
        # Dots of a single epoch would hide each other.
        x = group.index.to_numpy(float) + (
            min(DODGE, 0.9 / len(lines)) * (i - (len(lines) - 1) / 2) if is_point else 0.0
        )
        low, high = group["min"].to_numpy(), group["max"].to_numpy()
        if is_point:
            axes.vlines(x, low, high, color=line.color, linewidth=THICK, gid=f"range-{line.gid}")
        else:
            axes.fill_between(x, low, high, color=line.color, alpha=0.18, linewidth=0, gid=f"range-{line.gid}")
        style: dict[str, Any] = {"color": line.color, "linestyle": line.dash, "linewidth": 1.1, "markersize": 3}
        style["marker"] = line.marker if _longest(by_rung) <= FEW else None
        axes.plot(x, group["mean"], zorder=2 if line.place is None else 3, gid=line.gid, **style)


def _write_key(
    page: Page,
    panel: tuple[str, list[_Line]],
    by_rung: dict[str, pd.DataFrame],
    left: float,
    top: float,
    width: float,
) -> float:
    """Write a panel's heading and which line is which; return where that ends."""
    heading, lines = panel
    y = top
    if heading:
        text = wrap(heading, width, TEXT, "bold")
        page.text(left, y, text, va="top", weight="bold")
        y += height_of(text, TEXT)
    longest = _longest(by_rung)
    for line in lines:
        there = line.rung in by_rung
        text = wrap(line.label if there else f"{line.label}: no epoch yet", width - KEY, SMALL)
        if there:
            style: dict[str, Any] = {"color": line.color, "linestyle": line.dash, "linewidth": 1.1, "markersize": 3}
            middle = y + height_of("", SMALL) / 2
            if longest == 1:
                style["linestyle"] = "none"
            style |= {"marker": line.marker, "markevery": [1] if longest <= FEW else []}
            page.mark([left, left + 0.13, left + 0.26], [middle] * 3, **style)
        page.text(left + KEY, y, text, va="top", fontsize=SMALL, gid=f"label-{line.gid}")
        y += height_of(text, SMALL)
    return y


def _write_notes(page: Page, by_rung: dict[str, pd.DataFrame], *, several: bool) -> None:
    """Say what lines and bands are, and that a curve left its panel."""
    notes: Sequence[str] = []
    if several:
        mean, spread = ("Dots", "bars") if _longest(by_rung) == 1 else ("Lines", "bands")
        notes = [f"{mean} are means over the seeds that got so far, {spread} go from the lowest seed to the highest."]
    top = _limits(by_rung)[1][1]
    if any(group["max"].max() > top for group in by_rung.values()):
        notes = [*notes, "A curve that leaves its panel at the top goes beyond it."]
    for note in notes:
        page.paragraph(note, page.width - 2 * MARGIN, fontsize=SMALL, color=INK)
