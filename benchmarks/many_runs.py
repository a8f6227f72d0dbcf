"""How the commands bear many runs: `python -m benchmarks.many_runs`.

Submits 1,020 runs to a Slurm that it starts itself (where its programs are installed; nothing is trained), and times
`status` and `report` over 10,013 finished run folders, each beside the same command over 17. Seconds are those of a
whole process, starting Python included; memory is its largest.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from roadmap.jobs.launcher import prepare
from roadmap.ladder.ladder import read_ladder
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker, take
from roadmap.study.plan import PlannedRun
from roadmap.study.spec import StudySpec, plan_study
from tests.slurm import Slurm, why_not

RUN_LADDER = Path(__file__).parents[1] / "run_ladder.py"
RECIPE = ("--base", "resnet50", "--recipe", "fashion")
# A process as small as can be between us and the command: memory before an exec counts too.
WRAPPER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
MANY, FEW, SUBMITTED = 589, 1, 60  # seeds, of 17 rungs each
TEST_IMAGES = 10_000


def seeds(number: int) -> list[str]:
    """Return the option for so many seeds."""
    return ["--seeds", *map(str, range(number))]


def finish(run: PlannedRun, worker: Worker) -> None:
    """Leave in a run's folder what training leaves there, but for the weights."""
    epochs = run.config.recipe.epochs
    line = {"step": 156, "train_loss": 0.6, "lr": 1e-3, "images_per_s": 1000.0}
    text = "".join(json.dumps({"epoch": epoch + 1} | line) + "\n" for epoch in range(epochs))
    (run.folder / run_folder.METRICS).write_text(text)
    now = {"state": "evaluating", "epoch": epochs, "epochs": epochs, "step": 312, "steps": 312, "train_loss": 0.6,
           "images_per_s": 1000.0, "left_s": 0.0, "at": time.time()}  # fmt: skip
    (run.folder / run_folder.PROGRESS).write_text(json.dumps(now))
    draw = np.random.default_rng(run.config.seed)
    labels = draw.integers(10, size=TEST_IMAGES)
    run_folder.write_predictions(run.folder, np.where(draw.random(len(labels)) < 0.8, labels, 0), labels)
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": "finished"}
    row |= {"top1": 80.0 + run.config.seed % 7 / 10, "images_per_s": 1000.0, "train_s": 20.0, "wall_s": 24.0}
    (run.folder / run_folder.RESULT).write_text(json.dumps(row, indent=1))
    with take(run.folder, worker, lambda _: None) as claim:
        assert claim is not None
        claim.end = "finished"


def measure(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run a command; return its seconds and its largest memory in GB.

    Raises:
        CalledProcessError: If it fails.
    """
    start = time.monotonic()
    command = [sys.executable, "-c", WRAPPER, sys.executable, RUN_LADDER, *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - start, int(done.stdout) / 1e6


def measure_submission(folder: Path) -> None:
    """Print how long `launch` takes on a Slurm whose partition is down, so that nothing starts."""
    if reason := why_not():
        print(f"launch: not measured, {reason}")
        return
    slurm = Slurm(folder / "slurm")
    slurm.start()
    os.environ.update(slurm.environment)
    try:
        slurm.run("scontrol", "update", "PartitionName=main", "State=DOWN")
        few = measure(folder, "launch", *RECIPE, *seeds(FEW), "--executor", "slurm", "--runs", "few")
        many = measure(folder, "launch", *RECIPE, *seeds(SUBMITTED), "--executor", "slurm", "--runs", "many")
        print_line("launch --executor slurm", 17 * FEW, few, 17 * SUBMITTED, many)
        status = measure(folder, "status", *RECIPE, *seeds(SUBMITTED), "--runs", "many")
        few = measure(folder, "status", *RECIPE, *seeds(FEW), "--runs", "few")
        print_line("status, all in the queue", 17 * FEW, few, 17 * SUBMITTED, status)
    finally:
        slurm.stop()


def print_line(what: str, few: int, first: tuple[float, float], many: int, second: tuple[float, float]) -> None:
    """Print a row of the table."""
    cells = (what, f"{few:,}", f"{first[0]:.1f}", f"{many:,}", f"{second[0]:.1f}", f"{second[0] / first[0]:.1f}",
             f"{second[1]:.2f}")  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    print("| command | runs | seconds | runs | seconds | ratio | GB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_submission(folder)
        study = plan_study(StudySpec("resnet50", "fashion", read_ladder(), runs=folder / "runs", seeds=range(MANY)))
        worker = Worker.here("benchmark")
        for run in prepare(study.planned()):
            finish(run, worker)
        for command in ("status", "report"):
            measure(folder, command, *RECIPE, *seeds(FEW))  # so that neither reads its modules from a cold disk
            few = measure(folder, command, *RECIPE, *seeds(FEW))
            many = measure(folder, command, *RECIPE, *seeds(MANY))
            print_line(f"{command}, all finished", 17 * FEW, few, 17 * MANY, many)


if __name__ == "__main__":
    main()
