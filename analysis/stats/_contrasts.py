"""Differences of rungs' means under noise that is known as a distribution: tails, thresholds, and their joint draws.

Given the noise, a difference of two means is normal. The noise is not given, so the tail of a difference is the mean of
normal tails over what the two variances may be. That is summed exactly, where Satterthwaite's approximation is too
generous for unequal variances. Differences that share a rung are dependent; the joint distribution is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from analysis.stats._noise import Floats, Noise

Ints = NDArray[np.int64]

BIN = 0.05  # of log standard deviations and log differences
NEAR, FAR = 60, 48  # bins that a table of tails reaches below the smallest and above the largest standard deviation
VECTORS, REPEATS = 512, 16  # draws of all rungs' noise; draws of all means' errors for each
EVENLY = (np.arange(VECTORS) + 0.5) / VECTORS
LEAST = 1e-250
MOST = float(np.finfo(np.float32).max)
RESERVE = 1.15  # of p-values for the whole ladder: what the model of the noise, grids and draws may be off


@dataclass(frozen=True)
class Contrasts:
    """How far differences of means may be off, all in units of the noise's unit.

    Attributes:
        log_size: Log of a size, shape (X,).
        log_tail: Log of the probability that an error is larger than this, either way, shape (pairs, X).
        draw: Draws all errors at once, many times.
    """

    log_size: Floats
    log_tail: Floats
    draw: Callable[[], Floats]

    @cached_property
    def errors(self) -> Floats:
        """Draws of all errors at once, shape (pairs, draws): made when they are first asked for."""
        return self.draw()

    def log_p(self, size: Floats) -> Floats:
        """Return the log probability of a larger error for each pair, shape (pairs,)."""
        logs = np.log(np.maximum(size, LEAST))
        return np.array([np.interp(x, self.log_size, tail) for x, tail in zip(logs, self.log_tail, strict=True)])

    def threshold(self, log_p: Floats, log_share: Floats | None = None) -> Floats:
        """Return the sizes that errors exceed with these probabilities, shape (pairs, *log_p.shape).

        Args:
            log_p: Log probabilities.
            log_share: Log of each pair's share of them, shape (pairs,); None where all have them whole.
        """
        shares = np.zeros(len(self.log_tail)) if log_share is None else log_share
        return np.exp(
            [np.interp(-log_p - part, -tail, self.log_size) for tail, part in zip(self.log_tail, shares, strict=True)]
        )


def contrast(noise: Noise, n: Floats, new: Ints, old: Ints) -> Contrasts:
    """Return the distribution of the errors of mean[new] - mean[old], with n seeds a rung."""
    log_size, log_tail = tails_of(*deviations(noise, n[new], n[old], new, old))
    return Contrasts(log_size, log_tail, partial(_draws, noise, n, new, old))


def deviations(noise: Noise, n_new: Floats, n_old: Floats, new: Ints, old: Ints) -> tuple[Floats, Floats]:
    """Return log standard deviations of differences, shape (S,), and the probabilities of each, shape (pairs, S)."""
    joint = np.matmul((noise.weights[:, None] * noise.given[new]).transpose(0, 2, 1), noise.given[old])  # (P, G, G)
    if np.ptp(n_new) == np.ptp(n_old) == 0:
        n_new, n_old = n_new[:1], n_old[:1]
    variance = np.exp(noise.log_variance)
    log_std = 0.5 * np.log(
        variance[:, None] / n_new[:, None, None] + variance / n_old[:, None, None] + 2 * noise.rounding
    )
    low = np.floor(log_std.min() / BIN + 1e-6)
    place = log_std / BIN - low
    cell = np.maximum(place.astype(np.int64), 0)
    share = place - cell
    count = int(cell.max()) + 2
    index = (cell + count * np.arange(len(new))[:, None, None]).ravel()
    upper = joint * share
    mass = np.bincount(index, (joint - upper).ravel(), len(new) * count)
    mass[1:] += np.bincount(index, upper.ravel(), len(new) * count)[:-1]
    return (low + np.arange(count)) * BIN, mass.reshape(len(new), count).astype(np.float64)


def tails_of(log_std: Floats, mass: Floats) -> tuple[Floats, Floats]:
    """Return sizes and tails as `Contrasts` has them, from standard deviations a bin apart and their probabilities."""
    tail = np.einsum("ps,sx->px", mass, _kernel(len(log_std)))  # too small for the threads that matmul would start
    log_size = log_std[0] + np.arange(-NEAR, len(log_std) + FAR) * BIN
    return log_size, np.log(np.maximum(tail, LEAST))


@lru_cache(64)
def _kernel(count: int) -> Floats:
    """Return normal two-sided tails of sizes (columns) for standard deviations (rows), both a bin apart."""
    steps = np.arange(-NEAR, count + FAR) - np.arange(count)[:, None]
    tails: Floats = 2 * ndtr(-np.exp(steps * BIN))
    return tails


def _draws(noise: Noise, n: Floats, new: Ints, old: Ints) -> Floats:
    shares, normal = _random(len(noise.given))
    std = np.sqrt(draw_variances(noise, shares, EVENLY) / n + noise.rounding)
    errors = (normal * std.T[:, :, None]).reshape(len(noise.given), -1)
    difference: Floats = errors[new] - errors[old]
    return difference


def draw_variances(noise: Noise, shares: Floats, of_weights: Floats) -> Floats:
    """Draw all rungs' variances together, in units of the noise's unit squared, shape (V, rungs).

    Args:
        noise: What is known of them.
        shares: For each draw and rung, the share of the variance's distribution that lies below it, shape (V, rungs).
        of_weights: The same for the pair of parameters of each draw, shape (V,).
    """
    rungs, pairs, points = noise.given.shape
    which = np.searchsorted(np.cumsum(noise.weights), of_weights).clip(max=pairs - 1)
    row = which[:, None] + pairs * np.arange(rungs)  # (V, rungs)
    rising = np.cumsum(noise.given, axis=2).reshape(rungs * pairs, points)
    rising[:, -1] = 1.0
    rising += np.arange(rungs * pairs)[:, None]  # so that one search serves all rows
    point = np.searchsorted(rising.ravel(), shares + row) - row * points
    variance: Floats = np.exp(noise.log_variance)[point.clip(0, points - 1)]
    return variance


@lru_cache(16)
def _random(rungs: int) -> tuple[Floats, Floats]:
    """Return shares, shape (V, rungs), and normal draws, shape (rungs, V, REPEATS)."""
    rng = np.random.default_rng(2022)
    return spread_evenly(rng, rungs), rng.standard_normal((rungs, VECTORS, REPEATS))


def spread_evenly(rng: np.random.Generator, columns: int) -> Floats:
    """Return shares from 0 to 1 in random order, evenly spread in each column, shape (V, columns)."""
    order = np.argsort(rng.random((VECTORS, columns)), axis=0)
    return (order + rng.random((VECTORS, columns))) / VECTORS


def step_down(
    contrasts: Contrasts,
    delta: Floats,
    margin: Floats,
    alpha: float,
    *,
    told: NDArray[np.bool_] | None = None,
    share: Floats | None = None,
    brief: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Test for all differences whether they are none, the clearest first, and whether they are within the margin.

    A difference has one answer, so its two errors share its part of alpha: while it is open it may be called better or
    worse wrongly, on either side. Once it is told from zero, it may only be put within the margin wrongly, which takes
    an error towards zero; and not even that, where the noise is too large for the margin. What remains of alpha goes to
    the open ones. The probability of any error is the sum of all, less what the draws find to be counted twice.

    Source: Westfall and Young 1993, "Resampling-based multiple testing", for step-down tests on the joint distribution;
    Goeman and Solari 2010, "The sequential rejection principle of familywise error control", for what may be passed on;
    Goeman, Solari and Stijnen 2010, "Three-sided hypothesis testing", for one alpha over all three answers.

    Args:
        contrasts: Distribution of the errors.
        delta: Differences that were seen, shape (pairs,).
        margin: Differences within it are as good as none, shape (pairs,).
        alpha: Family-wise error, at which a difference counts as told.
        told: Which differences were told from zero at an earlier look and stay so, shape (pairs,); None if there was
            none.
        share: What part of the probability of an error that each difference may make in all it may make at this look,
            shape (pairs,), from 0 (not tested now) to 1; None where there is one look.
        brief: Do not work out p-values above alpha, but leave them at 1: enough for the answers, and faster.

    Returns:
        p-values of no difference, for each alone; the same for all together; p-values, for all together, of a
        difference outside the margin. Shape (pairs,) each.
    """
    shares = np.ones(len(delta)) if share is None else share
    log_share = np.log(np.maximum(shares, LEAST))
    log_p = contrasts.log_p(np.abs(delta))
    scaled = log_p - log_share  # what each would be, had it its whole part
    before = np.zeros(len(delta), dtype=bool) if told is None else told
    order = np.lexsort((scaled, ~before))
    log_same = contrasts.log_p(np.maximum(margin - np.abs(delta), 0.0)) - log_share
    level = np.log(alpha) if brief else 0.0  # larger ones alone are larger for the whole ladder too
    inside = np.flatnonzero((np.abs(delta) < margin) & (log_same <= level))
    adjusted, same = np.ones(len(delta)), np.ones(len(delta))
    adjusted[before] = 0.0
    if not len(inside) and (scaled[~before] > level).all():
        return np.exp(log_p), adjusted, same
    limits = contrasts.threshold(scaled, log_share)[order]  # (pairs, levels); pairs from here on in order
    family = _Family(contrasts.errors[order], np.sign(delta[order]), margin[order], shares[order])
    for i, k in enumerate(order[before.sum() :], int(before.sum())):
        if scaled[k] > 0:
            break
        adjusted[k] = max(family.error(scaled[k], limits[:, k], i), adjusted[order[i - 1]] if i else 0.0)
        if brief and adjusted[k] > alpha:
            break
    number = int((adjusted <= alpha).sum())
    limits = contrasts.threshold(log_same, log_share)[order]
    for k in inside:
        same[k] = family.error(log_same[k], limits[:, k], number)
    return np.exp(log_p), adjusted, same


class _Family:
    """All differences in the order in which they are tested: how likely is any error?"""

    def __init__(self, errors: Floats, sign: Floats, margin: Floats, share: Floats) -> None:
        errors = np.clip(errors, -MOST, MOST)  # noise may be some 1e100 times another rung's
        toward_zero = errors * -sign[:, None]
        self.toward_zero = toward_zero.astype(np.float32)
        self.size = np.abs(errors).astype(np.float32)
        self.margin = margin
        self.share = share

    def error(self, log_p: float, limit: Floats, told: int) -> float:
        """Return the probability of any error larger than its limit, over the mean share of those that are open.

        Args:
            log_p: Log probability of each error, either way, over its share.
            limit: The size that each error exceeds with it.
            told: The first so many are told from zero already: of these only an error towards zero counts, if the
                margin is wide enough for it to do harm.
        """
        narrow = np.minimum(limit, MOST).astype(np.float32)[:, None]
        within = np.flatnonzero(limit[:told] < self.margin[:told])
        count = (self.size[told:] > narrow[told:]).sum(axis=0, dtype=np.int16)
        if len(within):
            count += (self.toward_zero[within] > narrow[within]).sum(axis=0, dtype=np.int16)
        p = np.exp(log_p)
        more_than_once = np.maximum(count - 1, 0).mean()
        open_share = self.share[told:].sum()
        part = open_share / (len(limit) - told) if open_share else 1.0  # the mean share of those that are open
        any_error = (open_share + self.share[within].sum() / 2) * p - more_than_once
        return float(np.clip(RESERVE * any_error / part, p, 1.0))
