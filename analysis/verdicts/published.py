"""The answers to the paper's own steps, from its printed numbers."""

import pandas as pd

from analysis.metrics import METRICS
from analysis.stats.answers import SHARED, Test
from analysis.verdicts.columns import Pairs, pairs_of, with_words
from analysis.verdicts.runs import judged_summary
from roadmap.ladder.ladder import Ladder

PRINTED = 0.01  # what the paper rounds its means and deviations to, points


def published_verdicts(
    ladder: Ladder, base: str, *, pairs: Pairs | None = None, margin: float | None = None, test: Test = SHARED
) -> pd.DataFrame:
    """Judge the paper's own steps by the same rule, from its printed means and standard deviations of top-1.

    Args:
        ladder: The ladder, with what is published.
        base: Where it starts.
        pairs: The changes; None takes every rung and the one it comes from.
        margin: As for `verdict_table`.
        test: Likewise.
    """
    rungs, seeds = ladder.climb(base), ladder.bases[base].seeds
    mean = {rung.id: rung.paper.top1 for rung in rungs if rung.paper.top1 is not None}
    std = {rung.id: rung.paper.top1_std for rung in rungs if rung.paper.top1_std is not None}
    summary = (mean, std, {rung: seeds if rung in std else 1 for rung in mean})
    about = METRICS["top1"]
    margin = about.margin if margin is None else margin
    pairs = pairs_of(rungs) if pairs is None else pairs
    judged = judged_summary(summary, pairs, about, margin, test, rounded_to=PRINTED)
    return with_words(judged, "top1", about, margin)
