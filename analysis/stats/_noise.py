"""The noise of every rung (its variance over seeds), learned from all rungs together, as a distribution on a grid.

With three seeds a rung's own standard deviation is nearly worthless: its 95% interval spans a factor of twelve. But
the rungs of a ladder are trained alike, so their variances are alike, and how alike can be learned too. Each rung's
variance is taken as drawn from a scaled inverse chi-square distribution. Its two parameters, the scale and the degrees
of freedom, are not estimated but averaged over, weighted by how well they explain the deviations that were seen.

Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression in microarray
experiments", for the hierarchical model; Phipson et al. 2016, "Robust hyperparameter estimation protects against
hypervariable genes and improves power to detect differential expression", for why some rungs must be allowed to be
unlike the rest.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import gammainc, gammaln

Floats = NDArray[np.float64]

# The prior of the degrees of freedom, chosen by simulation (docs/verdicts-method.md). It leans to unequal noise: to
# take unequal noise for equal costs a false answer, the other way round costs an undecided step.
DF = (1.0, 2.0, 3.0, 5.0, 9.0, 20.0, np.inf)
DF_WEIGHTS = (40.0, 20.0, 3.0, 1.0, 0.3, 0.3, 14.0)
ODD = 0.02  # share of rungs that may be far noisier than the others, whatever the parameters say,
ODD_FROM, ODD_TO = 2.5, 12.0  # and how far: evenly over this range of log variance above the scale
SPACING = 1 / 3  # of the grid, in log variance
FINE = 150.0  # degrees of freedom in all from which the grid must be finer
BELOW, ABOVE = 4.0, 8.0  # how far the grid reaches beyond the smallest and the largest variance seen
QUIET = -12.0  # a variance is not taken to be smaller than exp(this) times the median: such zeros are no evidence
RARE = 1e-3  # parameters less likely than this share of the likeliest are dropped


@dataclass(frozen=True)
class Noise:
    """What is known of the rungs' variances: a mixture, over H parameter pairs, of independent distributions.

    Attributes:
        unit: A typical standard deviation, in the unit of the data; the grid is relative to its square.
        log_variance: The grid in log variance, shape (G,).
        weights: Probability of each parameter pair, shape (H,).
        given: Probability of each point of the grid for each rung under each pair, shape (rungs, H, G).
        rounding: Variance that rounding added to each mean, relative to the unit's square.
    """

    unit: float
    log_variance: Floats
    weights: Floats
    given: Floats
    rounding: float

    def std(self) -> Floats:
        """Return the typical noise of each rung (the geometric mean), in the unit of the data, shape (rungs,)."""
        mean: Floats = self.unit * np.exp(0.5 * ((self.weights @ self.given) @ self.log_variance))
        return mean


def learn_noise(std: Floats, n: Floats, step: float = 0.0) -> Noise | None:
    """Learn the noise of all rungs from their standard deviations.

    A rung of one seed, or of no spread at all, says nothing of the noise and gets the others'.

    Args:
        std: Standard deviations over seeds (n - 1 in the denominator), shape (rungs,); NaN where there is none.
        n: Numbers of seeds.
        step: The step to which means and deviations were rounded: 0.01 for printed ones; 0 if they were not.

    Returns:
        The noise; None where no rung says anything.
    """
    seen = (n >= 2) & (std > -step) & (std + step > 0)  # false where it is NaN
    if not seen.any():
        return None
    df = np.where(seen, n - 1, 0.0)
    log_s2 = 2 * np.log(np.maximum(std[seen], step / 4))
    centre = float(np.median(log_s2))
    relative = np.zeros(len(std))
    relative[seen] = np.maximum(log_s2 - centre, QUIET)
    unit = float(np.exp(centre / 2))
    spacing = SPACING / 2 ** max(0, int(np.ceil(np.log2(df.sum() / FINE) / 2)))
    grid = np.arange(_down(relative.min() - BELOW, spacing), _down(relative.max() + ABOVE, spacing) + 2) * spacing
    if step > 0:
        likelihood = _rounded_likelihood(grid, std / unit, df, step / unit)
    else:
        gap = relative[:, None] - grid
        likelihood = np.exp(df[:, None] / 2 * (1 + gap - np.exp(gap)))
    prior, prior_weights = _prior(len(grid), _down(grid[0] + 1e-9, spacing), spacing)
    evidence = np.log(np.maximum(prior @ likelihood[seen].T, 1e-300)).sum(axis=1) + prior_weights
    weights = np.exp(evidence - evidence.max())
    kept = weights > RARE
    given = prior[kept] * likelihood[:, None, :]
    given /= given.sum(axis=2, keepdims=True)
    return Noise(unit, grid, weights[kept] / weights[kept].sum(), given, step**2 / 12 / unit**2)


def _down(value: float, spacing: float) -> int:
    return int(np.floor(value / spacing + 1e-6))  # 1e-6: the same grid whatever the unit of the data


def _rounded_likelihood(grid: Floats, std: Floats, df: Floats, step: float) -> Floats:
    """Return the probability of a deviation that rounds to each printed one, shape (rungs, G); 1 where df is 0.

    What is printed as zero counts as just below the step: it is no evidence of no noise at all.
    """
    shape = np.maximum(df, 1)[:, None] / 2
    variance = np.exp(grid)
    low, high = np.maximum(std - step / 2, step / 4), np.maximum(std, 0.0) + step / 2
    below, above = (gammainc(shape, side[:, None] ** 2 * shape / variance) for side in (low, high))
    inside = np.where(df[:, None] > 0, above - below, 1.0)
    scaled: Floats = inside / inside.max(axis=1, keepdims=True)
    return scaled


@lru_cache(256)
def _prior(points: int, first: int, spacing: float) -> tuple[Floats, Floats]:
    """Return the distributions of a variance under each pair of parameters, shape (H, G), and the pairs' log weights.

    Args:
        points: Length of the grid, G.
        first: Its first point, in steps.
        spacing: Of the grid.
    """
    every = 2 if spacing == SPACING else 1  # of the scale, for finite degrees of freedom
    scales = np.arange(_down(-7, spacing), _down(7, spacing) + 1)  # in steps; relative to the median variance
    rows, weights = [], []
    reach = np.arange(first - scales[-1], first + points - scales[0])  # log variance minus log scale, in steps
    odd = spacing / (ODD_TO - ODD_FROM) * ((reach * spacing > ODD_FROM) & (reach * spacing < ODD_TO))
    for df, weight in zip(DF, DF_WEIGHTS, strict=True):
        alike = _inverse_chi_square(reach * spacing, df) * spacing if np.isfinite(df) else (reach == 0).astype(float)
        windows = sliding_window_view((1 - ODD) * alike + ODD * odd, points)[::-1]  # row s: scale s
        chosen = windows[:: every if np.isfinite(df) else 1]
        rows.append(chosen)
        weights.append(np.full(len(chosen), np.log(weight / len(chosen))))
    return np.concatenate(rows), np.concatenate(weights)


def _inverse_chi_square(z: Floats, df: float) -> Floats:
    """Return the density of the log of a scaled inverse chi-square variable at z above the log of its scale."""
    half = df / 2
    density: Floats = np.exp(half * (np.log(half) - z - np.exp(-np.maximum(z, -20.0))) - gammaln(half))
    return density
