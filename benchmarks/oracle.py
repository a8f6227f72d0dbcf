"""Who gets which seeds, if one knew every step's change and every rung's noise: the least that any rounds can take.

The oracle chooses all seeds at once, so it is judged once and pays for no look. It still has to convince the rule that
gives the answers, which knows neither the changes nor the noise. From equal seeds of all rungs it goes on to whatever
gains the most answers for a run: more seeds of a rung, of the two rungs of a step, or of the three of two steps.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.special import ndtr

from analysis.stats._contrasts import contrast
from analysis.stats._noise import learn_noise
from analysis.stats.sequential import MOST_SEEDS
from benchmarks.answers import ALPHA, NOISES
from benchmarks.real_ladders import Floats

SEEDS = np.array([2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 24, 28, MOST_SEEDS])  # that are weighed for a rung
LEARNED = 12  # ladders from which it learns what the rule asks for
LEAST_GAIN = 1e-4  # answers a run, for which it still trains
Edges = tuple[tuple[int, int], ...]  # of each step: its rung and the one before


@dataclass(frozen=True)
class Oracle:
    """One who knows what is to be found, and finds it with few runs.

    Attributes:
        edges: The steps.
        noise: What rungs' variances are drawn from.
        margin: Changes within it are as good as none.
    """

    edges: Edges
    noise: str
    margin: float

    def path(self, effect: Floats, std: Floats, first: int, most_runs: int) -> list[Floats]:
        """Return seeds of each rung, shape (rungs,), for more and more runs.

        Args:
            effect: The true changes, shape (steps,).
            std: The true noise of each rung, shape (rungs,).
            first: Equal seeds with which it begins.
            most_runs: Which the last one does not exceed.
        """
        targets = self._targets(std)
        path = [np.full(len(std), float(first))]
        while True:
            seeds = np.maximum(path[-1], targets)
            more = seeds.sum(axis=1) - path[-1].sum()
            able = (more > 0) & (seeds.sum(axis=1) <= most_runs)
            if not able.any():
                return path
            gain = self._answers(effect, std, seeds[able]) - self._answers(effect, std, path[-1][None])
            best = (gain / more[able]).argmax()
            if gain[best] < LEAST_GAIN * more[able][best]:
                return path
            path.append(seeds[able][best])

    def _targets(self, std: Floats) -> Floats:
        """Return seeds to be weighed, more for a group's noisier rung and none for the others, shape (some, rungs)."""
        groups = {(rung,) for rung in range(len(std))} | {tuple(sorted(edge)) for edge in self.edges}
        joined = {tuple(sorted({*one, *other})) for one, other in combinations(self.edges, 2)}
        groups |= {group for group in joined if len(group) == 3}
        weight = np.zeros((len(groups), len(std)))
        for row, group in zip(weight, sorted(groups), strict=True):
            row[list(group)] = std[list(group)] / std[list(group)].max()
        seeds: Floats = np.minimum(np.ceil(weight[:, None] * SEEDS[:, None]), MOST_SEEDS).reshape(-1, len(std))
        return seeds

    def _answers(self, effect: Floats, std: Floats, seeds: Floats) -> Floats:
        """Return the right answers to expect with these seeds, shape (some,); seeds: shape (some, rungs)."""
        new, old = np.array(self.edges).T
        se = np.sqrt(std[new] ** 2 / seeds[:, new] + std[old] ** 2 / seeds[:, old])
        limit = np.interp(seeds.mean(axis=1), SEEDS, _limits(self.edges, self.noise, len(std)))[:, None] * se
        told = ndtr((np.abs(effect) - limit) / se) * (effect != 0)
        room = self.margin - limit
        same = np.where(room > 0, ndtr((room - effect) / se) - ndtr((-room - effect) / se), 0.0)
        answers: Floats = (told + same * (np.abs(effect) < self.margin)).sum(axis=1)
        return answers


@lru_cache
def _limits(edges: Edges, noise: str, rungs: int) -> Floats:
    """Return how many true standard errors a change must exceed with each of `SEEDS` equal seeds, by the rule."""
    rng = np.random.default_rng(0)
    new, old = np.array(edges).T
    limits = []
    for n in SEEDS:
        seen, counts = [], np.full(rungs, float(n))
        for _ in range(LEARNED):
            variance = NOISES[noise](rng, rungs)
            values = rng.normal(size=(rungs, n)) * np.sqrt(variance)[:, None]
            learned = learn_noise(values.std(axis=1, ddof=1), counts)
            assert learned is not None
            sizes = contrast(learned, counts, new, old).threshold(np.log(np.array(ALPHA / len(edges)))) * learned.unit
            seen.append(sizes / np.sqrt((variance[new] + variance[old]) / n))
        limits.append(np.median(seen))
    return np.array(limits)
