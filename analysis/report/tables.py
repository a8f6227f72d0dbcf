"""Tables for reading, with rounded numbers and their units: a ladder's and verdicts', as Markdown and as LaTeX."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.ladder_table import notes_of
from analysis.stats.welch import MOST_SEEDS
from analysis.verdicts import METRICS, metric_of
from roadmap.common.formats import big
from roadmap.ladder.references import SECTION

Cells = Mapping[str, str]  # heading -> what stands there

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
WORDS = ("rung", "step", "metric", "verdict", "model", "training")  # columns of words; numbers stand to the right
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
    "±": "$\\pm$",
    "\N{MULTIPLICATION SIGN}": "$\\times$",
    "→": "$\\rightarrow$",
    "←": "$\\leftarrow$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "µ": "$\\mu$",
    "`": "\\textasciigrave{}",
}


def markdown(table: pd.DataFrame) -> str:
    """Return a ladder's table as Markdown, rounded for reading; columns that have nothing to say are left out."""
    errata = _errata(table)
    return cells_markdown(ladder_cells(table)) + (f"\n\n{errata}" if errata else "")


def verdict_markdown(verdicts: pd.DataFrame, labels: Mapping[str, str] | None = None) -> str:
    """Return verdicts as a Markdown table, rounded for reading; columns that have nothing to say are left out.

    Args:
        verdicts: A row a change with the columns of `verdicts.VERDICT_COLUMNS`; of one metric, or of several.
        labels: What to call the rungs; None, or a rung that is not there, takes the id.
    """
    return cells_markdown(verdict_cells(verdicts, labels))


def ladder_latex(table: pd.DataFrame, note: str = "") -> str:
    """Return a ladder's table, rungs by their labels, as a LaTeX tabular for a document to read in.

    Args:
        table: A row a rung with the columns of `compare.LADDER_COLUMNS`.
        note: Stands below the rows; a proxy says there that it is one.
    """
    labels = dict(zip(table["rung"], table["label"], strict=True))
    return _latex(ladder_cells(table, labels), [note, _errata(table)])


def verdict_latex(verdicts: pd.DataFrame, labels: Mapping[str, str] | None = None, note: str = "") -> str:
    """Return verdicts as a LaTeX tabular for a document to read in; arguments as for the other two."""
    return _latex(verdict_cells(verdicts, labels), [note])


def ladder_cells(table: pd.DataFrame, labels: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Return the cells of a ladder's table by their headings, a row a rung; what is missing is empty."""
    notes = notes_of(table)
    return [_ladder_row(row, labels or {}, notes) for row in table.to_dict("records")]


def verdict_cells(verdicts: pd.DataFrame, labels: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Return the cells of verdicts by their headings, a row a change; what is missing is empty."""
    several = verdicts["metric"].nunique() > 1
    return [_verdict_row(row, labels or {}, several) for row in verdicts.to_dict("records")]


def value_cells(values: pd.DataFrame) -> list[dict[str, str]]:
    """Return the cells of Shapley values (`effects.SHAPLEY_COLUMNS`), a row a step."""
    return [
        {
            "step": row["step"],
            "orders": str(row["n_orders"]),
            "Shapley value (points)": _change(row["value"], "+.2f").replace("-", MINUS),
            "standard error": number(row["se"], ".2f"),
            "95% interval": _ends(row["ci_low"], row["ci_high"], "+.2f").replace("-", MINUS),
        }
        for row in values.to_dict("records")
    ]


def correlation_cells(correlations: pd.DataFrame) -> list[dict[str, str]]:
    """Return the cells of correlations with the paper's changes (`agreement.AGREEMENT_COLUMNS`), a row a metric."""
    rows = []
    for row in correlations.to_dict("records"):
        cells = {
            "metric": METRICS[row["metric"]].label,
            "steps": f"{row['steps']:.0f}",
            "same sign": f"{row['same_sign']:.0f}",
        }
        for kind, heading in (("spearman", "Spearman (95% interval)"), ("kendall", "Kendall (95% interval)")):
            ends = _ends(row[f"{kind}_low"], row[f"{kind}_high"], "+.2f")
            cells[heading] = (number(row[kind], "+.2f") + (f" ({ends})" if ends else "")).replace("-", MINUS)
        rows.append(cells)
    return rows


def columns_of(rows: Sequence[Cells]) -> list[str]:
    """Return the headings of the columns that have something to say in any row."""
    return [name for name in rows[0] if any(row[name] for row in rows)] if rows else []


def _ladder_row(row: Mapping[Hashable, Any], labels: Mapping[str, str], notes: Sequence[str]) -> dict[str, str]:
    std = "" if pd.isna(row["top1_std"]) else f" ± {row['top1_std']:.2f}"
    kind = "" if row["adopted"] else " (reference)" if row["section"] == SECTION else " (not adopted)"
    return {
        "rung": labels.get(row["rung"], row["rung"]) + kind,
        "n": str(row["n"]),
        "top-1 (%)": row["state"] if pd.isna(row["top1"]) else f"{row['top1']:.2f}{std}",
        "change": number(row["top1_delta"], "+.2f"),
        "paper": number(row["paper_top1"], ".2f"),
        "paper's change": number(row["paper_top1_delta"], "+.2f"),
        "multiply-adds": big(row["macs"]) + (f" [{notes.index(row['erratum']) + 1}]" if row["erratum"] else ""),
        "parameters": big(row["params"]),
    }


def _verdict_row(row: Mapping[Hashable, Any], labels: Mapping[str, str], several: bool) -> dict[str, str]:
    metric = metric_of(row["metric"])
    digits, signed = metric.digits, f"+{metric.digits}"
    ends = _ends(row["ci_low"], row["ci_high"], signed)
    interval = f" ({ends})" if ends else ""
    cells = {
        "step": labels.get(row["step"], row["step"]),
        "metric": metric.label if several else "",
        "change (95% interval)": _change(row["delta"], signed) + interval,
        "p (Holm)": p_value(row["p_holm"]),
        "verdict": row["verdict"],
        **{heading: _factor(row.get(column)) for heading, column in FACTORS.items()},
        f"{metric.unit[:-1]} noise": f"± {row['seed_se']:{digits}}" if np.isfinite(row["seed_se"]) else "",
        "test-set noise": f"± {row['test_se']:{digits}}" if np.isfinite(row["test_se"]) else "",
        f"{metric.unit} needed": f">{MOST_SEEDS:,}"
        if np.isinf(row["seeds_needed"])
        else number(row["seeds_needed"], ",.0f"),
    }
    return {name: cell if name in WORDS else cell.replace("-", MINUS) for name, cell in cells.items()}


def _errata(table: pd.DataFrame) -> str:
    """Return the notes that cells refer to; nothing where there are none."""
    return " ".join(f"[{number}] {note}." for number, note in enumerate(notes_of(table), 1))


def cells_markdown(rows: Sequence[Cells]) -> str:
    """Return cells as a Markdown table; columns that have nothing to say are left out."""
    columns = columns_of(rows)
    rule = ["---" if name in WORDS else "---:" for name in columns]
    body = [[row[name].replace("|", "\\|") for name in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, rule, *body])


def _latex(rows: Sequence[Cells], notes: Iterable[str]) -> str:
    columns = columns_of(rows)
    if not columns:
        return "% There is nothing to show yet.\n"

    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(tex, cells)) + " \\\\"

    below = [
        f"\\multicolumn{{{len(columns)}}}{{p{{0.95\\linewidth}}}}{{\\footnotesize {tex(note)}}} \\\\"
        for note in notes
        if note
    ]
    lines = [
        "% A tabular to be read in with \\input. It needs \\usepackage{booktabs}.",
        f"\\begin{{tabular}}{{{''.join('l' if name in WORDS else 'r' for name in columns)}}}",
        "\\toprule",
        line(columns),
        "\\midrule",
        *(line(row[name] for name in columns) for row in rows),
        "\\bottomrule",
        *below,
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    """Return a text as LaTeX prints it as it is, on one line."""
    line = re.sub(r"[^\S\N{NO-BREAK SPACE}]+", " ", text)
    line = re.sub(r'(?<![^\s(])"', "\N{LEFT DOUBLE QUOTATION MARK}", line)
    return "".join(TEX.get(character, character) for character in line).replace("--", "-{}-")


TERMINAL = ("rung", "top-1 (%)", "change", "paper's change", "multiply-adds")


def print_ladder(table: pd.DataFrame, console: Console) -> None:
    """Print a ladder's table, as much of it as a terminal has room for."""
    shown = Table(box=None)
    for name in TERMINAL:
        shown.add_column(name, justify="left" if name == "rung" else "right", no_wrap=True)
    for row in ladder_cells(table):
        shown.add_row(*(row[name].replace(" (not adopted)", "") for name in TERMINAL))
    console.print(shown)


def number(value: float | None, form: str) -> str:
    """Return a number in a format, or nothing for what is missing."""
    return "" if value is None or pd.isna(value) else format(value, form)


def _ends(low: float, high: float, form: str) -> str:
    """Return an interval, or nothing where it is not known."""
    ends = (_change(low, form), _change(high, form))
    return " to ".join(ends) if all(ends) else ""


def _factor(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{TIMES}{value:.2f}"


def _change(value: float, form: str) -> str:
    """Return a change with its sign; one that rounds to nothing has none."""
    text = number(value, form)
    return text if any(digit in "123456789" for digit in text) else text.lstrip("+-")


def p_value(p: float) -> str:
    """Return a p-value with three decimals, or that it is smaller."""
    return "" if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
