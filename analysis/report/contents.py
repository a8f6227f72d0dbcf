"""The files of a report: what they say, whatever it was read from, and how they are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

import pandas as pd

from analysis.figures import catalogue
from analysis.figures.catalogue import Drawing
from analysis.figures.style import WIDTH
from analysis.ladder_table import LADDER_COLUMNS
from analysis.metrics import TOP1, metric_of
from analysis.report.csv_text import csv_text
from analysis.report.page import Page, Picture, write_page
from analysis.report.tables import (
    COMPACT,
    cells_markdown,
    check_columns,
    escaped,
    ladder_cells,
    ladder_latex,
    markdown,
    verdict_cells,
    verdict_latex,
    verdict_markdown,
)
from analysis.sentences import metric_headline
from roadmap.common.files import write_atomically

PROGRAM = "python run_ladder.py"
PAGE = "report.html"
# What a report has only where there is something to say; those of an earlier report are taken away.
FIGURES = [
    f"{name}.{form}"
    for name in ("verdicts", "tasks", "rounds", "design_effects", "tradeoff", "robustness", "curves")
    for form in catalogue.VECTORS
]
FRAMES = (
    "results.csv", "rounds.csv", "agreement.csv", "shapley.csv", "design_effects.csv", "robustness.csv",
    "own_metrics.csv",
)  # fmt: skip
FORMER = ("worths.csv", "worths.svg", "worths.pdf")  # what earlier versions wrote
OPTIONAL = ("record.json", *FRAMES, *FIGURES, *FORMER)
OF_OWN_METRICS = [f"{name}-*.{form}" for name in ("verdicts", "design_effects") for form in catalogue.VECTORS]


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """How a report is to look.

    Attributes:
        title: The headline of its figures and page; None makes one.
        width: Of its figures in inches.
        labels: What rungs are called: id -> label; one that is not there keeps its own.
        columns: Of the LaTeX tables, as `tables.chosen` takes them.
    """

    title: str | None = None
    width: float = WIDTH
    labels: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[str] = COMPACT

    def labelled(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a ladder's table with these labels."""
        labels = [self.labels.get(rung, label) for rung, label in zip(table["rung"], table["label"], strict=True)]
        return table.assign(label=labels)


DEFAULT = Presentation()


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a report says.

    Attributes:
        page: What its page shows; its figures are added when they are drawn.
        drawings: Its figures, the roadmap first.
        columns: Of its LaTeX tables.
        frames: Further tables: file -> frame; one that is empty is not written.
        texts: Further files: name -> text.
        footnotes: What stands below the ladder in Markdown, as it is.
        kept: The folder of an earlier report whose other files stay; None for none.
        kept_drawings: Its figures that stay.
    """

    page: Page
    drawings: Sequence[Drawing]
    columns: Sequence[str]
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    footnotes: str = ""
    kept: Path | None = None
    kept_drawings: Sequence[Drawing] = ()


def write_contents(contents: Contents, out: Path) -> list[Path]:
    """Write tables (CSV, Markdown, LaTeX), figures and the page; files of an earlier report there are replaced.

    Raises:
        UserError: If the folder cannot be written, or a column of the LaTeX tables is not known.
    """
    page = contents.page
    check_columns(contents.columns, ladder_cells(page.ladder, metric=page.metric), verdict_cells(page.verdicts[0]))
    figures, pictures = catalogue.save_drawings(contents.drawings, out)
    files = [
        *_write_tables(contents, out),
        *(write_text(out / name, csv_text(frame)) for name, frame in contents.frames.items() if len(frame)),
        *(write_text(out / name, text) for name, text in contents.texts.items()),
        *figures,
    ]
    files += _keep(contents.kept, out, {file.name for file in files})
    pictures += [
        Picture(kept.title, kept.caption, path)
        for kept in contents.kept_drawings
        if (path := out / f"{kept.name}.svg").is_file()
    ]
    files.append(write_page(out / PAGE, replace(contents.page, pictures=pictures)))
    for name in _optional(out):  # so that no two reports are mixed
        if out / name not in files:
            (out / name).unlink(missing_ok=True)
    return files


def _keep(kept: Path | None, out: Path, written: set[str]) -> list[Path]:
    """Return a report's optional files that were not written anew, taken over from the folder of the earlier one."""
    if kept is None:
        return []
    names = [name for name in _optional(kept) if name not in written and name not in FORMER and (kept / name).is_file()]
    for name in names:
        if kept.resolve() != out.resolve():
            content = (kept / name).read_bytes()
            write_atomically(out / name, partial(_put, content))
    return [out / name for name in names]


def _optional(folder: Path) -> list[str]:
    """Return the names of the files that a report may have left in a folder, or lack."""
    return [*OPTIONAL, *sorted(path.name for pattern in OF_OWN_METRICS for path in folder.glob(pattern))]


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _write_tables(contents: Contents, out: Path) -> list[Path]:
    """Write the ladder and the verdicts; the first ones, those of the main metric, in LaTeX too."""
    page, columns = contents.page, contents.columns
    table, verdicts = page.ladder, page.verdicts
    labels = dict(zip(table["rung"], table["label"], strict=True))
    text = [f"# {escaped(page.title)}", page.headline, page.note, markdown(table, page.metric), *page.sentences]
    text += [f"{title}:\n\n{cells_markdown(cells)}" for title, cells in page.tables]
    told = [f"# Verdicts\n\n{page.headline}\n\n{page.note}"]
    for judged in (judged for judged in verdicts if len(judged)):
        counted = metric_headline(judged)
        title = f"## {escaped(metric_of(judged['metric'].iloc[0]).label)}"
        told.append("\n\n".join(filter(None, (title, f"{counted}." if counted else "", verdict_markdown(judged)))))
    return [
        write_text(out / "ladder.csv", csv_text(table.rename(columns=_named_after(page.metric)))),
        write_text(out / "ladder.md", "\n\n".join(filter(None, text)) + f"\n{contents.footnotes}"),
        write_text(out / "ladder.tex", ladder_latex(table, page.note, columns, page.metric)),
        write_text(out / "verdicts.csv", csv_text(pd.concat(verdicts))),
        write_text(out / "verdicts.md", "\n\n".join(told) + "\n"),
        write_text(out / "verdicts.tex", verdict_latex(verdicts[0], labels, page.note, columns)),
    ]


def _named_after(metric: str) -> dict[str, str]:
    """Return new names for a ladder's columns of top-1 where it is about another metric."""
    return {name: metric + name.removeprefix(TOP1) for name in LADDER_COLUMNS if name.startswith(TOP1)}


def write_text(path: Path, text: str) -> Path:
    """Write a text and return where.

    Raises:
        UserError: If it cannot be written.
    """
    write_atomically(path, lambda file: file.write(text.encode()))
    return path
