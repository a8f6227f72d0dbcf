"""What a run left beside its result: its learning curve, where it was planned, who worked on it and when."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis.report.record import PROVENANCE, read_provenance
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker, attempts_of
from roadmap.runs.config import read_run_file
from roadmap.study.plan import Study

# Points of a learning curve: this many where runs are few, and fewer where a page would grow too large.
MOST_POINTS, FEWEST_POINTS, ALL_POINTS = 300, 16, 200_000

# A row of the learning curves: column -> meaning and unit.
CURVE_COLUMNS = {
    "rung": "id",
    "seed": "of the run",
    "epoch": "counted from 1",
    "train_loss": "mean training loss of the epoch",
}

DAMAGED = (ValueError, LookupError, TypeError)  # what a line may raise that is not an epoch's

PLANNED = (*PROVENANCE, "host", "planned_at")


@dataclass(frozen=True)
class AttemptSummary:
    """One time that a job took a run.

    Attributes:
        worker: Who; None where its file is damaged.
        end: How it ended; empty where nobody noted an end.
        seen_at: When it last said that it lives, in seconds since 1970: about when it ended.
    """

    worker: Worker | None
    end: str
    seen_at: float


@dataclass(frozen=True)
class RunHistory:
    """What a run left.

    Attributes:
        epochs: How many it has ended.
        losses: Mean training loss of `spread(epochs, len(losses))`, epochs counted from 0.
        planned: Where and with what it was planned, by the names of `PLANNED`.
        attempts: Its attempts, first to last.
    """

    epochs: int = 0
    losses: tuple[float, ...] = ()
    planned: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[AttemptSummary, ...] = ()


def collect_histories(study: Study) -> dict[str, RunHistory]:
    """Read what the runs of a study left, by run; a run that nobody has planned yet is not there."""
    folders = {config.id: study.folder(config) for config in study.configs.values()}
    points = points_of_each(len(folders))
    histories = {}
    for run, folder in folders.items():
        written = read_run_file(folder)
        if written is not None:
            planned = read_provenance(cast(dict[str, Any], written), PLANNED)
            histories[run] = RunHistory(*read_curve(folder, points), planned, tuple(read_attempts(folder)))
    return histories


def curves_of(study: Study, histories: Mapping[str, RunHistory]) -> pd.DataFrame:
    """Return how the training loss of each run went, finished or not.

    Args:
        study: The rungs and seeds that are wanted.
        histories: What `collect_histories` found.

    Returns:
        A row for each rung, seed and epoch with the columns of `CURVE_COLUMNS`, in the ladder's order. A run without an
        epoch behind it has no row. Where curves were thinned, the runs of a rung are brought to the same epochs by
        straight lines between those that were read.
    """
    rows: list[tuple[str, int, int, float]] = []
    for rung in study.rungs:
        own = {seed: histories.get(study.configs[rung.id, seed].id, RunHistory()) for seed in study.seeds_of(rung.id)}
        longest = max(own.values(), key=lambda history: history.epochs)
        grid = spread(longest.epochs, len(longest.losses))
        for seed, history in own.items():
            epochs = [epoch for epoch in grid if epoch < history.epochs]
            if epochs:
                losses = np.interp(epochs, spread(history.epochs, len(history.losses)), history.losses)
                rows += [(rung.id, seed, epoch + 1, loss) for epoch, loss in zip(epochs, losses, strict=True)]
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS)).astype({"seed": int, "epoch": int, "train_loss": float})


def points_of_each(runs: int) -> int:
    """Return how many points a learning curve may have where there are so many runs."""
    return max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // runs))


def read_curve(folder: Path, points: int) -> tuple[int, tuple[float, ...]]:
    """Return how many epochs a run has ended, and the mean training loss of so many of them, first and last included.

    Only the lines that are wanted are parsed: ten thousand runs of hundreds of epochs are read in seconds.
    """
    try:
        lines = (folder / run_folder.METRICS).read_text(errors="replace").splitlines()
    except OSError:
        return 0, ()
    try:
        return len(lines), _losses(lines[epoch] for epoch in spread(len(lines), points))
    except DAMAGED:  # somewhere, or its end is cut off
        known = _losses_before_damage(lines)
        return len(known), tuple(known[epoch] for epoch in spread(len(known), points))


def read_attempts(folder: Path) -> Iterable[AttemptSummary]:
    """Return a run's attempts, first to last."""
    for attempt in attempts_of(folder):
        try:
            seen_at = attempt.path.stat().st_mtime
        except OSError:  # it ended while we looked
            continue
        yield AttemptSummary(attempt.worker(), attempt.end or "", seen_at)


def spread(number: int, points: int) -> list[int]:
    """Return so many of the numbers from 0 up, evenly spread, first and last included; all where there are fewer."""
    if number <= points:
        return list(range(number))
    return [i * (number - 1) // (points - 1) for i in range(points)]


def _losses(lines: Iterable[str]) -> tuple[float, ...]:
    """Return the losses of lines of JSON, all parsed at once, raising one of `DAMAGED` where one is no epoch's."""
    return tuple(float(row["train_loss"]) for row in json.loads(f"[{','.join(lines)}]"))


def _losses_before_damage(lines: Iterable[str]) -> list[float]:
    losses: list[float] = []
    for line in lines:
        try:
            losses += _losses([line])
        except DAMAGED:
            break
    return losses
