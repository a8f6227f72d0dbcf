"""Write a study's report from its run folders alone: tables, figures and a page that holds all of it."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.agreement import agreement
from analysis.collect import collect, collect_rights, has_results
from analysis.compare import ladder_table, published_table
from analysis.figure import Chart, draw_roadmap, save_figure
from analysis.record import RECORD, Record, describe_record
from analysis.tables import ladder_latex, markdown, verdict_latex, verdict_markdown
from analysis.trails import collect_trails
from analysis.verdicts import METRICS, pairs_of, published_verdicts, verdict_table
from analysis.webpage import Page, Picture, write_page
from roadmap.config import flatten
from roadmap.ladder import Base, Ladder, Reference
from roadmap.plan import Study
from roadmap.results import write_atomically
from roadmap.watch import clock

PAGE, PROGRAM = "report.html", "python run_ladder.py"

# What the figures show, by the names of their files: title, caption.
CAPTIONS = {
    "roadmap": (
        "The roadmap",
        "Top-1 accuracy of every rung from top to bottom, with its standard deviation over seeds and the network's "
        "multiply-adds; the numbers are those of the ladder's table.",
    ),
}


def write_report(
    study: Study,
    out: Path,
    *,
    runs: pd.DataFrame | None = None,
    behind: Study | None = None,
    words: Sequence[str] | None = None,
) -> list[Path]:
    """Write tables (CSV, Markdown, LaTeX), record.json, the roadmap figure (PNG, SVG, PDF) and report.html.

    Args:
        study: The study to report.
        out: The folder to write to; files of an earlier report there are replaced.
        runs: What `collect` found, where it was called already.
        behind: The same study from another base, drawn in grey behind where it has results.
        words: The command line's words that name this study, for the commands in the page; None makes them up from
            the base, the recipe and the seeds.

    Returns:
        The files written.

    Raises:
        UserError: If the folder cannot be written or a result is of another version.
    """
    runs = collect(study) if runs is None else runs
    table = ladder_table(runs, study.rungs)
    shadow, shadow_label = None, ""
    if behind is not None:
        behind_runs = collect(behind)
        if has_results(behind_runs):
            shadow = ladder_table(behind_runs, behind.rungs)
            shadow_label = f"{behind.ladder.bases[behind.base].label} ladder"
    info = study.ladder.bases[study.base]
    note = study.describe()
    proxy = study.recipe.is_proxy
    chart = Chart(
        start=info.label,
        result=info.result if study.is_whole else "",
        title=f"Modernizing {info.label}",
        note=note,
        axis="Top-1 accuracy on the test set (%)" if proxy else "ImageNet-1K top-1 accuracy (%)",
        reference=None if proxy else _as_published(info.reference),
        behind_label=shadow_label,
    )
    about = describe_record(study, runs, chart)
    agrees = agreement(table, study.ladder, study.base)
    rights = collect_rights(study)
    verdicts = [verdict_table(runs, pairs_of(study.rungs), metric, rights=rights) for metric in METRICS]
    text = f"# {chart.title}\n\n{note}\n\n{markdown(table)}\n\n{agrees}\n{_footnotes(runs)}"
    files = [
        _write(out / "results.csv", runs.to_csv(index=False)),
        *_write_tables(out, text, table, verdicts, chart.title, note),
        _write(out / RECORD, json.dumps(about, indent=1) + "\n"),
        *save_figure(draw_roadmap(table, chart, shadow), out / "roadmap"),
    ]
    if words is None:
        words = ["--base", study.base, "--recipe", study.recipe.name, "--seeds", *map(str, study.seeds)]
    page = Page(
        title=chart.title,
        note=note,
        is_proxy=proxy,
        pictures=_pictures(files),
        verdicts=verdicts,
        ladder=table,
        agreement=[agrees],
        runs=runs,
        trails=collect_trails(study),
        settings=_settings(study),
        commands=_commands(table, words),
        provenance=_provenance(about),
    )
    return [*files, write_page(out / PAGE, page)]


def redraw(record: Record, out: Path) -> list[Path]:
    """Write a record's figure again, from its table alone.

    Raises:
        UserError: If the folder cannot be written.
    """
    return save_figure(draw_roadmap(record.table, record.chart), out / "roadmap")


def write_published(ladder: Ladder, base: str, out: Path) -> list[Path]:
    """Write the paper's own numbers in the same form: tables, the figure and the page.

    Raises:
        UserError: If the folder cannot be written.
    """
    info = ladder.bases[base]
    table = published_table(ladder, base)
    larger = [name for name, other in ladder.bases.items() if _cost(other) > _cost(info)]
    shadow = published_table(ladder, larger[0]) if larger else None
    note = f"Published numbers: Liu et al. 2022, {info.source}"
    chart = Chart(
        start=info.label,
        result=info.result,
        title=f"Modernizing {info.label}, as published",
        note="",
        axis="ImageNet-1K top-1 accuracy (%)",
        reference=info.reference,
        behind_label=f"{ladder.bases[larger[0]].label} ladder" if larger else "",
        behind_reference=ladder.bases[larger[0]].reference if larger else None,
    )
    text = f"# {chart.title}\n\n{note}\n\n{markdown(table)}\n"
    verdicts = [published_verdicts(ladder, base)]
    files = [
        *_write_tables(out, text, table, verdicts, chart.title, note),
        *save_figure(draw_roadmap(table, chart, shadow), out / "roadmap"),
    ]
    page = Page(
        title=chart.title,
        note=note,
        is_proxy=False,
        pictures=_pictures(files),
        verdicts=verdicts,
        ladder=table,
        commands=[("These tables and figures", f"{PROGRAM} report --published --base {shlex.quote(base)}")],
    )
    return [*files, write_page(out / PAGE, page)]


def _write_tables(
    out: Path, text: str, table: pd.DataFrame, verdicts: Sequence[pd.DataFrame], title: str, note: str
) -> list[Path]:
    """Write the ladder's table and the verdicts; the first ones, those of top-1, in LaTeX too."""
    labels = dict(zip(table["rung"], table["label"], strict=True))
    told = "\n\n".join(
        f"## {METRICS[metrics.iloc[0]].label}\n\n{verdict_markdown(judged)}"
        for judged in verdicts
        if len(metrics := judged["metric"])
    )
    return [
        _write(out / "ladder.csv", table.to_csv(index=False)),
        _write(out / "ladder.md", text),
        _write(out / "ladder.tex", ladder_latex(table, note)),
        _write(out / "verdicts.csv", pd.concat(verdicts).to_csv(index=False)),
        _write(out / "verdicts.md", f"# {title}: verdicts\n\n{note}\n\n{told}\n"),
        _write(out / "verdicts.tex", verdict_latex(verdicts[0], labels, note)),
    ]


def _pictures(files: Sequence[Path]) -> list[Picture]:
    """Return the figures among a report's files, for its page."""
    pictures = []
    for path in files:
        if path.suffix == ".svg":
            title, caption = CAPTIONS.get(path.stem, (path.stem.replace("_", " ").capitalize(), ""))
            pictures.append(Picture(title, caption or f"{title}.", path))
    return pictures


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


def _commands(table: pd.DataFrame, words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the commands that make the report again, and that look closer at the step that changed most."""
    study = shlex.join(words)
    commands = [
        ("What would run, and what is done already", f"{PROGRAM} plan {study}"),
        ("Train what is missing, then report", f"{PROGRAM} run {study}"),
        ("This report again, from the run folders", f"{PROGRAM} report {study}"),
    ]
    changes = table.set_index("rung")["top1_delta"].abs().dropna()
    if len(changes):
        compare = f"{PROGRAM} compare {study} --step {shlex.quote(str(changes.idxmax()))}"
        commands.append(("One step closely: the one that changed most", compare))
    return commands


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
    lines = [f"- {row.rung}, seed {row.seed}: {row.state}: {row.error}" for row in odd.itertuples()]
    return "\nRuns that did not finish:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _write(path: Path, text: str) -> Path:
    write_atomically(path, lambda file: file.write(text.encode()))
    return path
