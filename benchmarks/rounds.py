"""Seeds in rounds beside equal numbers of seeds: `python -m benchmarks.rounds`.

Draws ladders whose changes are known, lets the seeds come in rounds as `analysis.stats.allocation` chooses them, and
counts false answers of the whole procedure. The same ladders are judged once with equal numbers of seeds; the table
says how many runs the rounds take for as many right answers in the mean.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analysis.stats.allocation import next_round
from analysis.stats.answers import Answer
from analysis.stats.sequential import MOST_SEEDS, Rounds
from benchmarks.answers import NOISES
from benchmarks.bank import answers_of
from benchmarks.real_ladders import BANK, Floats, bank_sizes, paper_sizes, read_bank, roadmap_pairs

PAIRS = roadmap_pairs()
RUNGS = list(read_bank())
NEW, OLD = (np.array([RUNGS.index(pair[side]) for pair in PAIRS]) for side in (0, 1))
EQUAL = (3, 4, 6, 8, 12, 16)  # seeds of the fixed designs
MOST = MOST_SEEDS  # seeds of a rung that are drawn
RUNS = 17 * 16  # what a study may spend
COSTS = dict.fromkeys(RUNGS, 1.0)
MARGIN = 0.2
TABLES = BANK.parent / "rounds.md"
Ladder = tuple[Floats, Floats]  # values, shape (rungs, MOST); true changes, shape (pairs,)


def modelled(noise: str, sizes: Floats) -> Callable[[np.random.Generator], Ladder]:
    """Return a function that draws a ladder with noise as named and changes of these sizes, of either sign."""

    def draw(rng: np.random.Generator) -> Ladder:
        effect = rng.choice(sizes, len(PAIRS)) * rng.choice([-1, 1], len(PAIRS))
        values = rng.normal(size=(len(RUNGS), MOST)) * np.sqrt(NOISES[noise](rng, len(RUNGS)))[:, None]
        return values + _means(effect)[:, None], effect

    return draw


def resampled(changes: bool) -> Callable[[np.random.Generator], Ladder]:
    """Return a function that draws seeds of every rung from the bank, with its changes or without them.

    Values are drawn with replacement, so the bank's means are the truth.
    """
    bank = read_bank()
    means = np.array([bank[rung].mean() for rung in RUNGS]) * changes

    def draw(rng: np.random.Generator) -> Ladder:
        noise = np.stack([rng.choice(bank[rung] - bank[rung].mean(), MOST) for rung in RUNGS])
        return noise + means[:, None], means[NEW] - means[OLD]

    return draw


def _means(effect: Floats) -> Floats:
    means = np.zeros(len(RUNGS))
    for change, new, old in zip(effect, NEW, OLD, strict=True):
        means[new] = means[old] + change
    return means


SCENARIOS = {
    "equal noise, no change": modelled("equal", np.zeros(1)),
    "2 degrees of freedom, no change": modelled("2 degrees of freedom", np.zeros(1)),
    "the bank, no change": resampled(changes=False),
    "equal noise, the paper's changes": modelled("equal", paper_sizes()),
    "4 degrees of freedom, the paper's changes": modelled("4 degrees of freedom", paper_sizes()),
    "equal noise, the bank's changes": modelled("equal", bank_sizes()),
    "4 degrees of freedom, the bank's changes": modelled("4 degrees of freedom", bank_sizes()),
    "the bank": resampled(changes=True),
}


@dataclass
class Tally:
    """Sums over ladders: of false ones, and of right answers by runs spent and by equal seeds."""

    ladders: int = 0
    false: int = 0
    false_equal: int = 0
    looks: int = 0
    by_runs: Floats = field(default_factory=lambda: np.zeros(RUNS + 1))
    by_seeds: Floats = field(default_factory=lambda: np.zeros(len(EQUAL)))

    def ratio(self, i: int) -> float:
        """Return the runs that rounds take for as many right answers as the i-th fixed design, as a share of its."""
        enough = np.flatnonzero(self.by_runs >= self.by_seeds[i])
        return float(enough[0]) / (len(RUNGS) * EQUAL[i]) if len(enough) else np.inf


def right_and_false(answers: list[Answer], effect: Floats) -> tuple[int, bool]:
    """Return the number of right answers, and whether any is false."""
    right = false = 0
    for answer, change in zip(answers, effect, strict=True):
        if answer in (Answer.HELPS, Answer.HURTS):
            true = change > 0 if answer is Answer.HELPS else change < 0
        elif answer is Answer.NO_EFFECT:
            true = abs(change) < MARGIN
        else:
            continue
        right, false = right + true, false + (not true)
    return right, false > 0


def simulate(draw: Callable[[np.random.Generator], Ladder], ladders: int, *, equal: bool = True) -> Tally:
    """Judge ladders in rounds and, if `equal`, by equal seeds."""
    rng, tally = np.random.default_rng(13), Tally(ladders)
    for _ in range(ladders):
        values, effect = draw(rng)
        rounds, n, spent, seen = Rounds(PAIRS, margin=MARGIN), np.zeros(len(RUNGS), dtype=int), 0, 0
        while (step := next_round(rounds, COSTS, RUNS - spent)).stop is None:
            n += [step.seeds.get(rung, 0) for rung in RUNGS]
            tally.by_runs[spent : n.sum()] += seen
            spent = int(n.sum())
            rounds.look({rung: values[i, : n[i]] for i, rung in enumerate(RUNGS)}, brief=True)
            seen, false = right_and_false(list(rounds.verdicts), effect)
        tally.by_runs[spent:] += seen
        tally.false += false
        tally.looks += rounds.looks
        for i, k in enumerate(EQUAL if equal else ()):
            right, false = right_and_false(answers_of(dict(zip(RUNGS, values[:, :k], strict=True)), PAIRS), effect)
            tally.by_seeds[i] += right
            tally.false_equal += false
    return tally


def table(ladders: int, scenarios: list[str]) -> str:
    """Return the table."""
    text = [
        f"Margin {MARGIN}; at most {RUNS} runs a ladder.",
        "",
        "| noise and changes | ladders | false, % | rounds | "
        f"right answers by {' / '.join(map(str, EQUAL))} equal seeds | "
        "runs in rounds for as many, as a share | mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in scenarios:
        found = simulate(SCENARIOS[name], ladders, equal="no change" not in name)
        line = f"| {name} | {ladders} | {100 * found.false / ladders:.1f} | {found.looks / ladders:.1f} |"
        if "no change" in name:
            text.append(f"{line} | | |")
        else:
            ratios = [found.ratio(i) for i in range(len(EQUAL))]
            right = " / ".join(f"{answers / ladders:.1f}" for answers in found.by_seeds)
            text.append(f"{line} {right} | {' / '.join(f'{r:.2f}' for r in ratios)} | {np.mean(ratios):.2f} |")
        print(text[-1], flush=True)
    return "\n".join(text) + "\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladders", type=int, default=1000, help="ladders for each row")
    parser.add_argument("--only", nargs="*", default=list(SCENARIOS), help="rows")
    parser.add_argument("--out", type=Path, default=TABLES)
    options = parser.parse_args()
    options.out.write_text(table(options.ladders, options.only))


if __name__ == "__main__":
    main()
