"""Detectors and segmenters as work of jobs on the trained networks of a study."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roadmap import StudySpec, plan_study
from roadmap import train as train_run
from roadmap.cli.main import main
from roadmap.common.errors import UserError
from roadmap.downstream.task import DownstreamTask, plan_task
from roadmap.downstream.task_recipe import read_task
from roadmap.jobs.cluster import Cluster
from roadmap.jobs.launcher import launch, prepare
from roadmap.jobs.options import JobOptions
from roadmap.jobs.worker import Job
from roadmap.networks.config import NetConfig
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker, attempts_of, last_attempt
from roadmap.runs.config import RunConfig
from roadmap.runs.metrics import all_measured
from roadmap.study.plan import PlannedRun
from roadmap.training.checkpoints import checkpoints
from roadmap.training.loop import train
from tests.downstream.samples import TINY, write_tiny_task
from tests.processes import fork, wait_for
from tests.slurm import Slurm

NET = NetConfig(depths=(1, 1, 1, 1), widths=(4, 4, 8, 8))
RECIPE = replace(read_task("segmentation"), **TINY)  # type: ignore[arg-type]
TASK = DownstreamTask(RECIPE, data="scenes-1")
DETECTOR = DownstreamTask(replace(read_task("detection"), **TINY), data="scenes-1")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., RunConfig], small_images: Path
) -> PlannedRun:
    """A run that is trained."""
    config = tiny_run(epochs=1, net=NET)
    run = PlannedRun(config, ("only",), tmp_path_factory.mktemp("trained") / config.id)
    prepare([run])
    train(config, run.folder, data_root=small_images)
    return run


@pytest.fixture
def folder(trained: PlannedRun, tmp_path: Path) -> Path:
    """The run folder, for a test alone."""
    copy = tmp_path / "runs" / trained.folder.name
    shutil.copytree(trained.folder, copy)
    return copy


def job(folder: Path, task: DownstreamTask = TASK, **options: Any) -> Job:
    return Job((folder,), None, task=task, **options)


def test_a_job_trains_and_tests_once_and_its_numbers_stand_beside_the_run(folder: Path) -> None:
    assert len(TASK.missing(folder)) == 20
    job(folder)()
    assert TASK.is_done(folder)
    [measured] = all_measured(folder)
    assert measured["values"].keys() == {"miou", "pixel_accuracy"}
    assert measured["metrics"]["miou"].label == "mIoU (%)"
    left = {path.name for path in TASK.place(folder).iterdir()}
    assert left == {"attempts", "progress.json", "model.safetensors", "examples.png"}
    job(folder)()
    assert [attempt.end for attempt in attempts_of(TASK.place(folder))] == ["finished"]


def _work_slowly(folder: Path, task: DownstreamTask) -> None:
    """Do the task, saving after every step."""
    from roadmap.downstream import training

    training.LOOK_EVERY_S = 0.0
    job(folder, task, save_every_s=0.0)()


@pytest.mark.parametrize("short", [TASK, DETECTOR], ids=["segmentation", "detection"])
def test_work_that_is_killed_ends_with_the_numbers_of_work_that_is_not(
    short: DownstreamTask, folder: Path, tmp_path: Path
) -> None:
    task, other = replace(short, recipe=replace(short.recipe, steps=20)), tmp_path / "other" / folder.name
    shutil.copytree(folder, other)
    process = fork(_work_slowly, folder, task)
    wait_for(lambda: len(checkpoints(task.place(folder))) > 1, what="two checkpoints")
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not task.is_done(folder)
    for place in (folder, other):
        job(place, task)()
    assert [attempt.end for attempt in attempts_of(task.place(folder))] == ["died", "finished"]
    killed, undisturbed = (all_measured(place)[0] for place in (folder, other))
    assert killed["values"] == undisturbed["values"]
    weights = [(task.place(place) / run_folder.WEIGHTS).read_bytes() for place in (folder, other)]
    assert weights[0] == weights[1]


def test_the_command_trains_what_is_missing_and_the_report_has_it(
    tmp_path: Path, small_images: Path, write_recipes: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipes(epochs=1)
    task = write_tiny_task(tmp_path)
    only, runs = ["baseline", "stage_ratio"], tmp_path / "runs"
    words = ["--base", "resnet50", "--recipe", str(recipe), "--data", str(small_images), "--runs", str(runs)]
    words += ["--only", *only]
    study = plan_study(StudySpec("resnet50", str(recipe), only=only, data_root=small_images, runs=runs))
    for run in study.planned():
        train_run(run, data_root=small_images)
    command = ["downstream", *words, "--task", str(task), "--executor", "debug"]
    assert main(command) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "2 runs, 2 trained, 0 evaluated already, 2 to do, with task 'segmentation'" in out
    assert "mIoU (%)" in out
    assert main([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rung"] for row in rows] == ["baseline", "stage_ratio"]
    assert all(0 <= row["miou"] <= 100 for row in rows)
    assert main(["downstream", *words, "--task", "segmentatoin"]) == 2
    assert "unknown task 'segmentatoin'. Did you mean 'segmentation'" in capsys.readouterr().err
    assert main(["downstream", *words, "--task", "ade20k"]) == 2
    assert "task 'ade20k' needs images" in capsys.readouterr().err


def test_weights_that_changed_ask_for_the_task_anew_and_other_settings_are_another_task(folder: Path) -> None:
    job(folder)()
    other = DownstreamTask(replace(RECIPE, lr=1e-3), data="scenes-1")
    scratch = DownstreamTask(RECIPE, from_scratch=True, data="scenes-1")
    assert len({task.place(folder) for task in (TASK, other, scratch)}) == 3
    assert not other.is_done(folder)
    path = folder / run_folder.WEIGHTS
    path.write_bytes(path.read_bytes() + b" ")
    assert not TASK.is_done(folder)


def test_what_a_backbone_starts_from_makes_a_difference(folder: Path) -> None:
    scratch = DownstreamTask(RECIPE, from_scratch=True, data="scenes-1")
    for task in (TASK, scratch):
        job(folder, task)()
    found = {measured["function"]: measured for measured in all_measured(folder)}
    assert found["segmentation_from_scratch"]["values"].keys() == {
        "miou_segmentation_from_scratch", "pixel_accuracy_segmentation_from_scratch",
    }  # fmt: skip
    losses = [found[name]["details"]["train_loss"] for name in ("segmentation", "segmentation_from_scratch")]  # type: ignore[typeddict-item]
    assert losses[0] != losses[1]


def test_a_failure_is_noted_with_its_reason(folder: Path) -> None:
    (folder / run_folder.WEIGHTS).write_bytes(b"no weights")
    job(folder)()
    failure = TASK.failure(folder)
    assert failure is not None
    assert "damaged" in failure.content["error"]


def test_progress_is_told_in_twentieths(folder: Path) -> None:
    place = TASK.place(folder)
    place.mkdir()
    (place / run_folder.PROGRESS).write_text(json.dumps({"step": 2, "steps": 3}))
    parts = TASK.missing(folder)
    assert len(parts) == 7
    assert parts[0] == "segmentation, 65% of the steps"


def test_what_cannot_be_done_is_refused_before_any_job(trained: PlannedRun, tiny_run: Callable[..., RunConfig]) -> None:
    three = PlannedRun(tiny_run(net=NetConfig(depths=(1, 1, 1), widths=(4, 4, 8))), ("three",), trained.folder)
    with pytest.raises(UserError, match=r"rung 'three': the network has feature maps at strides 4, 8, 16, but"):
        plan_task("segmentation", [trained, three])
    with pytest.raises(UserError, match=r"task 'coco' needs images"):
        plan_task("coco", [trained])
    with pytest.raises(UserError, match=r"batch_size is 8, which 3 processes \(nodes x tasks_per_node\) cannot share"):
        plan_task("detection", [trained], processes=3)
    assert plan_task("detection", [trained], processes=4).name == "detection"


@pytest.mark.slurm
@pytest.mark.slow
def test_work_that_is_requeued_by_slurm_and_killed_ends_as_if_nothing_had_happened(
    slurm: Slurm, folder: Path, tmp_path: Path
) -> None:
    task, other = replace(DETECTOR, recipe=replace(DETECTOR.recipe, steps=100)), tmp_path / "other" / folder.name
    shutil.copytree(folder, other)
    cluster, place = Cluster(time_min=20, save_every_min=0.005), task.place(folder)
    options = JobOptions("slurm", folder.parent, "downstream", cluster, max_retries=5, wait=False)
    launch([folder], options, task=task)

    def worker_of(start: int) -> Worker | None:
        """Who is at it since its so-many-th start, once he has saved it."""
        last = last_attempt(place)
        is_saved = last and any(path.stat().st_mtime > last.path.stat().st_mtime for path in checkpoints(place))
        return last.worker() if last and last.number == start and is_saved else None

    first = wait_for(lambda: worker_of(1), what="a checkpoint")
    slurm.run("scontrol", "requeue", first.job)

    def second_worker() -> Worker | None:
        """Who goes on; until Slurm kills the first, he stands still, lest there be nothing left."""
        with suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGSTOP)
        return worker_of(2)

    second = wait_for(second_worker, what="a checkpoint of the second start")
    os.kill(second.pid, signal.SIGKILL)
    wait_for(lambda: task.is_done(folder), what="the outcome", timeout_s=120)
    slurm.wait_idle()
    job(other, task)()
    ends = [attempt.end for attempt in attempts_of(place)]
    assert ends[0] in ("preempted", "died")  # as soon or late as the job gets Slurm's signal
    assert ends[1:] == ["died", "finished"]
    assert all_measured(folder)[0]["values"] == all_measured(other)[0]["values"]
    weights = [(task.place(each) / run_folder.WEIGHTS).read_bytes() for each in (folder, other)]
    assert weights[0] == weights[1]
