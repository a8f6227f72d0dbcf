"""One step against another rung: what differs, what it costs, what it changed in every metric, seed by seed."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.collect import collect
from roadmap.config import diff
from roadmap.errors import UserError
from roadmap.plan import Study

# The metrics of a result row that a step can change, with what they are called in a table.
METRICS = {
    "top1": "top-1 (%)",
    "top5": "top-5 (%)",
    "nll": "NLL (nats)",
    "ece": "calibration error (%)",
    "train_loss": "training loss",
    "images_per_s": "training images/s",
}
COSTS = {"macs": "multiply-adds", "params": "parameters"}
DIGITS = {"nll": ".3f", "train_loss": ".3f", "images_per_s": ",.0f"}  # else two


@dataclass(frozen=True)
class Comparison:
    """A rung beside the one it is judged against.

    Attributes:
        base: Where the ladder starts.
        step: The rung.
        against: The other.
        fields: The network's and the recipe's fields that differ: name -> (against, step).
        costs: What both cost, by the names of `COSTS`: (against, step).
        runs: The rows of both in the frame of `analysis.collect`.
        paper: The paper's top-1 of both, percent: (against, step).
    """

    base: str
    step: str
    against: str
    fields: dict[str, tuple[Any, Any]]
    costs: dict[str, tuple[int, int]]
    runs: pd.DataFrame
    paper: tuple[float | None, float | None]

    def pairs(self, metric: str) -> pd.DataFrame:
        """Return a metric of both rungs, a row a seed that finished in either: columns `against`, `step`, `change`."""
        done = self.runs[self.runs["state"] == "finished"]
        values = {
            name: done[done["rung"] == rung].set_index("seed")[metric].astype(float)
            for name, rung in (("against", self.against), ("step", self.step))
        }
        frame = pd.DataFrame(values).sort_index()
        return frame.assign(change=frame["step"] - frame["against"])

    def rows(self) -> list[dict[str, Any]]:
        """Return JSON-able rows, one a cost or metric: means over finished seeds, their change, each seed's change."""
        rows = [self._row(cost, *values, {}) for cost, values in self.costs.items()]
        for metric in METRICS:
            pairs = self.pairs(metric)
            changes = {str(seed): change for seed, change in pairs["change"].dropna().items()}
            rows.append(self._row(metric, _mean(pairs["against"]), _mean(pairs["step"]), changes))
        return rows

    def _row(self, metric: str, old: float | None, new: float | None, changes: dict[str, float]) -> dict[str, Any]:
        return {
            "base": self.base,
            "step": self.step,
            "against": self.against,
            "metric": metric,
            "value_against": old,
            "value_step": new,
            "change": None if old is None or new is None else new - old,
            "change_by_seed": changes,
        }


def compare_step(study: Study, step: str, against: str | None = None) -> Comparison:
    """Compare a rung of a study with another, or with the one it comes from.

    Raises:
        UserError: If the rung is the ladder's start and no other was named.
    """
    rungs = {rung.id: rung for rung in study.rungs}
    against = against or rungs[step].parent
    if against is None:
        start = "the ladder starts" if study.design == "ladder" else f"the design {study.design} starts"
        raise UserError(f"'{step}' is where {start}: there is no rung before it. Name one with --against.")
    new, old = rungs[step], rungs[against]
    planned = {rung: run for run in study.planned() for rung in run.rungs}
    pair = (planned[against], planned[step])
    recipes = [run.config.recipe.training() for run in pair]
    fields = {f"network: {name}": values for name, values in diff(old.net, new.net).items()}
    fields |= {f"recipe: {k}": (recipes[0][k], recipes[1][k]) for k in recipes[0] if recipes[0][k] != recipes[1][k]}
    costs = {"macs": (pair[0].macs, pair[1].macs), "params": (pair[0].params, pair[1].params)}
    runs = collect(study)
    runs = runs[runs["rung"].isin([step, against])]
    return Comparison(study.base, step, against, fields, costs, runs, (old.paper.top1, new.paper.top1))


def print_step(comparison: Comparison, console: Console) -> None:
    """Print a comparison for people."""
    head = f"[bold]{comparison.step}[/bold] against {comparison.against}, from {comparison.base}"
    console.print(head, highlight=False)
    fields = Table(box=None)
    for name in ("what differs", comparison.against, comparison.step):
        fields.add_column(name)
    for name, (old, new) in comparison.fields.items():
        fields.add_row(name, _words(old), _words(new))
    for cost, name in COSTS.items():
        fields.add_row(name, *(f"{value:,}" for value in comparison.costs[cost]))
    console.print(fields)
    console.print()

    seeds = [str(seed) for seed in comparison.pairs("top1").index]
    table = Table(box=None)
    table.add_column("metric")
    for name in (comparison.against, comparison.step, "change", *(f"seed {seed}" for seed in seeds)):
        table.add_column(name, justify="right")
    for row in comparison.rows():
        if (metric := row["metric"]) in METRICS:
            digits = DIGITS.get(metric, ".2f")
            changes = (row["change"], *(row["change_by_seed"].get(seed) for seed in seeds))
            values = (format_or_blank(row[f"value_{side}"], digits) for side in ("against", "step"))
            table.add_row(METRICS[metric], *values, *(format_or_blank(change, f"+{digits}") for change in changes))
    console.print(table)
    if not seeds:
        console.print("Neither has a finished run yet: the action run trains them.", highlight=False)
    old, new = comparison.paper
    if old is not None and new is not None:
        console.print(f"The paper, on ImageNet: {old:.2f} -> {new:.2f}, change {new - old:+.2f}.", highlight=False)


def format_or_blank(value: float | None, form: str) -> str:
    """Return a number in a format, or nothing for what is missing."""
    return "" if value is None or pd.isna(value) else format(value, form)


def _mean(values: pd.Series) -> float | None:
    return None if values.dropna().empty else float(values.mean())


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
