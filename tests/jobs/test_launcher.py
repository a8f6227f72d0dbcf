import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from roadmap.cli import run_commands
from roadmap.cli.commands import Exit
from roadmap.cli.options import job_options_of
from roadmap.common import files, machine
from roadmap.common.errors import UserError
from roadmap.common.machine import count_cores, this_machine
from roadmap.jobs import launch_folders, launcher, slurm_queue
from roadmap.jobs import worker as job_module
from roadmap.jobs.launch_folders import JOBS
from roadmap.jobs.launcher import prepare
from roadmap.jobs.options import JobOptions
from roadmap.jobs.retries import Retries
from roadmap.jobs.slurm_arrays import share_out
from roadmap.jobs.status import Queue, standing
from roadmap.jobs.tasks import TRAINING
from roadmap.jobs.worker import Job
from roadmap.ladder.ladder import read_ladder
from roadmap.runs import run_folder
from roadmap.runs.attempts import ATTEMPTS, Worker, last_attempt
from roadmap.runs.claims import take
from roadmap.runs.config import RunConfig
from roadmap.study.plan import PlannedRun, Study
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training import loop as train_module
from roadmap.training.checkpoints import checkpoints, write_checkpoint
from roadmap.training.loop import _Training, train
from tests.conftest import write_tiny
from tests.processes import ROOT, Command, Outcome, outcome, wait_for, writing
from tests.runs.test_attempts import leave_attempt, names, nobody

MakeRecipes = Callable[..., Path]
MakeRun = Callable[..., RunConfig]
# The first two rungs of the paper's ladder, with a network that trains in a second.
STEPS = """\
bases: {resnet50: {label: ResNet-50, result: End}}
rungs:
  - {id: start, label: start, recipe: plain}
  - {id: plain, label: plain, step: stage_ratio, args: {blocks: [1, 1, 1, 1]}}
  - {id: modern, label: modern, step: enhanced_recipe}
"""


@dataclass
class TwoRungs:
    """Two rungs under a tiny recipe, in a folder of their own, from the command line; one thread a job."""

    folder: Path
    recipe: Path
    data: Path
    only: tuple[str, ...] = ("plain", "modern")

    def __post_init__(self) -> None:
        self.steps = self.folder / "steps.yaml"
        self.steps.write_text(STEPS)

    def start(self, *action: str, jobs: int = 2, executor: str = "local", more: Sequence[str] = ()) -> Command:
        options = ["--steps", self.steps, "--base", "resnet50", "--only", *self.only, "--recipe", self.recipe]
        options += ["--data", self.data, "--jobs", jobs, "--executor", executor, *more]
        return Command(self.folder / "work", *action, *map(str, options), cores=jobs)

    def go_on(self) -> Outcome:
        """Do what is left in the command itself, which saves the start of a job."""
        return self.start(jobs=1, executor="debug").wait()

    @property
    def study(self) -> Study:
        """The same study in this process."""
        runs = self.folder / "work" / "runs"
        return plan_study(
            StudySpec("resnet50", self.recipe, self.steps, only=self.only, runs=runs, data_root=self.data)
        )

    def planned(self) -> list[PlannedRun]:
        return self.study.planned()

    def states(self) -> list[str]:
        return states(self.planned())

    def starts(self) -> list[int]:
        """How often each run was started, as the jobs' logs say."""
        lines = [line for log in self.logs() for line in log.read_text().splitlines()]
        counts = Counter(line.removesuffix(": start") for line in lines if line.endswith(": start"))
        return [counts[run.config.id] for run in self.planned()]

    def logs(self) -> list[Path]:
        return list((self.folder / "work" / "runs" / "jobs").rglob("*_log.out"))

    def wait_for_worker(self, after: int = 0) -> Worker:
        """Wait until the first run has an attempt beyond this number, and return who makes it."""

        def there() -> Worker | None:
            last = last_attempt(self.planned()[0].folder)
            return last.worker() if last and last.end is None and last.number > after else None

        worker: Worker = wait_for(there, what="an attempt")
        return worker

    def wait_until_under_way(self, count: int) -> None:
        """Wait until so many runs are past their first epoch."""
        wait_for(
            lambda: sum(bool(run_folder.read_metrics(run.folder)) for run in self.planned()) >= count, what="an epoch"
        )

    def processes(self) -> list[int]:
        """Return the processes that have to do with this folder and are alive: jobs and their controllers."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words, state = (
                    (entry / "cmdline").read_bytes(),
                    (entry / "stat").read_text().rpartition(")")[2].split()[0],
                )
            except (OSError, IndexError):
                continue
            if entry.name.isdecimal() and str(self.folder).encode() in words and state not in "ZX":
                found.append(int(entry.name))
        return found

    def check_as_if_undisturbed(self) -> None:
        """Hold every run against the same one trained in this process at one go."""
        for run in self.planned():
            there = self.folder / "undisturbed" / run.config.id
            there.mkdir(parents=True)
            train(run.config, there, data_root=self.data)
            assert outcome(run.folder) == outcome(there)


def states(planned: Sequence[PlannedRun]) -> list[str]:
    return [standing(run.folder, Queue()).state for run in planned]


@pytest.fixture
def two_rungs(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> TwoRungs:
    return TwoRungs(tmp_path, write_recipes(), small_images)


@pytest.fixture
def longer(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> TwoRungs:
    """Runs of some seconds, so that something can happen to them."""
    return TwoRungs(tmp_path, write_recipes(epochs=14), small_images)


@pytest.fixture
def endless(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> TwoRungs:
    return TwoRungs(tmp_path, write_recipes(epochs=2000), small_images)


# -- a ladder from the command line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_images: Path) -> TwoRungs:
    """The two rungs, trained and reported."""
    folder = tmp_path_factory.mktemp("trained")
    ladder = TwoRungs(folder, write_tiny(folder / "recipes"), small_images)
    ended = ladder.start().wait()
    assert (ended.code, ended.err) == (0, "")
    assert "2 runs, 0 done already, 2 to do" in ended.out
    assert "2 of 2 runs done" in ended.out
    return ladder


@pytest.mark.slow
def test_a_ladder_is_trained_in_jobs_and_reported(trained: TwoRungs) -> None:
    assert trained.states() == ["finished", "finished"]
    assert trained.starts() == [1, 1]
    assert len(trained.logs()) == 2
    trained.check_as_if_undisturbed()
    out = trained.folder / "work" / "out" / "resnet50-tiny-steps"  # of its own steps.yaml
    assert {"results.csv", "ladder.csv", "ladder.md", "roadmap.png", "roadmap.svg", "roadmap.pdf"} <= set(
        os.listdir(out)
    )
    rows = [run_folder.read_result(run.folder) for run in trained.planned()]
    table = (out / "ladder.md").read_text()
    assert all(row and f"| {row['top1']:.2f} |" in table for row in rows)


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(trained: TwoRungs) -> None:
    def times() -> list[int]:
        return [(run.folder / file).stat().st_mtime_ns for run in trained.planned() for file in os.listdir(run.folder)]

    before, starts = times(), trained.starts()
    ended = trained.start().wait()
    assert (ended.code, ended.err) == (0, "")
    assert "2 done already, 0 to do" in ended.out
    assert (times(), trained.starts()) == (before, starts)


@pytest.mark.slow
def test_a_changed_recipe_reruns_what_it_touches_and_nothing_else(trained: TwoRungs) -> None:
    other = replace(trained, recipe=write_tiny(trained.folder / "changed", plain={"lr": 0.01}))
    assert [run.config.id for run in other.planned()][1] == [run.config.id for run in trained.planned()][1]
    ended = other.start(executor="debug").wait()
    assert ended.code == 0
    assert "2 runs, 1 done already, 1 to do" in ended.out
    assert ended.out.count(": start\n") == 1
    assert f"{other.planned()[0].config.id}: start\n" in ended.out


# -- what can happen to it


@pytest.mark.slow
def test_ctrl_c_saves_every_run_leaves_no_process_and_the_same_command_goes_on(longer: TwoRungs) -> None:
    command = longer.start()
    longer.wait_until_under_way(2)
    os.killpg(command.pid, signal.SIGINT)  # as the terminal does, to the command and its jobs alike
    ended = command.wait()
    assert (ended.code, ended.err) == (130, "")
    assert "The same command goes on from here" in ended.out
    assert longer.processes() == []
    assert longer.states() in (["interrupted", "interrupted"], ["finished", "interrupted"], ["interrupted", "finished"])
    for run, state in zip(longer.planned(), longer.states(), strict=True):
        assert bool(checkpoints(run.folder)) == (state == "interrupted")
    ended = longer.start(jobs=1).wait()
    assert ended.code == 0
    assert "2 of 2 runs done" in ended.out
    longer.check_as_if_undisturbed()


@pytest.mark.slow
def test_a_command_asked_to_end_saves_its_run_and_leaves_no_process(endless: TwoRungs) -> None:
    command = endless.start(jobs=1)
    endless.wait_until_under_way(1)
    command.process.terminate()
    assert command.wait().code == 130
    assert endless.processes() == []
    assert endless.states() == ["interrupted", "waiting"]
    assert checkpoints(endless.planned()[0].folder)


@pytest.mark.slow
def test_the_jobs_of_a_killed_command_save_their_runs_and_end(longer: TwoRungs) -> None:
    longer = replace(longer, only=("plain",))
    command = longer.start(jobs=1)
    longer.wait_until_under_way(1)
    command.process.kill()
    command.process.join()
    wait_for(lambda: not longer.processes(), what="the end of the jobs", timeout_s=60)
    assert longer.states() == ["interrupted"]
    assert checkpoints(longer.planned()[0].folder)
    assert longer.go_on().code == 0
    longer.check_as_if_undisturbed()


@pytest.mark.slow
def test_the_run_of_a_killed_job_is_tried_again_by_the_command_that_waits(longer: TwoRungs) -> None:
    longer = replace(longer, only=("plain",))
    command = longer.start(jobs=1)
    longer.wait_until_under_way(1)
    os.kill(longer.wait_for_worker().pid, signal.SIGKILL)
    ended = command.wait()
    assert (ended.code, ended.err) == (0, "")
    assert "1 runs ended without a word (killed?). Trying again." in ended.out
    assert "1 of 1 runs done" in ended.out
    (run,) = longer.planned()
    assert names(run.folder) == ["0001-died.json", "0002-finished.json"]
    longer.check_as_if_undisturbed()


@pytest.mark.slow
@pytest.mark.parametrize("most", [0, 1])
def test_a_run_that_is_killed_each_time_is_tried_so_often_and_reported_as_lost(endless: TwoRungs, most: int) -> None:
    endless = replace(endless, only=("plain",))
    command = endless.start(jobs=1, more=["--max-retries", str(most)])
    for number in range(most + 1):
        os.kill(endless.wait_for_worker(after=number).pid, signal.SIGKILL)
    ended = command.wait()
    assert (ended.code, ended.err) == (1, "")
    times = f"died {most + 1} time{'s' if most else ''}"
    assert f"plain seed 0 lost: {times} (log:" in " ".join(ended.out.split())
    assert "1 runs did not finish. The same command goes on with them." in ended.out
    (run,) = endless.planned()
    assert len([name for name in names(run.folder) if name.endswith(".json")]) == most + 1
    row, *_ = endless.start("status", "--json").wait().rows()
    assert (row["state"], row["note"]) == ("lost", times)


@pytest.mark.slow
def test_two_commands_at_once_never_train_the_same_run_twice_and_both_report_all(two_rungs: TwoRungs) -> None:
    commands = [two_rungs.start(jobs=1), two_rungs.start(jobs=1)]
    for ended in [command.wait() for command in commands]:
        assert (ended.code, ended.err) == (0, "")
        assert "2 of 2 runs done" in ended.out
    assert two_rungs.states() == ["finished", "finished"]
    assert two_rungs.starts() == [1, 1]


@pytest.mark.slow
def test_a_command_waits_for_a_run_that_another_one_trains(longer: TwoRungs) -> None:
    longer = replace(longer, only=("plain",))
    commands = [longer.start(jobs=1)]
    longer.wait_until_under_way(1)
    commands.append(longer.start(jobs=1))
    ended = [command.wait() for command in commands]
    assert [(one.code, one.err) for one in ended] == [(0, ""), (0, "")]
    assert "1 runs, 0 done already, 1 at work, 0 to do." in ended[1].out
    assert "1 of 1 runs done" in ended[1].out
    assert longer.starts() == [1]


@pytest.mark.slow
def test_a_failed_run_costs_only_itself_and_is_tried_again_by_the_next_command_alone(two_rungs: TwoRungs) -> None:
    first, _ = two_rungs.planned()
    with writing(first.folder) as writer:
        write_checkpoint(writer, 3, {"model": {}})
    ended = two_rungs.start(jobs=1).wait()
    assert (ended.code, ended.err) == (1, "")
    said = " ".join(ended.out.split())
    assert re.search(r"plain seed 0 failed: UserError: .*: not a checkpoint of this run, so it was removed\.", said)
    assert "1 of 2 runs done" in ended.out
    assert two_rungs.states() == ["failed", "finished"]
    assert two_rungs.starts() == [1, 1]
    shown = " ".join(two_rungs.start("status").wait().out.split())
    assert re.search(r"plain seed 0, the end of .*log\.out: .*raise UserError.*not a checkpoint of this run", shown)
    ended = two_rungs.go_on()
    assert ended.code == 0
    assert ended.out.count(": start\n") == 1
    two_rungs.check_as_if_undisturbed()


@pytest.mark.slow
def test_ctrl_c_ends_the_debug_executor_too(endless: TwoRungs) -> None:
    command = endless.start(executor="debug")
    endless.wait_until_under_way(1)
    os.killpg(command.pid, signal.SIGINT)
    ended = command.wait()
    assert ended.code in (1, 130)
    assert "Trying again" not in ended.out
    assert endless.states() == ["interrupted", "waiting"]


@pytest.mark.slow
def test_a_launched_ladder_runs_on_its_own_until_it_is_cancelled(endless: TwoRungs) -> None:
    ended = endless.start("launch", jobs=1).wait()
    assert (ended.code, ended.err) == (0, "")
    endless.wait_until_under_way(1)
    rows = endless.start("status", "--json").wait().rows()
    assert [row["state"] for row in rows] == ["running", "waiting"]
    ended = endless.start("cancel").wait()
    assert ended.code == 0
    assert "Asked 1 job" in ended.out
    wait_for(lambda: not endless.processes(), what="the end of the job", timeout_s=60)
    assert endless.states() == ["interrupted", "waiting"]


def test_the_debug_executor_trains_in_the_command_itself(two_rungs: TwoRungs) -> None:
    assert two_rungs.go_on().code == 0
    assert two_rungs.states() == ["finished", "finished"]


# -- the parts


@pytest.fixture
def planned(two_rungs: TwoRungs) -> list[PlannedRun]:
    return two_rungs.planned()


def test_a_planned_run_has_its_configuration_and_provenance(planned: list[PlannedRun]) -> None:
    prepare(planned)
    about = json.loads((planned[0].folder / run_folder.RUN).read_text())
    assert about["rungs"] == ["plain"]
    assert about["macs"] > 0
    assert set(about["versions"]) == {"torch", "torchvision", "timm", "numpy"}
    assert {"commit", "python", "host", "processor", "command", "planned_at"} <= about.keys()


def test_the_longest_run_comes_first(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> None:
    study = plan_study(
        StudySpec("resnet50", str(write_recipes()), read_ladder(), runs=tmp_path / "runs", data_root=small_images)
    )
    costs = [run.cost for run in prepare(study.planned())]
    assert costs == sorted(costs, reverse=True)
    assert len(costs) == 17


def test_half_of_a_run_json_is_written_again(planned: list[PlannedRun]) -> None:
    path = planned[0].folder / run_folder.RUN
    prepare(planned)
    whole = path.read_text()
    path.write_text(whole[:100])
    prepare(planned)
    assert json.loads(path.read_text())["config"] == json.loads(whole)["config"]


def test_a_run_whose_configuration_was_edited_is_not_trained_under_its_name(
    planned: list[PlannedRun], small_images: Path
) -> None:
    prepare(planned)
    path = planned[0].folder / run_folder.RUN
    edited = json.loads(path.read_text())
    edited["config"]["recipe"]["epochs"] = 1
    files.write_json(path, edited)
    Job((planned[0].folder,), small_images)()
    row = run_folder.read_result(planned[0].folder) or {}
    assert row["state"] == "failed"
    assert re.search(r"run\.json: holds the configuration of run .*, not of this one", row["error"])
    prepare(planned)
    assert json.loads(path.read_text())["config"]["recipe"]["epochs"] != 1


def test_what_killed_processes_left_of_a_run_that_is_done_is_swept_when_it_is_planned_again(
    planned: list[PlannedRun],
) -> None:
    prepare(planned)
    folder = planned[0].folder
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": "diverged"}
    files.write_json(folder / run_folder.RESULT, row)
    leave_attempt(folder, "finished")
    before = sorted(folder.rglob("*"))
    (folder / ATTEMPTS / "0001.work").mkdir()
    for name in (
        f"checkpoint-{'0' * 64}.pt",
        ".result.json.0123",
        f"{ATTEMPTS}/.0001.{'0' * 32}",
        f"{ATTEMPTS}/0001.work/x",
    ):
        (folder / name).touch()
    prepare(planned)
    assert sorted(folder.rglob("*")) == before


def test_a_failure_that_became_a_result_meanwhile_is_not_cleared(
    planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(planned)
    folder = planned[0].folder
    write_failed(folder)
    take = launcher.take

    def late(*arguments: Any) -> Any:
        row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": "finished"}
        files.write_json(folder / run_folder.RESULT, row | {"top1": 81.25})
        return take(*arguments)

    monkeypatch.setattr(launcher, "take", late)
    with launcher._failures_cleared([folder], TRAINING, "again"):
        assert states(planned[:1]) == ["finished"]
    assert names(folder) == []


def test_what_is_done_stays_and_what_failed_is_cleared_for_another_try(planned: list[PlannedRun]) -> None:
    prepare(planned)
    for run, state in zip(planned, ("failed", "diverged"), strict=True):
        row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": state}
        files.write_json(run.folder / run_folder.RESULT, row)
    assert states(planned) == ["failed", "diverged"]
    assert prepare(planned) == planned[:1]
    assert states(planned) == ["failed", "diverged"]
    with launcher._failures_cleared([run.folder for run in planned], TRAINING, "again"):
        assert states(planned) == ["waiting", "diverged"]
    assert states(planned) == ["waiting", "diverged"]


def test_a_launch_that_is_refused_leaves_the_failure_as_it_was(
    planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(planned)
    write_failed(planned[0].folder)
    before = (planned[0].folder / run_folder.RESULT).read_bytes()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="Slurm did not take the jobs"):
        launcher.launch([run.folder for run in planned], JobOptions("slurm", planned[0].folder.parent, "a"))
    assert (planned[0].folder / run_folder.RESULT).read_bytes() == before
    assert not list(planned[0].folder.parent.glob(f"{JOBS}/*/{launch_folders.LAUNCH}"))


def write_failed(folder: Path, *_: Any) -> None:
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": "failed"}
    files.write_json(folder / run_folder.RESULT, row)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs that jobs came to train; they fail at once."""
    folders: list[Path] = []

    def note(_: Job, folder: Path, *__: Any) -> None:
        folders.append(folder)
        write_failed(folder)

    monkeypatch.setattr(Job, "_do", note)
    return folders


def test_a_job_trains_neither_what_has_a_result_nor_what_another_is_at(
    planned: list[PlannedRun], tried: list[Path]
) -> None:
    prepare(planned)
    order = Job(tuple(run.folder for run in planned), None)
    with take(planned[0].folder, Worker.here(), nobody) as claim:
        assert claim is not None
        assert states(planned) == ["running", "waiting"]
        order()
    assert tried == [planned[1].folder]
    order()
    assert tried == [planned[1].folder, planned[0].folder]


def test_a_run_that_was_done_just_now_is_not_begun_again(
    planned: list[PlannedRun], tried: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(planned)
    folder = planned[0].folder

    def just_before(*arguments: Any) -> Any:
        write_failed(folder)
        return take(*arguments)

    monkeypatch.setattr(job_module, "take", just_before)
    Job((folder,), None)()
    assert tried == []
    assert names(folder) == []


@pytest.mark.parametrize(("died", "launch_name", "begun"), [(2, "ours", True), (3, "ours", False), (3, "other", True)])
def test_a_run_that_was_killed_too_often_in_one_launch_is_a_row_that_says_so(
    died: int, launch_name: str, begun: bool, planned: list[PlannedRun], tried: list[Path]
) -> None:
    prepare(planned)
    folder = planned[0].folder
    for number in range(1, died):
        leave_attempt(folder, "died", number=number, launch=launch_name)
    leave_attempt(folder, number=died, launch=launch_name, born=1)  # nobody has noticed its end yet
    Job((folder,), None, launch="ours", max_retries=2)()
    assert tried == ([folder] if begun else [])
    row = run_folder.read_result(folder)
    assert row is not None
    assert row["state"] == "failed"
    if not begun:
        assert row["error"] == "ended 3 times: killed without a word (out of memory?)"
        assert standing(folder, Queue()).note == f"{row['error']}; died 3 times"
        assert names(folder)[-1] == "0004-failed.json"


def test_a_folder_that_cannot_be_used_costs_only_its_own_run(
    planned: list[PlannedRun], tried: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(planned)
    (planned[0].folder / ATTEMPTS).touch()
    Job(tuple(run.folder for run in planned), None)()
    assert tried == [planned[1].folder]
    assert f"{planned[0].folder}: " in capsys.readouterr().out


def test_a_job_ends_with_its_owner_even_if_nobody_has_noticed_the_end(
    planned: list[PlannedRun], tried: list[Path]
) -> None:
    prepare(planned)
    owner = subprocess.Popen([sys.executable, "-c", ""])
    wait_for(lambda: "Z" in Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2], what="a zombie")
    for owner_gone in (False, True):
        Job((planned[0].folder,), None, owner=owner.pid)()
        if not owner_gone:
            owner.wait()
    assert tried == []
    assert states(planned) == ["waiting", "waiting"]


def test_a_job_gives_signals_back_as_it_found_them() -> None:
    before = [signal.getsignal(number) for number in job_module.STOP_SIGNALS]
    Job((), None)()
    assert [signal.getsignal(number) for number in job_module.STOP_SIGNALS] == before


def test_a_job_that_lost_its_run_leaves_it_alone(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / tiny_run().id
    files.write_json(folder / run_folder.RUN, {"config": tiny_run().to_json()})
    monkeypatch.setattr(train_module, "LOOK_EVERY_S", 0.0)
    step, left = _Training.train_step, {}

    def left_files() -> dict[str, tuple[int, bytes]]:
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    def lose_it(self: _Training, *arguments: Any) -> Any:
        if self.step == 4:
            last = last_attempt(folder)
            assert last is not None
            last.close("died")
            leave_attempt(folder, number=2)  # of this process, which lives
            left.update(left_files())
        return step(self, *arguments)

    monkeypatch.setattr(_Training, "train_step", lose_it)
    Job((folder,), small_images, save_every_s=0.0)()
    assert names(folder) == ["0001-died.json", "0002.json"]
    assert left_files() == left


@pytest.fixture
def on_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of an array's job, started for the third time."""
    environment = {
        "SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path / "logs"), "SLURM_JOB_ID": "15",
        "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "3",
        "SLURM_RESTART_COUNT": "2", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("on_slurm")
def test_on_slurm_a_job_uses_the_cores_it_was_given_and_says_which_job_it_is(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tmp_path / tiny_run().id, {}
    files.write_json(folder / run_folder.RUN, {"config": tiny_run().to_json()})

    def note(_: RunConfig, folder: Path, **options: Any) -> dict[str, Any]:
        last = last_attempt(folder)
        seen.update(options, worker=last.worker() if last else None)
        write_failed(folder)
        return {"state": "finished", "top1": 0.0, "wall_s": 0.0}

    monkeypatch.setattr(train_module, "train", note)
    Job((folder,), None, threads=1, launch="ours", save_every_s=7.0)()
    assert (seen["threads"], seen["save_every_s"]) == (3, 7.0)
    assert seen["worker"] == Worker.here("ours", f"{tmp_path}/logs/12_3_0_log.out", "12_3", 2)


@pytest.mark.usefixtures("on_slurm")
@pytest.mark.parametrize("preempted", [False, True])
def test_on_slurm_sigterm_asks_to_save_and_takes_nothing_back(
    preempted: bool, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a preemption it comes on the heels of the signal that has asked for the run to stop."""
    folder, asked = tmp_path / tiny_run().id, []
    files.write_json(folder / run_folder.RUN, {"config": tiny_run().to_json()})
    order = Job((folder,), None)

    def listen(_: RunConfig, folder: Path, *, asked: Callable[[], str], **__: Any) -> dict[str, Any]:
        if preempted:
            order._preempted, order._request = True, "stop"
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: order._request, what="the signal", timeout_s=60)
        time.sleep(0.1)
        answers.extend([asked(), asked()])
        write_failed(folder)
        if preempted:
            raise train_module.Stopped
        return {"state": "finished", "top1": 0.0, "wall_s": 0.0}

    answers: list[str] = asked
    monkeypatch.setattr(train_module, "train", listen)
    order()
    assert answers == (["stop", "stop"] if preempted else ["save", ""])
    assert names(folder) == ["0001-preempted.json" if preempted else "0001-finished.json"]


def test_a_preempted_jobs_order_for_its_next_start_is_its_own(tmp_path: Path) -> None:
    order = Job((tmp_path,), tmp_path, 2, "ours", None, 1, 9.0)
    assert order.checkpoint().function == order  # even before it has begun


def test_cores_are_shared_out_among_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for gpus, jobs, expected in (
        (0, None, (8, 1)),
        (0, 2, (2, 4)),
        (0, 16, (16, 1)),
        (4, None, (4, 2)),
        (4, 1, (1, 8)),
    ):
        monkeypatch.setattr(machine, "_count_gpus", lambda gpus=gpus: gpus)
        found = this_machine(jobs)
        assert (found.jobs, found.threads, found.gpus) == (*expected, gpus)


@pytest.mark.parametrize(
    ("gpus", "processes", "jobs", "expected"),
    [(0, 2, None, (4, 1)), (0, 3, None, (2, 1)), (0, 16, None, (1, 1)), (4, 2, None, (2, 2)), (0, 2, 1, (1, 4))],
)
def test_a_run_of_several_processes_takes_the_room_of_as_many(
    gpus: int, processes: int, jobs: int | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "_count_gpus", lambda: gpus)
    found = this_machine(jobs, processes)
    assert (found.jobs, found.threads) == expected


@pytest.mark.parametrize(("given_cores", "cores"), [("3", 3), ("64", 8), ("", 8), ("many", 8)])
def test_the_cores_are_those_of_the_slurm_job_that_we_are_in(
    given_cores: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given_cores)
    assert count_cores() == cores


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 40), runs_per_job=st.integers(1, 10))
def test_runs_are_dealt_out_so_that_each_has_one_job_and_jobs_take_about_as_long(count: int, runs_per_job: int) -> None:
    folders = [Path(str(number)) for number in range(count)]  # the longest first
    parts = share_out(folders, runs_per_job)
    assert sorted(folder for part in parts for folder in part) == sorted(folders)
    assert len(parts) == -(-count // runs_per_job)
    assert {len(part) for part in parts} <= {count // len(parts), -(-count // len(parts))} if parts else True
    assert [part[0] for part in parts] == folders[: len(parts)]


def test_batches_that_the_processes_cannot_share_out_in_pairs_are_refused(planned: list[PlannedRun]) -> None:
    planned[0].config.check_shared(16)  # batches of 32
    planned[0].config.check_shared(1)
    with pytest.raises(UserError, match=r"recipe 'tiny(_plain)?': batch_size is 32, .* 3 processes .* multiple of 6"):
        planned[0].config.check_shared(3)


@settings(max_examples=100, deadline=None)
@given(base=st.text(max_size=30), recipe=st.text(max_size=60))
def test_a_launch_never_leaves_the_runs_folder_whatever_its_names_are(base: str, recipe: str) -> None:
    options = Namespace(
        executor="slurm", cluster=None, runs_per_job=None, runs=Path("/runs"), jobs=None, max_retries="2", data=None,
        tensorboard=False, logger=None,
    )  # fmt: skip
    study: Any = SimpleNamespace(base=base, recipe=SimpleNamespace(name=recipe))
    how, again = (job_options_of(options, study, wait=False) for _ in range(2))
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", how.name)
    assert Path(os.path.normpath(how.runs / JOBS / how.name)).parent == Path("/runs/jobs")
    assert how.name != again.name


def test_jobs_import_nothing_from_the_current_folder_and_only_their_owner_writes_what_they_execute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with machine.environment_for_jobs(1):
        done = subprocess.run([sys.executable, "-m", "submitit.core._submit", "-h"], capture_output=True, check=False)
    assert b"imported" not in done.stderr
    before = os.umask(0)
    try:
        logs = launch_folders.make_logs(tmp_path / "runs", "a-0", "local", [])
    finally:
        os.umask(before)
    assert logs.stat().st_mode & 0o022 == 0


def test_a_launch_sweeps_what_a_killed_launcher_left_half_written_and_nothing_that_is_being_written(
    tmp_path: Path,
) -> None:
    old, fresh = (
        launch_folders.make_logs(tmp_path, name, "local", []) / f".{launch_folders.LAUNCH}.abc" for name in "ab"
    )
    for path in (old, fresh):
        path.write_text("{")
    long_ago = old.stat().st_mtime - 1.1 * launch_folders.WRITTEN_WITHIN_S
    os.utime(old, (long_ago, long_ago))
    launch_folders.make_logs(tmp_path, "c", "local", [])
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_command_names_the_log_of_jobs_that_died_before_they_began(
    planned: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = planned[0].folder.parent
    code = run_commands._say_outcome(Console(width=200), planned, JobOptions("local", runs, "ours"), "3 s")
    assert code == Exit.FAILED
    said = capsys.readouterr().out
    assert f"No job came to 2 runs: it ended before it began. Its log: {runs}/jobs/ours-*/*.out" in said


def test_jobs_inherit_threads_and_the_way_to_the_package_and_the_caller_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with machine.environment_for_jobs(3):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("3", "3")
        assert str(ROOT) in os.environ["PYTHONPATH"].split(os.pathsep)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert (
            os.environ["GOMP_SPINCOUNT"] == "1000"
        )  # two commands' jobs on the same cores do not keep each other waiting
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with machine.environment_for_jobs(3):
        assert "GOMP_SPINCOUNT" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN


# -- retries


def retries_of(planned: list[PlannedRun], name: str = "ours", most: int = 2) -> Retries:
    folders = [run.folder for run in planned]
    return Retries(folders, JobOptions("local", folders[0].parent, name, max_retries=most))


def test_a_run_that_died_or_that_nobody_came_to_is_tried_again(planned: list[PlannedRun]) -> None:
    retries = retries_of(planned)
    leave_attempt(planned[0].folder, launch="ours", born=1)
    assert retries.to_try_again() == [run.folder for run in planned]
    assert retries.number == 1
    assert retries.to_try_again() == []  # the second round came to nothing
    leave_attempt(planned[0].folder, number=2, launch="ours", born=1)
    write_failed(planned[1].folder)
    assert retries.to_try_again() == [planned[0].folder]


def test_a_run_is_not_tried_again_beyond_the_most_or_when_its_launch_was_stopped(planned: list[PlannedRun]) -> None:
    run, folder = planned[:1], planned[0].folder
    for most, end, again in (
        (0, None, []),
        (1, None, [folder]),
        (1, "died", [folder]),
        (0, "preempted", [folder]),
        (9, "stopped", []),
    ):
        retries = retries_of(run, most=most)
        path = leave_attempt(folder, end, launch="ours", born=1)
        assert retries.to_try_again() == again, (most, end)
        path.unlink()
    retries = retries_of(run)
    leave_attempt(folder, launch="ours", born=1)
    there = folder.parent / JOBS / "ours-0"
    there.mkdir(parents=True)
    files.write_json(there / launch_folders.CANCELLED, [folder.name])
    assert retries.to_try_again() == []


def test_waiting_is_over_when_nobody_is_at_any_run(planned: list[PlannedRun]) -> None:
    retries = retries_of(planned)
    ours: Any = SimpleNamespace(is_over=lambda: False)
    assert not retries.are_over(ours)
    assert retries.are_over(None)
    leave_attempt(planned[0].folder)  # of this process
    assert not retries.are_over(None)
    write_failed(planned[0].folder)
    assert retries.are_over(None)


def test_a_scheduler_that_does_not_answer_keeps_nobody_waiting_but_for_what_it_may_have(
    planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_queue, "_ask", lambda *_: None)
    others = planned[0].folder.parent / JOBS / "other-0" / launch_folders.LAUNCH
    files.write_json(others, {"executor": "slurm", "jobs": [["some-other-run"]]})
    assert retries_of(planned).are_over(None)
    files.write_json(others, {"executor": "slurm", "jobs": [[planned[1].folder.name]]})
    assert not retries_of(planned).are_over(None)
    write_failed(planned[1].folder)
    assert retries_of(planned).are_over(None)


# -- cancel


def test_cancel_counts_the_processes_that_are_at_a_run_here_or_on_another_machine(planned: list[PlannedRun]) -> None:
    folder, runs = planned[0].folder, planned[0].folder.parent
    for changed, counted in (
        ({}, 1), ({"space": "elsewhere"}, 1), ({"born": 1}, 0), ({"job": "7"}, 0), ({"space": "x", "age_s": 999.0}, 1)
    ):  # fmt: skip  # the last: another machine's clock is not believed, so it may be at work
        leave_attempt(folder, **changed)  # type: ignore[arg-type]
        assert launcher.cancel([folder], runs) == counted, changed
    leave_attempt(folder, "stopped")
    (folder / ATTEMPTS / "0001.json").unlink()
    assert launcher.cancel([folder], runs) == 0


def test_a_job_passes_by_what_was_cancelled_before_it_came_and_stops_at_what_is_cancelled_now(
    planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(planned)
    runs = planned[0].folder.parent
    logs = launch_folders.make_logs(runs, "a-0", "local", [[run.folder.name for run in planned]])
    said: list[str] = []

    def train(self: Job, folder: Path, claim: Any, _: Any) -> None:
        said.append(folder.name)
        assert self._asked(folder, claim) == ""
        launcher.cancel([folder], runs)
        assert self._asked(folder, claim) == "stop"
        claim.end = "stopped"

    monkeypatch.setattr(Job, "_do", train)
    launcher.cancel([planned[0].folder], runs)
    Job(tuple(run.folder for run in planned), None, logs)()
    assert said == [planned[1].folder.name]


def test_a_job_of_slurm_that_has_other_runs_to_do_goes_on_with_them(
    planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (run.folder for run in planned)
    content = {"executor": "slurm", "jobs": [[first.name, second.name]]}
    files.write_json(first.parent / JOBS / "a-0" / launch_folders.LAUNCH, content)
    monkeypatch.setattr(slurm_queue, "_ask", lambda *_: "5|N/A|RUNNING|None|a-0")
    ended: list[str] = []
    monkeypatch.setattr(slurm_queue, "cancel", ended.extend)
    assert launcher.cancel([first], first.parent) == 1
    assert ended == []
    write_failed(second)
    assert launcher.cancel([first, second], first.parent) == 1
    assert ended == ["5"]


def test_cancel_takes_the_queued_jobs_of_these_runs_out_and_tells_who_waits(
    planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (run.folder for run in planned)
    runs, cancelled = first.parent, []
    for name, jobs in (("a-0", [[second.name], [first.name]]), ("b-0", [[second.name]])):
        files.write_json(runs / JOBS / name / launch_folders.LAUNCH, {"name": name, "executor": "slurm", "jobs": jobs})
    monkeypatch.setattr(
        slurm_queue, "_ask", lambda *_: "5_0|0|PENDING|Priority|a-0\n5_1|1|RUNNING|None|a-0\n6|N/A|PENDING||x"
    )
    monkeypatch.setattr(slurm_queue, "cancel", cancelled.extend)
    assert launcher.cancel([first], runs) == 1
    assert cancelled == ["5_1"]
    assert [(runs / JOBS / name / launch_folders.CANCELLED).exists() for name in ("a-0", "b-0")] == [True, False]


def test_cancel_says_so_if_the_scheduler_does_not_answer(
    planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = planned[0].folder
    content = {"name": "a-0", "executor": "slurm", "jobs": [[folder.name]]}
    files.write_json(folder.parent / JOBS / "a-0" / launch_folders.LAUNCH, content)
    monkeypatch.setattr(slurm_queue, "_ask", lambda *_: None)
    with pytest.raises(UserError, match="Slurm does not answer, so nothing was cancelled"):
        launcher.cancel([folder], folder.parent)
    assert not (folder.parent / JOBS / "a-0" / launch_folders.CANCELLED).exists()
