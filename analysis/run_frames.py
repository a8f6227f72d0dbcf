"""From run folders to data frames: a row for each rung and seed of a study, or for each rung and round measured."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roadmap.common import files
from roadmap.measuring.rung_costs import keys_of, read_measured
from roadmap.runs import run_folder
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
        for seed in study.seeds:
            config = study.configs[rung.id, seed]
            folder = study.folder(config)
            about = files.read_object(folder / run_folder.RUN) or {}
            row = run_folder.read_result(folder) or {"state": "missing"}
            costs = (value if files.is_finite(value := about.get(name)) else None for name in ("macs", "params"))
            identity = (study.base, rung.id, seed, config.id, config.recipe.name, *costs)
            measured = {column: row.get(column) for column in run_folder.COLUMNS if column not in WIDE}
            rows.append(dict(zip(IDENTITY, identity, strict=True)) | measured)
    frame = pd.DataFrame(rows, columns=[*IDENTITY, *(c for c in run_folder.COLUMNS if c not in WIDE)])
    words = ["base", "rung", "run", "recipe", "state", "error"]
    return frame.assign(
        **{str(name): pd.to_numeric(frame[name], errors="coerce") for name in frame if name not in words}
    )


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
        A row for each rung and round (from 1), with the columns of `MEASURED`, whose units `rung_costs.ROW` says.
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
