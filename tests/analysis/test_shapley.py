import math
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.run_frames import collect
from analysis.stats.shapley import SHAPLEY_COLUMNS, interaction, shapley
from roadmap.ladder.designs import Design, Order
from roadmap.study.spec import StudySpec, plan_study
from tests.samples import PAPER

STEPS = "abc"
SUBSETS = ["".join(s for i, s in enumerate(STEPS) if bits >> i & 1) for bits in range(2 ** len(STEPS))]
Runs = Mapping[str, Sequence[float | str]]


def frame_of(runs: Runs) -> pd.DataFrame:
    """Return a frame of runs: for each rung a top-1 (finished) or a state for each seed."""
    rows = [
        {"rung": rung, "seed": seed, "state": value if isinstance(value, str) else "finished", "top1": value}
        for rung, values in runs.items()
        for seed, value in enumerate(values)
    ]
    frame = pd.DataFrame(rows, columns=["rung", "seed", "state", "top1"])
    return frame.assign(top1=pd.to_numeric(frame["top1"], errors="coerce"))


def order_of(steps: Sequence[str]) -> Order:
    """Return an order whose rungs are named by their steps, in alphabetical order; "none" is the base."""
    return Order(tuple(steps), tuple("".join(sorted(steps[:n])) or "none" for n in range(len(steps) + 1)))


def values_of(runs: Runs, orders: Sequence[Order]) -> dict[str, float]:
    return dict(shapley(frame_of(runs), orders).set_index("step")["value"])


ALL_ORDERS = [order_of(steps) for steps in permutations(STEPS)]
GAME = {  # c does nothing, a and b do more together
    "none": [70.0], "a": [71.0], "b": [72.0], "c": [70.0], "ab": [76.0], "ac": [71.0], "bc": [72.0], "abc": [76.0]
}  # fmt: skip

top1s = st.lists(st.floats(0, 100), min_size=1, max_size=3)
games = st.fixed_dictionaries({subset or "none": top1s for subset in SUBSETS})
some_orders = st.lists(st.sampled_from(ALL_ORDERS), min_size=1, max_size=8)


# -- Shapley values


def test_the_value_is_the_mean_change_over_orders() -> None:
    assert values_of(GAME, ALL_ORDERS) == pytest.approx({"b": 3.5, "a": 2.5, "c": 0.0})
    assert values_of(GAME, [order_of("abc"), order_of("acb")]) == pytest.approx({"a": 1.0, "b": 5.0, "c": 0.0})
    table = shapley(frame_of(GAME), ALL_ORDERS)
    assert list(table.columns) == list(SHAPLEY_COLUMNS)
    assert table["step"].to_list() == ["b", "a", "c"]  # the largest first
    assert table["n_orders"].to_list() == [6, 6, 6]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(runs=games, orders=some_orders)
def test_the_values_of_all_steps_sum_up_to_what_all_steps_do(runs: Runs, orders: list[Order]) -> None:
    total = np.mean(runs["abc"]) - np.mean(runs["none"])
    assert sum(values_of(runs, orders).values()) == pytest.approx(total, abs=1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(runs=games)
def test_steps_that_do_the_same_in_any_company_have_the_same_value(runs: dict[str, Any]) -> None:
    runs |= {"b": runs["a"], "bc": runs["ac"]}
    values = values_of(runs, ALL_ORDERS)
    assert values["a"] == pytest.approx(values["b"], abs=1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(runs=games, orders=some_orders)
def test_a_step_that_never_changes_anything_has_no_value_and_no_error(
    runs: dict[str, Any], orders: list[Order]
) -> None:
    same = {"c": "none", "ac": "a", "bc": "b", "abc": "ab"}  # the same networks, so the same rungs
    orders = [Order(order.steps, tuple(same.get(rung, rung) for rung in order.rungs)) for order in orders]
    table = shapley(frame_of(runs), orders).set_index("step")
    expected = [0.0, 0.0, 0.0, 0.0] if len(orders) > 1 else [0.0, math.nan, math.nan, math.nan]
    assert table.loc["c", ["value", "se", "ci_low", "ci_high"]].to_list() == pytest.approx(expected, nan_ok=True)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(runs=games, other=games, orders=some_orders)
def test_values_of_a_sum_are_the_sum_of_values(runs: Runs, other: Runs, orders: list[Order]) -> None:
    means = [{rung: [float(np.mean(values))] for rung, values in game.items()} for game in (runs, other)]
    summed = {rung: [means[0][rung][0] + means[1][rung][0]] for rung in means[0]}
    parts = [values_of(game, orders) for game in means]
    for step, value in values_of(summed, orders).items():
        assert value == pytest.approx(parts[0][step] + parts[1][step], abs=1e-9)


def test_where_orders_share_no_rung_the_error_is_that_of_the_mean_over_orders() -> None:
    orders = [Order(("a",), (f"before{i}", f"after{i}")) for i in range(4)]
    changes = [1.0, 2.0, 4.0, 3.0]
    runs = {f"before{i}": [70.0, 71.0] for i in range(4)} | {
        f"after{i}": [70 + c, 71 + c] for i, c in enumerate(changes)
    }
    (row,) = shapley(frame_of(runs), orders).to_dict("records")
    assert (row["value"], row["se"]) == pytest.approx((2.5, stats.sem(changes)))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(stats.t.interval(0.95, 3, 2.5, stats.sem(changes)))


def test_where_all_orders_are_the_same_the_error_is_that_of_two_means_over_seeds() -> None:
    base, step = [70.0, 71.0, 73.0], [74.0, 74.5, 74.8, 76.0]
    (row,) = shapley(frame_of({"none": base, "a": step}), [order_of("a")] * 5).to_dict("records")
    welch = stats.ttest_ind(step, base, equal_var=False)
    assert row["value"] == pytest.approx(np.mean(step) - np.mean(base))
    assert row["se"] == pytest.approx(math.sqrt(np.var(base, ddof=1) / 3 + np.var(step, ddof=1) / 4))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(welch.confidence_interval(0.95)))


def test_the_standard_error_is_that_of_studies_made_again_and_again() -> None:
    rng = np.random.default_rng(0)
    truth = {rung: values[0] for rung, values in GAME.items()}
    spread = {rung: 0.3 + 0.2 * (len(rung) % 3) for rung in GAME}
    found = []
    for _ in range(600):
        runs = {rung: list(rng.normal(truth[rung], spread[rung], 3)) for rung in GAME}
        orders = [ALL_ORDERS[i] for i in rng.integers(len(ALL_ORDERS), size=5)]
        found.append(shapley(frame_of(runs), orders).set_index("step").assign(study=len(found)))
    studies = pd.concat(found)
    for step, true in (("a", 2.5), ("b", 3.5), ("c", 0.0)):
        own = studies.loc[step]
        assert own["value"].mean() == pytest.approx(true, abs=0.1)
        assert (own["se"] ** 2).mean() == pytest.approx(own["value"].var(), rel=0.12)
        covered = ((own["ci_low"] <= true) & (true <= own["ci_high"])).mean()
        assert 0.9 < covered < 0.99


def test_an_order_whose_runs_are_missing_counts_for_the_steps_that_it_can() -> None:
    runs: dict[str, Any] = GAME | {"ab": ["missing"], "b": ["failed"]}
    table = shapley(frame_of(runs), ALL_ORDERS).set_index("step")
    assert table["n_orders"].to_dict() == {"a": 5, "b": 3, "c": 3}
    assert table["value"].to_dict() == pytest.approx({"a": 2.2, "b": 4.0, "c": 0.0})
    table = shapley(frame_of(runs), ALL_ORDERS[:2]).set_index("step")  # abc, acb
    assert table["n_orders"].to_dict() == {"a": 2, "b": 1, "c": 1}
    assert math.isnan(table.loc["b", "se"])


@pytest.mark.parametrize("state", ["missing", "failed", "diverged"])
def test_without_results_values_are_missing(state: str) -> None:
    table = shapley(frame_of({rung: [state, state] for rung in GAME}), ALL_ORDERS)
    assert sorted(table["step"]) == list(STEPS)
    assert table["n_orders"].to_list() == [0, 0, 0]
    assert table.drop(columns=["step", "n_orders"]).isna().all(axis=None)


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_the_number_of_a_run_that_did_not_finish_does_not_count(state: str) -> None:
    frame = frame_of({rung: [*values, 10.0] for rung, values in GAME.items()})
    frame.loc[frame["top1"] == 10.0, "state"] = state
    expected = shapley(frame_of(GAME), ALL_ORDERS)
    pd.testing.assert_frame_equal(shapley(frame, ALL_ORDERS), expected)


def test_without_orders_there_are_no_values() -> None:
    table = shapley(frame_of(GAME), [])
    assert (len(table), list(table.columns)) == (0, list(SHAPLEY_COLUMNS))


def test_a_shared_rung_of_one_seed_gives_a_value_without_an_error() -> None:
    orders = [order_of("ab"), order_of("ba"), order_of("ab")]
    table = shapley(frame_of({"none": [70.0], "a": [71.0, 72.0], "b": [72.0, 73.0], "ab": [75.0, 76.0]}), orders)
    table = table.set_index("step")
    assert table.loc["a", "value"] == pytest.approx((1.5 + 3.0 + 1.5) / 3)
    assert table.loc["a", ["se", "ci_low", "ci_high"]].isna().all()
    assert table.loc["b"].notna().all()  # whose change from the base is in one order alone


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    runs=st.dictionaries(
        st.sampled_from(list(GAME)),
        st.lists(
            st.sampled_from(["missing", "failed", "diverged"]) | st.floats(allow_nan=True, allow_infinity=True),
            max_size=3,
        ),
    ),
    orders=st.lists(st.sampled_from(ALL_ORDERS), max_size=6),
)
def test_whatever_became_of_the_runs_there_is_a_row_a_step(runs: Any, orders: list[Order]) -> None:
    with np.errstate(all="ignore"):
        table = shapley(frame_of(runs), orders)
    assert sorted(table["step"]) == (list(STEPS) if orders else [])
    assert (table["value"].isna() | (table["n_orders"] > 0)).all()
    known = table.dropna()
    assert (known["ci_low"] <= known["value"]).all()
    assert (known["value"] <= known["ci_high"]).all()


def test_values_are_read_from_a_study_of_the_design(write_recipes: Callable[..., Any], small_images: Any) -> None:
    recipe, design = write_recipes(seeds=[0, 1]), Design("orders", samples=3)
    study = plan_study(StudySpec("resnet50", recipe, PAPER, design, runs=small_images, data_root=small_images))
    runs = collect(study)
    table = shapley(runs, study.layout.orders)
    assert sorted(table["step"]) == sorted(study.layout.orders[0].steps)
    assert table["value"].isna().all()
    runs = runs.assign(state="finished", top1=70.0 + runs["seed"] + runs["rung"].eq("all_steps"))
    table = shapley(runs, study.layout.orders)
    assert table["n_orders"].eq(3).all()
    assert table["value"].sum() == pytest.approx(1.0)


# -- the interaction of two steps

SQUARE = {"neither": [70.0, 71.0, 72.0], "x": [72.0, 72.5, 73.0], "y": [70.5, 71.0], "both": [75.0, 76.0, 75.6, 75.0]}


def test_the_interaction_is_what_both_do_beyond_the_sum_of_each() -> None:
    found = interaction(frame_of(SQUARE), "neither", "x", "y", "both")
    assert found["value"] == pytest.approx(75.4 - 72.5 - 70.75 + 71.0)
    parts = {rung: np.var(values, ddof=1) / len(values) for rung, values in SQUARE.items()}
    se = math.sqrt(sum(parts.values()))
    df = se**4 / sum(part**2 / (len(SQUARE[rung]) - 1) for rung, part in parts.items())
    assert (found["se"], found["df"], found["n"]) == pytest.approx((se, df, 2))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(stats.t.interval(0.95, df, found["value"], se))
    assert found["p"] == pytest.approx(2 * stats.t.sf(found["value"] / se, df))


def test_two_of_the_four_rungs_alone_give_welchs_test() -> None:
    still = {"y": [70.0, 70.0], "both": [70.0, 70.0]}
    found = interaction(frame_of(SQUARE | still), "neither", "x", "y", "both")
    welch = stats.ttest_ind(SQUARE["neither"], SQUARE["x"], equal_var=False)
    interval = tuple(welch.confidence_interval(0.95))
    assert found["p"] == pytest.approx(welch.pvalue)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(interval)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(values=st.lists(st.lists(st.floats(0, 100), min_size=2, max_size=3), min_size=4, max_size=4))
def test_it_does_not_matter_which_step_is_the_first(values: list[list[float]]) -> None:
    runs = frame_of(dict(zip(SQUARE, values, strict=True)))
    one, other = interaction(runs, "neither", "x", "y", "both"), interaction(runs, "neither", "y", "x", "both")
    assert one == pytest.approx(other, abs=1e-9, nan_ok=True)


def test_steps_that_add_up_do_not_interact() -> None:
    runs = frame_of({"neither": [70.0, 71.0], "x": [72.0, 73.0], "y": [73.0, 74.0], "both": [75.0, 76.0]})
    found = interaction(runs, "neither", "x", "y", "both")
    assert (found["value"], found["p"]) == pytest.approx((0.0, 1.0))


def test_a_rung_with_one_run_leaves_a_value_without_an_interval() -> None:
    found = interaction(frame_of(SQUARE | {"x": [72.0, "diverged"]}), "neither", "x", "y", "both")
    assert (found["value"], found["n"]) == pytest.approx((75.4 - 72.0 - 70.75 + 71.0, 1))
    assert all(math.isnan(found[name]) for name in ("se", "df", "ci_low", "ci_high", "p"))


@pytest.mark.parametrize("rung", SQUARE)
def test_a_rung_without_a_run_leaves_nothing(rung: str) -> None:
    found = interaction(frame_of(SQUARE | {rung: ["failed", "missing"]}), "neither", "x", "y", "both")
    assert found.pop("n") == 0
    assert all(math.isnan(value) for value in found.values())


def test_runs_that_do_not_differ_give_no_p() -> None:
    found = interaction(frame_of({rung: [70.0, 70.0] for rung in SQUARE}), "neither", "x", "y", "both")
    assert (found["value"], found["se"], found["ci_low"], found["ci_high"]) == (0.0, 0.0, 0.0, 0.0)
    assert math.isnan(found["p"])


def test_any_metric_can_be_judged() -> None:
    frame = frame_of(SQUARE).rename(columns={"top1": "nll"})
    assert interaction(frame, "neither", "x", "y", "both", metric="nll")["value"] == pytest.approx(3.15)
    frame = frame_of(GAME).rename(columns={"top1": "nll"})
    assert shapley(frame, ALL_ORDERS, metric="nll")["value"].sum() == pytest.approx(6.0)
