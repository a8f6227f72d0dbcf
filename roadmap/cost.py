"""What a network costs, counted on the built model: multiply-adds and parameters."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from roadmap.config import NetConfig
from roadmap.errors import UserError
from roadmap.model import build_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore's use of torch.jit, deprecated there
    from fvcore.nn.jit_handles import conv_flop_count

# The operators that count, as in the paper's tables: where their input and their weight stand among the arguments.
_COUNTED = {
    torch.ops.aten.convolution.default: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.mm.default: (0, 1),
}


class _OperatorCounts(TorchDispatchMode):
    """Count every convolution and matrix product that runs, with fvcore's count for each.

    fvcore's own `FlopCountAnalysis` sees the same operators through torch.jit's tracer, which has not worked on the
    meta device since torch 2.13 (and would have to compute the whole network elsewhere). A test holds the two equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _COUNTED:
            x, weight = (args[place] for place in _COUNTED[func])
            self.macs[str(func)] += int(conv_flop_count(x.shape, weight.shape, out.shape))
        return out


@cache
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
    if image_size < net.total_stride:
        raise UserError(
            f"image_size is {image_size}, but the network divides the resolution by {net.total_stride}. "
            f"Use images of at least {net.total_stride} pixels, or a recipe with a smaller stem stride."
        )
    with torch.device("meta"), torch.no_grad():
        model = build_model(net, num_classes=num_classes, in_channels=in_channels).eval()
        image = torch.empty(1, in_channels, image_size, image_size)
        with _OperatorCounts() as counts:
            model(image)
    return sum(counts.macs.values())


@cache
def count_params(net: NetConfig, *, in_channels: int = 3, num_classes: int = 1000) -> int:
    """Count the trainable parameters."""
    with torch.device("meta"):
        model = build_model(net, num_classes=num_classes, in_channels=in_channels)
    return sum(parameter.numel() for parameter in model.parameters())
