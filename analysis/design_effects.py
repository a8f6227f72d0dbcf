"""A step's effect by each design that has runs: on the ladder, left out at the end, alone, averaged over orders."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from analysis.evaluations.own_metrics import collect_own_metrics, runs_of
from analysis.fractions import fraction_verdicts
from analysis.metrics import METRICS, TOP1, metric_of
from analysis.run_frames import collect
from analysis.stats.shapley import interaction, shapley
from analysis.verdicts import pairs_of, verdict_table
from roadmap.common.formats import change, interval
from roadmap.study.plan import Study
from roadmap.study.rounds import Counts

# Design -> what a step's effect is called there, and what stands before a step's name in its rungs.
NAMES = {
    "ladder": ("on the ladder", ""),
    "leave-one-out": ("lost when left out", "without_"),
    "add-one": ("alone on the base", "only_"),
    "orders": ("Shapley value", ""),
}
OF_SOME = {"fractional": ("average over combinations", "")}  # a design of the steps that it names
EFFECT_COLUMNS = ("step", "value", "ci_low", "ci_high")


def design_effects(studies: Mapping[str, Study], metric: str = "top1") -> dict[str, pd.DataFrame]:
    """Return each adopted step's effect on a metric by each design, positive where the step raises it.

    Args:
        studies: Design -> its study, all from one base under one recipe.
        metric: One of `analysis.metrics.METRICS`, or one of the user's own.

    Returns:
        What an effect is called -> a frame with the columns of `EFFECT_COLUMNS` (95% intervals), a row a step by its
        rung on the ladder. A design without results is left out.
    """
    effects = {}
    for design, (name, prefix) in (NAMES | OF_SOME).items():
        if design not in studies:
            continue
        study = studies[design]
        if metric in METRICS:
            runs, looks = collect(study), study.looks
        else:
            found = collect_own_metrics(study)
            runs, looks = runs_of(found, metric), found.looks_of(metric, study).seeds
        if design == "fractional":
            effect = _of_one_step(study, runs, metric)
        elif design == "orders":
            effect = shapley(runs, study.layout.orders, metric)
        else:
            effect = _judged(study, runs, prefix, metric, looks)
            if design == "leave-one-out":  # what is lost is what the step gives
                effect = effect.assign(value=-effect["value"], ci_low=-effect["ci_high"], ci_high=-effect["ci_low"])
        effect = effect.loc[effect["value"].notna(), list(EFFECT_COLUMNS)]
        if len(effect):
            effects[name] = effect.reset_index(drop=True)
    return effects


def effects_beside(study: Study, beside: Mapping[str, Study], metric: str = "top1") -> dict[str, pd.DataFrame]:
    """Return the steps' effects by a study's design and those beside it, where a design other than the ladder has any.

    Args:
        study: The study.
        beside: Design -> the same steps from the same base under the same recipe, in other designs.
        metric: As for `design_effects`.
    """
    ladder = study if study.design == "ladder" else beside.get("ladder")
    if ladder is None or study.design == "pairs":
        return {}
    studies = dict(beside) | {"ladder": ladder, study.design: study}
    shown = {}
    for design, one in studies.items():
        others = [other for other in studies.values() if other is not one]
        if one is ladder or one is study or has_runs_beyond(one, others):
            shown[design] = one
    effects = design_effects(shown, metric) if len(shown) > 1 else {}
    return effects if effects.keys() - {NAMES["ladder"][0]} else {}


def has_runs_beyond(study: Study, others: Iterable[Study]) -> bool:
    """Whether a run of a design that is not of the others too has been planned: a cheap look at one seed."""
    known = {config.id for other in others for config in other.configs.values()}
    first = (study.configs[rung.id, study.seeds[0]] for rung in study.rungs)
    return any(study.folder(config).is_dir() for config in first if config.id not in known)


def _of_one_step(study: Study, runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the effects of single steps by a factorial plan, under the steps' own names."""
    fraction = study.layout.fraction
    assert fraction
    judged = fraction_verdicts(runs, fraction, metric).iloc[: len(fraction.steps)]
    return judged.assign(step=list(fraction.steps), value=judged["delta"])


def _judged(study: Study, runs: pd.DataFrame, prefix: str, metric: str, looks: Sequence[Counts]) -> pd.DataFrame:
    adopted = {rung.id for rung in study.rungs if rung.adopted}
    judged = verdict_table(runs, pairs_of(study.rungs), metric, looks=looks)
    judged = judged[judged["step"].isin(adopted)]
    return judged.assign(step=judged["step"].str.removeprefix(prefix), value=judged["delta"])


def interaction_in_words(runs: pd.DataFrame, square: Sequence[str], steps: Sequence[str], metric: str = TOP1) -> str:
    """Say what two steps do to a metric beyond the sum of what each does alone.

    Args:
        runs: The frame of `run_frames.collect`.
        square: The rungs with neither, the first, the second and both steps.
        steps: The two.
        metric: A column of the frame.
    """
    base, x, y, both = square
    found = interaction(runs, base, x, y, both, metric)
    first, second = steps
    about = metric_of(metric)
    name, digits = about.name, about.digits
    by = f"{change(found['value'], digits)} {about.unit}".strip()
    if math.isnan(found["value"]):
        where = "" if metric == TOP1 else f" in {name}"
        return f"How '{first}' and '{second}' interact{where}: nothing to say; not all four rungs have results yet."
    text = f"Together '{first}' and '{second}' change {name} by {by} beyond the sum of what each does alone"
    if math.isnan(found["ci_low"]):
        return f"{text}. A rung with one seed has no spread, so nothing is known of how sure that is."
    p = "no spread to test" if math.isnan(found["p"]) else f"p = {found['p']:.3f}"
    return f"{text} (95% interval {interval(found['ci_low'], found['ci_high'], digits)}; Welch, {p})."
