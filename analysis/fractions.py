"""What a factorial plan says of each step and of each two: a row an effect and metric, as verdicts are of steps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.metrics import metric_of
from analysis.stats.answers import summarize
from analysis.stats.factorial import judge_effects
from analysis.verdicts.columns import in_columns, with_words
from roadmap.ladder.fractions import Effect, Fraction, combined

# What an effect is held against: of one step, of two.
AGAINST = {1: "the networks without it", 2: "the sum of both"}
SECTIONS = {1: "One step", 2: "Two steps: what they do beyond the sum of both"}


def weights_of(fraction: Fraction, effects: Sequence[Effect]) -> NDArray[np.float64]:
    """Return how much of each network's mean is in each effect, shape (effects, networks).

    An effect of one step is the mean of the networks with it less the mean of those without. One of two steps is what
    the one does where the other is taken, less what it does where not.
    """
    places = {step: place for place, step in enumerate(fraction.steps)}
    signs = [fraction.signs([places[step] for step in effect.steps]) for effect in effects]
    scale = np.array([2 * len(effect.steps) / len(fraction.taken) for effect in effects])
    weights: NDArray[np.float64] = np.reshape(signs, (len(effects), len(fraction.taken))) * scale[:, None]
    return weights


def fraction_verdicts(runs: pd.DataFrame, fraction: Fraction, metric: str, margin: float | None = None) -> pd.DataFrame:
    """Judge the effects of a factorial plan on a metric, all together.

    Nothing is judged before every network has a result: with one missing, effects would mix.

    Args:
        runs: A row a rung and seed with the columns rung, seed, state and the metric.
        fraction: The plan.
        metric: A column of the frame.
        margin: Effects within it are as good as none; None takes the metric's own.

    Returns:
        A row an effect, with the columns of `verdicts.VERDICT_COLUMNS`. `value` and `value_against` are of one step the
        means with it and without it, of two the effect of the first where the second is taken, and where not.
    """
    about, effects = metric_of(metric), fraction.effects
    margin = about.margin if margin is None else margin
    done = runs[(runs["state"] == "finished") & runs[metric].notna()]
    values = {str(rung): own[metric].to_numpy(float) for rung, own in done.groupby("rung", sort=False)}
    mean, std, n = summarize({rung: values.get(rung, np.zeros(0)) for rung in fraction.rungs})
    weights = weights_of(fraction, effects)
    means, seeds = np.array(list(mean.values())), np.array(list(n.values()))
    judged = judge_effects(means, list(std.values()), seeds, weights, better=about.better, margin=margin)
    judged = judged.rename(columns={"se": "seed_se"}).assign(
        step=[effect.name for effect in effects],
        against=[AGAINST[len(effect.steps)] for effect in effects],
        n=int(seeds.min()),
        n_against=int(seeds.min()),
        value=(np.maximum(weights, 0) @ means),
        value_against=(np.maximum(-weights, 0) @ means),
    )
    return with_words(judged, metric, about, margin)


def fraction_costs(costs: pd.DataFrame, fraction: Fraction, metric: str) -> pd.DataFrame:
    """Say what each step costs on average over the plan's networks; nothing of two steps.

    Args:
        costs: Indexed by rung, with the metric as a column.
        fraction: The plan.
        metric: One of `analysis.metrics.COSTS`.
    """
    effects = fraction.effects
    weights = weights_of(fraction, effects)
    of_networks = costs[metric].reindex(list(fraction.rungs)).to_numpy(dtype=float)
    alone = np.array([len(effect.steps) == 1 for effect in effects])
    value, before = (np.where(alone, np.maximum(side, 0) @ of_networks, np.nan) for side in (weights, -weights))
    delta = value - before
    words = np.select([delta > 0, delta < 0, delta == 0], ["more", "less", "the same"], "not known")
    table = pd.DataFrame({"step": [effect.name for effect in effects]})
    table["against"] = [AGAINST[len(effect.steps)] for effect in effects]
    table = table.assign(value=value, value_against=before, delta=delta, n=0, n_against=0, metric=metric, answer="")
    return in_columns(table.assign(verdict=words))


def effect_rows(fraction: Fraction) -> pd.DataFrame:
    """Return what figures call the effects: a row each with the columns rung, label, section and adopted."""
    effects = fraction.effects
    return pd.DataFrame(
        {
            "rung": [effect.name for effect in effects],
            "label": [effect.name for effect in effects],
            "section": [SECTIONS[len(effect.steps)] for effect in effects],
            "adopted": True,
        }
    )


def missing_networks(runs: pd.DataFrame, fraction: Fraction) -> int:
    """Return how many networks of a plan have no result yet."""
    done = set(runs.loc[runs["state"] == "finished", "rung"])
    return sum(rung not in done for rung in fraction.rungs)


def alias_cells(fraction: Fraction) -> list[dict[str, str]]:
    """Return the cells of a table that says which effects come together; nothing where all are apart."""
    return [
        {"effect": combined(effect.steps), "together with": ", ".join(map(combined, effect.aliases))}
        for effect in fraction.effects
        if effect.aliases
    ]


def network_cells(fraction: Fraction) -> list[dict[str, str]]:
    """Return the cells of a table of the plan, a row a network: which steps it has."""
    return [
        {"rung": rung} | {step: "+" if has else MISSING for step, has in zip(fraction.steps, row, strict=True)}
        for rung, row in zip(fraction.rungs, fraction.taken, strict=True)
    ]


MISSING = "\N{EN DASH}"
