"""Write a study's report from its run folders alone: tables, figures and a page that holds all of it."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.design_effects import has_own_runs
from analysis.figures import catalogue
from analysis.figures.roadmap import Chart, draw_roadmap, save_figure
from analysis.ladder_table import ladder_table, published_table
from analysis.report.page import Page, write_page
from analysis.report.record import RECORD, Record, describe_record
from analysis.report.tables import (
    Cells,
    cells_markdown,
    correlation_cells,
    ladder_latex,
    markdown,
    value_cells,
    verdict_latex,
    verdict_markdown,
)
from analysis.robustness import check_cells, robustness_cells
from analysis.run_frames import collect, has_results
from analysis.study_results import Findings, find
from analysis.verdicts import metric_of, published_verdicts, with_costs
from roadmap.common.errors import UserError
from roadmap.common.fields import flatten
from roadmap.common.files import write_atomically
from roadmap.common.formats import clock
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.schema import Base, Reference
from roadmap.study.plan import Study

PAGE, PROGRAM = "report.html", "python run_ladder.py"
IMAGENET_TOP1, IMAGENET_CLASSES = "ImageNet-1K top-1 accuracy", 1000
# What a report has only where there is something to say; those of an earlier report are taken away.
FIGURES = [
    f"{name}.{form}"
    for name in ("verdicts", "worths", "tradeoff", "robustness", "curves")
    for form in catalogue.VECTORS
]
OPTIONAL = (RECORD, "results.csv", "agreement.csv", "shapley.csv", "worths.csv", "robustness.csv", *FIGURES)


def write_report(
    study: Study,
    out: Path,
    *,
    runs: pd.DataFrame | None = None,
    behind: Study | None = None,
    beside: Mapping[str, Study] | None = None,
    margin: float | None = None,
    words: Sequence[str] | None = None,
) -> list[Path]:
    """Write tables (CSV, Markdown, LaTeX), record.json, figures (SVG, PDF; the roadmap as PNG too) and report.html.

    Args:
        study: The study to report.
        out: The folder to write to; files of an earlier report there are replaced.
        runs: What `collect` found, where it was called already.
        behind: The same study from another base, drawn in grey behind where it has results.
        beside: As for `findings.find`.
        margin: As for `findings.find`.
        words: The command line's words that name this study, for the commands in the page; None makes them up from
            the base, the recipe and the seeds.

    Returns:
        The files written.

    Raises:
        UserError: If the folder cannot be written or a result is of another version.
    """
    found = find(study, runs=runs, beside=beside, margin=margin)
    shadow, shadow_label = _shadow_of(behind)
    note, top1 = study.describe(), _name_of_top1(study)
    chart = _chart_of(study, top1, shadow_label)
    about = describe_record(study, found.runs, chart, [trail.planned for trail in found.trails.values()])
    tables = _tables(found)
    text = [f"# {chart.title}", note, markdown(found.table), *found.sentences]
    text += [f"{title}:\n\n{cells_markdown(cells)}" for title, cells in tables]
    steps = [(rung.id, rung.label, rung.adopted) for rung in study.ladder.climb(study.base)]
    labels = pd.DataFrame(steps, columns=["rung", "label", "adopted"])
    said = catalogue.About(chart.title, note, top1)
    beyond = catalogue.drawings_of(found, said, labels, climbs=study.design == "ladder")
    figures, shown = catalogue.save_drawings([catalogue.roadmap(found.table, chart, shadow), *beyond], out)
    verdicts = _by_metric(found)
    files = [
        _write(out / "results.csv", found.runs.to_csv(index=False)),
        *_write_tables(out, "\n\n".join(text) + f"\n{_footnotes(found.runs)}", found.table, verdicts, note),
        *_write_frames(out, found),
        _write(out / RECORD, json.dumps(about, indent=1) + "\n"),
        *figures,
    ]
    if words is None:
        words = ["--base", study.base, "--recipe", study.recipe.name, "--seeds", *map(str, study.seeds)]
    page = Page(
        title=chart.title,
        note=note,
        is_proxy=study.recipe.is_proxy,
        pictures=shown,
        verdicts=verdicts,
        ladder=found.table,
        sentences=found.sentences,
        tables=tables,
        runs=found.runs,
        trails=found.trails,
        settings=_settings(study),
        paper_recipe=study.recipe.paper,
        deviations=study.deviations(study.recipe),
        commands=_commands(found.table, words, margin),
        provenance=_provenance(about),
    )
    files.append(write_page(out / PAGE, page))
    _remove_others(out, files)
    return files


def _shadow_of(behind: Study | None) -> tuple[pd.DataFrame | None, str]:
    """Return the ladder that is drawn in grey behind, and what it is called; nothing where it has no results."""
    if behind is None or not has_own_runs(behind, ()) or not has_results(runs := collect(behind)):
        return None, ""
    return ladder_table(runs, behind.rungs), f"{behind.ladder.bases[behind.base].label} ladder"


def _name_of_top1(study: Study) -> str:
    """Return what a study's accuracy is called: the paper's name only where it is the same measurement."""
    data = next(iter(study.configs.values())).data
    if not study.recipe.is_proxy and data.test_on == "test" and data.num_classes == IMAGENET_CLASSES:
        return IMAGENET_TOP1
    return f"top-1 accuracy on the {data.test_on} images"


def _chart_of(study: Study, top1: str, behind_label: str) -> Chart:
    """Return the words around a study's roadmap."""
    info = study.ladder.bases[study.base]
    climbs = study.design == "ladder"
    return Chart(
        start=info.label,
        result=info.result if study.is_whole else "",
        title=f"Modernizing {info.label}" if climbs else f"{info.label}, {study.layout.design.describe()}",
        note=study.describe(),
        axis=f"{top1[0].upper()}{top1[1:]} (%)",
        reference=_as_published(info.reference) if top1 == IMAGENET_TOP1 else None,
        behind_label=behind_label,
    )


def redraw(record: Record, out: Path) -> list[Path]:
    """Write a record's figure again, from its table alone.

    Raises:
        UserError: If the folder cannot be written.
    """
    return save_figure(draw_roadmap(record.table, record.chart), out / "roadmap")


def write_published(ladder: Ladder, base: str, out: Path, *, margin: float | None = None) -> list[Path]:
    """Write the paper's own numbers in the same form: tables, figures and the page.

    Args:
        ladder: The ladder, with what is published.
        base: Where it starts.
        out: The folder to write to; files of an earlier report there are replaced.
        margin: Changes of top-1 within it are as good as none; None takes the metric's own.

    Raises:
        UserError: If the folder cannot be written.
    """
    info = ladder.bases[base]
    table = published_table(ladder, base)
    if table["top1"].isna().all():
        raise UserError(f"--published: nothing is published of the ladder from {base}. Report runs of your own.")
    larger = [name for name, other in ladder.bases.items() if _cost(other) > _cost(info)]
    shadow = published_table(ladder, larger[0]) if larger else None
    note = f"Published numbers: Liu et al. 2022, {info.source}"
    chart = Chart(
        start=info.label,
        result=info.result,
        title=f"Modernizing {info.label}, as published",
        note="",
        axis=f"{IMAGENET_TOP1} (%)",
        reference=info.reference,
        behind_label=f"{ladder.bases[larger[0]].label} ladder" if larger else "",
        behind_reference=ladder.bases[larger[0]].reference if larger else None,
    )
    text = f"# {chart.title}\n\n{note}\n\n{markdown(table)}\n"
    verdicts = published_verdicts(ladder, base, margin=margin)
    about = catalogue.About(chart.title, note, IMAGENET_TOP1)
    figures, shown = catalogue.save_drawings(
        [catalogue.roadmap(table, chart, shadow), catalogue.forest(verdicts, table, about)], out
    )
    files = [*_write_tables(out, text, table, [verdicts], note), *figures]
    command = f"report --published --base {shlex.quote(base)}" + _margin_words(margin)
    page = Page(
        title=chart.title,
        note=note,
        is_proxy=False,
        pictures=shown,
        verdicts=[verdicts],
        ladder=table,
        commands=[("These tables and figures", f"{PROGRAM} {command}")],
    )
    files.append(write_page(out / PAGE, page))
    _remove_others(out, files)
    return files


def _remove_others(out: Path, files: Sequence[Path]) -> None:
    """Remove what an earlier report left that this one has not, so that no two are mixed."""
    for name in OPTIONAL:
        if out / name not in files:
            (out / name).unlink(missing_ok=True)


def _by_metric(found: Findings) -> list[pd.DataFrame]:
    """Return verdicts metric by metric, top-1 first with what each step costs; those without a change are left out."""
    tables = [rows for metric, rows in found.verdicts.groupby("metric", sort=False) if metric != "top1"]
    return [with_costs(found.verdicts, found.measured), *(rows for rows in tables if rows["delta"].notna().any())]


def _tables(found: Findings) -> list[tuple[str, Sequence[Cells]]]:
    """Return the tables beside those of rungs and verdicts: (title, cells)."""
    tables: list[tuple[str, Sequence[Cells]]] = []
    if len(found.correlations):
        title = "Correlation of each metric's changes with the paper's changes of top-1, turned so that more is better"
        tables.append((title, correlation_cells(found.correlations)))
    if len(found.values):
        tables.append(("Shapley values of top-1, the mean change over the drawn orders", value_cells(found.values)))
    if len(found.robustness.frame):
        title = "Robustness: top-1 under attacks of several radii and under corruptions, percent, and mCE"
        tables.append((title, robustness_cells(found.robustness)))
        tables.append(("Check for gradient masking: top-1 of each run, percent", check_cells(found.robustness)))
    return tables


def _write_frames(out: Path, found: Findings) -> list[Path]:
    """Write the frames that a report has only where there is something to say."""
    worths = [frame.assign(design=name) for name, frame in found.worths.items()]
    frames = {
        "agreement.csv": found.correlations,
        "shapley.csv": found.values,
        "worths.csv": pd.concat(worths) if worths else pd.DataFrame(),
        "robustness.csv": found.robustness.frame,
    }
    return [_write(out / name, frame.to_csv(index=False)) for name, frame in frames.items() if len(frame)]


def _write_tables(out: Path, text: str, table: pd.DataFrame, verdicts: Sequence[pd.DataFrame], note: str) -> list[Path]:
    """Write the ladder's table and the verdicts; the first ones, those of top-1, in LaTeX too."""
    labels = dict(zip(table["rung"], table["label"], strict=True))
    told = "\n\n".join(
        f"## {metric_of(judged['metric'].iloc[0]).label}\n\n{verdict_markdown(judged)}"
        for judged in verdicts
        if len(judged)
    )
    return [
        _write(out / "ladder.csv", table.to_csv(index=False)),
        _write(out / "ladder.md", text),
        _write(out / "ladder.tex", ladder_latex(table, note)),
        _write(out / "verdicts.csv", pd.concat(verdicts).to_csv(index=False)),
        _write(out / "verdicts.md", f"# Verdicts\n\n{note}\n\n{told}\n"),
        _write(out / "verdicts.tex", verdict_latex(verdicts[0], labels, note)),
    ]


def _settings(study: Study) -> dict[str, dict[str, Any]]:
    """Return each rung's network, recipe and data, for the page."""
    settings = {}
    for rung in study.rungs:
        config = study.configs[rung.id, study.seeds[0]]
        parts: dict[str, Mapping[str, Any]] = {
            "network": flatten(config.net),
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


def _provenance(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of where its numbers come from, in words."""
    return {
        "commit": about["commit"],
        "planned": sorted({day for day in (about["planned_first"], about["planned_last"]) if day}),
        "command": [shlex.join(command) for command in about["command"] if isinstance(command, list)],
        "planned on": about["processor"],
        "Python": about["python"],
        "versions": about["versions"],
        "training time, all runs": clock(about["train_s_sum"]) if about["finished"] else None,
        "time, all runs": clock(about["wall_s_sum"]) if about["finished"] else None,
    }


def _as_published(reference: Reference | None) -> Reference | None:
    """Say of a reference beside results of our own that its number is the paper's."""
    return reference and reference.model_copy(update={"label": f"{reference.label} (published)"})


def _cost(base: Base) -> float:
    return base.reference.gmacs if base.reference else 0.0


def _footnotes(runs: pd.DataFrame) -> str:
    """Name the runs that did not finish, with the reason."""
    odd = runs[~runs["state"].isin(["finished", "missing"])]
    lines = [
        f"- {row.rung}, seed {row.seed}: {row.state}: {' '.join(str(row.error).split())}" for row in odd.itertuples()
    ]
    return "\nRuns that did not finish:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _write(path: Path, text: str) -> Path:
    write_atomically(path, lambda file: file.write(text.encode()))
    return path
