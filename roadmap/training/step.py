"""What a run trains and how: its network, its optimizer, one step. Training and measuring do the same."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.networks.model import build_model
from roadmap.recipe import Recipe
from roadmap.runs.config import RunConfig


def make_model(config: RunConfig, device: str) -> nn.Module:
    """Build a run's network on its device, in channels_last memory, and have float32 computed as the recipe says."""
    torch.set_float32_matmul_precision("high" if config.recipe.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.recipe.tf32
    model = build_model(
        config.net,
        num_classes=config.data.num_classes,
        in_channels=config.data.in_channels,
        drop_path=config.recipe.drop_path,
        init=config.recipe.init,
        head_init_scale=config.recipe.head_init_scale,
    )
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Return a recipe's optimizer for a network."""
    from timm.optim import create_optimizer_v2

    decay = {"layer_decay": recipe.layer_decay} if recipe.layer_decay != 1 else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt={"adamw": "adamw", "sgd": "momentum"}[recipe.optimizer],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        filter_bias_and_bn=not recipe.decay_norms_and_biases,
        fused=True,
        **decay,
        **({"betas": recipe.betas} if recipe.optimizer == "adamw" else {}),
    )
    return optimizer


def make_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Any:
    """Return timm's scheduler of a recipe, which sets the learning rate at every step."""
    from timm.scheduler import create_scheduler_v2

    # timm counts the warm-up apart from the epochs of the schedule proper.
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.schedule,
        num_epochs=recipe.epochs - recipe.warmup_epochs,
        warmup_epochs=recipe.warmup_epochs,
        warmup_prefix=recipe.schedule == "cosine",
        warmup_lr=recipe.warmup_lr,
        min_lr=recipe.min_lr,
        decay_epochs=recipe.decay_epochs,
        decay_rate=recipe.decay_rate,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    if recipe.warmup_reaches_lr and scheduler.warmup_t:  # timm's warm-up would reach it one step later
        last = max(math.ceil(scheduler.warmup_t) - 1, 1)
        scheduler.warmup_steps = [(lr - recipe.warmup_lr) / last for lr in scheduler.base_values]
    return scheduler


def make_ema(recipe: Recipe, model: nn.Module) -> Any:
    """Return the moving average of a network's weights, or None where the recipe has none."""
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=recipe.ema) if recipe.ema else None


def make_scaler(recipe: Recipe, device: str) -> torch.amp.GradScaler:
    """Return what keeps float16's gradients from vanishing; for other precisions it does nothing."""
    return torch.amp.GradScaler(device, enabled=recipe.amp == "float16")


def autocast(amp: str, device: str) -> torch.autocast:
    """Return the context of forward passes in a recipe's precision (`Recipe.amp`)."""
    dtype = torch.float16 if amp == "float16" else torch.bfloat16
    return torch.autocast(device, dtype, enabled=amp != "none")


def take_step(
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    images: Tensor,
    targets: Tensor,
    begin: Callable[[int], None] = lambda piece: None,
) -> Tensor:
    """Take one optimizer step: forward, loss, backward, update.

    A batch is taken in ghost batches, or in as many pieces as the recipe accumulates over; the loss is the mean over
    its images, however they are cut.

    Args:
        recipe: How.
        model: The network as it is called in training, on the images' device.
        optimizer: Its optimizer.
        scaler: Its `make_scaler`.
        images: Shape (N, C, H, W).
        targets: Class indices (N,), or, under mixup and cutmix, probabilities (N, classes).
        begin: Called with each piece's number before it is taken.

    Returns:
        The mean loss, still on the device.
    """
    optimizer.zero_grad()
    images = images.contiguous(memory_format=torch.channels_last)
    pieces = list(zip(_cut(recipe, images), _cut(recipe, targets), strict=True))
    losses = []
    for number, (some, wanted) in enumerate(pieces):
        begin(number)
        # Processes that train together average their gradients with the last piece alone.
        with nullcontext() if number == len(pieces) - 1 else getattr(model, "no_sync", nullcontext)():
            with autocast(recipe.amp, images.device.type):
                logits = model(some)
            # Mixed targets are smoothed already.
            smoothing = recipe.label_smoothing if wanted.ndim == 1 else 0.0
            loss = F.cross_entropy(logits.float(), wanted, label_smoothing=smoothing) / (len(images) / len(some))
            scaler.scale(loss).backward()
            losses.append(loss.detach())
    if recipe.clip_grad:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
    scaler.step(optimizer)
    scaler.update()
    return torch.stack(losses).sum()


def _cut(recipe: Recipe, batch: Tensor) -> tuple[Tensor, ...]:
    """Return the pieces in which a batch is taken, along its first dimension."""
    if recipe.ghost_batch:
        return torch.split(batch, recipe.ghost_batch)
    return torch.tensor_split(batch, min(recipe.accumulate, len(batch)))
