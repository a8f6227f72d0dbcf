"""Statistics, held against textbook cases, scipy's own tests on raw data, the paper's Table 10, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from analysis.stats.welch import (
    BETTER,
    MOST_SEEDS,
    SAME,
    UNCLEAR,
    UNTESTED,
    WORSE,
    Sample,
    holm,
    in_words,
    judge,
    mcnemar_p,
    needed_in_words,
    paired_p,
    power,
    seeds_needed,
)

numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
groups = st.lists(numbers, min_size=2, max_size=8)


def sample(*groups: list[float]) -> Sample:
    return Sample.of(
        [np.mean(g) if g else np.nan for g in groups],
        [np.std(g, ddof=1) if len(g) > 1 else np.nan for g in groups],
        [len(g) for g in groups],
    )


# -- one change


@given(groups, groups)
def test_a_change_is_tested_as_scipy_tests_the_raw_values(old: list[float], new: list[float]) -> None:
    assume(np.std(old) > 0.01)
    assume(np.std(new) > 0.01)
    told = judge(sample(old), sample(new))
    test = stats.ttest_ind(new, old, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert told.p[0] == pytest.approx(test.pvalue, abs=1e-9)
    assert (told.ci_low[0], told.ci_high[0]) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-6)
    assert told.p_holm[0] == told.p[0]


def test_student_1908_on_sleep() -> None:
    """Hours of sleep gained under two drugs, ten patients each, by Welch's test and, as he did, patient by patient."""
    old = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    new = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    told = judge(sample(old), sample(new))
    assert told.p[0] == pytest.approx(0.07939, abs=1e-5)
    assert (told.ci_low[0], told.ci_high[0]) == pytest.approx((-0.2054832, 3.3654832), abs=1e-6)
    assert paired_p(np.array(new) - np.array(old)) == pytest.approx(0.002833, abs=1e-6)


def test_a_verdict_turns_with_what_is_better() -> None:
    old, new = sample([1.0, 1.1, 0.9]), sample([3.0, 3.1, 2.9])
    assert judge(old, new, better=1).verdict[0] == BETTER
    assert judge(old, new, better=-1).verdict[0] == WORSE
    assert judge(new, old, better=1).verdict[0] == WORSE


def test_a_change_within_the_margin_is_no_different_only_where_the_seeds_can_tell() -> None:
    close, far = [10.0, 10.01, 9.99, 10.0], [10.0, 12.0, 8.0, 10.0]
    assert judge(sample(close), sample(close), margin=0.2).verdict[0] == SAME
    assert judge(sample(far), sample(far), margin=0.2).verdict[0] == UNCLEAR
    assert judge(sample(close), sample(close), margin=0.0).verdict[0] == UNCLEAR


def test_the_equivalence_test_is_the_larger_of_two_one_sided_ones() -> None:
    old, new, margin = [1.0, 1.3, 0.8, 1.1], [1.2, 1.2, 0.9, 1.4, 1.3], 0.5
    told = judge(sample(old), sample(new), margin=margin)
    above = stats.ttest_ind(np.array(new) + margin, old, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(np.array(new) - margin, old, equal_var=False, alternative="less").pvalue
    assert told.p_same[0] == pytest.approx(max(above, below))


def test_what_is_told_and_within_the_margin_is_better_or_worse_all_the_same() -> None:
    old, new = [10.0, 10.01, 9.99], [10.1, 10.11, 10.09]
    assert judge(sample(old), sample(new), margin=5.0).verdict[0] == BETTER


@pytest.mark.parametrize("lacking", [[], [1.0]])
def test_where_a_side_has_fewer_than_two_seeds_nothing_is_tested(lacking: list[float]) -> None:
    told = judge(sample(lacking, [1.0, 2.0, 4.0]), sample([1.0, 2.0, 3.0], [5.0, 6.0, 8.0]))
    assert told.verdict[0] == UNTESTED
    assert np.isnan([told.p[0], told.p_holm[0], told.ci_low[0], told.p_same[0]]).all()
    assert told.p_holm[1] == told.p[1]  # and it does not count as one of the family


def test_seeds_without_any_spread_test_nothing() -> None:
    assert judge(sample([1.0, 1.0]), sample([2.0, 2.0])).verdict[0] == UNTESTED


# -- many changes


def test_holms_textbook_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12))
def test_holms_correction_raises_no_further_than_their_number_and_keeps_the_order(p: list[float]) -> None:
    corrected = holm(p)
    there = np.isfinite(p)
    assert np.isnan(corrected[~there]).all()
    raw, new = np.array(p)[there], corrected[there]
    assert (new >= raw).all()
    assert (new <= np.minimum(1, raw * len(raw)) + 1e-12).all() or len(raw) == 0 or (new <= 1).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(new[order]) >= 0).all()


# -- pairs


def test_the_paired_test_is_scipys_and_needs_two_seeds_with_different_changes() -> None:
    old, new = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.1, 3.9])
    assert paired_p(new - old) == pytest.approx(stats.ttest_rel(new, old).pvalue)
    assert math.isnan(paired_p([0.5]))
    assert math.isnan(paired_p([0.5, 0.5]))


def test_mcnemars_textbook_case() -> None:
    """Exact, from its binomial: 5 against 15 discordant pairs is 0.0414; 6 against 6 is 1."""
    assert mcnemar_p([5, 6, 0], [15, 6, 0]).tolist() == pytest.approx([0.041389, 1.0, 1.0], abs=1e-6)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_test_is_the_binomial_test(lost: int, won: int) -> None:
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar_p(lost, won) == pytest.approx(expected, abs=1e-9)


# -- how many seeds


@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_seeds_needed_for_cohens_small_medium_and_large_effects(effect: float, n: int) -> None:
    """Cohen 1988, two-sample t-test, 5% two-sided, power 80%."""
    assert seeds_needed(effect, 1.0, 1.0) == n


@given(st.floats(0.05, 5), st.floats(0.01, 2), st.floats(0.01, 2), st.integers(1, 20))
def test_the_seeds_needed_are_the_fewest_that_reach_the_power(delta: float, old: float, new: float, m: int) -> None:
    n = seeds_needed(delta, old, new, family=m)
    assert n >= 2
    if n > 2 and n <= MOST_SEEDS:
        assert (
            power(int(n), delta, old, new, alpha=0.05 / m) >= 0.8 > power(int(n) - 1, delta, old, new, alpha=0.05 / m)
        )
    assert seeds_needed(-delta, old, new, family=m) == n
    assert seeds_needed(delta, old, new, family=m + 5) >= n


def test_where_no_spread_is_known_no_number_is_made_up() -> None:
    assert math.isnan(seeds_needed(1.0, math.nan, 1.0))
    assert math.isnan(seeds_needed(1.0, 0.0, 0.0))
    assert math.isnan(seeds_needed(math.nan, 1.0, 1.0))
    assert math.isinf(seeds_needed(1e-9, 1.0, 1.0))


# -- words


def test_verdicts_read_as_sentences_do() -> None:
    assert in_words(BETTER, n=3, margin=0.2) == "better"
    assert in_words(SAME, n=3, margin=0.2) == "no different within 0.2"
    assert in_words(UNCLEAR, n=3, margin=0.2) == "not distinguishable at 3 seeds"
    assert in_words(UNCLEAR, n=5, margin=0.2, unit="rounds") == "not distinguishable at 5 rounds"
    assert needed_in_words(12.0) == " (about 12 needed)"
    assert [in_words(UNTESTED, n=n, margin=0.2) for n in (0, 1, 2)] == [
        "not tested: no result", "not tested: one seed", "not tested: no spread"
    ]  # fmt: skip
    assert needed_in_words(math.inf) == " (more than 1,000 needed)"
    assert needed_in_words(math.nan) == ""


# -- simulation

LADDERS, STEPS = 2000, 16


def simulate(seeds: int, deviations: np.ndarray, margin: float = 0.0) -> tuple[float, float, float]:
    """Judge ladders whose rungs are all alike; return the share of them with a false verdict, the coverage of the
    intervals, and the share of ladders that called anything the same."""
    draw = np.random.default_rng(seeds)
    false = covered = same = 0.0
    for _ in range(LADDERS):
        values = draw.normal(0, deviations[:, None], (STEPS + 1, seeds))
        rungs = Sample.of(values.mean(1), values.std(1, ddof=1), seeds)
        old, new = (
            Sample(rungs.mean[part], rungs.std[part], rungs.n[part]) for part in (slice(None, -1), slice(1, None))
        )
        told = judge(old, new, margin=margin)
        false += bool(np.isin(told.verdict, (BETTER, WORSE)).any())
        same += bool((told.verdict == SAME).any())
        covered += float(((told.ci_low < 0) & (told.ci_high > 0)).mean())
    return false / LADDERS, covered / LADDERS, same / LADDERS


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("deviations", [np.ones(STEPS + 1), np.linspace(0.5, 1.5, STEPS + 1)], ids=["equal", "rising"])
def test_of_ladders_without_any_effect_at_most_one_in_twenty_has_a_false_verdict(
    seeds: int, deviations: np.ndarray
) -> None:
    false, coverage, _ = simulate(seeds, deviations)
    error = math.sqrt(0.05 * 0.95 / LADDERS)  # of the simulation itself
    assert false < 0.05 + 2 * error
    assert 0.93 < coverage < 0.97


def test_a_change_as_large_as_the_margin_is_seldom_called_none() -> None:
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(LADDERS):
        old, new = draw.normal(0, 0.1, (STEPS, 5)), draw.normal(0.2, 0.1, (STEPS, 5))
        sides = (Sample.of(side.mean(1), side.std(1, ddof=1), 5) for side in (old, new))
        wrong += bool((judge(*sides, margin=0.2).verdict == SAME).any())
    assert wrong / LADDERS < 0.05 + 2 * math.sqrt(0.05 * 0.95 / LADDERS)


@pytest.mark.parametrize(
    ("delta", "old", "new", "family"),
    [(0.5, 0.3, 0.3, 16), (0.2, 0.2, 0.1, 16), (1.0, 0.9, 0.3, 1), (2.0, 0.5, 0.5, 16)],
)
def test_as_many_seeds_as_are_said_to_be_needed_reach_the_power(
    delta: float, old: float, new: float, family: int
) -> None:
    n = int(seeds_needed(delta, old, new, family=family))
    draw = np.random.default_rng(1)
    values = [draw.normal(mean, std, (20_000, n)) for mean, std in ((0.0, old), (delta, new))]
    told = judge(*(Sample.of(side.mean(1), side.std(1, ddof=1), n) for side in values))
    reached = float((told.p < 0.05 / family).mean())
    assert reached > 0.79
    assert power(n, delta, old, new, alpha=0.05 / family) == pytest.approx(reached, abs=0.02)
