"""What a budget is expected to answer, before it is spent: studies drawn at random and judged round by round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.stats.allocation import next_round
from analysis.stats.answers import ALPHA, Pairs, judge, judge_summary
from analysis.stats.sequential import ANSWERED, Look, Rounds

DRAWS = 20
NARROWEST = 0.1  # of the variance of a change's sampling error: how wide the true change may be at least


@dataclass(frozen=True)
class Forecast:
    """What to expect of a budget.

    Attributes:
        curve: A row a budget: `budget`; `answered`, the mean number of steps answered; `low` and `high`, between which
            eight in ten studies are; `spent`, the mean cost of the runs; `runs`, their mean number.
        steps: A row a pair: `step`, `against`, `chance` of an answer with the largest budget.
    """

    curve: pd.DataFrame
    steps: pd.DataFrame


def forecast(
    mean: Mapping[str, float],
    noise: Mapping[str, float],
    pairs: Pairs,
    costs: Mapping[str, float],
    budgets: Sequence[float],
    *,
    seeds: Mapping[str, int] | None = None,
    values: Mapping[str, ArrayLike] | None = None,
    looks: Sequence[Look] = (),
    equal_seeds: bool = False,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
    draws: int = DRAWS,
    seed: int = 0,
) -> Forecast:
    """Forecast how many steps each budget answers.

    Studies are drawn with the noise that is given and the changes that the means let one expect, and each is judged and
    given its seeds as a real one would be that has the largest budget; what smaller budgets answer is read off on the
    way.

    Args:
        mean: The mean of each rung: measured, or the paper's.
        noise: Standard deviation over seeds of each rung.
        pairs: Steps to answer.
        costs: What one run of each rung costs, in any unit.
        budgets: What may be spent in all, beside what `looks` have spent already, in the same unit.
        seeds: How many seeds each mean is of: what they say of the changes is uncertain, and each study draws its own
            (`likely_means`). None takes the means as they are.
        values: Values that are there already, in the order of seeds; the studies go on from them.
        looks: The looks so far; the last one has all `values`.
        equal_seeds: Forecast equal numbers of seeds of all rungs, judged once, in place of rounds: as many as the
            budget allows.
        margin: Changes within it are as good as none, in the unit of the means; one for all, or one a pair.
        alpha: Probability of any false answer in the whole ladder that is allowed.
        draws: Studies for each budget.
        seed: Of the drawing; the same seed gives the same forecast.

    Returns:
        The curve over budgets, and each step's chance.

    Raises:
        ValueError: For what `next_seeds` raises it.
    """
    ways = []
    for number in range(draws):
        rng = np.random.default_rng([seed, number])
        truth = mean if seeds is None else likely_means(mean, noise, seeds, pairs, rng)
        study = _Study(truth, noise, pairs, costs, margin, alpha)
        if equal_seeds:
            ways.append([study.equal(rng, budget) for budget in sorted(budgets)])
        else:
            ways.append(study.rounds(rng, max(budgets), values or {}, looks))
    lines, chance = [], np.zeros(len(pairs))
    for budget in sorted(budgets):
        ends = [[point for point in way if point.spent <= budget * (1 + 1e-9)][-1] for way in ways]
        answered = np.array([end.answered for end in ends])
        low, high = np.quantile(answered.sum(axis=1), [0.1, 0.9])
        spent, runs = (np.mean([getattr(end, what) for end in ends]) for what in ("spent", "runs"))
        lines.append((budget, answered.sum(axis=1).mean(), low, high, spent, runs))
        chance = answered.mean(axis=0)
    steps = pd.DataFrame(list(pairs), columns=["step", "against"]).assign(chance=chance)
    return Forecast(pd.DataFrame(lines, columns=["budget", "answered", "low", "high", "spent", "runs"]), steps)


def likely_means(
    mean: Mapping[str, float],
    noise: Mapping[str, float],
    seeds: Mapping[str, int],
    pairs: Pairs,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Draw what the rungs' means may truly be, given means of few seeds.

    Such means are off by chance, so changes that are seen are too large in the mean. Each change is taken to come from
    a normal distribution around none with the likeliest variance: that change's square, less the variance of its
    sampling error. What is drawn follows from these and from the means that were seen, of all rungs together.

    Source: Efron and Morris 1973, "Stein's estimation rule and its competitors - an empirical Bayes approach".

    Args:
        mean: Of each rung of a step.
        noise: Standard deviation over seeds of each.
        seeds: How many each mean is of.
        pairs: Steps.
        rng: Draws.

    Returns:
        The mean of each rung.
    """
    rungs = list(dict.fromkeys(rung for pair in pairs for rung in pair))
    seen = np.array([mean[rung] for rung in rungs])
    error = np.array([noise[rung] ** 2 / max(seeds.get(rung, 1), 1) for rung in rungs])  # variance of each mean
    change = np.zeros((len(pairs), len(rungs)))  # of each step, from the means
    for row, pair in zip(change, pairs, strict=True):
        row[[rungs.index(rung) for rung in pair]] = 1, -1
    chance = change**2 @ error
    width = np.maximum((change @ seen) ** 2 - chance, NARROWEST * chance)
    if not (error > 0).all():
        return dict(zip(rungs, seen.tolist(), strict=True))
    covariance = np.linalg.inv(np.diag(1 / error) + change.T @ (change / width[:, None]))
    drawn = rng.multivariate_normal(covariance @ (seen / error), covariance, method="cholesky")
    return dict(zip(rungs, drawn.tolist(), strict=True))


def noise_of_rungs(
    mean: Mapping[str, float],
    std: Mapping[str, float],
    n: Mapping[str, int],
    pairs: Pairs,
    *,
    step: float = 0.0,
) -> dict[str, float]:
    """Return the typical noise of each rung of a step of which both rungs have a mean, from what all of them share.

    Arguments as for `analysis.stats.answers.judge_summary`.
    """
    known = dict.fromkeys((rung for pair in pairs for rung in pair), float("nan")) | dict(mean)
    judged = judge_summary(known, std, n, pairs, step=step)
    noise = dict(zip(judged["against"], judged["noise_against"], strict=True))
    noise |= dict(zip(judged["step"], judged["noise"], strict=True))
    return {str(rung): float(some) for rung, some in noise.items() if some == some}


class _Point(NamedTuple):
    """Where a study stands: what its new runs have cost, how many they are, and which steps are answered."""

    spent: float
    runs: int
    answered: NDArray[np.bool_]


@dataclass(frozen=True)
class _Study:
    mean: Mapping[str, float]
    noise: Mapping[str, float]
    pairs: Pairs
    costs: Mapping[str, float]
    margin: ArrayLike
    alpha: float

    def _draw(self, rng: np.random.Generator, rung: str, n: int) -> list[float]:
        return list(rng.normal(self.mean[rung], self.noise[rung], n))

    def equal(self, rng: np.random.Generator, budget: float) -> _Point:
        """Return where equal seeds of all rungs end that are judged once."""
        n = int(budget / sum(self.costs.values()) * (1 + 1e-9))
        values = {rung: self._draw(rng, rung, n) for rung in self.costs}
        table = judge(values, self.pairs, margin=self.margin, alpha=self.alpha)
        return _Point(n * sum(self.costs.values()), n * len(self.costs), table["verdict"].isin(ANSWERED).to_numpy())

    def rounds(
        self, rng: np.random.Generator, budget: float, values: Mapping[str, ArrayLike], looks: Sequence[Look]
    ) -> list[_Point]:
        """Return where rounds stand after each of them, from now on."""
        have = {rung: list(np.asarray(values.get(rung, []), dtype=float)) for rung in self.costs}
        rounds = Rounds(self.pairs, margin=self.margin, alpha=self.alpha)
        rounds.look_again(have, looks)
        way = [_Point(0.0, 0, ~rounds.open)]
        while (step := next_round(rounds, self.costs, budget - way[-1].spent)).stop is None:
            for rung, more in step.seeds.items():
                have[rung] += self._draw(rng, rung, more)
            rounds.look(have, brief=True)
            runs = way[-1].runs + sum(step.seeds.values())
            way.append(_Point(way[-1].spent + step.cost, runs, ~rounds.open))
        return way
