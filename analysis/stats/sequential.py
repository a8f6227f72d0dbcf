"""Answers of a ladder whose seeds come in rounds and which is looked at after each of them.

Whoever adds seeds because a step is undecided, and judges again, has another chance of a false answer at every look.
Here each look gets a part of alpha, and all parts together are alpha: a ladder with any false answer, at whichever
look, has a probability of at most alpha, however many looks there will be. An answer that was once given stays.

Source: Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials", for spending alpha as looks come;
Jennison and Turnbull 1989, "Interim analyses: the repeated confidence interval approach", for intervals that hold at
all looks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analysis.stats.answers import ALPHA, Answer, Pairs, judge

Look = Mapping[str, int]  # rung -> how many of its first seeds were there
ANSWERED = (Answer.HELPS, Answer.HURTS, Answer.NO_EFFECT)


def judge_in_rounds(
    values: Mapping[str, ArrayLike],
    pairs: Pairs,
    looks: Sequence[Look],
    *,
    better: int = 1,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
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

    Returns:
        A row a pair, with the columns of `analysis.stats.answers.judge_summary` as of the last look, but for:
        `verdict`, the answer that was given first and stays; `look`, at which look it was given (1 is the first), 0
        where there is none yet; `p_adjusted` and `p_same`, the smallest of all looks so far, each divided by its look's
        share of alpha, so that an answer is given where one is at most alpha; `ci_low` and `ci_high`, an interval that
        holds at all looks together, for this change alone.

    Raises:
        ValueError: If there is no look, a later look has fewer seeds than an earlier one or more than there are values,
            or for what `judge` raises it.
    """
    counts = _check_looks(values, looks)
    verdicts = np.full(len(pairs), Answer.UNDECIDED, dtype=object)
    given = np.zeros(len(pairs), dtype=int)
    least = {column: np.full(len(pairs), np.nan) for column in ("p_adjusted", "p_same")}
    table = pd.DataFrame()
    for k, n in enumerate(counts, 1):
        seen = {rung: np.asarray(some, dtype=float).ravel()[: n[rung]] for rung, some in values.items()}
        level = alpha * share(k)
        table = judge(seen, pairs, better=better, margin=margin, alpha=level)
        new = (given == 0) & table["verdict"].isin(ANSWERED).to_numpy()
        open_yet = (given == 0) & ~new
        verdicts[new | open_yet] = table["verdict"].to_numpy()[new | open_yet]
        given[new] = k
        for column, p in least.items():
            least[column] = np.fmin(p, np.minimum(table[column] / share(k), 1.0))
    return table.assign(**least, verdict=verdicts, look=given)


def share(look: int) -> float:
    """Return the part of alpha that a look gets, 1 being the first; all parts together are 1."""
    return 1.0 / (look * (look + 1))


def _check_looks(values: Mapping[str, ArrayLike], looks: Sequence[Look]) -> list[dict[str, int]]:
    if not looks:
        raise ValueError("looks: at least one; without looking twice use judge().")
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
