"""How the rule for a ladder's answers does on real runs: `python -m benchmarks.bank`.

Draws ladders from the bank of real runs (records/bank), judges them as `analysis.judge` does, and writes three tables.

A/A, where every answer but "no effect" is false, in two ways. Disjoint sets: of each of 16 rungs two sets of seeds are
drawn that share none, and each set is compared with the other; so a ladder has 16 steps and 32 sets. The ladder's own
steps: from each rung's values the rung's mean over the bank is taken, so that no step changes anything; of each rung
seeds are drawn at random, the same one perhaps twice, and the 16 steps of the ladder are judged, those that share a
rung among them.

A/B: of each rung a few seeds are drawn, none twice, and every step's answer is held against that of the whole bank.
From such draws comes also how many of the steps so many seeds of every rung answer, right or wrong.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from analysis.stats._contrasts import contrast, step_down
from analysis.stats._noise import learn_noise
from analysis.stats.answers import Answer, judge
from benchmarks.answers import ALPHA
from benchmarks.real_ladders import BANK, Floats, read_bank, roadmap_pairs

MARGIN = 0.2  # points, as a report has it
TABLES = BANK.parent / "trials.md"
PAIRS = roadmap_pairs()
ANSWERED = (Answer.HELPS, Answer.HURTS, Answer.NO_EFFECT)
LENGTHS = (3, 6, 8, 12, 16, 24, 32)  # seeds a rung, for the number of steps that they answer
Values = dict[str, Floats]


def disjoint_sets(bank: Values, n: int, rng: np.random.Generator) -> tuple[Values, list[tuple[str, str]]]:
    """Return two sets of n seeds of each of 16 rungs, and the pairs; rungs without enough seeds are left out."""
    able = [rung for rung, values in bank.items() if len(values) >= 2 * n]
    sets, pairs = {}, []
    for rung in rng.permutation(able)[:16]:
        drawn = rng.permutation(bank[rung])[: 2 * n]
        sets[f"{rung} 1"], sets[f"{rung} 2"] = drawn[:n], drawn[n:]
        pairs.append((f"{rung} 2", f"{rung} 1"))
    return sets, pairs


def own_steps(bank: Values, n: int, rng: np.random.Generator) -> tuple[Values, list[tuple[str, str]]]:
    """Return n values of each rung less the rung's mean, drawn with replacement, and the ladder's steps."""
    return {rung: rng.choice(values - values.mean(), n) for rung, values in bank.items()}, PAIRS


def answers_of(values: Values, pairs: list[tuple[str, str]]) -> list[Answer]:
    """Return the answers that `judge` gives, without the numbers beside them: three times as fast."""
    place = {rung: i for i, rung in enumerate(values)}
    new, old = np.array([(place[a], place[b]) for a, b in pairs]).T
    seeds = np.array([len(some) for some in values.values()], dtype=float)
    noise = learn_noise(np.array([some.std(ddof=1) for some in values.values()]), seeds)
    if noise is None:
        return [Answer.NOT_TESTED] * len(pairs)
    means = np.array([some.mean() for some in values.values()])
    delta, margin = (means[new] - means[old]) / noise.unit, np.full(len(pairs), MARGIN / noise.unit)
    _, adjusted, same = step_down(contrast(noise, seeds, new, old), delta, margin, ALPHA, brief=True)
    return [
        Answer.HELPS if p <= ALPHA and change > 0
        else Answer.HURTS if p <= ALPHA and change < 0
        else Answer.NO_EFFECT if p_same <= ALPHA
        else Answer.UNDECIDED
        for change, p, p_same in zip(delta, adjusted, same, strict=True)
    ]  # fmt: skip


DESIGNS = {"disjoint sets of the same rung": disjoint_sets, "the ladder's own steps, without their changes": own_steps}


def aa_row(bank: Values, n: int, draws: int) -> list[str]:
    """Return the percentage of ladders with a false answer by each design; empty where the bank is too small."""
    cells = []
    for number, design in enumerate(DESIGNS.values()):
        rng = np.random.default_rng([n, number])
        false = steps = 0
        for _ in range(draws):
            values, pairs = design(bank, n, rng)
            steps = len(pairs)
            if steps:
                false += not {Answer.HELPS, Answer.HURTS}.isdisjoint(answers_of(values, pairs))
        cells.append(f"{100 * false / draws:.1f}" + (f" ({steps} steps)" if steps < 16 else "") if steps else "")
    return cells


def ab_column(bank: Values, of_bank: list[Answer], n: int, draws: int) -> tuple[list[str], float]:
    """Hold answers from n seeds against the bank's.

    Returns:
        For each step the percentages of answers that are the bank's, and that contradict it; and that of ladders with
        an answer that contradicts it.
    """
    rng, counts, false_ladders = np.random.default_rng([n, 2]), Counter[tuple[int, str]](), 0
    for _ in range(draws):
        values = {rung: rng.choice(some, min(n, len(some)), replace=False) for rung, some in bank.items()}
        answers = answers_of(values, PAIRS)
        contradict = [a != b and a in ANSWERED and b in ANSWERED for a, b in zip(answers, of_bank, strict=True)]
        false_ladders += any(contradict)
        for i, (answer, against, wrong) in enumerate(zip(answers, of_bank, contradict, strict=True)):
            counts[i, "same"] += answer == against
            counts[i, "false"] += wrong
    share = 100 / draws
    cells = [f"{share * counts[i, 'same']:.0f} / {share * counts[i, 'false']:.1f}" for i in range(len(of_bank))]
    return cells, share * false_ladders


def answered(bank: Values, n: int, draws: int) -> float:
    """Return how many steps n seeds of every rung answer, in the mean over draws."""
    rng = np.random.default_rng([n, 3])
    found = 0
    for _ in range(draws):
        values = {rung: rng.choice(some, n, replace=False) for rung, some in bank.items()}
        found += sum(answer in ANSWERED for answer in answers_of(values, PAIRS))
    return found / draws


def tables(draws: int, seeds: list[int]) -> str:
    """Return all tables."""
    bank = read_bank()
    sizes = sorted({len(values) for values in bank.values()})
    whole = judge(bank, PAIRS, margin=MARGIN)
    had = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    text = [f"Bank: {had} seeds a rung; {draws} draws a cell.", ""]
    text += [f"| A/A: seeds | {' | '.join(DESIGNS)} |", "|---|---|---|"]
    text += [f"| {n} | {' | '.join(aa_row(bank, n, draws))} |" for n in seeds]
    columns = [ab_column(bank, list(whole["verdict"]), n, draws) for n in seeds]
    text += ["", f"| A/B: step | the bank's change, answer | {' | '.join(f'{n} seeds' for n in seeds)} |"]
    text += ["|---|---|" + "---|" * len(seeds)]
    text += [
        f"| {row.step} | {row.delta:+.2f} ({row.ci_low:+.2f} to {row.ci_high:+.2f}), {row.verdict} | "
        f"{' | '.join(cells[i] for cells, _ in columns)} |"
        for i, row in enumerate(whole.itertuples())
    ]
    text += [f"| ladders with a false answer | | {' | '.join(f'{false:.1f}' for _, false in columns)} |"]
    text += ["", "| seeds of every rung | runs | steps answered, of 16 |", "|---|---|---|"]
    text += [
        f"| {n} | {n * len(bank)} | {answered(bank, n, max(1, draws // 4) if n < sizes[0] else 1):.1f} |"
        for n in LENGTHS
        if n <= sizes[0]
    ]
    return "\n".join(text) + "\n"


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000, help="ladders for each cell; a quarter for the last table")
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 5, 8], help="seeds a rung")
    parser.add_argument("--out", type=Path, default=TABLES)
    options = parser.parse_args()
    options.out.write_text(tables(options.draws, options.seeds))


if __name__ == "__main__":
    main()
