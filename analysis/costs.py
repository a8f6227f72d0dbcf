"""What each rung costs, counted and measured, beside the rung before it."""

import math
from typing import Any

import pandas as pd

from analysis.metrics import COUNTED
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
            factor = math.nan if before is None else float((own[cost] / before[cost]).median())
            whole = int(value) if cost in COUNTED else value
            row |= {
                cost: None if math.isnan(value) else whole,
                f"{cost}_factor": None if math.isnan(factor) else factor,
            }
        rows.append(row)
    return rows
