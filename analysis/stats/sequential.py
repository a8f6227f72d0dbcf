"""Answers of a ladder whose seeds come in rounds and which is looked at after each of them.

Whoever adds seeds because a step is undecided, and judges again, has another chance of a false answer at every look.
Here each step spends its part of alpha bit by bit as its seeds come (`spending`), until all is spent at `MOST_SEEDS`: a
ladder with any false answer, at whichever look, has a probability of at most alpha. A step is tested again once its
seeds have grown enough, so that looking costs nothing where nothing is new. An answer that was once given stays, and
the steps that are answered leave their part of alpha to the others.

Source: Maurer and Bretz 2013, "Multiple testing in group sequential trials using graphical approaches", for passing on
what answered questions no longer need; Jennison and Turnbull 1989, "Interim analyses: the repeated confidence interval
approach", for intervals that hold at all looks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.stats._noise import Floats
from analysis.stats.answers import ALPHA, Answer, Pairs, _Asked, _by_sharing, _Turn, summarize
from analysis.stats.spending import Spending

Look = Mapping[str, int]  # rung -> how many of its first seeds were there
ANSWERED = (Answer.HELPS, Answer.HURTS, Answer.NO_EFFECT)
MOST_SEEDS = 32  # of both rungs of a step, when all of its alpha is spent
LEAST = 2.0  # seeds of both rungs for the first test of a step
GROWN = 1.2  # a step is tested again when it has so many times the seeds of the last test


def judge_in_rounds(
    values: Mapping[str, ArrayLike],
    pairs: Pairs,
    looks: Sequence[Look],
    *,
    better: int = 1,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
    most_seeds: int = MOST_SEEDS,
) -> pd.DataFrame:
    """Judge the steps of a ladder that was looked at several times while its seeds came in.

    Args:
        values: Each rung's values in the order of its seeds, 0 first; NaN for a seed that has none.
        pairs: Steps to judge: a rung and the one it is compared with.
        looks: For every time that the answers were looked at, the first one first: how many of each rung's first seeds
            were there. A rung that is missing had none. Values beyond the last look are not used.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none, in the unit of the values; one for all, or one a pair.
        alpha: Probability of any false answer in the whole ladder, at any look, that is allowed.
        most_seeds: Of both rungs of a step, when all of its alpha is spent: a step with more is tested no more. It is
            chosen before the first look and stays.

    Returns:
        A row a pair, with the columns of `analysis.stats.answers.judge_summary` as of the last look, but for:
        `verdict`, the answer that was given first and stays; `look`, at which look it was given (1 is the first), 0
        where there is none yet; `p_adjusted` and `p_same`, the smallest of all tests up to the answer, each divided by
        the share of alpha that it had, so that an answer is given where one is at most alpha; `ci_low` and `ci_high`,
        an interval that holds at all looks together, for this change alone.

    Raises:
        ValueError: If there is no look, a later look has fewer seeds than an earlier one or more than there are values,
            or for what `judge` raises it.
    """
    rounds = Rounds(pairs, better=better, margin=margin, alpha=alpha, most_seeds=most_seeds)
    if not looks:
        raise ValueError("looks: at least one; without looking twice use judge().")
    rounds.look_again(values, looks)
    return rounds.table()


class Rounds:
    """A ladder that is judged look by look.

    Attributes:
        looks: How many there were.
        verdicts: What was answered so far, shape (pairs,).
        given: At which look, 0 where there is no answer yet, shape (pairs,).
        spending: What each step has spent of its part of alpha, and on how many seeds of both rungs.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        better: int = 1,
        margin: ArrayLike = 0.0,
        alpha: float = ALPHA,
        most_seeds: int = MOST_SEEDS,
    ) -> None:
        self.pairs, self.better, self.margin, self.alpha, self.most_seeds = pairs, better, margin, alpha, most_seeds
        self.looks = 0
        self.verdicts = np.full(len(pairs), Answer.NOT_TESTED, dtype=object)
        self.given = np.zeros(len(pairs), dtype=np.int64)
        self.spending = Spending(len(pairs), alpha / max(1, len(pairs)), most_seeds)
        self._least = {column: np.full(len(pairs), np.nan) for column in ("p_adjusted", "p_same")}

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which steps have no answer yet, shape (pairs,)."""
        none_yet: NDArray[np.bool_] = self.given == 0
        return none_yet

    def look(self, values: Mapping[str, ArrayLike], *, brief: bool = False) -> None:
        """Judge all steps that are open from all values so far.

        Args:
            values: Each rung's values.
            brief: Whether p-values above the level may be left at 1, and steps that have an answer be left out.
        """
        self.looks += 1
        self.asked = _Asked.of(*summarize(values), self.pairs, better=self.better, margin=self.margin, alpha=self.alpha)
        seeds = seeds_of_both(self.asked.n[self.asked.new], self.asked.n[self.asked.old])
        grown = (seeds >= LEAST) & (seeds >= GROWN * self.spending.seeds)
        tested = self.open & self.spending.left & grown
        self.spending.test(seeds, tested)
        turn = _Turn(np.isin(self.verdicts, [Answer.HELPS, Answer.HURTS]), self.open, tested, self.spending.share)
        self.columns = _by_sharing(self.asked, turn, brief=brief)
        self.verdicts = np.where(self.open, self.columns["verdict"], self.verdicts)
        self.given[tested & np.isin(self.verdicts, ANSWERED)] = self.looks
        for column, least in self._least.items():
            self._least[column] = np.where(tested, np.fmin(least, self.columns[column]), least)

    def look_again(self, values: Mapping[str, ArrayLike], looks: Sequence[Look]) -> None:
        """Judge what was seen at each of these looks; arguments as for `judge_in_rounds`."""
        for n in _check_looks(values, looks):
            self.look({rung: np.asarray(some, dtype=float).ravel()[: n[rung]] for rung, some in values.items()})

    def table(self) -> pd.DataFrame:
        """Return a row a pair, as `judge_in_rounds` does."""
        new, old = self.asked.new, self.asked.old
        about = {
            "step": [step for step, _ in self.pairs],
            "against": [against for _, against in self.pairs],
            "n": self.asked.n[new].astype(int),
            "n_against": self.asked.n[old].astype(int),
            "delta": self.asked.delta,
        }
        return pd.DataFrame(about | self.columns | self._least | {"verdict": self.verdicts, "look": self.given})


def seeds_of_both(n: Floats, n_against: Floats) -> Floats:
    """Return how many seeds of each of two rungs say as much as these: their harmonic mean."""
    seeds: Floats = 2 * n * n_against / np.maximum(n + n_against, 1)
    return seeds


def _check_looks(values: Mapping[str, ArrayLike], looks: Sequence[Look]) -> list[dict[str, int]]:
    have = {rung: len(np.asarray(some).ravel()) for rung, some in values.items()}
    counts = [{rung: int(look.get(rung, 0)) for rung in values} for look in looks]
    before = dict.fromkeys(values, 0)
    for k, n in enumerate(counts, 1):
        for rung in values:
            if not before[rung] <= n[rung] <= have[rung]:
                raise ValueError(
                    f"look {k}: {n[rung]} seeds of {rung!r}; there are {have[rung]}, and the look before had "
                    f"{before[rung]}."
                )
        before = n
    return counts
