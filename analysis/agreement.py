"""How far our steps do what the paper's do: the same answers, and rank correlations of the changes with intervals."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.metrics import METRICS
from analysis.sentences import is_answered
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


def agreement(table: pd.DataFrame) -> str:
    """Say which steps have the same answer here and in the paper, of those that are answered in both.

    Args:
        table: The ladder, with the columns of `ladder_table.LADDER_COLUMNS`.
    """
    if not (table["paper_answer"] != "").any():
        return "Agreement with the paper: nothing is published of these steps."
    both = table[is_answered(table["answer"]) & is_answered(table["paper_answer"])]
    if both.empty:
        if not is_answered(table["paper_answer"]).any():
            return "Agreement with the paper: its own numbers answer none of these steps."
        return "Agreement with the paper: no step is answered both here and there."
    same = both["answer"] == both["paper_answer"]
    other = [f"{row.rung} ({row.answer} here, {row.paper_answer} there)" for row in both[~same].itertuples(index=False)]
    if len(both) == 1:
        text = f"Agreement with the paper: one step is answered both here and there, {both['rung'].iloc[0]}"
        return f"{text}, and goes the same way." if not other else f"{text}, and goes another way: {other[0]}."
    text = f"Agreement with the paper: of {len(both)} steps answered both here and there, {same.sum()} go the same way"
    text += f": {', '.join(both.loc[same, 'rung'])}." if same.any() else "."
    return text + (f" Another way: {', '.join(other)}." if other else "")


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
    papers = {rung.id: rung.paper.top1 for rung in rungs if rung.paper.top1 is not None}
    done = runs[runs["state"] == "finished"]
    draw = np.random.default_rng(seed)
    rows = []
    for name, metric in METRICS.items():
        values = {str(rung): group.to_numpy(float) for rung, group in done.dropna(subset=[name]).groupby("rung")[name]}
        known = values.keys() & papers.keys()
        steps = [(r.id, r.parent) for r in rungs if r.adopted and r.parent in known and r.id in known and r.parent]
        theirs: Floats = np.array([papers[step] - papers[before] for step, before in steps])
        means = {rung: float(sample.mean()) for rung, sample in values.items()}
        ours: Floats = metric.better * np.array([means[step] - means[before] for step, before in steps])
        row: dict[str, float | str] = {"metric": name, "steps": len(steps)}
        if len(steps) >= FEWEST_STEPS:
            again = {rung: _means_again(sample, draw) for rung, sample in values.items()}
            changes = metric.better * np.stack([again[step] - again[before] for step, before in steps], 1)
            chosen = draw.integers(len(steps), size=(RESAMPLES, len(steps)))
            drawn, drawn_theirs = np.take_along_axis(changes, chosen, 1), theirs[chosen]
            for kind, correlate in (("spearman", spearman), ("kendall", kendall)):
                row[kind] = float(correlate(ours[None], theirs[None])[0])
                found = correlate(drawn, drawn_theirs)
                found = found[np.isfinite(found)]
                if len(found):
                    row[f"{kind}_low"], row[f"{kind}_high"] = map(float, np.percentile(found, [2.5, 97.5]))
        rows.append(row)
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


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


def correlation_in_words(table: pd.DataFrame, *, proxy: bool) -> str:
    """Say what the correlation of top-1 changes with the paper's is, and what that does and does not mean."""
    row = table.set_index("metric").reindex(["top1"]).iloc[0]
    if pd.isna(row["spearman"]):
        return "Too few steps have results for a correlation with the paper's changes."
    found = {
        kind: f"{change(row[kind], '.2f')}, {interval(row[f'{kind}_low'], row[f'{kind}_high'], '.2f')}"
        for kind in ("spearman", "kendall")
    }
    text = (
        f"Rank correlation of the changes of top-1 with the paper's over {row['steps']:.0f} adopted steps, with its "
        f"95% interval: Spearman {found['spearman']}; Kendall {found['kendall']}."
    )
    if row["spearman_low"] <= 0 <= row["spearman_high"]:
        text += " The interval contains zero: nothing is known of whether the steps rank as in the paper."
    if proxy:
        text += (
            " On a proxy this says how alike two experiments are, small grey images trained for a short time and "
            "ImageNet; it is neither evidence for nor against a step on ImageNet."
        )
    return text
