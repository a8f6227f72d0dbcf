"""Ladders whose seeds come in rounds: their answers, who gets the next seeds, and what to expect of a budget."""

import numpy as np
import pandas as pd
import pytest

from analysis.stats.allocation import FIRST_SEEDS, Stop, next_seeds
from analysis.stats.answers import Answer, judge
from analysis.stats.forecast import forecast
from analysis.stats.sequential import judge_in_rounds

MEANS = {"a": 0.0, "b": 8.0, "c": 8.0, "d": 10.0, "e": 40.0}
RUNGS = list(MEANS)
PAIRS = list(zip(RUNGS[1:], RUNGS[:-1], strict=True))
COSTS = dict.fromkeys(RUNGS, 1.0)


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


def test_without_open_steps_there_is_no_next_round():
    far = {rung: [100.0 * i + x for x in (-1.0, 0.0, 1.0)] for i, rung in enumerate(RUNGS)}
    chosen = next_seeds(far, PAIRS, looks(3), COSTS, 100)
    assert (chosen.seeds, chosen.cost, chosen.stop) == ({}, 0, Stop.ANSWERED)


@pytest.mark.parametrize("costs", [COSTS | {"a": 0.0}, {"a": 1.0}])
def test_a_rung_needs_a_cost_above_zero(costs):
    with pytest.raises(ValueError, match="costs"):
        next_seeds(draw(0, 3), PAIRS, looks(3), costs, 100)


def test_a_larger_budget_is_expected_to_answer_more():
    noise = dict.fromkeys(RUNGS, 1.0)
    told = forecast(MEANS, noise, PAIRS, COSTS, [15, 80], draws=4)
    assert list(told.curve["budget"]) == [15, 80]
    assert told.curve["answered"].is_monotonic_increasing
    assert (told.curve["spent"] <= told.curve["budget"]).all()
    assert told.steps["chance"].between(0, 1).all()
    assert told.steps.set_index("step")["chance"]["e"] == 1
    assert (forecast(MEANS, noise, PAIRS, COSTS, [15], draws=4, equal_seeds=True).curve["runs"] == 15).all()
