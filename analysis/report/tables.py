"""Tables for reading, with rounded numbers and their units: a ladder's and verdicts', as Markdown and as LaTeX."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.ladder_table import notes_of
from analysis.metrics import METRICS, TOP1, metric_of
from analysis.sentences import MARKS, marked
from analysis.stats.answers import Answer
from analysis.stats.power import MOST_SEEDS
from roadmap.common.errors import unknown
from roadmap.common.formats import MINUS, big, change, interval, number, printable
from roadmap.ladder.references import SECTION
from roadmap.runs.metrics import Metric

Cells = Mapping[str, str]  # heading -> what stands there

TIMES = "\N{MULTIPLICATION SIGN}"
WORDS = ("rung", "step", "metric", "answer", "against", "paper's answer", "model", "training")  # others are numbers
NOT_ADOPTED = " (not adopted)"
COMPACT = ("rung", "step", "change", "answer")  # for one column of a paper
# What a step costs as a multiple of before, where a table has it: heading -> column of `verdicts.FACTOR_COLUMNS`.
FACTORS = {"multiply-adds": "macs_factor", "training time": "time_factor", "memory": "memory_factor"}
# Characters that LaTeX takes for something else, or has no letter for in its usual fonts.
TEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "\N{LEFT DOUBLE QUOTATION MARK}": "\\textquotedblleft{}",
    '"': "\\textquotedblright{}",
    "[": "{[}",  # after a row's end it would be an option
    "*": "{*}",  # so would this
    "\N{NO-BREAK SPACE}": "~",
    MINUS: "$-$",
    "\N{EN DASH}": "\\textendash{}",
    "±": "$\\pm$",
    "\N{MULTIPLICATION SIGN}": "$\\times$",
    "▲": "$\\uparrow$",
    "▼": "$\\downarrow$",
    "→": "$\\rightarrow$",
    "←": "$\\leftarrow$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "µ": "$\\mu$",
    "`": "\\textasciigrave{}",
}


def markdown(table: pd.DataFrame, metric: str = TOP1) -> str:
    """Return a ladder's table as Markdown, rounded for reading; columns that have nothing to say are left out.

    Args:
        table: A row a rung with the columns of `ladder_table.LADDER_COLUMNS`.
        metric: What its `top1` is.
    """
    errata = _errata(table)
    return cells_markdown(ladder_cells(table, metric=metric)) + (f"\n\n{errata}" if errata else "")


def verdict_markdown(verdicts: pd.DataFrame, labels: Mapping[str, str] | None = None) -> str:
    """Return verdicts as a Markdown table, rounded for reading; columns that have nothing to say are left out.

    Args:
        verdicts: A row a change with the columns of `verdicts.VERDICT_COLUMNS`; of one metric, or of several.
        labels: What to call the rungs; None, or a rung that is not there, takes the id.
    """
    return cells_markdown(verdict_cells(verdicts, labels))


def ladder_latex(table: pd.DataFrame, note: str = "", columns: Sequence[str] | None = None, metric: str = TOP1) -> str:
    """Return a ladder's table, rungs by their labels, as a LaTeX tabular for a document to read in.

    Args:
        table: A row a rung with the columns of `ladder_table.LADDER_COLUMNS`.
        note: Stands below the rows; a proxy says there that it is one.
        columns: As `chosen` takes them.
        metric: What the table's `top1` is.
    """
    labels = dict(zip(table["rung"], table["label"], strict=True))
    cells, notes = ladder_cells(table, labels, metric), [note, _errata(table)]
    if columns == COMPACT:  # no marks, and a star for words
        names = [row["rung"].replace(NOT_ADOPTED, "*") for row in cells]
        cells = [
            row | {"rung": name, "answer": answer}
            for row, name, answer in zip(cells, names, table["answer"], strict=True)
        ]
        notes += ["* not adopted"] if any(name.endswith("*") for name in names) else []
    return latex(chosen(cells, columns), notes, is_narrow=columns == COMPACT)


def verdict_latex(
    verdicts: pd.DataFrame,
    labels: Mapping[str, str] | None = None,
    note: str = "",
    columns: Sequence[str] | None = None,
) -> str:
    """Return verdicts as a LaTeX tabular for a document to read in; arguments as for the other two."""
    rows = verdict_cells(verdicts, labels)
    if columns == COMPACT:
        rows = [row | {"answer": answer} for row, answer in zip(rows, verdicts["answer"], strict=True)]
    return latex(chosen(rows, columns), [note], is_narrow=columns == COMPACT)


def ladder_cells(
    table: pd.DataFrame, labels: Mapping[str, str] | None = None, metric: str = TOP1
) -> list[dict[str, str]]:
    """Return the cells of a ladder's table by their headings, a row a rung; what is missing is empty.

    Args:
        table: A row a rung with the columns of `ladder_table.LADDER_COLUMNS`.
        labels: What to call the rungs; None, or a rung that is not there, takes the id.
        metric: What the table's `top1` is.
    """
    notes = notes_of(table)
    rows = table.to_dict("records")
    above = [None, *(row["rung"] for row in rows)]
    of = metric_of(metric)
    return [_ladder_row(row, labels or {}, notes, before, of) for row, before in zip(rows, above, strict=False)]


def verdict_cells(verdicts: pd.DataFrame, labels: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Return the cells of verdicts by their headings, a row a change; what is missing is empty."""
    several = verdicts["metric"].nunique() > 1
    return [_verdict_row(row, labels or {}, several) for row in verdicts.to_dict("records")]


def value_cells(values: pd.DataFrame, metric: str = TOP1) -> list[dict[str, str]]:
    """Return the cells of Shapley values (`shapley.SHAPLEY_COLUMNS`) of a metric, a row a step."""
    about = metric_of(metric)
    heading = "Shapley value" + (f" ({about.unit})" if about.unit else "")
    return [
        {
            "step": row["step"],
            "orders": str(row["n_orders"]),
            heading: change(row["value"], about.digits),
            "standard error": number(row["se"], about.digits),
            "95% interval": interval(row["ci_low"], row["ci_high"], about.digits),
        }
        for row in values.to_dict("records")
    ]


def rounds_cells(rounds: pd.DataFrame) -> list[dict[str, str]]:
    """Return the cells of `StudyResults.rounds`: a row a step, a column a look."""
    cells: dict[str, dict[str, str]] = {}
    for row in rounds.to_dict("records"):
        told = with_interval(row["delta"], row["ci_low"], row["ci_high"], ".2f")
        mark = MARKS[Answer(row["answer"])] if told else ""
        mine = cells.setdefault(row["step"], {"step": row["step"]})
        mine[f"after {row['runs']} runs (round {row['look']})"] = f"{told} {mark}".strip()
    return list(cells.values())


def correlation_cells(correlations: pd.DataFrame) -> list[dict[str, str]]:
    """Return the cells of correlations with the paper's changes (`agreement.AGREEMENT_COLUMNS`), a row a metric."""
    rows = []
    for row in correlations.to_dict("records"):
        cells = {"metric": METRICS[row["metric"]].label, "steps": f"{row['steps']:.0f}"}
        for kind, heading in (("spearman", "Spearman (95% interval)"), ("kendall", "Kendall (95% interval)")):
            cells[heading] = with_interval(row[kind], row[f"{kind}_low"], row[f"{kind}_high"], ".2f")
        rows.append(cells)
    return rows


def columns_of(rows: Sequence[Cells]) -> list[str]:
    """Return the headings of the columns that have something to say in any row."""
    return [name for name in rows[0] if any(row[name] for row in rows)] if rows else []


def chosen(rows: Sequence[Cells], columns: Sequence[str] | None) -> Sequence[Cells]:
    """Return the columns of a table that a reader wants, in the order of the wish.

    Args:
        rows: The cells.
        columns: Headings without what stands there in brackets, such as "change"; None takes all. Those that only
            another table has are left out.
    """
    if columns is None or not rows:
        return rows
    known = {_heading(name): name for name in rows[0]}
    return [{known[name]: row[known[name]] for name in columns if name in known} for row in rows]


def check_columns(columns: Sequence[str], *tables: Sequence[Cells]) -> None:
    """Refuse a column that none of the tables has; nothing where one is empty, so that its columns are not known.

    Raises:
        UserError: With the nearest name.
    """
    known = list(dict.fromkeys(_heading(name) for rows in tables for name in (rows[0] if rows else ())))
    for name in columns:
        if name not in known and all(tables):
            raise unknown("column", name, known, place="--columns")


def _heading(name: str) -> str:
    return name.partition(" (")[0]


def _ladder_row(
    row: Mapping[Hashable, Any], labels: Mapping[str, str], notes: Sequence[str], above: str | None, metric: Metric
) -> dict[str, str]:
    std = "" if pd.isna(row["top1_std"]) else f" ± {row['top1_std']:{metric.digits}}"
    kind = "" if row["adopted"] else " (reference)" if row["section"] == SECTION else NOT_ADOPTED
    parent = None if pd.isna(row["parent"]) else row["parent"]
    return {
        "rung": labels.get(row["rung"], row["rung"]) + kind,
        "n": str(row["n"]),
        metric.label: row["state"] if pd.isna(row["top1"]) else f"{number(row['top1'], metric.digits)}{std}",
        "change (95% interval)": with_interval(row["top1_delta"], row["ci_low"], row["ci_high"], metric.digits),
        "answer": marked(row["answer"]),
        "against": "" if parent in (above, None) else labels.get(parent, parent),
        "paper (%)": number(row["paper_top1"], ".2f"),
        "paper's change": change(row["paper_top1_delta"], ".2f"),
        "paper's answer": marked(row["paper_answer"]),
        "multiply-adds": big(row["macs"]) + (f" [{notes.index(row['erratum']) + 1}]" if row["erratum"] else ""),
        "parameters": big(row["params"]),
    }


def _verdict_row(row: Mapping[Hashable, Any], labels: Mapping[str, str], several: bool) -> dict[str, str]:
    metric = metric_of(row["metric"])
    digits, samples = metric.digits, metric.samples
    mark = f"{MARKS[Answer(row['answer'])]} " if row["answer"] else ""
    return {
        "step": labels.get(row["step"], row["step"]),
        "metric": metric.label if several else "",
        "change (95% interval)": with_interval(row["delta"], row["ci_low"], row["ci_high"], digits),
        "answer": f"{mark}{row['verdict']}",
        "p": p_value(row["p_adjusted"]),
        **{heading: _factor(row.get(column)) for heading, column in FACTORS.items()},
        f"{samples.removesuffix('s')} noise": f"± {row['seed_se']:{digits}}" if np.isfinite(row["seed_se"]) else "",
        "test-set noise": f"± {row['test_se']:{digits}}" if np.isfinite(row["test_se"]) else "",
        f"{samples} needed": seeds_in_words(row["seeds_needed"]),
    }


def with_interval(value: float, low: float, high: float, form: str) -> str:
    """Return a change and its interval in brackets; nothing for what is missing."""
    ends = interval(low, high, form)
    return change(value, form) + (f" ({ends})" if ends else "")


def seeds_in_words(seeds: float) -> str:
    """Return how many seeds would be needed; nothing where it is not known."""
    return f">{MOST_SEEDS:,}" if np.isinf(seeds) else number(seeds, ",.0f")


def _errata(table: pd.DataFrame) -> str:
    """Return the notes that cells refer to; nothing where there are none."""
    return " ".join(f"[{number}] {note}." for number, note in enumerate(notes_of(table), 1))


def cells_markdown(rows: Sequence[Cells]) -> str:
    """Return cells as a Markdown table; columns that have nothing to say are left out."""
    columns = columns_of(rows)
    rule = ["---" if name in WORDS else "---:" for name in columns]
    body = [[escaped(row[name]) for name in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, rule, *body])


def escaped(text: str) -> str:
    """Return a text as Markdown shows it as it is, on one line: no HTML, no table's bar, no emphasis, no link."""
    line = re.sub(r"&(?=#?\w+;)", "&amp;", printable(" ".join(text.split())))
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
    return re.sub(r"([\\`*|~]|\](?=\()|(?<!\w)_|_(?!\w))", r"\\\1", line)


def latex(rows: Sequence[Cells], notes: Iterable[str], *, is_narrow: bool) -> str:
    """Return cells as a tabular; a narrow one is set small and close, to fit one column of two."""
    columns = columns_of(rows)
    if not columns:
        return "% There is nothing to show yet.\n"

    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(tex, cells)) + " \\\\"

    below = [
        f"\\multicolumn{{{len(columns)}}}{{p{{0.94\\linewidth}}}}{{\\footnotesize {tex(note)}}} \\\\"
        for note in notes
        if note
    ]
    kinds = "".join("l" if name in WORDS else "r" for name in columns)
    lines = [
        "% A tabular to be read in with \\input. It needs \\usepackage{booktabs}.",
        *(["\\begingroup\\footnotesize\\setlength{\\tabcolsep}{2pt}%"] if is_narrow else []),
        f"\\begin{{tabular}}{{{f'@{{}}{kinds}@{{}}' if is_narrow else kinds}}}",
        "\\toprule",
        line(columns),
        "\\midrule",
        *(line(row[name] for name in columns) for row in rows),
        "\\bottomrule",
        *below,
        "\\end{tabular}" + ("\\endgroup" if is_narrow else ""),
    ]
    return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    """Return a text as LaTeX prints it as it is, on one line."""
    line = re.sub(r"[^\S\N{NO-BREAK SPACE}]+", " ", text)
    line = re.sub(r'(?<![^\s(])"', "\N{LEFT DOUBLE QUOTATION MARK}", line)
    return "".join(TEX.get(character, character) for character in line).replace("--", "-{}-")


def _factor(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{TIMES}{value:.2f}"


def p_value(p: float) -> str:
    """Return a p-value with three decimals, or that it is smaller."""
    return "" if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
