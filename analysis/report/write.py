"""Reports from run folders, or from the published numbers alone: tables, figures and a page that holds all of it."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.design_effects import has_runs_beyond
from analysis.evaluations.own_metrics import described, described_looks
from analysis.figures import catalogue
from analysis.figures.roadmap import Chart
from analysis.frame_results import FrameResults
from analysis.ladder_table import ladder_table, published_table, with_answers
from analysis.metrics import METRICS, TOP1, metric_of
from analysis.report.contents import DEFAULT, PROGRAM, Contents, Presentation, write_contents
from analysis.report.frame import frame_contents
from analysis.report.judged_record import (
    correlation_tables,
    fraction_tables,
    own_metric_tables,
    record_contents,
    robustness_tables,
)
from analysis.report.page import Page
from analysis.report.record import RECORD, describe_record, judged_by, origin_of
from analysis.report.record_results import RecordResults
from analysis.report.tables import Cells, escaped, rounds_cells, value_cells
from analysis.run_frames import collect, has_results
from analysis.sentences import published_headline
from analysis.stats.answers import SHARED, Test
from analysis.study_results import StudyResults
from analysis.verdicts import published_verdicts
from roadmap.common.errors import UserError
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.schema import Base, Reference
from roadmap.study.plan import Study

IMAGENET_TOP1, IMAGENET_CLASSES = "ImageNet-1K top-1 accuracy", 1000


def write_report(
    results: Study | StudyResults | RecordResults | FrameResults,
    out: Path,
    *,
    behind: Study | None = None,
    words: Sequence[str] | None = None,
    look: Presentation = DEFAULT,
) -> list[Path]:
    """Write tables (CSV, Markdown, LaTeX), figures (SVG, PDF; the roadmap as PNG too) and report.html.

    Args:
        results: A study, what its runs or its record say, or anybody's results as a frame.
        out: The folder to write to; files of an earlier report there are replaced.
        behind: The same study from another base, drawn in grey behind where it has results.
        words: The command line's words that name this study, for the commands in the page; None makes them up from
            the base, the recipe and the seeds.
        look: Title, width, labels and columns.

    Returns:
        The files written.

    Raises:
        UserError: If the folder cannot be written or a result is of another version.
    """
    results = StudyResults(results) if isinstance(results, Study) else results
    if isinstance(results, StudyResults):
        return write_contents(_study_contents(results, behind, words, look), out)
    return write_contents(contents_of(results, look), out)


def contents_of(results: StudyResults | RecordResults | FrameResults, look: Presentation = DEFAULT) -> Contents:
    """Return what a report says: its tables, and its figures before they are drawn."""
    if isinstance(results, FrameResults):
        return frame_contents(results, look)
    if isinstance(results, RecordResults):
        return record_contents(results, look)
    return _study_contents(results, None, None, look)


def _study_contents(
    results: StudyResults, behind: Study | None, words: Sequence[str] | None, look: Presentation
) -> Contents:
    """Return what a study's report says."""
    study, table = results.study, look.labelled(results.table)
    shadow, shadow_label = _shadow_of(behind)
    chart = _chart_of(results, shadow_label, look)
    top1, note = _name_of_top1(study), study.describe()
    planned = [history.planned for history in results.histories.values()]
    margin = METRICS[TOP1].margin if results.margin is None else results.margin
    record = describe_record(study, results.runs, chart, planned) | {
        "notes": [*study.notes, *(note for found in results.evaluated for note in found.notes)],
        **({"own_metrics": described(results.own_metrics)} if results.own_metrics.metrics else {}),
        **({"own_metrics_looks": described_looks(results.own_metrics)} if results.own_metrics.looks else {}),
        "judged": judged_by(results.test, margin),
    }
    steps = [(rung.id, rung.label, rung.section, rung.adopted) for rung in study.ladder.climb(study.base)]
    labels = look.labelled(pd.DataFrame(steps, columns=["rung", "label", "section", "adopted"]))
    about = catalogue.About(chart.title, note, top1, look.width)
    if words is None:
        words = ["--base", study.base, "--recipe", study.recipe.name, "--seeds", *map(str, study.seeds)]
    of_metrics = [TOP1, *results.own_metrics.metrics]
    effects = [
        frame.assign(design=name, metric=metric)
        for metric in of_metrics
        for name, frame in results.effects_on(metric).items()
    ]
    page = Page(
        title=chart.title,
        headline=results.headline,
        note=note,
        is_proxy=study.recipe.is_proxy,
        verdicts=_by_metric(results),
        ladder=table,
        sentences=results.sentences,
        tables=_tables(results),
        runs=results.runs,
        histories=results.histories,
        settings=_settings(study),
        paper_recipe=study.recipe.paper,
        deviations=study.deviations(study.recipe),
        commands=_commands(table, words, results.margin),
        provenance=origin_of(record),
    )
    return Contents(
        page=page,
        drawings=[
            catalogue.roadmap(table, chart, shadow),
            *catalogue.drawings_of(results, about, labels, climbs=study.design == "ladder"),
        ],
        columns=look.columns,
        frames={
            "results.csv": results.runs,
            "rounds.csv": results.rounds,
            "agreement.csv": results.correlations,
            "shapley.csv": pd.concat([results.shapley_of(metric).assign(metric=metric) for metric in of_metrics]),
            "design_effects.csv": pd.concat(effects) if effects else pd.DataFrame(),
            "robustness.csv": results.robustness.frame,
            "own_metrics.csv": results.own_metrics.frame,
        },
        texts={RECORD: json.dumps(record, indent=1) + "\n"},
        footnotes=_footnotes(results.runs),
    )


def _shadow_of(behind: Study | None) -> tuple[pd.DataFrame | None, str]:
    """Return the ladder that is drawn in grey behind, and what it is called; nothing where it has no results."""
    if behind is None or not has_runs_beyond(behind, ()) or not has_results(runs := collect(behind)):
        return None, ""
    return ladder_table(runs, behind.rungs), f"{behind.ladder.bases[behind.base].label} ladder"


def _name_of_top1(study: Study) -> str:
    """Return what a study's accuracy is called: the paper's name only where it is the same measurement."""
    data = next(iter(study.configs.values())).data
    if not study.recipe.is_proxy and data.test_on == "test" and data.num_classes == IMAGENET_CLASSES:
        return IMAGENET_TOP1
    return f"top-1 accuracy on the {data.test_on} images"


def _chart_of(results: StudyResults, behind_label: str, look: Presentation) -> Chart:
    """Return the words around a study's roadmap."""
    study, top1 = results.study, _name_of_top1(results.study)
    info = study.ladder.bases[study.base]
    climbs = study.design == "ladder"
    made = f"Modernizing {info.label}" if climbs else f"{info.label}, {study.layout.design.describe()}"
    return Chart(
        start=info.label,
        result=info.result if study.is_whole else "",
        title=look.title or made,
        headline=results.headline,
        note=study.describe(),
        axis=f"{top1[0].upper()}{top1[1:]} (%)",
        reference=_as_published(info.reference) if top1 == IMAGENET_TOP1 else None,
        behind_label=behind_label,
        width=look.width,
    )


def write_record(results: RecordResults, out: Path, look: Presentation = DEFAULT) -> list[Path]:
    """Write a record's report again, judged by today's rule from its rows alone.

    Raises:
        UserError: If the record cannot be read or the folder cannot be written.
    """
    return write_contents(record_contents(results, look), out)


def write_published(
    ladder: Ladder,
    base: str,
    out: Path,
    *,
    margin: float | None = None,
    test: Test = SHARED,
    look: Presentation = DEFAULT,
) -> list[Path]:
    """Write the paper's own numbers in the same form: tables, figures and the page.

    Args:
        ladder: The ladder, with what is published.
        base: Where it starts.
        out: The folder to write to; files of an earlier report there are replaced.
        margin: Changes of top-1 within it are as good as none; None takes the metric's own.
        test: The rule that gives the answers, as for `analysis.judge`.
        look: Title, width, labels and columns.

    Raises:
        UserError: If the folder cannot be written.
    """
    info = ladder.bases[base]
    verdicts = published_verdicts(ladder, base, margin=margin, test=test)
    table = look.labelled(with_answers(published_table(ladder, base), verdicts))
    if table["top1"].isna().all():
        raise UserError(f"--published: nothing is published of the ladder from {base}. Report runs of your own.")
    larger = [name for name, other in ladder.bases.items() if _cost(other) > _cost(info)]
    shadow = published_table(ladder, larger[0]) if larger else None
    note = f"Published numbers: Liu et al. 2022, {info.source}"
    said = published_headline(verdicts)
    chart = Chart(
        start=info.label,
        result=info.result,
        title=look.title or f"Modernizing {info.label}, as published",
        headline=said,
        note="",
        axis=f"{IMAGENET_TOP1} (%)",
        reference=info.reference,
        behind_label=f"{ladder.bases[larger[0]].label} ladder" if larger else "",
        behind_reference=ladder.bases[larger[0]].reference if larger else None,
        width=look.width,
    )
    command = f"report --published --base {shlex.quote(base)}" + _margin_words(margin)
    page = Page(
        title=chart.title,
        headline=said,
        note=note,
        is_proxy=False,
        verdicts=[verdicts],
        ladder=table,
        commands=[("These tables and figures", f"{PROGRAM} {command}")],
    )
    about = catalogue.About(chart.title, note, IMAGENET_TOP1, look.width)
    drawings = [catalogue.roadmap(table, chart, shadow), catalogue.forest(verdicts, table, about)]
    return write_contents(Contents(page=page, drawings=drawings, columns=look.columns), out)


def _by_metric(results: StudyResults) -> list[pd.DataFrame]:
    """Return verdicts metric by metric, top-1 first with what each step costs; those without a change are left out."""
    tables = [rows for metric, rows in results.verdicts.groupby("metric", sort=False) if metric != "top1"]
    return [results.top1, *(rows for rows in tables if rows["delta"].notna().any())]


def _tables(results: StudyResults) -> list[tuple[str, Sequence[Cells]]]:
    """Return the tables beside those of rungs and verdicts: (title, cells)."""
    tables: list[tuple[str, Sequence[Cells]]] = []
    tables += correlation_tables(results.correlations)
    if len(results.rounds):
        tables.append(("Answers round by round", rounds_cells(results.rounds)))
    for metric in (TOP1, *results.own_metrics.metrics):
        if len(values := results.shapley_of(metric)):
            title = f"Shapley values of {metric_of(metric).name}, the mean change over the drawn orders"
            tables.append((title, value_cells(values, metric)))
    tables += fraction_tables(results.fraction)
    return tables + robustness_tables(results.robustness) + own_metric_tables(results.own_metrics)


def _settings(study: Study) -> dict[str, dict[str, Any]]:
    """Return each rung's network, recipe and data, for the page."""
    settings = {}
    for rung in study.rungs:
        config = study.configs[rung.id, study.seeds[0]]
        parts: dict[str, Mapping[str, Any]] = {
            "network": config.net.describe(),
            "recipe": {"name": config.recipe.name} | config.recipe.training(),
            "data": dataclasses.asdict(config.data),
        }
        settings[rung.id] = {
            f"{part}: {name}": value for part, fields in parts.items() for name, value in fields.items()
        }
    return settings


def _commands(table: pd.DataFrame, words: Sequence[str], margin: float | None) -> list[tuple[str, str]]:
    """Return the commands that make the report again, and that look closer at the step that changed most."""
    study, judged = shlex.join(words), _margin_words(margin)
    commands = [
        ("What would run, and what is done already", f"{PROGRAM} plan {study}"),
        ("Train what is missing, then report", f"{PROGRAM} run {study}{judged}"),
        ("This report again, from the run folders", f"{PROGRAM} report {study}{judged}"),
    ]
    changes = table.set_index("rung")["top1_delta"].abs().dropna()
    if len(changes):
        compare = f"{PROGRAM} compare {study}{judged} --step {shlex.quote(str(changes.idxmax()))}"
        commands.append(("One step closely: the one that changed most", compare))
    return commands


def _margin_words(margin: float | None) -> str:
    return "" if margin is None else f" --margin {margin:g}"


def _as_published(reference: Reference | None) -> Reference | None:
    """Say of a reference beside results of our own that its number is the paper's."""
    return reference and reference.model_copy(update={"label": f"{reference.label} (published)"})


def _cost(base: Base) -> float:
    return base.reference.gmacs if base.reference else 0.0


def _footnotes(runs: pd.DataFrame) -> str:
    """Name the runs that did not finish, with the reason."""
    odd = runs[~runs["state"].isin(["finished", "missing"])]
    lines = [f"- {row.rung}, seed {row.seed}: {row.state}: {escaped(str(row.error))}" for row in odd.itertuples()]
    return "\nRuns that did not finish:\n\n" + "\n".join(lines) + "\n" if lines else ""
