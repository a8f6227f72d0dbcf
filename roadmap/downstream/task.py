"""Training detectors and segmenters on the networks of a study, as a task of jobs."""

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.common.provenance import gpu, processor
from roadmap.downstream.first_weights import GivenWeights, find_given_weights
from roadmap.downstream.task_recipe import TaskRecipe, read_task
from roadmap.jobs.tasks import Setting
from roadmap.metrics.tasks import NetworkTask, find_commit_once
from roadmap.metrics.trained import read_config, read_weights, weights_fingerprint, weights_of
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.runs.metrics import OWN_METRICS_VERSION, Metric, path_of, read_measured, task_folder
from roadmap.study.initial_weights import read_first_weights
from roadmap.study.networks import TaskNetworks

if TYPE_CHECKING:
    from torch import Tensor

    from roadmap.networks.nets import Net
    from roadmap.study.plan import PlannedRun

# Raised when the same task would now give other numbers.
TASKS_VERSION = 1
PARTS = 20  # in which progress is told
USUAL = ("segmentation", "detection")  # tasks whose metrics have names without the task's


@dataclass(frozen=True)
class DownstreamTask(NetworkTask):
    """Training and testing a detector or segmenter on the network of a run (a `roadmap.jobs.tasks.Task`).

    The backbone starts from the weights of the run's classifier, unless it starts from random ones or from given ones.

    Attributes:
        recipe: How.
        from_scratch: Whether the backbone starts from random weights.
        root: Where the task's data lies, if it is not made.
        data: Fingerprint of the task's images.
        weights: What the backbone starts from, if it was given.
    """

    recipe: TaskRecipe
    from_scratch: bool = False
    root: Path | None = field(default=None, compare=False)
    data: str = ""
    weights: GivenWeights | None = None
    interruptible = False  # it saves itself when it is asked to stop
    shared_out = True

    @property
    def needs_trained(self) -> bool:
        """See `NetworkTask`."""
        return not self.from_scratch and self.weights is None

    @property
    def name(self) -> str:
        """What its outcome is called beside a run."""
        return "_".join(filter(None, (self.recipe.name, self._start.replace(" ", "_"))))

    @property
    def _start(self) -> str:
        """What the backbone starts from, in words; nothing for the classifier's weights, the usual ones."""
        if self.weights:
            return f"from {self.weights.name}"
        return "from scratch" if self.from_scratch else ""

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides its numbers beside the run; where each run has weights of its own, beside these."""
        return self._hash(self.weights.fingerprint if self.weights else None)

    def fingerprint_on(self, folder: Path) -> str:
        """Return the hash of all that decides its numbers on a run, given weights among it."""
        return self._hash(self.weights.of(folder).fingerprint if self.weights else None)

    def _hash(self, weights: str | None) -> str:
        content = {
            "version": TASKS_VERSION,
            "recipe": self.recipe.training(),
            "from_scratch": self.from_scratch,
            "data": self.data,
        } | ({} if weights is None else {"weights": weights})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def place(self, folder: Path) -> Path:
        """See `NetworkTask`."""
        return folder / task_folder(self.name, self.fingerprint_on(folder))

    @property
    def metrics(self) -> dict[str, Metric]:
        """What it measures, by the columns of tables; the first is what it is judged by."""
        from roadmap.downstream import detection, segmentation

        kind = segmentation if self.recipe.is_segmentation else detection
        return {self._column(name): self._about(about) for name, about in kind.METRICS.items()}

    @property
    def networks(self) -> TaskNetworks:
        """Its networks, as what is trained in rounds."""
        return TaskNetworks(self.name, self.fingerprint, next(iter(self.metrics)))

    def missing(self, folder: Path) -> tuple[str, ...]:
        """See `NetworkTask`: the parts are twentieths of the training."""
        found = read_measured(path_of(folder, self.name, self.fingerprint_on(folder)))
        if found and (self.from_scratch or found["weights_fingerprint"] == self._weights(folder)):
            return ()
        progress = files.read_object(self.place(folder) / run_folder.PROGRESS) or {}
        step = progress.get("step")
        done = min(PARTS - 1, PARTS * step // self.recipe.steps) if isinstance(step, int) and step > 0 else 0
        return tuple(f"{self.recipe.name}, {100 * part // PARTS}% of the steps" for part in range(done, PARTS))

    def cost(self, part: str) -> float:
        """See `NetworkTask`."""
        return 1.0

    def _weights(self, folder: Path) -> str:
        """Return the hash of the weights that the backbone starts from; nothing for random ones."""
        if self.weights:
            return self.weights.of(folder).fingerprint
        return "" if self.from_scratch else weights_fingerprint(folder, read_config(folder))

    def _backbone(self, folder: Path, config: RunConfig) -> "tuple[Net, dict[str, Tensor] | None]":
        """Return a run's network, and the weights that it starts from as a backbone; None for random ones."""
        if self.weights:
            started = self.weights.start(config)
            return started.net, read_first_weights(started)
        return config.net, None if self.from_scratch else read_weights(weights_of(folder, config))

    def work(
        self, folder: Path, config: RunConfig, setting: Setting, device: str, report: Callable[[str], None]
    ) -> None:
        """See `NetworkTask`."""
        from roadmap.downstream.data.sources import open_data
        from roadmap.downstream.training import TaskRun, train_task
        from roadmap.training.checkpoints import remove_checkpoints

        weights = self._weights(folder)
        data = open_data(self.recipe, config.data.in_channels, self.root)
        if data.fingerprint != self.data:
            raise UserError(
                f"task '{self.recipe.name}': its images have changed since the command was started. Start it again."
            )
        about = {"from_scratch": self.from_scratch, "data": self.data}
        if self.weights:
            about["weights"] = self.weights.of(folder).path
        net, start = self._backbone(folder, config)
        outcome = train_task(TaskRun(self.recipe, net, config.seed), data, start, setting, device)
        if setting.group.rank:
            return
        content = {
            "own_metrics_version": OWN_METRICS_VERSION,
            "function": self.name,
            "file": f"{self.recipe.name}.yaml",
            "command": f"downstream --task {self.recipe.name}{self._option}",
            "fingerprint": self.fingerprint,
            "weights_fingerprint": weights,
            "needs_trained": self.needs_trained,
            "task": self.recipe.training() | about,
            "metrics": {name: asdict(about) for name, about in self.metrics.items()},
            "values": {self._column(name): value for name, value in outcome.values.items()},
            "details": outcome.details,
            "at": time.time(),
            "commit": find_commit_once(),
            "device": (gpu() if device != "cpu" else None) or processor(),
        }
        path = path_of(folder, self.name, self.fingerprint_on(folder))
        path.parent.mkdir(exist_ok=True)
        setting.writer.write_json(path, content)
        with suppress(OSError):
            remove_checkpoints(setting.writer)
        say(f"{folder.name}: {', '.join(f'{name} {value:.2f}' for name, value in outcome.values.items())}")

    @property
    def _option(self) -> str:
        """The option of the command that says what the backbone starts from, if it does."""
        if self.weights:
            return f" --weights {shlex.quote(self.weights.place)}"
        return " --from-scratch" if self.from_scratch else ""

    def _column(self, metric: str) -> str:
        """Return what a metric of this task is called in tables: those of two tasks are told apart."""
        return metric if self.name in USUAL else f"{metric}_{self.name}"

    def _about(self, metric: Metric) -> Metric:
        """Return a metric whose label says of which task, and from which weights, as far as that is not the usual."""
        which = "" if self.recipe.name in USUAL else f"on {self.recipe.name}"
        unit = metric.label.removeprefix(metric.name)
        return replace(metric, label=" ".join(filter(None, (metric.name, which, self._start))) + unit)


def plan_task(
    name: str,
    planned: "Sequence[PlannedRun]",
    *,
    from_scratch: bool = False,
    weights: str | None = None,
    root: Path | None = None,
    processes: int = 1,
) -> DownstreamTask:
    """Return a task, having checked that it can be done on the networks of a study.

    Args:
        name: The name or file of its recipe.
        planned: The study's runs.
        from_scratch: Whether backbones start from random weights.
        weights: What they start from instead, as for `roadmap.study.initial_weights.find_weights`.
        root: Where its images lie, if they are not made.
        processes: How many of them train one network.

    Raises:
        UserError: If there is no such recipe, its data is missing or not whole, what tests it is not installed, a
            network has not four resolutions or other channels than the images, weights do not fit, or the processes
            cannot share out a batch.
    """
    import torch

    from roadmap.downstream.data.sources import open_data
    from roadmap.downstream.detection import require_coco
    from roadmap.downstream.training import TaskRun, make_task_model

    recipe = read_task(name)
    if recipe.batch_size % processes:
        raise UserError(
            f"task '{recipe.name}': batch_size is {recipe.batch_size}, which {processes} processes (nodes x "
            "tasks_per_node) cannot share out. Use a number of processes that divides it."
        )
    if not recipe.is_segmentation:
        require_coco()
    data = open_data(recipe, planned[0].config.data.in_channels, root)
    for net, run in {run.config.net: run for run in planned}.items():
        try:
            with torch.device("meta"):
                make_task_model(TaskRun(recipe, net, 0), len(data.classes), data.in_channels, None)
        except UserError as error:
            raise UserError(f"rung '{run.rungs[0]}': {error}") from error
    given = None if weights is None else find_given_weights(weights, planned)
    return DownstreamTask(recipe, from_scratch, root and root.absolute(), data.fingerprint, given)
