"""What a network costs, counted on the built model: multiply-adds, activations and parameters."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from roadmap.config import NetConfig
from roadmap.errors import UserError
from roadmap.model import build_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore's use of torch.jit, deprecated there
    from fvcore.nn.jit_handles import conv_flop_count


def _unchanged(x: Any, *_: Any, **__: Any) -> Any:
    return x


# What gives the shape of an operator's result in less time: torch's kernels of these for the meta device are written in
# Python, and the first of them that runs imports torch._dynamo, which takes a second.
_STAND_INS: dict[Any, Any] = {
    **dict.fromkeys((F.batch_norm, F.layer_norm, F.relu, F.hardtanh, F.gelu), _unchanged),
    nn.init.kaiming_uniform_: lambda tensor, **_: tensor,
    Tensor.uniform_: _unchanged,
    F.linear: lambda x, weight, bias=None: F.linear(x, weight),
    Tensor.add: lambda x, y: torch.broadcast_tensors(x, y)[0],
    Tensor.mean: Tensor.sum,
}


class _OperatorCounts(TorchFunctionMode):
    """Count every convolution and linear layer that runs, with fvcore's count for each.

    fvcore's own `FlopCountAnalysis` sees the same operators through torch.jit's tracer, which has not worked on the
    meta device since torch 2.13 (and would have to compute the whole network elsewhere). A test holds the two equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: int = 0
        self.depthwise_macs: int = 0
        self.activations: int = 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = _STAND_INS.get(func, func)(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear):
            x, weight, y = args[0], args[1], out
            if func is F.linear:  # a layer on every position of (N, H, W, C) is one on N * H * W inputs
                x, y = x.flatten(0, -2), y.flatten(0, -2)
            macs = int(conv_flop_count(x.shape, weight.shape, y.shape))
            self.macs += macs
            self.depthwise_macs += macs if func is F.conv2d and weight.shape[1] == 1 < x.shape[1] else 0
            self.activations += y.numel()
        return out


def count_macs(net: NetConfig, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the multiply-adds of one forward pass.

    Runs the real model on the meta device, so nothing is allocated. Convolutions and linear layers count; norms,
    activations, pooling and additions do not, as in the paper's tables.

    Args:
        net: The network to measure.
        image_size: Height and width in pixels of the input, shape (1, in_channels, image_size, image_size).
        in_channels: Channels of the input.
        num_classes: Outputs of the head.

    Returns:
        Multiply-adds for one image.

    Raises:
        UserError: If the image is smaller than the network's total stride.
    """
    return _trace(net, image_size, in_channels, num_classes).macs


def count_activations(net: NetConfig, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the outputs of all convolutions and linear layers in one forward pass.

    They say more about memory, and about time on hardware that memory limits, than multiply-adds do.

    Args:
        net: The network to measure.
        image_size: Height and width in pixels of the input, shape (1, in_channels, image_size, image_size).
        in_channels: Channels of the input.
        num_classes: Outputs of the head.

    Returns:
        Elements of output tensors, for one image.

    Raises:
        UserError: If the image is smaller than the network's total stride.

    Source: Radosavovic et al. 2020, "Designing Network Design Spaces", which calls the outputs activations;
        their code, pycls, counts linear layers too.
    """
    return _trace(net, image_size, in_channels, num_classes).activations


def count_depthwise_macs(
    net: NetConfig, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000
) -> int:
    """Count the multiply-adds of depthwise convolutions in one forward pass; arguments as for `count_macs`.

    They are few, and take far longer than those of other convolutions.
    """
    return _trace(net, image_size, in_channels, num_classes).depthwise_macs


@cache
def count_params(net: NetConfig, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in _on_meta(net, in_channels, num_classes).parameters())


@lru_cache(maxsize=2)
def _on_meta(net: NetConfig, in_channels: int, num_classes: int) -> nn.Module:
    with torch.device("meta"), _OperatorCounts():  # for its stand-ins: weights on the meta device need no filling
        return build_model(net, num_classes=num_classes, in_channels=in_channels).eval()


@cache
def _trace(net: NetConfig, image_size: int, in_channels: int, num_classes: int) -> _OperatorCounts:
    """Return what one image's forward pass costs."""
    if image_size < net.total_stride:
        raise UserError(
            f"image_size is {image_size}, but the network divides the resolution by {net.total_stride}. "
            f"Use images of at least {net.total_stride} pixels, or a recipe with a smaller stem stride."
        )
    image = torch.empty(1, in_channels, image_size, image_size, device="meta")
    counts = _OperatorCounts()
    with torch.no_grad(), counts:
        _on_meta(net, in_channels, num_classes)(image)
    return counts
