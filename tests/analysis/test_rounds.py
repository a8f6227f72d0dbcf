"""What is reported of a study in rounds: answers that pay for the looks, and how the intervals closed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.figures import Words, draw_rounds
from analysis.report.record import read_record
from analysis.report.record_results import RecordResults
from analysis.report.tables import rounds_cells
from analysis.report.write import write_report
from analysis.stats.answers import Answer
from analysis.study_results import StudyResults
from roadmap.common import files
from roadmap.runs import run_folder
from roadmap.study.plan import Study
from roadmap.study.rounds import in_rounds, read_rounds
from roadmap.study.spec import StudySpec, plan_study
from tests.artists import artists, assert_texts_are_apart, words

RUNGS = ("baseline", "stage_ratio", "patchify_stem")
MEANS = {"baseline": 70.0, "stage_ratio": 70.5, "patchify_stem": 90.0}
LOOKS = ((3, 3, 3), (5, 5, 3))


@pytest.fixture
def study(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> Study:
    """A study of three rungs with two rounds; runs beyond them are there too."""
    spec = StudySpec("resnet50", write_recipes(), only=RUNGS, seeds=range(6), data_root=small_images, runs=tmp_path)
    study = plan_study(spec)
    for (rung, seed), config in study.configs.items():
        row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": "finished", "wall_s": 1.0}
        row["top1"] = MEANS[rung] + float(np.random.default_rng([seed, len(rung)]).normal())
        files.write_json(study.folder(config) / run_folder.RESULT, row)
    for seeds in LOOKS:
        read_rounds(study).begin(study, dict(zip(RUNGS, seeds, strict=True)), ["stage_ratio", "patchify_stem"])
    return in_rounds(study, read_rounds(study))


def test_a_frame_has_every_step_at_every_look_and_narrower_intervals_where_seeds_came(study: Study) -> None:
    rounds = StudyResults(study).rounds
    assert list(zip(rounds["look"], rounds["step"], rounds["n"], rounds["runs"], strict=True)) == [
        (1, "stage_ratio", 3, 9), (1, "patchify_stem", 3, 9), (2, "stage_ratio", 5, 13), (2, "patchify_stem", 3, 13),
    ]  # fmt: skip
    assert (rounds["answer"][rounds["step"] == "patchify_stem"] == Answer.HELPS).all()
    assert StudyResults(replace(study, looks=())).rounds.empty


def test_answers_of_a_report_are_those_of_the_last_look_and_take_no_later_run(study: Study) -> None:
    results = StudyResults(study)
    last = results.rounds[results.rounds["look"] == 2]
    assert list(results.steps["delta"].dropna()) == list(last["delta"])
    assert list(results.steps["ci_low"].dropna()) == list(last["ci_low"])
    assert any("Seeds came in 2 rounds" in sentence for sentence in results.sentences)
    fixed = StudyResults(replace(study, looks=())).steps
    assert (fixed["p_adjusted"].dropna() <= results.steps["p_adjusted"].dropna()).all()


def test_steps_that_were_not_sought_are_not_tested(study: Study) -> None:
    steps = StudyResults(replace(study, sought=frozenset({"patchify_stem"}))).steps.set_index("step")
    assert steps.loc["patchify_stem", "answer"] == Answer.HELPS
    assert steps.loc["stage_ratio", "answer"] == Answer.NOT_TESTED


def test_the_table_and_the_figure_show_every_look(study: Study) -> None:
    results = StudyResults(study)
    first, second = rounds_cells(results.rounds)
    assert list(first) == ["step", "after 9 runs (round 1)", "after 13 runs (round 2)"]
    assert second["after 9 runs (round 1)"].endswith("▲")
    figure = draw_rounds(results.rounds, results.table, Words(title="Looks", axis="Change (points)"))
    assert {"stage_ratio-1", "stage_ratio-2", "patchify_stem-2"} <= artists(figure, "interval").keys()
    assert words(figure, "answer")["patchify_stem"] == "▲ helps"
    assert_texts_are_apart(figure)


def test_a_report_has_the_rounds_and_its_record_is_judged_again_with_the_looks(study: Study, tmp_path: Path) -> None:
    results = StudyResults(study)
    files_written = {file.name for file in write_report(results, tmp_path / "out")}
    assert {"rounds.svg", "rounds.csv"} <= files_written
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How the intervals closed" in page
    assert "after 13 runs (round 2)" in page
    again = RecordResults(read_record(tmp_path / "out")).verdicts[0].set_index("step")
    expected = results.steps.set_index("step")
    assert dict(again["answer"]) == dict(expected["answer"])
    assert list(again["ci_low"].dropna()) == pytest.approx(list(expected["ci_low"].dropna()))
