"""The training loops that `benchmarks.training_loop` holds side by side: ours, a bare one, and one of timm's parts."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from time import monotonic
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.common.process_group import ALONE
from roadmap.data.batches import load_data
from roadmap.data.datasets import load_arrays
from roadmap.networks.families import BASES
from roadmap.recipe import Recipe
from roadmap.runs.claims import Writer
from roadmap.runs.config import RunConfig
from roadmap.training.loop import SAVE_EVERY_S, Stopped, _Training
from roadmap.training.step import make_model

LOG_EVERY = 50  # steps between looks at the loss, timm's default


class OurLoop:
    """A run as `training.loop` trains it: augmentation, losses noted, progress shown, checkpoints saved.

    It runs in a thread of its own, which waits where the loop asks for its next batch until it is told to go on, so
    that others can be timed in between. The clocks of looks and checkpoints go on meanwhile: both come more often, a
    step of ours, than in a run that is alone.
    """

    def __init__(self, config: RunConfig, data_root: Path | None, folder: Path, device: str) -> None:
        data = load_data(config, data_root, device)
        self.data, self.classes = data, data.classes
        writer = Writer(folder)
        writer.open()
        self.run = _Training(config, self, writer, device, monotonic(), ALONE)
        self.go, self.done = Semaphore(0), Semaphore(0)
        self.left, self.closing = 0, False
        self.pool = ThreadPoolExecutor(1)
        self.end: Future[None] = self.pool.submit(self._train)

    def __call__(self, steps: int) -> None:
        """Train so many steps further."""
        self.left = steps
        self.go.release()
        self.done.acquire()
        if self.end.done():
            self.end.result()

    def close(self) -> None:
        """End the run."""
        self.closing = True
        self.go.release()
        self.pool.shutdown()
        self.run.writer.close()

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the run's batches, each when its turn has come."""
        for batch in self.data.epoch(epoch, start):
            if not self.left:
                self.done.release()
                self.go.acquire()
                if self.closing:
                    raise Stopped
            self.left -= 1
            yield batch

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the run's test images, which no visit asks for."""
        return self.data.test()

    def _train(self) -> None:
        try:
            self.go.acquire()
            for epoch in range(self.run.config.recipe.epochs):
                self.run.train_epoch(epoch, SAVE_EVERY_S, lambda: "")
        except Stopped:
            pass
        finally:
            self.done.release()


class BareLoop:
    """The same network on one batch that lies ready on the device: forward, loss, backward, step, and nothing else."""

    def __init__(self, config: RunConfig, images: Tensor, targets: Tensor) -> None:
        recipe, device = config.recipe, images.device.type
        self.recipe, self.device, self.targets = recipe, device, targets
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.model = make_model(config, device).train()
        self.optimizer = torch.optim.AdamW(_groups(self.model, recipe.weight_decay), lr=recipe.lr, fused=True)

    def __call__(self, steps: int) -> None:
        """Train so many steps."""
        smoothing = self.recipe.label_smoothing if self.targets.ndim == 1 else 0.0
        for _ in range(steps):
            with torch.autocast(self.device, torch.bfloat16, enabled=self.recipe.amp == "bfloat16"):
                loss = F.cross_entropy(self.model(self.images), self.targets, label_smoothing=smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


class TimmLoop:
    """What timm's own train.py does with its defaults, built of the parts of timm that it is made of.

    The script itself is in neither timm's wheel nor its source distribution. Its parts are here in its order: dataset,
    `create_transform` by way of `create_loader` with one worker and the prefetcher, channels_last, loss,
    `create_optimizer_v2`, `create_scheduler_v2` set at every step, the loss looked at every 50 steps.
    """

    def __init__(self, config: RunConfig, data_root: Path | None, device: str) -> None:
        from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import AverageMeter

        recipe = config.recipe
        self.recipe, self.device = recipe, device
        model = timm_model(config) or make_model(config, device)
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        mixed = recipe.mixup or recipe.cutmix
        self.criterion = SoftTargetCrossEntropy() if mixed else LabelSmoothingCrossEntropy(recipe.label_smoothing)
        self.optimizer = create_optimizer_v2(
            self.model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer, sched="cosine", num_epochs=recipe.epochs, step_on_epochs=False,
            updates_per_epoch=config.steps_per_epoch,
        )  # fmt: skip
        self.losses, self.step = AverageMeter(), 0
        self.batches = _forever(lambda: _timm_loader(config, data_root, device))

    def __call__(self, steps: int) -> None:
        """Train so many steps further."""
        for _ in range(steps):
            images, targets = next(self.batches)
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.recipe.amp == "bfloat16"):
                loss = self.criterion(self.model(images), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            self.scheduler.step_update(self.step)
            if self.step % LOG_EVERY == 0:
                self.losses.update(loss.item(), len(images))


def timm_model(config: RunConfig) -> nn.Module | None:
    """Return timm's network of the same layers, widths and depths as a run's; None where timm builds none.

    timm's ResNet has a stem of 64 channels whatever its stages' widths, so it is the same at full width alone.
    """
    from timm.models.convnext import ConvNeXt
    from timm.models.resnet import Bottleneck, ResNet

    net = config.net
    shape: dict[str, Any] = {"num_classes": config.data.num_classes, "in_chans": config.data.in_channels}
    shape["drop_path_rate"] = config.recipe.drop_path
    if net.downsample == "separate" and net.boundary_norms and net.stem_stride == 4:
        model: nn.Module = ConvNeXt(depths=net.depths, dims=net.widths, ls_init_value=None, **shape)
        return model
    if net == BASES["resnet50"]:
        model = ResNet(Bottleneck, net.depths, **shape)
        return model
    return None


class _Pictures(torch.utils.data.Dataset[tuple[Any, int]]):
    """Images in memory as torchvision's datasets hand them to timm: a PIL image and its label, one at a time."""

    def __init__(self, recipe: Recipe, count: int) -> None:
        arrays = load_arrays(recipe.dataset)
        self.images, self.labels = arrays.train[:count, 0], arrays.train_labels[:count]
        self.transform: Callable[[Any], Any] = lambda image: image

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def _timm_loader(config: RunConfig, data_root: Path | None, device: str) -> Any:
    from timm.data import FastCollateMixup, create_dataset, create_loader

    recipe = config.recipe
    shared: dict[str, Any] = {
        "batch_size": recipe.batch_size, "is_training": True, "num_workers": 1, "device": torch.device(device),
        "pin_memory": device != "cpu", "persistent_workers": False,
    }  # fmt: skip
    if data_root is None:
        pictures = _Pictures(recipe, config.data.train_images)
        size = (1, recipe.image_size, recipe.image_size)
        return create_loader(pictures, size, no_aug=True, mean=(0.286,), std=(0.353,), **shared)
    mix = FastCollateMixup(
        recipe.mixup, recipe.cutmix, switch_prob=recipe.mixup_switch_prob, label_smoothing=recipe.label_smoothing,
        num_classes=config.data.num_classes,
    )  # fmt: skip
    return create_loader(
        create_dataset("", str(data_root / "train"), split="train"),
        (3, recipe.image_size, recipe.image_size),
        scale=(recipe.random_resized_crop, 1.0),
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.randaugment,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        interpolation=recipe.interpolation,
        collate_fn=mix if recipe.mixup or recipe.cutmix else None,
        **shared,
    )


def _forever(make: Callable[[], Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch after the other."""
    loader = make()
    while True:
        yield from loader
