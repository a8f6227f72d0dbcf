"""Verdicts on a ladder's steps: a row a change, judged by `analysis.stats.welch`, from runs or from printed numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.robustness import Robustness, collect_robustness, robust_metric
from analysis.run_frames import collect, collect_measured, collect_rights
from analysis.stats.welch import (
    ALPHA,
    BETTER,
    WORSE,
    Metric,
    Sample,
    in_words,
    judge,
    mcnemar_p,
    median_ratio,
    paired_p,
    seeds_needed,
)
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Rung
from roadmap.study.plan import Study

# What a run measures and a step can change.
METRICS = {
    "top1": Metric("top-1 (%)", 1, 0.2),
    "top5": Metric("top-5 (%)", 1, 0.2),
    "nll": Metric("NLL (nats)", -1, 0.01, ".3f"),
    "ece": Metric("calibr. error (%)", -1, 0.2),
    "train_loss": Metric("training loss", -1, 0.01, ".3f"),
}
# What is measured side by side, a round in place of a seed (`measuring.rung_costs`); margins are shares of the value.
SPEEDS = {
    "train_images_per_s": Metric("training images/s", 1, 0.02, ",.0f", "rounds"),
    "test_images_per_s": Metric("inference images/s", 1, 0.02, ",.0f", "rounds"),
}
# What is counted, and needs no test.
COSTS = {
    "macs": Metric("multiply-adds", -1, 0.0, ",.0f"),
    "params": Metric("parameters", -1, 0.0, ",.0f"),
    "activations": Metric("activations", -1, 0.0, ",.0f"),
    "peak_memory_mb": Metric("peak memory (MB)", -1, 0.0, ",.1f"),
}

# A row of a verdict table: column -> meaning and unit.
VERDICT_COLUMNS = {
    "step": "rung",
    "against": "the rung that it is judged against",
    "metric": "what changed; `metric_of` says in which unit",
    "n": "finished seeds of the rung (rounds of a speed)",
    "n_against": "those of the other",
    "value": "mean of the rung",
    "value_against": "mean of the other",
    "delta": "change of the mean",
    "ci_low": "lower end of its 95% interval (Welch), for this change alone",
    "ci_high": "upper end",
    "seed_se": "its standard error from the spread of the seeds",
    "test_se": "its standard error from the choice of test images, the trained networks being given (top-1)",
    "p": "Welch's t-test, two-sided",
    "p_holm": "the same after Holm's correction over the table's changes of this metric",
    "p_paired": "paired t-test over the seeds that both rungs have",
    "p_same": "equivalence test within the margin, after Holm's correction",
    "mcnemar_pairs": "seeds whose two networks' predictions McNemar's exact test compared (top-1)",
    "mcnemar_told": "of these, those with p < 0.05",
    "margin": "changes within it are as good as none",
    "seeds_needed": "seeds a rung that would tell a change of the observed size with a probability of 80%",
    "verdict": "in words",
}

# What a step costs, in a table of top-1's verdicts: column -> meaning.
FACTOR_COLUMNS = {
    "macs_factor": "multiply-adds, as a multiple of those of the rung before",
    "time_factor": "time of a training image, the same way, measured side by side",
    "memory_factor": "peak memory of a training step, the same way",
}

Rights = Mapping[str, Mapping[int, NDArray[np.bool_]]]  # rung -> seed -> for each test image whether it was right
Pairs = Sequence[tuple[str, str]]


def metric_of(name: str) -> Metric:
    """Return what a metric of a verdict is: of runs, of speeds, of costs, of robustness."""
    return (METRICS | SPEEDS | COSTS).get(name) or robust_metric(name)


def pairs_of(rungs: Iterable[Rung]) -> list[tuple[str, str]]:
    """Return each rung that has one before it, and that one. References are no steps: `reference_pairs` has them."""
    return [(rung.id, rung.parent) for rung in rungs if rung.parent is not None and not rung.is_reference]


def reference_pairs(rungs: Iterable[Rung]) -> list[tuple[str, str]]:
    """Return each reference and the rung that it is judged against."""
    return [(rung.id, rung.parent) for rung in rungs if rung.parent is not None and rung.is_reference]


def verdict_table(
    runs: pd.DataFrame, pairs: Pairs, metric: str = "top1", *, margin: float | None = None, rights: Rights | None = None
) -> pd.DataFrame:
    """Judge changes together, from runs.

    Args:
        runs: A row a rung and seed with the columns rung, seed, state and the metric (`analysis.run_frames`).
        pairs: The changes: (rung, the one it is judged against).
        metric: One of `METRICS`, or of `Robustness.metrics`, whose frame is one of finished runs.
        margin: Changes within it are as good as none; None takes the metric's own.
        rights: Which test images each network had right (`analysis.run_frames.collect_rights`), for top-1.

    Returns:
        A row a change, in their order, with the columns of `VERDICT_COLUMNS`. What cannot be known is NaN.
    """
    done = runs.loc[runs["state"] == "finished", ["rung", "seed", metric]].dropna()
    by_seed = {str(rung): group.set_index("seed")[metric] for rung, group in done.groupby("rung")}
    summary = done.groupby("rung")[metric].agg(["mean", "std", "count"])
    table = judge_table(summary, pairs, metric, metric_of(metric), margin)
    table["p_paired"] = [paired_p(_changes(by_seed, step, against)) for step, against in pairs]
    if rights is not None and metric == "top1":
        looks = [_look_at_images(rights.get(against, {}), rights.get(step, {})) for step, against in pairs]
        table[["test_se", "mcnemar_pairs", "mcnemar_told"]] = np.reshape(looks, (len(pairs), 3))
    return table


def speed_table(measured: pd.DataFrame, pairs: Pairs, metric: str) -> pd.DataFrame:
    """Judge changes of a speed, from rounds of one process that visited every network in turn.

    The verdict takes rounds for as many seeds; `p_paired` makes use of what happened to all networks of a round alike.

    Args:
        measured: A row a rung and round with the columns rung, round and the metric (`analysis.collect_measured`).
        pairs: The changes.
        metric: One of `SPEEDS`; its margin is a share of the value before.
    """
    by_round = measured.rename(columns={"round": "seed"}).assign(state="finished")
    done = by_round[["rung", "seed", metric]].dropna()
    summary = done.groupby("rung")[metric].agg(["mean", "std", "count"])
    before = summary["mean"].reindex([against for _, against in pairs]).to_numpy()
    table = judge_table(summary, pairs, metric, SPEEDS[metric], SPEEDS[metric].margin * before)
    rounds = {str(rung): group.set_index("seed")[metric] for rung, group in done.groupby("rung")}
    table["p_paired"] = [paired_p(_changes(rounds, step, against)) for step, against in pairs]
    return table


def cost_table(costs: pd.DataFrame, pairs: Pairs, metric: str) -> pd.DataFrame:
    """Say of a counted cost what each change does to it; there is nothing to test.

    Args:
        costs: Indexed by rung, with the metric as a column.
        pairs: The changes.
        metric: One of `COSTS`.
    """
    value = costs[metric].reindex([step for step, _ in pairs]).to_numpy(dtype=float)
    before = costs[metric].reindex([against for _, against in pairs]).to_numpy(dtype=float)
    delta = value - before
    words = np.select([delta > 0, delta < 0, delta == 0], ["more", "less", "the same"], "not known")
    table = _empty_table(pairs, metric)
    table[["value", "value_against", "delta"]] = np.column_stack([value, before, delta])
    return table.assign(verdict=words)


def published_verdicts(
    ladder: Ladder, base: str, *, pairs: Pairs | None = None, margin: float | None = None
) -> pd.DataFrame:
    """Judge the paper's own steps by the same rule, from its printed means and standard deviations of top-1.

    Args:
        ladder: The ladder, with what is published.
        base: Where it starts.
        pairs: The changes; None takes every rung and the one it comes from.
        margin: As for `verdict_table`.
    """
    rungs, seeds = ladder.climb(base), ladder.bases[base].seeds
    printed = {
        rung.id: (rung.paper.top1, rung.paper.top1_std, seeds if rung.paper.top1_std is not None else 1)
        for rung in rungs
        if rung.paper.top1 is not None
    }
    summary = pd.DataFrame.from_dict(printed, orient="index", columns=["mean", "std", "count"])
    return judge_table(summary.astype(float), pairs or pairs_of(rungs), "top1", METRICS["top1"], margin)


def judge_table(
    summary: pd.DataFrame, pairs: Pairs, name: str, metric: Metric, margin: float | NDArray[np.float64] | None = None
) -> pd.DataFrame:
    """Judge changes together, from each rung's mean, standard deviation (n - 1) and number of seeds.

    Args:
        summary: Indexed by rung, with the columns mean, std and count.
        pairs: The changes: (rung, the one it is judged against).
        name: The metric's name.
        metric: What it is.
        margin: As for `verdict_table`; or one for each change.
    """
    new, old = (summary.reindex([pair[side] for pair in pairs]) for side in (0, 1))
    new["count"], old["count"] = new["count"].fillna(0), old["count"].fillna(0)
    samples = [Sample.of(side["mean"], side["std"], side["count"]) for side in (old, new)]
    margins = np.broadcast_to(metric.margin if margin is None else margin, len(pairs)).astype(float)
    told = judge(*samples, better=metric.better, margin=margins)
    family = int(np.isfinite(told.p).sum())
    needed = [
        seeds_needed(delta, before, after, family=max(family, 1))
        for delta, before, after in zip(told.delta, samples[0].std, samples[1].std, strict=True)
    ]
    n = np.minimum(samples[0].n, samples[1].n)
    words = [
        in_words(verdict, n=int(seeds), margin=margin, unit=metric.unit)
        for verdict, seeds, margin in zip(told.verdict, n, margins, strict=True)
    ]
    for i, (own, before) in enumerate(zip(new["count"], old["count"], strict=True)):
        if own and not before:
            words[i] += f" of {pairs[i][1]} here"
    table = _empty_table(pairs, name)
    columns: dict[str, Any] = {
        "n": new["count"].to_numpy(int),
        "n_against": old["count"].to_numpy(int),
        "value": samples[1].mean,
        "value_against": samples[0].mean,
        "delta": told.delta,
        "ci_low": told.ci_low,
        "ci_high": told.ci_high,
        "seed_se": told.se,
        "p": told.p,
        "p_holm": told.p_holm,
        "p_same": told.p_same,
        "margin": margins,
        "seeds_needed": needed,
        "verdict": words,
    }
    return table.assign(**columns)


def judge_rungs(
    runs: pd.DataFrame,
    measured: pd.DataFrame,
    rungs: Sequence[Rung],
    *,
    margin: float | None = None,
    rights: Rights | None = None,
    robustness: Robustness | None = None,
) -> pd.DataFrame:
    """Judge steps together, and references together: what is said of a step does not hang on what it is held against.

    Args:
        runs: As for `judge_everything`, as is all that follows.
        measured: Likewise.
        rungs: Rungs and references.
        margin: Likewise.
        rights: Likewise.
        robustness: Likewise.

    Returns:
        The rows of all metrics, one metric after the other, references after steps.
    """
    families = [pairs for pairs in (pairs_of(rungs), reference_pairs(rungs)) if pairs] or [[]]
    tables = [
        judge_everything(runs, measured, pairs, margin=margin, rights=rights, robustness=robustness)
        for pairs in families
    ]
    metrics = {name: place for place, name in enumerate(dict.fromkeys(pd.concat(tables)["metric"]))}
    return pd.concat(tables).sort_values(
        "metric", key=lambda names: names.map(metrics), kind="stable", ignore_index=True
    )


def judge_everything(
    runs: pd.DataFrame,
    measured: pd.DataFrame,
    pairs: Pairs,
    *,
    margin: float | None = None,
    rights: Rights | None = None,
    robustness: Robustness | None = None,
) -> pd.DataFrame:
    """Judge changes in every metric, each metric's changes together.

    Args:
        runs: The frame of `analysis.run_frames.collect`.
        measured: That of `analysis.run_frames.collect_measured`; empty where nothing was measured.
        pairs: The changes.
        margin: That of top-1; None takes its own.
        rights: As for `verdict_table`.
        robustness: What `analysis.robustness.collect_robustness` found; None or nothing found adds no metric.

    Returns:
        The rows of all metrics, one metric after the other.
    """
    tables = [
        verdict_table(runs, pairs, metric, margin=margin if metric == "top1" else None, rights=rights)
        for metric in METRICS
    ]
    tables += [speed_table(measured, pairs, metric) for metric in SPEEDS]
    costs = runs.groupby("rung")[["macs", "params"]].first()
    costs = costs.join(measured.groupby("rung")[["activations", "peak_memory_mb"]].first())
    tables += [cost_table(costs, pairs, metric) for metric in COSTS]
    if robustness is not None:
        examined = robustness.frame.assign(state="finished")
        tables += [verdict_table(examined, pairs, metric) for metric in robustness.metrics]
    return pd.concat(tables, ignore_index=True)


def with_costs(verdicts: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of top-1 with the columns of `FACTOR_COLUMNS`: what a step costs, beside what it changes.

    Args:
        verdicts: What `judge_everything` returned.
        measured: What it was given.
    """
    macs, memory = (verdicts[verdicts["metric"] == name] for name in ("macs", "peak_memory_mb"))
    top1 = verdicts[verdicts["metric"] == "top1"]
    speeds = {str(rung): rows.set_index("round")["train_images_per_s"] for rung, rows in measured.groupby("rung")}
    unknown = pd.Series(dtype=float)
    ratios = [
        median_ratio(speeds.get(step, unknown), speeds.get(against, unknown))
        for step, against in zip(top1["step"], top1["against"], strict=True)
    ]
    costs = {
        "macs_factor": (macs["value"] / macs["value_against"]).to_numpy(),
        "time_factor": 1 / np.array(ratios),
        "memory_factor": (memory["value"] / memory["value_against"]).to_numpy(),
    }
    return top1.assign(**costs)


def judge_study(study: Study, *, margin: float | None = None) -> pd.DataFrame:
    """Judge every rung of a study against the one it comes from, in every metric, from its run folders."""
    runs = collect(study)
    return judge_rungs(
        runs,
        collect_measured(study),
        study.rungs,
        margin=margin,
        rights=collect_rights(study, runs),
        robustness=collect_robustness(study),
    )


def to_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a verdict table's rows as JSON-able values; what is not known is null."""
    return [
        {
            str(name): None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in row.items()
        }
        for row in table.astype(object).to_dict("records")
    ]


def is_told(verdict: str) -> bool:
    """Whether a verdict is that something changed."""
    return verdict in (BETTER, WORSE)


def _empty_table(pairs: Pairs, metric: str) -> pd.DataFrame:
    table = pd.DataFrame(np.nan, index=range(len(pairs)), columns=list(VERDICT_COLUMNS), dtype=object)
    numbers = [name for name in VERDICT_COLUMNS if name not in ("step", "against", "metric", "verdict")]
    table[numbers] = table[numbers].astype(float)
    steps, others = (np.array([pair[side] for pair in pairs], dtype=object) for side in (0, 1))
    return table.assign(step=steps, against=others, metric=metric, n=0, n_against=0, verdict="")


def _changes(by_seed: Mapping[str, "pd.Series[float]"], step: str, against: str) -> NDArray[np.float64]:
    """Return the change of each seed that both rungs have."""
    if step not in by_seed or against not in by_seed:
        return np.zeros(0)
    changes: NDArray[np.float64] = np.asarray((by_seed[step] - by_seed[against]).dropna(), dtype=np.float64)
    return changes


def _look_at_images(
    old: Mapping[int, NDArray[np.bool_]], new: Mapping[int, NDArray[np.bool_]]
) -> tuple[float, float, float]:
    """Return the change's standard error over test images in points, and McNemar's pairs: how many, and how many told.

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
