"""How far steps do in one study what they do in another: the same answers, rank correlations with intervals."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.metrics import METRICS
from analysis.sentences import is_answered
from analysis.verdicts import Pairs
from roadmap.common.formats import change, interval
from roadmap.ladder.rung import Rung

RESAMPLES = 2000
FEWEST_STEPS = 4

AGREEMENT_COLUMNS = {
    "metric": "whose changes are compared with the paper's changes of top-1, turned so that more is better",
    "steps": "adopted steps that both have changes of",
    "spearman": "rank correlation of the changes (Spearman), with",
    "spearman_low": "the ends of its 95% bootstrap interval over steps and seeds",
    "spearman_high": "",
    "kendall": "rank correlation of the changes (Kendall's tau-b), with",
    "kendall_low": "the ends of its interval",
    "kendall_high": "",
}

Floats = NDArray[np.float64]


def agreement(steps: Sequence[str], here: Sequence[str], there: Sequence[str], name: str = "the paper") -> str:
    """Say which steps have the same answer here and in another study, of those that are answered in both.

    Args:
        steps: The steps that both have.
        here: The answer to each here, as words; empty where there is none.
        there: The same in the other study.
        name: What the other study is called.
    """
    about = f"Agreement with {name}"
    table = pd.DataFrame({"step": list(steps), "here": list(here), "there": list(there)}, dtype=object)
    if not (table["there"] != "").any():
        return f"{about}: nothing is published of these steps."
    both = table[is_answered(table["here"]) & is_answered(table["there"])]
    if both.empty:
        if not is_answered(table["there"]).any():
            return f"{about}: its own numbers answer none of these steps."
        return f"{about}: no step is answered both here and there."
    same = both["here"] == both["there"]
    other = [f"{row.step} ({row.here} here, {row.there} there)" for row in both[~same].itertuples(index=False)]
    if len(both) == 1:
        text = f"{about}: one step is answered both here and there, {both['step'].iloc[0]}"
        return f"{text}, and goes the same way." if not other else f"{text}, and goes another way: {other[0]}."
    text = f"{about}: of {len(both)} steps answered both here and there, {same.sum()} go the same way"
    text += f": {', '.join(both.loc[same, 'step'])}." if same.any() else "."
    return text + (f" Another way: {', '.join(other)}." if other else "")


def agreement_with_paper(table: pd.DataFrame) -> str:
    """Say it of a ladder and the paper, from the ladder's table (`ladder_table.LADDER_COLUMNS`)."""
    return agreement(table["rung"].tolist(), table["answer"].tolist(), table["paper_answer"].tolist())


def correlations(runs: pd.DataFrame, rungs: Sequence[Rung], *, seed: int = 0) -> pd.DataFrame:
    """Correlate our changes, metric by metric, with the paper's changes of top-1 over the adopted steps.

    The bootstrap draws steps and, within each rung, seeds again, both with replacement, so the interval holds the
    noise of few seeds and that of few steps.

    Args:
        runs: The frame of `analysis.run_frames`.
        rungs: The rungs of the study, with what is published about them.
        seed: Of the bootstrap.

    Returns:
        A row a metric with the columns of `AGREEMENT_COLUMNS`; correlations of fewer than four steps are missing.
    """
    papers = {rung.id: np.array([rung.paper.top1]) for rung in rungs if rung.paper.top1 is not None}
    done = runs[runs["state"] == "finished"]
    draw = np.random.default_rng(seed)
    rows = []
    for name, metric in METRICS.items():
        values = {str(rung): group.to_numpy(float) for rung, group in done.dropna(subset=[name]).groupby("rung")[name]}
        known = values.keys() & papers.keys()
        steps = [(r.id, r.parent) for r in rungs if r.adopted and r.parent in known and r.id in known and r.parent]
        row: dict[str, float | str] = {"metric": name, "steps": len(steps)}
        if len(steps) >= FEWEST_STEPS:
            row |= correlate(values, steps, papers, steps, draw, metric.better)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def correlate(
    here: Mapping[str, Floats],
    steps: Pairs,
    there: Mapping[str, Floats],
    steps_there: Pairs,
    draw: np.random.Generator,
    better: int = 1,
) -> dict[str, float]:
    """Correlate the changes that steps make in two studies by their ranks.

    Args:
        here: Each rung's values, one a seed.
        steps: The steps: a rung and the one it is judged against.
        there: The values of the other study; one that is alone, such as a printed mean, is taken as it is.
        steps_there: The same steps as that study has them.
        draw: Of the bootstrap.
        better: Which way is better here; there more is.

    Returns:
        The columns of `AGREEMENT_COLUMNS` but metric; those of an interval may be missing.
    """
    observed, resampled = [], []
    for values, pairs in ((here, steps), (there, steps_there)):
        means = {rung: float(sample.mean()) for rung, sample in values.items()}
        again = {rung: _means_again(sample, draw) if len(sample) > 1 else sample for rung, sample in values.items()}
        observed.append(np.array([means[step] - means[before] for step, before in pairs]))
        columns = [np.broadcast_to(again[step] - again[before], RESAMPLES) for step, before in pairs]
        resampled.append(np.stack(columns, 1))
    chosen = draw.integers(len(steps), size=(RESAMPLES, len(steps)))
    found: dict[str, float] = {"steps": len(steps)}
    for kind, correlated in (("spearman", spearman), ("kendall", kendall)):
        found[kind] = float(correlated(better * observed[0][None], observed[1][None])[0])
        drawn = correlated(
            *(np.take_along_axis(sign * side, chosen, 1) for sign, side in zip((better, 1), resampled, strict=True))
        )
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn):
            found[f"{kind}_low"], found[f"{kind}_high"] = map(float, np.percentile(drawn, [2.5, 97.5]))
    return found


def _means_again(sample: Floats, draw: np.random.Generator) -> Floats:
    """Return means of samples drawn again, (RESAMPLES,), spread as widely as means of so few values are.

    Drawing n values with replacement gives means a variance that is (n - 1) / n of what it should be, which at three
    seeds is a third too little. One value has no spread to draw from.
    """
    n, mean = len(sample), sample.mean()
    drawn = draw.choice(sample, (RESAMPLES, n)).mean(1)
    again: Floats = mean + (drawn - mean) * math.sqrt(n / max(n - 1, 1))
    return again


def spearman(x: Floats, y: Floats) -> Floats:
    """Return Spearman's correlation of each row of x with that of y, (rows, steps) each; NaN where one is constant."""
    ranks = [pd.DataFrame(values).rank(axis=1).to_numpy(float) for values in (x, y)]
    centred = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    with np.errstate(invalid="ignore"):
        found: Floats = (centred[0] * centred[1]).sum(1) / np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    return found


def kendall(x: Floats, y: Floats) -> Floats:
    """Return Kendall's tau-b of each row of x with that of y, (rows, steps) each; NaN where one is constant."""
    signs = [np.sign(values[:, :, None] - values[:, None, :]) for values in (x, y)]
    with np.errstate(invalid="ignore"):
        found: Floats = (signs[0] * signs[1]).sum((1, 2)) / np.sqrt(
            (signs[0] ** 2).sum((1, 2)) * (signs[1] ** 2).sum((1, 2))
        )
    return found


def correlation_in_words(table: pd.DataFrame, *, proxy: bool, name: str = "the paper") -> str:
    """Say what the correlation of top-1 changes with another study's is, and what that does and does not mean.

    Args:
        table: A row a metric with the columns of `AGREEMENT_COLUMNS`.
        proxy: Whether the study here stands for the paper's experiment instead of repeating it.
        name: What the other study is called.
    """
    row = table.set_index("metric").reindex(["top1"]).iloc[0]
    if pd.isna(row["spearman"]):
        return f"Too few steps have results for a correlation with {name}'s changes."
    found = {
        kind: f"{change(row[kind], '.2f')}, {interval(row[f'{kind}_low'], row[f'{kind}_high'], '.2f')}"
        for kind in ("spearman", "kendall")
    }
    text = (
        f"Rank correlation of the changes of top-1 with {name}'s over {row['steps']:.0f} adopted steps, with its "
        f"95% interval: Spearman {found['spearman']}; Kendall {found['kendall']}."
    )
    if row["spearman_low"] <= 0 <= row["spearman_high"]:
        text += f" The interval contains zero: nothing is known of whether the steps rank as in {name}."
    if proxy:
        text += (
            " On a proxy this says how alike two experiments are, small grey images trained for a short time and "
            "ImageNet; it is neither evidence for nor against a step on ImageNet."
        )
    return text
