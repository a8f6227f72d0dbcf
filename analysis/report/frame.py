"""The report of anybody's results: what its files say."""

import pandas as pd

from analysis.figures import catalogue
from analysis.figures.catalogue import About
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
    main, table = results.names[0], look.labelled(results.table)
    axis, note = results.metric(main).label, results.describe()
    chart = Chart(title=look.title or results.title, headline=results.headline, note=note, axis=axis, width=look.width)
    drawings = [catalogue.roadmap(table, chart)]
    if results.pairs:
        drawings.append(catalogue.forest(results.verdicts[0], table, About(chart.title, note, axis)))
    page = Page(
        title=chart.title,
        headline=results.headline,
        note=note,
        is_proxy=False,
        verdicts=results.verdicts,
        ladder=table,
    )
    frames: dict[str, pd.DataFrame] = {"results.csv": results.runs}
    return Contents(page=page, drawings=drawings, columns=look.columns, frames=frames)
