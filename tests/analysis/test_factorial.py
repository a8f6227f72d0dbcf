from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.design_effects import design_effects
from analysis.fractions import AGAINST, alias_cells, fraction_verdicts, weights_of
from analysis.report.record import read_record
from analysis.report.record_results import RecordResults
from analysis.report.write import write_record, write_report
from analysis.stats.factorial import judge_effects
from analysis.study_results import StudyResults
from roadmap.ladder.designs import Design
from roadmap.ladder.fractions import Fraction, plan_fraction
from roadmap.study.plan import Study
from tests.analysis.test_study_results import finish

STEPS = ("gelu", "layer_norm", "fewer_norms")
Make = Callable[..., Study]


def named(steps: int, networks: int) -> Fraction:
    plan = plan_fraction([f"s{place}" for place in range(steps)], networks)
    return Fraction(plan.steps, plan.taken, tuple(f"r{number}" for number in range(networks)))


def means_of(fraction: Fraction, weights: Any, true: Any) -> Any:
    """Return the networks' means for which the plan's effects are these."""
    parts = np.asarray(weights)
    return 70 + (parts / (parts**2).sum(1, keepdims=True)).T @ true


def effects_of(fraction: Fraction, means: Any) -> dict[str, float]:
    """Return the effects by their names."""
    names = [effect.name for effect in fraction.effects]
    return dict(zip(names, weights_of(fraction, fraction.effects) @ means, strict=True))


# -- the estimates


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_effects_of_steps_that_add_up_are_those_of_the_steps_and_of_two_none(data: st.DataObject) -> None:
    steps, networks = data.draw(st.sampled_from([(3, 8), (4, 8), (5, 16), (6, 16), (8, 16)]))
    fraction = named(steps, networks)
    true = np.array(data.draw(st.lists(st.floats(-5, 5), min_size=steps, max_size=steps)))
    means = 70 + np.array(fraction.taken, dtype=float) @ true
    found = weights_of(fraction, fraction.effects) @ means
    assert found[:steps] == pytest.approx(true, abs=1e-9)
    assert found[steps:] == pytest.approx(0, abs=1e-9)


def test_the_effect_of_two_steps_is_what_both_do_beyond_the_sum() -> None:
    fraction = named(3, 8)
    beyond = np.array([1.5 * (row[0] and row[1]) for row in fraction.taken])
    effects = effects_of(fraction, beyond)
    assert effects["s0 x s1"] == pytest.approx(1.5)
    assert effects["s0"] == pytest.approx(0.75)  # half of the networks have the other
    assert effects["s0 x s2"] == pytest.approx(0)


def test_what_comes_together_is_seen_as_its_sum() -> None:
    fraction = named(4, 8)
    beyond = np.array([(row[0] and row[1]) + 2.0 * (row[2] and row[3]) for row in fraction.taken])
    effects = effects_of(fraction, beyond)
    assert effects["s0 x s1 or s2 x s3"] == pytest.approx(3.0)
    assert {"effect": "s0 x s1", "together with": "s2 x s3"} in alias_cells(fraction)


def test_the_error_of_an_effect_is_that_of_the_two_halves() -> None:
    fraction, rng = named(3, 8), np.random.default_rng(0)
    values = rng.normal(70, 1, (8, 3))
    judged = judge_effects(values.mean(1), values.std(1, ddof=1), np.full(8, 3), weights_of(fraction, fraction.effects))
    assert judged["se"].to_numpy() == pytest.approx(
        [2 * np.sqrt(values.var(1, ddof=1).sum() / 3) / 8] * 3 + [4 * np.sqrt(values.var(1, ddof=1).sum() / 3) / 8] * 3
    )
    assert (judged["df"] <= 16).all()
    assert (judged["ci_low"] < judged["delta"]).all()
    assert (judged["p_adjusted"] >= judged["p"]).all()


# -- the answers


@pytest.mark.parametrize(("kind", "spread"), [("none", 0.0), ("edge", 0.0), ("mixed", 0.0), ("mixed", 0.5)], ids=str)
def test_all_effects_of_a_plan_together_have_a_false_answer_in_at_most_one_of_twenty_studies(
    kind: str, spread: float
) -> None:
    """Of 600 simulated studies with 5% false ones, 43 or more have one with a probability of 1%."""
    fraction, rng, margin = named(6, 16), np.random.default_rng(3), 0.2
    weights = weights_of(fraction, fraction.effects)
    choices = {"none": [0.0], "edge": [1.000001 * margin], "mixed": [0.0, 0.0, 0.1, 1.000001 * margin, 0.5, 1.0]}[kind]
    wrong, covered, told = 0, [], []
    for _ in range(600):
        true = rng.choice(choices, len(weights)) * rng.choice([-1, 1], len(weights))
        std = 0.3 * np.exp(rng.normal(0, spread, 16))
        values = means_of(fraction, weights, true)[:, None] + std[:, None] * rng.standard_normal((16, 3))
        judged = judge_effects(values.mean(1), values.std(1, ddof=1), np.full(16, 3), weights, margin=margin)
        answer = judged["answer"].astype(str).to_numpy()
        false = (answer == "helps") & (true <= 0) | (answer == "hurts") & (true >= 0)
        wrong += bool((false | (answer == "no effect") & (np.abs(true) > margin)).any())
        covered.append(((judged["ci_low"] <= true) & (true <= judged["ci_high"])).mean())
        told += list(answer[np.abs(true) == 1.0] == np.where(true[np.abs(true) == 1.0] > 0, "helps", "hurts"))
    assert wrong <= 43
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    if told:
        assert np.mean(told) > 0.9


def test_less_is_better_turns_answers_and_nothing_else() -> None:
    fraction = named(3, 8)
    weights, std, n = weights_of(fraction, fraction.effects), np.full(8, 0.1), np.full(8, 3)
    means = means_of(fraction, weights, [2.0, -2.0, 0, 0, 0, 0])
    more, less = (judge_effects(means, std, n, weights, better=better) for better in (1, -1))
    assert list(more["answer"][:2]) == ["helps", "hurts"]
    assert list(less["answer"][:2]) == ["hurts", "helps"]
    pd.testing.assert_frame_equal(more.drop(columns="answer"), less.drop(columns="answer"))


def test_what_has_no_spread_or_no_result_is_not_tested() -> None:
    weights = weights_of(named(3, 8), named(3, 8).effects)
    for means, std, n in (
        (np.full(8, 70.0), np.zeros(8), np.full(8, 3)),
        (np.full(8, 70.0), np.full(8, np.nan), np.full(8, 1)),
        (np.array([np.nan, *[70.0] * 7]), np.full(8, 0.1), np.array([0, *[3] * 7])),
    ):
        judged = judge_effects(means, std, n, weights, margin=0.2)
        assert set(judged["answer"]) == {"not tested"}
        assert judged["p_adjusted"].isna().all()


def test_more_seeds_are_asked_for_the_smaller_an_effect_is() -> None:
    fraction = named(3, 8)
    weights = weights_of(fraction, fraction.effects)
    means = means_of(fraction, weights, [1.0, 0.3, 0.1, 0.01, 0, 0])
    needed = judge_effects(means, np.full(8, 0.5), np.full(8, 3), weights)["seeds_needed"]
    assert needed[:3].is_monotonic_increasing
    assert np.isinf(needed[3])


# -- a study


@pytest.fixture
def make(small_images: Path, tmp_path: Path) -> Make:
    from roadmap.study.spec import StudySpec, plan_study
    from tests.conftest import write_tiny

    recipe = write_tiny(tmp_path / "recipes", seeds=[0, 1, 2])

    def plan(**options: Any) -> Study:
        design = Design("fractional", STEPS, 8)
        place: dict[str, Any] = {"runs": tmp_path / "runs", "data_root": small_images}
        return plan_study(StudySpec("resnet50", recipe, design=design, **place, **options))

    return plan


def train_as_if(study: Study) -> dict[str, float]:
    """Leave results in which GELU helps, and the two norms do only together."""
    fraction = study.layout.fraction
    assert fraction
    networks = zip(fraction.rungs, fraction.taken, strict=True)
    tops = {rung: 70 + 2 * row[0] + 4 * (row[1] and row[2]) for rung, row in networks}
    finish(study, tops)
    return tops


@pytest.mark.usefixtures("only_svg")
def test_a_study_of_a_plan_is_about_its_effects_on_every_surface(make: Make, tmp_path: Path) -> None:
    study = make()
    train_as_if(study)
    results = StudyResults(study)
    effects = results.steps.set_index("step")
    assert effects["delta"].to_dict() == pytest.approx(
        {"gelu": 2, "layer_norm": 2, "fewer_norms": 2, "gelu x layer_norm": 0, "gelu x fewer_norms": 0,
         "layer_norm x fewer_norms": 4}
    )  # fmt: skip
    assert effects.loc["gelu", "value"] - effects.loc["gelu", "value_against"] == pytest.approx(2)
    assert set(effects["against"]) == set(AGAINST.values())
    assert "effects are answered at 3 seeds: 4 help (gelu, layer_norm, fewer_norms, layer_norm x fewer_norms)" in (
        results.headline
    )
    files = {file.name for file in write_report(results, tmp_path / "out")}
    assert {"verdicts.svg", "verdicts.tex", "report.html"} <= files
    text = (tmp_path / "out" / "ladder.md").read_text()
    assert "| mix_01 |" in text
    assert "The networks: + has the step" in text
    assert "layer_norm x fewer_norms" in (tmp_path / "out" / "report.html").read_text()
    told = pd.read_csv(tmp_path / "out" / "verdicts.csv")
    assert {"top1", "macs"} <= set(told["metric"])
    again = RecordResults(read_record(tmp_path / "out"))
    assert again.headline == results.headline
    assert {"verdicts.svg"} <= {file.name for file in write_record(again, tmp_path / "again")}


def test_nothing_is_judged_before_every_network_has_a_result(make: Make, tmp_path: Path) -> None:
    study = make()
    tops = train_as_if(study)
    last = list(tops)[-1]
    finish(study, {last: 0.0}, state="failed")
    results = StudyResults(study)
    assert set(results.steps["answer"]) == {"not tested"}
    assert "1 of 8 networks have no result yet: effects are judged when all have one." in results.sentences
    write_report(results, tmp_path / "out")
    part = StudyResults(make(only=list(tops)[:3]))
    assert part.steps.empty
    assert any("--only and --until leave networks of it out" in sentence for sentence in part.sentences)
    write_report(part, tmp_path / "part")


def test_the_average_over_combinations_stands_beside_the_effects_of_other_designs(make: Make) -> None:
    study = make()
    train_as_if(study)
    effects = design_effects({"fractional": study})["average over combinations"].set_index("step")
    assert effects["value"].to_dict() == pytest.approx({"gelu": 2, "layer_norm": 2, "fewer_norms": 2})


def test_each_metric_is_judged_by_its_own_direction() -> None:
    fraction = named(3, 8)
    rows = [
        {"rung": rung, "seed": seed, "state": "finished", "nll": 1.0 - 0.5 * row[0] + 0.01 * seed}
        for (rung, row), seed in product(zip(fraction.rungs, fraction.taken, strict=True), range(3))
    ]
    judged = fraction_verdicts(pd.DataFrame(rows), fraction, "nll")
    assert judged.loc[0, "answer"] == "helps"
    assert judged.loc[0, "delta"] == pytest.approx(-0.5)
