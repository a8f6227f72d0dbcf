"""Each step's effect in several studies, and how far that of one differs from the others'."""

from collections.abc import Mapping, Sequence
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
    arrow_keys,
    draw_arrows,
    explain_axis,
    in_order,
    limits_of,
    middles_of,
    write_labels,
    write_notes,
)
from analysis.figures.style import (
    BAND,
    BLUE,
    GAP,
    GREEN,
    GREY,
    GRID,
    INK,
    MARGIN,
    ORANGE,
    PAPER,
    PINK,
    ROW,
    SMALL,
    TEXT,
    THICK,
    VERMILION,
    Page,
    Words,
    height_of,
    style_axes,
    width_of,
    wrap,
)
from analysis.sentences import WORTH_MARKS
from analysis.stats.differences import DECIDED, Worth

MOST = 4  # studies that one is compared with
COLORS = (BLUE, ORANGE, GREEN, PINK, VERMILION)  # the study here first
LINE = 0.085  # inches between the intervals of two studies in a row
WORDS = 0.85  # inches of an answer in words
WIDE = 5.5  # inches from which there is room for answers in words
MARKERS = {
    Worth.MORE_HERE: "^",
    Worth.MORE_THERE: "v",
    Worth.SAME: "s",
    Worth.UNDECIDED: "o",
    Worth.NOT_TESTED: "x",
}
MARK: dict[str, Any] = {"markeredgecolor": INK, "markersize": 4.5, "markeredgewidth": 0.6, "linestyle": "none"}
NOTE = (
    "Intervals are of one change or difference alone. Answers allow for {} differences judged together, so that an "
    "interval may leave out 0 and the difference still be undecided."
)


def draw_differences(differences: pd.DataFrame, ladder: pd.DataFrame, words: Words, here: str) -> Figure:
    """Draw each step's effect here and in other studies, and beside it the difference of the two with its answer.

    A row a step. On the left a line a study; on the right a line for each of the others, in its colour: to the right of
    zero the step's change is the larger one here. A filled mark is an answer. With one other study, and room for it,
    the answer stands there in words.

    Args:
        differences: Rows of one metric with the columns of `comparison.differences.DIFFERENCE_COLUMNS`, of at most four
            other studies.
        ladder: A row a rung of the study here, as for `draw_forest`.
        words: The words around the panels; `axis` is what changes, with its unit.
        here: What the study here is called.

    Returns:
        The figure, as tall as its rows need.

    Raises:
        ValueError: If there are more than four other studies.
    """
    others = list(dict.fromkeys(differences["study"]))
    if len(others) > MOST:
        raise ValueError(f"differences are of {len(others)} studies, but there is room for {MOST}.")
    colors = dict(zip([here, *others], COLORS, strict=False))
    steps = in_order(pd.DataFrame({"step": list(dict.fromkeys(differences["step"]))}), ladder)
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        in_words = len(others) == 1 and page.width >= WIDE
        left = 2 * MARGIN + max((width_of(wrap(label, page.labels, TEXT), TEXT) for label in steps["label"]), default=0)
        right = page.width - MARGIN - (WORDS + GAP if in_words else 0)
        width = (right - left) / 2 - GAP
        places = (left, left + width + 2 * GAP)
        headings = [wrap(text, width, SMALL) for text in ("effect in each study", "difference: here less there")]
        for place, heading in zip(places, headings, strict=True):
            page.text(place, page.y, heading, va="top", fontsize=SMALL)
        page.y += max(height_of(heading, SMALL) for heading in headings) + GAP / 2
        top = page.y
        height = max(ROW, LINE * len(others) + height_of("", TEXT))
        edges = write_labels(page, steps, [height] * len(steps))
        margin = float(differences["margin"].max()) if len(differences) else 0.0
        panels = _make_panels(page, differences, places, width, top)
        if margin > 0:
            panels[1].axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0, gid="margin")
        for place, (step, middle) in enumerate(zip(steps["step"], middles_of(edges), strict=True)):
            if len(others) > 1 and place % 2:
                for axes in panels:
                    axes.axhspan(edges[place], edges[place + 1], color=GRID, linewidth=0, alpha=0.5, zorder=0)
            mine = [row for row in _rows(differences) if row.step == step]
            _draw_step(panels, mine, middle, colors)
            if in_words:
                page.text(right + GAP, middle, _in_words(mine[0]), va="center_baseline", gid=f"worth-{step}")
        explain_axis(page, words.axis, left)
        page.legend(_keys(differences, colors, panels, margin), left if page.width >= WIDE else MARGIN)
        tested = int(differences["p_adjusted"].notna().sum())
        notes = [NOTE.format(tested)] if tested > 1 else []
        write_notes(page, notes + ([] if steps["adopted"].all() else [ITALICS]), MARGIN)
        page.close()
    return page.figure


def _make_panels(
    page: Page, differences: pd.DataFrame, places: Sequence[float], width: float, top: float
) -> list[Axes]:
    """Add the panel of effects and that of differences, each with the limits that its intervals ask for."""
    ours = differences.drop_duplicates("step")
    ends = pd.concat([ours["effect_low"], differences["effect_there_low"]])
    highs = pd.concat([ours["effect_high"], differences["effect_there_high"]])
    effects = pd.concat([ours["effect"], differences["effect_there"]])
    panels: list[Axes] = []
    for place, limits in zip(
        places,
        (
            limits_of(ends.fillna(effects), highs.fillna(effects), effects),
            limits_of(
                differences["ci_low"].fillna(differences["difference"]),
                differences["ci_high"].fillna(differences["difference"]),
                differences["difference"],
            ),
        ),
        strict=True,
    ):
        axes = page.rows(place, place + width)
        axes.set(xlim=limits, ylim=(page.y, top))
        style_axes(axes, y_ticks=False, width=width)
        axes.axvline(0, color=INK, linewidth=THICK, zorder=1.5, gid=f"zero-{len(panels)}")
        panels.append(axes)
    return panels


def _draw_step(panels: Sequence[Axes], rows: Sequence[Any], middle: float, colors: Mapping[str, str]) -> None:
    """Draw a step's effects on the left and its differences on the right, each study on a line of its own."""
    here, *others = colors
    lines = {study: middle + LINE * (place - len(others) / 2) for place, study in enumerate(colors)}
    effects = {here: (rows[0].effect, rows[0].effect_low, rows[0].effect_high)}
    effects |= {row.study: (row.effect_there, row.effect_there_low, row.effect_there_high) for row in rows}
    for study, values in effects.items():
        mark = {"marker": "o", "markerfacecolor": colors[study]}
        _draw_line(panels[0], values, lines[study], f"effect-{rows[0].step}-{study}", colors[study], mark)
    for row in rows:
        mark = {"marker": MARKERS[Worth(row.worth)]}
        mark["markerfacecolor"] = colors[row.study] if row.worth in DECIDED else PAPER
        values = (row.difference, row.ci_low, row.ci_high)
        y = lines[row.study] - LINE / 2
        _draw_line(panels[1], values, y, f"difference-{row.step}-{row.study}", colors[row.study], mark)


def _draw_line(
    axes: Axes, values: tuple[float, float, float], y: float, name: str, color: str, mark: Mapping[str, Any]
) -> None:
    """Draw a value with its interval; nothing where it is not known."""
    value, low, high = values
    limits = axes.get_xlim()
    if pd.notna(low):
        axes.plot([low, high], [y, y], color=color, linewidth=1.2, zorder=2, gid=f"interval-{name}")
    if limits[0] <= value <= limits[1]:  # not where it is NaN
        axes.plot([value], [y], zorder=3, gid=name, **MARK, **mark)
    if pd.notna(value):
        draw_arrows(axes, (low, value, high), y, limits, color, name)


def _in_words(row: Any) -> str:
    return f"{WORTH_MARKS[Worth(row.worth)]} {row.worth}" if row.verdict else ""


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _keys(
    differences: pd.DataFrame, colors: Mapping[str, str], panels: Sequence[Axes], margin: float
) -> dict[str, Artist]:
    """Return what explains the marks that were drawn."""
    keys: dict[str, Artist] = {
        study + " (here)" * (place == 0): Line2D([], [], marker="o", color=color, **MARK | {"linestyle": "-"})
        for place, (study, color) in enumerate(colors.items())
    }
    for worth in Worth:
        if ((differences["worth"] == worth) & differences["difference"].notna() & (differences["verdict"] != "")).any():
            color = GREY if worth in DECIDED else PAPER
            keys[str(worth)] = Line2D([], [], marker=MARKERS[worth], markerfacecolor=color, **MARK)
    if margin > 0:
        keys[f"within the margin of {margin:g}"] = Patch(facecolor=BAND)
    return keys | arrow_keys(panels[0]) | arrow_keys(panels[1])
