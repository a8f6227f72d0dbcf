"""One step against another rung: what differs, what it costs, what it changed in every metric, and how sure that is."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.costs import COUNTED
from analysis.robustness import collect_robustness
from analysis.run_frames import collect, collect_measured, collect_rights
from analysis.stats.welch import MOST_SEEDS, POWER, UNCLEAR, needed_in_words
from analysis.verdicts import METRICS, judge_everything, metric_of, pairs_of, reference_pairs, to_json
from roadmap.common.errors import UserError
from roadmap.common.fields import diff
from roadmap.common.formats import big
from roadmap.ladder.rung import Rung
from roadmap.networks.timm_net import TimmNet
from roadmap.study.plan import Study


@dataclass(frozen=True)
class Comparison:
    """A rung beside the one it is judged against.

    Attributes:
        base: Where the ladder starts.
        step: The rung.
        against: The other.
        fields: The network's and the recipe's fields that differ: name -> (against, step).
        verdicts: A row a metric, with the columns of `analysis.verdicts.VERDICT_COLUMNS`.
        runs: The rows of both in the frame of `analysis.run_frames`.
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
    if step == against:
        raise UserError(f"'{step}' is to be compared with itself. Name another rung with --against.")
    new, old = rungs[step], rungs[against]
    planned = {rung: run for run in study.planned() for rung in run.rungs}
    pair = (planned[against], planned[step])
    recipes = [run.config.recipe.training() for run in pair]
    fields = _network_fields(old, new)
    fields |= {f"recipe: {k}": (recipes[0][k], recipes[1][k]) for k in recipes[0] if recipes[0][k] != recipes[1][k]}
    runs = collect(study)
    for run in pair:  # counted now: nothing may have run yet
        runs.loc[runs["rung"].isin(run.rungs), ["macs", "params"]] = [run.macs, run.params]
    pairs = reference_pairs(study.rungs) if new.is_reference else pairs_of(study.rungs)
    if (step, against) not in pairs:
        pairs = [(step, against)]
    judged = judge_everything(
        runs,
        collect_measured(study),
        pairs,
        margin=margin,
        rights=collect_rights(study, runs),
        robustness=collect_robustness(study),
    )
    own = judged[(judged["step"] == step) & (judged["against"] == against)].reset_index(drop=True)
    own_runs = runs[runs["rung"].isin([step, against])]
    return Comparison(study.base, step, against, fields, own, own_runs, (old.paper.top1, new.paper.top1), len(pairs))


def _network_fields(old: Rung, new: Rung) -> dict[str, tuple[Any, Any]]:
    """Return what differs in the networks: their fields, or, where one is timm's, which they are."""
    if type(old.net) is type(new.net):
        return {f"network: {name}": values for name, values in diff(old.net, new.net).items()}
    names = [rung.net.timm if isinstance(rung.net, TimmNet) else rung.label for rung in (old, new)]
    return {"network": (names[0], names[1])}


def print_step(comparison: Comparison, console: Console) -> None:
    """Print a comparison for people."""
    head = f"[bold]{comparison.step}[/bold] against {comparison.against}, from {comparison.base}"
    console.print(head, highlight=False)
    fields = Table(box=None, pad_edge=False)
    for name in ("what differs", comparison.against, comparison.step):
        fields.add_column(name)
    for name, (old, new) in comparison.fields.items():
        fields.add_row(name, _words(old), _words(new))
    console.print(fields)
    console.print()
    table = _narrow_table("metric", "before → after", "change", "95% interval", "verdict")
    rows: list[Any] = list(comparison.verdicts.itertuples())
    for row in (row for row in rows if not pd.isna(row.value) or not pd.isna(row.value_against)):
        metric = metric_of(row.metric)
        form = big if row.metric in COUNTED else lambda value, metric=metric: format(value, metric.digits)
        values = ["" if pd.isna(value) else form(value) for value in (row.value_against, row.value)]
        change = "" if pd.isna(row.delta) else ("-" if row.delta < 0 else "+") + (form(abs(row.delta)) or "0")
        table.add_row(metric.label, " → ".join(values), change, _interval(row, metric.digits), _short(row.verdict))
    console.print(table)
    console.print()
    for line in _notes(comparison):
        console.print(line, highlight=False, markup=False)


def _notes(comparison: Comparison) -> list[str]:
    """Say what the table has no column for."""
    top1: Any = comparison.verdicts.set_index("metric").to_dict("index")["top1"]
    lines = []
    if changes := comparison.changes("top1"):
        told = ", ".join(f"seed {seed} {change:+.2f}" for seed, change in changes.items())
        lines.append(f"Top-1 by seed: {told}.")
    if pd.notna(top1["p"]):
        paired = f", paired t-test {top1['p_paired']:.4f}" if pd.notna(top1["p_paired"]) else ""
        needed = needed_in_words(top1["seeds_needed"]) if top1["verdict"].startswith(UNCLEAR) else ""
        lines.append(f"Top-1, p: Welch {top1['p']:.4f}, after Holm's correction {top1['p_holm']:.4f}{paired}.")
        lines.append(f"Top-1 is {top1['verdict']}{needed}; margin {top1['margin']:g} points.")
    if pd.notna(top1["test_se"]):
        seeds = format_or_blank(top1["seed_se"], ".2f")
        noise = f"{seeds} points from the seeds and " if seeds else ""
        lines.append(
            f"Standard error of its change: {noise}{top1['test_se']:.2f} from the choice of test images. McNemar's "
            f"test tells {top1['mcnemar_told']:.0f} of {top1['mcnemar_pairs']:.0f} seeds' pairs of networks apart."
        )
    if not top1["n"] and not top1["n_against"]:
        lines.append("Neither has a finished run yet: 'run' trains them.")
    elif comparison.family > 1:
        lines.append(f"Holm's correction and the verdicts are over the {comparison.family} steps of the study.")
    old, new = comparison.paper
    if old is not None and new is not None:
        lines.append(f"The paper, on ImageNet: {old:.2f} -> {new:.2f}, change {new - old:+.2f}.")
    return lines


def print_verdicts(judged: pd.DataFrame, console: Console) -> None:
    """Print the verdicts on one metric, a row a step."""
    if judged.empty:
        console.print("There is no step to judge: no rung here has one before it.")
        return
    metric = metric_of(judged["metric"].iloc[0])
    table = _narrow_table("step", "change", "95% interval", "p", "verdict", "needed")
    rows: list[Any] = list(judged.itertuples())
    for row in rows:
        needed = "" if pd.isna(row.seeds_needed) else f"{min(row.seeds_needed, MOST_SEEDS):,.0f}"
        needed = f">{needed}" if row.seeds_needed > MOST_SEEDS else needed
        change, p = format_or_blank(row.delta, f"+{metric.digits}"), format_or_blank(row.p_holm, ".4f")
        table.add_row(row.step, change, _interval(row, metric.digits), p, _short(row.verdict), needed)
    console.print(table)
    seeds = judged.loc[judged["p"].notna(), ["n", "n_against"]].min(axis=1)
    note = (
        f"Changes of {metric.label} from the rung before"
        + (f", at {seeds.min()}{f' to {seeds.max()}' if seeds.max() > seeds.min() else ''} seeds" if len(seeds) else "")
        + f". p: Welch's test after Holm's correction. needed: seeds a rung that would tell a change of this size with "
        f"a probability of {POWER:.0%}. no different: within {judged['margin'].iloc[0]:g}."
    )
    console.print(note, highlight=False, markup=False)


def _narrow_table(*columns: str) -> Table:
    """Return an empty table that fits a terminal of 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 or name == "verdict" else "right", no_wrap=True)
    return table


def _interval(row: Any, digits: str) -> str:
    return "" if pd.isna(row.ci_low) else f"{row.ci_low:+{digits}}, {row.ci_high:+{digits}}"


def _short(verdict: str) -> str:
    """Return a verdict without what other columns say."""
    return verdict.partition(" at ")[0].partition(":")[0].partition(" within ")[0]


def format_or_blank(value: float | None, form: str) -> str:
    """Return a number in a format, or nothing for what is missing."""
    return "" if value is None or pd.isna(value) else format(value, form)


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
