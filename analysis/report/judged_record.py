"""The report of a record that is judged again: what its files say, and which of them stay as they are."""

import dataclasses
import json
import shlex
from collections.abc import Sequence

import pandas as pd

from analysis.evaluations.own_metrics import OwnMetrics, own_metric_cells
from analysis.evaluations.robustness import Robustness, check_cells, robustness_cells
from analysis.figures import catalogue
from analysis.figures.catalogue import About, Drawing
from analysis.fractions import alias_cells, network_cells
from analysis.report.contents import PROGRAM, Contents, Presentation
from analysis.report.page import Page
from analysis.report.record import RECORD, judged_by, origin_of
from analysis.report.record_results import RecordResults
from analysis.report.tables import Cells, correlation_cells
from roadmap.ladder.fractions import Fraction


def record_contents(results: RecordResults, look: Presentation) -> Contents:
    """Return what the report of a record says.

    Where and when its runs were trained stays; by which rule and program they were judged is written anew. Figures
    without answers stay as they were drawn: learning curves, costs, robustness, effects by several designs.
    """
    record, chart = results.record, results.record.chart
    table = look.labelled(results.table)
    about = record.about | {"judged": judged_by(results.test, results.used_margin)}
    chart = dataclasses.replace(
        chart,
        title=look.title or chart.title,
        headline=results.headline,
        width=look.width,
        behind_label="",  # the other ladder is not in the record
        behind_reference=None,
    )
    command = f"{PROGRAM} report --record {shlex.quote(record.folder.name)}"
    about["chart"] = about["chart"] | {"headline": results.headline}
    page = Page(
        title=chart.title,
        headline=results.headline,
        note=chart.note,
        is_proxy=record.is_proxy,
        verdicts=results.verdicts,
        ladder=table,
        sentences=results.sentences,
        tables=[
            *correlation_tables(results.correlations),
            *fraction_tables(results.fraction),
            *robustness_tables(results.robustness),
            *own_metric_tables(results.own_metrics),
        ],
        runs=results.runs,
        commands=[("This report again, from the record", command)],
        provenance=origin_of(about),
    )
    words = About(chart.title, chart.note, chart.axis.removesuffix(" (%)"), look.width)
    rows = look.labelled(results.rows)
    published = table[["rung", "paper_top1_delta"]].set_axis(["step", "delta"], axis=1)
    return Contents(
        page=page,
        drawings=[
            catalogue.roadmap(table, chart),
            catalogue.forest(results.verdicts[0], rows, words, published),
            *(
                catalogue.own_forest(judged, rows, words)
                for judged in results.verdicts
                if judged["metric"].iloc[0] in results.own_metrics.metrics
            ),
        ],
        columns=look.columns,
        texts={RECORD: json.dumps(about, indent=1) + "\n"},
        kept=record.folder,
        kept_drawings=_kept_drawings(words),
    )


def correlation_tables(correlations: pd.DataFrame) -> list[tuple[str, Sequence[Cells]]]:
    """Return the table of correlations with the paper's changes, with its title; nothing without any."""
    title = "Correlation of each metric's changes with the paper's changes of top-1, turned so that more is better"
    return [(title, correlation_cells(correlations))] if len(correlations) else []


def robustness_tables(found: Robustness) -> list[tuple[str, Sequence[Cells]]]:
    """Return the tables of robustness, with their titles; nothing without any."""
    if found.frame.empty:
        return []
    title = "Robustness: top-1 under attacks of several radii and under corruptions, percent, and mCE"
    check = "Check for gradient masking: top-1 of each run, percent"
    return [(title, robustness_cells(found)), (check, check_cells(found))]


def fraction_tables(fraction: Fraction | None) -> list[tuple[str, Sequence[Cells]]]:
    """Return the tables of a factorial plan, with their titles: its networks, and what it cannot tell apart."""
    if fraction is None:
        return []
    tables = [("The networks: + has the step", network_cells(fraction))]
    title = "Effects that this plan cannot tell apart: what is seen of one is the sum of all beside it"
    aliases = alias_cells(fraction)
    return [*tables, *([(title, aliases)] if aliases else [])]


def own_metric_tables(found: OwnMetrics) -> list[tuple[str, Sequence[Cells]]]:
    """Return the table of the user's own metrics, with its title; nothing without any."""
    title = "Own metrics, measured of the trained networks: mean and standard deviation over seeds"
    return [(title, own_metric_cells(found))] if len(found.frame) else []


def _kept_drawings(about: About) -> list[Drawing]:
    """Return the figures that stay as they were drawn, for their titles and captions."""
    none = pd.DataFrame()
    robustness = catalogue.robustness(Robustness(pd.DataFrame({"images": [0]})), none, about)
    return [
        catalogue.design_effects({}, none, about),
        catalogue.tradeoff(none, about),
        robustness,
        catalogue.curves(none, none, about),
    ]
