"""One run, from its configuration to its result row: resume, loop {train, save}, evaluate."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.common.machine import choose_device
from roadmap.common.process_group import ALONE, Group
from roadmap.common.seeding import seed_step
from roadmap.data.batches import Data, decoding_workers, load_data
from roadmap.networks.own_layers import import_code
from roadmap.runs import run_folder
from roadmap.runs.claims import Writer
from roadmap.runs.config import RunConfig
from roadmap.study.initial_weights import load_weights
from roadmap.training.checkpoints import progress_in, read_checkpoint, read_last, remove_checkpoints, write_checkpoint
from roadmap.training.evaluation import metrics, predict
from roadmap.training.loggers import Loggers
from roadmap.training.parallel import GhostBatches, distribute
from roadmap.training.step import make_ema, make_model, make_optimizer, make_scaler, make_scheduler, take_step

LOOK_EVERY_S = 1.0  # between looks at the loss, each of which waits for the device
SAVE_EVERY_S = 120.0  # inside an epoch; the end of an epoch saves too,
SAVE_EPOCH_AFTER_S = 5.0  # unless the last save is this fresh
SAVE_LAST_AFTER_S = 60.0  # after the last step: evaluating may take long

# What others ask of a run: nothing; to save now and go on; to save and stop; to leave everything alone and stop.
Request = Literal["", "save", "stop", "leave"]


class Diverged(Exception):
    """The loss is not finite any more."""


class Stopped(Exception):
    """Someone asked the run to stop; it has saved itself, unless it was asked to leave."""


def train(
    config: RunConfig,
    folder: Path,
    *,
    data_root: Path | None = None,
    device: str | None = None,
    threads: int = 1,
    save_every_s: float = SAVE_EVERY_S,
    asked: Callable[[], Request] = lambda: "",
    group: Group = ALONE,
    loggers: Sequence[str] = (),
    writer: Writer | None = None,
) -> dict[str, Any]:
    """Train and evaluate one run; go on where its folder says it stopped.

    On a CPU the result depends on nothing but the configuration and the number of threads: not on when or how often
    the run was interrupted. Several processes share out each batch; learning rate and batch size are those of all.

    Args:
        config: What to run.
        folder: The run folder; `roadmap.runs.run_folder` says what is written there.
        data_root: Where the data set lies.
        device: "cpu" or "cuda"; None takes a GPU where there is one.
        threads: CPU threads to use.
        save_every_s: Seconds between checkpoints inside an epoch.
        asked: Says about once a second what others want (`Request`); the word of rank 0 counts.
        group: The processes that train the run, of which this is one. Rank 0 alone writes.
        loggers: Who else is told how it goes (`roadmap.training.loggers`).
        writer: What the run's claim writes with; None works without a claim and gives way to whoever makes one.

    Returns:
        The result row, as written to the folder.

    Raises:
        Stopped: If `asked` said so.
        Lost: If another job has taken the run over.
        Unwritable: If the disk has no room for the result and gets none in ten minutes.
        UserError: If the data or the folder cannot be used.
    """
    start = time.monotonic()
    torch.set_num_threads(threads)
    device = choose_device(device)
    data = load_data(config, data_root, device, workers=decoding_workers(threads, device), group=group)
    with nullcontext(writer or Writer(folder)) if writer or group.rank else _unclaimed(folder) as writer:
        run = _Training(config, data, writer, device, start, group)
        run.resume()
        run.loggers = Loggers(loggers if group.rank == 0 else (), folder, run.step)
        try:
            for epoch in range(run.step // config.steps_per_epoch, config.recipe.epochs):
                run.train_epoch(epoch, save_every_s, asked)
            row = run.evaluate()
        except Diverged as error:
            row = run.row("diverged", error=str(error))
        run.finish(row, asked)
        return row


@contextmanager
def _unclaimed(folder: Path) -> Iterator[Writer]:
    writer = Writer(folder)
    writer.open()
    try:
        yield writer
    finally:
        writer.close()


class _Training:
    """The state of a run in memory, and the parts of its loop."""

    def __init__(self, config: RunConfig, data: Data, writer: Writer, device: str, start: float, group: Group) -> None:
        self.config, self.data, self.writer, self.device, self.group = config, data, writer, device, group
        self.folder = writer.folder
        recipe = config.recipe
        import_code(config.net)
        seed_step(config.seed, -1 % 2**32)  # a stream of its own: no training step has this number
        self.model = make_model(config, device)
        if config.weights is not None:
            load_weights(self.model, config)
        self.parallel = distribute(
            self.model, device, group, sync_batch_norm=recipe.sync_batch_norm, drops_alike=not recipe.ghost_batch
        )
        self.ghosts = GhostBatches(config, self.model, group)
        if recipe.compile:
            self.parallel = cast(nn.Module, torch.compile(self.parallel))
        self.optimizer = make_optimizer(recipe, self.model)
        self.scaler = make_scaler(recipe, device)
        self.scheduler = make_scheduler(recipe, self.optimizer, config.steps_per_epoch)
        self.ema = make_ema(recipe, self.model)
        self.loggers = Loggers((), self.folder, 0)
        self.step = 0
        self.loss_sum = 0.0  # of the epoch so far
        self.history: list[dict[str, Any]] = []
        self.train_s = 0.0
        self.start = start  # moved back on resume, so that wall_s counts all attempts
        self.looked_at = self.saved_at = time.monotonic()

    # -- the loop

    def train_epoch(self, epoch: int, save_every_s: float, asked: Callable[[], Request]) -> None:
        """Train the rest of an epoch, looking up about once a second to note the loss, show, save and stop.

        All processes look up at the same step, which rank 0 chooses.
        """
        end = (epoch + 1) * self.config.steps_per_epoch
        self.parallel.train()
        pending: list[Tensor] = []  # losses of the steps since the last look, still on the device
        self.looked_at = time.monotonic()
        look_at = self.step + 1
        for images, targets in self.data.epoch(epoch, self.step - epoch * self.config.steps_per_epoch):
            pending.append(self.train_step(images, targets))
            if self.step < min(look_at, end):
                continue
            steps = len(pending)
            self.note(pending)
            last, now = self.step == end, time.monotonic()
            if last:
                self.end_epoch(epoch)
            after_s = SAVE_LAST_AFTER_S if self.is_trained else SAVE_EPOCH_AFTER_S if last else save_every_s
            due = now - self.saved_at > after_s
            request: Request = asked() or ("save" if due else "")
            # As many steps as fit between two looks at the speed of the last ones.
            ahead = max(1, int(steps * LOOK_EVERY_S / max(now - self.looked_at, 1e-6)))
            request, look_at = self.group.agree((request, self.step + ahead))
            if request != "leave":
                self.show("running", epoch)
            if request in ("save", "stop"):
                self.save()
            if request in ("stop", "leave"):
                raise Stopped
            self.looked_at = time.monotonic()

    @property
    def is_trained(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.config.steps_per_epoch * self.config.recipe.epochs

    def train_step(self, images: Tensor, targets: Tensor) -> Tensor:
        """Take one optimizer step; return the loss of our share of the batch, still on the device."""
        begin = partial(self.ghosts.begin, self.step)
        loss = take_step(self.config.recipe, self.parallel, self.optimizer, self.scaler, images, targets, begin)
        self.step += 1
        self.scheduler.step_update(self.step)
        if self.ema:
            self.ema.update(self.model, step=self.step)
        return loss

    def note(self, pending: list[Tensor]) -> None:
        """Add the losses of the last steps to the epoch's sum, and their time to the run's."""
        losses = self.group.mean(torch.stack(pending)).tolist()
        self.train_s += time.monotonic() - self.looked_at
        values = {"loss": sum(losses) / len(losses), "lr": self.lr, "images_per_s": self.images_per_s}
        self.loggers.log(self.step, {f"train/{name}": value for name, value in values.items()})
        for number, loss in enumerate(losses, self.step - len(losses) + 1):
            if not math.isfinite(loss):
                self.step = number
                raise Diverged(f"the loss is {loss} at step {number}")
            self.loss_sum += loss
        pending.clear()

    @property
    def lr(self) -> float:
        """The learning rate now; with layer-wise decay that of the head, which is the recipe's."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

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
            "lr": self.lr,
            "images_per_s": self.images_per_s,
        }
        self.history.append(line)
        self.loss_sum = 0.0
        with suppress(files.Unwritable):  # the checkpoints have it, and `finish` writes it again
            self.write_history()

    def write_history(self) -> None:
        """Write the epochs so far."""
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        if self.group.rank == 0:
            self.writer.write(self.folder / run_folder.METRICS, lambda file: file.write(lines.encode()))

    def show(self, state: str, epoch: int) -> None:
        """Say where the run stands, for those who watch."""
        if self.group.rank:
            return
        losses = [line["train_loss"] for line in self.history]
        done, total = self.step % self.config.steps_per_epoch, self.config.steps_per_epoch * self.config.recipe.epochs
        progress = {
            "state": state,
            "epoch": epoch + 1,
            "epochs": self.config.recipe.epochs,
            "step": self.step,
            "steps": total,
            "train_loss": self.loss_sum / done if done else losses[-1] if losses else None,
            "images_per_s": self.images_per_s,
            "left_s": (total - self.step) * self.train_s / self.step if self.step else None,
            "at": time.time(),
        }
        text = json.dumps(progress).encode()
        with suppress(files.Unwritable):  # a full disk: the run goes on unseen
            self.writer.write(self.folder / run_folder.PROGRESS, lambda file: file.write(text), durable=False)

    # -- the end

    def evaluate(self) -> dict[str, Any]:
        """Measure the trained network on the whole test set, if there is one, and return the result row."""
        if self.config.data.test_on == "nothing":
            return self.row("finished", test_images=0)
        self.show("evaluating", self.config.recipe.epochs - 1)
        logits, self.labels = self.predict(self.model)
        self.predicted = logits.argmax(1)
        row = self.row("finished", **metrics(logits, self.labels))
        if self.ema:
            row["top1_ema"] = metrics(*self.predict(self.ema.module))["top1"]
        row["wall_s"] = time.monotonic() - self.start
        return row

    def predict(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return a network's logits for the whole test set and the labels; each process looks at its share of it."""
        self.group.share_buffers(model)
        logits, labels = predict(model, self.data, self.device, amp=self.config.recipe.amp)
        return self.group.interleave(logits), self.group.interleave(labels)

    def finish(self, row: dict[str, Any], asked: Callable[[], Request]) -> None:
        """Write weights, predictions and row; wait for room on a full disk: it is the work of days."""
        if self.group.rank:
            return
        self.loggers.finish(self.step, row)
        deadline = time.monotonic() + files.PATIENCE_S
        while True:
            request = asked()
            if request == "leave":
                raise Stopped
            try:
                self.write_history()
                if row["state"] == "finished":
                    save_weights(self.model, self.folder / run_folder.WEIGHTS, self.writer.write)
                    if self.ema:
                        save_weights(self.ema.module, self.folder / run_folder.EMA_WEIGHTS, self.writer.write)
                    if row["test_images"]:
                        run_folder.write_predictions(self.writer, self.predicted.numpy(), self.labels.numpy())
                self.show("evaluating", self.config.recipe.epochs - 1)  # again, if there was no room for it
                run_folder.write_result(self.writer, row)
                break
            except files.Unwritable as error:
                if not files.may_pass(error) or time.monotonic() > deadline or request == "stop":
                    raise
                say(f"{error} Trying again for {deadline - time.monotonic():.0f} s.")
                time.sleep(files.RETRY_EVERY_S)
        with suppress(OSError):  # what stays is swept when the run is planned again
            remove_checkpoints(self.writer)

    def row(self, state: str, **values: Any) -> dict[str, Any]:
        """Return a result row; what is not measured is null."""
        done: dict[str, Any] = {
            "result_version": run_folder.RESULT_VERSION,
            "state": state,
            "classes": list(self.data.classes),
            "train_loss": self.history[-1]["train_loss"] if self.history else None,
            "images_per_s": self.images_per_s,
            "train_s": self.train_s,
            "wall_s": time.monotonic() - self.start,
            "processes": self.group.size,
            "threads": torch.get_num_threads(),
            "images_seen": self.step * self.config.recipe.batch_size,
        }
        return {column: (done | values).get(column) for column in run_folder.COLUMNS}

    # -- checkpoints

    def save(self) -> None:
        """Write a checkpoint from which the run goes on bit for bit; without room for it the one before stays."""
        self.saved_at = time.monotonic()
        if self.group.rank:
            return
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "history": self.history,
            "train_s": self.train_s,
            "wall_s": time.monotonic() - self.start,
            "processes": self.group.size,
            "threads": torch.get_num_threads(),
        }
        try:
            write_checkpoint(self.writer, self.step, content)
        except files.Unwritable as error:
            say(f"{error} The run goes on without this checkpoint.")

    def resume(self) -> None:
        """Go on from the last whole checkpoint; from the start where there is none."""
        found = None
        if self.group.rank == 0:
            run_folder.sweep(self.writer)
            found = read_last(self.writer, self.device)
        path = self.group.agree(found and found[0])
        if path is not None:
            self.restore(path, found[1] if found else read_checkpoint(path, self.device))
            say(f"{self.folder.name}: goes on from step {self.step}")
        with suppress(files.Unwritable):
            self.write_history()

    def restore(self, path: Path, content: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content.get("scaler", {}))  # earlier versions had none
            if self.ema:
                self.ema.load_state_dict(content["ema"])
            saved = progress_in(content)
            self.step, self.loss_sum = saved["step"], saved["loss_sum"]
            self.history, self.train_s = saved["history"], saved["train_s"]
            self.start -= saved["wall_s"]
            before, threads = saved["processes"], saved.get("threads")  # earlier versions did not say
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            if self.group.rank == 0:
                self.writer.remove(path)
            raise UserError(f"{path}: not a checkpoint of this run, so it was removed. Start the run again.") from error
        if threads not in (None, torch.get_num_threads()) and self.device == "cpu":
            say(
                f"{self.folder.name}: was trained with {threads} threads so far, now with {torch.get_num_threads()}, "
                "which rounds differently: the result is not bit for bit that of an undisturbed run."
            )
        recipe = self.config.recipe
        averages_shares = any(isinstance(m, nn.BatchNorm2d) for m in self.model.modules())
        if before != self.group.size and averages_shares and not (recipe.sync_batch_norm or recipe.ghost_batch):
            raise UserError(
                f"{path}: was trained by {before} processes, now there are {self.group.size}, and BatchNorm would "
                "average over other shares of a batch. Go on with as many, or remove the run's folder to start again."
            )


def save_weights(model: nn.Module, path: Path, write: Callable[..., None] = files.write_atomically) -> None:
    """Write a network's weights as safetensors, atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write(path, lambda file: file.write(save(weights)))
