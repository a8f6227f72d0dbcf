"""A study that is trained in rounds: what it is to spend on which steps, and which runs come next.

The loop over rounds is in `roadmap.cli.run_commands`. Nothing is remembered between rounds but what lies in the runs
folder, so that a command that was killed, one on another machine, and the job that starts the next round on Slurm all
go on from the same place.
"""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import amount_of, jobs_of, margin_of, study_of, with_first_seeds
from roadmap.common.errors import UserError, unknown
from roadmap.common.formats import change, interval
from roadmap.common.machine import Machine, this_machine
from roadmap.common.process_group import under_torchrun
from roadmap.runs.run_folder import is_done, read_result
from roadmap.study.budget import Budget
from roadmap.study.rounds import read_rounds, unfinished

if TYPE_CHECKING:
    from analysis.stats.allocation import Allocation
    from roadmap.study.plan import PlannedRun, Study
    from roadmap.study.rounds import Rounds


@dataclass(frozen=True)
class Goal:
    """What a study in rounds is to answer, and for how much.

    Attributes:
        budget: How much; None spends what it takes.
        steps: The steps to answer.
        margin: Changes of top-1 within it are as good as none.
    """

    budget: Budget | None
    steps: tuple[str, ...]
    margin: float

    @property
    def meter(self) -> Budget:
        """What counts the costs: the budget, or runs."""
        return self.budget or Budget("", float("inf"))


def goal_of(options: Namespace, study: "Study") -> Goal | None:
    """Return what a study in rounds is to reach; None where its number of seeds is fixed.

    Raises:
        UserError: If the options contradict each other.
    """
    from analysis.metrics import METRICS

    text = options.budget
    if text is None and options.seeds is None and not options.until_answered:
        text = study.recipe.budget
    if text is None and not options.until_answered:
        for name in ("step", "price"):
            if getattr(options, name) and options.command in ("run", "launch"):
                raise UserError(f"--{name}: goes with --budget or --until-answered. Say one of them, or leave it out.")
        return None
    if options.seeds is not None:
        raise UserError("--seeds: is a fixed number of seeds, which a budget chooses by itself. Leave one of them out.")
    if under_torchrun():
        raise UserError("--budget: torchrun has started the processes of one run. Use --executor local or slurm.")
    if study.layout.fraction:
        raise UserError("--budget: of --design fractional every network needs its seeds. Say how many with --seeds.")
    steps = [step for step, _ in pairs_in(study)]
    if not steps:
        raise UserError("--budget: answers steps, but of none both rungs are here. Name the rung before it too.")
    for name in options.step or ():
        if name not in steps:
            raise unknown("step", name, steps)
    margin = margin_of(options)
    return Goal(
        None if text is None else _budget(options, text),
        tuple(step for step in steps if not options.step or step in options.step),
        METRICS["top1"].margin if margin is None else margin,
    )


def _budget(options: Namespace, text: str) -> Budget:
    jobs = jobs_of(options) if options.executor == "slurm" or options.device else _machine(options).jobs
    return Budget.parse(text, jobs=jobs, price=amount_of(options.price, "--price"))


def _machine(options: Namespace) -> Machine:
    return this_machine(jobs_of(options))


def study_in_rounds(options: Namespace, *, assume_data: bool = False) -> "tuple[Study, Rounds]":
    """Return a study as its rounds have it so far, and these; before the first, with one seed."""
    rounds = read_rounds(study_of(with_first_seeds(options, 1), assume_data=assume_data))
    most = max(rounds.seeds[-1].values(), default=1) if rounds.seeds else 1
    return study_of(with_first_seeds(options, most), assume_data=assume_data), rounds


def runs_of(study: "Study", rounds: "Rounds", *, failed: bool) -> "list[PlannedRun]":
    """Return the runs of a study's rounds, of those that failed only if they are to be tried again."""
    given = rounds.seeds[-1] if rounds.seeds else {}
    runs = [run for run in study.planned() if any(run.config.seed < given.get(rung, 0) for rung in run.rungs)]
    return [run for run in runs if failed or (read_result(run.folder) or {}).get("state") != "failed"]


def is_over(study: "Study", rounds: "Rounds") -> bool:
    """Whether all runs of all rounds have ended."""
    return not rounds.seeds or not unfinished(study, rounds.seeds[-1])


def choose(options: Namespace, study: "Study", rounds: "Rounds", goal: Goal) -> "Allocation":
    """Judge a study's steps after its last round, and choose the next round's seeds."""
    from analysis.stats.allocation import next_seeds
    from analysis.stats.sequential import MOST_SEEDS

    pairs = [pair for pair in pairs_in(study) if pair[0] in goal.steps]
    wanted = {rung for pair in pairs for rung in pair}
    costs = {rung: cost for rung, cost in costs_of(options, study, goal.meter).items() if rung in wanted}
    spent = goal.meter.spent(runs_of(study, rounds, failed=True))
    left = goal.budget.limit - spent if goal.budget else 2 * MOST_SEEDS * sum(costs.values())
    there = rounds.seeds[-1] if rounds.seeds else {}
    new = {rung: cost for rung, cost in costs.items() if there and not there.get(rung)}
    if new and (first := next_seeds({}, [], [], new, max(left, 0.0))).seeds:  # more steps are sought than before
        return first
    return next_seeds(values_of(study, rounds), pairs, rounds.seeds, costs, max(left, 0.0), margin=goal.margin)


def pairs_in(study: "Study") -> list[tuple[str, str]]:
    """Return every step of a study and the rung that it is judged against, references too, where it has both."""
    from analysis.verdicts import pairs_of, reference_pairs

    there = {rung.id for rung in study.rungs}
    return [pair for pair in pairs_of(study.rungs) + reference_pairs(study.rungs) if there.issuperset(pair)]


def values_of(study: "Study", rounds: "Rounds") -> dict[str, list[float]]:
    """Return the top-1 of each rung's seeds, NaN for those that did not finish; nothing before the first round."""
    from analysis.run_frames import collect
    from analysis.verdicts import values_in_order

    if not rounds.seeds:
        return {}
    runs = collect(study)
    done = runs.loc[runs["state"] == "finished", ["rung", "seed", "top1"]]
    by_seed = {str(rung): rows.set_index("seed")["top1"] for rung, rows in done.groupby("rung")}
    return values_in_order(by_seed, rounds.seeds[-1])


def answers_of(study: "Study", goal: Goal) -> dict[str, str]:
    """Return what is known of each step after the last look: its change, interval and answer; nothing before."""
    from analysis.run_frames import collect
    from analysis.sentences import marked
    from analysis.verdicts import verdict_table

    if not study.looks or study.recipe.means_nothing:
        return {}
    pairs = [pair for pair in pairs_in(study) if pair[0] in study.sought]
    judged = verdict_table(collect(study), pairs, margin=goal.margin, looks=study.looks)
    rows: list[Any] = list(judged.itertuples())
    return {
        row.step: f"{change(row.delta, '.2f')} ({interval(row.ci_low, row.ci_high, '.2f')}) {marked(row.answer)}"
        for row in rows
        if row.n and row.n_against
    }


def costs_of(options: Namespace, study: "Study", meter: Budget) -> dict[str, float]:
    """Return what a run of each rung costs: as those done here did, else as `plan` forecasts it."""
    from roadmap.measuring.forecast import forecast

    if not meter.per_device_s:
        return {rung.id: 1.0 for rung in study.rungs}
    seconds = forecast(study, _machine(options)).seconds
    return {rung.id: meter.cost(seconds[study.configs[rung.id, 0].id]) for rung in study.rungs}


def begin_round(study: "Study", rounds: "Rounds", goal: Goal, chosen: "Allocation") -> None:
    """Write the next round, unless another command has just begun it.

    Raises:
        UserError: If it cannot be written, or a damaged file is in its place.
    """
    seeds = next_counts(study, rounds, chosen.seeds)
    if not rounds.begin(study, seeds, goal.steps) and len(read_rounds(study).seeds) == len(rounds.seeds):
        raise UserError(
            f"{rounds.folder}: the file of round {len(rounds.seeds) + 1} is damaged. Move it away, and the round is "
            "chosen again."
        )


def next_counts(study: "Study", rounds: "Rounds", more: Mapping[str, int]) -> dict[str, int]:
    """Return how many seeds each rung has with a next round; seeds that are there already come with it for nothing."""
    before = rounds.seeds[-1] if rounds.seeds else {}
    counts = {rung.id: before.get(rung.id, 0) + more.get(rung.id, 0) for rung in study.rungs}
    for rung in counts:
        first = study.configs[rung, 0]
        while is_done(study.folder(first.with_seed(counts[rung]))):
            counts[rung] += 1
    return counts


def next_runs(options: Namespace, goal: Goal) -> "list[PlannedRun]":
    """Return the runs of the round at hand or, where that is over, of the next one, without beginning it."""
    study, rounds = study_in_rounds(options)
    if not is_over(study, rounds):
        return runs_of(study, rounds, failed=True)
    chosen = choose(options, study, rounds, goal)
    counts = next_counts(study, rounds, chosen.seeds) if chosen.seeds else rounds.seeds[-1] if rounds.seeds else {}
    whole = with_first_seeds(options, max(counts.values(), default=1))
    planned = study_of(Namespace(**vars(whole) | {"in_rounds": False})).planned()
    return [run for run in planned if any(run.config.seed < counts.get(rung, 0) for rung in run.rungs)]


def describe_round(study: "Study", rounds: "Rounds", goal: Goal) -> str:
    """Say what the round at hand trains."""
    now, before = rounds.seeds[-1], rounds.seeds[-2] if len(rounds.seeds) > 1 else {}
    more = {rung: n - before.get(rung, 0) for rung, n in now.items() if n > before.get(rung, 0)}
    if not more:  # of a larger study, of which this one is a part
        return f"Round {len(rounds.seeds)}: no seeds of these rungs."
    fewest, most = min(more.values()), max(more.values())
    seeds = f"{most} more seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} more seeds"
    who = "every rung" if len(more) == len(study.rungs) else ", ".join(more)
    spent = goal.meter.spent(runs_of(study, rounds, failed=True))
    so_far = f" Spent so far: {goal.meter.in_words(spent)}." if goal.budget and len(rounds.seeds) > 1 else ""
    return f"Round {len(rounds.seeds)}: {seeds} of {who}.{so_far}"


def describe_answers(chosen: "Allocation") -> str:
    """Say how many steps are answered so far."""
    from analysis.stats.sequential import ANSWERED

    answered = int(chosen.steps["verdict"].isin(ANSWERED).sum())
    return f"{answered} of {len(chosen.steps)} steps {'is' if answered == 1 else 'are'} answered"


def describe_end(study: "Study", rounds: "Rounds", goal: Goal, last: "Allocation") -> str:
    """Say why there is no next round, and what was spent."""
    from analysis.stats.allocation import Stop

    assert last.stop
    known = describe_answers(last)
    if not rounds.seeds:
        assert goal.budget
        return f"The budget, {goal.budget.text}, does not pay for two seeds of every rung, which every answer needs."
    number = len(rounds.seeds)
    spent = goal.meter.spent(runs_of(study, rounds, failed=True))
    cost = goal.meter.in_words(spent) if goal.budget else f"{spent:,.0f} runs"
    why = {
        Stop.ANSWERED: f"All {len(last.steps)} steps are answered",
        Stop.HOPELESS: f"{known}, and no other can be expected to be with what is left",
        Stop.SPENT: f"The budget is spent: {known}",
    }[last.stop]
    return f"{why}. {number} round{'s' if number > 1 else ''}, {cost}."
