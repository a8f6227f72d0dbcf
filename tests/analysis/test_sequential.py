"""Ladders whose seeds come in rounds: their answers, who gets the next seeds, and what to expect of a budget."""

from statistics import median
from time import process_time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.stats._contrasts import contrast, step_down
from analysis.stats._noise import learn_noise
from analysis.stats.allocation import FIRST_SEEDS, Stop, next_round, next_seeds
from analysis.stats.answers import Answer, judge
from analysis.stats.forecast import forecast, likely_means, noise_of_rungs
from analysis.stats.sequential import ANSWERED, MOST_SEEDS, Rounds, judge_in_rounds
from benchmarks.rounds import COSTS as ROADMAP_COSTS
from benchmarks.rounds import PAIRS as ROADMAP_PAIRS

MEANS = {"a": 0.0, "b": 8.0, "c": 8.0, "d": 10.0, "e": 40.0}
RUNGS = list(MEANS)
PAIRS = list(zip(RUNGS[1:], RUNGS[:-1], strict=True))
COSTS = dict.fromkeys(RUNGS, 1.0)


few = settings(max_examples=15, deadline=None)


def draw(seed, n):
    rng = np.random.default_rng(seed)
    return {rung: list(rng.normal(mean, 1, n)) for rung, mean in MEANS.items()}


def looks(*seeds):
    return [dict.fromkeys(RUNGS, n) for n in seeds]


def test_one_look_is_judged_at_less_than_alpha_because_more_may_come():
    values = draw(0, 3)
    alone, first = judge(values, PAIRS), judge_in_rounds(values, PAIRS, looks(3))
    assert (first["p_adjusted"] >= alone["p_adjusted"]).all()
    assert ((first["ci_high"] - first["ci_low"]) > (alone["ci_high"] - alone["ci_low"])).all()


def test_an_answer_stays_and_says_at_which_look_it_was_given():
    values = draw(1, 3)
    late = {
        rung: [*some, *(np.array(some) if rung == "a" else np.array(some) - MEANS[rung])]
        for rung, some in values.items()
    }
    first, second = judge_in_rounds(late, PAIRS, looks(3)), judge_in_rounds(late, PAIRS, looks(3, 6))
    told = first["verdict"] != Answer.UNDECIDED
    assert told.any()
    assert (second["verdict"][told] == first["verdict"][told]).all()
    assert (second["look"][told] == 1).all()
    assert (first["look"][~told] == 0).all()


@few
@given(st.integers(0, 1000), st.lists(st.integers(0, 4), min_size=2, max_size=5))
def test_no_later_look_changes_an_answer_and_none_is_lost(seed, steps):
    seeds = list(np.cumsum([2, *steps]))
    values = draw(seed, seeds[-1])
    before = None
    for k in range(1, len(seeds) + 1):
        now = judge_in_rounds(values, PAIRS, looks(*seeds[:k]), margin=1)
        if before is not None:
            given_before = before["look"] > 0
            pd.testing.assert_frame_equal(
                now[given_before][["verdict", "look"]], before[given_before][["verdict", "look"]]
            )
            assert (now["look"][~given_before].isin([0, k])).all()
        assert (now["verdict"].isin(ANSWERED) == (now["look"] > 0)).all()
        told = now["verdict"].isin([Answer.HELPS, Answer.HURTS])
        assert ((now["p_adjusted"] <= 0.05) == told).all()
        before = now


@few
@given(st.integers(0, 1000))
def test_to_look_again_at_the_same_seeds_costs_nothing(seed):
    values = draw(seed, 9)
    once, often = (judge_in_rounds(values, PAIRS, looks(*seeds), margin=1) for seeds in ([3, 9], [3, 3, 3, 9]))
    assert list(once["verdict"]) == list(often["verdict"])
    pd.testing.assert_series_equal(once["p_adjusted"], often["p_adjusted"])


def test_with_more_than_the_most_seeds_nothing_is_tested():
    values = {rung: list(np.array(some) % 1.0) for rung, some in draw(5, 20).items()}
    late = {rung: [*some, *(MEANS[rung] + np.array(some))] for rung, some in values.items()}
    assert set(judge_in_rounds(late, PAIRS, looks(20, 40), most_seeds=20)["look"]) == {0}
    assert set(judge_in_rounds(late, PAIRS, looks(20, 40), most_seeds=40)["look"]) != {0}


def test_whole_shares_and_no_earlier_answers_are_the_rule_for_one_look():
    std, n = np.array([1.0, 2.0, 0.5, 1.0]), np.full(4, 4.0)
    contrasts = contrast(learn_noise(std, n), n, np.arange(1, 4), np.arange(3))
    delta, margin = np.array([3.0, 0.2, -1.5]), np.full(3, 0.5)
    plain = step_down(contrasts, delta, margin, 0.05)
    whole = step_down(contrasts, delta, margin, 0.05, told=np.zeros(3, dtype=bool), share=np.ones(3))
    np.testing.assert_array_equal(plain, whole)
    _, less, _ = step_down(contrasts, delta, margin, 0.05, told=np.array([True, False, False]), share=np.ones(3))
    assert (less[1:] <= plain[1][1:]).all()
    _, none, _ = step_down(contrasts, delta, margin, 0.05, share=np.array([0.0, 0.5, 0.5]))
    assert none[0] == 1


def test_a_ladder_without_changes_rarely_gets_an_answer_at_any_look():
    rng, false, ladders = np.random.default_rng(6), 0, 60
    for _ in range(ladders):
        values = {rung: rng.normal(0, 1, MOST_SEEDS) for rung in RUNGS}
        rounds = Rounds(PAIRS)
        for n in (3, 6, 12, 24, MOST_SEEDS):
            rounds.look({rung: some[:n] for rung, some in values.items()}, brief=True)
        false += not rounds.open.all()
    assert false <= stats.binom.ppf(0.999, ladders, 0.05)


def test_values_after_the_last_look_are_not_used():
    values = draw(2, 9)
    early = {rung: some[:4] for rung, some in values.items()}
    pd.testing.assert_frame_equal(
        judge_in_rounds(values, PAIRS, looks(3, 4)), judge_in_rounds(early, PAIRS, looks(3, 4))
    )


@pytest.mark.parametrize(
    ("seeds", "message"), [([], "at least one"), ([3, 2], "look 2: 2 seeds of 'a'"), ([9], "are 3")]
)
def test_looks_that_cannot_have_been_are_refused(seeds, message):
    with pytest.raises(ValueError, match=message):
        judge_in_rounds(draw(0, 3), PAIRS, looks(*seeds))


def test_the_first_round_is_the_same_for_all_rungs():
    assert next_seeds({}, PAIRS, [], COSTS, 100).seeds == dict.fromkeys(RUNGS, FIRST_SEEDS)
    assert next_seeds({}, PAIRS, [], COSTS, 10).seeds == dict.fromkeys(RUNGS, 2)
    assert next_seeds({}, PAIRS, [], COSTS, 9).stop == Stop.SPENT


def test_answered_steps_get_no_more_seeds():
    values = draw(3, FIRST_SEEDS)
    chosen = next_seeds(values, PAIRS, looks(FIRST_SEEDS), COSTS, 200)
    answered = chosen.steps["verdict"].isin([Answer.HELPS, Answer.HURTS])
    assert answered.any()
    assert not chosen.steps["funded"][answered].any()
    wanted = {rung for pair, funded in zip(PAIRS, chosen.steps["funded"], strict=True) if funded for rung in pair}
    assert chosen.seeds
    assert set(chosen.seeds) <= wanted


def test_no_round_costs_more_than_what_is_left():
    costs = COSTS | {"c": 7.0}
    for budget in (0.5, 3, 8, 20, 100):
        chosen = next_seeds(draw(4, 3), PAIRS, looks(3), costs, budget)
        assert chosen.cost == pytest.approx(sum(costs[rung] * more for rung, more in chosen.seeds.items()))
        assert chosen.cost <= budget + 1e-9
        assert (chosen.stop is None) == bool(chosen.seeds)


@few
@given(st.integers(0, 1000), st.lists(st.floats(0.1, 9), min_size=5, max_size=5), st.floats(0, 200))
def test_a_round_is_paid_for_and_goes_to_open_steps_alone(seed, prices, budget):
    costs = dict(zip(RUNGS, prices, strict=True))
    chosen = next_seeds(draw(seed, 3), PAIRS, looks(3), costs, budget, margin=0.5)
    assert sum(costs[rung] * more for rung, more in chosen.seeds.items()) <= budget * (1 + 1e-6)
    assert all(1 <= more <= 3 for more in chosen.seeds.values())  # no more than twice as many
    open_rungs = {rung for pair, look in zip(PAIRS, chosen.steps["look"], strict=True) if not look for rung in pair}
    assert set(chosen.seeds) <= open_rungs
    assert (chosen.stop is None) == bool(chosen.seeds)


def test_of_a_steps_two_rungs_the_noisier_and_the_cheaper_one_gets_more_seeds():
    spread = np.array([-1.2, -0.6, -0.3, 0, 0, 0.3, 0.6, 1.2])
    noisy = {"a": 4 * spread, "b": 2 + 0.3 * spread}
    alike = {"a": 3 * spread, "b": 2 + 3 * spread}
    for values, costs in ((noisy, {"a": 1.0, "b": 1.0}), (alike, {"a": 1.0, "b": 25.0})):
        chosen = next_seeds(values, [("b", "a")], [dict.fromkeys(values, 8)], costs, 400)
        assert chosen.seeds["a"] > chosen.seeds.get("b", 0)


def test_a_step_that_cannot_be_answered_with_what_is_left_gets_nothing():
    base = [-1.0, 0.0, 1.0, 0.5, -0.5] * 4
    same = {"a": base, "b": [x + 0.01 for x in base]}
    chosen = next_seeds(same, [("b", "a")], [dict.fromkeys(same, 20)], dict.fromkeys(same, 1.0), 4)
    assert chosen.stop == Stop.HOPELESS
    assert chosen.steps["chance"][0] < 0.05


def test_a_round_of_the_whole_ladder_is_chosen_in_a_fraction_of_a_second():
    rng = np.random.default_rng(8)
    rounds = Rounds(ROADMAP_PAIRS)
    rounds.look({rung: rng.normal(0, 1, 3) for rung in ROADMAP_COSTS})
    times = []
    for _ in range(5):
        start = process_time()
        assert next_round(rounds, ROADMAP_COSTS, 200).seeds
        times.append(process_time() - start)
    assert median(times) < 0.1


def test_without_open_steps_there_is_no_next_round():
    far = {rung: [100.0 * i + x for x in (-1.0, 0.0, 1.0)] for i, rung in enumerate(RUNGS)}
    chosen = next_seeds(far, PAIRS, looks(3), COSTS, 100)
    assert (chosen.seeds, chosen.cost, chosen.stop) == ({}, 0, Stop.ANSWERED)


@pytest.mark.parametrize("costs", [COSTS | {"a": 0.0}, {"a": 1.0}])
def test_a_rung_needs_a_cost_above_zero(costs):
    with pytest.raises(ValueError, match="costs"):
        next_seeds(draw(0, 3), PAIRS, looks(3), costs, 100)


def likely(seeds, mean=MEANS, draws=2000):
    rng, noise = np.random.default_rng(0), dict.fromkeys(mean, 1.0)
    some = [likely_means(mean, noise, dict.fromkeys(mean, seeds), PAIRS, rng) for _ in range(draws)]
    return pd.DataFrame(some)[list(mean)]


def test_what_few_seeds_show_is_drawn_uncertain_and_what_many_show_as_it_is():
    few, many = likely(3), likely(3000)
    assert few.std().between(0.3, 1.1 * np.sqrt(1 / 3)).all()
    np.testing.assert_allclose(many.mean(), pd.Series(MEANS), atol=0.01)
    assert (many.std() < 0.03).all()


def test_changes_of_few_seeds_are_drawn_smaller_than_they_were_seen():
    seen = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 1.0, "e": 0.0}
    drawn = likely(3, seen).mean()
    assert all(abs(drawn[new] - drawn[old]) < 1 for new, old in PAIRS)


def test_means_without_noise_are_taken_as_they_are():
    none, rng = dict.fromkeys(RUNGS, 0.0), np.random.default_rng(0)
    assert likely_means(MEANS, none, dict.fromkeys(RUNGS, 3), PAIRS, rng) == MEANS


def test_of_a_step_of_which_one_rung_has_no_mean_no_noise_is_known():
    mean, std = {"a": 10.0, "b": 12.0, "c": float("nan")}, {"a": 1.0, "b": 1.0}
    assert set(noise_of_rungs(mean, std, {"a": 3, "b": 3}, [("b", "a"), ("c", "b")])) == {"a", "b"}


def test_a_larger_budget_is_expected_to_answer_more():
    noise = dict.fromkeys(RUNGS, 1.0)
    told = forecast(MEANS, noise, PAIRS, COSTS, [15, 80], draws=4)
    assert list(told.curve["budget"]) == [15, 80]
    assert told.curve["answered"].is_monotonic_increasing
    assert (told.curve["spent"] <= told.curve["budget"]).all()
    assert told.steps["chance"].between(0, 1).all()
    assert told.steps.set_index("step")["chance"]["e"] == 1
    assert (forecast(MEANS, noise, PAIRS, COSTS, [15], draws=4, equal_seeds=True).curve["runs"] == 15).all()
