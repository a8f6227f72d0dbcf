import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.comparison.agreement import (
    AGREEMENT_COLUMNS,
    _means_again,
    correlation_in_words,
    correlations,
    kendall,
    spearman,
)
from analysis.metrics import METRICS
from analysis.verdicts import (
    VERDICT_COLUMNS,
    cost_table,
    pairs_of,
    published_verdicts,
    speed_table,
    to_json,
    verdict_table,
)
from tests.samples import PAPER

RUNGS = PAPER.climb("resnet50")
# PAPER's Table 10, Welch's p of each adopted step against the adopted rung before it.
PAPER_P = {
    "stage_ratio": 0.0007, "patchify_stem": 0.28, "depthwise_conv": 0.0024, "increase_width": 0.0002,
    "inverted_bottleneck": 0.0041, "move_up_depthwise": 0.0016, "kernel_7": 0.0050, "gelu": 0.68,
    "fewer_activations": 0.0072, "fewer_norms": 0.098, "layer_norm": 0.46, "separate_downsampling": 0.0023,
}  # fmt: skip
HELP = {
    "stage_ratio",
    "increase_width",
    "inverted_bottleneck",
    "kernel_7",
    "fewer_activations",
    "separate_downsampling",
}


def runs_of(values: dict[str, list[Any]], metric: str = "top1") -> pd.DataFrame:
    """Return a frame of runs: for each rung its seeds' values, or a state in place of one."""
    rows = [
        {
            "rung": rung,
            "seed": seed,
            "state": value if isinstance(value, str) else "finished",
            metric: np.nan if isinstance(value, str) else float(value),
        }
        for rung, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    frame = pd.DataFrame(rows, columns=["rung", "seed", "state", metric])
    return frame.reindex(columns=["rung", "seed", "state", *METRICS, "macs", "params"])


# -- the paper's own numbers


def test_the_papers_steps_have_the_ps_of_its_table() -> None:
    judged = published_verdicts(PAPER, "resnet50", test="welch").set_index("step")
    assert list(judged.index) == [rung.id for rung in RUNGS if rung.parent]
    assert {step: float(f"{judged.loc[step, 'p_welch']:.2g}") for step in PAPER_P} == pytest.approx(PAPER_P, rel=0.06)
    adopted = judged.loc[list(PAPER_P)]
    assert set(adopted.index[adopted["answer"] == "helps"]) == HELP
    assert set(adopted.index[adopted["answer"] == "hurts"]) == {"depthwise_conv", "move_up_depthwise"}
    assert set(adopted["verdict"]) == {"helps", "hurts", "undecided at 3 seeds"}
    assert judged.loc["baseline", "verdict"] == "not tested: one seed"


def test_noise_learned_from_all_rungs_answers_the_step_that_starts_from_a_single_run() -> None:
    judged = published_verdicts(PAPER, "resnet50").set_index("step")
    assert judged.loc["baseline", "answer"] == "helps"
    assert judged.loc["gelu", "answer"] == "undecided"
    assert judged["answer"].isin(["helps", "hurts"]).sum() >= 10


def test_one_run_a_rung_tests_nothing() -> None:
    judged = published_verdicts(PAPER, "resnet200")
    assert set(judged["verdict"]) == {"not tested: one seed"}
    assert judged[["p", "p_adjusted", "p_welch", "ci_low", "seeds_needed"]].isna().all(axis=None)
    assert judged.set_index("step").loc["stage_ratio", "delta"] == pytest.approx(0.19)


def test_a_wide_margin_makes_small_changes_no_effect() -> None:
    judged = published_verdicts(PAPER, "resnet50", margin=2.0).set_index("step")
    assert judged.loc["gelu", "verdict"] == "no effect within 2"
    assert judged.loc["stage_ratio", "answer"] in ("helps", "no effect")


def test_any_two_of_the_papers_rungs_can_be_judged() -> None:
    judged = published_verdicts(PAPER, "resnet50", pairs=[("kernel_7", "kernel_5")])
    assert judged["p_welch"].to_list() == pytest.approx([0.094], abs=0.001)


# -- runs


def test_a_table_has_a_row_a_change_and_the_columns_it_explains() -> None:
    table = verdict_table(runs_of({"baseline": [70, 71, 72], "stage_ratio": [80, 81, 82.5]}), pairs_of(RUNGS))
    assert list(table) == list(VERDICT_COLUMNS)
    assert len(table) == 16
    row = table.set_index("step").loc["stage_ratio"]
    test = stats.ttest_ind([80, 81, 82.5], [70, 71, 72], equal_var=False)
    assert row["p_welch"] == row["p_holm"] == pytest.approx(test.pvalue)
    assert row["p_paired"] == pytest.approx(stats.ttest_rel([80, 81, 82.5], [70, 71, 72]).pvalue)
    assert row["answer"] == row["verdict"] == "helps"
    others = table[table["step"] != "stage_ratio"]
    assert others["verdict"].str.startswith("not tested").all()
    assert others[["p", "ci_low", "seeds_needed"]].isna().all(axis=None)


def test_runs_that_did_not_finish_count_for_nothing() -> None:
    runs = runs_of({"baseline": [70, "diverged", 72, "missing"], "stage_ratio": ["failed", 81]})
    row = verdict_table(runs, [("stage_ratio", "baseline")]).iloc[0]
    assert (row["n"], row["n_against"], row["delta"]) == (1, 2, 10.0)
    assert row["answer"] == "undecided"
    assert np.isnan([row["p_welch"], row["p_paired"]]).all()


def test_less_is_better_where_it_is() -> None:
    runs = runs_of({"baseline": [1.0, 1.01, 1.02], "stage_ratio": [0.5, 0.51, 0.53]}, "nll")
    assert verdict_table(runs, [("stage_ratio", "baseline")], "nll")["answer"].to_list() == ["helps"]


def test_no_runs_at_all_are_no_results() -> None:
    table = verdict_table(runs_of({}), pairs_of(RUNGS))
    assert set(table["verdict"]) == {"not tested: no result"}


# -- test images


def test_the_noise_of_the_test_images_is_that_of_each_images_change() -> None:
    draw = np.random.default_rng(0)
    old = {seed: draw.random(1000) < 0.8 for seed in range(3)}
    new = {seed: draw.random(1000) < 0.9 for seed in range(3)}
    runs = runs_of({"baseline": [70, 71, 72], "stage_ratio": [80, 81, 82]})
    rights = {"baseline": old, "stage_ratio": new}
    row = verdict_table(runs, [("stage_ratio", "baseline")], right_images=rights).iloc[0]
    change = np.mean([new[s] for s in range(3)], 0) - np.mean([old[s] for s in range(3)], 0)
    assert row["test_se"] == pytest.approx(100 * stats.sem(change))
    ps = [stats.binomtest(int((old[s] & ~new[s]).sum()), int((old[s] ^ new[s]).sum())).pvalue for s in range(3)]
    assert (row["mcnemar_pairs"], row["mcnemar_differ"]) == (3, sum(p < 0.05 for p in ps))


@pytest.mark.parametrize(
    "rights", [{}, {"baseline": {}}, {"baseline": {0: np.ones(5, bool)}, "stage_ratio": {0: np.ones(4, bool)}}]
)
def test_predictions_that_are_missing_or_of_other_images_say_nothing(rights: Any) -> None:
    runs = runs_of({"baseline": [70, 71], "stage_ratio": [80, 81]})
    row = verdict_table(runs, [("stage_ratio", "baseline")], right_images=rights).iloc[0]
    assert np.isnan([row["test_se"], row["mcnemar_pairs"], row["mcnemar_differ"]]).all()


def test_seeds_that_only_one_rung_has_make_no_pair_of_predictions() -> None:
    right = np.array([True, False, True])
    rights = {"baseline": {0: right, 1: right}, "stage_ratio": {1: ~right, 2: right}}
    row = verdict_table(runs_of({}), [("stage_ratio", "baseline")], right_images=rights).iloc[0]
    assert (row["mcnemar_pairs"], row["mcnemar_differ"]) == (1, 0)


# -- what is measured and counted


def measured_of(speeds: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        {"rung": rung, "round": number, "train_images_per_s": speed, "test_images_per_s": 2 * speed,
         "peak_memory_mb": 10.0 + len(rung), "activations": 100 * len(rung)}
        for rung, rounds in speeds.items()
        for number, speed in enumerate(rounds, start=1)
    ]  # fmt: skip
    columns = ["rung", "round", "train_images_per_s", "test_images_per_s", "peak_memory_mb", "activations"]
    return pd.DataFrame(rows, columns=columns)


def test_a_speed_is_judged_round_by_round_within_a_share_of_itself() -> None:
    measured = measured_of({"a": [100, 101, 99, 100, 100], "b": [50, 51, 50, 49, 50], "c": [50.1, 50.9, 50, 49.1, 50]})
    table = speed_table(measured, [("b", "a"), ("c", "b"), ("d", "c")], "train_images_per_s")
    assert table["answer"].to_list() == ["hurts", "no effect", "not tested"]
    assert table["margin"].to_list()[:2] == pytest.approx([2.0, 1.0])
    assert table.loc[0, "n"] == 5
    assert table.loc[2, "verdict"] == "not tested: no result"


def test_what_is_counted_is_more_or_less_without_a_test() -> None:
    costs = pd.DataFrame({"macs": [10.0, 20.0, 20.0]}, index=["a", "b", "c"])
    table = cost_table(costs, [("b", "a"), ("c", "b"), ("a", "c"), ("d", "a")], "macs")
    assert table["verdict"].to_list() == ["more", "the same", "less", "not known"]
    assert table["p"].isna().all()


def test_a_speed_is_judged_by_the_ratio_in_each_round_so_that_a_slow_machine_changes_nothing() -> None:
    slow = [1.0, 0.5, 1.0, 0.4, 0.9]
    measured = measured_of({"a": [100 * s for s in slow], "b": [103 * s + i / 50 for i, s in enumerate(slow)]})
    (row,) = speed_table(measured, [("b", "a")], "train_images_per_s").to_dict("records")
    assert row["answer"] == "helps"
    assert 0 < row["ci_low"] < row["delta"] < row["ci_high"]
    (row,) = speed_table(measured, [("a", "a")], "train_images_per_s").to_dict("records")
    assert row["answer"] == "not tested"  # without any spread there is no test


def test_a_speed_that_changes_by_less_than_its_margin_has_no_effect() -> None:
    measured = measured_of({"a": [100, 101, 99, 100, 100], "b": [100.1, 101.0, 99.0, 100.1, 99.9]})
    (row,) = speed_table(measured, [("b", "a")], "train_images_per_s").to_dict("records")
    assert row["verdict"] == "no effect within 2"


def test_rows_of_json_have_null_where_nothing_is_known() -> None:
    runs = runs_of({"baseline": [70], "stage_ratio": [80]})
    (row,) = to_json(verdict_table(runs, [("stage_ratio", "baseline")]))
    assert (row["delta"], row["p"], row["answer"]) == (10.0, None, "not tested")
    assert list(row) == list(VERDICT_COLUMNS)


# -- agreement


def test_rank_correlations_are_scipys() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 6, (50, 9)).astype(float), draw.normal(size=(50, 9))
    assert spearman(x, y) == pytest.approx([stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])
    assert kendall(x, y) == pytest.approx([stats.kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)])


def test_the_papers_own_numbers_agree_with_the_paper() -> None:
    tops = {rung.id: [rung.paper.top1, rung.paper.top1] for rung in RUNGS}
    table = correlations(runs_of(tops), RUNGS)
    assert list(table) == list(AGREEMENT_COLUMNS)
    row = table.set_index("metric").loc["top1"]
    assert row["steps"] == 13
    assert (row["spearman"], row["kendall"]) == (pytest.approx(1), pytest.approx(1))
    assert row["spearman_low"] == pytest.approx(1)
    assert table.set_index("metric").loc["nll", "steps"] == 0


def test_seeds_that_differ_much_widen_the_interval() -> None:
    draw = np.random.default_rng(0)
    tops = {rung.id: [(rung.paper.top1 or 0) + spread for spread in draw.normal(0, 3, 3)] for rung in RUNGS}
    row = correlations(runs_of(tops), RUNGS).set_index("metric").loc["top1"]
    assert row["spearman_high"] - row["spearman_low"] > 0.5


def test_means_drawn_again_spread_as_means_of_so_few_seeds_do() -> None:
    draw = np.random.default_rng(0)
    for sample in (np.array([1.0, 2.0, 6.0]), np.arange(10.0)):
        again = _means_again(sample, draw)
        assert again.mean() == pytest.approx(sample.mean(), abs=0.1)
        assert again.std() == pytest.approx(sample.std(ddof=1) / math.sqrt(len(sample)), rel=0.06)
    assert set(_means_again(np.array([3.0]), draw)) == {3.0}


def test_a_correlation_is_said_with_what_it_means_for_a_proxy_and_not_made_up_from_few_steps() -> None:
    tops = {rung.id: [rung.paper.top1] for rung in RUNGS}
    said = correlation_in_words(correlations(runs_of(tops), RUNGS), proxy=True)
    assert "over 13 adopted steps" in said
    assert "neither evidence for nor against a step on ImageNet" in said
    few = {rung.id: [rung.paper.top1] for rung in RUNGS[:4]}
    assert correlation_in_words(correlations(runs_of(few), RUNGS), proxy=True).startswith("Too few steps")
