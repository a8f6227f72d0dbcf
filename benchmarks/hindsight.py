"""What `plan --budget` forecasts, beside what then happens on real runs: `python -m benchmarks.hindsight`.

A study begins with a few of the bank's seeds of every rung, drawn at random. From these alone it is forecast how many
steps a larger budget answers, as `plan --budget` does. Then the study goes on in rounds with other seeds of the bank. A
rung that is asked for more seeds than the bank has gets values like the bank's (`benchmarks.real_ladders.draw_like`).
"""

import argparse
from pathlib import Path

import numpy as np

from analysis.stats.allocation import next_round
from analysis.stats.answers import summarize
from analysis.stats.forecast import forecast, noise_of_rungs
from analysis.stats.sequential import MOST_SEEDS, Rounds
from benchmarks.real_ladders import BANK, Floats, draw_like, read_bank, roadmap_pairs

PAIRS, BANK_VALUES = roadmap_pairs(), read_bank()
COSTS = dict.fromkeys(BANK_VALUES, 1.0)
BUDGETS = (102, 153, 204, 272)  # runs in all
MARGIN = 0.2
TABLES = BANK.parent / "hindsight.md"


def draw_study(rng: np.random.Generator) -> dict[str, Floats]:
    """Return each rung's seeds in the order in which a study gets them."""
    return {
        rung: np.concatenate([rng.permutation(values), draw_like(values, MOST_SEEDS, rng)])[:MOST_SEEDS]
        for rung, values in BANK_VALUES.items()
    }


def happened(study: dict[str, Floats], first: int) -> Floats:
    """Return how many steps are answered in rounds with each of `BUDGETS`, from so many seeds of every rung on."""
    n, answered = dict.fromkeys(study, first), np.zeros(len(BUDGETS))
    rounds = Rounds(PAIRS, margin=MARGIN)
    rounds.look({rung: values[:first] for rung, values in study.items()})
    while True:
        spent = sum(n.values())
        answered[np.array(BUDGETS) >= spent] = (~rounds.open).sum()
        chosen = next_round(rounds, COSTS, max(BUDGETS) - spent)
        if chosen.stop is not None:
            return answered
        n = {rung: k + chosen.seeds.get(rung, 0) for rung, k in n.items()}
        rounds.look({rung: values[: n[rung]] for rung, values in study.items()}, brief=True)


def forecast_from(study: dict[str, Floats], first: int, draws: int) -> Floats:
    """Return the mean and both ends of what is forecast from so many seeds of every rung, shape (BUDGETS, 3)."""
    there = {rung: values[:first] for rung, values in study.items()}
    spent = first * len(study)
    mean, std, n = summarize(there)
    curve = forecast(
        mean, noise_of_rungs(mean, std, n, PAIRS), PAIRS, COSTS, [budget - spent for budget in BUDGETS],
        seeds=n, values=there, looks=[dict.fromkeys(study, first)], margin=MARGIN, draws=draws,
    ).curve  # fmt: skip
    ahead: Floats = curve[["answered", "low", "high"]].to_numpy(float)
    return ahead


def rows(first: int, studies: int, draws: int) -> list[str]:
    """Return a row for each budget."""
    ahead, then = np.zeros((studies, len(BUDGETS), 3)), np.zeros((studies, len(BUDGETS)))
    for number in range(studies):
        study = draw_study(np.random.default_rng([first, number]))
        ahead[number], then[number] = forecast_from(study, first, draws), happened(study, first)
    miss = ahead[..., 0] - then
    within = (ahead[..., 1] <= then) & (then <= ahead[..., 2])
    return [
        f"| {first} | {budget} | {ahead[:, i, 0].mean():.1f} | {then[:, i].mean():.1f} | {miss[:, i].mean():+.1f} | "
        f"{np.abs(miss[:, i]).mean():.1f} | {100 * within[:, i].mean():.0f} |"
        for i, budget in enumerate(BUDGETS)
    ]


def table(seeds: list[int], studies: int, draws: int) -> str:
    """Return the table."""
    have = min(map(len, BANK_VALUES.values()))
    text = [
        f"{studies} studies for each number of seeds, {draws} draws a forecast; the bank has {have} seeds of "
        f"every rung or more. Margin {MARGIN}.",
        "",
        "| seeds of every rung so far | budget, runs in all | answered of 16, forecast | answered then | "
        "forecast less then, mean | its size, mean | studies within the forecast's range, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for first in seeds:
        text += rows(first, studies, draws)
        print("\n".join(text[-len(BUDGETS) :]), flush=True)
    return "\n".join(text) + "\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 5], help="seeds of every rung so far")
    parser.add_argument("--studies", type=int, default=20, help="studies for each")
    parser.add_argument("--draws", type=int, default=10, help="draws of each forecast")
    parser.add_argument("--out", type=Path, default=TABLES)
    options = parser.parse_args()
    options.out.write_text(table(options.seeds, options.studies, options.draws))


if __name__ == "__main__":
    main()
