"""Our training beside the authors', written out in plain PyTorch: tests/authors.py says what is compared with what."""

import csv

import pytest

from tests.authors import BETWEEN_PROCESSES, COMPARISONS, GOLDEN, Comparison


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.ours)
def test_ours_is_what_the_authors_do(comparison: Comparison) -> None:
    assert comparison.greatest() <= comparison.bound


def test_the_table_of_the_documentation_has_every_comparison_and_no_difference_above_its_bound() -> None:
    with GOLDEN.open() as file:
        rows = list(csv.DictReader(file))
    comparisons = (*COMPARISONS, *BETWEEN_PROCESSES)
    assert [(row["ours"], row["held against"]) for row in rows] == [(each.ours, each.theirs) for each in comparisons]
    for row, each in zip(rows, comparisons, strict=True):
        assert float(row["greatest difference"]) <= each.bound
