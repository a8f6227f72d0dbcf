"""Seeds in rounds beside equal numbers of seeds: `python -m benchmarks.rounds`.

Draws ladders whose changes are known, lets the seeds come in rounds as `analysis.stats.allocation` chooses them, and
counts false answers of the whole procedure. The same ladders are judged once with equal numbers of seeds, and with the
seeds that an oracle chooses (`benchmarks.oracle`); the table says how many runs each takes for as many right answers in
the mean. What was counted is kept (`--state`) after every few ladders: the same command goes on where it was stopped,
with more `--ladders` it adds to them, and rows of a bank that has grown begin anew. After a change of the rule the
state has to go.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.stats.allocation import next_round
from analysis.stats.answers import Answer
from analysis.stats.sequential import MOST_SEEDS, Rounds
from benchmarks.answers import NOISES
from benchmarks.bank import answers_of
from benchmarks.oracle import Oracle
from benchmarks.real_ladders import BANK, Floats, bank_sizes, draw_like, paper_sizes, read_bank, roadmap_pairs
from roadmap.common import files

PAIRS = roadmap_pairs()
RUNGS = list(read_bank())
EDGES = tuple((RUNGS.index(step), RUNGS.index(against)) for step, against in PAIRS)
NEW, OLD = np.array(EDGES).T
EQUAL = (3, 4, 6, 8, 12, 16)  # seeds of the fixed designs
FIRST = (2, 3, 4)  # seeds of all rungs with which the oracle begins
MOST = MOST_SEEDS  # seeds of a rung that are drawn
RUNS = 17 * 16  # what a study may spend
COSTS = dict.fromkeys(RUNGS, 1.0)
MARGIN = 0.2
KEPT_EVERY = 10  # ladders
TABLES = BANK.parent / "rounds.md"


class Ladder(NamedTuple):
    """A drawn ladder: values, shape (rungs, MOST); true changes, shape (pairs,); true noise, shape (rungs,)."""

    values: Floats
    effect: Floats
    std: Floats


@dataclass(frozen=True)
class Scenario:
    """Where ladders are drawn from.

    Attributes:
        draw: Draws one.
        noise: What the oracle takes the noise to be drawn from; None where no step changes anything.
    """

    draw: Callable[[np.random.Generator], Ladder]
    noise: str | None = None


def modelled(noise: str, sizes: Floats) -> Scenario:
    """Return ladders with noise as named and changes of these sizes, of either sign."""

    def draw(rng: np.random.Generator) -> Ladder:
        effect = rng.choice(sizes, len(PAIRS)) * rng.choice([-1, 1], len(PAIRS))
        std = np.sqrt(NOISES[noise](rng, len(RUNGS)))
        return Ladder(rng.normal(size=(len(RUNGS), MOST)) * std[:, None] + _means(effect)[:, None], effect, std)

    return Scenario(draw, noise if sizes.any() else None)


def from_bank(*, changes: bool, smooth: bool = True) -> Scenario:
    """Return ladders with the bank's noise, with its changes or without them; the bank's means are the truth.

    Args:
        changes: Whether the rungs keep their means.
        smooth: Draw values like the bank's, all different; else the bank's own, with replacement.
    """
    bank = read_bank()
    means = np.array([bank[rung].mean() for rung in RUNGS]) * changes
    std = np.array([bank[rung].std(ddof=1) for rung in RUNGS])

    def draw(rng: np.random.Generator) -> Ladder:
        how = draw_like if smooth else lambda values, n, rng: rng.choice(values, n)
        values = np.stack([how(bank[rung] - bank[rung].mean(), MOST, rng) for rung in RUNGS])
        return Ladder(values + means[:, None], means[NEW] - means[OLD], std)

    return Scenario(draw, "4 degrees of freedom" if changes else None)


def _means(effect: Floats) -> Floats:
    means = np.zeros(len(RUNGS))
    for change, new, old in zip(effect, NEW, OLD, strict=True):
        means[new] = means[old] + change
    return means


SCENARIOS = {
    "the bank, no change": from_bank(changes=False),
    "the bank's own values, no change": from_bank(changes=False, smooth=False),
    "equal noise, no change": modelled("equal", np.zeros(1)),
    "2 degrees of freedom, no change": modelled("2 degrees of freedom", np.zeros(1)),
    "equal noise, the paper's changes": modelled("equal", paper_sizes()),
    "4 degrees of freedom, the paper's changes": modelled("4 degrees of freedom", paper_sizes()),
    "4 degrees of freedom, the bank's changes": modelled("4 degrees of freedom", bank_sizes()),
    "the bank": from_bank(changes=True),
}


@dataclass
class Tally:
    """Sums over ladders: of false ones, of rounds, and of right answers by runs spent and by equal seeds.

    Attributes:
        bank: Runs in the bank that the ladders were drawn from.
        ladders: How many.
        false: Ladders with a false answer in rounds.
        looks: Rounds.
        by_runs: Right answers in rounds once so many runs are spent, shape (RUNS + 1,).
        by_seeds: Those of each of `EQUAL`.
        by_oracle: Those of the oracle once so many runs are spent, for each of `FIRST`.
    """

    bank: int
    ladders: int = 0
    false: int = 0
    looks: int = 0
    by_runs: list[float] = field(default_factory=lambda: [0.0] * (RUNS + 1))
    by_seeds: list[float] = field(default_factory=lambda: [0.0] * len(EQUAL))
    by_oracle: list[list[float]] = field(default_factory=lambda: [[0.0] * (RUNS + 1) for _ in FIRST])

    def ratios(self, *, oracle: bool = False) -> list[float]:
        """Return the runs that rounds (or the oracle) take for as many right answers as each fixed design, as shares.

        Where all `RUNS` do not suffice, these count. Of the oracle's beginnings the one with the most answers counts
        for each number of runs, and it may choose the fixed design itself.
        """
        answers = np.max(self.by_oracle, axis=0) if oracle else np.array(self.by_runs)
        shares = []
        for fixed, n in zip(self.by_seeds, EQUAL, strict=True):
            enough = np.flatnonzero(answers >= fixed)
            share = float(enough[0] if len(enough) else RUNS) / (len(RUNGS) * n)
            shares.append(min(share, 1.0) if oracle else share)
        return shares


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


def add_ladder(tally: Tally, scenario: Scenario) -> None:
    """Draw the next ladder and judge it in rounds and, where there is something to find, by equal seeds and oracle."""
    ladder = scenario.draw(np.random.default_rng([13, tally.ladders]))
    tally.ladders += 1
    rounds, n, spent, seen, false = Rounds(PAIRS, margin=MARGIN), np.zeros(len(RUNGS), dtype=int), 0, 0, False
    while (step := next_round(rounds, COSTS, RUNS - spent)).stop is None:
        n += [step.seeds.get(rung, 0) for rung in RUNGS]
        _add(tally.by_runs, seen, spent, int(n.sum()))
        spent = int(n.sum())
        rounds.look({rung: ladder.values[i, : n[i]] for i, rung in enumerate(RUNGS)}, brief=True)
        seen, false = right_and_false(list(rounds.verdicts), ladder.effect)
    _add(tally.by_runs, seen, spent)
    tally.false += false
    tally.looks += rounds.looks
    if scenario.noise is None:
        return
    for i, k in enumerate(EQUAL):
        tally.by_seeds[i] += judged(ladder, np.full(len(RUNGS), k))
    oracle = Oracle(EDGES, scenario.noise, MARGIN)
    for first, answers in zip(FIRST, tally.by_oracle, strict=True):
        path = oracle.path(ladder.effect, ladder.std, first, RUNS)
        ends = [*(int(seeds.sum()) for seeds in path[1:]), RUNS + 1]
        for seeds, end in zip(path, ends, strict=True):
            _add(answers, judged(ladder, seeds), int(seeds.sum()), end)


def _add(by_runs: list[float], answers: int, start: int, end: int = RUNS + 1) -> None:
    by_runs[start:end] = [before + answers for before in by_runs[start:end]]


def judged(ladder: Ladder, n: Floats) -> int:
    """Return the right answers from so many seeds of each rung, judged once."""
    values = {rung: some[: int(k)] for rung, some, k in zip(RUNGS, ladder.values, n, strict=True)}
    return right_and_false(answers_of(values, PAIRS), ladder.effect)[0]


class State:
    """What was counted so far, in a file."""

    def __init__(self, file: Path | None) -> None:
        """Read what the file has, if it is there; without a file nothing is kept."""
        self.file, self.bank = file, sum(map(len, read_bank().values()))
        found = json.loads(file.read_text()) if file is not None and file.is_file() else {}
        self.tallies = {name: Tally(**tally) for name, tally in found.items()}

    def count(self, name: str, ladders: int) -> Tally:
        """Return a row's tally over at least so many ladders."""
        tally = self.tallies.get(name)
        if tally is None or ("bank" in name and tally.bank != self.bank):
            tally = self.tallies[name] = Tally(self.bank)
        while tally.ladders < ladders:
            add_ladder(tally, SCENARIOS[name])
            if tally.ladders % KEPT_EVERY == 0 or tally.ladders == ladders:
                self._keep()
        return tally

    def _keep(self) -> None:
        if self.file is not None:
            rows = [f"{json.dumps(row)}: {json.dumps(asdict(tally))}" for row, tally in self.tallies.items()]
            text = "{\n" + ",\n".join(rows) + "\n}\n"
            files.write_atomically(self.file, lambda file: file.write(text.encode()))


def tables(state: State, ladders: Callable[[str], int], scenarios: list[str]) -> str:
    """Return both tables."""
    errors = ["| noise | ladders | false, % (standard error) | rounds |", "|---|---|---|---|"]
    runs = [
        f"| noise and changes | ladders | right answers by {' / '.join(map(str, EQUAL))} equal seeds | "
        "runs in rounds for as many, as a share | mean | by an oracle | mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in scenarios:
        found = state.count(name, ladders(name))
        k, false = found.ladders, found.false / found.ladders
        error = np.sqrt(false * (1 - false) / k)
        errors.append(f"| {name} | {k} | {100 * false:.1f} ({100 * error:.1f}) | {found.looks / k:.1f} |")
        print(errors[-1], flush=True)
        if SCENARIOS[name].noise is not None:
            right = " / ".join(f"{answers / k:.1f}" for answers in found.by_seeds)
            shares = [
                f"{' / '.join(f'{r:.2f}' for r in ratios)} | {np.mean(ratios):.2f}"
                for ratios in (found.ratios(), found.ratios(oracle=True))
            ]
            runs.append(f"| {name} | {k} | {right} | {' | '.join(shares)} |")
            print(runs[-1], flush=True)
    head = f"Margin {MARGIN}; at most {RUNS} runs a ladder; the bank has {state.bank} runs.\n"
    return "\n".join([head, *errors, "", *runs]) + "\n"


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladders", type=int, default=600, help="ladders for each row without changes")
    parser.add_argument("--bank-ladders", type=int, default=1500, help="of these, for the bank")
    parser.add_argument("--changed", type=int, default=60, help="ladders for each row with changes")
    parser.add_argument("--only", nargs="*", default=list(SCENARIOS), choices=list(SCENARIOS), help="rows")
    parser.add_argument("--state", type=Path, default=TABLES.with_suffix(".json"))
    parser.add_argument("--out", type=Path, default=TABLES)
    options = parser.parse_args()

    def ladders(name: str) -> int:
        if SCENARIOS[name].noise is not None:
            return int(options.changed)
        return int(options.bank_ladders if "bank" in name else options.ladders)

    options.out.write_text(tables(State(options.state), ladders, options.only))


if __name__ == "__main__":
    main()
