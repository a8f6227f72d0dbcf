"""A network as several processes train it: gradients averaged, and, if asked for, BatchNorm over all of them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from roadmap.common.process_group import ALONE, Group
from roadmap.common.seeding import seed_step
from roadmap.networks.blocks import DropPath, Pointwise
from roadmap.runs.config import RunConfig


def distribute(model: nn.Module, device: str, group: Group, *, sync_batch_norm: bool, drops_alike: bool) -> nn.Module:
    """Return the network as it is to be called in training, its gradients averaged over the processes.

    Args:
        model: The network.
        device: "cpu" or "cuda".
        group: The processes.
        sync_batch_norm: Whether BatchNorm averages over the images of all processes.
        drops_alike: Whether stochastic depth draws for the images of all processes, so that their number does not
            change what is drawn.
    """
    if group.size == 1:
        return model
    if sync_batch_norm and device != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if sync_batch_norm and type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm  # the same parameters and buffers
        if isinstance(module, SharedBatchNorm) or (drops_alike and isinstance(module, DropPath)):
            module.group = group
        if isinstance(module, Pointwise):  # its gradients have these strides, and averaging wants the weights' the same
            module.weight.data = module.weight.data.flatten(1)[..., None, None]
    parallel = nn.parallel.DistributedDataParallel(
        model, device_ids=None if device == "cpu" else [torch.cuda.current_device()], gradient_as_bucket_view=True
    )
    if device == "cpu":
        parallel.register_comm_hook(group, _average)
    return parallel


def _average(group: Group, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Average gradients so that rounding does not depend on where they lie: torch moves them after its first step.

    A run that was resumed would not end bit for bit as undisturbed otherwise, from three processes on.
    """
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(group.mean(bucket.buffer()))
    return done


class GhostBatches:
    """What has a process's ghost batches come out the same whoever takes them.

    Each has draws of its own, by its number in the whole batch. BatchNorm keeps the running statistics of the first one
    alone, as torch's DistributedDataParallel keeps those of the first of its processes.
    """

    def __init__(self, config: RunConfig, model: nn.Module, group: Group) -> None:
        self.seed, self.ghost_batch = config.seed, config.recipe.ghost_batch
        self.first = group.first_ghost(config.recipe.batch_size, self.ghost_batch)
        self.norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def begin(self, step: int, number: int) -> None:
        """Make ready for one of ours, by its number from 0, of a training step; nothing where there are none."""
        if not self.ghost_batch:
            return
        ghost = self.first + number
        seed_step(self.seed, step, ghost, 3)  # four numbers: no training step has these, no image or mixup ends in 3
        for norm in self.norms:
            norm.track_running_stats = ghost == 0  # without it, training leaves the statistics alone


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, where torch's SyncBatchNorm has no kernel (on CPUs)."""

    group = ALONE

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the statistics of the whole batch, in training."""
        if not self.training or self.group.size == 1:
            return super().forward(x)
        wide = x.to(self.weight.dtype)  # bfloat16 would not do for sums
        count = self.group.size * wide.numel() / wide.shape[1]
        mean = _Sum.apply(wide.sum((0, 2, 3))) / count
        centred: Tensor = wide - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale: Tensor = self.weight * (variance + self.eps).rsqrt()
        scaled: Tensor = centred * scale.view(1, -1, 1, 1)
        return (scaled + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over the processes; what depends on it depends on every process's part, so gradients are summed too."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
