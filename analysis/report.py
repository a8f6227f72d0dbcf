"""Write a study's report from its run folders alone: tables and the roadmap figure."""

import json
from pathlib import Path

import pandas as pd

from analysis.agreement import agreement
from analysis.collect import collect, has_results
from analysis.compare import ladder_table, published_table
from analysis.figure import Chart, draw_roadmap, save_figure
from analysis.record import RECORD, Record, describe_record
from analysis.tables import markdown
from roadmap.ladder import Base, Ladder, Reference
from roadmap.plan import Study
from roadmap.results import write_atomically


def write_report(
    study: Study, out: Path, *, runs: pd.DataFrame | None = None, behind: Study | None = None
) -> list[Path]:
    """Write results.csv, ladder.csv, ladder.md, record.json and the roadmap figure (PNG, SVG, PDF).

    Args:
        study: The study to report.
        out: The folder to write to; files of an earlier report there are replaced.
        runs: What `collect` found, where it was called already.
        behind: The same study from another base, drawn in grey behind where it has results.

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
    verdict = agreement(table, study.ladder, study.base) if study.design == "ladder" else ""
    parts = [f"# Modernizing {info.label}", note, *study.layout.notes, markdown(table), verdict]
    text = "\n\n".join(filter(None, parts)) + f"\n{_footnotes(runs)}"
    files = [
        _write(out / "results.csv", runs.to_csv(index=False)),
        _write(out / "ladder.csv", table.to_csv(index=False)),
        _write(out / "ladder.md", text),
        _write(out / RECORD, json.dumps(about, indent=1) + "\n"),
    ]
    return files + save_figure(draw_roadmap(table, chart, shadow), out / "roadmap")


def redraw(record: Record, out: Path) -> list[Path]:
    """Write a record's figure again, from its table alone.

    Raises:
        UserError: If the folder cannot be written.
    """
    return save_figure(draw_roadmap(record.table, record.chart), out / "roadmap")


def write_published(ladder: Ladder, base: str, out: Path) -> list[Path]:
    """Write the paper's own numbers in the same form: ladder.csv, ladder.md and the figure.

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
    text = f"# Modernizing {info.label}, as published\n\n{note}\n\n{markdown(table)}\n"
    files = [_write(out / "ladder.csv", table.to_csv(index=False)), _write(out / "ladder.md", text)]
    return files + save_figure(draw_roadmap(table, chart, shadow), out / "roadmap")


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
