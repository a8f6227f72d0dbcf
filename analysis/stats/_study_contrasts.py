"""Differences of effects between studies: the weights of all runs in them, and the distribution of their errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats._contrasts import (
    BIN,
    REPEATS,
    VECTORS,
    Contrasts,
    Ints,
    deviations,
    draw_variances,
    spread_evenly,
    tails_of,
)
from analysis.stats._noise import Floats, Noise
from analysis.stats._shared_runs import Groups, Summary, Values
from analysis.stats.answers import Pairs, check_pairs

CANCELLED = 1e-9  # a share of a run's variance that is as good as none
UNLIKELY = 1e-12  # a standard deviation that is less likely is left out

Study = Values | Summary
Bools = NDArray[np.bool_]


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


@dataclass(frozen=True)
class Asked:
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
    def of(cls, groups: Groups, others: Sequence[Other]) -> "Asked":
        """Return the differences of all steps of all other studies, the first of `groups` being the one here."""
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
        """The effects here and there, shape (differences,) each."""
        mean = self.groups.mean[self.places]
        return mean[:, 0] - mean[:, 1], mean[:, 2] - mean[:, 3]

    @property
    def difference(self) -> Floats:
        """The effects here less those there."""
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


def study_contrasts(asked: Asked, noises: Sequence[Noise | None], tested: Ints, unit: float) -> Contrasts:
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


def _parts(asked: Asked, noise: Noise, rows: Ints, study: int, unit: float) -> tuple[Floats, Floats]:
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
