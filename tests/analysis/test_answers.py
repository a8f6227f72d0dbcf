"""Answers of a ladder, held against simulation, scipy, the paper's Table 10, and what must hold for any values."""

import math
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from analysis.stats._contrasts import contrast, deviations, step_down
from analysis.stats._noise import Noise, learn_noise
from analysis.stats.answers import Answer, judge, judge_summary, summarize
from analysis.stats.power import MOST_SEEDS, more_seeds, seeds_needed
from analysis.stats.tests import holm, mcnemar_p, paired_p, two_sided_p, welch
from benchmarks.answers import ROADMAP, simulate

REPOSITORY = Path(__file__).parents[2]
HELPS, HURTS, NO_EFFECT, UNDECIDED, NOT_TESTED = Answer
NUMBERS = ["n", "n_against", "delta", "ci_low", "ci_high", "p", "p_adjusted", "p_same", "p_welch"]

few = settings(max_examples=25, deadline=None)
numbers = st.floats(-100, 100).map(lambda x: round(x, 2))
ladders = st.lists(st.lists(numbers, min_size=0, max_size=5), min_size=2, max_size=6)


def named(rungs):
    return {f"r{i}": values for i, values in enumerate(rungs)}


def chain(values):
    names = list(values)
    return list(zip(names[1:], names[:-1], strict=True))


def draw(seed, means, noise=1.0, n=3):
    rng = np.random.default_rng(seed)
    return named(rng.normal(np.asarray(means)[:, None], np.broadcast_to(noise, len(means))[:, None], (len(means), n)))


# What must hold for any values


@few
@given(ladders, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(rungs, random):
    shuffled = [random.sample(values, len(values)) for values in rungs]
    before, after = (judge(named(some), chain(named(some)), margin=1) for some in (rungs, shuffled))
    pd.testing.assert_frame_equal(before[NUMBERS], after[NUMBERS], rtol=1e-6, atol=1e-9)


@few
@given(st.integers(0, 1000), st.sampled_from([1e-9, 0.01, 3.0, 1e9]))
def test_another_unit_changes_the_numbers_and_no_answer(seed, unit):
    values = draw(seed, [0, 0, 2, 9, 9, 4])
    scaled = {rung: unit * some for rung, some in values.items()}
    before, after = judge(values, chain(values), margin=2), judge(scaled, chain(values), margin=2 * unit)
    assert list(before["verdict"]) == list(after["verdict"])
    for column in ("delta", "ci_low", "ci_high", "noise"):
        np.testing.assert_allclose(unit * before[column], after[column], rtol=1e-4)
    np.testing.assert_allclose(before[["p", "p_adjusted", "p_same"]], after[["p", "p_adjusted", "p_same"]], rtol=1e-3)


@few
@given(st.integers(0, 1000))
def test_where_less_is_better_what_helped_hurts(seed):
    values = draw(seed, [0, 9, 3, 3, 20])
    more, less = (judge(values, chain(values), better=better, margin=1) for better in (1, -1))
    other = {HELPS: HURTS, HURTS: HELPS}
    assert [other.get(answer, answer) for answer in more["verdict"]] == list(less["verdict"])
    pd.testing.assert_frame_equal(more[NUMBERS], less[NUMBERS])
    assert {HELPS, HURTS} & set(more["verdict"])


@few
@given(st.integers(0, 1000), st.floats(-1000, 1000))
def test_adding_a_constant_to_all_values_changes_nothing(seed, constant):
    values = draw(seed, [0, 9, 3, 3, 20])
    moved = {rung: some + constant for rung, some in values.items()}
    before, after = judge(values, chain(values), margin=1), judge(moved, chain(values), margin=1)
    pd.testing.assert_frame_equal(before[NUMBERS], after[NUMBERS], rtol=1e-4, atol=1e-6)


@few
@given(ladders, st.floats(0, 5))
def test_any_ladder_gets_an_answer_a_pair_and_numbers_that_agree_with_it(rungs, margin):
    values = named(rungs)
    table = judge(values, chain(values), margin=margin)
    assert len(table) == len(rungs) - 1
    known = table[table["verdict"] != NOT_TESTED]
    assert known[["delta", "ci_low", "ci_high", "p", "p_adjusted", "p_same", "noise"]].notna().all(axis=None)
    assert (known["p_adjusted"] >= known["p"] - 1e-12).all()
    assert ((known["ci_low"] < known["delta"]) & (known["delta"] < known["ci_high"])).all()
    told = known["verdict"].isin([HELPS, HURTS])
    assert ((known["p_adjusted"] <= 0.05) & (known["delta"] != 0)).equals(told)
    assert ((known["ci_low"] > 0) | (known["ci_high"] < 0))[told].all()
    same = known["verdict"] == NO_EFFECT
    assert (known["delta"].abs()[same] < margin).all()
    assert known["ci_high"][same].le(margin).all()
    assert known["ci_low"][same].ge(-margin).all()


@few
@given(st.integers(0, 1000))
def test_a_pair_that_is_given_twice_is_one_question(seed):
    values = draw(seed, [0, 5, 3])
    once, twice = judge(values, chain(values)), judge(values, [*chain(values), *chain(values)])
    pd.testing.assert_frame_equal(once, twice[:2])
    pd.testing.assert_frame_equal(once, twice[2:].reset_index(drop=True))


def test_values_and_their_summary_get_the_same_answers():
    values = draw(0, [0, 5, 3, 3, 9]) | {"r5": np.array([4.0])}
    table = judge_summary(*summarize(values), chain(values), margin=1)
    pd.testing.assert_frame_equal(judge(values, chain(values), margin=1), table)


# Ladders that lack something


def test_without_a_rung_of_two_seeds_nothing_is_tested():
    table = judge({"a": [1.0], "b": [5.0], "c": []}, [("b", "a"), ("c", "b")])
    assert list(table["verdict"]) == [NOT_TESTED, NOT_TESTED]
    assert table["delta"][0] == 4
    assert table[["ci_low", "ci_high", "p", "p_adjusted", "p_same", "p_welch", "noise"]].isna().all(axis=None)


def test_a_rung_without_values_is_not_tested_and_the_others_are():
    values = draw(1, [0, 0, 50]) | {"r1": [math.nan]}
    table = judge(values, [("r1", "r0"), ("r2", "r1"), ("r2", "r0")])
    assert list(table["verdict"]) == [NOT_TESTED, NOT_TESTED, HELPS]
    assert list(table["n"]) == [0, 3, 3]
    assert table["delta"].isna().tolist() == [True, True, False]


def test_a_rung_of_one_seed_is_judged_by_the_noise_of_the_others():
    values = draw(2, [0] * 8) | {"single": [30.0]}
    table = judge(values, [("single", "r0")])
    assert table["verdict"][0] == HELPS
    assert 0.3 < table["noise"][0] < 3
    assert math.isnan(table["p_welch"][0])


def test_values_that_are_not_finite_are_dropped():
    values = draw(3, [0, 5, 3])
    worse = {rung: [*some, math.nan, math.inf] for rung, some in values.items()}
    pd.testing.assert_frame_equal(judge(values, chain(values)), judge(worse, chain(values)))


@pytest.mark.parametrize("value", [0.0, 85.3, 1e12])
def test_values_without_any_spread_are_not_tested(value):
    values = {"a": [value] * 3, "b": [value + 1] * 3}
    assert judge(values, [("b", "a")], margin=5)["verdict"][0] == NOT_TESTED


def test_a_rung_without_spread_gets_the_noise_of_the_others():
    values = draw(4, [0] * 9) | {"stuck": [1.5, 1.5, 1.5]}
    table = judge(values, [("stuck", "r0")], margin=1)
    assert 0.3 < table["noise"][0] < 3
    assert table["verdict"][0] == UNDECIDED


def test_two_rungs_are_enough():
    assert judge(draw(5, [0, 100], n=5), [("r1", "r0")])["verdict"][0] == HELPS
    assert judge(draw(5, [0, 0], n=5), [("r1", "r0")])["verdict"][0] == UNDECIDED


def test_a_ladder_of_one_rung_has_no_steps():
    table = judge({"a": [1.0, 2.0]}, [])
    assert len(table) == 0
    assert "verdict" in table


def test_rungs_that_are_in_no_pair_help_to_learn_the_noise():
    values = draw(6, [0, 6] + [0] * 10, n=2)
    alone = judge({rung: values[rung] for rung in ("r0", "r1")}, [("r1", "r0")])
    together = judge(values, [("r1", "r0")])
    assert (together["ci_high"] - together["ci_low"])[0] < 0.7 * (alone["ci_high"] - alone["ci_low"])[0]


def test_an_unknown_rung_is_named_with_its_nearest_match():
    with pytest.raises(ValueError, match="unknown rung 'wider'; did you mean 'wide'"):
        judge({"base": [1.0, 2.0], "wide": [2.0, 3.0]}, [("wider", "base")])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"better": 0}, "better"),
        ({"margin": -1}, "margin"),
        ({"margin": [1, 2]}, "margin"),
        ({"margin": math.nan}, "margin"),
        ({"alpha": 0}, "alpha"),
        ({"test": "bayes"}, "test"),
    ],
)
def test_what_an_option_may_not_be_is_said(wrong, message):
    with pytest.raises(ValueError, match=message):
        judge({"a": [1.0, 2.0], "b": [2.0, 3.0]}, [("b", "a")], **wrong)


def test_a_rung_cannot_be_compared_with_itself():
    with pytest.raises(ValueError, match="'a', 'a'"):
        judge({"a": [1.0, 2.0]}, [("a", "a")])


# One wild rung, rounding, quantised values


def test_one_wild_rung_does_not_spoil_the_answers_of_the_others():
    rng = np.random.default_rng(7)
    means = [0, 0, 0, 0, 6, 6, 6, 6, 0, 0, 0]
    calm = draw(7, means, noise=0.5)
    wild = calm | {"wild": rng.normal(0, 11, 3)}
    before, after = judge(calm, chain(calm)), judge(wild, [*chain(calm), ("wild", "r0")])
    assert list(before["verdict"]) == list(after["verdict"][:-1])
    assert list(before["verdict"]).count(HELPS) == list(before["verdict"]).count(HURTS) == 1
    width = (after["ci_high"] - after["ci_low"])[:-1] / (before["ci_high"] - before["ci_low"])
    assert width.max() < 1.3


def test_a_wild_rung_gets_no_false_answer_from_the_calm_of_the_others():
    rng = np.random.default_rng(8)
    false = 0
    for seed in range(80):
        values = draw(seed, [0] * 16, noise=0.4) | {"wild": rng.normal(0, 8, 3)}
        pairs = [*chain(values), ("r0", "wild")]
        false += (judge(values, pairs, margin=0.2)["verdict"][-2:] != UNDECIDED).any()
    assert false <= stats.binom.ppf(0.999, 80, 0.05)


def test_a_printed_deviation_of_zero_is_evidence_of_little_noise_but_not_of_none():
    mean, n = {"a": 80.0, "b": 80.01, "c": 80.5}, dict.fromkeys("abc", 3)
    printed = judge_summary(mean, dict.fromkeys("abc", 0.0), n, [("b", "a"), ("c", "b")], step=0.01)
    assert 0 < printed["noise"].max() < 0.01
    assert list(printed["verdict"]) == [UNDECIDED, HELPS]
    unrounded = judge_summary(mean, dict.fromkeys("abc", 0.0), n, [("b", "a"), ("c", "b")])
    assert set(unrounded["verdict"]) == {NOT_TESTED}


def test_rounding_matters_where_a_deviation_is_as_small_as_the_step_and_not_else():
    mean, n = {"a": 80.0, "b": 80.05}, {"a": 5, "b": 5}
    for std, differs in ((0.01, True), (1.0, False)):
        stds = {"a": std, "b": std}
        exact, rounded = (judge_summary(mean, stds, n, [("b", "a")], step=step)["p"][0] for step in (0.0, 0.01))
        assert (rounded > 1.05 * exact) == differs


def test_values_in_coarse_steps_cause_no_more_false_answers():
    rng = np.random.default_rng(9)
    false = 0
    for _ in range(80):
        values = named(np.round(rng.normal(0, 0.7, (17, 3))))
        pairs = [(f"r{new}", f"r{old}") for new, old in ROADMAP]
        false += judge(values, pairs)["verdict"].isin([HELPS, HURTS]).any()
    assert false <= stats.binom.ppf(0.999, 80, 0.05)


# The numbers, held against theory


def test_one_known_noise_gives_normal_intervals():
    noise = Noise(1.0, np.array([0.0]), np.array([1.0]), np.ones((3, 1, 1)), 0.0)
    two = contrast(noise, np.array([2.0, 4.0, 4.0]), np.array([1, 2]), np.array([0, 1]))
    np.testing.assert_allclose(two.threshold(np.log(np.array(0.05))), 1.96 * np.sqrt([0.75, 0.5]), rtol=0.01)
    np.testing.assert_allclose(np.corrcoef(two.errors)[0, 1], -0.25 / np.sqrt(0.75 * 0.5), atol=0.04)
    np.testing.assert_allclose(two.errors.var(axis=1), [0.75, 0.5], rtol=0.08)


def test_the_noise_of_equal_rungs_is_found_and_that_of_unequal_ones_kept_apart():
    alike = learn_noise(np.full(20, 3.0), np.full(20, 3.0)).std()
    np.testing.assert_allclose(alike, 3.0, rtol=0.15)
    apart = learn_noise(np.array([1.0, 10.0] * 6), np.full(12, 9.0)).std()
    np.testing.assert_allclose(apart, [1.0, 10.0] * 6, rtol=0.25)


def test_the_tail_of_a_difference_is_the_integral_over_both_variances():
    """With many seeds, and noise far apart, each rung keeps its own: the Behrens-Fisher distribution."""
    noise = Noise(1.0, np.linspace(-4, 8, 121), np.array([1.0]), np.empty((2, 1, 121)), 0.0)
    for rung, (std, df) in enumerate([(1.0, 4), (2.0, 6)]):
        density = stats.invgamma.pdf(np.exp(noise.log_variance), df / 2, scale=df / 2 * std**2)
        noise.given[rung, 0] = density * np.exp(noise.log_variance)
    noise.given[:] /= noise.given.sum(axis=2, keepdims=True)
    ours = contrast(noise, np.ones(2), np.array([1]), np.array([0]))
    for size in (1.0, 4.0, 9.0):
        exact = integrate.quad(lambda e, s=size: stats.t.pdf(e, 4) * 2 * stats.t.sf((s + e) / 2, 6), -60, 60)[0]
        assert np.exp(ours.log_p(np.array([size])))[0] == pytest.approx(exact, rel=0.04)


def test_welch_is_scipys():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([3.0, 9.0, 5.0, 8.0])
    table = judge({"a": a, "b": b}, [("b", "a")], test="welch")
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert table["p"][0] == table["p_welch"][0] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (table["ci_low"][0], table["ci_high"][0]) == pytest.approx((interval.low, interval.high))
    assert judge({"a": a, "b": b}, [("b", "a")])["p_welch"][0] == pytest.approx(expected.pvalue)


def test_welchs_rule_corrects_by_holm_and_tests_equivalence():
    values = draw(10, [0, 9, 9.1, 9], n=20)
    table = judge(values, chain(values), test="welch", margin=2)
    assert list(table["verdict"]) == [HELPS, NO_EFFECT, NO_EFFECT]
    np.testing.assert_allclose(table["p_adjusted"], holm(table["p"]))


def test_equivalence_needs_a_margin_and_low_noise():
    values = draw(11, [0, 0, 0, 0, 0, 0], n=8)
    assert set(judge(values, chain(values), margin=0)["verdict"]) == {UNDECIDED}
    assert set(judge(values, chain(values), margin=0.5)["verdict"]) == {UNDECIDED}
    assert set(judge(values, chain(values), margin=4)["verdict"]) == {NO_EFFECT}


def test_each_pair_may_have_its_own_margin():
    values = draw(11, [0, 0, 0], n=8)
    assert list(judge(values, chain(values), margin=[4, 0.1])["verdict"]) == [NO_EFFECT, UNDECIDED]


def test_the_papers_means_and_deviations_get_answers():
    rungs = yaml.safe_load((REPOSITORY / "steps.yaml").read_text())["rungs"]
    printed = {rung["id"]: rung["published"]["resnet50"] for rung in rungs}
    mean = {rung: row["top1"] for rung, row in printed.items()}
    std = {rung: row.get("top1_std", math.nan) for rung, row in printed.items()}
    n = {rung: 3 if "top1_std" in row else 1 for rung, row in printed.items()}
    names = list(mean)
    pairs = [(names[new], names[old]) for new, old in ROADMAP]
    table = judge_summary(mean, std, n, pairs, margin=0.1, step=0.01).set_index("step")["verdict"]
    by_welch = judge_summary(mean, std, n, pairs, test="welch").set_index("step")["verdict"]
    assert table["increase_width"] == table["kernel_7"] == HELPS
    assert table["depthwise_conv"] == table["move_up_depthwise"] == HURTS
    assert table["gelu"] == UNDECIDED
    told = {name: answers.isin([HELPS, HURTS]).sum() for name, answers in (("shared", table), ("welch", by_welch))}
    assert told["shared"] >= told["welch"] >= 8
    assert (table["baseline"], by_welch["baseline"]) == (HELPS, NOT_TESTED)  # against a rung of one run


# Promises, held against simulation


@pytest.mark.parametrize("noise", ["equal", "4 degrees of freedom", "2 degrees of freedom"])
def test_a_ladder_with_any_false_answer_is_rare(noise):
    ladders = 80
    tally = simulate(noise, np.full(17, 3), ROADMAP, ladders, seed=1)
    most = stats.binom.ppf(0.999, ladders, 0.05) / ladders
    for scenario in ("null", "mixed 0.2", "mixed 1.0", "mixed 2.0", "edge"):
        assert tally.mean(scenario) <= most, scenario
    assert 0.93 <= tally.mean("coverage") <= 0.975
    assert np.mean(tally.power()) > 1.5 * np.mean(tally.power(", Welch"))


def test_a_rule_that_takes_noise_for_known_would_fail_that_bound():
    """The bound of the simulation is not idle: normal intervals from each rung's own deviation break it."""
    rng = np.random.default_rng(12)
    new, old = np.array(ROADMAP).T
    seeds = rng.normal(0, 1, (150, 17, 3))
    mean, se2 = seeds.mean(axis=2), seeds.var(axis=2, ddof=1) / 3
    z = np.abs(mean[:, new] - mean[:, old]) / np.sqrt(se2[:, new] + se2[:, old])
    false = (2 * stats.norm.sf(z) * len(new) <= 0.05).any(axis=1)
    assert false.sum() > stats.binom.ppf(0.999, 150, 0.05)


@few
@given(st.integers(0, 1000))
def test_the_brief_test_of_the_simulation_gives_the_answers_of_the_whole(seed):
    values = draw(seed, [0, 0, 5, 5, 9, 9, 9], n=8)
    std, n = np.array(list(summarize(values)[1].values())), np.full(7, 8.0)
    noise = learn_noise(std, n)
    contrasts = contrast(noise, n, np.arange(1, 7), np.arange(6))
    delta, margin = np.diff(list(summarize(values)[0].values())) / noise.unit, np.full(6, 3.0)
    for whole, brief in zip(
        step_down(contrasts, delta, margin, 0.05), step_down(contrasts, delta, margin, 0.05, brief=True), strict=True
    ):
        assert ((whole <= 0.05) == (brief <= 0.05)).all()
        np.testing.assert_array_equal(whole[whole <= 0.05], brief[whole <= 0.05])


def test_false_no_effects_are_counted_and_rare_with_many_seeds():
    tally = simulate("equal", np.full(9, 8), [(i, i - 1) for i in range(1, 9)], 100, seed=2)
    assert tally.mean("edge") <= stats.binom.ppf(0.999, 100, 0.05) / 100


def test_a_whole_ladder_is_judged_in_milliseconds():
    values = draw(13, [0] * 17)
    pairs = [(f"r{new}", f"r{old}") for new, old in ROADMAP]
    judge(values, pairs, margin=0.2)
    times = []
    for _ in range(15):
        start = perf_counter()
        judge(values, pairs, margin=0.2)
        times.append(perf_counter() - start)
    assert min(times) < 0.03  # ten on a quiet machine
    assert median(times) < 0.5


# More seeds


def test_the_seeds_that_a_step_needs_do_answer_it():
    means = np.array([0, 2, 2, 0, 0, 2, 2, 0, 0, 0.0])
    values = {f"r{i}": mean + np.array([-1.0, 0.0, 1.0]) for i, mean in enumerate(means)}
    needed = seeds_needed(*summarize(values), chain(values))["seeds_needed"]
    steps = np.diff(means) != 0
    assert needed[~steps].isin([math.inf]).all()
    n = int(needed[steps].max())
    assert 4 <= n <= 30
    told = [
        judge(draw(seed, means, n=n), chain(values))["verdict"].isin([HELPS, HURTS])[steps].mean() for seed in range(40)
    ]
    assert 0.65 <= np.mean(told) <= 0.97


def test_smaller_changes_need_more_seeds_and_none_needs_an_answer_within_the_margin():
    base = np.array([-1.0, 0.0, 1.0])
    values = {"a": base, "b": base + 8, "c": base + 9, "d": base + 9.0}
    table = seeds_needed(*summarize(values), chain(values), margin=1.0)
    big, small, none = table["seeds_needed"]
    assert big < small
    assert big < none < MOST_SEEDS
    assert math.isinf(seeds_needed(*summarize(values), chain(values))["seeds_needed"][2])
    assert list(table["more"]) == [max(0, n - 3) for n in table["seeds_needed"]]


def test_seeds_are_not_known_where_the_noise_is_not():
    table = seeds_needed({"a": 1.0, "b": 2.0}, {}, {"a": 1, "b": 1}, [("b", "a")])
    assert table["seeds_needed"].isna().all()


def test_more_seeds_says_how_many_steps_each_number_would_answer():
    table = more_seeds([4, math.inf, 2, 2, math.nan, 9, 0])
    assert list(zip(table["more"], table["answered"], strict=True)) == [(1, 1), (2, 3), (4, 4), (9, 5)]
    assert more_seeds([]).empty


# Single tests


def test_holms_correction_is_the_textbooks_and_skips_nan():
    np.testing.assert_allclose(holm([0.01, math.nan, 0.04, 0.03]), [0.03, math.nan, 0.06, 0.06])


def test_a_paired_test_needs_two_changes_that_differ():
    assert paired_p([1.0, 2.0, 1.5]) == pytest.approx(stats.ttest_1samp([1.0, 2.0, 1.5], 0).pvalue)
    assert math.isnan(paired_p([1.0]))
    assert math.isnan(paired_p([0.1 + 0.2, 0.3]))


def test_mcnemars_test_is_the_binomial_one():
    expected = stats.binomtest(3, 12).pvalue
    assert mcnemar_p([3], [9])[0] == pytest.approx(expected)
    assert mcnemar_p([5], [5])[0] == 1


def test_welch_needs_two_values_a_side_and_some_spread():
    se, df = welch(np.array([1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0]), np.array([3.0, 3, 1]), np.array([3.0, 3, 3]))
    np.testing.assert_allclose(se, [np.sqrt(2 / 3), np.nan, np.nan])
    np.testing.assert_allclose(two_sided_p(np.array([0.0, 1, 1]), se, df), [1, np.nan, np.nan])


def test_the_distribution_of_a_differences_noise_sums_to_one():
    noise = learn_noise(np.array([1.0, 2.0, 0.5]), np.full(3, 3.0))
    log_std, mass = deviations(noise, np.array([3.0, 1.0]), np.array([3.0, 5.0]), np.array([1, 2]), np.array([0, 1]))
    np.testing.assert_allclose(mass.sum(axis=1), 1)
    assert len(log_std) == mass.shape[1]


def test_noise_of_any_size_beside_any_other_is_judged():
    values = {"a": [0.0, 0.0], "b": [0.0, 4e-115], "c": [0.0, 0.0], "d": [0.0, 1.0]}
    judged = judge(values, [("b", "a"), ("c", "b"), ("d", "c")])
    assert list(judged["n"]) == [2, 2, 2]
