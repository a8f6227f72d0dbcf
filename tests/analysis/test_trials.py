"""The trials over the bank of real runs and over rounds: they ask what the program asks, and count rightly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.stats.answers import Answer, judge
from benchmarks import bank, hindsight, oracle, power, rounds
from benchmarks.real_ladders import bank_sizes, draw_like, paper_sizes, read_bank, read_paper, roadmap_pairs

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
    assert [line.count("|") for line in text.splitlines() if line.startswith(("| 3 |", "| 5 |"))] == [4, 4, 4]
    assert all(f"| {step} |" in text for step, _ in roadmap_pairs())


def test_more_seeds_answer_more_steps():
    assert bank.answered(BANK, 3, 20) < bank.answered(BANK, 12, 20)


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


@pytest.fixture(scope="module")
def tally() -> rounds.Tally:
    return rounds.State(None).count("the bank", 2)


def test_a_trial_of_rounds_spends_no_more_than_it_may_and_its_answers_grow(tally):
    assert (np.diff(tally.by_runs) >= 0).all() or tally.false
    assert tally.by_runs[: 3 * len(rounds.RUNGS)] == [0] * 3 * len(rounds.RUNGS)
    assert tally.by_runs[-1] > tally.by_seeds[0]
    assert 0 < tally.ratios()[3] < 3


def test_an_oracle_takes_fewer_runs_than_rounds_for_as_many_answers(tally):
    assert np.mean(tally.ratios(oracle=True)[:4]) < np.mean(tally.ratios()[:4])


def test_an_oracle_gives_its_seeds_to_steps_that_change_something():
    edges = ((1, 0), (2, 1), (3, 2))
    path = oracle.Oracle(edges, "equal", 0.2).path(np.array([1.5, 0.0, 0.0]), np.ones(4), 2, 40)
    runs = [seeds.sum() for seeds in path]
    assert runs == sorted(set(runs))
    assert runs[-1] <= 40
    assert min(path[-1][:2]) > 2
    assert list(path[-1][2:]) == [2, 2]


def test_a_trial_that_was_stopped_goes_on_and_counts_what_one_at_a_time_does(tmp_path):
    name = "equal noise, no change"
    rounds.State(tmp_path / "state.json").count(name, 1)
    again = rounds.State(tmp_path / "state.json")
    assert again.tallies[name].ladders == 1
    assert (
        again.count(name, 2) == rounds.State(None).count(name, 2) == rounds.State(tmp_path / "state.json").tallies[name]
    )


def test_rows_of_a_bank_that_has_grown_begin_anew_and_others_go_on(tmp_path):
    state = rounds.State(None)
    for name in ("the bank, no change", "equal noise, no change"):
        state.tallies[name] = rounds.Tally(bank=1, ladders=5)
        assert state.count(name, 1).ladders == (1 if "bank" in name else 5)


def test_values_like_the_banks_have_its_mean_and_deviation_and_none_comes_twice():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    drawn = draw_like(values, 40_000, np.random.default_rng(0))
    assert len(set(drawn)) == len(drawn)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.1)
    assert drawn.std() == pytest.approx(values.std(ddof=1), rel=0.02)


def test_a_forecast_in_hindsight_has_a_row_for_each_budget_and_more_answers_for_more(monkeypatch):
    monkeypatch.setattr(hindsight, "BUDGETS", (60, 80))
    study = hindsight.draw_study(np.random.default_rng(0))
    assert {len(seeds) for seeds in study.values()} == {hindsight.MOST_SEEDS}
    then = hindsight.happened(study, 3)
    assert 0 <= then[0] <= then[1] <= len(hindsight.PAIRS)
    assert len(hindsight.rows(3, 1, 1)) == 2
