"""What runs say of each step: a row a change, with its test and its answer, from one look or several."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.metrics import metric_of
from analysis.stats.answers import ALPHA, SHARED, Test, judge_summary, summarize
from analysis.stats.power import seeds_needed
from analysis.stats.sequential import Look, judge_in_rounds
from analysis.stats.tests import mcnemar_p, paired_p
from analysis.verdicts.columns import Pairs, with_words
from roadmap.runs.metrics import Metric

RightImages = Mapping[str, Mapping[int, NDArray[np.bool_]]]  # rung -> seed -> for each test image whether it was right


def verdict_table(
    runs: pd.DataFrame,
    pairs: Pairs,
    metric: str = "top1",
    *,
    about: Metric | None = None,
    margin: float | None = None,
    right_images: RightImages | None = None,
    test: Test = SHARED,
    looks: Sequence[Look] = (),
) -> pd.DataFrame:
    """Judge changes together, from runs.

    Args:
        runs: A row a rung and seed with the columns rung, seed, state and the metric (`analysis.run_frames`). All rungs
            help to learn the noise, those in no pair too.
        pairs: The changes: (rung, the one it is judged against).
        metric: A column of the frame.
        about: What the metric is; None takes what `metric_of` says.
        margin: Changes within it are as good as none; None takes the metric's own.
        right_images: Which test images each network had right (`run_frames.collect_right_images`), for top-1.
        test: The rule, as for `analysis.judge`.
        looks: Where seeds came in rounds: how many of each rung's first seeds there were whenever the answers were
            looked at. The shared rule then pays for every look, and takes no seed beyond the last one.

    Returns:
        A row a change, in their order, with the columns of `VERDICT_COLUMNS`. What cannot be known is NaN.
    """
    about = about or metric_of(metric)
    margin = about.margin if margin is None else margin
    done = runs.loc[runs["state"] == "finished", ["rung", "seed", metric]].dropna()
    by_seed = {str(rung): group.set_index("seed")[metric] for rung, group in done.groupby("rung", sort=False)}
    if looks and test == SHARED:
        judged = _judged_in_rounds(values_in_order(by_seed, looks[-1]), pairs, about, margin, looks)
    else:
        summary = summarize({rung: series.to_numpy(float) for rung, series in by_seed.items()})
        judged = judged_summary(summary, pairs, about, margin, test)
    table = with_words(judged, metric, about, margin)
    table["p_paired"] = [paired_p(_changes(by_seed, step, against)) for step, against in pairs]
    if right_images is not None and metric == "top1":
        images = [_compare_images(right_images.get(against, {}), right_images.get(step, {})) for step, against in pairs]
        table[["test_se", "mcnemar_pairs", "mcnemar_differ"]] = np.reshape(images, (len(pairs), 3))
    return table


def sought_verdicts(
    runs: pd.DataFrame, pairs: Pairs, metric: str, sought: Collection[str], *, looks: Sequence[Look], **rule: Any
) -> pd.DataFrame:
    """Judge changes together; where seeds came in rounds, those alone of the steps that they were to answer.

    The others are not tested: whether their rungs have seeds depends on what was seen of the first ones.

    Args:
        runs: As for `verdict_table`, as for pairs and metric.
        pairs: The changes.
        metric: A column of the frame.
        sought: The steps that the seeds were to answer.
        looks: As for `verdict_table`; without any, all steps are judged.
        **rule: The other options of `verdict_table`.
    """
    left = [pair for pair in pairs if looks and pair[0] not in sought]
    judged = verdict_table(runs, [pair for pair in pairs if pair not in left], metric, looks=looks, **rule)
    if not left:
        return judged
    together = pd.concat([judged, verdict_table(runs.iloc[:0], left, metric, **rule)])
    return together.set_index(["step", "against"], drop=False).loc[list(pairs)].reset_index(drop=True)


def values_in_order(by_seed: "Mapping[str, pd.Series[float]]", counts: Mapping[str, int]) -> dict[str, list[float]]:
    """Return each rung's values in the order of its first seeds, NaN for one that is missing.

    Args:
        by_seed: Rung -> values, by seed.
        counts: How many seeds each rung has.
    """
    none: pd.Series[float] = pd.Series(dtype=float)
    return {rung: by_seed.get(rung, none).reindex(range(n)).astype(float).tolist() for rung, n in counts.items()}


def judged_summary(
    summary: tuple[dict[str, float], dict[str, float], dict[str, int]],
    pairs: Pairs,
    about: Metric,
    margin: float,
    test: Test,
    rounded_to: float = 0.0,
) -> pd.DataFrame:
    """Judge changes from the means, standard deviations and numbers of seeds of all rungs."""
    mean, std, n = summary
    mean = dict.fromkeys((rung for pair in pairs for rung in pair), np.nan) | mean  # judged, whether it ran or not
    judged = judge_summary(mean, std, n, pairs, better=about.better, margin=margin, test=test, step=rounded_to)
    return _with_needs(judged, (mean, std, n), pairs, margin, rounded_to)


def _with_needs(
    judged: pd.DataFrame,
    summary: tuple[dict[str, float], dict[str, float], dict[str, int]],
    pairs: Pairs,
    margin: float,
    rounded_to: float = 0.0,
) -> pd.DataFrame:
    """Return judged changes with the rungs' means, their standard error and the seeds that each would need."""
    mean, std, n = summary
    needed = seeds_needed(mean, std, n, pairs, margin=margin, step=rounded_to)
    variances = judged["noise"] ** 2 / judged["n"], judged["noise_against"] ** 2 / judged["n_against"]
    return judged.rename(columns={"verdict": "answer"}).assign(
        value=[mean[step] for step, _ in pairs],
        value_against=[mean[against] for _, against in pairs],
        seed_se=np.sqrt(sum(variances)),
        seeds_needed=needed["seeds_needed"],
    )


def _judged_in_rounds(
    values: Mapping[str, Sequence[float]], pairs: Pairs, about: Metric, margin: float, looks: Sequence[Look]
) -> pd.DataFrame:
    """Judge changes from the values of all rungs, of a ladder that was looked at several times."""
    judged = judge_in_rounds(values, pairs, looks, better=about.better, margin=margin)
    mean, std, n = summarize(values)
    return _with_needs(judged, (mean, std, n), pairs, margin)


def _changes(by_seed: Mapping[str, "pd.Series[float]"], step: str, against: str) -> NDArray[np.float64]:
    """Return the change of each seed that both rungs have."""
    if step not in by_seed or against not in by_seed:
        return np.zeros(0)
    changes: NDArray[np.float64] = np.asarray((by_seed[step] - by_seed[against]).dropna(), dtype=np.float64)
    return changes


def _compare_images(
    old: Mapping[int, NDArray[np.bool_]], new: Mapping[int, NDArray[np.bool_]]
) -> tuple[float, float, float]:
    """Return the change's standard error over test images in points, and McNemar's pairs: how many, how many differ.

    The error is that of the mean over images of (share of the new networks that are right - share of the old ones).
    """
    if not old or not new or len({len(right) for right in (*old.values(), *new.values())}) != 1:
        return np.nan, np.nan, np.nan
    means = [np.mean(list(side.values()), axis=0) for side in (old, new)]
    change = means[1] - means[0]
    error = 100 * float(change.std(ddof=1)) / np.sqrt(len(change)) if len(change) > 1 else np.nan
    seeds = sorted(old.keys() & new.keys())
    lost = [int((old[seed] & ~new[seed]).sum()) for seed in seeds]
    won = [int((new[seed] & ~old[seed]).sum()) for seed in seeds]
    return error, float(len(seeds)), float((mcnemar_p(lost, won) < ALPHA).sum())
