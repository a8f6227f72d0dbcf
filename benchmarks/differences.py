"""How well the rule for two studies' differences keeps its word: `python -m benchmarks.differences`.

Draws two studies of one ladder whose steps' effects are known, compares them as `analysis.compare_effects` does, and
prints as Markdown how often a comparison has any false answer, how often an interval holds the true difference, and
what share of the real differences is told, beside Welch's test with Holm's correction. Differences and margins are in
units of the first study's noise.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.stats.differences import Other, Summary, Worth, compare_studies
from analysis.stats.tests import holm
from benchmarks.answers import NOISES, ROADMAP, SIZES, Floats, Tally, draw_effects

PAIRS = [(str(new), str(old)) for new, old in ROADMAP]
RUNGS = 17
MARGIN = 1.0
EDGE = 2.0


@dataclass(frozen=True)
class Scenario:
    """Two studies or more that are compared.

    Attributes:
        name: What stands in the table.
        noise: Of the rungs here, one of `benchmarks.answers.NOISES`,
        noise_there: and of those of the others.
        scale: Standard deviation of the others' noise, as a multiple of that here.
        seeds: A rung here,
        seeds_there: and there.
        meets: The two ladders are one from this rung on, and have the first `shared` runs of each in common,
        shared: which are so many.
        others: Studies that the one here is compared with.
        printed: The other is known by means and deviations alone, rounded to a tenth of the noise's scale.
    """

    name: str
    noise: str = "equal"
    noise_there: str = "equal"
    scale: float = 1.0
    seeds: int = 3
    seeds_there: int = 3
    meets: int = RUNGS
    shared: int = 0
    others: int = 1
    printed: bool = False


UNEQUAL, WILD, HEAVY = "2 degrees of freedom", "equal, one rung 5 times", "equal, t-distributed values"
SCENARIOS = (
    Scenario("equal noise"),
    Scenario("4 degrees of freedom", "4 degrees of freedom", "4 degrees of freedom"),
    Scenario("2 degrees of freedom", UNEQUAL, UNEQUAL),
    Scenario("t-distributed values", HEAVY, HEAVY),
    Scenario("one rung 5 times", WILD, WILD),
    Scenario("here 2 degrees of freedom, there equal and a quarter; 6 and 3 seeds", UNEQUAL, scale=0.25, seeds=6),
    Scenario("equal; the last 8 rungs are shared", meets=9, shared=3),
    Scenario(
        "4 degrees; of the last 8 rungs 3 of 6 runs", "4 degrees of freedom", "4 degrees of freedom", 1, 6, 3, 9, 3
    ),
    Scenario("2 degrees; of the last 8 rungs 2 of 3 runs", UNEQUAL, UNEQUAL, meets=9, shared=2),
    Scenario("4 degrees; against printed numbers", "4 degrees of freedom", "4 degrees of freedom", printed=True),
    Scenario("4 degrees; three studies", "4 degrees of freedom", "4 degrees of freedom", others=2),
)


def draw_study(
    rng: np.random.Generator, scenario: Scenario, here: dict[str, dict[str, float]] | None, number: int
) -> dict[str, dict[str, float]]:
    """Return a study's values without any effect, by rung and run; it shares runs with the one here where they meet."""
    noise = scenario.noise if here is None else scenario.noise_there
    std = np.sqrt(NOISES[noise](rng, RUNGS)) * (1.0 if here is None else scenario.scale)
    seeds = scenario.seeds if here is None else scenario.seeds_there
    values = {}
    for rung in range(RUNGS):
        shared: dict[str, float] = {}
        if here is not None and rung >= scenario.meets:
            std[rung] = here["std"][str(rung)]
            shared = dict(list(here[str(rung)].items())[: scenario.shared])
        count = seeds - len(shared)
        drawn = rng.standard_t(5, count) / np.sqrt(5 / 3) if "t-distributed" in noise else rng.standard_normal(count)
        own = {f"{number}/{rung}/{i}": float(std[rung] * x) for i, x in enumerate(drawn)}
        values[str(rung)] = shared | own
    return {"std": {str(rung): float(value) for rung, value in enumerate(std)}} | values


def offsets_of(scenario: Scenario, differences: Floats) -> Floats:
    """Return how much lower each rung there is, so that steps here are worth more by these differences, shape (rungs,).

    Rungs that both ladders have are the same there, whatever the step that leads to them makes up for.
    """
    offsets = np.zeros(RUNGS)
    for (new, old), difference in zip(ROADMAP, differences, strict=True):
        offsets[new] = 0.0 if new >= scenario.meets else offsets[old] - difference
    return offsets


def shifted(study: dict[str, dict[str, float]], offsets: Floats) -> dict[str, dict[str, float]]:
    """Return a study with so much added to each rung's values."""
    return {
        str(rung): {f"{run}+{offset!r}": value + offset for run, value in study[str(rung)].items()}
        for rung, offset in enumerate(offsets.tolist())
    }


def printed(study: dict[str, dict[str, float]]) -> Summary:
    """Return what would be printed of a study."""
    values = {rung: np.array(list(runs.values())) for rung, runs in study.items()}
    mean = {rung: round(float(x.mean()), 1) for rung, x in values.items()}
    std = {rung: round(float(x.std(ddof=1)), 1) for rung, x in values.items()}
    return Summary(mean, std, {rung: len(x) for rung, x in values.items()}, step=0.1)


def compared(
    scenario: Scenario,
    here: dict[str, dict[str, float]],
    there: list[dict[str, dict[str, float]]],
    offsets: Floats,
    margin: float,
) -> pd.DataFrame:
    """Return all differences from studies to whose rungs so much is added, shape (others, rungs)."""
    others: list[Other] = []
    for study, own in zip(there, offsets, strict=True):
        moved = shifted(study, own)
        others.append(Other(printed(moved) if scenario.printed else moved, PAIRS, PAIRS))
    return pd.concat(compare_studies(shifted(here, np.zeros(RUNGS)), others, margin=margin))


def is_false(table: pd.DataFrame, effect: Floats, margin: float) -> bool:
    """Return whether any answer is false."""
    sign = np.select([table["verdict"] == Worth.MORE_HERE, table["verdict"] == Worth.MORE_THERE], [1, -1], 0)
    wrong = (sign != 0) & (sign * effect <= 0)
    outside = (table["verdict"] == Worth.SAME) & (np.abs(effect) >= margin)
    return bool((wrong | outside).any())


def simulate(scenario: Scenario, comparisons: int) -> Tally:
    """Compare so many studies of a scenario."""
    rng = np.random.default_rng([2, SCENARIOS.index(scenario)])
    tally = Tally(ladders=comparisons)
    new, old = np.array(ROADMAP).T
    number = scenario.others * len(PAIRS)
    for _ in range(comparisons):
        here = draw_study(rng, scenario, None, 0)
        there = [draw_study(rng, scenario, here, place + 1) for place in range(scenario.others)]
        effects = {
            "none": (np.zeros(number), MARGIN / 5),
            "mixed": (np.concatenate([draw_effects(rng, len(PAIRS), MARGIN) for _ in there]), MARGIN),
            "edge": (np.full(number, EDGE), EDGE),
            "sizes": (rng.choice([0.0, *SIZES], number) * rng.choice([-1, 1], number), MARGIN / 5),
        }
        for name, (wanted, margin) in effects.items():
            offsets = np.array([offsets_of(scenario, own) for own in wanted.reshape(scenario.others, len(PAIRS))])
            effect = np.round(offsets[:, old] - offsets[:, new], 9).ravel()
            table = compared(scenario, here, there, offsets, margin)
            tally.add(name, is_false(table, effect, margin))
            if name == "none":
                tested = table[table["p"].notna()]
                tally.add("coverage", ((tested["ci_low"] <= 0) & (tested["ci_high"] >= 0)).mean())
            if name == "sizes":
                told = (table["p_adjusted"] <= 0.05) & (table["difference"] * effect > 0)
                by_welch = (holm(table["p_welch"]) <= 0.05) & (table["difference"] * effect > 0)
                for size in SIZES:
                    has = (np.abs(effect) == size) & table["p"].notna()
                    tally.add(f"steps {size}", has.sum())
                    tally.add(f"told {size}", (told & has).sum())
                    tally.add(f"told {size}, Welch", (by_welch & has).sum())
    return tally


def rows(comparisons: int) -> Iterator[str]:
    """Yield the table's lines."""
    yield "| studies | none | mixed, margin 1 | edge of 2 | coverage | power | Welch | by size |"
    yield "|---|---|---|---|---|---|---|---|"
    for scenario in SCENARIOS:
        tally = simulate(scenario, comparisons)
        power, by_welch = tally.power(), tally.power(", Welch")
        values = [tally.mean(name) for name in ("none", "mixed", "edge", "coverage")]
        values += [float(np.mean(power)), float(np.mean(by_welch))]
        sizes = ", ".join(f"{100 * ours:.0f}/{100 * theirs:.0f}" for ours, theirs in zip(power, by_welch, strict=True))
        yield f"| {scenario.name} | {' | '.join(f'{100 * value:.1f}' for value in values)} | {sizes} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=1000, help="for each row")
    options = parser.parse_args()
    print(f"17 rungs, 16 steps, 3 seeds where not said, {options.comparisons} comparisons a row; percent\n")
    for line in rows(options.comparisons):
        print(line, flush=True)


if __name__ == "__main__":
    main()
