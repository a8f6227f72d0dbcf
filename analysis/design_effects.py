"""What each step is worth by each design that has runs: on the ladder, left out at the end, alone, by Shapley value."""

from collections.abc import Iterable, Mapping

import pandas as pd

from analysis.run_frames import collect
from analysis.stats.shapley import shapley
from analysis.verdicts import pairs_of, verdict_table
from roadmap.study.plan import Study

# Design -> what a step's number is called there, and what stands before a step's name in its rungs.
NAMES = {
    "ladder": ("on the ladder", ""),
    "leave-one-out": ("lost when left out", "without_"),
    "add-one": ("alone on the base", "only_"),
    "orders": ("Shapley value", ""),
}
WORTH_COLUMNS = ("step", "value", "ci_low", "ci_high")


def step_worths(studies: Mapping[str, Study], metric: str = "top1") -> dict[str, pd.DataFrame]:
    """Return each adopted step's change of a metric by each design, positive where the step raises it.

    Args:
        studies: Design -> its study, all from one base under one recipe.
        metric: One of `analysis.verdicts.METRICS`.

    Returns:
        What a number is called -> a frame with the columns of `WORTH_COLUMNS` (95% intervals), a row a step by its rung
        on the ladder. A design without results is left out.
    """
    worths = {}
    for design, (name, prefix) in NAMES.items():
        if design not in studies:
            continue
        study = studies[design]
        runs = collect(study)
        if design == "orders":
            worth = shapley(runs, study.layout.orders, metric)
        else:
            worth = _judged(study, runs, prefix, metric)
            if design == "leave-one-out":  # what is lost is what the step gives
                worth = worth.assign(value=-worth["value"], ci_low=-worth["ci_high"], ci_high=-worth["ci_low"])
        worth = worth.loc[worth["value"].notna(), list(WORTH_COLUMNS)]
        if len(worth):
            worths[name] = worth.reset_index(drop=True)
    return worths


def has_own_runs(study: Study, others: Iterable[Study]) -> bool:
    """Whether a run of a design that is not of the others too has been planned: a cheap look at one seed."""
    known = {config.id for other in others for config in other.configs.values()}
    own = (study.configs[rung.id, study.seeds[0]] for rung in study.rungs)
    return any(study.folder(config).is_dir() for config in own if config.id not in known)


def _judged(study: Study, runs: pd.DataFrame, prefix: str, metric: str) -> pd.DataFrame:
    adopted = {rung.id for rung in study.rungs if rung.adopted}
    judged = verdict_table(runs, pairs_of(study.rungs), metric)
    judged = judged[judged["step"].isin(adopted)]
    return judged.assign(step=judged["step"].str.removeprefix(prefix), value=judged["delta"])
