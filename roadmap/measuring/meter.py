"""One network's cost: speed of training and of inference, peak memory of a training step."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.measuring.turns import time_on
from roadmap.runs.config import RunConfig
from roadmap.training.step import autocast, make_ema, make_model, make_optimizer, make_scaler, take_step

LEAST_STEPS = 2  # in a visit, however long one takes


class Batches(NamedTuple):
    """What all networks of a measurement are fed: noise of the right shape, on the device.

    Attributes:
        images: For training, (N, C, H, W).
        labels: Their classes, (N,).
        test_images: For inference, (M, C, H, W).
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor


def make_batches(config: RunConfig, batch_size: int, test_batch_size: int, device: str) -> Batches:
    """Return noise in the shape of a run's images."""
    shape = (config.data.in_channels, config.recipe.image_size, config.recipe.image_size)
    images, test_images = (torch.randn(size, *shape, device=device) for size in (batch_size, test_batch_size))
    return Batches(images, torch.randint(config.data.num_classes, (batch_size,), device=device), test_images)


class Meter:
    """A network as a run trains it, ready to be timed: its buffers, kernels and optimizer state are there.

    Args:
        config: Which network, and how it trains.
        batches: What it is fed.
        memory_and_inference: Whether these are of interest too, which takes a few steps more.

    Attributes:
        peak_memory: The most that a training step holds at once, bytes: parameters, buffers, gradients, optimizer
            state, moving average, batch, and all that lives in between. What libraries hold for themselves, such as
            cuBLAS' workspace, is left out.
    """

    def __init__(self, config: RunConfig, batches: Batches, *, memory_and_inference: bool = True) -> None:
        recipe = self.recipe = config.recipe
        self.images, self.targets, self.test_images = batches
        self.device = self.images.device.type
        if recipe.mixup or recipe.cutmix:  # as mixed targets are: a probability for each class
            self.targets = F.one_hot(self.targets, config.data.num_classes).float()
        self.model = make_model(config, self.device)
        self.called = cast(nn.Module, torch.compile(self.model)) if recipe.compile else self.model
        self.optimizer = make_optimizer(recipe, self.model)
        for group in self.optimizer.param_groups:  # a network that has learnt labels of noise may hold infinities
            group["lr"] = 0.0
        self.scaler = make_scaler(recipe, self.device)
        self.ema = make_ema(recipe, self.model)
        self.model.train()
        self._train_step()
        self._train_step_s = self._time(self._train_step, 1)
        self.optimizer.zero_grad()
        if not memory_and_inference:
            return
        held = _size(self._tensors())
        self.peak_memory = held + _peak_rise(self._train_step, self.device)
        self.model.eval()
        self._test_step_s = self._time(self._test_step, 1)
        self.optimizer.zero_grad()

    def training_speed(self, seconds: float) -> float:
        """Train for about this long, at least two steps; return images a second."""
        self.model.train()
        speed = self._speed(self._train_step, self._train_step_s, len(self.images), seconds)
        self.optimizer.zero_grad()  # leaves the gradients' memory to the next network
        return speed

    @torch.inference_mode()
    def test_speed(self, seconds: float) -> float:
        """Evaluate for about this long, at least two batches; return images a second."""
        self.model.eval()
        return self._speed(self._test_step, self._test_step_s, len(self.test_images), seconds)

    def _speed(self, step: Callable[[], None], step_s: float, images: int, seconds: float) -> float:
        if self.device != "cpu":  # another network was here: the allocator has to find its feet again
            step()
        return images / self._time(step, max(LEAST_STEPS, round(seconds / step_s)))

    def _time(self, step: Callable[[], None], steps: int) -> float:
        """Return the seconds that a step takes."""
        start = time_on(self.device)
        for _ in range(steps):
            step()
        return (time_on(self.device) - start) / steps

    def _train_step(self) -> None:
        take_step(self.recipe, self.called, self.optimizer, self.scaler, self.images, self.targets)
        if self.ema:
            self.ema.update(self.model)

    @torch.inference_mode()
    def _test_step(self) -> None:
        images = self.test_images.contiguous(memory_format=torch.channels_last)
        with autocast(self.recipe.amp, self.device):
            self.model(images).float()

    def _tensors(self) -> Iterator[Tensor]:
        """Yield what lives from step to step."""
        yield from (self.images, self.targets)
        for module in filter(None, (self.model, self.ema)):
            yield from module.parameters()
            yield from module.buffers()
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _peak_rise(work: Callable[[], None], device: str) -> int:
    """Return by how many bytes the memory of tensors rises at most while work is done.

    The work must free nothing that was there before: the CPU's allocator does not know the size of that.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    from torch.profiler import ProfilerActivity, profile

    with _silent_kineto(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@contextmanager
def _silent_kineto() -> Iterator[None]:
    """Keep torch's profiler from printing its own log to stderr: no message has so high a level."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = "99"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
