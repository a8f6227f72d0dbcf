"""A budget on a real Slurm of two nodes: nobody waits, and the end of a round starts the next."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.stats import allocation
from roadmap.cli.main import main
from roadmap.jobs.cluster import Cluster
from roadmap.jobs.launcher import prepare
from roadmap.jobs.next_round import script
from roadmap.jobs.options import JobOptions
from roadmap.runs import run_folder
from roadmap.runs.attempts import attempts_of
from roadmap.study.rounds import in_rounds, read_rounds
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import train
from tests.processes import outcome, wait_for, worker_of
from tests.samples import SHORT_LADDER
from tests.slurm import Slurm

RUNGS = ("short", "patchify_stem")
# Seeds after each round, whatever the runs say, so that there are three: the jobs that start rounds take it from here.
SCHEDULE = tuple(dict(zip(RUNGS, seeds, strict=True)) for seeds in ((2, 2), (2, 3), (3, 3)))
CUSTOMIZE = """\
import sys
if "launch" in sys.orig_argv:
    from tests.jobs.test_next_round import follow_schedule
    follow_schedule()
"""


def next_seeds(values: Any, pairs: Any, looks: Any, *others: Any, **more: Any) -> allocation.Allocation:
    """Give the seeds of the schedule."""
    steps = pd.DataFrame(pairs, columns=["step", "against"]).assign(verdict="undecided")
    if len(looks) == len(SCHEDULE):
        return allocation.Allocation({}, 0.0, allocation.Stop.SPENT, steps)
    before: Mapping[str, int] = looks[-1] if looks else {}
    given = {rung: n - before.get(rung, 0) for rung, n in SCHEDULE[len(looks)].items()}
    return allocation.Allocation({rung: n for rung, n in given.items() if n}, 1.0, None, steps)


def follow_schedule() -> None:
    allocation.next_seeds = next_seeds


def test_the_script_waits_for_the_rounds_jobs_and_carries_out_the_command_again() -> None:
    cluster = Cluster(partition="gpu", account="vision", gpus_per_node=1, time_min=600, setup=("module load x",))
    options = JobOptions("slurm", Path("runs"), "study", cluster)
    text = script(["launch", "--budget", "60runs"], "study-r1-next", Path("/logs"), options, before=["12", "15"])
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "#SBATCH --dependency=afterany:12:15" in lines
    assert "#SBATCH --account=vision" in lines
    assert "#SBATCH --time=30" in lines
    assert "module load x" in lines
    assert "gpus" not in text
    assert "-m roadmap launch --budget 60runs" in text


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(900)  # of starting jobs, where the machine has other work
def test_three_rounds_with_a_job_requeued_and_the_next_rounds_job_killed_equal_undisturbed_ones(
    slurm: Slurm,
    tmp_path: Path,
    write_recipes: Callable[..., Path],
    small_images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipes(epochs=6)
    steps = tmp_path / "steps.yaml"
    steps.write_text(SHORT_LADDER)
    words = ["--steps", str(steps), "--base", "resnet50", "--only", *RUNGS]
    words += ["--recipe", str(recipe), "--data", str(small_images)]
    # A node has room for one job.
    (tmp_path / "cluster.yaml").write_text("time_min: 20\nsave_every_min: 0.01\nmem_gb: 3.9\n")
    launch = ["launch", *words, "--budget", "60runs", "--runs-per-job", "2"]
    launch += ["--executor", "slurm", "--cluster", "cluster.yaml"]
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "sitecustomize.py").write_text(CUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "custom"))
    monkeypatch.setattr(allocation, "next_seeds", next_seeds)
    monkeypatch.chdir(tmp_path)
    spec = StudySpec("resnet50", recipe, steps, only=RUNGS, seeds=range(3), data_root=small_images, runs="runs")
    study = plan_study(spec)
    first = study.folder(study.configs[RUNGS[0], 0])

    def waiting() -> list[str]:
        lines = slurm.run("squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%i %j").splitlines()
        return [line.split()[0] for line in lines if line.endswith("-next")]

    nodes: set[str] = set()

    def rounds() -> int:
        nodes.update(slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%N").split())
        return len(read_rounds(study).seeds)

    assert main(launch) == 0
    assert len(waiting()) == 1
    wait_for(lambda: run_folder.read_progress(first), what="a step", timeout_s=120)
    worker = worker_of(first)
    assert worker
    assert worker.job
    slurm.run("scontrol", "requeue", worker.job)
    wait_for(lambda: rounds() == 2 and waiting(), what="the second round", timeout_s=200)
    for job in waiting():
        slurm.run("scancel", job)
    wait_for(lambda: not waiting(), what="the end of the job")
    assert main(launch) == 0
    assert main(launch) == 0  # which finds all at work, and a job waiting
    assert len(waiting()) == 1
    wait_for(
        lambda: rounds() == 3 and all(run_folder.is_done(run.folder) for run in study.planned()),
        what="all runs",
        timeout_s=300,
    )
    wait_for(lambda: not slurm.run("squeue", "--noheader").strip(), what="an empty queue", timeout_s=240)
    said = "".join(log.read_text() for log in Path("runs").glob("jobs/*-next/*.out"))
    assert "The budget is spent" in " ".join(said.split())
    assert set(slurm.nodes) <= nodes

    alone = plan_study(StudySpec(**vars(spec) | {"runs": "alone"}))
    for seeds in SCHEDULE:
        assert read_rounds(alone).begin(alone, seeds, RUNGS[1:])
    for run in prepare(alone.planned()):
        train(run.config, run.folder, data_root=small_images)
    for ours, theirs in zip(study.planned(), alone.planned(), strict=True):
        assert outcome(ours.folder) == outcome(theirs.folder)
        assert [attempt.end for attempt in attempts_of(ours.folder)].count("finished") == 1
    assert in_rounds(study, read_rounds(study)).looks == SCHEDULE
    capsys.readouterr()
    tables = []
    for place in ("runs", "alone"):
        assert main(["compare", *words, "--runs", place, "--json"]) == 0
        tables.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert str(tables[0]) == str(tables[1])  # NaN is not itself
