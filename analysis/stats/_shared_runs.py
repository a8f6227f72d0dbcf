"""The rungs of several studies as groups of runs, so that a run that two rungs share is counted as one.

Ladders that meet share runs, and so do two studies of one recipe. In a difference of effects such a run cancels, wholly
or in part. So runs are grouped by the rungs that have them: the means of groups are independent, and each rung's mean
is a sum of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats._contrasts import Ints
from analysis.stats._noise import Floats
from analysis.stats.answers import summarize

Values = Mapping[str, "ArrayLike | Mapping[str, float]"]  # rung -> values, or run's name -> value


@dataclass(frozen=True)
class Summary:
    """What is published of a study in place of its runs.

    Attributes:
        mean: Mean of each rung.
        std: Standard deviation over seeds (n - 1 in the denominator); missing or NaN where there is none.
        n: Number of seeds.
        step: What means and deviations were rounded to, as for `analysis.stats.answers.judge_summary`.
    """

    mean: Mapping[str, float]
    std: Mapping[str, float]
    n: Mapping[str, int]
    step: float = 0.0


@dataclass(frozen=True)
class Groups:
    """The rungs of all studies, one study after the other, and the groups of runs that their means are made of.

    Rungs that have runs in common are one network under one recipe, so they have one noise: a cell.

    Attributes:
        rungs: Ids of each study's rungs.
        offsets: Place of each study's first rung, shape (studies,).
        mean: Means, shape (rungs,).
        std: Standard deviations, shape (rungs,), pooled over the groups of the cell, so that they say nothing of the
            difference of two groups; NaN where there is none.
        n: Numbers of runs, shape (rungs,).
        df: Degrees of freedom of `std`, shape (rungs,).
        cell: Number of each rung's cell, shape (rungs,).
        runs: How many runs each group has, shape (groups,).
        parts: The share that each group has in each rung's mean, shape (rungs, groups).
        rounding: What each study was rounded to, shape (studies,).
    """

    rungs: tuple[tuple[str, ...], ...]
    offsets: Ints
    mean: Floats
    std: Floats
    n: Floats
    df: Floats
    cell: Ints
    runs: Floats
    parts: Floats
    rounding: Floats

    def of(self, study: int) -> slice:
        """Return where a study's rungs are."""
        start = int(self.offsets[study])
        return slice(start, start + len(self.rungs[study]))

    def per_cell(self, of_groups: Floats) -> Floats:
        """Return the sums over each cell's groups, (rows, groups) to (rows, cells)."""
        owner = self.cell[self.parts.argmax(axis=0)]  # any rung that has the group
        sums: Floats = of_groups @ (owner[:, None] == np.arange(self.cell.max(initial=0) + 1))
        return sums


def group_runs(studies: Sequence[Values | Summary]) -> Groups:
    """Return the rungs of several studies as groups of runs.

    Args:
        studies: Each study's values: of a rung, an array whose runs are its own alone, or a mapping from the names of
            runs, by which runs are known that another rung or study has too; or what was published of it.

    Raises:
        ValueError: If a run's name is no text, or a run has two values.
    """
    rungs = tuple(tuple(map(str, study.mean if isinstance(study, Summary) else study)) for study in studies)
    offsets = np.cumsum([0, *map(len, rungs)])
    owners: dict[object, list[int]] = {}  # run -> places of the rungs that have it
    values: dict[object, float] = {}
    summary = {name: np.full(offsets[-1], np.nan) for name in ("mean", "std", "n")}
    for study, names, offset in zip(studies, rungs, offsets, strict=False):
        for place, rung in enumerate(names, int(offset)):
            if isinstance(study, Summary):
                mean, std = float(study.mean[rung]), float(study.std.get(rung, np.nan))
                n = float(study.n.get(rung, 0)) if np.isfinite(mean) else 0.0
                std = std if n >= 2 and 0 <= std < np.inf else np.nan
                summary["mean"][place], summary["std"][place], summary["n"][place] = mean, std, n
                continue
            for name, value in _named(study[rung], place).items():
                if name in values and values[name] != value:
                    raise ValueError(f"run {name!r} has two values, {values[name]} and {value}. Name it twice.")
                values[name] = value
                owners.setdefault(name, []).append(place)
    together: dict[tuple[int, ...], list[float]] = {}
    for name, places in owners.items():
        together.setdefault(tuple(dict.fromkeys(places)), []).append(values[name])
    return _grouped(rungs, offsets, summary, together, studies)


def _grouped(
    rungs: tuple[tuple[str, ...], ...],
    offsets: Ints,
    summary: Mapping[str, Floats],
    together: Mapping[tuple[int, ...], Sequence[float]],
    studies: Sequence[Values | Summary],
) -> Groups:
    """Return the groups; `together` has their values by the places of the rungs that have them."""
    published = np.flatnonzero(summary["n"] > 0)
    places = [*together, *((int(place),) for place in published)]
    mean, std, n = summarize(dict(zip(map(str, together), together.values(), strict=True)))
    means = np.array([*mean.values(), *summary["mean"][published]])
    stds = np.array([*std.values(), *summary["std"][published]])
    runs = np.array([*n.values(), *summary["n"][published]], dtype=float)
    parts = np.zeros((offsets[-1], len(places)))
    for group, owners in enumerate(places):
        parts[list(owners), group] = runs[group]
    total = parts.sum(axis=1)
    parts /= np.maximum(total, 1)[:, None]
    known = np.isfinite(means)
    mean_of = np.where(total > 0, parts[:, known] @ means[known], np.nan)
    cell = _cells(offsets[-1], places)
    df, squares = np.zeros(offsets[-1]), np.zeros(offsets[-1])  # by cell
    for group, owners in enumerate(places):
        if np.isfinite(stds[group]):
            df[cell[owners[0]]] += runs[group] - 1
            squares[cell[owners[0]]] += (runs[group] - 1) * stds[group] ** 2
    pooled = np.where(df > 0, np.sqrt(squares / np.maximum(df, 1)), np.nan)
    for group, owners in enumerate(places):  # to the last digit where there is nothing to pool
        if df[cell[owners[0]]] == runs[group] - 1 and np.isfinite(stds[group]):
            pooled[cell[owners[0]]] = stds[group]
    rounding = np.array([study.step if isinstance(study, Summary) else 0.0 for study in studies])
    return Groups(rungs, offsets[:-1], mean_of, pooled[cell], total, df[cell], cell, runs, parts, rounding)


def _named(values: "ArrayLike | Mapping[str, float]", place: int) -> dict[object, float]:
    """Return a rung's finite values by run; those without a name are known by their place."""
    if isinstance(values, Mapping):
        if wrong := [name for name in values if not isinstance(name, str)]:
            raise ValueError(f"a run's name is a text such as '2e37bcfa48f7-s0', not {wrong[0]!r}. Seeds are no names.")
        named: dict[object, float] = {name: float(value) for name, value in values.items()}
    else:
        named = {(place, i): float(value) for i, value in enumerate(np.asarray(values, dtype=float).ravel())}
    return {name: value for name, value in named.items() if np.isfinite(value)}


def _cells(rungs: int, groups: Sequence[tuple[int, ...]]) -> Ints:
    """Return a number for each rung, the same for those that a chain of groups joins."""
    cell = np.arange(rungs)
    for owners in groups:
        joined = cell[list(owners)]
        cell[np.isin(cell, joined)] = joined.min()
    return cell
