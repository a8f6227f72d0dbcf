"""What a run trains and how: its network, its optimizer, one step. Training and measuring do the same."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.model import build_model
from roadmap.recipe import Recipe
from roadmap.run import RunConfig


def make_model(config: RunConfig, device: str) -> nn.Module:
    """Build a run's network on its device, in channels_last memory."""
    model = build_model(
        config.net,
        num_classes=config.data.num_classes,
        in_channels=config.data.in_channels,
        drop_path=config.recipe.drop_path,
    )
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Return a recipe's optimizer for a network."""
    from timm.optim import create_optimizer_v2

    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt={"adamw": "adamw", "sgd": "momentum"}[recipe.optimizer],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        filter_bias_and_bn=not recipe.decay_norms_and_biases,
        fused=True,
        **({"betas": recipe.betas} if recipe.optimizer == "adamw" else {}),
    )
    return optimizer


def make_ema(recipe: Recipe, model: nn.Module) -> Any:
    """Return the moving average of a network's weights, or None where the recipe has none."""
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=recipe.ema) if recipe.ema else None


def autocast(recipe: Recipe, device: str) -> torch.autocast:
    """Return the context of a recipe's forward passes."""
    return torch.autocast(device, torch.bfloat16, enabled=recipe.amp == "bfloat16")


def take_step(
    recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor
) -> Tensor:
    """Take one optimizer step: forward, loss, backward, update.

    Args:
        recipe: How.
        model: The network as it is called in training, on the images' device.
        optimizer: Its optimizer.
        images: Shape (N, C, H, W).
        targets: Class indices (N,), or, under mixup and cutmix, probabilities (N, classes).

    Returns:
        The mean loss, still on the device.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    with autocast(recipe, images.device.type):
        logits = model(images)
    # Mixed targets are smoothed already.
    smoothing = recipe.label_smoothing if targets.ndim == 1 else 0.0
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
    optimizer.zero_grad()
    loss.backward()
    if recipe.clip_grad:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
    optimizer.step()
    return loss.detach()
