"""Verdicts: what the seeds can tell about a change, and what they cannot. Arrays in, arrays out; scipy's tests.

One rule for all, our runs and the paper's printed means alike. A change is `better` or `worse` where Welch's t-test
tells it from zero after Holm's correction over all changes judged together; `no different` where two one-sided tests
(an equivalence test, corrected alike) put it within the margin; else it is `not distinguishable`, and the number of
seeds says how many would have been needed to see a change of the size that was observed.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 1000
SPREADS = 25  # values that stand for the distribution of a variance

BETTER, WORSE, SAME, UNCLEAR, UNTESTED = "better", "worse", "no different", "not distinguishable", "not tested"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A quantity that a step can change.

    Attributes:
        label: Its name in tables, with the unit.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none, in the metric's unit; settable on the command line for top-1.
        digits: How its values are printed.
        unit: What it was measured over: seeds, or rounds of one process.
    """

    label: str
    better: int
    margin: float
    digits: str = ".2f"
    unit: str = "seeds"


@dataclass(frozen=True)
class Sample:
    """Means over seeds, their standard deviations (n - 1) and the numbers of seeds: arrays of one shape."""

    mean: Floats
    std: Floats
    n: Floats

    @classmethod
    def of(cls, mean: ArrayLike, std: ArrayLike, n: ArrayLike) -> "Sample":
        """Return a sample from anything array-like; what is missing is NaN."""
        mean, std, n = np.broadcast_arrays(*(np.asarray(values, dtype=float) for values in (mean, std, n)))
        return cls(mean, np.where(n >= 2, std, np.nan), n)


@dataclass(frozen=True)
class Judgement:
    """What is known about changes; arrays of one shape, NaN where nothing is.

    Attributes:
        delta: New mean minus old.
        se: Its standard error from the spread of the seeds.
        ci_low: Lower end of Welch's 95% interval, not corrected for the number of changes,
        ci_high: and its upper end.
        p: Welch's t-test of no change, two-sided.
        p_holm: The same after Holm's correction over all changes of the call.
        p_same: The equivalence test (the larger p of its two one-sided t-tests) after Holm's correction.
        verdict: A word for each: `BETTER`, `WORSE`, `SAME`, `UNCLEAR` or `UNTESTED`.
    """

    delta: Floats
    se: Floats
    ci_low: Floats
    ci_high: Floats
    p: Floats
    p_holm: Floats
    p_same: Floats
    verdict: NDArray[Any]


def judge(old: Sample, new: Sample, *, better: int = 1, margin: ArrayLike = 0.0) -> Judgement:
    """Judge changes that belong together, such as the steps of a ladder.

    A change is tested where both sides have two seeds or more and any spread.

    Args:
        old: The rungs before, shape (changes,).
        new: The rungs after.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none; one for all, or one each.
    """
    variance_old, variance_new = old.std**2 / old.n, new.std**2 / new.n
    delta, se = new.mean - old.mean, np.sqrt(variance_old + variance_new)
    tested = se > 0  # not so where it is NaN
    with np.errstate(divide="ignore", invalid="ignore"):
        df = se**4 / (variance_old**2 / (old.n - 1) + variance_new**2 / (new.n - 1))
        p = np.where(tested, 2 * stats.t.sf(np.abs(delta) / se, df), np.nan)
        half = np.where(tested, stats.t.ppf(1 - ALPHA / 2, df) * se, np.nan)
        p_same = np.where(tested, stats.t.sf((margin - np.abs(delta)) / se, df), np.nan)
    p_holm, p_same = holm(p), holm(p_same)
    verdict = np.full(delta.shape, UNTESTED, dtype=object)
    verdict[tested] = UNCLEAR
    verdict[p_same < ALPHA] = SAME
    verdict[(p_holm < ALPHA) & (better * delta > 0)] = BETTER
    verdict[(p_holm < ALPHA) & (better * delta < 0)] = WORSE
    return Judgement(delta, se, delta - half, delta + half, p, p_holm, p_same, verdict)


def holm(p: ArrayLike) -> Floats:
    """Return p-values corrected for their number; NaN stays and does not count.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p, dtype=float)
    corrected = np.full(p.shape, np.nan)
    there = np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p.flat[there], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected.flat[order] = np.minimum(1.0, np.maximum.accumulate(p.flat[order] * factors))
    return corrected


def power(n: int, delta: float, std_old: float, std_new: float, *, alpha: float = ALPHA) -> float:
    """Return the probability that Welch's test with n seeds a rung tells a change of this size.

    The mean over what the n seeds may find for the two deviations, which also decide the degrees of freedom: with a
    handful of seeds these vary so much that a formula with the true deviations promises too much.
    """
    found = _spreads(n)
    old, new = std_old**2 * found[:, None], std_new**2 * found
    df = (n - 1) * (old + new) ** 2 / (old**2 + new**2)
    critical = stats.t.ppf(1 - alpha / 2, df) * np.sqrt((old + new) / n)
    error = np.sqrt((std_old**2 + std_new**2) / n)
    told = stats.norm.sf((critical - abs(delta)) / error) + stats.norm.cdf((-critical - abs(delta)) / error)
    return float(told.mean())


@cache
def _spreads(n: int) -> Floats:
    """Return what n seeds find for a variance of 1, as equally likely values."""
    shares = (np.arange(SPREADS) + 0.5) / SPREADS
    found: Floats = stats.chi2.ppf(shares, n - 1) / (n - 1)
    return found


def seeds_needed(delta: float, std_old: float, std_new: float, *, family: int = 1) -> float:
    """Return the fewest seeds a rung with which a change of this size is told with a probability of 80% (`power`).

    Args:
        delta: The change.
        std_old: Standard deviation over the seeds of the rung before.
        std_new: That of the rung after.
        family: Changes that are judged together: Holm's correction asks of the first to be told that its p is below
            alpha divided by their number, so that is what is asked here.

    Returns:
        The number; infinite beyond `MOST_SEEDS`, NaN where nothing can be told (no spread is known).
    """
    if not std_old**2 + std_new**2 > 0 or np.isnan(delta):
        return float("nan")
    alpha = ALPHA / family
    low, high = 1, 2
    while power(high, delta, std_old, std_new, alpha=alpha) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return float("inf")
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle, delta, std_old, std_new, alpha=alpha) < POWER:
            low = middle
        else:
            high = middle
    return float(high) if high <= MOST_SEEDS else float("inf")


def paired_p(changes: ArrayLike) -> float:
    """Return the p-value of the paired t-test from each seed's change; NaN where there are fewer than two."""
    changes = np.asarray(changes, dtype=float)
    if len(changes) < 2 or np.ptp(changes) <= 1e-9 * np.abs(changes).max():  # they differ by rounding alone
        return float("nan")
    return float(stats.ttest_1samp(changes, 0.0).pvalue)


def mcnemar_p(lost: ArrayLike, won: ArrayLike) -> Floats:
    """Return McNemar's exact p-values, two-sided.

    Args:
        lost: Images that the old network has right and the new one wrong.
        won: The other way round.
    """
    lost, won = np.asarray(lost), np.asarray(won)
    p: Floats = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(lost, won), lost + won, 0.5))
    return p


def in_words(verdict: str, *, n: int, margin: float, unit: str = "seeds") -> str:
    """Return a verdict as it is printed.

    Args:
        verdict: One of the words.
        n: Seeds a rung, the smaller number of the two.
        margin: The margin of the equivalence test.
        unit: What n counts.
    """
    if verdict == SAME:
        return f"{SAME} within {margin:g}"
    if verdict == UNCLEAR:
        return f"{UNCLEAR} at {n} {unit}"
    if verdict == UNTESTED:
        return f"{UNTESTED}: {'no result' if n < 1 else f'one {unit[:-1]}' if n < 2 else 'no spread'}"
    return verdict


def median_ratio(new: "pd.Series[float]", old: "pd.Series[float]") -> float:
    """Return the median of the ratios of what was measured side by side: a machine that slows down changes it little.

    Args:
        new: By round.
        old: By round.
    """
    return float((new / old).median())


def needed_in_words(seeds: float) -> str:
    """Return the number of seeds that would be needed, in brackets; nothing where it is NaN."""
    if np.isnan(seeds):
        return ""
    return f" (more than {MOST_SEEDS:,} needed)" if np.isinf(seeds) else f" (about {seeds:,.0f} needed)"
