"""Training a detector or segmenter on a rung's network, from the weights of its classifier, and testing it.

What is written lies in a folder of its own: the last two checkpoints, how far it is, and the outcome.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.common.seeding import seed_step
from roadmap.downstream import detection, segmentation
from roadmap.downstream.data.task_data import Batch, TaskData
from roadmap.downstream.feature_maps import FeatureMaps
from roadmap.downstream.pictures import picture_of
from roadmap.downstream.task_recipe import TaskRecipe
from roadmap.jobs.tasks import Setting, Stopped
from roadmap.networks.nets import Net
from roadmap.runs.run_folder import PROGRESS, WEIGHTS
from roadmap.training.checkpoints import read_checkpoint, read_last, write_checkpoint
from roadmap.training.loop import save_weights
from roadmap.training.parallel import distribute
from roadmap.training.step import autocast, make_scaler

LOOK_EVERY_S = 1.0
PICTURE, EXAMPLES = "examples.png", 6  # the first test images, what is in them, what was found
LAST_LOSSES = 50  # steps over which the last training loss is the mean


@dataclass(frozen=True)
class TaskRun:
    """A task on one network, which with images and first weights decides its numbers.

    Attributes:
        recipe: How.
        net: The backbone's network, scaled as its classifier was.
        seed: Of the head's first weights, of the order of the images, of augmentation.
    """

    recipe: TaskRecipe
    net: Net
    seed: int


class Outcome(NamedTuple):
    """What a task found.

    Attributes:
        values: The number of each metric, by its name.
        details: What else is known: the test's other numbers, the loss at the end, times.
    """

    values: dict[str, float]
    details: dict[str, Any]


def train_task(
    run: TaskRun,
    data: TaskData,
    start: dict[str, Tensor] | None,
    setting: Setting,
    device: str,
) -> Outcome:
    """Train and test a task's network; go on where its folder says it stopped.

    On a CPU the outcome depends on nothing but the run and the number of threads and processes: not on when or how
    often it was interrupted. Several processes share out each batch, and the test images; each draws for itself what is
    drawn inside the network (dropout, which regions are looked at), so that another number of them is another outcome.

    Args:
        run: What to train.
        data: Its images.
        start: The weights that the backbone starts from, by their names in the network; None for random ones.
        setting: The job's conditions; its writer's folder is the task's own, and rank 0 of its group alone writes.
        device: "cpu" or "cuda".

    Returns:
        The outcome. The trained weights lie in the folder, and the checkpoints still do.

    Raises:
        Stopped: If that was asked for; it has saved itself.
        Lost: If another job has taken the work over.
        UserError: If the weights do not fit.
    """
    training = _Training(run, data, start, setting, device)
    training.resume()
    training.train()
    return training.test()


class _Training:
    """The state of a task's training in memory."""

    def __init__(
        self, run: TaskRun, data: TaskData, start: dict[str, Tensor] | None, setting: Setting, device: str
    ) -> None:
        self.run, self.data, self.setting, self.device = run, data, setting, device
        self.recipe, self.writer, self.group = run.recipe, setting.writer, setting.group
        self.kind = segmentation if run.recipe.is_segmentation else detection
        seed_step(run.seed, -2 % 2**32)  # a stream of its own: no training step has this number
        self.model = make_task_model(run, len(data.classes), data.in_channels, start).to(device)
        loss = _Loss(self.model, self.kind.loss, device)
        self.loss = distribute(loss, device, self.group, sync_batch_norm=True, drops_alike=False)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.recipe, self.model), lr=self.recipe.lr)
        self.scaler = make_scaler(self.recipe, device)  # type: ignore[arg-type]  # it has the field that is asked for
        self.step, self.losses = 0, list[float]()
        self.train_s = 0.0
        self.began = time.monotonic()  # moved back on resume, so that wall_s counts all attempts

    def train(self) -> None:
        """Take all steps that are left, looking up about once a second to save and stop.

        All processes look up at the same step, which rank 0 chooses.
        """
        self.model.train()
        saved_at = looked_at = time.monotonic()
        pending: list[Tensor] = []
        look_at = self.step + 1
        while self.step < self.recipe.steps:
            pending.append(self._take_step())
            last = self.step == self.recipe.steps
            if self.step < look_at and not last:
                continue
            steps = len(pending)
            self._note(pending)
            now = time.monotonic()
            self.train_s += now - looked_at
            is_due = last or now - saved_at > self.setting.save_every_s
            # As many steps as fit between two looks at the speed of the last ones.
            ahead = max(1, int(steps * LOOK_EVERY_S / max(now - looked_at, 1e-6)))
            request = self.setting.asked() or ("save" if is_due else "")
            request, look_at = self.group.agree((request, self.step + ahead))
            if request != "leave":
                self._show()
            if request in ("save", "stop"):
                self._save()
                saved_at = time.monotonic()
            if request in ("stop", "leave"):
                raise Stopped
            looked_at = time.monotonic()

    def _take_step(self) -> Tensor:
        recipe = self.recipe
        seed_step(self.run.seed, self.step)
        batch = self.data.batch(self.run.seed, self.step, self.group)
        if self.group.rank:
            seed_step(self.run.seed, self.step, self.group.rank)
        rate = rate_at(recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad()
        with autocast(recipe.amp, self.device):
            loss = self.loss(batch)
        self.scaler.scale(loss).backward()
        if recipe.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        out: Tensor = loss.detach()
        return out

    def _note(self, pending: list[Tensor]) -> None:
        losses = self.group.mean(torch.stack(pending)).tolist()
        pending.clear()
        if bad := [loss for loss in losses if not math.isfinite(loss)]:
            raise UserError(
                f"the loss is {bad[0]} by step {self.step}. Lower lr in the task's recipe, or warm up longer."
            )
        self.losses = [*self.losses, *losses][-LAST_LOSSES:]

    def _show(self) -> None:
        if self.group.rank:
            return
        progress = {"step": self.step, "steps": self.recipe.steps, "at": time.time()}
        with suppress(files.Unwritable):
            text = json.dumps(progress).encode()
            self.writer.write(self.writer.folder / PROGRESS, lambda file: file.write(text), durable=False)

    def test(self) -> Outcome:
        """Test the trained network; write its weights, and a picture of what it finds."""
        kind, start = self.kind, time.monotonic()
        found = kind.evaluate(self.recipe, self.model, self.data, self.device, self.group)
        details = found | {
            "train_loss": sum(self.losses) / len(self.losses),
            "train_s": round(self.train_s, 2),
            "test_s": round(time.monotonic() - start, 2),
            "wall_s": round(time.monotonic() - self.began, 2),
            "threads": torch.get_num_threads(),
            "processes": self.group.size,
        }
        if self.group.rank == 0:
            shown = kind.examples(self.recipe, self.model, self.data, self.device, EXAMPLES)
            picture = picture_of(shown)
            self.writer.write(self.writer.folder / PICTURE, lambda file: picture.save(file, format="PNG"))
            save_weights(self.model, self.writer.folder / WEIGHTS, self.writer.write)
        return Outcome(kind.as_metrics(found), details)

    # -- checkpoints

    def _save(self) -> None:
        if self.group.rank:
            return
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "losses": self.losses,
            "train_s": self.train_s,
            "wall_s": time.monotonic() - self.began,
            "threads": torch.get_num_threads(),
            "processes": self.group.size,
        }
        try:
            write_checkpoint(self.writer, self.step, content)
        except files.Unwritable as error:
            say(f"{error} The work goes on without this checkpoint.")

    def resume(self) -> None:
        """Go on from the last whole checkpoint; from the start where there is none."""
        found = read_last(self.writer, self.device) if self.group.rank == 0 else None
        path = self.group.agree(found and found[0])
        if path is None:
            return
        content = found[1] if found else read_checkpoint(path, self.device)
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.step, self.losses = int(content["step"]), list(content["losses"])
            self.train_s = float(content["train_s"])
            threads, processes = content["threads"], content.get("processes", 1)  # earlier versions had one
            self.began -= float(content["wall_s"])
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            if self.group.rank == 0:
                self.writer.remove(path)
            raise UserError(f"{path}: not a checkpoint of this work, so it was removed. Start it again.") from error
        if processes != self.group.size:
            raise UserError(
                f"{path}: was trained by {processes} processes, now there are {self.group.size}, which draw otherwise. "
                "Go on with as many, or remove its folder to start again."
            )
        if threads != torch.get_num_threads() and self.device == "cpu":
            say(f"{path.parent.name}: goes on with another number of threads, which rounds differently.")
        say(f"{path.parent.name}: goes on from step {self.step}")


class _Loss(nn.Module):
    """From a batch to its loss: what several processes call together, so that their gradients are averaged."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Batch, str], Tensor], device: str) -> None:
        super().__init__()
        self.model, self.loss, self.device = model, loss, device

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(self.model, batch, self.device)


def make_task_model(run: TaskRun, classes: int, in_channels: int, start: dict[str, Tensor] | None) -> nn.Module:
    """Build a task's network and have its backbone start from weights.

    Raises:
        UserError: If the network has not four resolutions, or the weights are another network's.
    """
    backbone = FeatureMaps(run.net, in_channels=in_channels, drop_path=run.recipe.drop_path)
    if start is not None:
        backbone.load_classifier(start)
    kind = segmentation if run.recipe.is_segmentation else detection
    model: nn.Module = kind.make(run.recipe, backbone, classes, in_channels)
    return model


def rate_at(recipe: TaskRecipe, step: int) -> float:
    """Return the learning rate of a step, from 0.

    Source: the schedules "poly" of power 1 and "step", and the linear warm-up, of the framework that the authors used.
    """
    if recipe.schedule == "linear":
        rate = recipe.lr * (1 - step / recipe.steps)
    else:
        rate = recipe.lr * 0.1 ** sum(step >= at for at in recipe.decay_steps)
    if step < recipe.warmup_steps:
        rate *= 1 - (1 - step / recipe.warmup_steps) * (1 - recipe.warmup_ratio)
    return rate


def parameter_groups(recipe: TaskRecipe, model: nn.Module) -> list[dict[str, Any]]:
    """Return the optimizer's groups: by their share of the learning rate, and whether weights decay.

    Counted from the heads, which have the whole rate, each group of layers has `layer_decay` times the rate of the
    next. By stages, as many groups are counted as by layers, and separate downsampling layers go with the stem.

    Source: the authors' code for detection and segmentation.
    """
    layers = layers_of(recipe, model)
    top = max(layers_of(recipe, model, by="layers").values(), default=-1) + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        layer, decays = layers.get(name, top), parameter.ndim > 1
        if (layer, decays) not in groups:
            scale = recipe.layer_decay ** (top - layer)
            decay = recipe.weight_decay if decays else 0.0
            groups[layer, decays] = {"params": [], "weight_decay": decay, "scale": scale}
        groups[layer, decays]["params"].append(parameter)
    return list(groups.values())


def layers_of(recipe: TaskRecipe, model: nn.Module, by: str | None = None) -> dict[str, int]:
    """Return the number of the group of layers of each of the backbone's parameters, by its name in the whole model."""
    from timm.models import group_parameters

    stages = (by or recipe.decay_by) == "stages"
    [(prefix, backbone)] = [(name, each) for name, each in model.named_modules() if isinstance(each, FeatureMaps)]
    network: Any = backbone.network
    found = group_parameters(network, network.group_matcher(coarse=stages), reverse=True)
    return {
        f"{prefix}.network.{name}": 0 if stages and ".downsample." in name else layer for name, layer in found.items()
    }
