"""What the runs say of each step: a row a change and metric, with the answer, from runs or from printed numbers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from analysis.metrics import METRICS, SPEEDS, metric_of
from analysis.sentences import in_words
from analysis.stats.answers import SHARED, Answer, Test, judge_summary, summarize
from analysis.stats.power import seeds_needed
from analysis.stats.sequential import Look, judge_in_rounds
from analysis.stats.tests import holm, mcnemar_p, paired_p
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Rung
from roadmap.runs.metrics import Metric

# A row of a verdict table: column -> meaning and unit.
VERDICT_COLUMNS = {
    "step": "rung",
    "against": "the rung that it is judged against",
    "metric": "what changed; `analysis.metrics.metric_of` says in which unit",
    "n": "finished seeds of the rung (rounds of a speed)",
    "n_against": "those of the other",
    "value": "mean of the rung",
    "value_against": "mean of the other",
    "delta": "change of the mean",
    "ci_low": "lower end of its 95% interval, for this change alone",
    "ci_high": "upper end",
    "seed_se": "its standard error from the spread of the seeds",
    "test_se": "its standard error from the choice of test images, the trained networks being given (top-1)",
    "p": "test of no change by the rule that gives the answers, two-sided, for this change alone",
    "p_adjusted": "the same, allowing for all changes of the table in this metric",
    "p_welch": "Welch's t-test from the two rungs' own seeds, two-sided",
    "p_holm": "the same after Holm's correction over the table's changes of this metric",
    "p_paired": "paired t-test over the seeds that both rungs have",
    "p_same": "test of a change beyond the margin, allowing for all changes: a small p says that there is none",
    "mcnemar_pairs": "seeds whose two networks' predictions McNemar's exact test compared (top-1)",
    "mcnemar_differ": "of these, those with p < 0.05",
    "margin": "changes within it are as good as none",
    "seeds_needed": "seeds a rung that would answer a change of the observed size with a probability of 80%",
    "answer": "helps, hurts, no effect, undecided or not tested; empty where there is nothing to test",
    "verdict": "the same in words",
}
WORDS = ("step", "against", "metric", "answer", "verdict")

# What a step costs, in a table of top-1's verdicts: column -> meaning.
FACTOR_COLUMNS = {
    "macs_factor": "multiply-adds, as a multiple of those of the rung before",
    "time_factor": "time of a training image, the same way, measured side by side",
    "memory_factor": "peak memory of a training step, the same way",
}

# What `speed_table` knows of a change before it allows for how many there are.
SPEED_COLUMNS = (
    "step", "against", "n", "n_against", "value", "value_against", "delta", "ci_low", "ci_high", "p", "p_same",
    "log_ratio",
)  # fmt: skip

ALPHA = 0.05
PRINTED = 0.01  # what the paper rounds its means and deviations to, points
RightImages = Mapping[str, Mapping[int, NDArray[np.bool_]]]  # rung -> seed -> for each test image whether it was right
Pairs = Sequence[tuple[str, str]]


def pairs_of(rungs: Iterable[Rung]) -> list[tuple[str, str]]:
    """Return each rung that has one before it, and that one. References are no steps: `reference_pairs` has them."""
    return [(rung.id, rung.parent) for rung in rungs if rung.parent is not None and not rung.is_reference]


def reference_pairs(rungs: Iterable[Rung]) -> list[tuple[str, str]]:
    """Return each reference and the rung that it is judged against."""
    return [(rung.id, rung.parent) for rung in rungs if rung.parent is not None and rung.is_reference]


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
        judged = _judged(summary, pairs, about, margin, test)
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


def published_verdicts(
    ladder: Ladder, base: str, *, pairs: Pairs | None = None, margin: float | None = None, test: Test = SHARED
) -> pd.DataFrame:
    """Judge the paper's own steps by the same rule, from its printed means and standard deviations of top-1.

    Args:
        ladder: The ladder, with what is published.
        base: Where it starts.
        pairs: The changes; None takes every rung and the one it comes from.
        margin: As for `verdict_table`.
        test: Likewise.
    """
    rungs, seeds = ladder.climb(base), ladder.bases[base].seeds
    mean = {rung.id: rung.paper.top1 for rung in rungs if rung.paper.top1 is not None}
    std = {rung.id: rung.paper.top1_std for rung in rungs if rung.paper.top1_std is not None}
    summary = (mean, std, {rung: seeds if rung in std else 1 for rung in mean})
    about = METRICS["top1"]
    margin = about.margin if margin is None else margin
    pairs = pairs_of(rungs) if pairs is None else pairs
    judged = _judged(summary, pairs, about, margin, test, rounded_to=PRINTED)
    return with_words(judged, "top1", about, margin)


def speed_table(measured: pd.DataFrame, pairs: Pairs, metric: str) -> pd.DataFrame:
    """Judge changes of a speed, from rounds of one process that visited every network in turn.

    Speeds of a round belong together, so what is tested is the mean over rounds of the logarithm of their ratio: a
    machine that slows down for a while changes it little. Intervals are those of the ratio, turned into images/s.

    Args:
        measured: A row a rung and round with the columns rung, round and the metric (`run_frames.collect_measured`).
        pairs: The changes.
        metric: One of `SPEEDS`; its margin is a share of the value before.
    """
    about = SPEEDS[metric]
    done = measured[["rung", "round", metric]].dropna()
    rounds = {str(rung): group.set_index("round")[metric].astype(float) for rung, group in done.groupby("rung")}
    none: pd.Series[float] = pd.Series(dtype=float)
    rows = []
    for step, against in pairs:
        new, old = rounds.get(step, none), rounds.get(against, none)
        row = {"step": step, "against": against, "n": len(new), "n_against": len(old)}
        rows.append(row | {"value": new.mean(), "value_against": old.mean()} | _ratio_test(new, old, about.margin))
    judged = pd.DataFrame(rows, columns=[*SPEED_COLUMNS])
    p, p_same = holm(judged["p"]), holm(judged["p_same"])
    log_ratio = judged.pop("log_ratio").to_numpy(float)
    answers = np.full(len(judged), Answer.NOT_TESTED, dtype=object)
    answers[np.isfinite(p)] = Answer.UNDECIDED
    answers[p_same < ALPHA] = Answer.NO_EFFECT
    answers[(p < ALPHA) & (log_ratio > 0)] = Answer.HELPS
    answers[(p < ALPHA) & (log_ratio < 0)] = Answer.HURTS
    judged = judged.assign(p_adjusted=p, p_same=p_same, p_paired=judged["p"], answer=answers)
    return with_words(judged, metric, about, about.margin * judged["value_against"].to_numpy(float))


def _ratio_test(new: "pd.Series[float]", old: "pd.Series[float]", margin: float) -> dict[str, float]:
    """Test the ratios of a speed, round by round: whether they differ from 1, and by less than a share."""
    logs = np.log((new / old).dropna().to_numpy(float))
    delta = float(new.mean() - old.mean())
    if len(logs) < 2 or np.ptp(logs) <= 1e-12:
        return {"delta": delta, "log_ratio": float(logs.mean()) if len(logs) else np.nan}
    mean, se, df = float(logs.mean()), float(logs.std(ddof=1)) / len(logs) ** 0.5, len(logs) - 1
    half = stdtrit(df, 1 - ALPHA / 2) * se
    before = float(old.mean())
    return {
        "delta": delta,
        "ci_low": before * np.expm1(mean - half),
        "ci_high": before * np.expm1(mean + half),
        "p": paired_p(logs),
        "p_same": float(stdtr(df, (abs(mean) - np.log1p(margin)) / se)),
        "log_ratio": mean,
    }


def cost_table(costs: pd.DataFrame, pairs: Pairs, metric: str) -> pd.DataFrame:
    """Say of a counted cost what each change does to it; there is nothing to test.

    Args:
        costs: Indexed by rung, with the metric as a column.
        pairs: The changes.
        metric: One of `analysis.metrics.COSTS`.
    """
    value = costs[metric].reindex([step for step, _ in pairs]).to_numpy(dtype=float)
    before = costs[metric].reindex([against for _, against in pairs]).to_numpy(dtype=float)
    delta = value - before
    words = np.select([delta > 0, delta < 0, delta == 0], ["more", "less", "the same"], "not known")
    table = pd.DataFrame(list(pairs), columns=["step", "against"])
    table = table.assign(value=value, value_against=before, delta=delta, n=0, n_against=0)
    return in_columns(table.assign(metric=metric, answer="", verdict=words))


def with_costs(verdicts: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of top-1 with the columns of `FACTOR_COLUMNS`: what a step costs, beside what it changes.

    Args:
        verdicts: Rows of all metrics (`StudyResults.verdicts`).
        measured: A row a rung and round (`run_frames.collect_measured`).
    """
    macs, memory = (verdicts[verdicts["metric"] == name] for name in ("macs", "peak_memory_mb"))
    top1 = verdicts[verdicts["metric"] == "top1"]
    speeds = {str(rung): rows.set_index("round")["train_images_per_s"] for rung, rows in measured.groupby("rung")}
    unknown: pd.Series[float] = pd.Series(dtype=float)
    ratios = [
        float((speeds.get(step, unknown) / speeds.get(against, unknown)).median())
        for step, against in zip(top1["step"], top1["against"], strict=True)
    ]
    costs = {
        "macs_factor": (macs["value"] / macs["value_against"]).to_numpy(),
        "time_factor": 1 / np.array(ratios),
        "memory_factor": (memory["value"] / memory["value_against"]).to_numpy(),
    }
    return top1.assign(**costs)


def without_answers(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a verdict table with what was measured alone: means and changes, without a test, interval or answer."""
    kept = ("step", "against", "metric", "n", "n_against", "value", "value_against", "delta", "margin")
    nothing = {name: "" if name in WORDS else np.nan for name in VERDICT_COLUMNS if name not in kept}
    return judged.assign(**nothing)


def to_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a verdict table's rows as JSON-able values; what is not known is null."""
    return [
        {
            str(name): None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in row.items()
        }
        for row in table.astype(object).to_dict("records")
    ]


def _judged(
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


def with_words(judged: pd.DataFrame, name: str, about: Metric, margin: float | NDArray[np.float64]) -> pd.DataFrame:
    """Return judged changes with the columns of `VERDICT_COLUMNS`."""
    table = judged.assign(metric=name, margin=np.broadcast_to(margin, len(judged)).astype(float))
    if "p_welch" in table:
        table["p_holm"] = holm(table["p_welch"])
    rows: list[Any] = list(table.itertuples())
    table["verdict"] = [in_words(row.answer, row, about.samples) for row in rows]
    return in_columns(table)


def in_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the columns of `VERDICT_COLUMNS`, NaN where nothing is known."""
    table = table.reindex(columns=list(VERDICT_COLUMNS))
    numbers = [name for name in VERDICT_COLUMNS if name not in (*WORDS, "n", "n_against")]
    kinds: dict[str, str] = dict.fromkeys(WORDS, "object") | dict.fromkeys(numbers, "float")
    return table.astype(kinds | {"n": "int", "n_against": "int"})


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
