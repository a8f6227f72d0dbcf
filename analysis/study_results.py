"""What a study's run folders say: everything that a report writes, as frames and sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.agreement import agreement, correlation_in_words, correlations
from analysis.design_effects import NAMES, has_own_runs, step_worths
from analysis.history import Trail, collect_trails, curves_of
from analysis.ladder_table import ladder_table
from analysis.robustness import Robustness, collect_robustness
from analysis.run_frames import collect, collect_measured, collect_rights
from analysis.stats.shapley import interaction, shapley
from analysis.verdicts import judge_rungs
from roadmap.study.plan import Study

MEASURED = ["train_images_per_s", "test_images_per_s", "peak_memory_mb", "activations"]


@dataclass(frozen=True)
class Findings:
    """What a study's runs say. Frames of what is not there are empty.

    Attributes:
        runs: A row a rung and seed (`analysis.run_frames.collect`).
        table: A row a rung with the columns of `compare.LADDER_COLUMNS`.
        verdicts: A row a metric and change with the columns of `verdicts.VERDICT_COLUMNS`.
        tradeoffs: The table with each rung's medians of what was measured (`roadmap.measuring.rung_costs.ROW`).
        curves: A row a rung, seed and epoch with the columns of `trails.CURVE_COLUMNS`.
        measured: What was measured (`analysis.run_frames.collect_measured`).
        trails: What each run left, by run.
        worths: What each step is worth by each design that has results: name -> frame (`worths.step_worths`).
        values: Shapley values with the columns of `effects.SHAPLEY_COLUMNS`, for the design "orders".
        correlations: With the paper's changes, with the columns of `agreement.AGREEMENT_COLUMNS`, for the ladder.
        robustness: What was found of the networks' robustness (`analysis.robustness.collect_robustness`).
        sentences: What these say in words, a paragraph each.
    """

    runs: pd.DataFrame
    table: pd.DataFrame
    verdicts: pd.DataFrame
    tradeoffs: pd.DataFrame
    curves: pd.DataFrame
    measured: pd.DataFrame
    trails: Mapping[str, Trail]
    worths: Mapping[str, pd.DataFrame]
    values: pd.DataFrame
    correlations: pd.DataFrame
    robustness: Robustness
    sentences: Sequence[str]


def find(
    study: Study,
    *,
    runs: pd.DataFrame | None = None,
    beside: Mapping[str, Study] | None = None,
    margin: float | None = None,
) -> Findings:
    """Read a study's run folders and judge what they say.

    Args:
        study: The study.
        runs: What `collect` found, where it was called already.
        beside: Design -> the same steps from the same base under the same recipe, in other designs; what they have in
            their run folders is told beside this study's.
        margin: Changes of top-1 within it are as good as none; None takes the metric's own.

    Raises:
        UserError: If a result is of another version.
    """
    runs = collect(study) if runs is None else runs
    table, measured, trails = ladder_table(runs, study.rungs), collect_measured(study), collect_trails(study)
    robustness = collect_robustness(study)
    verdicts = judge_rungs(
        runs,
        measured,
        study.rungs,
        margin=margin,
        rights=collect_rights(study, runs),
        robustness=robustness,
    )
    values, correlated, sentences = pd.DataFrame(), pd.DataFrame(), list(study.notes)
    if study.design == "ladder":
        correlated = correlations(runs, study.rungs)
        sentences.append(agreement(table, study.ladder, study.base))
        sentences.append(correlation_in_words(correlated, proxy=study.recipe.is_proxy))
        correlated = correlated[correlated["spearman"].notna()]
    elif study.design == "orders":
        values = shapley(runs, study.layout.orders)
        if (values["n_orders"] < len(study.layout.orders)).any():
            sentences.append(
                "Not all drawn orders are trained: a value that fewer of them count for is not of random orders, and "
                "its interval says less than it seems to."
            )
    elif study.design == "pairs":
        sentences.append(interaction_in_words(runs, study.layout.square, study.layout.design.steps))
    sentences += robustness.notes
    return Findings(
        runs=runs,
        table=table,
        verdicts=verdicts,
        tradeoffs=table.join(measured.groupby("rung")[MEASURED].median(), on="rung"),
        curves=curves_of(study, trails),
        measured=measured,
        trails=trails,
        worths=_worths(study, beside or {}),
        values=values,
        correlations=correlated,
        robustness=robustness,
        sentences=sentences,
    )


def interaction_in_words(runs: pd.DataFrame, square: Sequence[str], steps: Sequence[str]) -> str:
    """Say what two steps do to top-1 beyond the sum of what each does alone.

    Args:
        runs: The frame of `collect`.
        square: The rungs with neither, the first, the second and both steps.
        steps: The two.
    """
    base, x, y, both = square
    found = interaction(runs, base, x, y, both)
    first, second = steps
    if math.isnan(found["value"]):
        return f"How '{first}' and '{second}' interact: nothing to say; not all four rungs have results yet."
    text = (
        f"Together '{first}' and '{second}' change top-1 by {found['value']:+.2f} points beyond the sum of what each "
        "does alone"
    )
    if math.isnan(found["ci_low"]):
        return f"{text}. A rung with one seed has no spread, so how sure that is cannot be told."
    p = "no spread to test" if math.isnan(found["p"]) else f"p = {found['p']:.3f}"
    return f"{text} (95% interval {found['ci_low']:+.2f} to {found['ci_high']:+.2f}; Welch, {p})."


def _worths(study: Study, beside: Mapping[str, Study]) -> dict[str, pd.DataFrame]:
    """Return what each step is worth, where a design other than the ladder has something to say about it."""
    ladder = study if study.design == "ladder" else beside.get("ladder")
    if ladder is None or study.design == "pairs":
        return {}
    studies = dict(beside) | {"ladder": ladder, study.design: study}
    shown = {}
    for design, one in studies.items():
        others = [other for other in studies.values() if other is not one]
        if one is ladder or one is study or has_own_runs(one, others):
            shown[design] = one
    worths = step_worths(shown) if len(shown) > 1 else {}
    return worths if worths.keys() - {NAMES["ladder"][0]} else {}
