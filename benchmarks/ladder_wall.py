"""What the harness adds to training: `python -m benchmarks.ladder_wall`.

Trains the whole default ladder with `run_ladder.py`, jobs on all cores, and sets its wall time beside the time that a
bare loop needs for the same steps of the same networks on as many cores. The bare loop trains a few steps of each
network on a batch that lies in memory, half of them before the ladder and half after, a process a core at the same
time, as the ladder's jobs are; its time for all steps of all runs follows. What the ladder does besides (augmentation,
evaluation on 10,000 images, starting, checkpoints, results, waiting for the last run) is what the ratio shows.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from roadmap.ladder.ladder import read_ladder
from roadmap.measuring.rung_costs import networks
from roadmap.runs import run_folder
from roadmap.study.plan import PlannedRun, Study
from roadmap.study.spec import StudySpec, plan_study

RUN_LADDER = Path(__file__).parents[1] / "run_ladder.py"
STEPS = 20  # of each network, in each of the two rounds
TEST_BATCH = 500


def train_bare(runs: Sequence[PlannedRun], steps: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of a training step and of a test image of each network, in the loop of an expert."""
    import torch
    from torch.nn import functional as F

    from roadmap.networks.model import build_model

    torch.set_num_threads(1)
    seconds = {}
    for run in runs:
        recipe, data = run.config.recipe, run.config.data
        model = build_model(run.config.net, num_classes=data.num_classes, in_channels=data.in_channels)
        model = model.to(memory_format=torch.channels_last).train()
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), recipe.lr, fused=True)
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(model.parameters(), recipe.lr, recipe.momentum, fused=True)
        shape = (recipe.batch_size, data.in_channels, recipe.image_size, recipe.image_size)
        images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(data.num_classes, shape[:1])
        start = 0.0
        for step in range(steps + 2):
            if step == 2:
                start = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing).backward()
            optimizer.step()
        step_s = (time.perf_counter() - start) / steps
        model.eval()
        test = torch.randn(TEST_BATCH, *shape[1:]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            model(test)
            start = time.perf_counter()
            model(test)
        seconds[run.config.key] = (step_s, (time.perf_counter() - start) / TEST_BATCH)
    return seconds


def bare_s(study: Study, jobs: int, steps: int) -> tuple[float, float]:
    """Return the seconds of all training steps of all runs, and of all their tests, over all jobs."""
    runs = networks(study)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        seconds = pool.starmap(train_bare, [(runs, steps)] * jobs)
    train = test = 0.0
    for run in study.planned():
        own = [each[run.config.key] for each in seconds]
        train += run.config.steps_per_epoch * run.config.recipe.epochs * sum(step for step, _ in own) / jobs
        test += 10_000 * sum(image for _, image in own) / jobs
    return train / jobs, test / jobs


def main() -> None:
    """Time both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fashion", help="which ladder (default: the default one)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each network, before and after")
    options = parser.parse_args()
    jobs = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        study = plan_study(StudySpec("resnet50", options.recipe, read_ladder(), runs=runs))
        print(f"bare loops, {jobs} at a time", file=sys.stderr)
        before = bare_s(study, jobs, options.steps)
        print("the ladder", file=sys.stderr)
        start = time.time()
        command = [sys.executable, RUN_LADDER, "--base", "resnet50", "--recipe", options.recipe]
        subprocess.run([*command, "--runs", runs, "--out", Path(folder) / "out"], check=True, stdout=sys.stderr)
        whole_s = time.time() - start
        ladder_s = max((run.folder / run_folder.RESULT).stat().st_mtime for run in study.planned()) - start
        trained_s = sum((run_folder.read_result(run.folder) or {})["train_s"] for run in study.planned()) / jobs
        after = bare_s(study, jobs, options.steps)
    train, test = ((x + y) / 2 for x, y in zip(before, after, strict=True))
    print(f"bare training {before[0]:.0f} s before, {after[0]:.0f} s after; bare tests {test:.0f} s; on {jobs} cores")
    for name, seconds in (
        ("our training steps", trained_s),
        ("until the last run's result", ladder_s),
        ("with measuring and the report", whole_s),
    ):
        ratios = f"{seconds / train:.3f} of bare training, {seconds / (train + test):.3f} of it with tests"
        print(f"{name}: {seconds:.0f} s, {ratios}")


if __name__ == "__main__":
    main()
