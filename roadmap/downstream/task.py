"""Training detectors and segmenters on the trained networks of a study, as a task of jobs."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.common.provenance import gpu, processor
from roadmap.downstream.task_recipe import TaskRecipe, read_task
from roadmap.jobs.tasks import Setting
from roadmap.metrics.tasks import NetworkTask, find_commit_once
from roadmap.metrics.trained import read_config, read_weights, weights_fingerprint, weights_of
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.runs.metrics import OWN_METRICS_VERSION, Metric, path_of, read_measured, task_folder
from roadmap.study.networks import TaskNetworks

if TYPE_CHECKING:
    from roadmap.study.plan import PlannedRun

# Raised when the same task would now give other numbers.
TASKS_VERSION = 1
PARTS = 20  # in which progress is told
USUAL = ("segmentation", "detection")  # tasks whose metrics have names without the task's


@dataclass(frozen=True)
class DownstreamTask(NetworkTask):
    """Training and testing a detector or segmenter on the network of a finished run (a `roadmap.jobs.tasks.Task`).

    Attributes:
        recipe: How.
        from_scratch: Whether the backbone starts from random weights instead of those of the run's classifier.
        root: Where the task's data lies, if it is not made.
        data: Fingerprint of the task's images.
    """

    recipe: TaskRecipe
    from_scratch: bool = False
    root: Path | None = field(default=None, compare=False)
    data: str = ""
    interruptible = False  # it saves itself when it is asked to stop

    @property
    def name(self) -> str:
        """What its outcome is called beside a run."""
        return self.recipe.name + ("_from_scratch" if self.from_scratch else "")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides its numbers beside the run."""
        content = {
            "version": TASKS_VERSION,
            "recipe": self.recipe.training(),
            "from_scratch": self.from_scratch,
            "data": self.data,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def claims(self) -> str:
        """See `NetworkTask`."""
        return task_folder(self.name, self.fingerprint)

    @property
    def metrics(self) -> dict[str, Metric]:
        """What it measures, by the columns of tables; the first is what it is judged by."""
        from roadmap.downstream import detection, segmentation

        kind = segmentation if self.recipe.is_segmentation else detection
        return {self._column(name): about for name, about in kind.METRICS.items()}

    @property
    def networks(self) -> TaskNetworks:
        """Its networks, as what is trained in rounds."""
        return TaskNetworks(self.name, self.fingerprint, next(iter(self.metrics)))

    def missing(self, folder: Path) -> tuple[str, ...]:
        """See `NetworkTask`: the parts are twentieths of the training."""
        found = read_measured(path_of(folder, self.name, self.fingerprint))
        if found and found["weights_fingerprint"] == self._weights(folder):
            return ()
        progress = files.read_object(self.place(folder) / run_folder.PROGRESS) or {}
        step = progress.get("step")
        done = min(PARTS - 1, PARTS * step // self.recipe.steps) if isinstance(step, int) and step > 0 else 0
        return tuple(f"{self.recipe.name}, {100 * part // PARTS}% of the steps" for part in range(done, PARTS))

    def cost(self, part: str) -> float:
        """See `NetworkTask`."""
        return 1.0

    def _weights(self, folder: Path) -> str:
        """Return the hash of the run's weights, which must be there in any case."""
        return weights_fingerprint(folder, read_config(folder))

    def work(
        self, folder: Path, config: RunConfig, setting: Setting, device: str, report: Callable[[str], None]
    ) -> None:
        """See `NetworkTask`."""
        from roadmap.downstream.data.sources import open_data
        from roadmap.downstream.training import TaskRun, train_task
        from roadmap.training.checkpoints import remove_checkpoints

        report(self.recipe.name)
        weights = self._weights(folder)
        data = open_data(self.recipe, config.data.in_channels, self.root)
        if data.fingerprint != self.data:
            raise UserError(
                f"task '{self.recipe.name}': its images have changed since the command was started. Start it again."
            )
        run = TaskRun(self.recipe, config.net, config.seed)
        start = None if self.from_scratch else read_weights(weights_of(folder, config))
        outcome = train_task(run, data, start, setting, device)
        content = {
            "own_metrics_version": OWN_METRICS_VERSION,
            "function": self.name,
            "file": f"{self.recipe.name}.yaml",
            "command": f"downstream --task {self.recipe.name}",
            "fingerprint": self.fingerprint,
            "weights_fingerprint": weights,
            "task": self.recipe.training() | {"from_scratch": self.from_scratch, "data": self.data},
            "metrics": {self._column(name): asdict(about) for name, about in outcome.metrics.items()},
            "values": {self._column(name): value for name, value in outcome.values.items()},
            "details": outcome.details,
            "at": time.time(),
            "commit": find_commit_once(),
            "device": (gpu() if device != "cpu" else None) or processor(),
        }
        path = path_of(folder, self.name, self.fingerprint)
        path.parent.mkdir(exist_ok=True)
        setting.writer.write_json(path, content)
        with suppress(OSError):
            remove_checkpoints(setting.writer)
        say(f"{folder.name}: {', '.join(f'{name} {value:.2f}' for name, value in outcome.values.items())}")

    def _column(self, metric: str) -> str:
        """Return what a metric of this task is called in tables: those of two tasks are told apart."""
        return metric if self.name in USUAL else f"{metric}_{self.name}"


def plan_task(
    name: str, planned: "Sequence[PlannedRun]", *, from_scratch: bool = False, root: Path | None = None
) -> DownstreamTask:
    """Return a task, having checked that it can be done on the networks of a study.

    Args:
        name: The name or file of its recipe.
        planned: The study's runs.
        from_scratch: Whether backbones start from random weights.
        root: Where its images lie, if they are not made.

    Raises:
        UserError: If there is no such recipe, its data is missing or not whole, what tests it is not installed, or a
            network has not four resolutions or other channels than the images.
    """
    import torch

    from roadmap.downstream.data.sources import open_data
    from roadmap.downstream.detection import require_coco
    from roadmap.downstream.training import TaskRun, make_task_model

    recipe = read_task(name)
    if not recipe.is_segmentation:
        require_coco()
    data = open_data(recipe, planned[0].config.data.in_channels, root)
    for net, run in {run.config.net: run for run in planned}.items():
        try:
            with torch.device("meta"):
                make_task_model(TaskRun(recipe, net, 0), len(data.classes), data.in_channels, None)
        except UserError as error:
            raise UserError(f"rung '{run.rungs[0]}': {error}") from error
    return DownstreamTask(recipe, from_scratch, root and root.absolute(), data.fingerprint)
