import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import run_ladder
from analysis.evaluations.own_metrics import collect_own_metrics
from analysis.metrics import NAMES_TAKEN, metric_of
from analysis.report.record import read_record
from analysis.report.record_results import RecordResults
from analysis.report.write import write_record, write_report
from analysis.study_results import StudyResults
from roadmap import Metric, measures
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.process_group import ALONE
from roadmap.jobs.tasks import Setting, Stopped
from roadmap.jobs.worker import Job
from roadmap.ladder.ladder import read_ladder
from roadmap.metrics.own_metrics import find_metric
from roadmap.metrics.tasks import OwnMetricsTask
from roadmap.runs import run_folder
from roadmap.runs.attempts import attempts_of
from roadmap.runs.metrics import all_measured, path_of, read_measured, values_of
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.conftest import write_tiny
from tests.processes import writing
from tests.robustness.test_settings_and_evaluation import RUNGS, leave_result
from tests.samples import LADDER

OOD = """\
from roadmap import Metric, measures


@measures(ood=Metric("OOD top-1 (%)", better=1, margin=0.5), flips=Metric("flips", better=-1, digits=".3f", unit=""))
def ood(network, data):
    images, labels = next(iter(data.test()))
    right = (network(-images).argmax(1) == labels).double().mean()
    return {"ood": 100 * right, "flips": float((network(images).argmax(1) != network(images.flip(3)).argmax(1)).sum())}


@measures(depth=Metric("depth", unit="layers"))
def depth(network, data):
    return len(list(network.modules()))


@measures(broken=Metric("broken"))
def broken(network, data):
    raise RuntimeError("no such\\nimages")


@measures(nothing=Metric("nothing"))
def nothing(network, data):
    return float("nan")


@measures(noise=Metric("noise"))
def noise(network, data):
    import random

    import numpy
    import torch

    return random.random() + numpy.random.rand() + torch.rand(1)


@measures(pruned=Metric("pruned", unit=""))
def pruned(network, data):
    for parameter in network.parameters():
        parameter.data.zero_()
    return sum(parameter.abs().sum() for parameter in network.parameters())


def undeclared(network, data):
    return 0.0
"""


@pytest.fixture
def my_metrics(tmp_path: Path) -> Iterator[Path]:
    """A file of a user's own metrics."""
    path = tmp_path / "my_metrics.py"
    path.write_text(OOD)
    yield path
    sys.modules.pop("my_metrics", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_images: Path) -> Study:
    """Three rungs with two seeds each, as if they were trained."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_tiny(folder / "recipes")
    study = plan_study(
        StudySpec("resnet50", recipe, only=RUNGS, seeds=(0, 1), runs=folder / "runs", data_root=small_images)
    )
    for number, run in enumerate(study.planned()):
        leave_result(run, number)
    return study


@pytest.fixture
def study(trained: Study, tmp_path: Path) -> Study:
    """The same, for a test alone."""
    shutil.copytree(trained.runs.parent, tmp_path, dirs_exist_ok=True)
    return replace(trained, runs=tmp_path / "runs")


def found(path: Path, *names: str) -> OwnMetricsTask:
    return OwnMetricsTask(tuple(find_metric(f"{path}:{name}", {}) for name in names))


def measure(study: Study, images: Path, task: OwnMetricsTask) -> None:
    Job(tuple(run.folder for run in study.planned()), images, task=task)()


def put(
    study: Study, values: dict[tuple[str, int], dict[str, float]], metrics: dict[str, Metric], at: float = 1.0
) -> None:
    """Leave what a function measured."""
    for (rung, seed), measured in values.items():
        content = {
            "own_metrics_version": 1, "function": "ood", "file": "my_metrics.py", "fingerprint": f"{int(at):012d}",
            "weights_fingerprint": "0", "at": at, "metrics": {name: vars(about) for name, about in metrics.items()},
            "values": measured,
        }  # fmt: skip
        files.write_json(path_of(study.folder(study.configs[rung, seed]), "ood", f"{int(at):012d}"), content)


# -- what a function returns


@given(st.floats(-1e17, 1e17), st.sampled_from([float, np.float64, np.array, torch.tensor]))
def test_a_number_of_any_kind_is_the_number(value: float, kind: Callable[[float], Any]) -> None:
    wanted = float(kind(value))
    assert values_of(kind(value), {"a": Metric("a")}) == {"a": wanted}
    assert values_of({"a": kind(value), "b": 1}, {"a": Metric("a"), "b": Metric("b")}) == {"a": wanted, "b": 1.0}


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "a is NoneType None, which is no number"),
        ("5", "a is str '5', which is no number"),
        (True, "a is bool True, which is no number"),
        (torch.ones(3), "which is no number"),
        (float("nan"), "a is nan, but must be a finite number"),
        (torch.tensor(float("inf")), "a is inf, but must be a finite number"),
        ({"b": 1.0}, "returned b, but declares a"),
        ({"a": 1.0, "b": 1.0}, "returned a, b, but declares a"),
        ({}, "returned nothing, but declares a"),
    ],
)
def test_what_is_no_number_of_each_metric_is_refused(returned: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        values_of(returned, {"a": Metric("a")})


def test_of_several_metrics_each_needs_its_name() -> None:
    with pytest.raises(UserError, match=r"returned float 1\.0, but declares a, b"):
        values_of(1.0, {"a": Metric("a"), "b": Metric("b")})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"label": " "}, "its label is empty"),
        ({"better": 0}, r"better is 0, but must be 1 \(more is better\) or -1"),
        ({"margin": -1.0}, r"margin is -1\.0"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"digits": "x"}, "digits are 'x', but must be a format such as"),
    ],
)
def test_a_metric_that_could_not_be_judged_or_printed_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Metric(**{"label": "OOD"} | fields)


def test_a_function_declares_metrics_and_at_least_one() -> None:
    with pytest.raises(UserError, match="declares nothing"):
        measures()
    with pytest.raises(UserError, match="'ood' is 5, but must be a Metric"):
        measures(ood=5)  # type: ignore[arg-type]


# -- finding it


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("ood", "'ood' names no function. Say FILE:FUNCTION"),
        ("{}", "names no function"),
        ("{}:", "names no function"),
        ("{}:odd", "unknown function 'odd'. Did you mean 'ood'? Known: ood, depth"),
        ("{}:undeclared", "does not say what it measures. Write @measures(undeclared=Metric"),
        ("gone.py:ood", "cannot be read (No such file"),
    ],
)
def test_a_function_that_is_none_is_refused_with_the_way_out(place: str, said: str, my_metrics: Path) -> None:
    with pytest.raises(UserError) as error:
        find_metric(place.format(my_metrics), {})
    assert said in str(error.value)


def test_a_name_that_another_metric_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "same_names.py"
    path.write_text("from roadmap import Metric, measures\n\n\n@measures(top1=Metric('x'))\ndef f(n, d): return 1\n")
    with pytest.raises(UserError, match="'top1' is another metric already"):
        find_metric(f"{path}:f", NAMES_TAKEN)


def test_a_file_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad_metrics.py"
    path.write_text("import nowhere_at_all\n")
    with pytest.raises(UserError, match=r"cannot be imported \(ModuleNotFoundError"):
        find_metric(f"{path}:f", {})


def test_a_ladder_names_its_metrics_from_its_own_folder_and_hands_them_down(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"metrics: [my_metrics.py:ood]\n{LADDER}")
    assert read_ladder(tmp_path / "mine.yaml").metrics == (f"{tmp_path}/my_metrics.py:ood",)
    assert read_ladder().metrics == ()


# -- measuring


def test_each_network_is_measured_once_and_an_edited_file_measures_anew(
    study: Study, small_images: Path, my_metrics: Path
) -> None:
    folder = study.planned()[0].folder
    task = found(my_metrics, "ood", "depth")
    assert task.missing(folder) == ("my_metrics.py:ood", "my_metrics.py:depth")
    measure(study, small_images, task)
    first = {content["function"]: content for content in all_measured(folder)}
    assert first["ood"]["metrics"]["ood"] == Metric("OOD top-1 (%)", 1, 0.5)
    assert first["ood"]["metrics"]["flips"].better == -1
    assert first["depth"]["values"]["depth"] > 10
    assert all(task.is_done(run.folder) for run in study.planned())
    measure(study, small_images, task)
    assert len(attempts_of(task.place(folder))) == 1
    my_metrics.write_text(OOD.replace("-images", "0 * images"))
    edited = found(my_metrics, "ood")
    assert edited.missing(folder) == ("my_metrics.py:ood",)
    Job((folder,), small_images, task=edited)()
    assert edited.is_done(folder)
    assert {(content["function"], content["fingerprint"]) for content in all_measured(folder)} == {
        *((name, task.metrics[0].fingerprint) for name in ("ood", "depth")),
        ("ood", edited.metrics[0].fingerprint),
    }


def test_weights_that_were_trained_again_are_measured_again(study: Study, small_images: Path, my_metrics: Path) -> None:
    run, other = study.planned()[:2]
    task = found(my_metrics, "depth")
    measure(study, small_images, task)
    shutil.copy(other.folder / run_folder.WEIGHTS, run.folder / run_folder.WEIGHTS)
    assert task.missing(run.folder) == ("my_metrics.py:depth",)


def test_what_a_function_does_to_the_network_or_draws_changes_no_other_number(
    study: Study, small_images: Path, my_metrics: Path
) -> None:
    runs = study.planned()[:2]
    together, alone = found(my_metrics, "noise", "pruned", "ood"), found(my_metrics, "ood")
    Job((runs[0].folder,), small_images, task=alone)()
    [before] = all_measured(runs[0].folder)
    path_of(runs[0].folder, "ood", before["fingerprint"]).unlink()
    for run in runs:
        Job((run.folder,), small_images, task=together)()
    values = [{name: v for c in all_measured(run.folder) for name, v in c["values"].items()} for run in runs]
    assert values[0]["noise"] == values[1]["noise"]
    assert values[0]["pruned"] == 0
    assert {name: values[0][name] for name in before["values"]} == before["values"]


def test_a_function_that_fails_is_noted_and_costs_neither_the_run_nor_the_others(
    study: Study, small_images: Path, my_metrics: Path
) -> None:
    task = found(my_metrics, "broken", "nothing", "depth")
    folder = study.planned()[0].folder
    row = (folder / run_folder.RESULT).read_text()
    Job((folder,), small_images, task=task)()
    failure = task.failure(folder)
    assert failure
    assert failure.content["error"] == (
        "my_metrics.py:broken: RuntimeError: no such images; my_metrics.py:nothing: nothing is nan, but must be a "
        "finite number. Nothing can be judged with it."
    )
    assert task.missing(folder) == ("my_metrics.py:broken", "my_metrics.py:nothing")
    assert (folder / run_folder.RESULT).read_text() == row
    assert collect_own_metrics(study).frame["depth"].notna().sum() == 1
    assert any("RuntimeError: no such images" in note for note in collect_own_metrics(study).notes)


def test_a_file_that_changed_between_the_command_and_the_job_is_refused(
    study: Study, small_images: Path, my_metrics: Path
) -> None:
    task = found(my_metrics, "depth")
    my_metrics.write_text(OOD + "\n")
    folder = study.planned()[0].folder
    Job((folder,), small_images, task=task)()
    failure = task.failure(folder)
    assert failure
    assert "has changed since the command was started" in failure.content["error"]
    assert not all_measured(folder)


def test_a_job_that_is_asked_to_stop_stops_between_two_functions(
    study: Study, small_images: Path, my_metrics: Path
) -> None:
    task, folder = found(my_metrics, "depth", "ood"), study.planned()[0].folder
    answers = iter(["", "stop"])
    task.place(folder).mkdir()
    with writing(task.place(folder)) as writer, pytest.raises(Stopped):
        task.do(folder, Setting(small_images, 1, 1.0, lambda: next(answers), ALONE, (), writer))  # type: ignore[arg-type,return-value]
    assert task.missing(folder) == ("my_metrics.py:ood",)


# -- what is made of it

METRICS = {"ood": Metric("OOD top-1 (%)", 1, 0.5), "flips": Metric("flipped images", -1, 3.0, ".1f", "images")}
VALUES = {
    (rung, seed): {"ood": 30.0 + 5 * place + 0.1 * seed, "flips": 60.0 - 20 * place + 2 * seed}
    for place, rung in enumerate(RUNGS)
    for seed in (0, 1)
}


def test_own_metrics_are_judged_by_their_own_direction_and_margin(study: Study) -> None:
    put(study, VALUES, METRICS)
    judged = StudyResults(study).verdicts
    assert judged["metric"].unique()[-2:].tolist() == ["flips", "ood"]
    changes = judged.set_index(["metric", "step"])
    found = {metric: changes.loc[(metric, "baseline")] for metric in METRICS}
    assert [found[name]["delta"] for name in ("ood", "flips")] == pytest.approx([5, -20])
    assert {found[name]["answer"] for name in METRICS} == {"helps"}
    assert [found[name]["margin"] for name in ("ood", "flips")] == [0.5, 3.0]
    assert changes.loc[("ood", "gelu"), "answer"] == "not tested"  # the rung before it is not here
    assert metric_of("flips").label == "flipped images"


def test_a_report_shows_own_metrics_as_it_shows_top1_and_a_record_of_it_is_judged_again(
    study: Study, tmp_path: Path
) -> None:
    put(study, VALUES, METRICS)
    written = {path.name for path in write_report(StudyResults(study), tmp_path / "out")}
    assert {"own_metrics.csv", "verdicts-ood.svg", "verdicts-flips.pdf"} <= written
    text = (tmp_path / "out" / "ladder.md").read_text()
    assert "| baseline | 2 | 41.0 ± 1.4 | 35.05 ± 0.07 |" in text
    assert "OOD top-1 (%): 1 of 2 answered" in (tmp_path / "out" / "verdicts.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What each step did to OOD top-1, and how sure that is" in page
    assert "Own metrics, measured of the trained networks" in page
    again = RecordResults(read_record(tmp_path / "out"))
    before = pd.read_csv(tmp_path / "out" / "verdicts.csv").query("metric in ['ood', 'flips']")
    after = pd.concat(again.verdicts).query("metric in ['ood', 'flips']")
    assert list(zip(after["metric"], after["step"], after["answer"], strict=True)) == list(
        zip(before["metric"], before["step"], before["answer"], strict=True)
    )
    copied = {path.name for path in write_record(again, tmp_path / "again")}
    assert {"own_metrics.csv", "verdicts-ood.svg"} <= copied
    for path in study.runs.glob("*/own_metrics"):
        shutil.rmtree(path)
    write_report(StudyResults(study), tmp_path / "out")
    assert not (tmp_path / "out" / "verdicts-ood.svg").exists()


def test_what_was_not_measured_of_all_networks_says_so(study: Study) -> None:
    put(study, {key: VALUES[key] for key in list(VALUES)[:5]}, METRICS)
    assert collect_own_metrics(study).notes == (
        "ood, flips: measured of 5 of 6 networks. 'evaluate' measures the others.",
    )


def test_the_newest_version_is_shown_unless_the_file_holds_an_older_one(
    study: Study, my_metrics: Path, small_images: Path
) -> None:
    folder = study.planned()[0].folder
    first = found(my_metrics, "depth")
    Job((folder,), small_images, task=first)()
    my_metrics.write_text(OOD.replace("len(list(network.modules()))", "-1"))
    Job((folder,), small_images, task=found(my_metrics, "depth"))()
    assert collect_own_metrics(study).frame["depth"].to_list() == [-1]
    my_metrics.write_text(OOD)
    assert collect_own_metrics(study).frame["depth"].to_list() > [10]
    my_metrics.write_text(OOD + "\n")
    shown = collect_own_metrics(study)
    assert shown.frame["depth"].to_list() == [-1]
    assert any("my_metrics.py:depth has changed since it measured these" in note for note in shown.notes)


@pytest.mark.parametrize("content", ["{", "[]", '{"own_metrics_version": 1}', "deeper"])
def test_a_damaged_file_counts_as_none(content: str, study: Study) -> None:
    put(study, VALUES, METRICS)
    [path] = study.planned()[0].folder.glob("own_metrics/*.json")
    if content == "deeper":
        content = path.read_text().replace('"better": 1', '"better": 7')
    path.write_text(content)
    assert read_measured(path) is None
    assert len(collect_own_metrics(study).frame) == 5


def test_a_file_of_another_version_is_not_read(study: Study) -> None:
    put(study, VALUES, METRICS)
    [path] = study.planned()[0].folder.glob("own_metrics/*.json")
    path.write_text(path.read_text().replace('"own_metrics_version": 1', '"own_metrics_version": 2'))
    assert read_measured(path) is None


# -- the command


def evaluate(study: Study, images: Path, *words: str, command: str = "evaluate") -> int:
    recipe = study.runs.parent / "recipes" / "tiny.yaml"
    place = ["--base", "resnet50", "--recipe", str(recipe), "--runs", str(study.runs), "--data", str(images)]
    rest = ["--only", *RUNGS, "--seeds", "0", "1", "--executor", "debug"]
    return run_ladder.main([command, *place, *rest, *words])


def test_the_command_measures_what_is_trained_and_prints_the_answers(
    study: Study, small_images: Path, my_metrics: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study.planned()[0].folder / run_folder.RESULT).unlink()
    assert evaluate(study, small_images, "--metric", f"{my_metrics}:ood", f"{my_metrics}:depth") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "6 runs, 5 trained, 0 evaluated already, 5 to do, with my_metrics.py:ood, my_metrics.py:depth" in out
    assert "Changes of OOD top-1 (%) from the rung before" in out
    assert evaluate(study, small_images, "--metric", f"{my_metrics}:broken", "--json") == 1
    printed = capsys.readouterr()
    assert "RuntimeError: no such images" in printed.err
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert len(rows) == 5
    assert rows[0].keys() == {"base", "rung", "seed", "run", "ood", "flips", "depth"}


def test_a_plan_names_the_metrics_and_refuses_one_that_is_none(
    study: Study, small_images: Path, my_metrics: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(study, small_images, "--metric", f"{my_metrics}:ood", command="plan") == 0
    assert "measured: ood, flips (my_metrics.py:ood)" in " ".join(capsys.readouterr().out.split())
    for command in ("plan", "evaluate"):
        assert evaluate(study, small_images, "--metric", f"{my_metrics}:odd", command=command) == 2
        assert "Did you mean 'ood'?" in capsys.readouterr().err
    assert evaluate(study, small_images) == 2
    assert "which metric? Say --metric FILE:FUNCTION" in capsys.readouterr().err
    assert evaluate(study, small_images, "--metric", f"{my_metrics}:ood", f"{my_metrics}:ood", command="plan") == 0


@pytest.mark.usefixtures("only_svg")
def test_run_measures_what_it_trained_and_reports_it(
    study: Study, small_images: Path, my_metrics: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--metric", f"{my_metrics}:ood", "--out", str(tmp_path / "out"))
    assert evaluate(study, small_images, *words, command="run") == 0
    assert "OOD top-1 (%)" in (tmp_path / "out" / "ladder.md").read_text()
    assert f"--metric {my_metrics}:ood" in (tmp_path / "out" / "report.html").read_text()
    assert evaluate(study, small_images, "--metric", f"{my_metrics}:broken", *words[2:], command="run") == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "not evaluated: my_metrics.py:broken: RuntimeError: no such images" in out
    assert "6 of 6 runs done" in out
