"""The trials over the bank of real runs and over rounds: they ask what the program asks, and count rightly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.stats.answers import Answer, judge
from benchmarks import bank, power, rounds
from benchmarks.real_ladders import bank_sizes, paper_sizes, read_bank, read_paper, roadmap_pairs

BANK = read_bank()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 3, 5]))
def test_the_quick_answers_of_the_trials_are_those_of_judge(seed, n):
    rng = np.random.default_rng(seed)
    values = {rung: rng.choice(some, n, replace=False) for rung, some in BANK.items()}
    pairs = roadmap_pairs()
    assert bank.answers_of(values, pairs) == list(judge(values, pairs, margin=bank.MARGIN)["verdict"])


def test_disjoint_sets_share_no_seed_and_rungs_with_too_few_are_left_out():
    some = {"many": np.arange(6.0), "few": np.arange(10.0, 15.0)}
    sets, pairs = bank.disjoint_sets(some, 3, np.random.default_rng(0))
    assert pairs == [("many 2", "many 1")]
    assert sorted([*sets["many 1"], *sets["many 2"]]) == list(range(6))


def test_the_ladders_own_steps_change_nothing_in_the_mean():
    some = {"a": np.array([1.0, 3.0]), "b": np.array([10.0, 10.0])}
    values, pairs = bank.own_steps(some, 50, np.random.default_rng(0))
    assert set(values["a"]) == {-1.0, 1.0}
    assert set(values["b"]) == {0.0}
    assert pairs == roadmap_pairs()


def test_the_tables_over_the_bank_have_a_row_for_each_number_of_seeds_and_each_step():
    text = bank.tables(2, [3, 5])
    assert [line.count("|") for line in text.splitlines() if line.startswith(("| 3 |", "| 5 |"))] == [4, 4]
    assert all(f"| {step} |" in text for step, _ in roadmap_pairs())


def test_sampling_errors_are_taken_from_the_sizes_of_real_changes():
    assert (bank_sizes() == 0).any()
    assert 2 < bank_sizes().max() < 8
    mean, std = read_paper()
    widest = (mean["increase_width"] - mean["depthwise_conv"]) / np.sqrt(np.nanmean(np.square(list(std.values()))))
    assert paper_sizes().max() < widest


def test_an_oracle_tells_no_less_than_the_rule_and_both_more_than_welch():
    found = power.simulate("equal", 3, 25)["1 to 6"]
    assert found["oracle"] > found["ours"] > found["Welch"]


@pytest.mark.parametrize(
    ("answers", "right", "false"),
    [
        ([Answer.HELPS, Answer.HURTS, Answer.NO_EFFECT], 3, False),
        ([Answer.HURTS, Answer.UNDECIDED, Answer.NO_EFFECT], 1, True),
        ([Answer.NO_EFFECT, Answer.NOT_TESTED, Answer.HELPS], 0, True),
    ],
)
def test_a_trial_counts_what_is_right_and_whether_anything_is_false(answers, right, false):
    assert rounds.right_and_false(answers, np.array([2.0, -2.0, 0.0])) == (right, false)


def test_a_trial_of_rounds_spends_no_more_than_it_may_and_its_answers_grow():
    tally = rounds.simulate(rounds.SCENARIOS["the bank"], 2)
    assert (np.diff(tally.by_runs) >= 0).all() or tally.false
    assert (tally.by_runs[:50] == 0).all()
    assert tally.by_runs[-1] > tally.by_seeds[0]
    assert 0 < tally.ratio(3) < 3
