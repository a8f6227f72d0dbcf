"""What a network costs, counted on the built model: multiply-adds, activations and parameters."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig, with_blocks, with_width
from roadmap.networks.model import build_model
from roadmap.networks.nets import Net

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

    def __init__(self, stand_ins: Mapping[Any, Any]) -> None:
        super().__init__()
        self.stand_ins = stand_ins
        self.macs: int = 0
        self.depthwise_macs: int = 0
        self.attention_macs: int = 0
        self.activations: int = 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = self.stand_ins.get(func, func)(*args, **(kwargs or {}))
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
    of attention count; norms, activations, pooling and additions do not, as in the paper's tables. Networks that are
    not ours are counted by torch's own counter (`counts_apart` says where ours, which is faster, would differ), and on
    the CPU where they cannot be on the meta device.

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
    return sum(parameter.numel() for parameter in _built(net, in_channels, num_classes).parameters())


def counts_apart(net: Net, image_size: int = 224, *, in_channels: int = 3, num_classes: int = 1000) -> str:
    """Say where torch's own counter finds other multiply-adds than ours in a network that is not ours; "" if nowhere.

    Its count is the one that is used there: it sees every matrix product and convolution, whoever calls it.
    """
    counts = _trace(net, image_size, in_channels, num_classes)
    if counts.seen_by_ours == counts.macs:
        return ""
    operators = ", ".join(f"{name} {macs / 1e6:,.1f} M" for name, macs in counts.by_operator.items())
    return (
        f"torch's counter finds {counts.macs / 1e6:,.1f} M multiply-adds ({operators}), ours, which knows "
        f"convolutions, linear layers and attention, {counts.seen_by_ours / 1e6:,.1f} M. The first is used."
    )


@dataclass
class _Counts:
    """What one image's forward pass costs; `seen_by_ours` of the multiply-adds are those that our counter sees."""

    macs: int
    depthwise_macs: int
    attention_macs: int
    activations: int
    seen_by_ours: int
    by_operator: dict[str, int] = field(default_factory=dict)


def build_without_weights(net: Net, *, num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """Build a network to look at its shapes: on the meta device, or, where it cannot be built there, on the CPU.

    Raises:
        UserError: If it cannot be built.
    """
    if isinstance(net, NetConfig):
        with torch.device("meta"), _OperatorCounts(_STAND_INS):  # weights on the meta device need no filling
            return build_model(net, num_classes=num_classes, in_channels=in_channels)
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_model(net, num_classes=num_classes, in_channels=in_channels)
        except Exception:  # a constructor may look at numbers
            return build_model(net, num_classes=num_classes, in_channels=in_channels)


@lru_cache(maxsize=2)
def _built(net: Net, in_channels: int, num_classes: int) -> nn.Module:
    return build_without_weights(net, num_classes=num_classes, in_channels=in_channels).eval()


@cache
def _trace(net: Net, image_size: int, in_channels: int, num_classes: int) -> _Counts:
    """Return what one image's forward pass costs."""
    if isinstance(net, NetConfig):
        net.check_image(image_size)
    model = _built(net, in_channels, num_classes)
    if isinstance(net, NetConfig):
        counts = _OperatorCounts(_STAND_INS)
        with torch.no_grad(), counts:
            model(torch.empty(1, in_channels, image_size, image_size, device="meta"))
        return _Counts(counts.macs, counts.depthwise_macs, counts.attention_macs, counts.activations, counts.macs)
    try:
        return _trace_with_torch(model, image_size, in_channels, num_classes)
    except Exception as error:
        if isinstance(error, UserError) or not any(parameter.is_meta for parameter in model.parameters()):
            raise _cannot_look(net, image_size, in_channels, error) from error
    try:  # its forward pass may look at numbers
        with torch.random.fork_rng(devices=[]):
            model = build_model(net, num_classes=num_classes, in_channels=in_channels).eval()
            return _trace_with_torch(model, image_size, in_channels, num_classes)
    except Exception as error:
        raise _cannot_look(net, image_size, in_channels, error) from error


def _trace_with_torch(model: nn.Module, image_size: int, in_channels: int, num_classes: int) -> _Counts:
    """Count with torch's counter, and, for what else is counted, with ours."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    ours = _OperatorCounts({})
    with torch.no_grad(), FlopCounterMode(display=False) as torchs, ours:
        logits = model(torch.zeros(1, in_channels, image_size, image_size, device=device))
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, num_classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"it maps an image to {found}, but must to (1, {num_classes}), a number for each class")
    by_operator = {str(name): flops // 2 for name, flops in torchs.get_flop_counts().get("Global", {}).items()}
    total = torchs.get_total_flops() // 2
    return _Counts(total, ours.depthwise_macs, ours.attention_macs, ours.activations, ours.macs, by_operator)


def _cannot_look(net: Net, image_size: int, in_channels: int, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300].rstrip(".")
    if not isinstance(error, UserError):
        reason = f"{type(error).__name__}: {reason}"
    return UserError(
        f"{net.title}: cannot look at an image of {in_channels}x{image_size}x{image_size} ({reason}). Give it other "
        "arguments (in a proxy: 'proxy'), or choose a recipe with images that it takes."
    )


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
