"""The report of anybody's results: what its files say."""

from collections.abc import Iterator

import pandas as pd

from analysis.figures import catalogue
from analysis.figures.catalogue import About, Drawing
from analysis.figures.roadmap import Chart
from analysis.frame_results import FrameResults
from analysis.report.contents import Contents, Presentation
from analysis.report.page import Page


def frame_contents(results: FrameResults, look: Presentation) -> Contents:
    """Return what a report of a frame of results says.

    Args:
        results: What the frame says.
        look: Title, width, labels and columns.
    """
    page = Page(
        title=look.title or results.title,
        headline=results.headline,
        note=results.describe(),
        is_proxy=False,
        verdicts=results.verdicts,
        metric=results.names[0],
        ladder=look.labelled(results.table),
    )
    frames: dict[str, pd.DataFrame] = {"results.csv": results.runs}
    drawings = list(_drawings(results, page, look))
    return Contents(page=page, drawings=drawings, columns=look.columns, frames=frames)


def _drawings(results: FrameResults, page: Page, look: Presentation) -> Iterator[Drawing]:
    """Yield the roadmap, whose bars are percent, where the main metric is an accuracy; and every change."""
    about = results.metric(results.names[0])
    table, values = page.ladder, page.ladder["top1"].dropna()
    if about.better > 0 and values.between(0, 100).all() and len(values):
        is_share = values.max() <= 1
        columns = ["top1", "top1_std", "top1_delta", "ci_low", "ci_high"]
        percent = table.assign(**{name: 100 * table[name] for name in columns}) if is_share else table
        axis = f"{about.label} (%)" if is_share else about.label
        chart = Chart(title=page.title, headline=page.headline, note=page.note, axis=axis, width=look.width)
        yield catalogue.roadmap(percent, chart)
    if results.pairs:
        words = About(page.title, page.note, about.label.partition(" (")[0], look.width)
        yield catalogue.forest(results.verdicts[0], table, words)
