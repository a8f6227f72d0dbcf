"""Single tests and their correction: Welch, Holm, paired seeds, McNemar. Arrays in, arrays out."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats takes a second to import

Floats = NDArray[np.float64]


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


def welch(variance_new: Floats, variance_old: Floats, n_new: Floats, n_old: Floats) -> tuple[Floats, Floats]:
    """Return the standard error of a difference of means and its degrees of freedom; NaN where there is none.

    Source: Welch 1947, "The generalization of 'Student's' problem when several different population variances are
    involved".

    Args:
        variance_new: Sample variance (n - 1 in the denominator) of one side,
        variance_old: and of the other.
        n_new: Number of values of one side; two or more, or the result is NaN.
        n_old: Of the other.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        new, old = variance_new / n_new, variance_old / n_old
        df = (new + old) ** 2 / (new**2 / (n_new - 1) + old**2 / (n_old - 1))
        tested = (n_new >= 2) & (n_old >= 2) & (new + old > 0)
        return np.where(tested, np.sqrt(new + old), np.nan), np.where(tested, df, np.nan)


def two_sided_p(delta: Floats, se: Floats, df: Floats) -> Floats:
    """Return the p-values of a t-test of no difference."""
    p: Floats = 2 * special.stdtr(df, -np.abs(delta) / se)
    return p


def equivalence_p(delta: Floats, se: Floats, df: Floats, margin: Floats) -> Floats:
    """Return the larger p-value of the two one-sided tests that the difference lies within the margin.

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach for assessing
    the equivalence of average bioavailability".
    """
    p: Floats = special.stdtr(df, (np.abs(delta) - margin) / se)
    return p


def paired_p(changes: ArrayLike) -> float:
    """Return the p-value of the paired t-test from each seed's change; NaN where there are fewer than two."""
    changes = np.asarray(changes, dtype=float)
    if len(changes) < 2 or np.ptp(changes) <= 1e-9 * np.abs(changes).max():  # they differ by rounding alone
        return float("nan")
    error = changes.std(ddof=1) / np.sqrt(len(changes))
    return float(2 * special.stdtr(len(changes) - 1, -abs(changes.mean()) / error))


def mcnemar_p(lost: ArrayLike, won: ArrayLike) -> Floats:
    """Return McNemar's exact p-values, two-sided.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".

    Args:
        lost: Images that the old network has right and the new one wrong.
        won: The other way round.
    """
    lost, won = np.asarray(lost), np.asarray(won)
    p: Floats = np.minimum(1.0, 2 * special.bdtr(np.minimum(lost, won), lost + won, 0.5))
    return p
