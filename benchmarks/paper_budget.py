"""The paper's ladder on a budget: `python -m benchmarks.paper_budget`.

GPU-hours on an A100 (by its data sheet) until the adopted steps are answered, by equal seeds of every rung and by
rounds of a budget, forecast from the paper's printed means and deviations; and what the third seed of each rung bought.
"""

import argparse
from collections.abc import Mapping
from functools import partial

from analysis.stats.answers import judge_summary
from analysis.stats.forecast import forecast, noise_of_rungs
from analysis.stats.sequential import ANSWERED
from analysis.verdicts import PRINTED
from benchmarks.real_ladders import PRINTED_SEEDS
from roadmap.measuring.forecast import forecast_on
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study

BASE, RECIPE, DEVICE = "resnet50", "imagenet", "a100"
MARGIN = 0.2
SEEDS = (2, 3, 4, 5, 6, 8, 10)  # equal seeds of every rung, whose cost is also given to rounds


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100)
    draws = parser.parse_args().draws
    study = plan_study(StudySpec(BASE, RECIPE, assume_data=True))
    adopted = [rung for rung in study.rungs if rung.adopted]
    pairs = [(rung.id, rung.parent) for rung in adopted if rung.parent is not None and rung.section != "Training"]
    rungs = list(dict.fromkeys(rung for pair in reversed(pairs) for rung in reversed(pair)))
    seconds = forecast_on(DEVICE, study, 1).seconds
    hours = {rung: seconds[study.configs[rung, 0].id] / 3600 for rung in rungs}
    mean, std = _published(study, rungs)
    printed = dict.fromkeys(rungs, PRINTED_SEEDS)
    judged = judge_summary(mean, std, printed, pairs, margin=MARGIN, step=PRINTED)
    noise = noise_of_rungs(mean, std, printed, pairs, step=PRINTED)
    budgets = [seeds * sum(hours.values()) for seeds in SEEDS]
    ahead = partial(forecast, mean, noise, pairs, hours, budgets, seeds=printed, margin=MARGIN, draws=draws)
    equal, rounds = ahead(equal_seeds=True).curve, ahead().curve
    print(f"{len(pairs)} adopted steps, {len(rungs)} rungs, {sum(hours.values()):,.0f} GPU-hours a seed of all\n")
    print("| GPU-hours | equal seeds | answered | by rounds: answered | spent, mean |\n|---|---|---|---|---|")
    for seeds, one, other in zip(SEEDS, equal.itertuples(), rounds.itertuples(), strict=True):
        print(f"| {one.budget:,.0f} | {seeds} | {one.answered:.1f} | {other.answered:.1f} | {other.spent:,.0f} |")
    print("\n| rungs without a third seed | GPU-hours saved | answers lost |\n|---|---|---|")
    whole = set(judged["step"][judged["verdict"].isin(ANSWERED)])
    for some in (*([rung] for rung in rungs), rungs):
        counts = printed | dict.fromkeys(some, 2)
        fewer = judge_summary(mean, std, counts, pairs, margin=MARGIN, step=PRINTED)
        lost = ", ".join(sorted(whole - set(fewer["step"][fewer["verdict"].isin(ANSWERED)])))
        name = some[0] if len(some) == 1 else "all"
        print(f"| {name} | {sum(hours[rung] for rung in some):,.0f} | {lost or 'none'} of {len(whole)} |")


def _published(study: Study, rungs: list[str]) -> tuple[Mapping[str, float], Mapping[str, float]]:
    papers = {rung.id: rung.paper for rung in study.rungs if rung.id in rungs}
    mean = {rung: paper.top1 for rung, paper in papers.items() if paper.top1 is not None}
    return mean, {rung: paper.top1_std for rung, paper in papers.items() if paper.top1_std is not None}


if __name__ == "__main__":
    main()
