"""The shape of a verdict table: its columns, which changes it is about, and its answers in words."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.sentences import in_words
from analysis.stats.tests import holm
from roadmap.ladder.rung import Rung
from roadmap.runs.metrics import Metric

# A row of a verdict table: column -> meaning and unit.
VERDICT_COLUMNS = {
    "step": "rung",
    "against": "the rung that it is judged against",
    "metric": "what changed; `analysis.metrics.metric_of` says in which unit",
    "n": "finished seeds of the rung (rounds of a speed)",
    "n_against": "those of the other",
    "value": "mean of the rung",
    "value_against": "mean of the other",
    "delta": "change of the mean",
    "ci_low": "lower end of its 95% interval, for this change alone",
    "ci_high": "upper end",
    "seed_se": "its standard error from the spread of the seeds",
    "test_se": "its standard error from the choice of test images, the trained networks being given (top-1)",
    "p": "test of no change by the rule that gives the answers, two-sided, for this change alone",
    "p_adjusted": "the same, allowing for all changes of the table in this metric",
    "p_welch": "Welch's t-test from the two rungs' own seeds, two-sided",
    "p_holm": "the same after Holm's correction over the table's changes of this metric",
    "p_paired": "paired t-test over the seeds that both rungs have",
    "p_same": "test of a change beyond the margin, allowing for all changes: a small p says that there is none",
    "mcnemar_pairs": "seeds whose two networks' predictions McNemar's exact test compared (top-1)",
    "mcnemar_differ": "of these, those with p < 0.05",
    "margin": "changes within it are as good as none",
    "seeds_needed": "seeds a rung that would answer a change of the observed size with a probability of 80%",
    "answer": "helps, hurts, no effect, undecided or not tested; empty where there is nothing to test",
    "verdict": "the same in words",
}
WORDS = ("step", "against", "metric", "answer", "verdict")

# What a step costs, in a table of top-1's verdicts: column -> meaning.
FACTOR_COLUMNS = {
    "macs_factor": "multiply-adds, as a multiple of those of the rung before",
    "time_factor": "time of a training image, the same way, measured side by side",
    "memory_factor": "peak memory of a training step, the same way",
}

Pairs = Sequence[tuple[str, str]]


def pairs_of(rungs: Iterable[Rung]) -> list[tuple[str, str]]:
    """Return each rung that has one before it, and that one. References are no steps: `reference_pairs` has them."""
    return [(rung.id, rung.parent) for rung in rungs if rung.parent is not None and not rung.is_reference]


def reference_pairs(rungs: Iterable[Rung]) -> list[tuple[str, str]]:
    """Return each reference and the rung that it is judged against."""
    return [(rung.id, rung.parent) for rung in rungs if rung.parent is not None and rung.is_reference]


def with_words(judged: pd.DataFrame, name: str, about: Metric, margin: float | NDArray[np.float64]) -> pd.DataFrame:
    """Return judged changes with the columns of `VERDICT_COLUMNS`."""
    table = judged.assign(metric=name, margin=np.broadcast_to(margin, len(judged)).astype(float))
    if "p_welch" in table:
        table["p_holm"] = holm(table["p_welch"])
    rows: list[Any] = list(table.itertuples())
    table["verdict"] = [in_words(row.answer, row, about.samples) for row in rows]
    return in_columns(table)


def in_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the columns of `VERDICT_COLUMNS`, NaN where nothing is known."""
    table = table.reindex(columns=list(VERDICT_COLUMNS))
    numbers = [name for name in VERDICT_COLUMNS if name not in (*WORDS, "n", "n_against")]
    kinds: dict[str, str] = dict.fromkeys(WORDS, "object") | dict.fromkeys(numbers, "float")
    return table.astype(kinds | {"n": "int", "n_against": "int"})


def without_answers(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a verdict table with what was measured alone: means and changes, without a test, interval or answer."""
    kept = ("step", "against", "metric", "n", "n_against", "value", "value_against", "delta", "margin")
    nothing = {name: "" if name in WORDS else np.nan for name in VERDICT_COLUMNS if name not in kept}
    return judged.assign(**nothing)


def to_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a verdict table's rows as JSON-able values; what is not known is null."""
    return [
        {
            str(name): None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in row.items()
        }
        for row in table.astype(object).to_dict("records")
    ]
