"""Train the candidates for the tasks' proxies, resumably: `python records/downstream-choice/choose.py TASK`.

A trial trains the task on a classifier with seed 40 and tests it on training scenes beyond those that it trains on. It
is a row of trials.csv; rows that are there are not trained again. The classifiers are those of
`run_ladder.py run --base resnet50 --seeds 40 --only RUNG ...`, in the runs folder.
"""

import csv
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from roadmap import StudySpec, plan_study
from roadmap.common.process_group import ALONE, Group
from roadmap.downstream.data.task_data import TEST_BATCH, Batch, SceneData, _scene
from roadmap.downstream.task_recipe import read_task
from roadmap.downstream.training import TaskRun, train_task
from roadmap.jobs.tasks import Setting
from roadmap.metrics.trained import read_weights, weights_of
from roadmap.runs.claims import Writer

HERE = Path(__file__).parent
SEED = 40  # of no report
SOME, OTHERS = ("kernel_7", "separate_downsampling"), ("baseline", "depthwise_conv")
WIDE, NARROW = {"width": 64, "steps": 600}, {"width": 32, "steps": 800}  # about the same time
TRIALS: dict[str, list[tuple[dict[str, int], float, tuple[str, ...]]]] = {
    "segmentation": [
        *[(WIDE, lr, SOME) for lr in (5e-3, 1e-2)],
        *[(NARROW, lr, (*SOME, *OTHERS)) for lr in (5e-3, 1e-2, 2e-2)],
    ],
    "detection": [({}, 1e-3, (*SOME, *OTHERS)), ({}, 2e-3, (*SOME, *OTHERS)), ({}, 4e-3, SOME)],
}
COLUMNS = ("task", "width", "steps", "lr", "rung", "miou", "box_ap", "mask_ap", "train_s", "test_s")


class HeldOut(SceneData):
    """Scenes whose test is made of the training scenes that follow those that it trains on."""

    def test(self, group: Group = ALONE) -> Iterator[Batch]:
        """Yield them in order."""
        last = self.train_images + self.test_images
        for start in range(self.train_images, last, TEST_BATCH):
            numbers = range(start, min(start + TEST_BATCH, last))
            yield self._batch([_scene("train", number) for number in numbers], [False] * len(numbers))


def main(task: str) -> None:
    """Train what is missing of a task's trials."""
    torch.set_num_threads(1)
    table = HERE / "trials.csv"
    with table.open() as file:
        done = {tuple(row[name] for name in COLUMNS[:5]) for row in csv.DictReader(file)}
    planned = plan_study(StudySpec("resnet50", seeds=(SEED,), only=[*SOME, *OTHERS])).planned()
    runs = {run.rungs[0]: run for run in planned}
    for changes, lr, rungs in TRIALS[task]:
        recipe = replace(read_task(task), lr=lr, **changes)  # type: ignore[arg-type]
        for rung in rungs:
            row: dict[str, Any] = {"task": task, "width": recipe.width, "steps": recipe.steps, "lr": lr, "rung": rung}
            if tuple(str(row[name]) for name in COLUMNS[:5]) in done:
                continue
            run = runs[rung]
            start = read_weights(weights_of(run.folder, run.config))
            with tempfile.TemporaryDirectory() as folder:
                writer = Writer(Path(folder))
                writer.open()
                setting = Setting(None, 1, 1e9, lambda: "", ALONE, (), writer)
                data = HeldOut(recipe, run.config.data.in_channels)
                found = train_task(TaskRun(recipe, run.config.net, SEED), data, start, setting, "cpu")
                writer.close()
            row |= found.values | {name: found.details[name] for name in ("train_s", "test_s")}
            with table.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n").writerow(row)


if __name__ == "__main__":
    main(sys.argv[1])
