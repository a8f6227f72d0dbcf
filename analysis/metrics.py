"""The metrics that a step can change: their names and units, which way is better, which changes are as good as none."""

from dataclasses import dataclass

from roadmap.robustness.settings import FGSM, PGD, STEPS

ATTACKS = {FGSM: "FGSM", PGD: f"PGD-{STEPS}"}  # what they are called
TOP1 = "top1"  # the metric that a ladder is about
ROBUST_MARGIN = 1.0  # points


@dataclass(frozen=True)
class Metric:
    """A quantity that a step can change.

    Attributes:
        label: Its name in tables, with the unit.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none, in the metric's unit; settable on the command line for top-1.
        digits: How its values are printed.
        unit: The unit of a change, as a sentence says it; empty where there is none.
        samples: What it was measured over: seeds, or rounds of one process.
    """

    label: str
    better: int
    margin: float
    digits: str = ".2f"
    unit: str = "points"
    samples: str = "seeds"


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


def metric_of(name: str) -> Metric:
    """Return what a metric is: of runs, of speeds, of costs, of robustness; any other name is a user's own metric.

    Of a user's own metric more is better and no change is small enough to be none, unless a table says otherwise.
    """
    return (METRICS | SPEEDS | COSTS).get(name) or _robust_metric(name) or Metric(name, 1, 0.0, ".3g", "")


def _robust_metric(name: str) -> Metric | None:
    """Return what a column of accuracies under attacks and corruptions is; None for any other column."""
    if name == "mce":
        return Metric("mean corr. error (%)", -1, ROBUST_MARGIN)
    if name == "corrupted_top1":
        return Metric("corrupted (%)", 1, ROBUST_MARGIN)
    attack, _, radius = name.partition("_")
    if attack in ATTACKS and radius.replace(".", "", 1).isdecimal():
        return Metric(f"{ATTACKS[attack]} {radius}/255 (%)", 1, ROBUST_MARGIN)
    return None
