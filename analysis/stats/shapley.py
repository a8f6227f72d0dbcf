"""What a step does apart from its place on the ladder: Shapley values over orders, and the interaction of two steps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from roadmap.ladder.designs import Order

CONFIDENCE = 0.95
SHAPLEY_COLUMNS = {
    "step": "the step, by its rung on the ladder",
    "n_orders": "orders in which both networks around it have a finished run",
    "value": "mean change that it makes over those orders, in units of the metric (top-1: points)",
    "se": "standard error of that mean, of drawing orders and of seeds together",
    "ci_low": "lower end of its 95% confidence interval",
    "ci_high": "upper end of its 95% confidence interval",
}


@dataclass(frozen=True)
class _Group:
    """The finished runs of a rung: the mean of a metric, its variance over seeds (NaN for one), how many there are."""

    mean: float
    variance: float
    n: int

    @property
    def of_mean(self) -> float:
        """The variance of the mean."""
        return self.variance / self.n


def shapley(runs: pd.DataFrame, orders: Sequence[Order], metric: str = "top1") -> pd.DataFrame:
    """Estimate each step's Shapley value: the change it makes, averaged over the orders in which steps can come.

    In each order a step changes the metric's mean over seeds by some amount; the value is the mean of these changes
    over the drawn orders. Where all runs are finished, the values of all steps sum up to the change from the base to
    all steps, exactly.

    The standard error counts both what was drawn and what was trained. Orders are drawn independently, so the spread
    of the changes over n orders, s^2 / n, holds the variance of drawing orders, and that of the seeds as far as it
    differs from order to order. It misses what the orders share: a rung that stands in several is trained once, and
    its error enters all of them alike. Seeds are independent between rungs (another network, another training), so the
    covariance of the changes of two orders is that of the rungs around the step that they share: the sum over them of
    the variance of their mean. Adding the mean of it over all pairs of orders makes the estimate of the variance
    unbiased:

        se^2 = s^2 / n + mean over pairs o != o' of sum over rungs r of d(o, r) d(o', r) var(r) / seeds(r),

    where d is 1 for the rung after the step and -1 for the one before. The interval is Student's, with degrees of
    freedom after Welch and Satterthwaite: n - 1 for the first part, seeds - 1 for each rung of the second.

    Args:
        runs: The frame of `analysis.run_frames`: columns rung, state and the metric are used.
        orders: Those of the design (`roadmap.ladder.designs.Layout.orders`), drawn independently.
        metric: A column of the frame.

    Returns:
        A frame with the columns of `SHAPLEY_COLUMNS`, a row a step, the largest value first. An order counts for a
        step if both rungs around it have a finished run; without such an order the value is NaN, and with one order
        alone, or a shared rung with one seed, the error is.

    Source: Shapley 1953, "A value for n-person games"; its estimate from random orders: Castro et al. 2009,
        "Polynomial calculation of the Shapley value based on sampling".
    """
    groups = _groups(runs, metric)
    rows = []
    for step in dict.fromkeys(step for order in orders for step in order.steps):
        places = [(order.rungs, order.steps.index(step)) for order in orders if step in order.steps]
        pairs = [(rungs[i], rungs[i + 1]) for rungs, i in places if rungs[i] in groups and rungs[i + 1] in groups]
        rows.append({"step": step, "n_orders": len(pairs)} | _mean_change(pairs, groups))
    frame = pd.DataFrame(rows, columns=list(SHAPLEY_COLUMNS))
    return frame.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def interaction(
    runs: pd.DataFrame, base: str, x: str, y: str, both: str, metric: str = "top1"
) -> dict[str, float | int]:
    """Estimate how two steps interact: what both do beyond the sum of what each does alone, both - x - y + base.

    Args:
        runs: The frame of `analysis.run_frames`: columns rung, state and the metric are used.
        base: The rung with neither step; the design "pairs" has all four in `roadmap.ladder.designs.Layout.square`.
        x: The rung with the first step alone.
        y: The rung with the second step alone.
        both: The rung with both.
        metric: A column of the frame.

    Returns:
        `value`, in units of the metric (NaN where a rung has no finished run); `se`, its standard error; `df`, its
        degrees of freedom after Welch and Satterthwaite, over four groups that need not spread alike; `ci_low` and
        `ci_high`, its 95% interval; `p` of the two-sided test that there is no interaction; `n`, the finished runs of
        the rung that has fewest. All but `value` and `n` are NaN where a rung has fewer than two, and `p` where no
        rung's runs differ.

    Source: Welch 1947, "The generalization of 'Student's' problem when several different population variances are
        involved"; Satterthwaite 1946, "An approximate distribution of estimates of variance components".
    """
    groups = _groups(runs, metric)
    nothing = _Group(math.nan, math.nan, 0)
    square = [groups.get(rung, nothing) for rung in (base, x, y, both)]
    signs = (1, -1, -1, 1)
    value = sum(sign * group.mean for sign, group in zip(signs, square, strict=True))
    parts = [(group.of_mean, group.n - 1) for group in square] if all(group.n for group in square) else []
    found = _interval(value, parts)
    p = 2 * stdtr(found["df"], -abs(value) / found["se"]) if found["se"] > 0 else math.nan
    return {"value": value} | found | {"p": float(p), "n": min(group.n for group in square)}


def _groups(runs: pd.DataFrame, metric: str) -> dict[str, _Group]:
    """Return the rungs that have finished runs."""
    values = pd.to_numeric(runs[metric], errors="coerce").astype(float)
    done = values[(runs["state"] == "finished") & np.isfinite(values)]
    found = done.groupby(runs["rung"])
    return {str(rung): _Group(float(own.mean()), float(own.var()), len(own)) for rung, own in found}


def _mean_change(pairs: Sequence[tuple[str, str]], groups: Mapping[str, _Group]) -> dict[str, float]:
    """Return value, se, ci_low and ci_high of a step, from the rungs before and after it in each order."""
    n = len(pairs)
    if not n:
        return {}
    changes = np.array([groups[after].mean - groups[before].mean for before, after in pairs])
    value = float(changes.mean())
    if n == 1:
        return {"value": value}
    parts = [(float(changes.var(ddof=1)) / n, n - 1)]
    for rung in dict.fromkeys(rung for pair in pairs for rung in pair):
        signs = [(after == rung) - (before == rung) for before, after in pairs]
        share = (sum(signs) ** 2 - sum(sign**2 for sign in signs)) / (n * (n - 1))
        if share:
            parts.append((share * groups[rung].of_mean, groups[rung].n - 1))
    found = _interval(value, parts)
    return {"value": value, "se": found["se"], "ci_low": found["ci_low"], "ci_high": found["ci_high"]}


def _interval(value: float, parts: Iterable[tuple[float, int]]) -> dict[str, float]:
    """Return se, df, ci_low and ci_high of a value whose variance is a sum of parts, each with its degrees of freedom.

    All are NaN where a part is (a single seed) or nothing is known. Where nothing that was seen varies, the interval is
    the value.
    """
    parts = list(parts)
    variance = sum(part for part, _ in parts) if parts else math.nan
    if not variance >= 0:
        return dict.fromkeys(("se", "df", "ci_low", "ci_high"), math.nan)
    if variance == 0:
        return {"se": 0.0, "df": math.nan, "ci_low": value, "ci_high": value}
    se, df = math.sqrt(variance), 1 / sum((part / variance) ** 2 / freedom for part, freedom in parts)
    half = float(stdtrit(df, (1 + CONFIDENCE) / 2)) * se
    return {"se": se, "df": df, "ci_low": value - half, "ci_high": value + half}
