"""How well the rule for a ladder's answers keeps its word: `python -m benchmarks.answers`.

Draws ladders whose changes are known, judges them as `analysis.stats.answers.judge` does, and prints as Markdown how
often a ladder has any false answer, how often an interval holds the true change, and what share of the real changes is
told, beside Welch's test with Holm's correction. Effects and margins are in units of the noise's scale.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from analysis.stats._contrasts import Contrasts, contrast, step_down
from analysis.stats._noise import learn_noise
from analysis.stats.answers import judge
from analysis.stats.tests import holm, two_sided_p, welch

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Edges = list[tuple[int, int]]

ALPHA = 0.05
ROADMAP: Edges = [
    *((i, i - 1) for i in range(1, 8)),
    *((i, 7) for i in range(8, 12)),  # four kernel sizes against the same rung,
    (12, 9),  # of which the second is adopted
    *((i, i - 1) for i in range(13, 17)),
]
MARGINS = (0.2, 1.0, 2.0)
SIZES = (1.0, 2.0, 3.0, 4.0, 6.0)  # of the changes for which power is counted
Draw = Callable[[np.random.Generator, int], Floats]


def inverse_chi_square(df: float) -> Draw:
    """Return a function that draws rungs' variances from a scaled inverse chi-square distribution."""
    return lambda rng, rungs: df / rng.chisquare(df, rungs)


def alike(rng: np.random.Generator, rungs: int) -> Floats:
    """Return equal variances."""
    return np.ones(rungs)


def one_wild(times: float) -> Draw:
    """Return a function that draws equal variances but for one rung, with so many times the standard deviation."""
    return lambda rng, rungs: np.where(np.arange(rungs) == rng.integers(rungs), times**2, 1.0)


NOISES: dict[str, Draw] = {
    "equal": alike,
    "10 degrees of freedom": inverse_chi_square(10),
    "4 degrees of freedom": inverse_chi_square(4),
    "2 degrees of freedom": inverse_chi_square(2),
    "equal, t-distributed values": alike,
    "equal, one rung 20 times": one_wild(20),
    "equal, one rung 5 times": one_wild(5),
}
MAIN = list(NOISES)[:5]  # over which power is averaged


@dataclass
class Tally:
    """Sums over ladders, each divided by the number of ladders in `mean`."""

    sums: dict[str, float] = field(default_factory=dict)
    ladders: int = 0

    def add(self, name: str, value: float) -> None:
        """Add what one ladder gave."""
        self.sums[name] = self.sums.get(name, 0.0) + value

    def mean(self, name: str) -> float:
        """Return the mean over ladders."""
        return self.sums[name] / self.ladders

    def power(self, rule: str = "") -> list[float]:
        """Return the share of changes of each of `SIZES` that are told; `rule` is ", Welch" for Welch's test."""
        return [self.sums[f"told {size}{rule}"] / max(1.0, self.sums[f"steps {size}"]) for size in SIZES]


def draw_effects(rng: np.random.Generator, pairs: int, margin: float) -> Floats:
    """Return changes in equal parts: none, small, on the margin's edge, large; in any order and of either sign."""
    kinds = rng.permutation((np.arange(pairs) + rng.integers(4)) % 4)
    choices = [np.zeros(pairs), rng.uniform(0.25, 1.0, pairs), np.full(pairs, margin), rng.uniform(2.0, 6.0, pairs)]
    effects: Floats = np.choose(kinds, choices) * rng.choice([-1, 1], pairs)
    return effects


def any_false(delta: Floats, effect: Floats, adjusted: Floats, same: Floats, margin: float) -> bool:
    """Return whether any answer is false."""
    told = adjusted <= ALPHA
    wrong_way = told & (delta * effect <= 0)
    outside = ~told & (same <= ALPHA) & (np.abs(effect) >= margin)
    return bool(np.any(wrong_way | outside))


def simulate(noise: str, n: NDArray[np.int64], edges: Edges, ladders: int, seed: int = 0) -> Tally:
    """Judge ladders whose noise is drawn as named, with n seeds a rung."""
    rng = np.random.default_rng([seed, list(NOISES).index(noise), int(n.sum())])
    new, old = np.array(edges).T
    counts = n.astype(float)
    tally = Tally(ladders=ladders)
    for _ in range(ladders):
        deviation = np.sqrt(NOISES[noise](rng, len(n)))
        heavy = "t-distributed" in noise
        seeds = [rng.standard_t(5, k) / np.sqrt(5 / 3) if heavy else rng.standard_normal(k) for k in n]
        mean = deviation * [x.mean() for x in seeds]
        std = deviation * [x.std(ddof=1) if len(x) > 1 else np.nan for x in seeds]
        known = learn_noise(std, counts)
        assert known is not None
        contrasts = contrast(known, counts, new, old)
        se, df = welch(std[new] ** 2, std[old] ** 2, counts[new], counts[old])
        error = mean[new] - mean[old]
        half = contrasts.threshold(np.log(np.array(ALPHA))) * known.unit
        tally.add("coverage", np.mean(np.abs(error) <= half))
        ask = Asked(contrasts, known.unit, error, se, df)
        tally.add("null", ask.judge(np.zeros(len(edges)), MARGINS[0])[0])
        for margin in MARGINS:
            tally.add(f"mixed {margin}", ask.judge(draw_effects(rng, len(edges), margin), margin)[0])
        tally.add("edge", ask.judge(np.full(len(edges), MARGINS[-1]), MARGINS[-1])[0])
        effect = rng.choice([0.0, *SIZES], len(edges)) * rng.choice([-1, 1], len(edges))
        _, told, by_welch = ask.judge(effect, MARGINS[0])
        for size in SIZES:
            tally.add(f"steps {size}", (np.abs(effect) == size).sum())
            tally.add(f"told {size}", told[np.abs(effect) == size].sum())
            tally.add(f"told {size}, Welch", by_welch[np.abs(effect) == size].sum())
    return tally


@dataclass
class Asked:
    """One ladder's noise and errors, to which any changes can be added."""

    contrasts: Contrasts
    unit: float
    error: Floats
    se: Floats
    df: Floats

    def judge(self, effect: Floats, margin: float) -> tuple[bool, Bools, Bools]:
        """Return whether any answer is false, which changes are told rightly, and which are by Welch's test."""
        delta = self.error + effect
        margins = np.full(len(delta), margin)
        _, adjusted, same = step_down(self.contrasts, delta / self.unit, margins / self.unit, ALPHA, brief=True)
        right = delta * effect > 0
        by_welch = holm(two_sided_p(delta, self.se, self.df)) <= ALPHA
        return any_false(delta, effect, adjusted, same, margin), (adjusted <= ALPHA) & right, by_welch & right


HEAD = """
| noise | none | mixed, margin 0.2 | mixed, 1 | mixed, 2 | edge of 2 | coverage | power | Welch | ratio | by size |
|---|---|---|---|---|---|---|---|---|---|---|"""


def print_row(name: str, tally: Tally) -> None:
    """Print one scenario's error rates, coverage and power."""
    errors = [tally.mean(key) for key in ("null", *(f"mixed {margin}" for margin in MARGINS), "edge")]
    power, by_welch = np.mean(tally.power()), np.mean(tally.power(", Welch"))
    cells = [*errors, tally.mean("coverage"), power, by_welch]
    sizes = ", ".join(
        f"{100 * ours:.0f}/{100 * theirs:.0f}"
        for ours, theirs in zip(tally.power(), tally.power(", Welch"), strict=True)
    )
    ratio = f"{power / by_welch:.1f}" if by_welch > 0 else ""
    print(f"| {name} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} | {ratio} | {sizes} |", flush=True)


def print_mean_power(tallies: list[Tally]) -> None:
    """Print the mean power over several scenarios."""
    power, by_welch = (np.mean([tally.power(rule) for tally in tallies]) for rule in ("", ", Welch"))
    ratio = power / by_welch
    print(f"\nMean power over the first five: {100 * power:.1f}; Welch {100 * by_welch:.1f}; ratio {ratio:.2f}")


def print_roadmap(ladders: int, seeds: list[int]) -> None:
    """Print the table of the real ladder's shape."""
    for n in seeds:
        print(f"\n17 rungs, 16 steps, {n} seeds, {ladders} ladders a row; percent\n{HEAD}", flush=True)
        tallies = {}
        for noise in NOISES:
            tallies[noise] = simulate(noise, np.full(17, n), ROADMAP, ladders)
            print_row(noise, tallies[noise])
        print_mean_power([tallies[noise] for noise in MAIN])


def print_others(ladders: int) -> None:
    """Print the table of other ladders."""
    unequal = np.array([2, 3, 8, 5, 1, 3, 4, 6, 2, 3, 3, 8, 5, 3, 1, 3, 4])
    shapes: dict[str, tuple[NDArray[np.int64], Edges]] = {
        "2 rungs": (np.full(2, 3), [(1, 0)]),
        "5 rungs": (np.full(5, 3), [(i, i - 1) for i in range(1, 5)]),
        "9 rungs": (np.full(9, 3), [(i, i - 1) for i in range(1, 9)]),
        "13 against one": (np.full(14, 3), [(i, 0) for i in range(1, 14)]),
        "1 to 8 seeds": (unequal, ROADMAP),
    }
    print(f"\nOther ladders, 3 seeds unless told, {ladders} ladders a row; percent\n{HEAD}", flush=True)
    for shape, (n, edges) in shapes.items():
        for noise in ("equal", "4 degrees of freedom", "2 degrees of freedom"):
            print_row(f"{shape}; {noise}", simulate(noise, n, edges, ladders))


def print_time() -> None:
    """Print how long a call takes."""
    rng = np.random.default_rng(0)
    for n in (3, 8):
        values = {str(i): rng.standard_normal(n) for i in range(17)}
        pairs = [(str(new), str(old)) for new, old in ROADMAP]
        times = []
        for _ in range(60):
            start = perf_counter()
            judge(values, pairs, margin=0.2)
            times.append(perf_counter() - start)
        middle, least = 1e3 * np.median(times), 1e3 * min(times)
        print(f"\n`judge`, 17 rungs, {n} seeds: {middle:.1f} ms (median), {least:.1f} ms (least)")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladders", type=int, default=2000, help="ladders for each row")
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 5, 8], help="seeds a rung")
    options = parser.parse_args()
    print_roadmap(options.ladders, options.seeds)
    print_others(options.ladders)
    print_time()


if __name__ == "__main__":
    main()
