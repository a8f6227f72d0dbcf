import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis.comparison.agreement import agreement_with_paper
from analysis.ladder_table import LADDER_COLUMNS, ladder_table
from analysis.metrics import COSTS, METRICS, SPEEDS
from analysis.run_frames import IDENTITY, WIDE, collect, has_results
from analysis.step_comparison import compare_step
from analysis.study_results import StudyResults
from analysis.terminal import print_step
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.jobs.launcher import prepare
from roadmap.runs import run_folder
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.samples import PAPER

RUNGS = PAPER.climb("resnet50")


def runs_frame(top1: dict[str, list[float | str]]) -> pd.DataFrame:
    """Return a frame of runs: for each rung a number (finished) or a state for each seed."""
    rows = []
    for rung, values in top1.items():
        for seed, value in enumerate(values):
            finished = not isinstance(value, str)
            rows.append(
                {
                    "rung": rung,
                    "seed": seed,
                    "state": "finished" if finished else value,
                    "top1": value if finished else None,
                    "images_per_s": 100.0 + seed if finished else None,
                    "macs": 1000,
                    "params": 10,
                }
            )
    return pd.DataFrame(rows).astype({"top1": float, "images_per_s": float})


def table_of(top1: dict[str, list[float | str]]) -> pd.DataFrame:
    return ladder_table(runs_frame(top1), RUNGS).set_index("rung")


# -- the ladder's table


def test_means_deviations_and_changes_are_those_counted_by_hand() -> None:
    table = table_of({"baseline": [70.0, 71.0, 72.0], "stage_ratio": [73.0, 73.0, 76.0], "patchify_stem": [74.0]})
    assert table["top1"].dropna().to_dict() == {"baseline": 71.0, "stage_ratio": 74.0, "patchify_stem": 74.0}
    assert table["top1_std"].dropna().to_dict() == pytest.approx({"baseline": 1.0, "stage_ratio": math.sqrt(3)})
    assert table["top1_delta"].dropna().to_dict() == {"stage_ratio": 3.0, "patchify_stem": 0.0}
    assert table.loc["baseline", ["n", "images_per_s", "macs", "params"]].to_list() == [3, 101.0, 1000, 10]


def test_a_side_branch_and_the_rung_after_it_are_judged_against_the_rung_they_come_from() -> None:
    table = table_of(
        {"move_up_depthwise": [80.0], "kernel_5": [81.0], "kernel_7": [82.5], "kernel_11": [70.0], "gelu": [83.0]}
    )
    assert table["top1_delta"].dropna().to_dict() == {"kernel_5": 1.0, "kernel_7": 2.5, "kernel_11": -10.0, "gelu": 0.5}


def test_the_papers_changes_stand_beside_ours() -> None:
    table = table_of({"baseline": [70.0]})
    assert table.loc["stage_ratio", "paper_top1_delta"] == pytest.approx(0.54)
    assert table.loc["kernel_7", "paper_top1_delta"] == pytest.approx(0.65)
    assert pd.isna(table.loc["baseline_original", "paper_top1_delta"])


def test_runs_that_did_not_finish_are_counted_out_and_named() -> None:
    table = table_of(
        {
            "baseline": [70.0, "diverged", 72.0],
            "stage_ratio": ["missing", "diverged", "diverged"],
            "patchify_stem": ["diverged", "failed", "missing"],
            "depthwise_conv": ["missing"],
        }
    )
    assert table.loc["baseline", ["state", "n", "top1"]].to_list() == ["finished", 2, 71.0]
    assert table.loc[["stage_ratio", "patchify_stem", "depthwise_conv", "gelu"], "state"].to_list() == [
        "diverged",
        "failed",
        "missing",
        "missing",
    ]
    assert table["top1_delta"].isna().all()


def test_a_table_has_a_row_a_rung_in_order_and_the_columns_it_explains() -> None:
    table = ladder_table(runs_frame({"gelu": [80.0]}), RUNGS)
    assert table["rung"].to_list() == [rung.id for rung in RUNGS]
    assert list(table) == list(LADDER_COLUMNS)


# -- agreement with the paper


def answered(**steps: tuple[str, str]) -> pd.DataFrame:
    """Return a ladder's table in which these steps have these answers, here and in the paper."""
    table = table_of({"baseline": [70.0]}).reset_index()
    for rung, (ours, theirs) in steps.items():
        table.loc[table["rung"] == rung, ["answer", "paper_answer"]] = [ours, theirs]
    return table


def test_agreement_is_of_the_steps_that_are_answered_here_and_in_the_paper() -> None:
    text = agreement_with_paper(
        answered(
            stage_ratio=("helps", "helps"),
            patchify_stem=("helps", "undecided"),
            depthwise_conv=("helps", "hurts"),
            increase_width=("undecided", "helps"),
            gelu=("no effect", "no effect"),
            layer_norm=("no effect", "helps"),
        )
    )
    assert "of 4 steps answered both here and there, 2 go the same way: stage_ratio, gelu." in text
    assert text.endswith(
        "Another way: depthwise_conv (helps here, hurts there), layer_norm (no effect here, helps there)."
    )
    assert "patchify_stem" not in text
    assert "increase_width" not in text


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({}, "nothing is published of these steps"),
        ({"gelu": ("helps", "undecided")}, "its own numbers answer none of these steps"),
        ({"gelu": ("undecided", "helps")}, "no step is answered both here and there"),
        ({"gelu": ("helps", "helps")}, "one step is answered both here and there, gelu, and goes the same way"),
    ],
)
def test_agreement_says_when_there_is_little_or_nothing_to_compare(steps: Any, said: str) -> None:
    assert said in agreement_with_paper(answered(**steps))


# -- from run folders


@pytest.fixture
def study(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> Study:
    return plan_study(
        StudySpec("resnet50", str(write_recipes()), PAPER, runs=tmp_path / "runs", seeds=(0, 1), data_root=small_images)
    )


def put(study: Study, rung: str, seed: int, **values: Any) -> None:
    config = study.configs[rung, seed]
    prepare([run for run in study.planned() if run.config == config])
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": "finished"}
    files.write_json(study.folder(config) / run_folder.RESULT, row | values)


def test_every_rung_and_seed_is_a_row_whether_it_ran_or_not(study: Study) -> None:
    put(study, "baseline", 1, top1=75.0)
    put(study, "gelu", 0, state="diverged", error="the loss is nan at step 3")
    runs = collect(study)
    assert list(runs) == [*IDENTITY, *(column for column in run_folder.COLUMNS if column not in WIDE)]
    assert runs[["rung", "seed"]].to_records(index=False).tolist() == [(r.id, seed) for r in RUNGS for seed in (0, 1)]
    assert runs["state"].value_counts().to_dict() == {"missing": 32, "finished": 1, "diverged": 1}
    done = runs[runs["state"] == "finished"].iloc[0]
    assert (done["rung"], done["seed"], done["top1"], done["run"]) == (
        "baseline",
        1,
        75.0,
        study.configs["baseline", 1].id,
    )
    assert done["macs"] > 0
    assert runs["top1"].dtype == float


def test_a_study_has_results_once_a_run_has_finished(study: Study) -> None:
    assert not has_results(collect(study))
    put(study, "gelu", 0, state="diverged")
    assert not has_results(collect(study))
    put(study, "gelu", 1, top1=10.0)
    assert has_results(collect(study))


def test_half_of_a_result_is_a_missing_run(study: Study) -> None:
    put(study, "baseline", 0, top1=75.0)
    path = study.folder(study.configs["baseline", 0]) / run_folder.RESULT
    path.write_text(path.read_text()[:50])
    assert not has_results(collect(study))


def test_a_result_of_another_version_is_not_guessed_at(study: Study) -> None:
    put(study, "baseline", 0, top1=75.0, result_version=0)
    runs = collect(study)
    assert not has_results(runs)
    assert "result_version is 0" in runs.query("rung == 'baseline' and seed == 0")["error"].iloc[0]


# -- one step


def test_a_step_is_compared_seed_by_seed(study: Study) -> None:
    for seed, old, new in ((0, 70.0, 71.5), (1, 72.0, 71.0)):
        put(study, "kernel_7", seed, top1=old, nll=1.0)
        put(study, "gelu", seed, top1=new, nll=0.75)
    comparison = compare_step(StudyResults(study), "gelu")
    assert comparison.against == "kernel_7"
    assert comparison.fields == {"network: block.act": ("relu", "gelu")}
    rows = {row["metric"]: row for row in comparison.rows()}
    assert list(rows) == [*METRICS, *SPEEDS, *COSTS]
    assert rows["macs"]["delta"] == rows["params"]["delta"] == 0
    assert rows["macs"]["verdict"] == "the same"
    assert rows["activations"]["verdict"] == "not known"
    top1 = rows["top1"]
    assert (top1["value_against"], top1["value"], top1["delta"]) == (71.0, 71.25, 0.25)
    assert top1["change_by_seed"] == {"0": 1.5, "1": -1.0}
    assert (top1["answer"], top1["verdict"]) == ("undecided", "undecided at 2 seeds")
    assert rows["nll"]["delta"] == -0.25
    assert rows["nll"]["answer"] == "not tested"
    assert rows["ece"]["delta"] is None
    assert rows["ece"]["verdict"] == "not tested: no result"
    json.dumps(comparison.rows(), allow_nan=False)


def test_a_seed_that_only_one_of_two_rungs_has_gives_no_change(study: Study) -> None:
    put(study, "kernel_7", 0, top1=70.0)
    put(study, "gelu", 1, top1=75.0)
    top1 = compare_step(StudyResults(study), "gelu").rows()[0]
    assert (top1["value_against"], top1["value"], top1["change_by_seed"]) == (70.0, 75.0, {})
    assert top1["answer"] == "not tested"


def test_runs_that_did_not_finish_are_not_compared(study: Study) -> None:
    put(study, "kernel_7", 0, train_loss=2.0, top1=80.0)
    put(study, "gelu", 0, train_loss=1.5, top1=80.0)
    put(study, "gelu", 1, state="diverged", train_loss=9.0)
    row = next(row for row in compare_step(StudyResults(study), "gelu").rows() if row["metric"] == "train_loss")
    assert (row["value"], row["delta"], row["n"]) == (1.5, -0.5, 1)


def test_a_step_on_the_recipe_shows_the_settings_that_differ(study: Study) -> None:
    comparison = compare_step(StudyResults(study), "baseline")
    assert comparison.against == "baseline_original"
    assert comparison.fields["recipe: optimizer"] == ("sgd", "adamw")
    assert all(name.startswith("recipe: ") for name in comparison.fields)


def test_any_two_rungs_can_be_compared(study: Study) -> None:
    comparison = compare_step(StudyResults(study), "kernel_11", "kernel_5")
    assert comparison.fields == {"network: block.kernel_size": (5, 11)}


def test_the_start_of_a_ladder_has_nothing_before_it(study: Study) -> None:
    with pytest.raises(UserError, match=r"'baseline_original' is where the ladder starts.*--against"):
        compare_step(StudyResults(study), "baseline_original")


def test_a_comparison_prints_fields_metrics_seeds_and_the_papers_change(study: Study) -> None:
    for seed in (0, 1):
        put(study, "kernel_7", seed, top1=70.0)
        put(study, "gelu", seed, top1=70.0 + seed)
    console = Console(file=io.StringIO(), width=120)
    print_step(compare_step(StudyResults(study), "gelu"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "gelu against kernel_7, from resnet50" in text
    for words in (["network: block.act", "relu", "gelu"], ["top-1 (%)", "70.00 → 70.50", "+0.50"], ["seed 1 +1.00"]):
        assert " ".join(words) in " ".join(text.split())
    assert "80.57 → 80.62, change +0.05" in text
