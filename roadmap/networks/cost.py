"""What a network costs, counted on the built model: multiply-adds, activations and parameters."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig, with_blocks, with_width
from roadmap.networks.model import build_model
from roadmap.networks.own_layers import errors_of
from roadmap.networks.timm_net import Net

Count = Callable[[NetConfig], int]  # multiply-adds of a network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore's use of torch.jit, deprecated there
    from fvcore.nn.jit_handles import conv_flop_count


# Products of two activations, as attention has them: of queries and keys, and of what that gives and values.
_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)


def _unchanged(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _broadcast(x: Any, y: Any, **_: Any) -> Any:
    return torch.broadcast_tensors(x, y)[0] if isinstance(y, Tensor) else x


# What gives the shape of an operator's result in less time: torch's kernels of these for the meta device are written in
# Python, and the first of them that runs imports torch._dynamo, which takes a second.
_STAND_INS: dict[Any, Any] = {
    **dict.fromkeys((F.batch_norm, F.layer_norm, F.relu, F.hardtanh, F.gelu), _unchanged),
    nn.init.kaiming_uniform_: lambda tensor, **_: tensor,
    Tensor.uniform_: _unchanged,
    F.linear: lambda x, weight, bias=None: F.linear(x, weight),
    Tensor.add: _broadcast,
    Tensor.mean: Tensor.sum,
}


class _OperatorCounts(TorchFunctionMode):
    """Count every convolution and linear layer that runs, with fvcore's count for each, and attention's products.

    fvcore's own `FlopCountAnalysis` sees the same operators through torch.jit's tracer, which has not worked on the
    meta device since torch 2.13 (and would have to compute the whole network elsewhere). A test holds the two equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: int = 0
        self.depthwise_macs: int = 0
        self.attention_macs: int = 0
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
        elif func in _PRODUCTS:
            self._attend(out.numel() * args[0].shape[-1])
        elif func is F.scaled_dot_product_attention:
            query, key = args[:2]
            self._attend(query.shape[:-1].numel() * key.shape[-2] * key.shape[-1] + out.numel() * key.shape[-2])
        return out

    def _attend(self, macs: int) -> None:
        self.attention_macs += macs
        self.macs += macs


def count_macs(net: Net, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the multiply-adds of one forward pass.

    Runs the real model on the meta device, so nothing is allocated. Convolutions, linear layers and the matrix products
    of attention count; norms, activations, pooling and additions do not, as in the paper's tables.

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


def count_activations(net: Net, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000) -> int:
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


def count_depthwise_macs(net: Net, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the multiply-adds of depthwise convolutions in one forward pass; arguments as for `count_macs`.

    They are few, and take far longer than those of other convolutions.
    """
    return _trace(net, image_size, in_channels, num_classes).depthwise_macs


def count_attention_macs(net: Net, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the multiply-adds of attention's two matrix products in one forward pass; arguments as for `count_macs`.

    No weights take part in them, and they grow with the square of the number of positions that attend to each other.
    """
    return _trace(net, image_size, in_channels, num_classes).attention_macs


@cache
def count_params(net: Net, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in _on_meta(net, in_channels, num_classes).parameters())


@lru_cache(maxsize=2)
def _on_meta(net: Net, in_channels: int, num_classes: int) -> nn.Module:
    # The stand-ins are for ours: weights on the meta device need no filling. timm's may compute their widths.
    with torch.device("meta"), _OperatorCounts() if isinstance(net, NetConfig) else nullcontext():
        return build_model(net, num_classes=num_classes, in_channels=in_channels).eval()


@cache
def _trace(net: Net, image_size: int, in_channels: int, num_classes: int) -> _OperatorCounts:
    """Return what one image's forward pass costs."""
    if isinstance(net, NetConfig) and image_size < net.total_stride:
        raise UserError(
            f"image_size is {image_size}, but the network divides the resolution by {net.total_stride}. "
            f"Use images of at least {net.total_stride} pixels, or a recipe with a smaller stem stride."
        )
    image = torch.empty(1, in_channels, image_size, image_size, device="meta")
    counts = _OperatorCounts()
    with torch.no_grad(), counts, errors_of(net.own_layers if isinstance(net, NetConfig) else ()):
        _on_meta(net, in_channels, num_classes)(image)
    return counts


def fit_width(net: NetConfig, macs: float, *, multiple: int = 1, count: Count = count_macs) -> NetConfig:
    """Return a network with the stage widths whose multiply-adds come nearest to a number, in their proportions.

    Args:
        net: The network to widen or narrow.
        macs: Multiply-adds for one image.
        multiple: The first stage's width is a multiple of this.
        count: What counts them, if not at 224x224 and as it is: a proxy is narrower, and rounded.
    """
    return _fit(lambda units: with_width(net, units * multiple), net.widths[0] // multiple, macs, 0.5, count)


def fit_depth(net: NetConfig, macs: float, *, multiple: int = 1, count: Count = count_macs) -> NetConfig:
    """Return a network with as many blocks, shared out as they are, as bring its multiply-adds nearest to a number.

    Args:
        net: The network to deepen or flatten.
        macs: Multiply-adds for one image.
        multiple: The number of blocks is a multiple of this.
        count: As for `fit_width`.
    """
    return _fit(lambda units: with_blocks(net, units * multiple), sum(net.depths) // multiple, macs, 1.0, count)


def _fit(make: Callable[[int], NetConfig], start: int, macs: float, power: float, count: Count) -> NetConfig:
    """Return the network of the size that comes nearest; its cost grows as the size to the power of 1 / `power`."""
    counts: dict[int, int] = {}

    def miss(size: int) -> float:
        if size not in counts:
            counts[size] = count(make(size))
        return abs(counts[size] - macs)

    size = max(1, start)
    while size not in counts:  # jump to where the cost would be met if it grew as it should
        miss(size)
        size = max(1, round(size * (macs / counts[size]) ** power))
    size = min(counts, key=miss)
    while better := [near for near in range(max(1, size - 2), size + 3) if miss(near) < miss(size)]:
        size = min(better, key=miss)
    return make(size)
