"""What is known of each step: a row a change and metric, with the answer. Frames in, frames out.

From runs, from printed numbers, from rounds of measuring, from counted costs. No statistics of its own (`stats`), no
figure and no text but the words of an answer.
"""

from analysis.verdicts.columns import (
    FACTOR_COLUMNS,
    VERDICT_COLUMNS,
    Pairs,
    in_columns,
    pairs_of,
    reference_pairs,
    to_json,
    with_words,
    without_answers,
)
from analysis.verdicts.costs import cost_table, speed_table, with_costs
from analysis.verdicts.published import PRINTED, published_verdicts
from analysis.verdicts.runs import RightImages, sought_verdicts, values_in_order, verdict_table

__all__ = [
    "FACTOR_COLUMNS",
    "PRINTED",
    "VERDICT_COLUMNS",
    "Pairs",
    "RightImages",
    "cost_table",
    "in_columns",
    "pairs_of",
    "published_verdicts",
    "reference_pairs",
    "sought_verdicts",
    "speed_table",
    "to_json",
    "values_in_order",
    "verdict_table",
    "with_costs",
    "with_words",
    "without_answers",
]
