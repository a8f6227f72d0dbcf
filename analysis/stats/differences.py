"""Whether a step is worth the same in two studies: the difference of its two effects, with an interval and an answer.

The effect of a step is the mean of its rung less that of the rung before. Its difference is the effect here less the
effect there, of four rungs. The rule is that of `analysis.stats.answers`: each study learns its noise from its own
rungs, the distribution of each difference is summed, and all differences are tested together, so that a comparison with
any false answer has a probability of at most alpha. A run that both studies have cancels.
How well it keeps its word: docs/verdicts-method.md and `python -m benchmarks.differences`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from analysis.stats._contrasts import (
    BIN,
    REPEATS,
    VECTORS,
    Contrasts,
    Ints,
    deviations,
    draw_variances,
    spread_evenly,
    step_down,
    tails_of,
)
from analysis.stats._noise import Floats, Noise, learn_noise
from analysis.stats._shared_runs import Groups, Summary, Values, group_runs
from analysis.stats.answers import ALPHA, SHARED, TESTS, Pairs, Test, check_pairs
from analysis.stats.tests import equivalence_p, holm, two_sided_p

__all__ = ["DECIDED", "Other", "Summary", "Worth", "compare_effects", "compare_studies"]

CANCELLED = 1e-9  # a share of a run's variance that is as good as none
UNLIKELY = 1e-12  # a standard deviation that is less likely is left out

Study = Values | Summary
Bools = NDArray[np.bool_]


class Worth(StrEnum):
    """What two studies say of a step together: in which of them it is worth more."""

    MORE_HERE = "more here"
    MORE_THERE = "more there"
    SAME = "the same"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested"


DECIDED = (Worth.MORE_HERE, Worth.MORE_THERE, Worth.SAME)


@dataclass(frozen=True)
class Other:
    """A study that another is compared with.

    Attributes:
        study: Its values by rung, or what is published of it.
        pairs: The steps as the first study has them: a rung and the one it is compared with.
        pairs_there: The same steps as this study has them, in the same order.
    """

    study: Study
    pairs: Pairs
    pairs_there: Pairs


def compare_effects(
    here: Study,
    there: Study,
    pairs: Pairs,
    pairs_there: Pairs | None = None,
    *,
    better: int = 1,
    margin: float = 0.0,
    alpha: float = ALPHA,
    test: Test = SHARED,
) -> pd.DataFrame:
    """Judge of each step whether it is worth the same in two studies, such as two recipes, data sets or bases.

    Args:
        here: A study: each rung's values, in an array whose runs are its own alone, or as a mapping from the names of
            runs. A name that both studies have is the same run, which cancels. All rungs help to learn the noise. Or a
            `Summary` of what is published.
        there: The other study.
        pairs: The steps: a rung and the one it is compared with.
        pairs_there: The same steps as the other study has them, in the same order; None if they are the same.
        better: 1 where more is better, -1 where less is.
        margin: Differences within it are as good as none, in the unit of the values.
        alpha: Probability of any false answer in the whole comparison that is allowed.
        test: "shared" for the rule of `analysis.judge`, each study with its own noise; "welch" for Welch's test of four
            rungs and Holm's correction, each kind of answer by itself.

    Returns:
        A row a step, NaN for what is not known:
        `step`, `against` the rungs here, `step_there`, `against_there` those there; `n`, `n_there` the fewer of the two
        rungs' runs; `effect`, `effect_there` the step's change of the mean; `difference` the first less the second;
        `ci_low`, `ci_high` its (1 - alpha) interval, for this difference alone; `p` of no difference, for this one
        alone; `p_adjusted` the same for all together; `p_same` of a difference outside the margin, for all together;
        `p_welch` Welch's, for this one alone; `same_runs`, whether the two effects are of the same runs, so that there
        is nothing to test; `verdict`, a `Worth`: a step is worth more where its effect is better.

    Raises:
        ValueError: If a pair names an unknown rung or compares a rung with itself, the two lists of pairs differ in
            length, a run has two values, or an option is out of range.

    Source: the difference of two effects is the interaction of a step and a study; its variance with unequal noise
        is Welch's 1947, over four groups.
    """
    other = Other(there, pairs, pairs if pairs_there is None else pairs_there)
    (table,) = compare_studies(here, [other], better=better, margin=margin, alpha=alpha, test=test)
    return table


def compare_studies(
    here: Study,
    others: Sequence[Other],
    *,
    better: int = 1,
    margin: float = 0.0,
    alpha: float = ALPHA,
    test: Test = SHARED,
) -> list[pd.DataFrame]:
    """Judge a study against several others, all differences together.

    Args:
        here: The study, as for `compare_effects`.
        others: What it is compared with.
        better: As for `compare_effects`.
        margin: Likewise.
        alpha: Probability of any false answer in all comparisons together that is allowed.
        test: As for `compare_effects`.

    Returns:
        The table of `compare_effects` for each of the others.

    Raises:
        ValueError: As for `compare_effects`.
    """
    _check(others, better, margin, alpha, test)
    groups = group_runs([here, *(other.study for other in others)])
    asked = _Asked.of(groups, others)
    found = (_by_welch if test == "welch" else _by_sharing)(asked, margin, alpha)
    worth = {Worth.MORE_HERE: better, Worth.MORE_THERE: -better}
    verdict = np.full(len(asked.places), Worth.NOT_TESTED, dtype=object)
    verdict[np.isfinite(found["p_adjusted"])] = Worth.UNDECIDED
    verdict[found["p_same"] <= alpha] = Worth.SAME
    for answer, sign in worth.items():
        verdict[(found["p_adjusted"] <= alpha) & (sign * asked.difference > 0)] = answer
    table = pd.DataFrame(asked.columns() | found | {"same_runs": asked.cancels, "verdict": verdict})
    names = [(*pair, *theirs) for other in others for pair, theirs in zip(other.pairs, other.pairs_there, strict=True)]
    rungs = pd.DataFrame(names, columns=["step", "against", "step_there", "against_there"], dtype=object)
    table = pd.concat([rungs, table], axis=1)
    return [table[asked.other == place].reset_index(drop=True) for place in range(1, len(others) + 1)]


def _check(others: Sequence[Other], better: int, margin: float, alpha: float, test: str) -> None:
    if better not in (1, -1):
        raise ValueError(f"better: 1 where more is better, -1 where less is; not {better}")
    if not 0 <= margin < np.inf:
        raise ValueError(f"margin: zero or more, not {margin}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: a probability between 0 and 1, not {alpha}")
    if test not in TESTS:
        raise ValueError(f"test: 'shared' or 'welch', not {test!r}")
    for other in others:
        if len(other.pairs) != len(other.pairs_there):
            raise ValueError(f"{len(other.pairs)} pairs here and {len(other.pairs_there)} there; give each its own")


@dataclass(frozen=True)
class _Asked:
    """The differences that are asked for, of all other studies together.

    Attributes:
        groups: The rungs of all studies.
        places: Of the step and the rung before it here, and of the same there, shape (differences, 4).
        other: Which study each is about, shape (differences,); 0 is the one that all are compared with.
        weights: Of the means of groups in each difference, shape (differences, groups).
    """

    groups: Groups
    places: Ints
    other: Ints
    weights: Floats

    @classmethod
    def of(cls, groups: Groups, others: Sequence[Other]) -> "_Asked":
        rows, studies = [], []
        for study, other in enumerate(others, 1):
            ours = check_pairs(groups.rungs[0], other.pairs)
            theirs = check_pairs(groups.rungs[study], other.pairs_there)
            rows.append(np.column_stack([*ours, *(place + groups.offsets[study] for place in theirs)]))
            studies.append(np.full(len(other.pairs), study))
        places = np.concatenate([np.zeros((0, 4), dtype=np.int64), *rows])
        parts = groups.parts[places]  # (differences, 4, groups)
        weights = parts[:, 0] - parts[:, 1] - parts[:, 2] + parts[:, 3]
        return cls(groups, places, np.concatenate([np.zeros(0, dtype=np.int64), *studies]), weights)

    @property
    def effects(self) -> tuple[Floats, Floats]:
        mean = self.groups.mean[self.places]
        return mean[:, 0] - mean[:, 1], mean[:, 2] - mean[:, 3]

    @property
    def difference(self) -> Floats:
        here, there = self.effects
        difference: Floats = np.where(self.cancels, 0.0, here - there)
        return np.where(np.isfinite(here - there), difference, np.nan)

    @property
    def cancels(self) -> Bools:
        """Whether the two effects are of the same runs."""
        fewest, largest = self.groups.n[self.places].min(axis=1), np.abs(self.weights).max(axis=1, initial=0.0)
        cancels: Bools = (fewest > 0) & (largest <= CANCELLED)
        return cancels

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return what is known before anything is tested."""
        n = self.groups.n[self.places].astype(int)
        here, there = self.effects
        counts = {"n": n[:, :2].min(axis=1), "n_there": n[:, 2:].min(axis=1)}
        return counts | {"effect": here, "effect_there": there, "difference": self.difference}

    def welch(self) -> tuple[Floats, Floats]:
        """Return the standard errors and degrees of freedom from the rungs' own runs; NaN where one has no spread."""
        groups = self.groups
        per_cell = groups.per_cell(self.weights**2 / groups.runs)  # (differences, cells)
        first = np.unique(groups.cell, return_index=True)
        variance, df = np.full(per_cell.shape[1], np.nan), np.full(per_cell.shape[1], np.nan)
        variance[first[0]], df[first[0]] = groups.std[first[1]] ** 2, groups.df[first[1]]
        enters = per_cell > CANCELLED
        part = np.where(enters, per_cell * variance, 0.0)
        total = part.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = total**2 / np.where(enters, part**2 / df, 0.0).sum(axis=1)
        tested = (total > 0) & np.isfinite(self.difference)
        return np.where(tested, np.sqrt(total), np.nan), np.where(tested, freedom, np.nan)


def _empty(asked: _Asked) -> dict[str, Floats]:
    columns = {name: np.full(len(asked.places), np.nan) for name in ("ci_low", "ci_high", "p", "p_adjusted", "p_same")}
    return columns | {"p_welch": two_sided_p(asked.difference, *asked.welch())}


def _by_welch(asked: _Asked, margin: float, alpha: float) -> dict[str, Floats]:
    """Judge by Welch's test; return the columns of `compare_effects` from `ci_low` to `p_welch`."""
    se, df = asked.welch()
    half = stdtrit(df, 1 - alpha / 2) * se
    columns = _empty(asked)
    p, same = columns["p_welch"], equivalence_p(asked.difference, se, df, np.array(margin))
    ends = {"ci_low": asked.difference - half, "ci_high": asked.difference + half}
    return columns | ends | {"p": p, "p_adjusted": holm(p), "p_same": holm(same)}


def _by_sharing(asked: _Asked, margin: float, alpha: float) -> dict[str, Floats]:
    """Judge by the noise that the rungs of each study share; return the columns as `_by_welch` does."""
    columns, groups = _empty(asked), asked.groups
    noises = []
    for study, step in enumerate(groups.rounding):
        own = groups.of(study)
        noises.append(learn_noise(groups.std[own], groups.df[own] + 1, float(step)))
    known = np.array([noise is not None for noise in noises])
    tested = np.flatnonzero(np.isfinite(asked.difference) & ~asked.cancels & known[0] & known[asked.other])
    if not len(tested):
        return columns
    unit = next(noise.unit for noise in noises if noise is not None)
    contrasts = _contrasts(asked, noises, tested, unit)
    difference = asked.difference[tested]
    margins = np.full(len(tested), margin / unit)
    p, adjusted, same = step_down(contrasts, difference / unit, margins, alpha)
    half = contrasts.threshold(np.log(np.array(alpha))) * unit
    found = {"ci_low": difference - half, "ci_high": difference + half, "p": p, "p_adjusted": adjusted, "p_same": same}
    for name, values in found.items():
        columns[name][tested] = values
    return columns


def _contrasts(asked: _Asked, noises: Sequence[Noise | None], tested: Ints, unit: float) -> Contrasts:
    """Return the distribution of the errors of the differences that are tested, in a unit of the data."""
    found = []
    for study in np.unique(asked.other[tested]):
        here, there = noises[0], noises[study]
        assert here is not None
        assert there is not None
        rows = tested[asked.other[tested] == study]
        found.append(_summed(_parts(asked, here, rows, 0, unit), _parts(asked, there, rows, int(study), unit)))
    low = min(first for first, _ in found)
    count = max(first + mass.shape[1] for first, mass in found) - low
    mass = np.concatenate([np.pad(m, ((0, 0), (first - low, count - m.shape[1] - first + low))) for first, m in found])
    weights = asked.weights[tested]
    return Contrasts(
        *tails_of((low + np.arange(count)) * BIN, mass), lambda: weights @ _group_errors(asked.groups, noises, unit)
    )


def _parts(asked: _Asked, noise: Noise, rows: Ints, study: int, unit: float) -> tuple[Floats, Floats]:
    """Return what one study's rungs add to the noise of differences.

    A cell that both studies have counts with the study that all are compared with.

    Returns:
        Log standard deviations, shape (S,), and the probabilities of each, shape (rows, S).
    """
    groups, places = asked.groups, asked.places[rows]
    variance = groups.per_cell(asked.weights[rows] ** 2 / groups.runs)  # of each cell's, as shares of a run's
    taken = np.empty(places.shape)
    for column, cells in enumerate(groups.cell[places].T):
        every = np.arange(len(rows))
        taken[:, column] = variance[every, cells]
        variance[every, cells] = 0.0
    sides = slice(0, 2) if study == 0 else slice(2, 4)
    n = 1 / np.maximum(taken[:, sides], CANCELLED)
    new, old = (places[:, sides] - groups.offsets[study]).T
    log_std, mass = deviations(noise, n[:, 0], n[:, 1], new, old)
    likely = mass.max(axis=0) > UNLIKELY
    return log_std[likely] + np.log(noise.unit / unit), mass[:, likely]


def _summed(here: tuple[Floats, Floats], there: tuple[Floats, Floats]) -> tuple[int, Floats]:
    """Return the distribution of the root of the sum of two variances: its first bin, and the probability of each."""
    place = 0.5 * np.logaddexp(2 * here[0][:, None], 2 * there[0]) / BIN
    low = int(np.floor(place.min() + 1e-6))
    cell = np.maximum((place - low).astype(np.int64), 0)
    share = (place - low - cell).ravel()
    count = int(cell.max()) + 2
    mass = np.zeros((len(here[1]), count))
    for row, ours, theirs in zip(mass, here[1], there[1], strict=True):
        joint = np.outer(ours, theirs).ravel()
        upper = joint * share
        row += np.bincount(cell.ravel(), joint - upper, count)
        row[1:] += np.bincount(cell.ravel(), upper, count)[:-1]
    return low, mass


def _group_errors(groups: Groups, noises: Sequence[Noise | None], unit: float) -> Floats:
    """Draw the errors of all groups' means, shape (groups, draws). A cell's noise is that of its first study."""
    shares, of_weights, normal = _random(len(groups.mean), len(groups.runs), len(noises))
    variance, rounding = np.zeros((VECTORS, len(groups.mean))), np.zeros(len(groups.mean))
    for study, noise in enumerate(noises):
        if noise is not None:
            own, scale = groups.of(study), (noise.unit / unit) ** 2
            variance[:, own] = draw_variances(noise, shares[:, own], of_weights[study]) * scale
            rounding[own] = noise.rounding * scale
    owner = groups.cell[groups.parts.argmax(axis=0)]  # a cell has the number of its first rung
    std = np.sqrt(variance[:, owner] / groups.runs + rounding[owner])  # (V, groups)
    errors: Floats = normal * std.T[:, :, None]
    return errors.reshape(len(groups.runs), VECTORS * REPEATS)


@lru_cache(16)
def _random(rungs: int, groups: int, studies: int) -> tuple[Floats, Floats, Floats]:
    """Return shares of variances, (V, rungs), and of parameters, (studies, V), and normal draws, (groups, V, R)."""
    rng = np.random.default_rng(2022)
    return (
        spread_evenly(rng, rungs),
        spread_evenly(rng, studies).T,
        rng.standard_normal((groups, VECTORS, REPEATS)),
    )
