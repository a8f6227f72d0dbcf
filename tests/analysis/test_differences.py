"""Differences of a step's effects in two studies: from arrays to answers."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtr

import analysis
from analysis.stats._noise import learn_noise
from analysis.stats._shared_runs import group_runs
from analysis.stats._study_contrasts import Asked, study_contrasts
from analysis.stats.differences import Other, Summary, Worth, compare_effects, compare_studies

PAIRS = [("b", "a"), ("c", "b"), ("d", "c"), ("e", "c")]
RUNGS = "abcde"
Study = dict[str, Any]


def study(seed: int, effects: dict[str, float] | None = None, n: int = 4, scale: float = 1.0) -> Study:
    """Return normal values, each step's rung higher by its effect than the one before it."""
    rng, mean = np.random.default_rng(seed), {"a": 70.0}
    for step, against in PAIRS:
        mean[step] = mean[against] + (effects or {}).get(step, 0.0)
    return {rung: mean[rung] + scale * rng.standard_normal(n) for rung in RUNGS}


def named(values: Study, name: str) -> Study:
    """Return a study whose runs have names."""
    return {rung: {f"{name}-{rung}-{i}": x for i, x in enumerate(own)} for rung, own in values.items()}


def test_a_difference_is_the_effect_here_less_that_there() -> None:
    here, there = study(0, {"b": 3.0}), study(1)
    table = compare_effects(here, there, PAIRS).set_index("step")
    for step, against in PAIRS:
        row = table.loc[step]
        assert row["effect"] == pytest.approx(here[step].mean() - here[against].mean())
        assert row["effect_there"] == pytest.approx(there[step].mean() - there[against].mean())
        assert row["difference"] == pytest.approx(row["effect"] - row["effect_there"])
        assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert analysis.compare_effects is compare_effects


def test_a_step_is_worth_more_where_its_effect_is_better() -> None:
    here, there = study(0, {"b": 30.0, "c": -30.0}), study(1)
    higher, lower = (compare_effects(here, there, PAIRS, better=better) for better in (1, -1))
    assert list(higher["verdict"][:2]) == [Worth.MORE_HERE, Worth.MORE_THERE]
    assert list(lower["verdict"][:2]) == [Worth.MORE_THERE, Worth.MORE_HERE]


def test_effects_that_differ_by_less_than_the_margin_are_the_same() -> None:
    table = compare_effects(study(0, n=8), study(1, n=8), PAIRS, margin=30.0)
    assert set(table["verdict"]) == {Worth.SAME}
    assert (table["p_same"] < 0.05).all()


def test_a_step_may_come_after_another_rung_there() -> None:
    there = study(1) | {"x": np.array([60.0, 60.5, 61.0])}
    table = compare_effects(study(0), there, [("b", "a")], [("b", "x")])
    assert table.loc[0, "against_there"] == "x"
    assert table.loc[0, "effect_there"] == pytest.approx(there["b"].mean() - 60.5)


# -- runs that both studies have


def test_a_study_against_itself_has_nothing_to_test() -> None:
    values = named(study(0, {"b": 3.0}), "run")
    table = compare_effects(values, values, PAIRS)
    assert table["same_runs"].all()
    assert (table["difference"] == 0).all()
    assert set(table["verdict"]) == {Worth.NOT_TESTED}


def test_ladders_that_meet_differ_in_the_steps_before_alone() -> None:
    here, other = named(study(0), "here"), named(study(1), "there")
    there = {rung: here[rung] if rung in "cde" else other[rung] for rung in RUNGS}
    table = compare_effects(here, there, PAIRS).set_index("step")
    assert list(table.index[table["same_runs"]]) == ["d", "e"]
    own, apart = compare_effects(here, there, PAIRS).set_index("step").loc["c"], study(1)
    error = own["ci_high"] - own["ci_low"]
    whole = compare_effects(study(0), {rung: apart[rung] for rung in RUNGS}, PAIRS).set_index("step").loc["c"]
    assert error < 0.85 * (whole["ci_high"] - whole["ci_low"])  # two rungs' noise in place of four


def test_the_more_runs_are_shared_the_surer_is_the_difference() -> None:
    here, other = named(study(0), "here"), named(study(1), "there")
    widths = []
    for shared in range(5):
        there = {
            rung: dict([*list(here[rung].items())[:shared], *list(other[rung].items())[shared:]]) for rung in RUNGS
        }
        row = compare_effects(here, there, [("b", "a")]).iloc[0]
        assert row["same_runs"] == (shared == 4)
        widths.append(row["ci_high"] - row["ci_low"])
    assert np.isnan(widths.pop())
    assert all(later < 1.05 * former for former, later in pairwise(widths))
    assert widths[3] < 0.75 * widths[0]


def test_a_rungs_noise_says_nothing_of_the_difference_of_its_shared_and_its_own_runs() -> None:
    here = {"a": {"x": 1.0, "y": 1.2, "z": 9.0}, "b": {"p": 5.0, "q": 5.1}}
    there = {"a": {"x": 1.0, "y": 1.2}, "b": {"r": 5.0, "s": 5.3}}
    groups = group_runs([here, there])
    assert list(groups.df) == [1, 1, 1, 1]  # x and y together; z alone has none
    assert groups.std[0] == groups.std[2] == pytest.approx(np.std([1.0, 1.2], ddof=1))
    assert list(groups.mean) == pytest.approx([11.2 / 3, 5.05, 1.1, 5.15])


def test_runs_without_names_are_a_studys_own() -> None:
    values = study(0)
    assert not compare_effects(values, values, PAIRS)["same_runs"].any()


@pytest.mark.parametrize(
    ("here", "there", "pairs", "options", "said"),
    [
        ({"a": {0: 1.0}, "b": [1.0]}, {"a": [1.0], "b": [1.0]}, [("b", "a")], {}, "Seeds are no names"),
        ({"a": {"r": 1.0}, "b": [1.0]}, {"a": {"r": 2.0}, "b": [1.0]}, [("b", "a")], {}, "run 'r' has two values"),
        ({"a": [1.0], "b": [1.0]}, {"a": [1.0]}, [("b", "a")], {}, "unknown rung 'b'"),
        ({"a": [1.0]}, {"a": [1.0]}, [("a", "a")], {}, "cannot be compared with itself"),
        ({"a": [1.0]}, {"a": [1.0]}, [], {"pairs_there": [("a", "b")]}, "0 pairs here and 1 there"),
        ({"a": [1.0]}, {"a": [1.0]}, [], {"margin": -1.0}, "margin: zero or more"),
        ({"a": [1.0]}, {"a": [1.0]}, [], {"better": 0}, "better: 1 where"),
        ({"a": [1.0]}, {"a": [1.0]}, [], {"alpha": 1.0}, "alpha: a probability"),
        ({"a": [1.0]}, {"a": [1.0]}, [], {"test": "t"}, "test: 'shared' or 'welch'"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    here: Study, there: Study, pairs: list[tuple[str, str]], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        compare_effects(here, there, pairs, **options)


# -- the rule


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-3, 1.0, 1e4]), st.floats(0.05, 5))
def test_neither_the_unit_nor_the_order_of_the_studies_changes_what_is_said(
    seed: int, unit: float, scale: float
) -> None:
    here, there = study(seed, {"b": 4.0}), study(seed + 1, {"d": 2.0}, n=3, scale=scale)
    first = compare_effects(here, there, PAIRS, margin=1.0)
    scaled = [{rung: unit * values for rung, values in side.items()} for side in (here, there)]
    other = compare_effects(*scaled, PAIRS, margin=unit)
    swapped = compare_effects(there, here, PAIRS, margin=1.0)
    assert other["difference"].to_numpy() / unit == pytest.approx(first["difference"].to_numpy())
    assert np.log(other["p"]).to_numpy() == pytest.approx(np.log(first["p"]).to_numpy(), rel=1e-3, abs=1e-3)
    assert swapped["difference"].to_numpy() == pytest.approx(-first["difference"].to_numpy())
    assert np.log(swapped["p"]).to_numpy() == pytest.approx(np.log(first["p"]).to_numpy(), rel=0.02, abs=0.02)


def test_the_draws_of_errors_have_the_tails_that_are_summed() -> None:
    here, there = named(study(0), "here"), named(study(1, n=3, scale=0.3), "there")
    there["c"] |= dict(list(here["c"].items())[:2])
    asked = Asked.of(group_runs([here, there]), [Other(there, PAIRS, PAIRS)])
    noises = [
        learn_noise(asked.groups.std[asked.groups.of(k)], asked.groups.df[asked.groups.of(k)] + 1) for k in (0, 1)
    ]
    contrasts = study_contrasts(asked, noises, np.arange(len(PAIRS)), 1.0)
    for share in (0.3, 0.05):
        beyond = np.abs(contrasts.errors) > contrasts.threshold(np.log(np.array(share)))[:, None]
        assert beyond.mean(axis=1) == pytest.approx(np.full(len(PAIRS), share), abs=0.02)


def test_few_comparisons_of_studies_with_the_same_effects_have_a_false_answer() -> None:
    effects, false = {"b": 8.0, "c": -3.0, "d": 1.0}, 0
    for seed in range(150):
        table = compare_effects(study(2 * seed, effects, 3), study(2 * seed + 1, effects, 3, 0.4), PAIRS, margin=0.1)
        false += table["verdict"].isin([Worth.MORE_HERE, Worth.MORE_THERE]).any()
    assert false <= 14  # 5% are 7.5; more than 14 of 150 would come once in 100 times


def test_all_differences_of_several_studies_are_one_family() -> None:
    here, others = study(0, {"b": 6.0}), [study(seed) for seed in (1, 2, 3)]
    (alone,) = compare_studies(here, [Other(others[0], PAIRS, PAIRS)])
    together = compare_studies(here, [Other(other, PAIRS, PAIRS) for other in others])
    assert len(together) == 3
    assert together[0]["p"].to_numpy() == pytest.approx(alone["p"].to_numpy(), rel=0.02)
    clear = alone["p_adjusted"] < 0.9
    assert (together[0]["p_adjusted"][clear] >= alone["p_adjusted"][clear]).all()


def test_printed_numbers_are_less_sure_than_what_they_were_printed_from() -> None:
    here, there = study(0), study(1, scale=0.02)
    mean = {rung: round(float(x.mean()), 1) for rung, x in there.items()}
    std = {rung: round(float(x.std(ddof=1)), 1) for rung, x in there.items()}
    printed = Summary(mean, std, dict.fromkeys(RUNGS, 4), step=0.1)
    widths = [
        (table["ci_high"] - table["ci_low"]).to_numpy()
        for table in (
            compare_effects(study(0, scale=0.02), there, PAIRS),
            compare_effects(study(0, scale=0.02), printed, PAIRS),
        )
    ]
    assert (widths[1] > widths[0]).all()
    assert compare_effects(here, printed, PAIRS)["p"].notna().all()


def test_welchs_test_is_that_of_four_groups() -> None:
    here, there = study(0), study(1, n=3, scale=3.0)
    row = compare_effects(here, there, PAIRS, test="welch").iloc[0]
    groups = [here["b"], here["a"], there["b"], there["a"]]
    parts = np.array([x.var(ddof=1) / len(x) for x in groups])
    df = parts.sum() ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, groups, strict=True))
    assert row["p"] == pytest.approx(2 * stdtr(df, -abs(row["difference"]) / parts.sum() ** 0.5))
    assert row["p_adjusted"] == pytest.approx(min(1.0, 4 * row["p"]), rel=0.5)
    assert row["ci_low"] < row["difference"] < row["ci_high"]


def test_a_study_without_any_spread_is_not_tested_but_its_differences_are_there() -> None:
    one = {rung: values[:1] for rung, values in study(1).items()}
    table = compare_effects(study(0), one, PAIRS)
    assert set(table["verdict"]) == {Worth.NOT_TESTED}
    assert table["difference"].notna().all()
    missing = compare_effects(study(0), study(1) | {"d": np.zeros(0)}, PAIRS).set_index("step")
    assert missing.loc["d", "verdict"] == Worth.NOT_TESTED
    assert pd.isna(missing.loc["d", "difference"])
    assert missing.loc["b", "verdict"] != Worth.NOT_TESTED
