import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.design_effects import NAMES, design_effects, has_runs_beyond, interaction_in_words
from analysis.metrics import COSTS, METRICS, SPEEDS
from analysis.report.write import write_published, write_report
from analysis.run_frames import MEASURED, collect
from analysis.step_comparison import compare_step
from analysis.study_results import StudyResults
from analysis.verdicts import pairs_of, with_costs
from roadmap.common import files
from roadmap.common.paths import RECIPES
from roadmap.jobs.launcher import prepare
from roadmap.ladder.designs import Design
from roadmap.recipe import read_recipe
from roadmap.runs import run_folder
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.processes import writing
from tests.samples import PAPER

pytestmark = pytest.mark.usefixtures("only_svg")

RUNGS = PAPER.climb("resnet50")
SEEDS = (0, 1, 2)
DESIGNS = [Design(name, samples=2) for name in NAMES]
Make = Callable[..., Study]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, small_images: Path) -> Make:
    from tests.conftest import write_tiny

    recipe = str(write_tiny(tmp_path_factory.mktemp("recipes")))

    def make(runs: Path, design: Design | None = None, seeds: Sequence[int] = SEEDS) -> Study:
        spec = StudySpec("resnet50", recipe, PAPER, seeds=seeds, data_root=small_images, runs=runs)
        return plan_study(replace(spec, design=design or Design()))

    return make


def finish(study: Study, tops: Mapping[str, float], *, state: str = "finished") -> None:
    """Leave a result in the run folders of some rungs, each seed a little better than the one before."""
    planned = {run.config.id: run for run in study.planned()}
    for rung, top1 in tops.items():
        for seed in study.seeds:
            config = study.configs[rung, seed]
            prepare([planned[config.id]])
            row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": state}
            finished = {"top1": top1 + seed / 10, "train_s": 1.0, "wall_s": 1.0}
            row |= finished if state == "finished" else {"error": "why"}
            files.write_json(study.folder(config) / run_folder.RESULT, row)


def npy(values: list[int]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


# -- what is not there is not made up

STATE = st.sampled_from(["finished", "diverged", "failed", "missing"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_of_a_ladder_is_judged_without_inventing_a_number(make: Make, tmp_path: Path, data: Any) -> None:
    study = make(tmp_path / "runs", seeds=range(data.draw(st.integers(1, 4))))
    results = StudyResults(study)
    runs = results.runs
    states = data.draw(st.lists(STATE, min_size=len(runs), max_size=len(runs)))
    tops = data.draw(st.lists(st.floats(0, 100), min_size=len(runs), max_size=len(runs)))
    tops = [top if state == "finished" else math.nan for top, state in zip(tops, states, strict=True)]
    runs = vars(results)["runs"] = runs.assign(state=states, top1=tops)
    count = runs[runs["state"] == "finished"].groupby("rung").size()
    assert list(results.table["n"]) == [count.get(rung.id, 0) for rung in RUNGS]
    assert list(results.table["top1"].notna()) == list(results.table["n"] > 0)
    top1 = results.steps.set_index("step")
    assert results.headline.endswith(".")
    for step, before in pairs_of(RUNGS):
        n = min(count.get(step, 0), count.get(before, 0))
        verdict, row = top1.loc[step, "verdict"], top1.loc[step]
        assert pd.notna(row["delta"]) == (n > 0), step
        assert pd.isna(row["p_welch"]) or n > 1, step
        if n < 1:
            where = f" of {before} here" if count.get(step, 0) and not count.get(before, 0) else ""
            assert verdict == f"not tested: no result{where}", step


@pytest.mark.parametrize(
    ("tops", "seeds", "said"),
    [
        ({}, SEEDS, "None of the 16 steps is answered. All are not tested: results are missing."),
        ({"baseline": 80.0}, SEEDS, "no step is answered both here and there"),
        ({"baseline": 80.0, "stage_ratio": 81.0, "gelu": 82.0}, [0], "None of the 16 steps is answered."),
        (
            {"baseline": 80.0, "stage_ratio": 81.0},
            SEEDS,
            "one step is answered both here and there, stage_ratio",
        ),
    ],
    ids=["nothing", "one rung", "one seed and gaps", "two rungs"],
)
def test_the_report_of_part_of_a_ladder_says_what_is_not_there(
    tops: dict[str, float], seeds: Sequence[int], said: str, make: Make, tmp_path: Path
) -> None:
    study = make(tmp_path / "runs", seeds=seeds)
    finish(study, tops)
    finish(study, {"kernel_7": 0.0}, state="failed")
    write_report(study, tmp_path / "out")
    text, page = ((tmp_path / "out" / name).read_text() for name in ("ladder.md", "report.html"))
    assert said in text
    assert said in page
    assert re.search(r"^\| kernel_7 \| 0 \| failed \|", text, re.MULTILINE)
    assert re.search(r"^\| depthwise_conv \| 0 \| missing \|", text, re.MULTILINE)
    assert f"kernel_7, seed {seeds[0]}: failed: why" in text
    assert ("tradeoff.svg" in os.listdir(tmp_path / "out")) == bool(tops)
    assert ("verdicts.svg" in os.listdir(tmp_path / "out")) == (len(tops) > 1)


@pytest.mark.parametrize("rung", ["baseline_original", "gelu"])
def test_a_study_of_one_rung_has_a_report_without_a_verdict(rung: str, make: Make, tmp_path: Path) -> None:
    study = make(tmp_path / "runs")
    study = replace(study, rungs=tuple(one for one in study.rungs if one.id == rung))
    finish(study, {rung: 80.0})
    write_report(study, tmp_path / "out")
    assert f"| {rung} | 3 | 80.10 ± 0.10 |" in (tmp_path / "out" / "ladder.md").read_text()
    told = pd.read_csv(tmp_path / "out" / "verdicts.csv")
    assert set(told.query("metric == 'top1'")["verdict"]) <= {"not tested: no result of kernel_7 here"}


def test_figures_of_an_earlier_report_do_not_outlive_what_they_show(make: Make, tmp_path: Path) -> None:
    study = make(tmp_path / "runs")
    finish(study, {"baseline": 80.0, "stage_ratio": 81.0})
    write_report(study, tmp_path / "out")
    assert (tmp_path / "out" / "tradeoff.svg").exists()
    files = write_report(make(tmp_path / "other"), tmp_path / "out")
    assert {file.name for file in files} == set(os.listdir(tmp_path / "out"))
    assert not (tmp_path / "out" / "tradeoff.svg").exists()


# -- designs


def test_a_steps_effect_has_the_same_sign_in_every_design(make: Make, tmp_path: Path) -> None:
    studies = {design.name: make(tmp_path / "runs", design) for design in DESIGNS[:3]}
    for study in studies.values():
        finish(study, {rung.id: 70.0 for rung in study.rungs})
    after = [rung.id for rung in RUNGS].index("gelu")
    finish(studies["ladder"], {rung.id: 71.0 for rung in RUNGS[after:]})  # the last of them is also all_steps
    finish(studies["leave-one-out"], {"without_gelu": 69.0})
    finish(studies["add-one"], {"only_gelu": 75.0})
    effects = design_effects(studies)
    gelu = {name: frame.set_index("step").loc["gelu", "value"] for name, frame in effects.items()}
    assert gelu["on the ladder"] == pytest.approx(1.0)
    assert gelu["lost when left out"] == pytest.approx(2.0)
    assert gelu["alone on the base"] == pytest.approx(5.0)
    frame = effects["lost when left out"].set_index("step").loc["gelu"]
    assert frame["ci_low"] < frame["value"] < frame["ci_high"]


def test_designs_that_share_all_their_runs_with_others_are_not_told_as_their_own(make: Make, tmp_path: Path) -> None:
    ladder, orders = (make(tmp_path / "runs", Design(name, samples=2)) for name in ("ladder", "orders"))
    finish(ladder, {rung.id: 70.0 for rung in RUNGS})
    assert not has_runs_beyond(orders, [ladder])
    assert not StudyResults(ladder, beside={"ladder": ladder, "orders": orders}).design_effects
    own = next(rung.id for rung in orders.rungs if rung.id.startswith("order2_"))
    finish(orders, {own: 60.0})
    assert has_runs_beyond(orders, [ladder])
    found = StudyResults(ladder, beside={"ladder": ladder, "orders": orders}).design_effects
    assert list(found) == ["on the ladder", "Shapley value"]


def test_a_report_of_random_orders_has_the_shapley_values(make: Make, tmp_path: Path) -> None:
    ladder, orders = (make(tmp_path / "runs", Design(name, samples=2)) for name in ("ladder", "orders"))
    finish(orders, {rung.id: 70.0 for rung in orders.rungs})
    write_report(StudyResults(orders, beside={"ladder": ladder}), tmp_path / "out")
    values = pd.read_csv(tmp_path / "out" / "shapley.csv")
    assert set(values["step"]) == {step for order in orders.layout.orders for step in order.steps}
    assert (values["value"].abs() < 1e-9).all()
    assert "| step | orders | Shapley value (points) |" in (tmp_path / "out" / "ladder.md").read_text()
    assert "Shapley value" in (tmp_path / "out" / "design_effects.svg").read_text()


def test_a_report_of_a_pair_says_how_the_two_interact(make: Make, tmp_path: Path) -> None:
    study = make(tmp_path / "runs", Design("pairs", ("gelu", "layer_norm")))
    said = "How 'gelu' and 'layer_norm' interact: nothing to say; not all four rungs have results yet."
    assert said in StudyResults(study).sentences
    finish(study, dict(zip(study.layout.square, (70.0, 71.0, 72.0, 75.0), strict=True)))
    (said,) = [sentence for sentence in StudyResults(study).sentences if "Together" in sentence]
    assert said.startswith("Together 'gelu' and 'layer_norm' change top-1 by +2.00 points beyond the sum")
    assert "95% interval" in said
    runs = collect(study)
    one = interaction_in_words(runs[runs["seed"] == 0], study.layout.square, ("gelu", "layer_norm"))
    assert one.endswith("A rung with one seed has no spread, so nothing is known of how sure that is.")


def test_a_margin_decides_what_the_published_report_says_has_no_effect(tmp_path: Path) -> None:
    for margin, verdict in ((None, "undecided at 3 seeds"), (1.0, "no effect within 1")):
        write_published(PAPER, "resnet50", tmp_path, margin=margin)
        told = pd.read_csv(tmp_path / "verdicts.csv").set_index("step")["verdict"]
        assert told["gelu"].startswith(verdict)
    assert "--margin 1" in (tmp_path / "report.html").read_text()


def test_what_a_damaged_run_folder_says_is_not_believed(make: Make, tmp_path: Path) -> None:
    study = make(tmp_path / "runs")
    finish(study, {"baseline": 80.0, "stage_ratio": 81.0})
    folder = study.folder(study.configs["stage_ratio", 0])
    for content in (b"PK\x03\x04garbage", b"", npy([1, 2])):
        (folder / run_folder.PREDICTIONS).write_bytes(content)
        assert run_folder.read_right(folder) is None
    about = files.read_object(folder / run_folder.RUN) or {}
    files.write_json(folder / run_folder.RUN, about | {"command": ["a", 5, None], "macs": 10**400, "planned_at": 5})
    write_report(study, tmp_path / "out")
    row = pd.read_csv(tmp_path / "out" / "results.csv").query("rung == 'stage_ratio' and seed == 0").iloc[0]
    assert math.isnan(row["macs"])
    bad = files.read_object(folder / run_folder.RESULT) or {}
    (folder / run_folder.RESULT).write_text(json.dumps(bad | {"top1": math.inf}))
    write_report(StudyResults(study), tmp_path / "out")  # of the rest
    rows = pd.read_csv(tmp_path / "out" / "results.csv").set_index(["rung", "seed"])
    assert rows.loc[("stage_ratio", 0), "state"] == "failed"
    assert f"{folder / run_folder.RESULT}: is no result row" in rows.loc[("stage_ratio", 0), "error"]
    assert rows.loc[("baseline", 0), "top1"] == 80.0


def test_predictions_of_a_run_that_did_not_finish_are_not_held_against_another(make: Make, tmp_path: Path) -> None:
    study = make(tmp_path / "runs", seeds=[0, 1])
    finish(study, {"baseline": 80.0, "stage_ratio": 81.0})
    for rung in ("baseline", "stage_ratio"):
        for seed in study.seeds:
            with writing(study.folder(study.configs[rung, seed])) as writer:
                run_folder.write_predictions(writer, np.arange(9) % 4, np.arange(9) % 3)
    told = StudyResults(study).steps.query("step == 'stage_ratio'").iloc[0]
    assert told["mcnemar_pairs"] == 2
    row = files.read_object(study.folder(study.configs["stage_ratio", 0]) / run_folder.RESULT) or {}
    files.write_json(study.folder(study.configs["stage_ratio", 0]) / run_folder.RESULT, row | {"state": "failed"})
    told = StudyResults(study).steps.query("step == 'stage_ratio'").iloc[0]
    assert told["mcnemar_pairs"] == 1


def test_time_in_the_verdicts_is_that_of_measure(make: Make, tmp_path: Path) -> None:
    runs = pd.DataFrame({"rung": ["a", "b"], "seed": 0, "state": "finished", "macs": [1.0, 2.0], "params": 1.0})
    runs = runs.assign(**{metric: 1.0 for metric in METRICS})
    speeds = {"a": [100.0, 50.0, 100.0], "b": [80.0, 40.0, 10.0]}  # of two rounds that slowed down, one hit b alone
    measured = pd.DataFrame(
        [(rung, i, speed, speed, 1.0, 1.0) for rung, all_ in speeds.items() for i, speed in enumerate(all_, 1)],
        columns=list(MEASURED),
    )
    results = StudyResults(make(tmp_path))
    vars(results).update(runs=runs, measured=measured, right_images={})
    judged = results.judge([("b", "a")])
    assert judged["metric"].to_list() == [*METRICS, *SPEEDS, *COSTS]
    (row,) = with_costs(judged, measured).to_dict("records")
    assert (row["macs_factor"], row["time_factor"]) == (2.0, pytest.approx(1.25))


def test_nothing_is_claimed_of_a_recipe_whose_results_mean_nothing(make: Make, tmp_path: Path) -> None:
    study = make(tmp_path / "runs", seeds=[0, 1])
    finish(study, {rung.id: 70.0 + i for i, rung in enumerate(RUNGS)})
    results = StudyResults(replace(study, recipe=replace(study.recipe, means_nothing=True)))
    files = {file.name for file in write_report(results, tmp_path / "out")}
    assert results.headline.startswith("These numbers mean nothing")
    assert not re.search("paper|answered", " ".join([results.headline, *results.sentences]))
    assert not files & {"verdicts.svg", "tradeoff.svg", "design_effects.svg", "agreement.csv"}
    assert pd.read_csv(tmp_path / "out" / "verdicts.csv").empty
    assert (tmp_path / "out" / "verdicts.md").read_text().count("\n|") == 0
    table = pd.read_csv(tmp_path / "out" / "ladder.csv")
    assert table[["top1_delta", "paper_top1", "paper_top1_delta", "answer", "paper_answer"]].isna().all(axis=None)
    for name in ("ladder.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "These numbers mean nothing" in text
        assert not re.search(r"paper's (change|answer)|▲|helps|Not tested|answered", text), name
    told = compare_step(results, "gelu")
    assert (told.paper, told.caveat) == ((None, None), results.headline)
    assert set(told.verdicts.query("metric in @METRICS")["answer"]) == {""}


def test_the_smoke_recipes_say_that_they_mean_nothing_and_so_does_a_copy(tmp_path: Path) -> None:
    text = (RECIPES / "smoke.yaml").read_text().replace("name: smoke", "name: mine")
    (tmp_path / "mine.yaml").write_text(text)
    names = {path.stem for path in RECIPES.glob("*.yaml") if read_recipe(path.stem).means_nothing}
    assert names == {"smoke", "smoke_original"}
    assert read_recipe(tmp_path / "mine.yaml").means_nothing


def test_a_part_of_the_ladder_is_held_against_all_that_the_paper_says(make: Make, tmp_path: Path) -> None:
    study = make(tmp_path / "runs")
    whole = StudyResults(study).published
    part = StudyResults(replace(study, rungs=study.rungs[:4]))
    pd.testing.assert_frame_equal(part.published, whole)
    assert list(part.table["paper_answer"]) == list(StudyResults(study).table["paper_answer"][:4])


def test_run_folders_are_read_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path / "runs")
    finish(study, {"baseline": 80.0, "stage_ratio": 81.0})
    read: list[Path] = []
    known = run_folder.read_result
    monkeypatch.setattr(run_folder, "read_result", lambda folder: read.append(folder) or known(folder))
    results = StudyResults(study)
    assert not read
    write_report(results, tmp_path / "out")
    _ = results.headline, results.verdicts, results.runs
    assert max(read.count(folder) for folder in read) <= 2  # the runs, and whether robustness is of finished ones
