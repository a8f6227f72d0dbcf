"""A ladder's table for reading: Markdown, with rounded numbers and their units."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table


def markdown(table: pd.DataFrame) -> str:
    """Return a ladder's table as Markdown, rounded for reading; columns that have nothing to say are left out."""
    rows = [_cells(row) for row in table.to_dict("records")]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]] + [[row[name] for name in columns] for row in rows]
    errata = [erratum for erratum in table["erratum"] if erratum]
    notes = "\n\n[1] " + ". ".join(errata) + "." if errata else ""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + notes


def _cells(row: Mapping[Hashable, Any]) -> dict[str, str]:
    """Return a row's cells under their headings."""
    std = "" if pd.isna(row["top1_std"]) else f" ± {row['top1_std']:.2f}"
    return {
        "rung": row["rung"] + ("" if row["adopted"] else " (not adopted)"),
        "n": str(row["n"]),
        "top-1 (%)": row["state"] if pd.isna(row["top1"]) else f"{row['top1']:.2f}{std}",
        "change": _number(row["top1_delta"], "+.2f"),
        "paper": _number(row["paper_top1"], ".2f"),
        "paper's change": _number(row["paper_top1_delta"], "+.2f"),
        "multiply-adds": big(row["macs"]) + (" [1]" if row["erratum"] else ""),
        "parameters": big(row["params"]),
        "images/s": _number(row["images_per_s"], ",.0f"),
    }


TERMINAL = ("rung", "top-1 (%)", "change", "paper's change", "multiply-adds")


def print_ladder(table: pd.DataFrame, console: Console) -> None:
    """Print a ladder's table, as much of it as a terminal has room for."""
    rows = [_cells(row) for row in table.to_dict("records")]
    shown = Table(box=None)
    for name in TERMINAL:
        shown.add_column(name, justify="left" if name == "rung" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*(row[name].replace(" (not adopted)", "") for name in TERMINAL))
    console.print(shown)


def big(value: float) -> str:
    """Return a count with three digits and its unit (G, M, k)."""
    if pd.isna(value):
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}" if value < 10 * size else f"{value / size:.1f} {unit}"
    return f"{value:.0f}"


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
