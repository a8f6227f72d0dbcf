import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roadmap.common import files
from roadmap.common.process_group import ALONE
from roadmap.jobs import launcher
from roadmap.jobs.launcher import prepare
from roadmap.jobs.status import Queue, is_at_work, look_at_queue, standing
from roadmap.jobs.tasks import Setting, Stopped, item_of
from roadmap.jobs.worker import Job
from roadmap.robustness import evaluation
from roadmap.robustness.settings import Settings, is_complete, read_found
from roadmap.robustness.task import RobustnessTask
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker, attempts_of
from roadmap.runs.claims import take
from roadmap.runs.config import RunConfig
from roadmap.study.plan import PlannedRun
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import train
from tests.conftest import write_tiny
from tests.processes import Command, wait_for, writing
from tests.samples import SHORT_LADDER

SLIGHT = Settings(12, (4.0,), steps=2, check_images=5, check_steps=3, check_restarts=2, check_queries=2)
TASK = RobustnessTask(SLIGHT)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., RunConfig], small_images: Path
) -> PlannedRun:
    """A run that is trained."""
    config = tiny_run(epochs=1)
    run = PlannedRun(config, ("only",), tmp_path_factory.mktemp("trained") / config.id)
    prepare([run])
    train(config, run.folder, data_root=small_images)
    return run


@pytest.fixture
def folder(trained: PlannedRun, tmp_path: Path) -> Path:
    """The run folder, for a test alone."""
    import shutil

    copy = tmp_path / "runs" / trained.folder.name
    shutil.copytree(trained.folder, copy)
    return copy


def job(folder: Path, images: Path, **options: Any) -> Job:
    return Job((folder,), images, task=TASK, **options)


def test_a_job_evaluates_what_is_missing_under_a_claim_of_its_own(folder: Path, small_images: Path) -> None:
    before = standing(folder, Queue())
    assert TASK.missing(folder) == SLIGHT.parts
    job(folder, small_images)()
    [entry] = read_found(folder)
    assert is_complete(entry)
    assert TASK.is_done(folder)
    assert [attempt.end for attempt in attempts_of(TASK.place(folder))] == ["finished"]
    assert standing(folder, Queue()) == before
    job(folder, small_images)()
    assert len(attempts_of(TASK.place(folder))) == 1


def test_a_run_that_another_evaluates_is_passed_by(folder: Path, small_images: Path) -> None:
    place = TASK.place(folder)
    place.mkdir()
    with take(place, Worker.here(), lambda worker: None):
        assert is_at_work(folder, Queue(), TASK)
        job(folder, small_images)()
    assert TASK.missing(folder) == SLIGHT.parts
    assert not is_at_work(folder, Queue(), TASK)


def test_a_failure_is_noted_and_the_next_launch_tries_again(
    folder: Path, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no such image")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", fail)
        job(folder, small_images)()
    failure = TASK.failure(folder)
    assert failure
    assert failure.content == {"error": "ValueError: no such image"}
    job(folder, small_images)()
    assert not TASK.is_done(folder)  # this order's answer stands
    with launcher._failures_cleared([folder], TASK, "again"):
        job(folder, small_images)()
    assert TASK.is_done(folder)


def test_what_is_asked_of_it_is_heard_between_two_parts(folder: Path, small_images: Path) -> None:
    answers = iter(["", "", "stop"])
    place = TASK.place(folder)
    place.mkdir()
    with writing(place) as writer, pytest.raises(Stopped):
        TASK.do(folder, Setting(small_images, 1, 1.0, lambda: next(answers), ALONE, (), writer))  # type: ignore[arg-type,return-value]
    assert TASK.missing(folder) == SLIGHT.parts[1:]


def test_cancel_reaches_the_evaluation_of_a_run_and_a_queued_one_does_not_count_as_training(folder: Path) -> None:
    item = item_of(TASK, folder)
    assert item == f"{folder.name}/robustness"
    logs = launcher_logs(folder.parent, item)
    assert launcher.cancel([folder], folder.parent) == 0
    assert files.read_json(logs / "cancelled") == [item]
    assert look_at_queue(folder.parent).launched == {}


def launcher_logs(runs: Path, item: str) -> Path:
    from roadmap.jobs.launch_folders import make_logs

    return make_logs(runs, "ours-0", "local", [[item]])


@pytest.mark.slow
def test_ctrl_c_ends_local_jobs_at_once_and_the_same_command_goes_on(tmp_path: Path, small_images: Path) -> None:
    recipe = write_tiny(tmp_path / "recipes", epochs=1)
    steps, runs = tmp_path / "steps.yaml", tmp_path / "work" / "runs"
    steps.write_text(SHORT_LADDER)
    words = ["--steps", str(steps), "--base", "resnet50", "--recipe", str(recipe), "--data", str(small_images)]
    words += ["--only", "short"]
    spec = StudySpec("resnet50", recipe, steps, only=["short"], data_root=small_images, runs=runs)
    [run] = prepare(plan_study(spec).planned())
    train(run.config, run.folder, data_root=small_images)
    folder = run.folder
    robustness = ["robustness", *words, "--radii", "4"]
    command = Command(tmp_path / "work", *robustness, "--images", "50", cores=1)
    wait_for(lambda: (folder / run_folder.ROBUSTNESS).exists(), what="a part")
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait(30).code == 130
    assert [attempt.end for attempt in attempts_of(folder / run_folder.ROBUSTNESS_CLAIMS)] == ["stopped"]
    assert Command(tmp_path / "work", *robustness, "--images", "50", cores=1).wait().code == 0
    [entry] = read_found(folder)
    assert is_complete(entry)
