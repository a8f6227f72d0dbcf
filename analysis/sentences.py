"""What the answers are in words: of one step, and of a whole ladder in the sentence that every surface leads with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics import metric_of
from analysis.stats.answers import Answer
from analysis.stats.differences import Worth
from roadmap.common.formats import clock

# So that colour is not alone in saying it.
MARKS = {
    Answer.HELPS: "▲",
    Answer.HURTS: "▼",
    Answer.NO_EFFECT: "=",
    Answer.UNDECIDED: "?",
    Answer.NOT_TESTED: "\N{EN DASH}",
}
WORTH_MARKS = {  # of a difference between two studies
    Worth.MORE_HERE: "▲",
    Worth.MORE_THERE: "▼",
    Worth.SAME: "=",
    Worth.UNDECIDED: "?",
    Worth.NOT_TESTED: "\N{EN DASH}",
}
ANSWERED = (Answer.HELPS, Answer.HURTS, Answer.NO_EFFECT)
MOST_NAMES = 20  # in a sentence
# More seeds a rung than this many, or than this many times those that there are, are not suggested.
FEW_SEEDS, TIMES_THE_SEEDS = 20, 4


@dataclass(frozen=True)
class MoreRuns:
    """Further runs, and the undecided steps that they would answer with a probability of 80%, were each change true.

    Attributes:
        steps: The steps.
        runs: How many runs of how many rungs together.
        seconds: What they take, one after the other; None where no run's time is known.
    """

    steps: tuple[str, ...]
    runs: int
    seconds: float | None


def in_words(answer: Answer, row: Any, samples: str = "seeds") -> str:
    """Return an answer as a table prints it.

    Args:
        answer: The answer.
        row: The change, with the fields n, n_against, against and margin of `verdicts.VERDICT_COLUMNS`.
        samples: What n counts.
    """
    n = int(min(row.n, row.n_against))
    if answer == Answer.NO_EFFECT:
        return f"{answer} within {row.margin:g}"
    if answer == Answer.UNDECIDED:
        return f"{answer} at {count(n, samples)}"
    if answer == Answer.NOT_TESTED:
        if not n:
            return f"{answer}: no result" + (f" of {row.against} here" if row.n and not row.n_against else "")
        return f"{answer}: " + (f"one {samples.removesuffix('s')}" if n < 2 else "no spread")
    return str(answer)


def marked(answer: str) -> str:
    """Return an answer as a mark and a word; nothing for nothing."""
    return f"{MARKS[Answer(answer)]} {answer}" if answer else ""


def is_answered(answers: "pd.Series[Any]") -> "pd.Series[bool]":
    """Return of each answer whether it is one: helps, hurts or no effect."""
    return answers.isin([str(answer) for answer in ANSWERED])


def headline(verdicts: pd.DataFrame, *, noun: str = "step", more: MoreRuns | None = None, where: str = "") -> str:
    """Say how many steps are answered, which, and what would answer the rest.

    Args:
        verdicts: The changes of one metric, with the columns of `verdicts.VERDICT_COLUMNS`.
        noun: What a change is called: a step, or on anything but a ladder a change.
        more: What `more_runs` found.
        where: Stands before the sentence, such as "In the paper: "; nothing where the runs are the reader's own.
    """
    if verdicts.empty:
        return f"{where}There is no {noun} to judge: no rung here has one before it."
    steps = {answer: [str(step) for step in verdicts.loc[verdicts["answer"] == answer, "step"]] for answer in MARKS}
    metric = metric_of(str(verdicts["metric"].iloc[0]))
    total, answered = len(verdicts), sum(len(steps[answer]) for answer in ANSWERED)
    tested = verdicts[verdicts["answer"] != Answer.NOT_TESTED]
    at = f" at {_seeds(tested, metric.samples)}" if len(tested) else ""
    margin = f"{verdicts['margin'].iloc[0]:g} {metric.unit}".strip()
    if total == 1:
        return where + _one(str(verdicts["step"].iloc[0]), verdicts.iloc[0], at, margin, more)
    parts = [
        _part(steps[Answer.HELPS], "helps", "help"),
        _part(steps[Answer.HURTS], "hurts", "hurt"),
        _part(steps[Answer.NO_EFFECT], f"has no effect within {margin}", f"have no effect within {margin}"),
    ]
    found = _listed([part for part in parts if part])
    if not answered:
        text = f"None of the {total} {noun}s is answered{at}"
    elif answered == total:
        text = f"All {total} {noun}s are answered{at}"
    else:
        text = f"{answered} of {total} {noun}s {'is' if answered == 1 else 'are'} answered{at}"
    text += f": {found}" if found else ""
    rest = [text + _more(more, len(steps[Answer.UNDECIDED]), answered) + "."]
    if missing := steps[Answer.NOT_TESTED]:
        one = verdicts.loc[verdicts["answer"] == Answer.NOT_TESTED, ["n", "n_against"]].min(axis=1)
        why = "results are missing" if (one == 0).all() else "two seeds or more are needed"
        few = f" ({names(missing)})" if len(missing) <= 3 else ""
        rest.append(f"{_number(len(missing), total)} not tested{few}: {why}.")
    return where + " ".join(rest)


def published_headline(verdicts: pd.DataFrame) -> str:
    """Return the sentence on the paper's own steps (`verdicts.published_verdicts`)."""
    return headline(verdicts, where="In the paper's own numbers: ")


def _one(step: str, row: Any, at: str, margin: str, more: MoreRuns | None) -> str:
    """Say the answer of a step that is alone."""
    answer = Answer(row["answer"])
    if answer == Answer.NO_EFFECT:
        return f"{step} has no effect within {margin}{at}."
    if answer == Answer.UNDECIDED:
        return f"{step} is undecided{at}{_more(more, 1, 0)}."
    if answer == Answer.NOT_TESTED:
        return f"{step} is {row['verdict']}."
    return f"{step} {answer}{at}."


def _more(more: MoreRuns | None, undecided: int, answered: int) -> str:
    """Say what would answer undecided steps."""
    if not undecided:
        return ""
    if more is None:
        return ""
    took = "" if more.seconds is None else f" ({clock(more.seconds)}, one at a time)"
    if len(more.steps) == undecided == 1:
        what = "it" if not answered else "the one that is undecided"
    elif len(more.steps) == undecided:
        what = f"all {undecided} that are undecided"
    else:
        what = f"{len(more.steps)} of the {undecided} that are undecided"
    return f"; about {count(more.runs, 'more runs')}{took} would answer {what}"


def metric_headline(verdicts: pd.DataFrame) -> str:
    """Say in a few words how many changes of one metric are answered; nothing where there is nothing to test."""
    if verdicts.empty or not (verdicts["answer"] != "").any():
        return ""
    label = metric_of(str(verdicts["metric"].iloc[0])).label
    return f"{label}: {int(is_answered(verdicts['answer']).sum())} of {len(verdicts)} answered"


def more_runs(verdicts: pd.DataFrame, run_s: Mapping[str, float] | None = None) -> MoreRuns | None:
    """Return which undecided steps few further seeds would answer, and what these cost; None where it would take many.

    A rung that several of the steps share is trained once for all of them.

    Args:
        verdicts: The changes of one metric, with the columns of `verdicts.VERDICT_COLUMNS`.
        run_s: How long a run of each rung takes, in seconds.
    """
    undecided = verdicts[verdicts["answer"] == Answer.UNDECIDED]
    if undecided.empty:
        return None
    seeds = undecided[["n", "n_against"]].min(axis=1)
    wanted = undecided["seeds_needed"].clip(lower=seeds + 1)
    near = undecided[wanted <= np.maximum(FEW_SEEDS, TIMES_THE_SEEDS * seeds)]
    if near.empty:
        return None
    missing: dict[str, int] = {}
    rows: list[Any] = list(near.itertuples())
    for row, needed in zip(rows, wanted[near.index], strict=True):
        for rung, n in ((str(row.step), row.n), (str(row.against), row.n_against)):
            missing[rung] = max(missing.get(rung, 0), math.ceil(needed) - int(n), 0)
    known = {rung: time for rung, time in (run_s or {}).items() if math.isfinite(time)}
    seconds = sum(n * known[rung] for rung, n in missing.items()) if missing.keys() <= known.keys() else None
    return MoreRuns(tuple(near["step"]), sum(missing.values()), seconds)


def names(steps: Sequence[str]) -> str:
    """Return names with commas, the last ones counted where they are many."""
    if len(steps) <= MOST_NAMES:
        return ", ".join(steps)
    return f"{', '.join(steps[: MOST_NAMES - 1])} and {len(steps) - MOST_NAMES + 1} more"


def count(n: int, things: str) -> str:
    """Return a number with what it counts, in the singular where it is one."""
    return f"{n:,} {things.removesuffix('s') if n == 1 else things}"


def _part(steps: Sequence[str], one: str, several: str) -> str:
    return f"{len(steps)} {one if len(steps) == 1 else several} ({names(steps)})" if steps else ""


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def _number(n: int, total: int) -> str:
    if n == total:
        return "All are" if n > 1 else "It is"
    return f"{n} {'is' if n == 1 else 'are'}"


def _seeds(tested: pd.DataFrame, samples: str) -> str:
    """Return how many seeds the tested changes have."""
    n = tested[["n", "n_against"]].min(axis=1).to_numpy(int)
    least, most = int(n.min()), int(n.max())
    return count(least, samples) if least == most else f"{least} to {most} {samples}"
