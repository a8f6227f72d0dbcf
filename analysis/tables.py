"""A ladder's table for reading: Markdown, with rounded numbers and their units."""

import pandas as pd


def markdown(table: pd.DataFrame) -> str:
    """Return a ladder's table as Markdown, rounded for reading."""
    head = ["rung", "n", "top-1 (%)", "change", "paper", "paper's change", "multiply-adds", "parameters", "images/s"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for row in table.to_dict("records"):
        std = "" if pd.isna(row["top1_std"]) else f" ± {row['top1_std']:.2f}"
        lines.append(
            [
                row["rung"] + ("" if row["adopted"] else " (not adopted)"),
                str(row["n"]),
                row["state"] if pd.isna(row["top1"]) else f"{row['top1']:.2f}{std}",
                _number(row["top1_delta"], "+.2f"),
                _number(row["paper_top1"], ".2f"),
                _number(row["paper_top1_delta"], "+.2f"),
                big(row["macs"]) + (" [1]" if row["erratum"] else ""),
                big(row["params"]),
                _number(row["images_per_s"], ",.0f"),
            ]
        )
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    errata = [erratum for erratum in table["erratum"] if erratum]
    return body + ("\n\n[1] " + ". ".join(errata) + "." if errata else "")


def big(value: float) -> str:
    """Return a count with three digits and its unit (G, M, k)."""
    if pd.isna(value):
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 10 * size else f"{value / size:.1f} {unit}"
    return f"{value:.0f}"


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
