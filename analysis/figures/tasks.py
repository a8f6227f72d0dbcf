"""What each step does to several metrics, side by side: to classification, segmentation and detection, say."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from analysis.figures.forest import draw_change, draw_margin, forest_keys
from analysis.figures.rows import ITALICS, explain_axis, in_order, limits_of, middles_of, write_labels, write_notes
from analysis.figures.style import (
    GAP,
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
from analysis.metrics import metric_of


def draw_tasks(verdicts: pd.DataFrame, metrics: Sequence[str], ladder: pd.DataFrame, words: Words) -> Figure:
    """Draw the change that each step makes in each of several metrics, a row a step, a panel a metric.

    Markers and intervals are those of `draw_forest`.

    Args:
        verdicts: As for `draw_forest`, of all these metrics.
        metrics: The panels, from left to right.
        ladder: As for `draw_forest`.
        words: The words around the marks; `axis` says what all panels show.

    Returns:
        The figure, as tall as its rows need.
    """
    colors = section_colors(ladder)
    tables: dict[str, pd.DataFrame] = {}
    for metric in metrics:
        table = in_order(verdicts[verdicts["metric"] == metric], ladder)
        tables[metric] = table.assign(color=table["step"].map(colors).fillna(START_COLOR), paper=np.nan)
    rows = in_order(verdicts[verdicts["metric"].isin(metrics)].drop_duplicates("step"), ladder)
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        labels = [wrap(label, page.labels, TEXT) for label in rows["label"]]
        left = 2 * MARGIN + max((width_of(label, TEXT) for label in labels), default=page.labels)
        panel = (page.width - MARGIN - left - GAP * 2 * (len(metrics) - 1)) / len(metrics)
        starts = [left + place * (panel + 2 * GAP) for place in range(len(metrics))]
        heads = [wrap(metric_of(metric).label, panel, SMALL) for metric in metrics]
        for start, head in zip(starts, heads, strict=True):
            page.text(start, page.y, head, va="top", fontsize=SMALL)
        page.y += max(height_of(head, SMALL) for head in heads) + GAP / 2
        edges = write_labels(page, rows, [ROW] * len(rows))
        places = dict(zip(rows["step"], middles_of(edges), strict=True))
        keys: dict[str, Artist] = {}
        for start, (metric, table) in zip(starts, tables.items(), strict=True):
            low, high = table["ci_low"].fillna(table["delta"]), table["ci_high"].fillna(table["delta"])
            limits = limits_of(low, high, table["paper"])
            axes = page.rows(start, start + panel)
            axes.set(xlim=limits, ylim=(page.y, edges[0]))
            style_axes(axes, y_ticks=False, width=panel)
            axes.axvline(0, color=INK, linewidth=THICK, zorder=1.5, gid=f"zero-{metric}")
            by_step = table.set_index("step")["margin"].astype(float)
            draw_margin(axes, rows["step"].map(by_step), edges)
            found: list[Any] = list(table.itertuples())
            for row in found:
                draw_change(axes, row, places[row.step], limits)
            keys |= _without_sizes(forest_keys(table, axes))
        explain_axis(page, words.axis, left)
        page.legend(keys, left)
        write_notes(page, [] if rows["adopted"].all() else [ITALICS], left)
        page.close()
    return page.figure


def _without_sizes(keys: Mapping[str, Artist]) -> dict[str, Artist]:
    """Return what explains the marks, the margin without its size, which each panel has for itself."""
    return {"within the margin: as good as none" if "margin" in name else name: key for name, key in keys.items()}
