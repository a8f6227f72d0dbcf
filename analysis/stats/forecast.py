"""What a budget is expected to answer, before it is spent: studies drawn at random and judged round by round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.stats.allocation import next_round
from analysis.stats.answers import ALPHA, Pairs, judge
from analysis.stats.sequential import ANSWERED, Look, Rounds

DRAWS = 20


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
    values: Mapping[str, ArrayLike] | None = None,
    looks: Sequence[Look] = (),
    equal_seeds: bool = False,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
    draws: int = DRAWS,
    seed: int = 0,
) -> Forecast:
    """Forecast how many steps each budget answers.

    Studies are drawn with the means and the noise that are given, and each is judged and given its seeds as a real one
    would be.

    Args:
        mean: What the mean of each rung is taken to be: measured, or the paper's.
        noise: Standard deviation over seeds of each rung.
        pairs: Steps to answer.
        costs: What one run of each rung costs, in any unit.
        budgets: What may be spent in all, beside what `looks` have spent already, in the same unit.
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
    lines, chance = [], np.zeros(len(pairs))
    for budget in sorted(budgets):
        study = _Study(mean, noise, pairs, costs, budget, margin, alpha)
        done = [
            study.equal(np.random.default_rng([seed, i]))
            if equal_seeds
            else study.rounds(np.random.default_rng([seed, i]), values or {}, looks)
            for i in range(draws)
        ]
        answered = np.array([told for told, _ in done])
        number = answered.sum(axis=1)
        low, high = np.quantile(number, [0.1, 0.9])
        runs = [sum(more.values()) for _, more in done]
        spent = [sum(costs[rung] * k for rung, k in more.items()) for _, more in done]
        lines.append((budget, number.mean(), low, high, np.mean(spent), np.mean(runs)))
        chance = answered.mean(axis=0)
    steps = pd.DataFrame(list(pairs), columns=["step", "against"]).assign(chance=chance)
    return Forecast(pd.DataFrame(lines, columns=["budget", "answered", "low", "high", "spent", "runs"]), steps)


@dataclass(frozen=True)
class _Study:
    mean: Mapping[str, float]
    noise: Mapping[str, float]
    pairs: Pairs
    costs: Mapping[str, float]
    budget: float
    margin: ArrayLike
    alpha: float

    def _draw(self, rng: np.random.Generator, rung: str, n: int) -> list[float]:
        return list(rng.normal(self.mean[rung], self.noise[rung], n))

    def equal(self, rng: np.random.Generator) -> tuple[NDArray[np.bool_], dict[str, int]]:
        """Return which steps are answered by equal seeds, and the runs of each rung."""
        n = int(self.budget / sum(self.costs.values()) * (1 + 1e-9))
        values = {rung: self._draw(rng, rung, n) for rung in self.costs}
        table = judge(values, self.pairs, margin=self.margin, alpha=self.alpha)
        return table["verdict"].isin(ANSWERED).to_numpy(), dict.fromkeys(self.costs, n)

    def rounds(
        self, rng: np.random.Generator, values: Mapping[str, ArrayLike], looks: Sequence[Look]
    ) -> tuple[NDArray[np.bool_], dict[str, int]]:
        """Return which steps are answered by rounds, and the new runs of each rung."""
        have = {rung: list(np.asarray(values.get(rung, []), dtype=float)) for rung in self.costs}
        left, spent = self.budget, dict.fromkeys(self.costs, 0)
        rounds = Rounds(self.pairs, margin=self.margin, alpha=self.alpha)
        rounds.look_again(have, looks)
        while (step := next_round(rounds, self.costs, left)).stop is None:
            for rung, more in step.seeds.items():
                have[rung] += self._draw(rng, rung, more)
                spent[rung] += more
            left -= step.cost
            rounds.look(have, brief=True)
        return ~rounds.open, spent
