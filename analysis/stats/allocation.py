"""Which rungs get the next seeds: those that promise the most answers for their cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analysis.stats.answers import ALPHA, Pairs, summarize
from analysis.stats.power import seeds_needed
from analysis.stats.sequential import ANSWERED, Look, judge_in_rounds, share

FIRST_SEEDS = 3  # of every rung, in the first round
MOST_SEEDS = 100  # of a rung
GROWTH = 1.5  # times as many seeds a rung after a round as before it


class Stop(StrEnum):
    """Why there is no next round."""

    ANSWERED = "every step is answered"
    HOPELESS = "no open step can be expected to be answered with what is left"
    SPENT = "the budget is spent"


@dataclass(frozen=True)
class Allocation:
    """The next round.

    Attributes:
        seeds: How many more seeds each rung gets; rungs that get none are left out. Empty where there is no next round.
        cost: What they cost, in the unit of the costs.
        stop: Why there is no next round; None where there is one.
        steps: A row a pair: `step`, `against`; `verdict` and `look` as of now; `seeds_needed`, the seeds of both rungs
            that would probably answer it (NaN where that is not known); `funded`, whether this round has seeds for it.
    """

    seeds: dict[str, int]
    cost: float
    stop: Stop | None
    steps: pd.DataFrame


def next_seeds(
    values: Mapping[str, ArrayLike],
    pairs: Pairs,
    looks: Sequence[Look],
    costs: Mapping[str, float],
    budget: float,
    *,
    better: int = 1,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
    most_seeds: int = MOST_SEEDS,
) -> Allocation:
    """Choose which rungs get more seeds in the next round.

    Before the first look every rung of `costs` gets `FIRST_SEEDS`, or as many as the budget allows, but at least two.
    Later the seeds go to the open steps that are the cheapest to answer; a rung serves the step before it and the one
    after, and is paid for once. Steps that are answered, or cannot be expected to be answered with what is left, get
    none. The same arguments give the same seeds.

    Args:
        values: Each rung's values, in the order of its seeds; as for `judge_in_rounds`, with the last look's seeds.
            Rungs without any may be missing.
        pairs: Steps to answer: a rung and the one it is compared with.
        looks: The looks so far; the last one has all `values`.
        costs: What one run of each rung costs, in any unit; the rungs of the ladder, in its order.
        budget: What may still be spent, in the same unit.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none, in the unit of the values; one for all, or one a pair.
        alpha: Probability of any false answer in the whole ladder, at any look, that is allowed.
        most_seeds: More than this no rung gets.

    Returns:
        The next round, which costs no more than the budget.

    Raises:
        ValueError: If a cost is not above zero, a rung has no cost, or for what `judge_in_rounds` raises it.
    """
    missing = {rung for pair in pairs for rung in pair} - set(costs)
    if missing or not all(0 < cost < np.inf for cost in costs.values()):
        raise ValueError(f"costs: above zero, one for every rung of a pair; missing {sorted(missing)}, got {costs}")
    there = {rung: values.get(rung, []) for rung in costs}
    if not looks:
        return _first_round(pairs, costs, budget, most_seeds)
    table = judge_in_rounds(there, pairs, looks, better=better, margin=margin, alpha=alpha)
    steps = table[["step", "against", "verdict", "look"]].copy()
    level = alpha * share(len(looks) + 1)
    steps["seeds_needed"] = seeds_needed(*summarize(there), pairs, margin=margin, alpha=level)["seeds_needed"]
    n = {rung: looks[-1].get(rung, 0) for rung in costs}
    return _grow(steps, n, costs, budget, most_seeds)


def _first_round(pairs: Pairs, costs: Mapping[str, float], budget: float, most_seeds: int) -> Allocation:
    steps = pd.DataFrame(pairs, columns=["step", "against"]).assign(verdict="undecided", look=0, seeds_needed=np.nan)
    whole = sum(costs.values())
    each = min(FIRST_SEEDS, most_seeds, int(budget / whole * (1 + 1e-9)))
    if each < 2:
        return Allocation({}, 0.0, Stop.SPENT, steps.assign(funded=False))
    return Allocation(dict.fromkeys(costs, each), each * whole, None, steps.assign(funded=True))


def _grow(
    steps: pd.DataFrame, n: dict[str, int], costs: Mapping[str, float], budget: float, most_seeds: int
) -> Allocation:
    open_yet = ~steps["verdict"].isin(ANSWERED).to_numpy()
    pairs = list(zip(steps["step"], steps["against"], strict=True))
    needed = steps["seeds_needed"].to_numpy()
    price = np.array([sum(costs[r] * max(m - n[r], 1.0) for r in pair) for pair, m in zip(pairs, needed, strict=True)])
    hopeful = np.flatnonzero(open_yet & (price <= budget) & (needed <= most_seeds))
    funded = np.zeros(len(steps), dtype=bool)
    added: dict[str, int] = {}
    left = budget
    for i in hopeful[np.argsort(price[hopeful], kind="stable")]:
        target = {r: min(max(n[r] + 1, int(np.ceil(GROWTH * n[r]))), max(int(needed[i]), n[r] + 1)) for r in pairs[i]}
        more = {r: max(0, target[r] - n[r] - added.get(r, 0)) for r in pairs[i]}
        cost = sum(costs[r] * m for r, m in more.items())
        if cost <= left * (1 + 1e-9):
            left -= cost
            funded[i] = True
            added |= {r: added.get(r, 0) + m for r, m in more.items() if m}
    stop = None
    if not added:
        stop = Stop.ANSWERED if not open_yet.any() else Stop.SPENT if budget < min(costs.values()) else Stop.HOPELESS
    return Allocation(added, budget - left, stop, steps.assign(funded=funded))
