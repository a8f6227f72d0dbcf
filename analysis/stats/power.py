"""How many seeds would answer a step, given the noise that the ladder has shown."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from analysis.stats._contrasts import contrast, deviations
from analysis.stats._noise import Floats, learn_noise
from analysis.stats.answers import ALPHA, Pairs, _Asked

POWER = 0.8
MOST_SEEDS = 1000
SEEDS = np.unique(np.round(np.concatenate([np.arange(2, 33), np.geomspace(33, MOST_SEEDS, 50)])))
COARSE = 4  # bins of the noise's distribution that are taken together


def seeds_needed(
    mean: Mapping[str, float],
    std: Mapping[str, float],
    n: Mapping[str, int],
    pairs: Pairs,
    *,
    margin: ArrayLike = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
    step: float = 0.0,
) -> pd.DataFrame:
    """Estimate how many seeds a rung would answer each step, were its change just what was seen.

    A step is answered where it helps, hurts or has no effect. The estimate is approximate: every step is held to its
    equal part of alpha, and the noise that more seeds would show is taken to be the one that is believed in now.

    Args:
        mean: See `analysis.stats.answers.judge_summary`, as for all other arguments.
        std: Standard deviations over seeds.
        n: Numbers of seeds.
        pairs: Steps.
        margin: Changes within it are as good as none.
        alpha: Probability of any false answer in the whole ladder that is allowed.
        power: Probability with which the step shall be answered.
        step: What means and deviations were rounded to.

    Returns:
        A row a pair: `step`, `against`; `seeds_needed`, the fewest seeds of each of the two rungs, infinite beyond
        `MOST_SEEDS` and NaN where the noise or the change is not known; `more`, how many more that is than the rung
        with fewer seeds has, 0 or more.
    """
    asked = _Asked.of(mean, std, n, pairs, margin=margin, alpha=alpha, step=step)
    needed = np.full(len(pairs), np.nan)
    noise = learn_noise(asked.std, asked.n, step)
    tested = np.flatnonzero(np.isfinite(asked.delta))
    if noise is not None and len(tested):
        new, old, have = asked.new[tested], asked.old[tested], np.maximum(asked.n, 1)
        one = np.ones(len(tested))
        log_std, mass = _coarse(*deviations(noise, one, one, new, old))
        level = alpha / len(tested)
        now = contrast(noise, have, new, old).threshold(np.log(np.array(level)))
        typical = np.exp(mass @ log_std) * np.sqrt((1 / have[new] + 1 / have[old]) / 2)
        critical = _critical(now / typical, level, np.minimum(have[new], have[old]))
        delta, margins = np.abs(asked.delta[tested]) / noise.unit, asked.margin[tested] / noise.unit
        answered = _answered(delta, margins, np.exp(log_std), mass, critical) >= power
        needed[tested] = np.where(answered.any(axis=1), SEEDS[answered.argmax(axis=1)], np.inf)
    fewest = np.minimum(asked.n[asked.new], asked.n[asked.old])
    return pd.DataFrame(
        {
            "step": [rung for rung, _ in pairs],
            "against": [rung for _, rung in pairs],
            "seeds_needed": needed,
            "more": np.maximum(needed - fewest, 0),
        }
    )


def more_seeds(more: ArrayLike) -> pd.DataFrame:
    """Return how many steps more seeds would answer: for "N more seeds would answer M of the rest".

    Args:
        more: Seeds that each undecided step lacks, from `seeds_needed`; infinite or NaN where none would answer it.

    Returns:
        A row for each number of seeds that answers another step, fewest first: `more` seeds a rung, and `answered`
        steps of the rest. Empty where no number would.
    """
    lacking = np.sort(np.asarray(more, dtype=float))
    lacking = np.maximum(lacking[np.isfinite(lacking)], 1)  # undecided at today's seeds: one more at least
    seeds, counts = np.unique(lacking, return_counts=True)
    return pd.DataFrame({"more": seeds.astype(int), "answered": np.cumsum(counts)})


def _coarse(log_std: Floats, mass: Floats) -> tuple[Floats, Floats]:
    spare = -len(log_std) % COARSE
    padded = np.pad(mass, ((0, 0), (0, spare))).reshape(len(mass), -1, COARSE).sum(axis=2)
    return log_std[::COARSE] + (log_std[1] - log_std[0]) * (COARSE - 1) / 2, padded


def _critical(now: Floats, level: float, have: Floats) -> Floats:
    """Return the multiple of the standard error that a change must exceed with each number of seeds, (pairs, SEEDS).

    Today's multiple says how well the noise is known, in degrees of freedom of a t-distribution with that tail; every
    seed adds one a rung. The first term of the expansion of t around the normal distribution is enough for it.
    """
    z = -ndtri(level / 2)
    df = (z**3 + z) / (4 * np.maximum(now - z, 1e-3))
    critical: Floats = stdtrit(np.maximum(df[:, None] + 2 * (SEEDS - have[:, None]), 2.0), 1 - level / 2)
    return critical


def _answered(delta: Floats, margin: Floats, std: Floats, mass: Floats, critical: Floats) -> Floats:
    """Return the probability of an answer for each pair and number of seeds, shape (pairs, SEEDS)."""
    scaled = np.sqrt(SEEDS)[:, None] / std  # (SEEDS, S)
    far = delta[:, None, None] * scaled  # (pairs, SEEDS, S)
    answered = ndtr(far - critical[:, :, None])
    if margin.any():
        room = margin[:, None, None] * scaled - critical[:, :, None]
        answered = np.maximum(answered, np.where(room > 0, ndtr(room - far) - ndtr(-room - far), 0.0))
    total: Floats = np.einsum("pms,ps->pm", answered, mass)
    return total
