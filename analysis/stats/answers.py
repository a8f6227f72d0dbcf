"""An answer for each step of a ladder (stand-in until the calibrated rule is merged)."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analysis.stats.welch import BETTER, SAME, UNTESTED, WORSE, Sample, seeds_needed
from analysis.stats.welch import judge as judge_welch

MOST_SEEDS = 1000
TESTS = ("pooled", "welch")


class Answer(StrEnum):
    """What a ladder says of a step."""

    HELPS = "helps"
    HURTS = "hurts"
    NO_EFFECT = "no effect"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested"


def judge(
    values: Mapping[str, ArrayLike],
    pairs: Sequence[tuple[str, str]],
    *,
    better: int = 1,
    margin: float = 0.0,
    alpha: float = 0.05,
    test: str = "pooled",
) -> pd.DataFrame:
    arrays = {rung: np.asarray(v, dtype=float) for rung, v in values.items()}
    summary = pd.DataFrame.from_dict(
        {r: (v.mean(), v.std(ddof=1) if len(v) > 1 else np.nan, len(v)) for r, v in arrays.items() if len(v)},
        orient="index",
        columns=["mean", "std", "n"],
    )
    return judge_summary(summary, pairs, better=better, margin=margin, alpha=alpha, test=test)


def judge_summary(
    summary: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    *,
    better: int = 1,
    margin: float = 0.0,
    alpha: float = 0.05,
    test: str = "pooled",
) -> pd.DataFrame:
    new, old = (summary.reindex([pair[side] for pair in pairs]).astype(float) for side in (0, 1))
    samples = [Sample.of(s["mean"], s["std"], s["n"].fillna(0)) for s in (old, new)]
    told = judge_welch(*samples, better=better, margin=margin)
    words = {BETTER: Answer.HELPS, WORSE: Answer.HURTS, SAME: Answer.NO_EFFECT, UNTESTED: Answer.NOT_TESTED}
    family = max(int(np.isfinite(told.p).sum()), 1)
    return pd.DataFrame(
        {
            "step": [pair[0] for pair in pairs],
            "against": [pair[1] for pair in pairs],
            "n": samples[1].n.astype(int),
            "n_against": samples[0].n.astype(int),
            "value": samples[1].mean,
            "value_against": samples[0].mean,
            "delta": told.delta,
            "ci_low": told.ci_low,
            "ci_high": told.ci_high,
            "se": told.se,
            "p": told.p,
            "p_adjusted": told.p_holm,
            "p_welch": told.p,
            "p_same": told.p_same,
            "seeds_needed": [
                seeds_needed(d, a, b, family=family)
                for d, a, b in zip(told.delta, samples[0].std, samples[1].std, strict=True)
            ],
            "answer": [words.get(v, Answer.UNDECIDED) for v in told.verdict],
        }
    )
