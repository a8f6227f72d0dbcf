"""How many real changes three or five seeds tell, and where the limit is: `python -m benchmarks.power`.

Draws ladders as `benchmarks.answers` does and prints as Markdown the share of changes that are told by our rule, by
Welch's test with Holm's correction, and by an oracle. The oracle is told the distribution that the rungs' variances
were drawn from, scale and all, though not each rung's own; for the rest it is our rule, at exactly 5%. No rule that
has to learn the noise from the seeds can tell more at the same error.
"""

import argparse

import numpy as np

from analysis.stats._contrasts import RESERVE, Contrasts, contrast, step_down
from analysis.stats._noise import SPACING, Floats, Noise, learn_noise
from analysis.stats.tests import holm, two_sided_p, welch
from benchmarks.answers import ALPHA, MAIN, NOISES, ROADMAP, Bools
from benchmarks.real_ladders import bank_sizes, paper_sizes

RUNGS = 17
POOLS: dict[str, Floats] = {
    "1, 2, 3": np.array([0.0, 1.0, 2.0, 3.0]),
    "1 to 4": np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
    "1 to 6": np.array([0.0, 1.0, 2.0, 3.0, 4.0, 6.0]),
    "the bank's": bank_sizes(),
    "the paper's": paper_sizes(),
}
RULES = ("ours", "Welch", "oracle")
DEGREES = {"equal": np.inf, "equal, t-distributed values": np.inf} | {f"{k} degrees of freedom": k for k in (10, 4, 2)}


def told_noise(name: str, std: Floats, n: float) -> Noise:
    """Return the noise of rungs to one who is told what their variances were drawn from."""
    df = DEGREES[name]
    if np.isinf(df):
        return Noise(1.0, np.zeros(1), np.ones(1), np.ones((len(std), 1, 1)), 0.0)
    grid = np.arange(-7.0, 14.0, SPACING)  # log variance: drawn from df / chi-square(df), and seen with n - 1
    gap = 2 * np.log(std)[:, None] - grid
    log_density = df / 2 * (-grid - np.exp(-grid)) + (n - 1) / 2 * (gap - np.exp(gap))
    given = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    return Noise(1.0, grid, np.ones(1), (given / given.sum(axis=1, keepdims=True))[:, None], 0.0)


def told_by(contrasts: Contrasts, delta: Floats, alpha: float) -> Bools:
    """Return which changes are told from none."""
    adjusted = step_down(contrasts, delta, np.zeros(len(delta)), alpha, brief=True)[1]
    return np.asarray(adjusted <= alpha)


def simulate(name: str, n: int, ladders: int) -> dict[str, dict[str, float]]:
    """Return the share of changes from each pool that each rule tells rightly, and how often a ladder has a false one.

    Args:
        name: The noise.
        n: Seeds of each rung.
        ladders: Number of ladders; each pool is drawn from once a ladder.

    Returns:
        For each pool and for "false", the share by rule.
    """
    rng = np.random.default_rng([n, list(NOISES).index(name)])
    new, old = np.array(ROADMAP).T
    counts = np.full(RUNGS, float(n))
    told = {pool: dict.fromkeys(RULES, 0.0) for pool in [*POOLS, "false"]}
    there = dict.fromkeys(POOLS, 0)
    for _ in range(ladders):
        values = rng.standard_t(5, (RUNGS, n)) / np.sqrt(5 / 3) if "t-dist" in name else rng.normal(size=(RUNGS, n))
        values *= np.sqrt(NOISES[name](rng, RUNGS))[:, None]
        std, error = values.std(axis=1, ddof=1), values.mean(axis=1)[new] - values.mean(axis=1)[old]
        known = learn_noise(std, counts)
        assert known is not None
        ours, oracle = contrast(known, counts, new, old), contrast(told_noise(name, std, n), counts, new, old)
        se, df = welch(std[new] ** 2, std[old] ** 2, counts[new], counts[old])
        for pool, sizes in (POOLS | {"false": np.zeros(1)}).items():
            effect = rng.choice(sizes, len(new)) * rng.choice([-1, 1], len(new))
            delta = error + effect
            found = {
                "ours": told_by(ours, delta / known.unit, ALPHA),
                "Welch": holm(two_sided_p(delta, se, df)) <= ALPHA,
                "oracle": told_by(oracle, delta, ALPHA * RESERVE),
            }
            for rule, which in found.items():
                told[pool][rule] += which.any() if pool == "false" else (which & (delta * effect > 0)).sum()
            if pool != "false":
                there[pool] += (effect != 0).sum()
    return {
        pool: {rule: number / (ladders if pool == "false" else max(there[pool], 1)) for rule, number in by.items()}
        for pool, by in told.items()
    }


def print_table(n: int, ladders: int) -> None:
    """Print the table of one number of seeds."""
    print(f"\n{n} seeds, {ladders} ladders a row: ours / Welch / oracle, percent (ours and the oracle, times Welch)\n")
    print(
        f"| noise | false, no change | {' | '.join(f'{pool} sd' for pool in POOLS)} |\n|---|---|{'---|' * len(POOLS)}"
    )
    rows = {name: simulate(name, n, ladders) for name in MAIN}
    for name, found in rows.items():
        print_row(name, found)
    print_row(
        "mean",
        {pool: {r: float(np.mean([row[pool][r] for row in rows.values()])) for r in RULES} for pool in rows[MAIN[0]]},
    )


def print_row(name: str, found: dict[str, dict[str, float]]) -> None:
    """Print one noise's row."""
    cells = [" / ".join(f"{100 * found['false'][rule]:.1f}" for rule in RULES)]
    for pool in POOLS:
        ours, theirs, oracle = (found[pool][rule] for rule in RULES)
        times = f" ({ours / theirs:.2f}, {oracle / theirs:.2f})" if theirs else ""
        cells.append(f"{100 * ours:.0f} / {100 * theirs:.0f} / {100 * oracle:.0f}{times}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladders", type=int, default=500, help="ladders for each row")
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 5], help="seeds a rung")
    options = parser.parse_args()
    for name, sizes in POOLS.items():
        if name.startswith("the"):
            print(f"Sizes of {name} changes: {', '.join(f'{size:.1f}' for size in sorted(sizes))}")
    for n in options.seeds:
        print_table(n, options.ladders)


if __name__ == "__main__":
    main()
