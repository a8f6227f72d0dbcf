"""The effects of steps from a factorial plan of networks, and what is answered of all of them together."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from analysis.stats._noise import Floats
from analysis.stats.answers import ALPHA, Answer
from analysis.stats.power import MOST_SEEDS, POWER
from analysis.stats.tests import equivalence_p, two_sided_p


def judge_effects(
    mean: ArrayLike,
    std: ArrayLike,
    n: ArrayLike,
    weights: ArrayLike,
    *,
    better: int = 1,
    margin: float = 0.0,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Judge effects that are weighted sums of networks' means.

    The standard error of an effect is that of the sum, from each network's own spread over seeds. In a factorial plan
    all networks have a part in all effects, so that its degrees of freedom are many: with 16 networks of three seeds
    about 32. They are estimated as Welch did later, since Satterthwaite's estimate is too small for so few seeds.

    Every effect has one answer, and all of them share `alpha`: as in Holm's procedure the clearest effect is tested at
    its part among all of them, the next one at its part among those that are left, until one cannot be answered. An
    effect is clear by the smaller of two p-values, of no effect and of one beyond the margin.

    Args:
        mean: Means of the networks, shape (networks,).
        std: Their standard deviations over seeds; NaN where a network has one seed.
        n: Their numbers of seeds.
        weights: Of the networks in each effect, shape (effects, networks).
        better: 1 where more is better, -1 where less is.
        margin: Effects within it are as good as none.
        alpha: Probability of any false answer that is allowed.

    Returns:
        A row an effect, NaN for what is not known: `delta`, `se`, `df`, `ci_low` and `ci_high` (of this effect alone),
        `p`, `p_adjusted` and `p_same` (allowing for all effects), `answer`, `seeds_needed` (of every network, to answer
        an effect of the size that was seen with a probability of 80%; infinite beyond `MOST_SEEDS`).

    Source: Box, Hunter & Hunter 2005, "Statistics for Experimenters", chapter 5; Welch 1947, "The generalization of
        'Student's' problem when several different population variances are involved"; Holm 1979, "A simple sequentially
        rejective multiple test procedure".
    """
    means, parts = np.asarray(mean, dtype=float), np.asarray(weights, dtype=float)
    variance, seeds = np.asarray(std, dtype=float) ** 2, np.asarray(n, dtype=float)
    shares = np.atleast_2d(parts**2 * np.where(seeds > 1, variance / np.maximum(seeds, 1), np.nan))
    delta, of_delta = parts @ means, shares.sum(axis=1)
    freedom = np.maximum(seeds - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = of_delta**2 / (shares**2 / (freedom + 2)).sum(axis=1) - 2
    df = np.clip(df, freedom.min(), freedom.sum())
    se = np.where(of_delta > 0, np.sqrt(of_delta), np.nan)
    half = stdtrit(df, 1 - alpha / 2) * se
    p, p_same = two_sided_p(delta, se, df), equivalence_p(delta, se, df, np.full(len(delta), margin))
    adjusted, same = _step_down(p, p_same)
    answer = np.full(len(delta), Answer.NOT_TESTED, dtype=object)
    answer[np.isfinite(p)] = Answer.UNDECIDED
    answer[same <= alpha] = Answer.NO_EFFECT
    answer[(adjusted <= alpha) & (better * delta > 0)] = Answer.HELPS
    answer[(adjusted <= alpha) & (better * delta < 0)] = Answer.HURTS
    columns = {"delta": delta, "se": se, "df": df, "ci_low": delta - half, "ci_high": delta + half, "p": p}
    columns |= {"p_adjusted": adjusted, "p_same": same, "answer": answer}
    return pd.DataFrame(columns | {"seeds_needed": _seeds_needed(delta, se, seeds, margin, alpha)})


def _step_down(p: Floats, p_same: Floats) -> tuple[Floats, Floats]:
    """Return p-values of no effect and of one beyond the margin that allow for all effects; NaN stays."""
    least = np.fmin(p, p_same)
    order = np.argsort(least, kind="stable")
    order = order[np.isfinite(least[order])]
    adjusted, same = np.full(len(p), np.nan), np.full(len(p), np.nan)
    before = 0.0  # what the effects before needed: none is answered before one that is clearer
    for place, effect in enumerate(order):
        left = len(order) - place
        before = max(before, min(1.0, left * float(least[effect])))
        adjusted[effect], same[effect] = (
            min(1.0, max(before, left * float(value))) for value in (p[effect], p_same[effect])
        )
    return adjusted, same


def _seeds_needed(delta: Floats, se: Floats, seeds: Floats, margin: float, alpha: float) -> Floats:
    """Estimate the seeds of every network that would answer each effect, were it just what was seen."""
    tested = int(np.isfinite(se).sum())
    if not tested:
        return np.full(len(delta), np.nan)
    now = float(seeds.min())
    reach = ndtri(1 - alpha / tested / 2) + ndtri(POWER)
    distance = np.maximum(np.abs(delta), margin - np.abs(delta))  # from no effect, or from the edge of the margin
    with np.errstate(divide="ignore"):
        needed = np.ceil(now * (reach * se / distance) ** 2)
    return np.where(needed > MOST_SEEDS, np.inf, np.maximum(needed, 2.0))
