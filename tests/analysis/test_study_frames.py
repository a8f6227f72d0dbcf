"""A study in a notebook: opened from wherever its numbers lie, as frames, figures and tables."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

import analysis
from analysis import StudyFrames, open_study
from analysis.history import CURVE_COLUMNS
from analysis.ladder_table import LADDER_COLUMNS
from analysis.study_results import StudyResults
from analysis.verdicts import VERDICT_COLUMNS
from roadmap.common.errors import UserError
from roadmap.jobs.launcher import prepare
from roadmap.runs import run_folder
from roadmap.study.spec import StudySpec, plan_study
from tests.artists import all_text, artists
from tests.processes import ROOT

RECORD = ROOT / "records" / "resnet50-fashion"
ROW = {"result_version": run_folder.RESULT_VERSION, "state": "finished", "top5": 99.0, "nll": 0.5, "ece": 1.0}


@pytest.fixture
def spec(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> StudySpec:
    """Return a study of two rungs, of whose three runs each one has a seed that the recipe does not name."""
    recipe = write_recipes(seeds=[0, 1], epochs=2)
    spec = StudySpec("resnet50", recipe, until="baseline", data_root=small_images, runs=tmp_path / "runs")
    for run in prepare(plan_study(StudySpec(**vars(spec) | {"seeds": [0, 1, 5]})).planned()):
        top1 = 70.0 + 5 * (run.rungs[0] == "baseline") + run.config.seed / 10
        result = ROW | {"top1": top1, "train_loss": 0.5, "images_per_s": 100.0, "train_s": 1.0, "wall_s": 1.0}
        (run.folder / run_folder.RESULT).write_text(json.dumps(result))
        lines = [json.dumps({"epoch": epoch, "train_loss": 2.0 - epoch}) for epoch in range(2)]
        (run.folder / run_folder.METRICS).write_text("\n".join(lines) + "\n")
    return spec


def test_two_calls_lead_from_a_name_to_frames(spec: StudySpec) -> None:
    settings = {name: value for name, value in vars(spec).items() if name in ("until", "data_root", "runs")}
    for study in (open_study(spec), open_study("resnet50", recipe=spec.recipe, **settings)):
        assert sorted(study.runs["seed"].unique()) == [0, 1, 5]  # those that have results, and not the recipe's alone
        assert list(study.verdicts) == list(VERDICT_COLUMNS)
        assert study.verdicts.query("metric == 'top1'")["delta"].tolist() == pytest.approx([5.0])
        assert list(study.ladder) == list(LADDER_COLUMNS)
        assert list(study.curves) == list(CURVE_COLUMNS)
        assert len(study.curves) == 2 * 3 * 2
        assert study.headline == study.results.headline
        assert {"roadmap", "verdicts", "curves"} <= set(study.figures)
    assert open_study(plan_study(StudySpec(**vars(spec) | {"seeds": [0]}))).runs["seed"].tolist() == [0, 0]
    assert open_study(spec, seeds=[1, 5]).runs["seed"].tolist() == [1, 5, 1, 5]


def test_a_record_is_opened_without_its_runs() -> None:
    study = open_study(RECORD)
    assert study.name == "resnet50-fashion"
    assert len(study.runs) == 102
    assert study.curves.empty
    assert list(study.curves) == list(CURVE_COLUMNS)
    assert set(study.figures) == {"roadmap", "verdicts"}
    assert study.verdicts["metric"].nunique() > 4


def test_any_results_are_opened_from_a_file_or_a_frame(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        [(rung, seed, top + seed / 10) for rung, top in (("a", 70), ("b", 80)) for seed in range(3)],
        columns=["rung", "seed", "acc"],
    )
    frame.to_csv(tmp_path / "mine.csv", index=False)
    for study in (open_study(tmp_path / "mine.csv", margin=1.0), open_study(frame, margin=1.0)):
        assert study.verdicts[["step", "against", "answer"]].to_numpy().tolist() == [["b", "a", "helps"]]
        assert study.verdicts["margin"].tolist() == [1.0]
        assert study.ladder["rung"].tolist() == ["a", "b"]
    assert open_study(frame, against="b").verdicts["step"].tolist() == ["a"]


def test_a_figure_is_an_object_that_can_be_restyled_and_is_as_wide_as_was_asked() -> None:
    study = open_study(RECORD)
    figure = study.draw("verdicts", width=3.3, title="My steps", labels={"gelu": "GELU!"})
    assert isinstance(figure, Figure)
    assert figure.get_size_inches()[0] == pytest.approx(3.3)
    assert "My steps" in all_text(figure)
    assert "GELU!" in all_text(figure)
    assert set(artists(figure, "change")) >= {"gelu", "layer_norm"}
    for name in study.figures:
        assert study.draw(name, width=5.0).get_size_inches()[0] == pytest.approx(5.0)


def test_tables_are_texts_for_latex() -> None:
    study = open_study(RECORD)
    narrow, wide, ladder = study.latex(), study.latex(columns=None), study.latex("ladder", labels={"gelu": "My GELU"})
    assert narrow.count("&") < wide.count("&")
    assert "\\toprule" in narrow
    assert "My GELU" in ladder


def test_the_report_is_that_of_the_command(tmp_path: Path) -> None:
    files = open_study(RECORD).write_report(tmp_path)
    assert {"report.html", "verdicts.tex", "roadmap.png"} <= {file.name for file in files}


def test_opened_studies_are_compared(spec: StudySpec) -> None:
    ours, record = open_study(spec), open_study(RECORD)
    found = ours.compare(record)
    assert found.main["step"].tolist() == ["baseline"]
    assert found.main["effect"].tolist() == pytest.approx([5.0])
    frame = open_study(ours.runs[["rung", "seed", "top1"]])
    assert frame.compare(ours).main["difference"].tolist() == pytest.approx([0.0])
    assert record.compare(frame).main["against_there"].tolist() == ["baseline_original"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: open_study("resnet51"), "unknown base 'resnet51'"),
        (lambda: open_study(ROOT / "records"), "no record here"),
        (lambda: open_study(RECORD, recipe="fashion"), "a record takes no recipe"),
        (lambda: open_study("nowhere.csv"), "nowhere.csv: cannot be read"),
        (lambda: open_study(RECORD).draw("forest"), "unknown figure 'forest'. Known: roadmap, verdicts"),
        (lambda: open_study(RECORD).latex("runs"), "unknown table 'runs'"),
        (lambda: open_study("resnet50", recipes="fashion"), "no setting 'recipes'. Did you mean 'recipe'"),
        (lambda: open_study(pd.DataFrame({"rung": ["a"], "seed": [0], "x": [1.0]}), agains="a"), "no setting 'agains'"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said_with_a_way_out(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert said in str(caught.value)


def test_the_public_names_are_there_and_say_what_they_are() -> None:
    assert {"open_study", "StudyFrames", "compare_effects", "judge", "collect"} <= set(dir(analysis))
    assert all(getattr(analysis, name).__doc__ for name in dir(analysis))
    assert isinstance(open_study(RECORD), StudyFrames)
    assert StudyResults.__doc__
