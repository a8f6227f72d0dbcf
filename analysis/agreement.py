"""How far our steps do what the paper's do: signs where the paper can tell, and rank correlations with intervals."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.verdicts import METRICS, is_told, published_verdicts
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Rung

RESAMPLES = 2000
FEWEST_STEPS = 4

AGREEMENT_COLUMNS = {
    "metric": "whose changes are compared with the paper's changes of top-1, turned so that more is better",
    "steps": "adopted steps that both have changes of",
    "same_sign": "of these, those that move the same way",
    "spearman": "rank correlation of the changes (Spearman), with",
    "spearman_low": "the ends of its 95% bootstrap interval over steps and seeds",
    "spearman_high": "",
    "kendall": "rank correlation of the changes (Kendall's tau-b), with",
    "kendall_low": "the ends of its interval",
    "kendall_high": "",
}

Floats = NDArray[np.float64]


def separated_steps(ladder: Ladder, base: str) -> dict[str, float]:
    """Return the adopted steps that the paper's own seeds tell from the rung before: rung -> p (Welch, uncorrected).

    Those with a verdict of better or worse. Empty where the paper has one run a rung.
    """
    adopted = {rung.id for rung in ladder.climb(base) if rung.adopted}
    judged = published_verdicts(ladder, base)
    told = judged[judged["verdict"].map(is_told) & judged["step"].isin(adopted)]
    return dict(zip(told["step"], told["p"], strict=True))


def agreement(table: pd.DataFrame, ladder: Ladder, base: str) -> str:
    """Say which of the steps that the paper's seeds separate move the same way in our results, and which do not."""
    steps = separated_steps(ladder, base)
    by_rung = table.set_index("rung")
    change, paper = by_rung["top1_delta"], by_rung["paper_top1_delta"]
    judged = [rung for rung in steps if rung in change.index and math.isfinite(change[rung])]
    if not judged:
        why = "none of these steps has a result here together with the rung before it"
        if not steps:
            some = table["paper_top1"].notna().any()
            why = "with one run a rung, the paper separates no step" if some else "nothing is published of this ladder"
        return f"Agreement with the paper on the steps that its own seeds separate: nothing to say; {why}."
    same = [rung for rung in judged if change[rung] * paper[rung] > 0]
    other = [f"{rung} ({change[rung]:+.2f} here, {paper[rung]:+.2f} there)" for rung in judged if rung not in same]
    text = (
        f"Agreement with the paper: {len(same)} of the {len(judged)} steps that its own seeds separate (Welch, Holm, "
        f"p < 0.05) move the same way here: {', '.join(same) or 'none'}."
    )
    return text + (f" The other way: {', '.join(other)}." if other else "")


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
        row: dict[str, float | str] = {"metric": name, "steps": len(steps), "same_sign": int((ours * theirs > 0).sum())}
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
    ranks = [stats.rankdata(values, axis=1) for values in (x, y)]
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
    row = table.set_index("metric").loc["top1"]
    if pd.isna(row["spearman"]):
        return "Too few steps have results for a correlation with the paper's changes."
    text = (
        f"Over {row['steps']:.0f} adopted steps the changes of top-1 correlate with the paper's by "
        f"{row['spearman']:+.2f} (Spearman, 95% interval {row['spearman_low']:+.2f} to {row['spearman_high']:+.2f}; "
        f"Kendall {row['kendall']:+.2f}, {row['kendall_low']:+.2f} to {row['kendall_high']:+.2f})."
    )
    if row["spearman_low"] <= 0 <= row["spearman_high"]:
        text += " The interval holds zero: whether the order of the steps is the paper's cannot be told."
    if proxy:
        text += (
            " On a proxy this says how alike two experiments are, small grey images trained for a short time and "
            "ImageNet; it is neither evidence for nor against a step on ImageNet."
        )
    return text
