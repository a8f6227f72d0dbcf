"""Ladders as they really are: the bank's runs and the paper's printed numbers, for simulations to draw from."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadmap.ladder.ladder import read_ladder

Floats = NDArray[np.float64]
BANK = Path(__file__).parents[1] / "records" / "bank" / "results.csv"
PRINTED_SEEDS = 3


def read_bank(metric: str = "top1") -> dict[str, Floats]:
    """Return the values of each rung of the default proxy in the order of seeds, from the bank of real runs."""
    rows = [row for row in csv.DictReader(BANK.read_text().splitlines()) if row["state"] == "finished"]
    seeds: dict[str, dict[int, float]] = {}
    for row in rows:
        seeds.setdefault(row["rung"], {})[int(row["seed"])] = float(row[metric])
    return {rung: np.array([of[seed] for seed in sorted(of)]) for rung, of in seeds.items()}


def draw_like(values: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Draw n values with the mean, the deviation and nearly the shape of these, all of them different.

    To draw values themselves with replacement would draw some twice. So few seeds would seem to have less noise than
    they have, as real seeds never do. Each drawn value gets a little normal noise, and the deviation is kept.

    Source: Silverman and Young 1987, "The bootstrap: to smooth or not to smooth?", Biometrika 74.
    """
    mean, width = values.mean(), len(values) ** -0.2
    smooth = rng.choice(values - mean, n) + width * values.std() * rng.normal(size=n)
    drawn: Floats = mean + smooth * values.std(ddof=1) / values.std() / np.sqrt(1 + width**2)
    return drawn


def roadmap_pairs() -> list[tuple[str, str]]:
    """Return the steps of the paper's ladder: a rung and the one it is compared with."""
    return [(rung.id, rung.parent) for rung in read_ladder().climb("resnet50") if rung.parent and not rung.is_reference]


def read_paper() -> tuple[dict[str, float], dict[str, float]]:
    """Return the means of Table 10, and its standard deviations over three seeds; NaN where there is none."""
    rungs = [rung for rung in read_ladder().climb("resnet50") if not rung.is_reference]
    std = {rung.id: np.nan if rung.paper.top1_std is None else rung.paper.top1_std for rung in rungs}
    return {rung.id: np.nan if rung.paper.top1 is None else rung.paper.top1 for rung in rungs}, std


def bank_sizes() -> Floats:
    """Return the sizes of the bank's changes, each in units of the noise of its two rungs, less their sampling error.

    A mean of few seeds is off by chance, so sizes that are seen are too large in the mean: the variance of this error
    is taken from their squares. What is below it counts as no change at all.
    """
    bank = read_bank()
    squares = []
    for step, against in roadmap_pairs():
        new, old = bank[step], bank[against]
        unit = (new.var(ddof=1) + old.var(ddof=1)) / 2
        error = new.var(ddof=1) / len(new) + old.var(ddof=1) / len(old)
        squares.append(((new.mean() - old.mean()) ** 2 - error) / unit)
    sizes: Floats = np.sqrt(np.maximum(squares, 0.0))
    return sizes


def paper_sizes() -> Floats:
    """Return the sizes of the paper's changes in units of its deviations, less their sampling error, as for the bank.

    The unit is the root mean square of all deviations: each of them alone is of three seeds and rounded.
    """
    mean, std = read_paper()
    unit = np.nanmean(np.array(list(std.values())) ** 2)
    changes: Floats = np.array(
        [mean[a] - mean[b] for a, b in roadmap_pairs() if np.isfinite(std[a]) and np.isfinite(std[b])]
    )
    sizes: Floats = np.sqrt(np.maximum(changes**2 / unit - 2 / PRINTED_SEEDS, 0.0))
    return sizes
