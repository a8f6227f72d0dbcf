"""What a run trains and how: its network, its optimizer, one step. Training and measuring do the same."""

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
) -> Tensor:
    """Take one optimizer step: forward, loss, backward, update.

    Args:
        recipe: How.
        model: The network as it is called in training, on the images' device.
        optimizer: Its optimizer.
        scaler: Its `make_scaler`.
        images: Shape (N, C, H, W).
        targets: Class indices (N,), or, under mixup and cutmix, probabilities (N, classes).

    Returns:
        The mean loss, still on the device.
    """
    optimizer.zero_grad()
    images = images.contiguous(memory_format=torch.channels_last)
    pieces = list(zip(images.chunk(recipe.accumulate), targets.chunk(recipe.accumulate), strict=True))
    losses = []
    for number, (some, wanted) in enumerate(pieces, 1):
        # Processes that train together average their gradients with the last piece alone.
        with nullcontext() if number == len(pieces) else getattr(model, "no_sync", nullcontext)():
            with autocast(recipe.amp, images.device.type):
                logits = model(some)
            # Mixed targets are smoothed already.
            smoothing = recipe.label_smoothing if wanted.ndim == 1 else 0.0
            loss = F.cross_entropy(logits.float(), wanted, label_smoothing=smoothing) / len(pieces)
            scaler.scale(loss).backward()
            losses.append(loss.detach())
    if recipe.clip_grad:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
    scaler.step(optimizer)
    scaler.update()
    return torch.stack(losses).sum()
