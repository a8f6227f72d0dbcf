"""Ladders on a real Slurm of two nodes, which the tests start where the machine has one."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from roadmap.jobs.cluster import Cluster
from roadmap.jobs.launch_folders import JOBS
from roadmap.jobs.launcher import launch, prepare
from roadmap.jobs.status import standing
from roadmap.measuring.rung_costs import read_measured
from roadmap.robustness.settings import is_complete, read_found
from roadmap.runs import run_folder
from roadmap.runs.attempts import attempts_of
from roadmap.study.plan import PlannedRun
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.checkpoints import checkpoints
from roadmap.training.loop import train
from tests.conftest import write_tiny
from tests.faults import FAULTS, Victim, disturb
from tests.processes import ROOT, Command, outcome, wait_for, worker_of
from tests.samples import SHORT_LADDER
from tests.slurm import Slurm
from tests.training.test_process_group import train_together

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
PAPER_LADDER = (ROOT / "steps.yaml").read_text()
RUNG = ("--only", "short")  # of the short ladder
# Left to records/faults: these take long, or, together with others, break what Slurm knows of its own jobs.
ALONE = ("full disk", "time limit", "slurmd killed and restarted", "slurmctld killed and restarted")


class SlurmLadder:
    """A ladder under a tiny recipe, from the command line; jobs and results in a folder of its own."""

    def __init__(
        self, folder: Path, images: Path, cluster: str = "time_min: 20", steps: str = SHORT_LADDER, **settings: object
    ) -> None:
        self.folder, self.images = folder, images
        self.recipe = write_tiny(folder / "recipes", **settings)
        self.steps = folder / "steps.yaml"
        self.steps.write_text(steps)
        self.cluster = folder / "cluster.yaml"
        self.cluster.write_text(cluster + "\n")

    def start(self, *action: str, executor: str = "slurm", where: str = "work", cores: int = 2) -> Command:
        options = ["--base", "resnet50", "--recipe", str(self.recipe), "--data", str(self.images)]
        options += ["--steps", str(self.steps), "--executor", executor, "--cluster", str(self.cluster)]
        return Command(self.folder / where, *action, *options, cores=cores)

    def planned(self, where: str = "work", *only: str) -> list[PlannedRun]:
        runs = self.folder / where / "runs"
        return plan_study(
            StudySpec("resnet50", self.recipe, self.steps, only=list(only) or None, runs=runs, data_root=self.images)
        ).planned()  # fmt: skip

    def run(self) -> PlannedRun:
        """Return the one run of `RUNG`."""
        return self.planned("work", RUNG[1])[0]

    def wait_until_under_way(self) -> None:
        wait_for(lambda: run_folder.read_metrics(self.run().folder), what="an epoch")

    def hold(self, *only: str) -> None:
        """Let the workers stand still, who would take a core from what is tried meanwhile; Slurm wakes whom it ends."""
        for run in self.planned("work", *only):
            if worker := worker_of(run.folder):
                os.kill(worker.pid, signal.SIGSTOP)


MakeLadder = Callable[..., SlurmLadder]


@pytest.fixture
def make_ladder(slurm: Slurm, tmp_path: Path, small_images: Path) -> MakeLadder:
    return partial(SlurmLadder, tmp_path, small_images)


def test_the_ladder_as_one_array_on_two_nodes_equals_the_local_executors(slurm: Slurm, make_ladder: MakeLadder) -> None:
    # Each job has a node to itself, so that the second one needs the second node.
    ladder = make_ladder("time_min: 20\nsbatch: {exclusive: true}", steps=PAPER_LADDER, epochs=1)
    # Launched, for 'run' would measure and report them too; and a core has one thread, as a job on Slurm has here.
    commands = [
        ladder.start("launch", "--runs-per-job", "9"),  # a job takes seconds to start
        ladder.start("launch", executor="local", where="local", cores=1),
    ]
    assert [(ended.code, ended.err) for ended in (command.wait() for command in commands)] == [(0, "")] * 2
    ours, locally = ladder.planned("work"), ladder.planned("local")
    seen: set[str] = set()

    def all_done() -> bool:
        seen.update(slurm.run("squeue", "--noheader", "--format=%F %N").split())
        return all(run_folder.is_done(run.folder) for run in [*ours, *locally])

    wait_for(all_done, what="the results", timeout_s=300)
    assert len(ours) == 17
    assert set(slurm.nodes) <= seen
    assert len(seen - set(slurm.nodes)) == 1  # one number: all jobs belong to one array
    assert len(list((ladder.folder / "work" / "runs" / JOBS).glob("*/*_submitted.pkl"))) == 2
    for one, other in zip(ours, locally, strict=True):
        assert outcome(one.folder) == outcome(other.folder)


def test_a_ladder_that_everything_happens_to_loses_nothing(slurm: Slurm, tmp_path: Path) -> None:
    cluster = Cluster(partition="low", time_min=20, save_every_min=0.01, signal_delay_s=10)
    victim = Victim(slurm, tmp_path / "victim", seeds=3, epochs=60, cluster=cluster)
    faults = [fault for name, fault in FAULTS.items() if name not in ALONE]
    happened, _ = disturb(victim, faults, len(faults), pause_s=1.0, patience_s=400)
    assert happened == len(faults)
    ends = victim.ends()
    assert ends["died"]
    assert ends["preempted"]
    logs = "".join(log.read_text() for log in victim.runs.rglob("*_log.out"))
    assert "damaged" in logs
    assert [outcome(run.folder) for run in victim.planned()] == victim.undisturbed(tmp_path / "undisturbed")
    slurm.wait_idle()


def test_processes_on_two_nodes_train_a_run_together(
    slurm: Slurm, make_ladder: MakeLadder, tmp_path: Path, small_images: Path
) -> None:
    ladder = make_ladder("nodes: 2\ntasks_per_node: 2")
    ended = ladder.start("launch", *RUNG).wait()
    assert (ended.code, ended.err) == (0, "")
    row = wait_for(lambda: run_folder.read_result(ladder.run().folder), what="the result", timeout_s=120)
    assert (row["state"], row["processes"]) == ("finished", 4)
    here = tmp_path / "here"
    assert train_together(4, ladder.run().config, here, small_images) == [0] * 4
    assert outcome(ladder.run().folder) == outcome(here)


def test_two_launches_at_once_train_every_run_once(slurm: Slurm, make_ladder: MakeLadder) -> None:
    ladder = make_ladder()
    commands = [ladder.start("launch", *RUNG), ladder.start("launch", *RUNG)]
    assert [command.wait().code for command in commands] == [0, 0]
    wait_for(lambda: run_folder.is_done(ladder.run().folder), what="the result")
    slurm.wait_idle()
    assert [attempt.end for attempt in attempts_of(ladder.run().folder)] == ["finished"]
    logs = "".join(log.read_text() for log in ladder.folder.rglob("*_log.out"))
    assert logs.count(": start\n") == 1


def test_robustness_and_measurements_are_jobs_and_two_commands_at_once_do_nothing_twice(
    slurm: Slurm, make_ladder: MakeLadder
) -> None:
    ladder = make_ladder(epochs=1)
    run = ladder.run()
    prepare([run])
    train(run.config, run.folder, data_root=ladder.images)
    options = ("robustness", *RUNG, "--images", "10", "--radii", "4")
    first = ladder.start(*options)
    place = run.folder / run_folder.ROBUSTNESS_CLAIMS
    wait_for(lambda: slurm.run("squeue", "--noheader"), what="a job in the queue")
    ended = [command.wait(300) for command in (ladder.start(*options), first)]
    assert [(command.code, command.err) for command in ended] == [(0, ""), (0, "")]
    [entry] = read_found(run.folder)
    assert is_complete(entry)
    assert [attempt.end for attempt in attempts_of(place)] == ["finished"]
    again = ladder.start(*options).wait()
    assert "1 evaluated already, 0 to do" in " ".join(again.out.split())

    measured = ladder.start("measure", *RUNG).wait(300)
    assert (measured.code, measured.err) == (0, "")
    assert "Wrote runs/measured/" in measured.out
    assert read_measured(run.folder.parent, {run.config.key})
    slurm.wait_idle()


def test_a_launch_while_the_jobs_are_queued_submits_nothing_and_cancel_ends_them(
    slurm: Slurm, make_ladder: MakeLadder
) -> None:
    ladder = make_ladder(epochs=3000)
    assert ladder.start("launch", *RUNG, "patchify_stem").wait().code == 0
    ended = ladder.start("launch", *RUNG, "patchify_stem").wait()
    assert "2 at work, 0 to do" in ended.out
    ladder.wait_until_under_way()
    ladder.hold(RUNG[1], "patchify_stem")
    slurm.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        assert ladder.start("launch", "--only", "gelu").wait().code == 0
        rows = ladder.start("status", *RUNG, "gelu", "--json").wait().rows()
        assert [row["state"] for row in rows] == ["running", "pending"]
        assert rows[0]["left_s"] > 0
        assert rows[1]["note"] == "PartitionDown"
    finally:
        slurm.run("scontrol", "update", "PartitionName=main", "State=UP")
    ended = ladder.start("cancel").wait()
    assert (ended.code, ended.err) == (0, "")
    assert "Asked 3 jobs to stop" in ended.out
    slurm.wait_idle()
    rows = ladder.start("status", *RUNG, "gelu", "--json").wait().rows()
    assert [row["state"] for row in rows] == ["interrupted", "waiting"]


def test_ctrl_c_leaves_the_jobs_and_the_same_command_waits_for_them(slurm: Slurm, make_ladder: MakeLadder) -> None:
    ladder = make_ladder(epochs=60)
    command = ladder.start("run", *RUNG)
    ladder.wait_until_under_way()
    os.killpg(command.pid, signal.SIGINT)
    ended = command.wait()
    assert (ended.code, ended.err) == (130, "")
    assert "stay in the queue. The same command waits for them again" in " ".join(ended.out.split())
    again = ladder.start("run", *RUNG).wait()
    assert (again.code, again.err) == (0, "")
    slurm.wait_idle()
    assert [attempt.end for attempt in attempts_of(ladder.run().folder)] == ["finished"]
    assert len(list((ladder.folder / "work" / "runs" / JOBS).iterdir())) == 1


def test_jobs_of_a_launcher_that_was_killed_when_slurm_had_just_taken_them_train_their_runs(
    slurm: Slurm, make_ladder: MakeLadder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder, shims = make_ladder(), tmp_path / "shims"
    shims.mkdir()
    (shims / "sbatch").write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nkill -9 $PPID\n')
    (shims / "sbatch").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
        assert ladder.start("launch", *RUNG, "gelu", "--runs-per-job", "1").wait().code == -signal.SIGKILL
    folders = [run.folder for run in ladder.planned("work", RUNG[1], "gelu")]
    wait_for(lambda: all(map(run_folder.is_done, folders)), what="the results", timeout_s=120)
    slurm.wait_idle()


def test_status_is_right_while_the_controller_is_down_and_after_it_is_back(
    slurm: Slurm, make_ladder: MakeLadder
) -> None:
    ladder = make_ladder(epochs=3000)
    assert ladder.start("launch", *RUNG).wait().code == 0
    ladder.wait_until_under_way()
    worker = worker_of(ladder.run().folder)
    assert worker
    assert worker.job
    ladder.hold(RUNG[1])
    slurm.wait_until_saved(worker.job)
    slurm.kill_controller()
    try:
        ended = ladder.start("status", *RUNG).wait()
        refused = ladder.start("cancel", *RUNG).wait()
    finally:
        slurm.start_controller()
    assert "1 running" in ended.out
    assert "Slurm does not answer" in ended.out
    assert refused.code == 2
    assert "Slurm does not answer" in refused.err
    assert "1 at work, 0 to do" in ladder.start("launch", *RUNG).wait().out
    assert "Asked 1 job" in ladder.start("cancel", *RUNG).wait().out
    slurm.wait_idle()
    assert [attempt.number for attempt in attempts_of(ladder.run().folder)] == [1]


def test_runs_share_a_job_and_jobs_are_limited(slurm: Slurm, make_ladder: MakeLadder) -> None:
    ladder = make_ladder(steps=PAPER_LADDER)
    options = ("--until", "depthwise_conv", "--runs-per-job", "3", "--jobs", "1")
    text = ladder.start("launch", *options, "--dry-run").wait().out
    assert "--array=0-1%1" in text
    assert "5 runs in 2 jobs" in text
    ended = ladder.start("run", *options).wait()
    assert (ended.code, ended.err) == (0, "")
    assert "5 of 5 runs done" in ended.out
    assert len(list(ladder.folder.rglob("*_log.out"))) == 2
    submitted = next(ladder.folder.rglob("*_submission.sh")).read_text().splitlines()
    shown = text.splitlines()
    assert len(shown) == len(submitted) + 1  # it ends with a line that counts
    differ = [one for one, two in zip(submitted, shown, strict=False) if one != two]
    assert all("resnet50-tiny" in line for line in differ)  # the name of the launch, which is each time another


def test_more_runs_than_an_array_may_have_are_several_arrays(slurm: Slurm, make_ladder: MakeLadder) -> None:
    ladder = make_ladder(steps=PAPER_LADDER)
    slurm.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        seeds = ("--seeds", *map(str, range(60)))
        ended = ladder.start("launch", *seeds).wait()
        assert "1020 to do" in ended.out
        assert slurm.run("squeue", "--noheader", "--format=%i").count("_[") == 2
        states = {row["state"] for row in ladder.start("status", *seeds, "--json").wait().rows()}
        assert states == {"pending"}
        assert "Asked 1020 jobs" in ladder.start("cancel", *seeds).wait().out
        wait_for(lambda: not slurm.run("squeue", "--noheader"), what="an empty queue")
    finally:
        slurm.run("scontrol", "update", "PartitionName=main", "State=UP")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("partition: nowhere", "invalid partition specified: nowhere"),
        ("mem_gb: 100000", "Memory specification can not be satisfied"),
        ("constraint: quantum", "Invalid feature specification"),
        ("sbatch: {no-such-option: 1}", "unrecognized option"),
    ],
)
def test_what_slurm_refuses_is_one_message(settings: str, message: str, slurm: Slurm, make_ladder: MakeLadder) -> None:
    ended = make_ladder(settings).start("launch", *RUNG).wait()
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert "Slurm did not take the jobs" in ended.err
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_without_slurm_there_is_one_message(
    slurm: Slurm, make_ladder: MakeLadder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ended = make_ladder().start("launch", *RUNG).wait()
    assert ended.code == 2
    assert "Slurm" in ended.err


def test_killed_runs_of_an_array_come_back_by_themselves(slurm: Slurm, tmp_path: Path) -> None:
    victim = Victim(slurm, tmp_path / "victim", seeds=2, epochs=45)
    victim.launch()
    for run in victim.planned():
        wait_for(lambda run=run: checkpoints(run.folder), what="a checkpoint")
        worker = worker_of(run.folder)
        assert worker
        os.kill(worker.pid, signal.SIGKILL)
    wait_for(victim.is_done, what="all results", timeout_s=120)
    slurm.wait_idle()  # a job writes the result before it notes how its attempt ended
    assert all([a.end for a in attempts_of(run.folder)] == ["died", "finished"] for run in victim.planned())
    assert len(list((victim.runs / JOBS).iterdir())) == 1


def test_a_run_killed_too_often_is_a_failure_with_its_log_in_the_status(slurm: Slurm, tmp_path: Path) -> None:
    victim = Victim(slurm, tmp_path / "victim", seeds=1, epochs=600)
    [run] = victim.planned()
    options = replace(victim.options(), max_retries=1)
    launch([run.folder for run in prepare([run])], options)
    for number in (1, 2):
        wait_for(lambda number=number: len(attempts_of(run.folder)) == number and victim.pick(), what="an attempt")
        assert FAULTS["SIGKILL of a worker"](victim)
    row = wait_for(lambda: run_folder.read_result(run.folder), what="the verdict")
    slurm.wait_idle()
    assert row["state"] == "failed"
    assert "ended 2 times: killed without a word" in row["error"]
    assert [attempt.end for attempt in attempts_of(run.folder)] == ["died", "died", "failed"]
    assert "failed: ended 2 times: killed without a word" in "\n".join(standing(run.folder, victim.queue()).log_tail())
