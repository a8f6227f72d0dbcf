"""One run, from its configuration to its result row: resume, loop {train, save}, evaluate."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap import results
from roadmap.data import Data, load_data, seed_step
from roadmap.errors import UserError
from roadmap.model import build_model
from roadmap.run import RunConfig

LOOK_EVERY_S = 1.0  # between looks at the loss, each of which waits for the device
SAVE_EVERY_S = 120.0  # inside an epoch; the end of an epoch saves too,
SAVE_EPOCH_AFTER_S = 5.0  # unless the last save is this fresh
ECE_BINS = 15


class Diverged(Exception):
    """The loss is not finite any more."""


class Stopped(Exception):
    """Someone asked the run to stop; it has saved itself."""


def train(
    config: RunConfig,
    folder: Path,
    *,
    data_root: Path | None = None,
    device: str | None = None,
    threads: int = 1,
    save_every_s: float = SAVE_EVERY_S,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train and evaluate one run; go on where its folder says it stopped.

    On a CPU the result depends on nothing but the configuration and the number of threads: not on when or how often
    the run was interrupted.

    Args:
        config: What to run.
        folder: The run folder; `roadmap.results` says what is written there.
        data_root: Where the data set lies.
        device: "cpu" or "cuda"; None takes a GPU where there is one.
        threads: CPU threads to use.
        save_every_s: Seconds between checkpoints inside an epoch.
        stop: Asked at every step; when true, the run saves itself and raises `Stopped`.

    Returns:
        The result row, as written to the folder.

    Raises:
        Stopped: If `stop` said so.
        UserError: If the data or the folder cannot be used.
    """
    start = time.monotonic()
    torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    data = load_data(config, data_root, device, workers=threads)
    run = _Training(config, data, folder, device, start)
    run.resume()
    try:
        for epoch in range(run.step // config.steps_per_epoch, config.recipe.epochs):
            run.train_epoch(epoch, save_every_s, stop)
        row = run.evaluate()
        save_weights(run.model, folder / results.WEIGHTS)
    except Diverged as error:
        row = run.row("diverged", error=str(error))
    results.write_json(folder / results.RESULT, row)
    (folder / results.CHECKPOINT).unlink(missing_ok=True)
    return row


class _Training:
    """The state of a run in memory, and the parts of its loop."""

    def __init__(self, config: RunConfig, data: Data, folder: Path, device: str, start: float) -> None:
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        self.config, self.data, self.folder, self.device = config, data, folder, device
        recipe = config.recipe
        seed_step(config.seed, -1 % 2**32)  # a stream of its own: no training step has this number
        self.model = build_model(
            config.net,
            num_classes=config.data.num_classes,
            in_channels=config.data.in_channels,
            drop_path=recipe.drop_path,
        ).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = create_optimizer_v2(
            self.model,
            opt={"adamw": "adamw", "sgd": "momentum"}[recipe.optimizer],
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            filter_bias_and_bn=not recipe.decay_norms_and_biases,
            fused=True,
            **({"betas": recipe.betas} if recipe.optimizer == "adamw" else {}),
        )
        # timm counts the warm-up apart from the epochs of the schedule proper.
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            sched=recipe.schedule,
            num_epochs=recipe.epochs - recipe.warmup_epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_prefix=recipe.schedule == "cosine",
            warmup_lr=recipe.warmup_lr,
            min_lr=recipe.min_lr,
            decay_epochs=recipe.decay_epochs,
            decay_rate=recipe.decay_rate,
            step_on_epochs=False,
            updates_per_epoch=config.steps_per_epoch,
        )
        self.ema = ModelEmaV3(self.model, decay=recipe.ema) if recipe.ema else None
        self.step = 0
        self.loss_sum = 0.0  # of the epoch so far
        self.history: list[dict[str, Any]] = []
        self.train_s = 0.0
        self.start = start  # moved back on resume, so that wall_s counts all attempts
        self.looked_at = self.saved_at = time.monotonic()

    # -- the loop

    def train_epoch(self, epoch: int, save_every_s: float, stop: Callable[[], bool]) -> None:
        """Train the rest of an epoch, looking up about once a second to note the loss, show, save and stop."""
        steps = self.config.steps_per_epoch
        self.model.train()
        pending: list[Tensor] = []  # losses of the steps since the last look, still on the device
        self.looked_at = time.monotonic()
        for images, targets in self.data.epoch(epoch, self.step - epoch * steps):
            pending.append(self.train_step(images, targets))
            last, stopping, now = self.step == (epoch + 1) * steps, stop(), time.monotonic()
            if not (last or stopping or now - self.looked_at >= LOOK_EVERY_S):
                continue
            self.note(pending)
            if last:
                self.end_epoch(epoch)
            self.show("running", epoch)
            due = now - self.saved_at > (SAVE_EPOCH_AFTER_S if last else save_every_s)
            if stopping or (due and self.step < steps * self.config.recipe.epochs):
                self.save()
            if stopping:
                raise Stopped
            self.looked_at = time.monotonic()

    def train_step(self, images: Tensor, targets: Tensor) -> Tensor:
        """Take one optimizer step; return the loss, still on the device."""
        recipe = self.config.recipe
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16, enabled=recipe.amp == "bfloat16"):
            logits = self.model(images)
        # Mixed targets are smoothed already.
        smoothing = recipe.label_smoothing if targets.ndim == 1 else 0.0
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if recipe.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        self.optimizer.step()
        self.step += 1
        self.scheduler.step_update(self.step)
        if self.ema:
            self.ema.update(self.model, step=self.step)
        return loss.detach()

    def note(self, pending: list[Tensor]) -> None:
        """Add the losses of the last steps to the epoch's sum, and their time to the run's."""
        losses = torch.stack(pending).tolist()
        self.train_s += time.monotonic() - self.looked_at
        for number, loss in enumerate(losses, self.step - len(losses) + 1):
            if not math.isfinite(loss):
                self.step = number
                raise Diverged(f"the loss is {loss} at step {number}")
            self.loss_sum += loss
        pending.clear()

    @property
    def images_per_s(self) -> float | None:
        """Training images per second so far, over all attempts."""
        return self.step * self.config.recipe.batch_size / self.train_s if self.train_s else None

    def end_epoch(self, epoch: int) -> None:
        """Write the epoch's line."""
        line = {
            "epoch": epoch + 1,
            "step": self.step,
            "train_loss": self.loss_sum / self.config.steps_per_epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_s": self.images_per_s,
        }
        self.history.append(line)
        self.loss_sum = 0.0
        with (self.folder / results.METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def show(self, state: str, epoch: int) -> None:
        """Say where the run stands, for those who watch."""
        losses = [line["train_loss"] for line in self.history]
        done = self.step % self.config.steps_per_epoch
        progress = {
            "state": state,
            "epoch": epoch + 1,
            "epochs": self.config.recipe.epochs,
            "step": self.step,
            "steps": self.config.steps_per_epoch * self.config.recipe.epochs,
            "train_loss": self.loss_sum / done if done else losses[-1] if losses else None,
            "images_per_s": self.images_per_s,
            "at": time.time(),
        }
        temporary = self.folder / f".{results.PROGRESS}"
        temporary.write_text(json.dumps(progress))
        temporary.replace(self.folder / results.PROGRESS)

    # -- the end

    def evaluate(self) -> dict[str, Any]:
        """Measure the trained network on the whole test set and return the result row."""
        self.show("evaluating", self.config.recipe.epochs - 1)
        logits, labels = predict(self.model, self.data, self.device, amp=self.config.recipe.amp)
        row = self.row("finished", **metrics(logits, labels))
        if self.ema:
            logits, labels = predict(self.ema.module, self.data, self.device, amp=self.config.recipe.amp)
            row["top1_ema"] = metrics(logits, labels)["top1"]
        row["wall_s"] = time.monotonic() - self.start
        return row

    def row(self, state: str, **values: Any) -> dict[str, Any]:
        """Return a result row; what is not measured is null."""
        done: dict[str, Any] = {
            "result_version": results.RESULT_VERSION,
            "state": state,
            "classes": list(self.data.classes),
            "train_loss": self.history[-1]["train_loss"] if self.history else None,
            "images_per_s": self.images_per_s,
            "train_s": self.train_s,
            "wall_s": time.monotonic() - self.start,
            "images_seen": self.step * self.config.recipe.batch_size,
        }
        return {column: (done | values).get(column) for column in results.COLUMNS}

    # -- checkpoints

    def save(self) -> None:
        """Write a checkpoint from which the run goes on bit for bit."""
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "history": self.history,
            "train_s": self.train_s,
            "wall_s": time.monotonic() - self.start,
        }
        results.write_atomically(self.folder / results.CHECKPOINT, lambda file: torch.save(content, file))
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Go on from the last checkpoint; from the start where there is none or it cannot be read."""
        results.sweep(self.folder)
        path = self.folder / results.CHECKPOINT
        if path.exists():
            try:
                content = torch.load(path, map_location=self.device, weights_only=True)
            except Exception as error:  # torch.load raises what it likes on a damaged file
                print(f"{path}: cannot be read ({error}): the run starts again from the beginning.", flush=True)
            else:
                self.restore(content, path)
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        results.write_atomically(self.folder / results.METRICS, lambda file: file.write(lines.encode()))

    def restore(self, content: dict[str, Any], path: Path) -> None:
        """Take over what a checkpoint holds."""
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.ema:
                self.ema.load_state_dict(content["ema"])
            self.step, self.loss_sum = content["step"], content["loss_sum"]
            self.history, self.train_s = content["history"], content["train_s"]
            self.start -= content["wall_s"]
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            path.unlink()
            raise UserError(f"{path}: not a checkpoint of this run, so it was removed. Start the run again.") from error


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    results.write_atomically(path, lambda file: file.write(save(weights)))


@torch.inference_mode()
def predict(model: nn.Module, data: Data, device: str, *, amp: str = "none") -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) in float32 and labels (N,) for the whole test set, on the CPU, in its order."""
    model.eval()
    logits, labels = [], []
    for images, targets in data.test():
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=amp == "bfloat16"):
            logits.append(model(images).float().cpu())
        labels.append(targets.cpu())
    return torch.cat(logits), torch.cat(labels)


def metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the test metrics of logits (N, classes) against labels (N,); `results.COLUMNS` says what each is.

    Source: for the calibration error, Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    probabilities = logits.double().softmax(1)
    confidence, guess = probabilities.max(1)
    right = guess == labels
    top5 = (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).any(1)
    bins = (confidence * ECE_BINS).ceil().clamp(1, ECE_BINS).long() - 1
    gap = torch.zeros(ECE_BINS, dtype=torch.double).index_add_(0, bins, right.double() - confidence)
    totals = torch.bincount(labels, minlength=logits.shape[1])
    hits = torch.bincount(labels[right], minlength=logits.shape[1])
    return {
        "top1": 100 * right.double().mean().item(),
        "top5": 100 * top5.double().mean().item(),
        "nll": F.cross_entropy(logits.double(), labels).item(),
        "ece": 100 * (gap.abs().sum() / len(labels)).item(),
        "top1_per_class": [100 * h / t if t else None for h, t in zip(hits.tolist(), totals.tolist(), strict=True)],
        "test_images": len(labels),
    }
