"""The tables of a study's page: frames in, grids of cells out, each cell with what it is sorted by."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from analysis.metrics import metric_of
from analysis.report.tables import FACTORS, Cells, columns_of, ladder_cells, verdict_cells
from analysis.sentences import metric_headline
from analysis.stats.answers import Answer

LOOKS = {Answer.HELPS: "better", Answer.HURTS: "worse"}  # an answer's class in the page
# The columns of the first table, by their headings without what stands there in brackets.
ANSWER_COLUMNS = ("rung", "change", "answer", "against", "paper's change", "paper's answer")

# Which number a column of a table is sorted by, where the text in it is more than a number.
LADDER_KEYS = {
    "multiply-adds": "macs",
    "parameters": "params",
    "change (95% interval)": "top1_delta",
}
ANSWERED = {"answer": "answer", "paper's answer": "paper_answer"}
LADDER_WORDS = ("answer", "against", "paper's answer")
VERDICT_KEYS = {
    "change (95% interval)": "delta",
    "p": "p_adjusted",
    "seed noise": "seed_se",
    "test-set noise": "test_se",
    "seeds needed": "seeds_needed",
    "round noise": "seed_se",
    "rounds needed": "seeds_needed",
} | FACTORS


class Cell(NamedTuple):
    """A cell of a table: its text, what it is sorted by (the text if None), its class."""

    text: str
    key: float | None = None
    look: str = ""


class Grid(NamedTuple):
    """A table: its name, headings with their class, rows."""

    name: str
    heads: list[tuple[str, str]]
    rows: list[list[Cell]]


def ladder_grid(ladder: pd.DataFrame, labels: Mapping[str, str], metric: str) -> Grid:
    """Return the whole ladder, a row a rung, sorted by the numbers behind the texts."""
    rows = ladder_cells(ladder, metric=metric)
    keys = {metric_of(metric).label: "top1"} | LADDER_KEYS
    columns = columns_of(rows)
    heads = [(name, "word" if name == "rung" or name in LADDER_WORDS else "number") for name in columns]
    body = []
    for order, (row, source) in enumerate(zip(rows, ladder.to_dict("records"), strict=True)):
        cells = [_name(row["rung"], labels.get(source["rung"], ""), order)]
        for column in columns[1:]:
            known = column in keys and not pd.isna(source[keys[column]])
            key = float(source[keys[column]]) if known else None
            look = f"word {LOOKS.get(source[ANSWERED[column]], '')}".strip() if column in ANSWERED else "number"
            cells.append(Cell(row[column], key, "word" if column == "against" else look))
        body.append(cells)
    return Grid("The ladder", heads, body)


def answer_grid(ladder: pd.DataFrame, labels: Mapping[str, str], metric: str) -> Grid | None:
    """Return what a reader looks for first: each step's change, the answer, and the paper's; None without a step."""
    grid = ladder_grid(ladder, labels, metric)
    kept = [i for i, (head, _) in enumerate(grid.heads) if head.partition(" (")[0] in ANSWER_COLUMNS]
    judged = [
        row for row, answer in zip(grid.rows, ladder["answer"], strict=True) if isinstance(answer, str) and answer
    ]
    if not judged:
        return None
    return Grid("Answers", [grid.heads[i] for i in kept], [[row[i] for i in kept] for row in judged])


def plain_grid(title: str, rows: Sequence[Cells]) -> Grid:
    """Return a table sorted by its texts, as numbers where they are such."""
    columns = columns_of(rows)
    heads = [(columns[0], "word"), *((name, "number") for name in columns[1:])]
    body = [
        [_name(row[columns[0]], "", order), *(Cell(row[name], None, "number") for name in columns[1:])]
        for order, row in enumerate(rows)
    ]
    return Grid(title, heads, body)


def verdict_grid(verdicts: pd.DataFrame, labels: Mapping[str, str]) -> Grid:
    """Return the verdicts of one metric, named by the sentence that counts them."""
    rows = verdict_cells(verdicts)
    columns = columns_of(rows)
    heads = [(name, "word" if name in ("step", "answer") else "number") for name in columns]
    body: list[list[Cell]] = []
    above = ""
    for order, (row, source) in enumerate(zip(rows, verdicts.to_dict("records"), strict=True)):
        cells = []
        for column in columns:
            if column == "step":
                label = labels.get(row[column], "")
                against = "" if source["against"] == above else f"against {source['against']}"
                cells.append(_name(row[column], ", ".join(filter(None, (label, against))), order))
                above = row[column]
            elif column == "answer":
                cells.append(Cell(row[column], None, f"word {LOOKS.get(source['answer'], '')}".strip()))
            else:
                value = source[VERDICT_KEYS[column]]
                cells.append(Cell(row[column], None if pd.isna(value) else float(value), "number"))
        body.append(cells)
    metric = metric_of(verdicts["metric"].iloc[0])
    return Grid(metric_headline(verdicts) or metric.label, heads, body)


def _name(text: str, more: str, order: int) -> Cell:
    """Return the first cell of a row; sorted by it, the rows stand in the ladder's order."""
    return Cell(f"{text}\n{more}", order, "name")
