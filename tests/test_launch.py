import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from roadmap import launch, results
from roadmap.ladder import read_ladder, select
from roadmap.launch import Work, do_work, hold, holder, look_around, prepare, state_of
from roadmap.plan import PlannedRun, Study, make_study
from roadmap.train import train
from tests.conftest import write_tiny
from tests.processes import Command, Outcome, outcome, wait_for

MakeRecipes = Callable[..., Path]
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

    def start(self, *action: str, jobs: int = 2, executor: str = "local") -> Command:
        options = ["--steps", self.steps, "--base", "resnet50", "--only", *self.only, "--recipe", self.recipe]
        options += ["--data", self.data, "--jobs", jobs, "--executor", executor]
        return Command(self.folder / "work", *action, *map(str, options), cores=jobs)

    def go_on(self) -> Outcome:
        """Do what is left in the command itself, which saves the start of a job."""
        return self.start(jobs=1, executor="debug").wait()

    @property
    def study(self) -> Study:
        """The same study in this process."""
        ladder, runs = read_ladder(self.steps), self.folder / "work" / "runs"
        rungs = select(ladder.climb("resnet50"), only=list(self.only))
        return make_study(ladder, "resnet50", str(self.recipe), runs=runs, rungs=rungs, data_root=self.data)

    def planned(self) -> list[PlannedRun]:
        return self.study.planned()

    def states(self) -> list[str]:
        return [state_of(run.folder) for run in self.planned()]

    def starts(self) -> list[int]:
        """How often each run was started, as the jobs' logs say."""
        lines = [line for log in self.logs() for line in log.read_text().splitlines()]
        counts = Counter(line.removesuffix(": start") for line in lines if line.endswith(": start"))
        return [counts[run.config.id] for run in self.planned()]

    def logs(self) -> list[Path]:
        return list((self.folder / "work" / "runs" / "jobs").rglob("*_log.out"))

    def wait_until_under_way(self, count: int) -> None:
        """Wait until so many runs are past their first epoch."""
        wait_for(
            lambda: sum(bool(results.read_metrics(run.folder)) for run in self.planned()) >= count, what="an epoch"
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


@pytest.fixture
def two_rungs(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> TwoRungs:
    return TwoRungs(tmp_path, write_recipes(), small_images)


@pytest.fixture
def longer(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> TwoRungs:
    """Runs of some seconds, so that something can happen to them."""
    return TwoRungs(tmp_path, write_recipes(epochs=10), small_images)


@pytest.fixture
def endless(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> TwoRungs:
    return TwoRungs(tmp_path, write_recipes(epochs=1000), small_images)


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
    out = trained.folder / "work" / "out" / "resnet50-tiny"
    assert {"results.csv", "ladder.csv", "ladder.md", "roadmap.png", "roadmap.svg", "roadmap.pdf"} <= set(
        os.listdir(out)
    )
    rows = [results.read_result(run.folder) for run in trained.planned()]
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
        assert (run.folder / results.CHECKPOINT).exists() == (state == "interrupted")
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
    assert (endless.planned()[0].folder / results.CHECKPOINT).exists()


@pytest.mark.slow
def test_the_jobs_of_a_killed_command_save_their_runs_and_end(longer: TwoRungs) -> None:
    longer = replace(longer, only=("plain",))
    command = longer.start(jobs=1)
    longer.wait_until_under_way(1)
    command.process.kill()
    command.process.join()
    wait_for(lambda: not longer.processes(), what="the end of the jobs", timeout_s=10)
    assert longer.states() == ["interrupted"]
    assert (longer.planned()[0].folder / results.CHECKPOINT).exists()
    assert longer.go_on().code == 0
    longer.check_as_if_undisturbed()


@pytest.mark.slow
def test_a_killed_job_costs_its_run_and_the_same_command_goes_on(
    two_rungs: TwoRungs, write_recipes: MakeRecipes
) -> None:
    write_recipes(plain={"epochs": 25})
    long, short = two_rungs.planned()
    command = two_rungs.start()
    wait_for(
        lambda: results.read_metrics(long.folder) and (holder(short.folder) or results.read_result(short.folder)),
        what="a job in each run",
    )
    job = holder(long.folder)
    assert job
    os.kill(job, signal.SIGKILL)
    ended = command.wait()
    assert ended.code == 1
    assert "1 of 2 runs done" in ended.out
    assert two_rungs.states() == ["interrupted", "finished"]
    assert two_rungs.go_on().code == 0
    two_rungs.check_as_if_undisturbed()


@pytest.mark.slow
def test_two_commands_at_once_never_train_the_same_run_twice(two_rungs: TwoRungs) -> None:
    commands = [two_rungs.start(jobs=1), two_rungs.start(jobs=1)]
    assert {command.wait().code for command in commands} <= {0, 1}
    assert two_rungs.states() == ["finished", "finished"]
    assert two_rungs.starts() == [1, 1]


@pytest.mark.slow
def test_a_failed_run_costs_only_itself_and_is_tried_again_next_time(two_rungs: TwoRungs) -> None:
    first, _ = two_rungs.planned()
    in_the_way = first.folder / results.METRICS
    in_the_way.mkdir(parents=True)
    ended = two_rungs.start().wait()
    assert ended.code == 1
    assert re.search(
        r"plain seed 0 failed: UserError: .*metrics\.jsonl: cannot be written", " ".join(ended.out.split())
    )
    assert "1 of 2 runs done" in ended.out
    assert two_rungs.states() == ["failed", "finished"]
    assert two_rungs.starts() == [1, 1]
    in_the_way.rmdir()
    ended = two_rungs.go_on()
    assert ended.code == 0
    assert ended.out.count(": start\n") == 1
    two_rungs.check_as_if_undisturbed()


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
    wait_for(lambda: not endless.processes(), what="the end of the job", timeout_s=10)
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
    about = json.loads((planned[0].folder / results.RUN).read_text())
    assert about["rungs"] == ["plain"]
    assert about["macs"] > 0
    assert set(about["versions"]) == {"torch", "torchvision", "timm", "numpy"}
    assert {"commit", "python", "host", "processor", "command", "planned_at"} <= about.keys()


def test_the_longest_run_comes_first(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> None:
    study = make_study(read_ladder(), "resnet50", str(write_recipes()), runs=tmp_path / "runs", data_root=small_images)
    costs = [run.cost for run in prepare(study.planned())]
    assert costs == sorted(costs, reverse=True)
    assert len(costs) == 17


def test_half_of_a_run_json_is_written_again(planned: list[PlannedRun]) -> None:
    path = planned[0].folder / results.RUN
    prepare(planned)
    whole = path.read_text()
    path.write_text(whole[:100])
    prepare(planned)
    assert json.loads(path.read_text())["config"] == json.loads(whole)["config"]


def test_what_is_done_stays_and_what_failed_is_cleared_for_another_try(planned: list[PlannedRun]) -> None:
    prepare(planned)
    for run, state in zip(planned, ("failed", "diverged"), strict=True):
        row = dict.fromkeys(results.COLUMNS) | {"result_version": results.RESULT_VERSION, "state": state}
        results.write_json(run.folder / results.RESULT, row)
    assert [state_of(run.folder) for run in planned] == ["failed", "diverged"]
    assert prepare(planned) == planned[:1]
    assert [state_of(run.folder) for run in planned] == ["waiting", "diverged"]


def test_a_job_trains_neither_what_is_done_nor_what_another_holds(
    planned: list[PlannedRun], two_rungs: TwoRungs, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(planned)
    tried: list[Path] = []
    monkeypatch.setattr(launch, "_train_safely", lambda folder, *_: tried.append(folder))
    work = Work(tuple(run.folder for run in planned), two_rungs.data, 1)
    with hold(planned[0].folder) as mine:
        assert mine
        assert [state_of(run.folder) for run in planned] == ["running", "waiting"]
        do_work(work)
    assert tried == [planned[1].folder]
    results.write_json(
        planned[0].folder / results.RESULT, {"result_version": results.RESULT_VERSION, "state": "failed"}
    )
    do_work(work)
    assert tried == [planned[1].folder] * 2


def test_someone_who_looks_at_a_run_does_not_keep_a_job_from_it(tmp_path: Path) -> None:
    with (tmp_path / launch.LOCK).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `holder` does, but for longer
        looking = threading.Timer(launch.LOOK_S / 4, fcntl.flock, (file, fcntl.LOCK_UN))
        looking.start()
        with hold(tmp_path) as mine:
            assert mine
        looking.join()


def test_looking_at_a_run_leaves_no_trace(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert state_of(tmp_path) == "waiting"
    assert state_of(tmp_path / "nowhere") == "waiting"
    assert os.listdir(tmp_path) == []


def test_a_job_ends_with_its_owner_even_if_nobody_has_noticed_the_end(planned: list[PlannedRun]) -> None:
    prepare(planned)
    owner = subprocess.Popen([sys.executable, "-c", ""])
    wait_for(lambda: "Z" in Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2], what="a zombie")
    for owner_gone in (False, True):
        do_work(Work((planned[0].folder,), None, 1, owner.pid))
        if not owner_gone:
            owner.wait()
    assert state_of(planned[0].folder) == "waiting"


def test_a_job_gives_signals_back_as_it_found_them(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in launch.STOP_SIGNALS]
    do_work(Work((), None, 1))
    assert [signal.getsignal(number) for number in launch.STOP_SIGNALS] == before


def test_cores_are_shared_out_among_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for gpus, jobs, expected in (
        (0, None, (8, 1)),
        (0, 2, (2, 4)),
        (0, 16, (16, 1)),
        (4, None, (4, 2)),
        (4, 1, (1, 8)),
    ):
        monkeypatch.setattr(launch, "_count_gpus", lambda gpus=gpus: gpus)
        cluster = look_around(jobs)
        assert (cluster.jobs, cluster.threads, cluster.gpus) == (*expected, gpus)


def test_jobs_inherit_threads_and_the_way_to_the_package_and_the_caller_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with launch._environment_for_jobs(3):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("3", "3")
        assert str(launch.ROOT) in os.environ["PYTHONPATH"].split(os.pathsep)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN
