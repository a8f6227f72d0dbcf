"""Weights that travel: timm's state dicts under our names, and ours under timm's.

Both ends of the roadmap have a counterpart in timm, tensor for tensor: the ResNets that a ladder starts from and the
ConvNeXts that it leads to. What lies between exists only here.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from roadmap.common.errors import UserError
from roadmap.common.fields import diff
from roadmap.networks.config import NetConfig
from roadmap.networks.families import BASES, convnext
from roadmap.networks.model import build_model

# What our modules are called in timm. Stages and blocks count from 0, timm's layers from 1.
RESNET = {
    "stem.conv": "conv1",
    "stem.norm": "bn1",
    "stages.{stage}.{block}.residual.pointwise1": "layer{layer}.{block}.conv1",
    "stages.{stage}.{block}.residual.pointwise1_norm": "layer{layer}.{block}.bn1",
    "stages.{stage}.{block}.residual.spatial": "layer{layer}.{block}.conv2",
    "stages.{stage}.{block}.residual.spatial_norm": "layer{layer}.{block}.bn2",
    "stages.{stage}.{block}.residual.pointwise2": "layer{layer}.{block}.conv3",
    "stages.{stage}.{block}.residual.pointwise2_norm": "layer{layer}.{block}.bn3",
    "stages.{stage}.{block}.shortcut.conv": "layer{layer}.{block}.downsample.0",
    "stages.{stage}.{block}.shortcut.norm": "layer{layer}.{block}.downsample.1",
    "head": "fc",
}
CONVNEXT = {
    "stem.conv": "stem.0",
    "stem.norm": "stem.1",
    "stages.{stage}.downsample.norm": "stages.{stage}.downsample.0",
    "stages.{stage}.downsample.conv": "stages.{stage}.downsample.1",
    "stages.{stage}.{block}.residual.spatial": "stages.{stage}.blocks.{block}.conv_dw",
    "stages.{stage}.{block}.residual.spatial_norm": "stages.{stage}.blocks.{block}.norm",
    "stages.{stage}.{block}.residual.pointwise1": "stages.{stage}.blocks.{block}.mlp.fc1",
    "stages.{stage}.{block}.residual.pointwise2": "stages.{stage}.blocks.{block}.mlp.fc2",
    "stages.{stage}.{block}.residual.layer_scale": "stages.{stage}.blocks.{block}",
    "norm": "head.norm",
    "head": "head.fc",
}
# Linear layers in timm, (out, in), and 1x1 convolutions here, (out, in, 1, 1).
LINEAR = (".mlp.fc1.weight", ".mlp.fc2.weight")


def to_timm(weights: Mapping[str, Tensor], net: NetConfig) -> dict[str, Tensor]:
    """Return our state dict of a network as timm's model of it loads it. The tensors are shared, not copied.

    Raises:
        UserError: If timm has no such network, or the weights are of another one.
    """
    names = _timm_names(net)
    _check_names(weights, names)
    return {
        theirs: weights[ours].flatten(1) if theirs.endswith(LINEAR) else weights[ours] for ours, theirs in names.items()
    }


def from_timm(weights: Mapping[str, Tensor], net: NetConfig) -> dict[str, Tensor]:
    """Return timm's state dict of a network as ours of it loads it. The tensors are shared, not copied.

    A ConvNeXt without layer scale, as the ladder's last rungs are, also takes the weights of one with it: the scale
    goes into the convolution before it, which then computes the same.

    Raises:
        UserError: If timm has no such network, or the weights are of another one.
    """
    names = _timm_names(net)
    if net.block.layer_scale is None and _family(net) is CONVNEXT:
        weights = _without_layer_scale(weights)
    _check_names(weights, names.values())
    return {
        ours: weights[theirs][:, :, None, None] if theirs.endswith(LINEAR) else weights[theirs]
        for ours, theirs in names.items()
    }


def names_of(weights: Collection[str]) -> Literal["roadmap", "timm"]:
    """Say whose names a state dict has, ours or timm's, as far as timm has such networks.

    Raises:
        UserError: If it has neither.
    """
    if "stem.conv.weight" in weights:
        return "roadmap"
    if any(f"{family['stem.conv']}.weight" in weights for family in (RESNET, CONVNEXT)):
        return "timm"
    raise UserError(
        f"weights: named neither as here nor as in timm's ResNets and ConvNeXts: {_some(list(weights))}. Give the "
        "state dict of one of these networks."
    )


def _without_layer_scale(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a timm ConvNeXt's state dict with each block's scale, (C,), in the rows of its last linear layer."""
    folded = dict(weights)
    for name in [name for name in weights if name.endswith(".gamma")]:
        gamma, linear = folded.pop(name), name.removesuffix("gamma") + "mlp.fc2"
        if f"{linear}.weight" in folded and f"{linear}.bias" in folded:  # else what is missing is told later
            folded[f"{linear}.weight"] = gamma[:, None] * folded[f"{linear}.weight"]
            folded[f"{linear}.bias"] = gamma * folded[f"{linear}.bias"]
    return folded


def _timm_names(net: NetConfig) -> dict[str, str]:
    """Return timm's name of every tensor of a network, by ours."""
    modules = {
        ours.format(stage=stage, block=block): theirs.format(stage=stage, layer=stage + 1, block=block)
        for ours, theirs in _family(net).items()
        for stage, depth in enumerate(net.depths)
        for block in range(depth)
    }
    with torch.device("meta"):
        names = build_model(net).state_dict()
    return {name: f"{modules[module]}.{tensor}" for name in names for module, _, tensor in [name.rpartition(".")]}


def _family(net: NetConfig) -> Mapping[str, str]:
    resnet, last = BASES["resnet50"], convnext("tiny", layer_scale=net.block.layer_scale)
    if net.block.groups > 1:  # ResNeXt, whose layers have the same names
        resnet = replace(
            resnet, block=replace(resnet.block, groups=net.block.groups, hidden_ratio=net.block.hidden_ratio)
        )
    if len(net.depths) == len(last.depths):
        resnet, last = replace(resnet, depths=net.depths), replace(last, depths=net.depths, widths=net.widths)
    if net == resnet:
        return RESNET
    if net == last:
        return CONVNEXT
    raise UserError(
        f"network: timm has no counterpart of it: from a ResNet it differs in {', '.join(diff(resnet, net))}; from a "
        f"ConvNeXt in {', '.join(diff(last, net))}. Convert where a ladder starts (any depths in four stages) or a "
        "ConvNeXt (any depths and widths in four stages, with or without layer_scale)."
    )


def _check_names(weights: Mapping[str, Tensor], expected: Collection[str]) -> None:
    missing = [name for name in expected if name not in weights]
    strange = sorted(set(weights) - set(expected))
    if missing or strange:
        raise UserError(
            f"weights: not those of this network: {_some(missing)} missing, {_some(strange)} too many. Give the "
            "network whose depths and layer_scale these weights have, and check the direction (to or from timm)."
        )


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})" if names else "none"
