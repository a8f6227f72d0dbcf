"""The files of a comparison of studies: tables, the figure, what is said in words."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.comparison.differences import StudyComparison
from analysis.figures.differences import MOST, draw_differences
from analysis.figures.roadmap import save_figure
from analysis.figures.style import Words
from analysis.metrics import metric_of
from analysis.report.contents import DEFAULT, Presentation, write_text
from analysis.report.csv_text import csv_text
from analysis.report.tables import Cells, cells_markdown, escaped, latex, p_value, with_interval
from analysis.sentences import MARKS, WORTH_MARKS
from analysis.stats.answers import Answer
from analysis.stats.differences import Worth
from roadmap.common.errors import UserError

STEM = "comparison"


def write_comparison(comparison: StudyComparison, out: Path, look: Presentation = DEFAULT) -> list[Path]:
    """Write the differences of studies as CSV, Markdown, LaTeX and a figure (PNG, SVG, PDF).

    Args:
        comparison: The studies.
        out: The folder to write to.
        look: Title, width and labels.

    Returns:
        The files written.

    Raises:
        UserError: If the folder cannot be written, or there are more studies than the figure has room for.
    """
    if len(comparison.others) > MOST:
        raise UserError(f"--with: {len(comparison.others)} studies, but there is room for {MOST}. Take a part.")
    title = look.title or title_of(comparison)
    ladder = look.labelled(comparison.labels)
    labels = dict(zip(ladder["rung"], ladder["label"], strict=True))
    note = " ".join(side.note for side in (comparison.here, *comparison.others))
    return [
        write_text(out / f"{STEM}.csv", csv_text(comparison.table)),
        write_text(out / f"{STEM}.md", comparison_markdown(comparison, title)),
        write_text(out / f"{STEM}.tex", latex(difference_cells(comparison.main, labels), [note], is_narrow=True)),
        *save_figure(figure_of(comparison, look), out / STEM),
    ]


def figure_of(comparison: StudyComparison, look: Presentation = DEFAULT) -> Any:
    """Return the figure of a comparison in its main metric (`figures.differences.draw_differences`)."""
    main = comparison.main
    about = metric_of(str(main["metric"].iloc[0]))
    axis = f"Change of {about.label.partition(' (')[0]}" + (f" ({about.unit})" if about.unit else "")
    words = Words(title=look.title or title_of(comparison), axis=axis, note=_proxy_note(comparison), width=look.width)
    return draw_differences(main, look.labelled(comparison.labels), words, comparison.here.name)


def title_of(comparison: StudyComparison) -> str:
    """Return what a comparison is called."""
    *first, last = [other.name for other in comparison.others]
    others = f"{', '.join(first)} and {last}" if first else last
    return f"What each step is worth: {comparison.here.name} against {others}"


def _proxy_note(comparison: StudyComparison) -> str:
    return ". ".join(f"{side.name}: {side.note}" for side in (comparison.here, *comparison.others) if side.is_proxy)


def comparison_markdown(comparison: StudyComparison, title: str) -> str:
    """Return what a comparison says: the sentence, a table a metric, all else in words."""
    parts = [f"# {escaped(title)}", comparison.headline]
    for metric, rows in comparison.table.groupby("metric", sort=False):
        parts += [f"## {escaped(metric_of(str(metric)).label)}", cells_markdown(difference_cells(rows))]
    return "\n\n".join([*parts, *map(escaped, comparison.sentences)]) + "\n"


def difference_cells(rows: pd.DataFrame, labels: dict[str, str] | None = None) -> list[Cells]:
    """Return the cells of differences in one metric: a row a step; with several studies, a column each.

    Args:
        rows: With the columns of `comparison.differences.DIFFERENCE_COLUMNS`.
        labels: What to call the steps; None, or a step that is not there, takes the id.
    """
    names = labels or {}
    form = metric_of(str(rows["metric"].iloc[0])).digits if len(rows) else ""
    studies = list(dict.fromkeys(rows["study"]))
    if len(studies) > 1:
        return _side_by_side(rows, names, form, studies)
    return [
        {
            "step": names.get(row["step"], row["step"]),
            "effect here": _effect(row, "effect", "answer_here", form),
            f"in {row['study']}": _effect(row, "effect_there", "answer_there", form),
            "difference (95% interval)": with_interval(row["difference"], row["ci_low"], row["ci_high"], form),
            "answer": _marked(row, row["verdict"]),
            "p": p_value(row["p_adjusted"]),
        }
        for row in rows.to_dict("records")
    ]


def _side_by_side(rows: pd.DataFrame, names: dict[str, str], form: str, studies: list[str]) -> list[Cells]:
    """Return a table of effects by study, each with the answer on its difference from the effect here."""
    cells: list[Cells] = []
    for step, own in rows.groupby("step", sort=False):
        first, by_study = own.iloc[0], {row["study"]: row for row in own.to_dict("records")}
        line = {"step": names.get(str(step), str(step)), "effect here": _effect(first, "effect", "answer_here", form)}
        for study in studies:
            row: Any = by_study.get(study)
            told = "" if row is None else _effect(row, "effect_there", "answer_there", form)
            line[f"in {study}"] = told
            line[f"here or {study}"] = "" if row is None else _marked(row, str(row["worth"]))
        cells.append(line)
    return cells


def _effect(row: Any, name: str, answer: str, form: str) -> str:
    """Return an effect with its interval and the mark of its own answer."""
    told = with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], form)
    return f"{told} {MARKS[Answer(row[answer])]}" if told and row[answer] else told


def _marked(row: Any, text: str) -> str:
    return f"{WORTH_MARKS[Worth(row['worth'])]} {text}" if row["verdict"] else ""
