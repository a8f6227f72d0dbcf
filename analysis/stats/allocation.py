"""Which rungs get the next seeds: those that promise the most answers for their cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from analysis.stats._noise import Floats
from analysis.stats.answers import ALPHA, Pairs
from analysis.stats.sequential import GROWN, LEAST, MOST_SEEDS, Look, Rounds, seeds_of_both
from analysis.stats.spending import Spending

FIRST_SEEDS, FEWEST_SEEDS = 3, 2  # of every rung, in the first round; what every answer needs
GROWTH = 2.0  # times as many seeds a rung after a round as before it, at most
HOPELESS = 0.05  # a step whose chance of an answer is smaller gets no seeds
WORTH_WAITING = 0.5  # steps wait for a later round that promise less than this share of the best one's chance for cost
TARGETS = np.unique(np.round(np.geomspace(2, 1000, 60)))  # numbers of seeds that are weighed against each other


class Stop(StrEnum):
    """Why there is no next round."""

    ANSWERED = "every step is answered"
    HOPELESS = "no open step can be expected to be answered with what is left"
    SPENT = "the budget is spent"
    NO_MORE = "the open steps need more seeds than can be had"


@dataclass(frozen=True)
class Allocation:
    """The next round.

    Attributes:
        seeds: How many more seeds each rung gets; rungs that get none are left out. Empty where there is no next round.
        cost: What they cost, in the unit of the costs.
        stop: Why there is no next round; None where there is one.
        columns: Of `steps`.
    """

    seeds: dict[str, int]
    cost: float
    stop: Stop | None
    columns: Mapping[str, Any]

    @cached_property
    def steps(self) -> pd.DataFrame:
        """A row a pair.

        `step`, `against`; `verdict` and `look` as of now; `chance` of an answer with what is left, were the step the
        only one (NaN where nothing is known yet, or it is answered); `seeds_needed`, the seeds of the rung with more of
        them that promise the most for their cost (NaN where the step gets none); `funded`, whether this round has seeds
        for it.
        """
        return pd.DataFrame(self.columns)


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
    available: Mapping[str, int] | None = None,
) -> Allocation:
    """Choose which rungs get more seeds in the next round.

    Before the first look every rung of `costs` gets `FIRST_SEEDS`, or as many as the budget allows, but at least two.
    Later the seeds go to the open steps that promise the most for their cost: the chance of an answer, were the mean
    that has been seen all that is known, over the price of the seeds. A rung serves the step before it and the one
    after, and is paid for once; the noisier and the cheaper rung of a step gets more. Steps that are answered, or
    cannot be expected to be answered with what is left, get none. The same arguments give the same seeds.

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
        most_seeds: More than this no rung gets; as for `judge_in_rounds`.
        available: How many seeds a rung can have in all, for those that cannot have any number.

    Returns:
        The next round, which costs no more than the budget.

    Raises:
        ValueError: If a cost is not above zero, a rung has no cost, or for what `judge_in_rounds` raises it.
    """
    missing = {rung for pair in pairs for rung in pair} - set(costs)
    if missing or not all(0 < cost < np.inf for cost in costs.values()):
        raise ValueError(f"costs: above zero, one for every rung of a pair; missing {sorted(missing)}, got {costs}")
    rounds = Rounds(pairs, better=better, margin=margin, alpha=alpha, most_seeds=most_seeds)
    rounds.look_again({rung: values.get(rung, []) for rung in costs}, looks)
    return next_round(rounds, costs, budget, available)


def next_round(
    rounds: Rounds, costs: Mapping[str, float], budget: float, available: Mapping[str, int] | None = None
) -> Allocation:
    """Choose the next round of a ladder that is judged look by look; arguments as for `next_seeds`."""
    most = {rung: min((available or {}).get(rung, rounds.most_seeds), rounds.most_seeds) for rung in costs}
    if not rounds.looks:
        return _first_round(rounds, costs, budget, most)
    plan = _Plan.of(rounds, costs, budget, most)
    funded = plan.fund()
    more = plan.next_part()
    seeds = {rung: int(k) for rung, k in zip(costs, more, strict=True) if k}
    stop = None
    if not seeds:
        unpaid = rounds.open.any() and budget < min(costs.values())
        stop = Stop.SPENT if unpaid else Stop.HOPELESS if rounds.open.any() else Stop.ANSWERED
        if stop == Stop.HOPELESS and available and _lacks_seeds(rounds, costs, budget, most):
            stop = Stop.NO_MORE
    columns = _columns(rounds, chance=plan.best_chance(), seeds_needed=plan.needed, funded=funded)
    return Allocation(seeds, float(more @ plan.costs), stop, columns)


def _lacks_seeds(rounds: Rounds, costs: Mapping[str, float], budget: float, most: Mapping[str, int]) -> bool:
    """Whether an open step could be answered with what is left if any number of seeds could be had."""
    too_few = np.array([min(most[rung] for rung in pair) < FEWEST_SEEDS for pair in rounds.pairs])
    free = _Plan.of(rounds, costs, budget, dict.fromkeys(costs, rounds.most_seeds))
    return bool((too_few & rounds.open).any() or free.fund().any())


def _columns(rounds: Rounds, **more: Any) -> dict[str, Any]:
    step, against = [pair[0] for pair in rounds.pairs], [pair[1] for pair in rounds.pairs]
    return {"step": step, "against": against, "verdict": rounds.verdicts, "look": rounds.given.copy()} | more


def _first_round(rounds: Rounds, costs: Mapping[str, float], budget: float, most: Mapping[str, int]) -> Allocation:
    columns = _columns(rounds, chance=np.nan, seeds_needed=np.nan)
    able = [rung for rung in costs if most[rung] >= FEWEST_SEEDS]
    for each in range(FIRST_SEEDS, FEWEST_SEEDS - 1, -1):
        seeds = {rung: min(each, most[rung]) for rung in able}
        cost = sum(costs[rung] * n for rung, n in seeds.items())
        if able and cost <= budget * (1 + 1e-9):
            return Allocation(seeds, cost, None, columns | {"funded": True})
    return Allocation({}, 0.0, Stop.SPENT if able else Stop.NO_MORE, columns | {"funded": False})


@dataclass
class _Plan:
    """Seeds that are meant for each rung, and what each open step would gain from more.

    Attributes:
        costs: Of one run of each rung, shape (rungs,).
        budget: What may be spent.
        n: Seeds that are there, shape (rungs,).
        meant: Seeds that are meant to be there in the end, shape (rungs,).
        rungs: Of each pair, shape (pairs, 2).
        targets: Seeds of both rungs to be weighed, shape (pairs, TARGETS, 2).
        chance: Of an answer with them, shape (pairs, TARGETS); NaN where nothing is known, 0 where it is answered.
        needed: Seeds of the rung with more, for what was funded, shape (pairs,).
    """

    costs: Floats
    budget: float
    n: Floats
    meant: Floats
    rungs: NDArray[np.int64]
    targets: Floats
    chance: Floats
    needed: Floats

    @classmethod
    def of(cls, rounds: Rounds, costs_by_rung: Mapping[str, float], budget: float, most: Mapping[str, int]) -> "_Plan":
        asked, columns = rounds.asked, rounds.columns
        costs, can = np.array(list(costs_by_rung.values())), np.array([most[rung] for rung in costs_by_rung])
        rungs = np.stack([asked.new, asked.old], axis=1)
        noise = np.stack([columns["noise"], columns["noise_against"]], axis=1)  # (pairs, 2)
        weight = noise / np.sqrt(costs[rungs])
        weight = weight / weight.max(axis=1, keepdims=True)
        have = asked.n[rungs][:, None]
        wanted = np.ceil(np.nan_to_num(weight, nan=1.0)[:, None] * TARGETS[:, None])  # (pairs, TARGETS, 2)
        targets = np.maximum(have, np.minimum(wanted, can[rungs][:, None]))
        chance = _chances(rounds, noise, have, targets)
        chance[~rounds.open] = 0.0
        return cls(costs, budget, asked.n, asked.n.copy(), rungs, targets, chance, np.full(len(rungs), np.nan))

    def prices(self) -> Floats:
        """Return what each target costs beyond the seeds that are meant already, shape (pairs, TARGETS)."""
        more = np.maximum(self.targets - self.meant[self.rungs][:, None], 0.0)
        prices: Floats = (more * self.costs[self.rungs][:, None]).sum(axis=2)
        return prices

    def best_chance(self) -> Floats:
        """Return each step's chance with the whole budget, were it the only one; NaN where it has an answer."""
        more = self.targets - self.n[self.rungs][:, None]
        price = (more * self.costs[self.rungs][:, None]).sum(axis=2)
        best = np.where(price <= self.budget, np.nan_to_num(self.chance), 0.0).max(axis=1)
        return np.where((self.chance == 0.0).all(axis=1), np.nan, best)

    def fund(self) -> NDArray[np.bool_]:
        """Mean seeds for the steps that promise the most for their cost; return which steps those are."""
        funded = np.zeros(len(self.rungs), dtype=bool)
        left, first = self.budget * (1 + 1e-9), 0.0
        chance = np.where(np.nan_to_num(self.chance) >= HOPELESS, self.chance, 0.0)
        grows = (self.targets > self.n[self.rungs][:, None]).any(axis=2)
        while True:
            prices = self.prices()
            worth = np.where((prices <= left) & grows, chance / np.maximum(prices, 1e-9 * self.costs.min()), 0.0)
            worth[funded] = 0.0
            pair, target = np.unravel_index(worth.argmax(), worth.shape) if worth.size else (0, 0)
            if not worth.size or worth[pair, target] <= WORTH_WAITING * first:
                return funded
            if prices[pair, target] > 0:
                first = max(first, worth[pair, target])
            left -= prices[pair, target]
            funded[pair] = True
            self.needed[pair] = self.targets[pair, target].max()
            self.meant[self.rungs[pair]] = np.maximum(self.meant[self.rungs[pair]], self.targets[pair, target])

    def next_part(self) -> Floats:
        """Return how many of the seeds that are meant come in the next round, shape (rungs,)."""
        grown = np.maximum(np.ceil(GROWTH * self.n), self.n + 1)
        more: Floats = np.minimum(self.meant, grown) - self.n
        return more


def _chances(rounds: Rounds, noise: Floats, have: Floats, targets: Floats) -> Floats:
    """Return the chance of an answer with more seeds, shape (pairs, TARGETS).

    A mean with more seeds is taken to be normal around the mean of today, with the variance that the seeds take away.
    What it must exceed is worked out as in `power.seeds_needed`: today's interval says how well the noise is known.
    """
    seeds = seeds_of_both(targets[..., 0], targets[..., 1])
    last = rounds.spending.seeds[:, None]
    share = np.interp(seeds, *_usual_shares(rounds.most_seeds, rounds.spending.alpha))
    later = rounds.alpha * share / max(1, int(rounds.open.sum()))
    se_now = np.sqrt((noise[:, None] ** 2 / np.maximum(have, 1)).sum(axis=2))  # (pairs, 1)
    se = np.sqrt((noise[:, None] ** 2 / np.maximum(targets, 1)).sum(axis=2))  # (pairs, TARGETS)
    half = (rounds.columns["ci_high"] - rounds.columns["ci_low"])[:, None] / 2
    z = -ndtri(rounds.alpha * rounds.spending.share / 2)[:, None]
    df = (z**3 + z) / (4 * np.maximum(half / se_now - z, 1e-3)) + (targets - have).sum(axis=2)
    limit = stdtrit(np.maximum(df, 2.0), 1 - later / 2) * se
    delta, margin = np.abs(rounds.asked.delta)[:, None], rounds.asked.margin[:, None]
    wander = np.sqrt(np.maximum(se_now**2 - se**2, 1e-12 * se_now**2))
    told = ndtr((delta - limit) / wander) + ndtr((-delta - limit) / wander)
    room = margin - limit
    same = np.where(room > 0, ndtr((room - delta) / wander) - ndtr((-room - delta) / wander), 0.0)
    chance: Floats = np.where(seeds >= GROWN * last, np.minimum(told + same, 1.0), 0.0)
    return chance


@lru_cache(16)
def _usual_shares(most_seeds: int, alpha: float) -> tuple[Floats, Floats]:
    """Return numbers of seeds, and the share of alpha that a test with each has whose seeds have grown as they may."""
    spending = Spending(1, alpha, most_seeds)
    seeds, shares = [min(max(float(FIRST_SEEDS), LEAST), float(most_seeds))], list[float]()
    while len(shares) < len(seeds):
        spending.test(np.array(seeds[-1:]), np.ones(1, dtype=bool))
        shares.append(float(spending.share[0]))
        if seeds[-1] < most_seeds:
            seeds.append(min(GROWTH * seeds[-1], float(most_seeds)))
    return np.array(seeds), np.array(shares)
