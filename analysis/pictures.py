"""The figures of a report: which of them there are, drawn and written, each with the caption that its page gives it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing import Words
from analysis.figure import Chart, draw_roadmap, save_figure
from analysis.findings import Findings
from analysis.plots import draw_curves, draw_effects, draw_forest, draw_tradeoff
from analysis.webpage import Picture

VECTORS = ("svg", "pdf")


class Drawing(NamedTuple):
    """A figure to be drawn: the name of its files, a title, a caption, and what draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    forms: Sequence[str] = VECTORS


def roadmap(table: pd.DataFrame, chart: Chart, behind: pd.DataFrame | None = None) -> Drawing:
    """Return the roadmap, the figure at the top."""
    caption = (
        "Top-1 accuracy of every rung from top to bottom, with its standard deviation over seeds and the network's "
        "multiply-adds; the numbers are those of the ladder's table."
    )
    return Drawing("roadmap", "The roadmap", caption, lambda: draw_roadmap(table, chart, behind), ("png", *VECTORS))


def forest(verdicts: pd.DataFrame, table: pd.DataFrame, words: Words, published: pd.DataFrame | None = None) -> Drawing:
    """Return the changes of top-1 with their intervals and verdicts."""
    caption = (
        "The change of top-1 that each step makes, with its 95% interval and the verdict; a change whose verdict is "
        "“not distinguishable” may be none at all."
    )
    title = "What each step did, and how sure that is"
    return Drawing("verdicts", title, caption, lambda: draw_forest(verdicts, table, words, published))


def worths(found: Mapping[str, pd.DataFrame], ladder: pd.DataFrame, words: Words) -> Drawing:
    """Return what each step is worth by several designs."""
    caption = (
        "What each step is worth where the ladder took it, and by other designs: what the last network loses without "
        "it, what it gives alone, what it gives on average over orders. Bars to the right: with the step, top-1 is "
        "higher. Where they disagree, the step's worth hangs on the company it is in."
    )
    return Drawing("worths", "What each step is worth", caption, lambda: draw_effects(found, ladder, words))


def tradeoff(table: pd.DataFrame, words: Words) -> Drawing:
    """Return accuracy against costs."""
    caption = (
        "Top-1 against what a network costs. The line is the ladder's path; a network on the Pareto front is beaten "
        "by no other in both. Speed and memory are measured side by side on one machine, and multiply-adds are not a "
        "stand-in for them."
    )
    return Drawing("tradeoff", "Accuracy against cost", caption, lambda: draw_tradeoff(table, words))


def curves(found: pd.DataFrame, table: pd.DataFrame, words: Words) -> Drawing:
    """Return the learning curves."""
    caption = "Training loss by epoch, the mean over seeds with their range, a panel a heading."
    return Drawing("curves", "Learning curves", caption, lambda: draw_curves(found, table, words))


def drawings_of(findings: Findings, words: Words, labels: pd.DataFrame, *, climbs: bool) -> Iterator[Drawing]:
    """Yield the figures of a study beside the roadmap, as far as there is something to draw.

    Args:
        findings: What the study's runs say.
        words: Title, note, and what accuracy is called.
        labels: A row a rung of the ladder with the columns rung, label and adopted: the names of the steps.
        climbs: Whether the study is the ladder, so that its rungs are a path.
    """
    change = dataclasses.replace(words, axis=f"Change of {words.axis[0].lower()}{words.axis[1:]}")
    top1 = findings.verdicts[findings.verdicts["metric"] == "top1"]
    if top1["delta"].notna().any():
        published = findings.table[["rung", "paper_top1_delta"]].set_axis(["step", "delta"], axis=1)
        yield forest(top1, findings.table, change, published)
    if findings.worths:
        yield worths(findings.worths, labels, change)
    if climbs and findings.table["top1"].notna().any():
        yield tradeoff(findings.tradeoffs, words)
    if len(findings.curves):
        yield curves(findings.curves, findings.table, dataclasses.replace(words, axis="Training loss (nats)"))


def save_drawings(drawings: Sequence[Drawing], out: Path) -> tuple[list[Path], list[Picture]]:
    """Draw and write figures; return their files, and what a page shows of them.

    Raises:
        UserError: If the folder cannot be written.
    """
    files, pictures = [], []
    for drawing in drawings:
        files += save_figure(drawing.draw(), out / drawing.name, drawing.forms)
        pictures.append(Picture(drawing.title, drawing.caption, out / f"{drawing.name}.svg"))
    return files, pictures
