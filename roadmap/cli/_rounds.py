"""What is trained in rounds, classifiers or a task on them: the rounds, what comes next, and how it is told.

Nothing is remembered between rounds but what lies in the runs folder, so that a command that was killed, one on another
machine, and the job that starts the next round on Slurm all go on from the same place.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from math import nan
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console

from roadmap.cli._goals import Goal, pairs_in
from roadmap.cli.options import jobs_of, study_of, with_all_seeds_found, with_first_seeds
from roadmap.cli.terminal import print_lines
from roadmap.common.errors import UserError
from roadmap.common.formats import change, interval
from roadmap.common.machine import this_machine
from roadmap.runs.run_folder import is_done
from roadmap.study.networks import CLASSIFIERS, Networks
from roadmap.study.rounds import first_seeds, read_rounds, unfinished

if TYPE_CHECKING:
    from analysis.stats.allocation import Allocation
    from roadmap.study.plan import PlannedRun, Study
    from roadmap.study.rounds import Rounds


def train_in_rounds(
    console: Console, options: Namespace, goal: Goal, train: "Callable[[Study, Rounds, list[PlannedRun]], bool]"
) -> "tuple[bool, list[PlannedRun]]":
    """Train round by round until nothing is left to do or to spend.

    What failed before this command is tried again, once; a network that neither finished nor failed ends it.

    Args:
        console: Where to say how it goes.
        options: The options.
        goal: What is to be reached.
        train: Trains what is missing of some runs in a round of a study; returns False if told to stop waiting.

    Returns:
        False if told to stop waiting, and the runs of all rounds.
    """
    first = True
    while True:
        study, rounds = study_in_rounds(options, goal.networks)
        runs = runs_of(study, rounds, failed=first)
        if rounds.seeds and (first or not is_over(study, rounds)):
            print_lines([describe_round(study, rounds, goal)], console)
            if not train(study, rounds, runs):
                return False, runs
            first = False
            if is_over(study, rounds):
                continue
            return True, runs_of(study, rounds, failed=True)
        chosen = choose(options, study, rounds, goal)
        if chosen.stop is not None:
            print_lines([describe_end(study, rounds, goal, chosen)], console)
            return True, runs_of(study, rounds, failed=True)
        if len(chosen.steps) and rounds.seeds:
            print_lines([f"{describe_answers(chosen)}."], console)
        begin_round(study, rounds, goal, chosen)


def study_in_rounds(
    options: Namespace, networks: Networks = CLASSIFIERS, *, assume_data: bool = False
) -> "tuple[Study, Rounds]":
    """Return a study as its rounds have it so far, and these; before the first, with one seed.

    For the rounds of a task, the study has all seeds of which there are classifiers.
    """
    if networks != CLASSIFIERS:
        study = study_of(with_all_seeds_found(options))
        return study, read_rounds(study, networks)
    rounds = read_rounds(study_of(with_first_seeds(options, 1), assume_data=assume_data))
    most = max(rounds.given.values(), default=1)
    return study_of(with_first_seeds(options, most), assume_data=assume_data), rounds


def runs_of(study: "Study", rounds: "Rounds", *, failed: bool) -> "list[PlannedRun]":
    """Return the runs of a study's rounds, of those that failed only if they are to be tried again."""
    given, outcome = rounds.given, rounds.networks.outcome
    runs = [run for run in study.planned() if any(run.config.seed < given.get(rung, 0) for rung in run.rungs)]
    return [run for run in runs if failed or (came := outcome(run.folder)) is None or came.state != "failed"]


def is_over(study: "Study", rounds: "Rounds") -> bool:
    """Whether it is known of all networks of all rounds what came of them."""
    return not unfinished(study, rounds.given, rounds.networks)


def choose(options: Namespace, study: "Study", rounds: "Rounds", goal: Goal) -> "Allocation":
    """Judge a study's steps after its last round, and choose the next round's seeds."""
    from analysis.stats.allocation import next_seeds
    from analysis.stats.sequential import MOST_SEEDS

    pairs = [pair for pair in pairs_in(study) if pair[0] in goal.steps]
    wanted = {rung for pair in pairs for rung in pair}
    costs = {rung: cost for rung, cost in costs_of(options, study, goal).items() if rung in wanted}
    spent = spent_in(study, rounds, goal)
    left = goal.budget.limit - spent if goal.budget else 2 * MOST_SEEDS * sum(costs.values())
    new = {rung: cost for rung, cost in costs.items() if rounds.seeds and not rounds.given.get(rung)}
    available = {} if goal.networks == CLASSIFIERS else seeds_to_have(study, pairs)
    # More steps are sought than before.
    if new and (first := next_seeds({}, [], [], new, max(left, 0.0), available=available)).seeds:
        return first
    return next_seeds(
        values_of(study, rounds), pairs, rounds.seeds, costs, max(left, 0.0), margin=goal.margin, available=available
    )


def seeds_to_have(study: "Study", pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return how many seeds of each rung a task can be given: as many as have classifiers.

    None of a rung with whose seeds no step can be answered, because there are too few of it or of all beside it.
    """
    from analysis.stats.allocation import FEWEST_SEEDS

    trained = {rung.id: first_seeds(study, rung.id, is_done) for rung in study.rungs}
    useful = {rung for pair in pairs if all(trained[each] >= FEWEST_SEEDS for each in pair) for rung in pair}
    return {rung: n if rung in useful else 0 for rung, n in trained.items()}


def spent_in(study: "Study", rounds: "Rounds", goal: Goal) -> float:
    """Return what the networks of a study's rounds have cost."""
    return goal.meter.spent(runs_of(study, rounds, failed=True), rounds.networks)


def values_of(study: "Study", rounds: "Rounds") -> dict[str, list[float]]:
    """Return what each rung's seeds are judged by, NaN for those that did not finish; nothing before round 1."""

    def value(rung: str, seed: int) -> float:
        config = study.configs.get((rung, seed))
        outcome = config and rounds.networks.outcome(study.folder(config))
        return outcome.value if outcome else nan

    return {rung: [value(rung, seed) for seed in range(n)] for rung, n in rounds.given.items()}


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


def costs_of(options: Namespace, study: "Study", goal: Goal) -> dict[str, float]:
    """Return what a run of each rung costs: as those done here did, else as `plan` forecasts it."""
    from roadmap.measuring.forecast import forecast

    meter = goal.meter
    if not meter.per_device_s:
        return {rung.id: 1.0 for rung in study.rungs}
    if goal.networks != CLASSIFIERS:
        return {rung: meter.cost(seconds) for rung, seconds in _seconds_of_task(study, goal).items()}
    seconds = forecast(study, this_machine(jobs_of(options))).seconds
    return {rung.id: meter.cost(seconds[study.configs[rung.id, 0].id]) for rung in study.rungs}


def _seconds_of_task(study: "Study", goal: Goal) -> dict[str, float]:
    """Return what a task takes on each rung: as on its seeds that are done, else as on others for each multiply-add.

    Raises:
        UserError: If it is done on no network yet.
    """
    runs = study.planned()
    took = {
        run.config.id: outcome.device_s
        for run in runs
        if (outcome := goal.networks.outcome(run.folder)) and outcome.state == "finished" and outcome.device_s
    }
    if not took:
        raise UserError(
            f"--budget: '{goal.meter.text}' cannot be counted: how long the task takes is known once it is done on a "
            "network. Do it on one first, with --only RUNG --seeds 0, or give a budget in runs, such as 60runs."
        )
    macs = {run.config.id: run.macs for run in runs}
    per_mac = sum(took.values()) / sum(macs[run] for run in took)
    own = {
        rung.id: [took[run] for run in (study.configs[rung.id, seed].id for seed in study.seeds) if run in took]
        for rung in study.rungs
    }
    return {rung: fmean(s) if s else per_mac * macs[study.configs[rung, 0].id] for rung, s in own.items()}


def begin_round(study: "Study", rounds: "Rounds", goal: Goal, chosen: "Allocation") -> None:
    """Write the next round, unless another command has just begun it.

    Raises:
        UserError: If it cannot be written, or a damaged file is in its place.
    """
    seeds = next_counts(study, rounds, chosen.seeds)
    begun = rounds.begin(study, seeds, goal.steps)
    if not begun and len(read_rounds(study, rounds.networks).seeds) == len(rounds.seeds):
        raise UserError(
            f"{rounds.folder}: the file of round {len(rounds.seeds) + 1} is damaged. Move it away, and the round is "
            "chosen again."
        )


def next_counts(study: "Study", rounds: "Rounds", more: Mapping[str, int]) -> dict[str, int]:
    """Return how many seeds each rung has with a next round; seeds that are there already come with it for nothing."""
    counts = {rung.id: rounds.given.get(rung.id, 0) + more.get(rung.id, 0) for rung in study.rungs}
    return {rung: first_seeds(study, rung, rounds.networks.is_done, start=n) for rung, n in counts.items()}


def next_runs(options: Namespace, goal: Goal) -> "list[PlannedRun]":
    """Return the runs of the round at hand or, where that is over, of the next one, without beginning it."""
    study, rounds = study_in_rounds(options)
    if not is_over(study, rounds):
        return runs_of(study, rounds, failed=True)
    chosen = choose(options, study, rounds, goal)
    counts = next_counts(study, rounds, chosen.seeds) if chosen.seeds else rounds.given
    whole = with_first_seeds(options, max(counts.values(), default=1))
    planned = study_of(Namespace(**vars(whole) | {"in_rounds": False})).planned()
    return [run for run in planned if any(run.config.seed < counts.get(rung, 0) for rung in run.rungs)]


def describe_round(study: "Study", rounds: "Rounds", goal: Goal) -> str:
    """Say what the round at hand trains."""
    now, before = rounds.given, rounds.seeds[-2] if len(rounds.seeds) > 1 else {}
    more = {rung: n - before.get(rung, 0) for rung, n in now.items() if n > before.get(rung, 0)}
    if not more:  # of a larger study, of which this one is a part
        return f"Round {len(rounds.seeds)}: no seeds of these rungs."
    fewest, most = min(more.values()), max(more.values())
    seeds = f"{most} more seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} more seeds"
    who = "every rung" if len(more) == len(study.rungs) else ", ".join(more)
    spent = spent_in(study, rounds, goal)
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
    if not rounds.seeds and last.stop == Stop.NO_MORE:
        return f"No step has two classifiers of both of its rungs, which every answer needs. {_more_classifiers(study)}"
    if not rounds.seeds:
        assert goal.budget
        return f"The budget, {goal.budget.text}, does not pay for two seeds of every rung, which every answer needs."
    number = len(rounds.seeds)
    spent = spent_in(study, rounds, goal)
    cost = goal.meter.in_words(spent) if goal.budget else f"{spent:,.0f} runs"
    why = {
        Stop.ANSWERED: f"All {len(last.steps)} steps are answered",
        Stop.HOPELESS: f"{known}, and no other can be expected to be with what is left",
        Stop.SPENT: f"The budget is spent: {known}",
        Stop.NO_MORE: f"{known}, and the others need more seeds than there are classifiers",
    }[last.stop]
    more = f" {_more_classifiers(study)}" if last.stop == Stop.NO_MORE else ""
    return f"{why}. {number} round{'s' if number > 1 else ''}, {cost}.{more}"


def _more_classifiers(study: "Study") -> str:
    """Say how more classifiers are had: twice as many of each rung as of the one that has most."""
    from analysis.stats.allocation import FIRST_SEEDS, GROWTH

    most = max(first_seeds(study, rung.id, is_done) for rung in study.rungs)
    seeds = range(max(FIRST_SEEDS, int(GROWTH * most)))
    return f"'run --seeds {' '.join(map(str, seeds))}' trains more; the same command goes on with them."
