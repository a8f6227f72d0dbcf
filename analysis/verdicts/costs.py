"""What a step costs: changes of speeds, which are measured in rounds, and of counted costs."""

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from analysis.metrics import SPEEDS
from analysis.stats.answers import ALPHA, Answer
from analysis.stats.tests import holm, paired_p
from analysis.verdicts.columns import Pairs, in_columns, with_words

# What `speed_table` knows of a change before it allows for how many there are.
SPEED_COLUMNS = (
    "step", "against", "n", "n_against", "value", "value_against", "delta", "ci_low", "ci_high", "p", "p_same",
    "log_ratio",
)  # fmt: skip


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
