"""How the intervals of a study in rounds closed: a row a step, an interval a look, the latest at the bottom."""

from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.rows import (
    arrow_keys,
    draw_arrows,
    explain_axis,
    in_order,
    label_rows,
    limits_of,
    middles_of,
    write_notes,
)
from analysis.figures.style import (
    GAP,
    GREY,
    INK,
    MARGIN,
    MARKERS,
    PAPER,
    TEXT,
    THICK,
    Page,
    Words,
    height_of,
    width_of,
)
from analysis.sentences import MARKS
from analysis.stats.answers import Answer

LINE = 0.075  # inches between the intervals of two looks
NOTE = "Each interval holds at all looks together. A filled mark: answered; what was answered once stays so."


def draw_rounds(rounds: pd.DataFrame, ladder: pd.DataFrame, words: Words) -> Figure:
    """Draw each step's interval at every look, and which answer it had.

    Args:
        rounds: A row a look and step with the columns of `StudyResults.rounds`.
        ladder: A row a rung in the ladder's order, as for `draw_forest`.
        words: The words around the marks; `axis` is what changes, with its unit.

    Returns:
        The figure, as tall as its rows need.
    """
    looks = sorted(rounds["look"].unique())
    last = in_order(rounds[rounds["look"] == looks[-1]], ladder)
    limits = limits_of(rounds["ci_low"], rounds["ci_high"], rounds["delta"])
    with matplotlib.style.context("default"):
        page = Page(words.width)
        page.head(words.title, words.note)
        answers = [f"{MARKS[Answer(row.answer)]} {row.answer}" for row in _rows(last)]
        right = page.width - MARGIN - max(width_of(text, TEXT) for text in answers)
        height = LINE * (len(looks) - 1) + height_of("", TEXT) + GAP
        axes, edges = label_rows(page, last, [height] * len(last), limits, right=right - 2 * GAP)
        for line, answer, middle in zip(_rows(last), answers, middles_of(edges), strict=True):
            page.text(right, middle, answer, va="center_baseline", gid=f"answer-{line.step}")
            mine = rounds[(rounds["step"] == line.step) & rounds["delta"].notna()]
            top = middle - LINE * (len(mine) - 1) / 2
            for place, row in enumerate(_rows(mine)):
                y, name = top + LINE * place, f"{row.step}-{row.look}"
                is_last = place == len(mine) - 1
                color = INK if is_last else GREY
                axes.plot([row.ci_low, row.ci_high], [y, y], color=color, linewidth=1.2, gid=f"interval-{name}")
                if limits[0] <= row.delta <= limits[1]:
                    axes.plot([row.delta], [y], zorder=3, gid=f"change-{name}", **_marker(row.answer))
                draw_arrows(axes, (row.ci_low, row.delta, row.ci_high), y, limits, color, name)
        left = axes.get_position().x0 * page.width
        explain_axis(page, words.axis, left)
        page.legend(_keys(rounds) | arrow_keys(axes), left)
        counts = rounds.groupby("look")["runs"].first()
        runs = ", ".join(str(count) for count in counts)
        write_notes(page, [f"Looks from top to bottom, after {runs} runs. {NOTE}"], left)
        page.close()
    return page.figure


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _marker(answer: str) -> dict[str, Any]:
    is_answered = answer in (Answer.HELPS, Answer.HURTS, Answer.NO_EFFECT)
    style: dict[str, Any] = {"marker": MARKERS[Answer(answer)], "markersize": 4, "markeredgecolor": INK}
    return style | {"color": INK if is_answered else PAPER, "markeredgewidth": THICK}


def _keys(rounds: pd.DataFrame) -> dict[str, Artist]:
    found = set(rounds.loc[rounds["delta"].notna(), "answer"])
    return {answer: Line2D([], [], linewidth=0, **_marker(answer)) for answer in Answer if answer in found}
