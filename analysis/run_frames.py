"""From run folders to rows: of each rung and seed, of each rung and round measured, and what each rung costs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.metrics import COSTS, COUNTED, SPEEDS
from roadmap.common.errors import UserError
from roadmap.measuring.rung_costs import keys_of, networks, read_measured
from roadmap.runs import run_folder
from roadmap.runs.config import read_run_file
from roadmap.study.plan import Study

# What a run's row says beside `run_folder.COLUMNS`.
IDENTITY = ("base", "rung", "seed", "run", "recipe", "macs", "params")
WIDE = ("result_version", "classes", "top1_per_class")


def collect(study: Study) -> pd.DataFrame:
    """Read the results of a study's runs.

    A run without a result is a row with the state "missing" and nothing measured; one that diverged or failed says so.

    Args:
        study: The rungs and seeds that are wanted, and the runs folder.

    Returns:
        A row for each rung and seed, in the ladder's order: `IDENTITY`, then `run_folder.COLUMNS` but the lists.
    """
    rows = []
    for rung in study.rungs:
        for seed in study.seeds_of(rung.id):
            config = study.configs[rung.id, seed]
            folder = study.folder(config)
            about: Mapping[str, Any] = read_run_file(folder) or {}
            row = _row_of(folder)
            costs = (about.get(name) for name in ("macs", "params"))
            identity = (study.base, rung.id, seed, config.id, config.recipe.name, *costs)
            measured = {column: row.get(column) for column in run_folder.COLUMNS if column not in WIDE}
            rows.append(dict(zip(IDENTITY, identity, strict=True)) | measured)
    frame = pd.DataFrame(rows, columns=[*IDENTITY, *(c for c in run_folder.COLUMNS if c not in WIDE)])
    words = ["base", "rung", "run", "recipe", "state", "error"]
    return frame.assign(
        **{str(name): pd.to_numeric(frame[name], errors="coerce") for name in frame if name not in words}
    )


def _row_of(folder: Path) -> Mapping[str, Any]:
    """Return a run's result row; one that is damaged is that of a failed run, and says so."""
    try:
        return run_folder.read_result(folder) or {"state": "missing"}
    except UserError as error:
        return {"state": "failed", "error": str(error)}


def collect_right_images(study: Study, runs: pd.DataFrame) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """Read which test images each finished run's network had right.

    Args:
        study: The study.
        runs: What `collect` found of it.

    Returns:
        rung -> seed -> (test images,). A run that does not know is not there.
    """
    images: dict[str, dict[int, NDArray[np.bool_]]] = {}
    done = runs[runs["state"] == "finished"]
    for rung, seed in zip(done["rung"], done["seed"], strict=True):
        right = run_folder.read_right(study.folder(study.configs[rung, seed]))
        if right is not None:
            images.setdefault(rung, {})[seed] = right
    return images


def has_results(runs: pd.DataFrame) -> bool:
    """Whether any run of the frame finished."""
    return bool((runs["state"] == "finished").any())


MEASURED = ("rung", "round", "train_images_per_s", "test_images_per_s", "peak_memory_mb", "activations")


def collect_measured(study: Study, measured: dict[str, Any] | None = None) -> pd.DataFrame:
    """Read what was measured of a study's networks; rungs that are the same network under one recipe share it.

    Args:
        study: The rungs that are wanted, and the runs folder.
        measured: What `rung_costs.measure` returned; None reads the newest measurement of these networks.

    Returns:
        A row for each rung and round (from 1), with the columns of `MEASURED`, whose units `rung_costs.Row` says.
        Speeds of one round belong together. Rungs that were not measured have no rows.
    """
    measured = measured or read_measured(study.runs, keys_of(study)) or {"rows": {}}
    rows = []
    for rung in study.rungs:
        row = measured["rows"].get(study.configs[rung.id, study.seeds[0]].key)
        if row is None:
            continue
        speeds = zip(row["train_images_per_s"], row["test_images_per_s"], strict=True)
        for number, (train, test) in enumerate(speeds, start=1):
            rows.append((rung.id, number, train, test, row["peak_memory_mb"], row["activations"]))
    return pd.DataFrame(rows, columns=list(MEASURED))


def cost_rows(study: Study, measured: pd.DataFrame) -> list[dict[str, Any]]:
    """Return JSON-able rows, one a rung: its costs (`metrics.COSTS`, `metrics.SPEEDS`), and their changes as factors.

    Args:
        study: The rungs.
        measured: What `collect_measured` found.

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
        costs[name] = (
            (rounds if len(rounds) else pd.DataFrame(index=[1])).assign(**fixed).reindex(columns=list(COSTS | SPEEDS))
        )
    rows = []
    for rung in study.rungs:
        own, before = costs[rung.id], costs.get(rung.parent or "")
        row: dict[str, Any] = {"base": study.base, "rung": rung.id, "before": rung.parent}
        for cost in COSTS | SPEEDS:
            value = float(own[cost].median())
            factor = math.nan if before is None else float((own[cost] / before[cost]).median())
            whole = int(value) if cost in COUNTED else value
            row |= {
                cost: None if math.isnan(value) else whole,
                f"{cost}_factor": None if math.isnan(factor) else factor,
            }
        rows.append(row)
    return rows
