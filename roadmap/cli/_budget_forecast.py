"""What `plan --budget` says before a single run: how many steps a budget answers, and which."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from roadmap.cli._goals import Goal, goal_of, pairs_in
from roadmap.cli._rounds import runs_of, study_in_rounds, values_of
from roadmap.cli.options import study_of, with_seeds_found
from roadmap.cli.terminal import make_table, print_json, print_lines, print_study
from roadmap.common.errors import UserError
from roadmap.common.paths import ROOT
from roadmap.study.plan import ASSUMED

if TYPE_CHECKING:
    from analysis.stats.forecast import Forecast
    from roadmap.measuring.forecast import Forecast as Times
    from roadmap.study.plan import Study

Pairs = Sequence[tuple[str, str]]
Summary = tuple[Mapping[str, float], Mapping[str, float], Mapping[str, int]]  # mean, standard deviation, seeds of rungs
SHARES = (0.25, 0.5, 1.0, 2.0)  # of the budget
BAR = 20  # characters of the curve


@dataclass(frozen=True)
class Expected:
    """What a forecast takes the rungs to be.

    Attributes:
        mean: Top-1 of each rung, percent.
        noise: Its standard deviation over seeds.
        seeds: How many seeds the mean is of.
        source: Where that is from.
    """

    mean: Mapping[str, float]
    noise: Mapping[str, float]
    seeds: Mapping[str, int]
    source: str


def plan_budget(options: Namespace, study: "Study", times: "Times", console: Console) -> None:
    """Print what a budget is expected to answer: a quarter of it, half, all and twice as much; and by equal seeds."""
    goal = goal_of(options, study)
    if goal is None or goal.budget is None:
        raise UserError("--until-answered: is for run and launch. A forecast needs a --budget.")
    pairs = [pair for pair in pairs_in(study) if pair[0] in goal.steps]
    expected = expect(options, study, pairs)
    rungs = dict.fromkeys(rung.id for rung in study.rungs if any(rung.id in pair for pair in pairs))
    costs = {rung: goal.meter.cost(times.seconds[study.configs[rung, study.seeds[0]].id]) for rung in rungs}
    rounds, equal = _forecast(options, goal, expected, pairs, costs)
    if options.json:
        print_json(_rows(rounds, equal, goal))
        return
    print_study(study, console)
    print_lines([f"What a budget answers, forecast from {expected.source}; times {times.source}."], console)
    console.print(_curve_table(rounds, equal, goal))
    console.print(_step_table(rounds, equal))
    twice = f"{SHARES[-1] * goal.budget.limit:,g} {goal.budget.unit}"
    print_lines(
        [
            "Answered: the mean over drawn studies, and in brackets what eight in ten lie between. Equal seeds: the "
            f"same number of every rung, judged once. Chance: of an answer with {twice}."
        ],
        console,
    )


def expect(options: Namespace, study: "Study", pairs: Pairs) -> Expected:
    """Return what the rungs are expected to be: as the runs that are there say, else a record, else the paper.

    Raises:
        UserError: If none of them knows the noise and every rung.
    """
    from analysis.stats.forecast import noise_of_rungs

    for summary, source, rounded_to in _sources(options, study):
        noise = noise_of_rungs(*summary, pairs, step=rounded_to)
        if noise.keys() >= {rung for pair in pairs for rung in pair}:
            return Expected(summary[0], noise, summary[2], source)
    raise UserError(
        f"--budget: nothing says how much the rungs of '{study.base}' differ from seed to seed: there are no two runs "
        "of each, no record and no published numbers. 'run --budget' begins with a few seeds of each rung; plan then."
    )


def _sources(options: Namespace, study: "Study") -> list[tuple[Summary, str, float]]:
    """Return means, deviations and seeds from each source, the best first: (them, its name, what it is rounded to)."""
    from analysis.run_frames import collect
    from analysis.verdicts import PRINTED

    assumed = any(config.data.name == ASSUMED for config in study.configs.values())
    found = study if assumed else study_of(with_seeds_found(options))
    sources = [(_summary(collect(found)), "the runs that are here", 0.0)]
    folder = options.record or ROOT / "records" / f"{study.base}-{study.recipe.name}"
    if (folder / "results.csv").is_file():
        import pandas as pd

        sources.append((_summary(pd.read_csv(folder / "results.csv")), f"the record {folder.name}", 0.0))
    elif options.record:
        raise UserError(f"--record: {folder} has no results.csv. Name the folder of a record.")
    rungs, seeds = study.ladder.climb(study.base), study.ladder.bases[study.base].seeds
    mean = {rung.id: rung.paper.top1 for rung in rungs if rung.paper.top1 is not None}
    std = {rung.id: rung.paper.top1_std for rung in rungs if rung.paper.top1_std is not None}
    counts = {rung: seeds if rung in std else 1 for rung in mean}
    return [*sources, ((mean, std, counts), "the paper's means and deviations", PRINTED)]


def _summary(runs: Any) -> Summary:
    from analysis.stats.answers import summarize

    done = runs.loc[runs["state"] == "finished"].dropna(subset=["top1"])
    return summarize({str(rung): rows["top1"].to_numpy(float) for rung, rows in done.groupby("rung")})


def _forecast(
    options: Namespace, goal: Goal, expected: Expected, pairs: Pairs, costs: Mapping[str, float]
) -> "tuple[Forecast, Forecast]":
    """Return what shares of the budget answer, by rounds that go on from those that are there and by equal seeds."""
    from analysis.stats.forecast import forecast

    assert goal.budget
    study, rounds = study_in_rounds(options, assume_data=True)
    spent = goal.budget.spent(runs_of(study, rounds, failed=True))
    budgets = [share * goal.budget.limit for share in SHARES]
    looks, values = study.looks, values_of(study, rounds)
    if looks:
        values = {rung: some[: looks[-1].get(rung, 0)] for rung, some in values.items() if rung in costs}
    by_rounds = forecast(
        expected.mean, expected.noise, pairs, costs, [max(budget - spent, 0.0) for budget in budgets],
        seeds=expected.seeds, values=values if looks else None, looks=looks, margin=goal.margin,
    )  # fmt: skip
    equal = forecast(
        expected.mean, expected.noise, pairs, costs, budgets, seeds=expected.seeds, equal_seeds=True, margin=goal.margin
    )
    return by_rounds, equal


def _rows(rounds: "Forecast", equal: "Forecast", goal: Goal) -> list[dict[str, Any]]:
    """Return the curve as JSON-able rows."""
    assert goal.budget
    rows = []
    for share, ours, theirs in zip(SHARES, _lines(rounds), _lines(equal), strict=True):
        budget = {"share": share, "budget": share * goal.budget.limit, "unit": goal.budget.unit}
        mine = {name: getattr(ours, name) for name in ("answered", "low", "high", "spent", "runs")}
        rows.append(budget | mine | {"answered_by_equal_seeds": theirs.answered})
    return rows


def _lines(ahead: "Forecast") -> list[Any]:
    return list(ahead.curve.itertuples())


def _curve_table(rounds: "Forecast", equal: "Forecast", goal: Goal) -> Table:
    assert goal.budget
    steps, cells = len(rounds.steps), []
    for share, ours, theirs in zip(SHARES, _lines(rounds), _lines(equal), strict=True):
        bar = "█" * round(BAR * ours.answered / steps)
        amount = f"{share * goal.budget.limit:,g}"
        answered = f"{ours.answered:.1f} ({ours.low:.0f} to {ours.high:.0f})"
        cells.append((f"{share:.0%}", amount, answered, bar, f"{ours.runs:.0f}", f"{theirs.answered:.1f}"))
    columns = ("of it", goal.budget.unit, f"answered of {steps}", "", "new runs", "by equal seeds")
    return make_table(columns, cells, numbers=[name for name in columns if name])


def _step_table(rounds: "Forecast", equal: "Forecast") -> Table:
    chances = zip(rounds.steps["step"], rounds.steps["chance"], equal.steps["chance"], strict=True)
    columns = ("step", "chance", "by equal seeds")
    cells = [(step, f"{ours:.0%}", f"{theirs:.0%}") for step, ours, theirs in chances]
    return make_table(columns, cells, numbers=columns[1:])
