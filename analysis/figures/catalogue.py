"""The figures of a report: which of them there are, drawn and written, each with the caption that its page gives it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis.evaluations.robustness import Robustness
from analysis.figures import (
    draw_curves,
    draw_effects,
    draw_forest,
    draw_robustness,
    draw_rounds,
    draw_tasks,
    draw_tradeoff,
)
from analysis.figures.roadmap import Chart, draw_roadmap, save_figure
from analysis.figures.style import WIDTH, Words
from analysis.metrics import TOP1, metric_of
from analysis.report.page import Picture
from analysis.study_results import StudyResults

VECTORS = ("svg", "pdf")
TASKS = (TOP1, "miou", "box_ap", "mask_ap")  # metrics of classification, segmentation and detection


class About(NamedTuple):
    """What all figures of a report say: its headline, what the numbers are, what their top-1 is called; their width."""

    title: str
    note: str
    top1: str
    width: float = WIDTH

    def words(self, title: str, axis: str) -> Words:
        """Return the words of one figure."""
        return Words(title=f"{self.title}: {title[0].lower()}{title[1:]}", axis=axis, note=self.note, width=self.width)


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


def forest(verdicts: pd.DataFrame, table: pd.DataFrame, about: About, published: pd.DataFrame | None = None) -> Drawing:
    """Return the changes of top-1 with their intervals and verdicts; arguments as for `draw_forest`."""
    return _forest("verdicts", verdicts, table, about, "top-1", published)


def tasks(verdicts: pd.DataFrame, metrics: Sequence[str], table: pd.DataFrame, about: About) -> Drawing:
    """Return what each step does to several tasks; arguments as for `draw_tasks`."""
    title = "What each step does to other tasks"
    caption = (
        "The change that each step makes to classification and to what the networks are worth as backbones, with its "
        "95% interval; marks are the answers, as in the figure of top-1. Each panel has its own scale."
    )
    words = about.words(title, "Change of each metric (points)")
    return Drawing("tasks", title, caption, lambda: draw_tasks(verdicts, metrics, table, words))


def own_forest(verdicts: pd.DataFrame, table: pd.DataFrame, about: About) -> Drawing:
    """Return the same of a metric of the user's own."""
    metric = str(verdicts["metric"].iloc[0])
    name = metric_of(metric).name
    return _forest(f"verdicts-{metric}", verdicts, table, about._replace(top1=name), name)


def _forest(
    file: str,
    verdicts: pd.DataFrame,
    table: pd.DataFrame,
    about: About,
    metric: str,
    published: pd.DataFrame | None = None,
) -> Drawing:
    of = "" if metric == "top-1" else f" to {metric}"
    title = f"What each step did{of}, and how sure that is"
    caption = (
        f"The change of {metric} that each step makes, with its 95% interval and the answer; a step that is undecided "
        "may have no effect at all."
    )
    unit = metric_of(verdicts["metric"].iloc[0]).unit if len(verdicts) else "points"
    words = about.words(f"What each step did{of}", f"Change of {about.top1}" + (f" ({unit})" if unit else ""))
    return Drawing(file, title, caption, lambda: draw_forest(verdicts, table, words, published))


def rounds(found: pd.DataFrame, table: pd.DataFrame, about: About) -> Drawing:
    """Return how the intervals closed, look by look; arguments as for `draw_rounds`."""
    title = "How the intervals closed"
    caption = (
        "Each step's change of top-1 with its interval after every round of seeds, the first at the top: seeds went "
        "where a step was still open, and none to a step that was answered."
    )
    words = about.words(title, f"Change of {about.top1} (points)")
    return Drawing("rounds", title, caption, lambda: draw_rounds(found, table, words))


def design_effects(
    found: Mapping[str, pd.DataFrame], labels: pd.DataFrame, about: About, metric: str = TOP1
) -> Drawing:
    """Return the steps' effects by several designs; arguments as for `draw_effects`, and the metric."""
    is_own, known = metric != TOP1, metric_of(metric)
    file, title = "design_effects", "Each step's effect by several designs"
    if is_own:
        file, title, about = f"{file}-{metric}", f"{title}: {known.name}", about._replace(top1=known.name)
    caption = (
        "What each step does where the ladder takes it, and by other designs: what the last network loses without "
        "it, what it gives alone, what it gives on average over orders. Bars to the right: with the step, "
        f"{known.name} is higher. A step that others need is left out with them, as that design's table says. Where "
        "designs disagree beyond their intervals, the step's effect depends on the other steps."
    )
    words = about.words(title, f"Change of {about.top1}" + (f" ({known.unit})" if known.unit else ""))
    return Drawing(file, title, caption, lambda: draw_effects(found, labels, words))


def tradeoff(table: pd.DataFrame, about: About) -> Drawing:
    """Return accuracy against costs; the table is that of `draw_tradeoff`."""
    title = "Accuracy against cost"
    caption = (
        "Top-1 against what a network costs. The line is the ladder's path; a network on the Pareto front is beaten "
        "by no other in both. Speed and memory are measured side by side on one machine, and multiply-adds are not a "
        "stand-in for them."
    )
    page = about._replace(width=max(about.width, WIDTH))  # its panels have no room in one column
    words = page.words(title, f"{about.top1[0].upper()}{about.top1[1:]} (%)")
    return Drawing("tradeoff", title, caption, lambda: draw_tradeoff(table, words))


def robustness(found: Robustness, table: pd.DataFrame, about: About) -> Drawing:
    """Return accuracy under attacks and corruptions; the table is the ladder's."""
    title = "Robustness"
    caption = (
        "Top-1 of every rung on some of the test images: as they are, under attacks that may change each pixel by so "
        "much, and the mean over common corruptions; marks are means over seeds, lines their standard deviation. mCE "
        "is the mean corruption error, less is better."
    )
    images = f"{int(found.frame['images'].iloc[0]):,} of the test images"
    words = about.words(title, f"Top-1 accuracy on {images} (%)")
    return Drawing("robustness", title, caption, lambda: draw_robustness(found.frame, found.radii, table, words))


def curves(found: pd.DataFrame, table: pd.DataFrame, about: About) -> Drawing:
    """Return the learning curves; arguments as for `draw_curves`."""
    title = "Learning curves"
    caption = "Training loss by epoch, the mean over seeds with their range, a panel a heading."
    return Drawing(
        "curves", title, caption, lambda: draw_curves(found, table, about.words(title, "Training loss (nats)"))
    )


def drawings_of(results: StudyResults, about: About, labels: pd.DataFrame, *, climbs: bool) -> Iterator[Drawing]:
    """Yield the figures of a study beside the roadmap, as far as there is something to draw.

    Args:
        results: What the study's runs say.
        about: What all its figures say.
        labels: A row a rung of the ladder with the columns rung, label, section and adopted: the names of the steps.
        climbs: Whether the study is the ladder, so that its rungs are a path.
    """
    top1 = results.verdicts[results.verdicts["metric"] == "top1"]
    if top1["delta"].notna().any():
        published = results.table[["rung", "paper_top1_delta"]].set_axis(["step", "delta"], axis=1)
        yield forest(top1, results.rows, about, published)
    for metric in results.own_metrics.metrics:
        judged = results.verdicts[results.verdicts["metric"] == metric]
        if judged["delta"].notna().any():
            yield own_forest(judged, results.rows, about)
    known = [metric for metric in TASKS if (results.verdicts["metric"] == metric).any()]
    known = [m for m in known if results.verdicts.loc[results.verdicts["metric"] == m, "delta"].notna().any()]
    if len(known) > 1:
        yield tasks(results.verdicts, known, results.rows, about)
    if len(results.rounds):
        yield rounds(results.rounds, results.table, about)
    if results.design_effects:
        yield design_effects(results.design_effects, labels, about)
    for metric in results.own_metrics.metrics:
        if effects := results.effects_on(metric):
            yield design_effects(effects, labels, about, metric)
    if climbs and results.table["top1"].notna().any() and not results.means_nothing:
        yield tradeoff(results.tradeoffs, about)
    if len(results.robustness.frame):
        yield robustness(results.robustness, results.table, about)
    if len(results.curves):
        yield curves(results.curves, results.table, about)


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
