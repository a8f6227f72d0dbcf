"""What each rung costs, counted and measured, beside the rung before it."""

import math
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.stats.welch import median_ratio
from roadmap.common.formats import big
from roadmap.measuring.rung_costs import networks
from roadmap.study.plan import Study

# A row: cost -> its heading.
COSTS = {
    "macs": "multiply-adds",
    "params": "parameters",
    "activations": "activations",
    "peak_memory_mb": "peak memory (MB)",
    "train_images_per_s": "training images/s",
    "test_images_per_s": "inference images/s",
}
NARROW = {"multiply-adds": "multiply-\nadds", "parameters": "para-\nmeters", "activations": "activa-\ntions"}
COUNTED = ("macs", "params", "activations")


def cost_rows(study: Study, measured: pd.DataFrame) -> list[dict[str, Any]]:
    """Return JSON-able rows, one a rung: its costs by the names of `COSTS`, and the change of each as a factor.

    Args:
        study: The rungs.
        measured: What `analysis.run_frames.collect_measured` found.

    Returns:
        Rows with `rung`, `before` (the rung that it comes from), the costs and, for each, `<cost>_factor`: how many
        times that of the rung before. A measured cost is the median over rounds, its factor that of each round's
        factors, so that a machine that slows down changes it little. None where something is missing.
    """
    counted = {rung: run for run in networks(study) for rung in run.rungs}
    costs = {}
    for name, run in counted.items():
        rounds = measured[measured["rung"] == name].set_index("round").drop(columns="rung")
        fixed = {cost: float(getattr(run, cost)) for cost in COUNTED}
        costs[name] = (rounds if len(rounds) else pd.DataFrame(index=[1])).assign(**fixed).reindex(columns=list(COSTS))
    rows = []
    for rung in study.rungs:
        own, before = costs[rung.id], costs.get(rung.parent or "")
        row: dict[str, Any] = {"base": study.base, "rung": rung.id, "before": rung.parent}
        for cost in COSTS:
            value = float(own[cost].median())
            factor = math.nan if before is None else median_ratio(own[cost], before[cost])
            whole = int(value) if cost in COUNTED else value
            row |= {
                cost: None if math.isnan(value) else whole,
                f"{cost}_factor": None if math.isnan(factor) else factor,
            }
        rows.append(row)
    return rows


def print_costs(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the costs of rungs, each change beside its value, or below it where the console is narrow."""
    table = _table(rows, " ")
    if console.measure(table, options=console.options.update(max_width=1000)).maximum > console.width:
        table = _table(rows, "\n")
    console.print(table)


def _table(rows: list[dict[str, Any]], between: str) -> Table:
    narrow = between == "\n"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    table.add_column("rung", no_wrap=True)
    for name in COSTS.values():
        heading = NARROW.get(name, name) if narrow else name
        table.add_column(heading.replace(" ", "\n"), justify="right")
    for row in rows:
        table.add_row(row["rung"], *(_cell(cost, row[cost], row[f"{cost}_factor"], between) for cost in COSTS))
    return table


def _cell(cost: str, value: float | None, factor: float | None, between: str) -> str:
    if value is None:
        return ""
    text = big(value) if cost in COUNTED else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
    return text if factor is None else f"{text}{between}x{factor:.2f}"
