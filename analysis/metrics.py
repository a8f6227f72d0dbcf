"""The metrics that a step can change: their names and units, which way is better, which changes are as good as none."""

from collections.abc import Mapping
from typing import Protocol

import pandas as pd

from roadmap.runs import run_folder
from roadmap.runs.metrics import Metric

TOP1 = "top1"  # the metric that a ladder is about

# What a run measures.
METRICS = {
    "top1": Metric("top-1 (%)", 1, 0.2),
    "top5": Metric("top-5 (%)", 1, 0.2),
    "nll": Metric("NLL (nats)", -1, 0.01, ".3f", "nats"),
    "ece": Metric("calibr. error (%)", -1, 0.2),
    "train_loss": Metric("training loss", -1, 0.01, ".3f", "nats"),
}
# What is measured side by side, a round in place of a seed (`measuring.rung_costs`); margins are shares of the value.
SPEEDS = {
    "train_images_per_s": Metric("training images/s", 1, 0.02, ",.0f", "images/s", "rounds"),
    "test_images_per_s": Metric("inference images/s", 1, 0.02, ",.0f", "images/s", "rounds"),
}
# What is counted, and needs no test.
COSTS = {
    "macs": Metric("multiply-adds", -1, 0.0, ",.0f", ""),
    "params": Metric("parameters", -1, 0.0, ",.0f", ""),
    "activations": Metric("activations", -1, 0.0, ",.0f", ""),
    "peak_memory_mb": Metric("peak memory (MB)", -1, 0.0, ",.1f", "MB"),
}
COUNTED = ("macs", "params", "activations")
NAMES_TAKEN = METRICS | SPEEDS | COSTS | dict.fromkeys((*run_folder.COLUMNS, "base", "rung", "run", "recipe"))

_declared: dict[str, Metric] = {}


class Evaluated(Protocol):
    """What was found of a study's trained networks after their runs: by attacks, by a user's own functions.

    Attributes:
        frame: A row a run with the columns rung, seed and those of the metrics, and others; NaN where nothing is known.
        metrics: Column -> what it is: these are judged as top-1 is.
        notes: What a reader should know beside the numbers, a sentence each.
    """

    @property
    def frame(self) -> pd.DataFrame:
        """See the class."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See the class."""

    @property
    def notes(self) -> tuple[str, ...]:
        """See the class."""


def declared(*evaluated: Evaluated) -> tuple[Evaluated, ...]:
    """Return what was found of trained networks, having made its metrics known to `metric_of`, the last of a name."""
    for found in evaluated:
        _declared.update(found.metrics)
    return evaluated


def metric_of(name: str) -> Metric:
    """Return what a metric is: of runs, of speeds, of costs, or one that was declared.

    Of any other more is better and no change is small enough to be none, unless a table says otherwise.
    """
    return (_declared | METRICS | SPEEDS | COSTS).get(name) or Metric(name, 1, 0.0, ".3g", "")
