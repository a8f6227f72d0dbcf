"""One step against another rung: what differs, what it costs, what it changed in every metric, and how sure that is."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.collect import collect, collect_measured, collect_rights
from analysis.statistics import UNCLEAR, needed_in_words
from analysis.verdicts import COSTS, METRICS, SPEEDS, judge_everything, pairs_of, to_json
from roadmap.config import diff
from roadmap.errors import UserError
from roadmap.plan import Study


@dataclass(frozen=True)
class Comparison:
    """A rung beside the one it is judged against.

    Attributes:
        base: Where the ladder starts.
        step: The rung.
        against: The other.
        fields: The network's and the recipe's fields that differ: name -> (against, step).
        verdicts: A row a metric, with the columns of `analysis.verdicts.VERDICT_COLUMNS`.
        runs: The rows of both in the frame of `analysis.collect`.
        paper: The paper's top-1 of both, percent: (against, step).
        family: How many changes were judged together with this one.
    """

    base: str
    step: str
    against: str
    fields: dict[str, tuple[Any, Any]]
    verdicts: pd.DataFrame
    runs: pd.DataFrame
    paper: tuple[float | None, float | None]
    family: int

    def changes(self, metric: str) -> dict[str, float]:
        """Return a run metric's change for each seed that both rungs have, by seed."""
        done = self.runs[self.runs["state"] == "finished"]
        old, new = (
            done[done["rung"] == rung].set_index("seed")[metric].astype(float) for rung in (self.against, self.step)
        )
        return {str(seed): change for seed, change in (new - old).dropna().sort_index().items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return JSON-able rows, one a metric."""
        return [
            {"base": self.base}
            | row
            | ({"change_by_seed": self.changes(name)} if (name := row["metric"]) in METRICS else {})
            for row in to_json(self.verdicts)
        ]


def compare_step(study: Study, step: str, against: str | None = None, *, margin: float | None = None) -> Comparison:
    """Compare a rung of a study with another, or with the one it comes from.

    A rung and the one it comes from are judged together with all other steps of the study, as a report does; any other
    pair is judged alone.

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
    runs = collect(study)
    for run in pair:  # counted now: nothing may have run yet
        runs.loc[runs["rung"].isin(run.rungs), ["macs", "params"]] = [run.macs, run.params]
    pairs = pairs_of(study.rungs)
    if (step, against) not in pairs:
        pairs = [(step, against)]
    judged = judge_everything(runs, collect_measured(study), pairs, margin=margin, rights=collect_rights(study))
    own = judged[(judged["step"] == step) & (judged["against"] == against)].reset_index(drop=True)
    own_runs = runs[runs["rung"].isin([step, against])]
    return Comparison(study.base, step, against, fields, own, own_runs, (old.paper.top1, new.paper.top1), len(pairs))


def print_step(comparison: Comparison, console: Console) -> None:
    """Print a comparison for people."""
    head = f"[bold]{comparison.step}[/bold] against {comparison.against}, from {comparison.base}"
    console.print(head, highlight=False)
    fields = Table(box=None)
    for name in ("what differs", comparison.against, comparison.step):
        fields.add_column(name)
    for name, (old, new) in comparison.fields.items():
        fields.add_row(name, _words(old), _words(new))
    console.print(fields)
    console.print()
    table = Table(box=None)
    table.add_column("metric")
    for name in (comparison.against, comparison.step, "change", "95% interval", "p", "p (Holm)"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    rows: list[Any] = list(comparison.verdicts.itertuples())
    for row in rows:
        metric = (METRICS | SPEEDS | COSTS)[row.metric]
        values = [format_or_blank(value, metric.digits) for value in (row.value_against, row.value)]
        change = format_or_blank(row.delta, f"+{metric.digits}")
        ends = [format_or_blank(end, f"+{metric.digits}") for end in (row.ci_low, row.ci_high)]
        interval = " to ".join(ends) if all(ends) else ""
        p = [format_or_blank(p, ".4f") for p in (row.p, row.p_holm)]
        verdict = row.verdict + (needed_in_words(row.seeds_needed) if row.verdict.startswith(UNCLEAR) else "")
        table.add_row(metric.label, *values, change, interval, *p, verdict)
    console.print(table)
    console.print()
    for line in _notes(comparison):
        console.print(line, highlight=False, markup=False)


def _notes(comparison: Comparison) -> list[str]:
    """Say what the table has no column for."""
    top1: dict[str, Any] = comparison.verdicts.set_index("metric").to_dict("index")["top1"]
    lines = []
    if changes := comparison.changes("top1"):
        told = ", ".join(f"seed {seed} {change:+.2f}" for seed, change in changes.items())
        paired = format_or_blank(top1["p_paired"], ".4f")
        lines.append(f"Top-1 by seed: {told}." + (f" Paired t-test: p {paired}." if paired else ""))
    if pd.notna(top1["test_se"]):
        seeds = format_or_blank(top1["seed_se"], ".2f")
        noise = f"{seeds} points from the seeds and " if seeds else ""
        lines.append(
            f"Standard error of its change: {noise}{top1['test_se']:.2f} from the choice of test images. McNemar's "
            f"test tells {top1['mcnemar_told']:.0f} of {top1['mcnemar_pairs']:.0f} seeds' pairs of networks apart."
        )
    if not top1["n"] and not top1["n_against"]:
        lines.append("Neither has a finished run yet: the action run trains them.")
    elif comparison.family > 1:
        lines.append(f"Holm's correction and the verdicts are over the {comparison.family} steps of the study.")
    old, new = comparison.paper
    if old is not None and new is not None:
        lines.append(f"The paper, on ImageNet: {old:.2f} -> {new:.2f}, change {new - old:+.2f}.")
    return lines


def print_verdicts(judged: pd.DataFrame, console: Console) -> None:
    """Print the verdicts on one metric, a row a step."""
    table = Table(box=None)
    metric = METRICS[judged["metric"].iloc[0]]
    for name in ("step", f"change of {metric.label}", "95% interval", "p (Holm)"):
        table.add_column(name, justify="left" if name == "step" else "right", no_wrap=True)
    table.add_column("verdict")
    rows: list[Any] = list(judged.itertuples())
    for row in rows:
        change, *ends = (format_or_blank(value, f"+{metric.digits}") for value in (row.delta, row.ci_low, row.ci_high))
        verdict = row.verdict + (needed_in_words(row.seeds_needed) if row.verdict.startswith(UNCLEAR) else "")
        interval = " to ".join(ends) if all(ends) else ""
        table.add_row(row.step, change, interval, format_or_blank(row.p_holm, ".4f"), verdict)
    console.print(table)


def format_or_blank(value: float | None, form: str) -> str:
    """Return a number in a format, or nothing for what is missing."""
    return "" if value is None or pd.isna(value) else format(value, form)


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
