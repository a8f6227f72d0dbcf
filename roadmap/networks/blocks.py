"""The parts of a network: stem, block, downsampling layer, norms. All tensors are (N, C, H, W).

`LayerNorm` and the 1x1 convolutions work on channels; with `channels_last` memory no layout changes hands.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.common.process_group import ALONE
from roadmap.networks.block_config import PLAIN, BlockConfig, OwnLayer
from roadmap.networks.config import NetConfig
from roadmap.networks.own_layers import make_layer


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, computed as the matrix product that it is.

    On a channels_last tensor the product reads and writes in place; on CPUs it takes down to a third of the time of
    the convolution that computes the same. The weight keeps a convolution's shape, (out, in, 1, 1). An exporter sees
    the convolution, which other runtimes merge with the norm after it.
    """

    def __init__(self, in_width: int, width: int, stride: int = 1, *, bias: bool) -> None:
        super().__init__(in_width, width, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, width, H / stride, W / stride)."""
        if torch.compiler.is_exporting():
            return super().forward(x)
        if self.stride[0] != 1:
            x = x[:, :, :: self.stride[0], :: self.stride[0]]
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W) at each position."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over dimension 1; the permutations only relabel a channels_last tensor."""
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """A learned scale per channel on the residual branch."""

    def __init__(self, width: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init))

    def forward(self, x: Tensor) -> Tensor:
        """Scale (N, C, H, W) by gamma, shape (C,)."""
        return x * self.gamma.view(1, -1, 1, 1)


def make_norm(block: BlockConfig, width: int) -> nn.Module:
    """Return the network's norm for `width` channels, with the paper's eps for LayerNorm."""
    if block.norm == "none":
        return nn.Identity()
    return LayerNorm(width, eps=1e-6) if block.norm == "layer_norm" else nn.BatchNorm2d(width)


def make_act(block: BlockConfig) -> nn.Module:
    """Return the network's activation."""
    if block.act == "gelu":
        return nn.GELU()
    return nn.ReLU6(inplace=True) if block.act == "relu6" else nn.ReLU(inplace=True)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for a random part of the images, and scales up the others.

    Several processes draw for the whole batch and take their share, so that their number does not change what is drawn.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.group = ALONE

    def forward(self, x: Tensor) -> Tensor:
        """Drop the images of (N, ...) with probability `rate`, in training."""
        if not self.training:
            return x
        kept = x.new_empty(len(x) * self.group.size, *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        if self.rate < 1:
            kept.div_(1 - self.rate)
        if self.group.size > 1:
            kept = kept[self.group.share(len(kept)).to(x.device)]
        return x * kept


def make_drop_path(rate: float) -> nn.Module:
    """Return stochastic depth for one residual branch."""
    return DropPath(rate) if rate else nn.Identity()


class Stem(nn.Sequential):
    """From the image to the first stage.

    Attributes:
        width: Channels that leave it.
    """

    def __init__(self, net: NetConfig, in_channels: int) -> None:
        self.width = width = in_channels if net.stem == "none" else net.stem_width or net.widths[0]
        stride, bias = net.stem_stride, net.block.norm == "none"
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if isinstance(net.stem, OwnLayer):
            layers[net.stem.name] = make_layer(net.stem, in_channels, width, stride)
            if net.boundary_norms:
                layers["norm"] = make_norm(net.block, width)
        elif net.stem == "patchify":
            layers["conv"] = nn.Conv2d(in_channels, width, stride, stride)
            if net.boundary_norms:
                layers["norm"] = make_norm(net.block, width)
        elif net.stem == "resnet":
            layers["conv"] = nn.Conv2d(in_channels, width, 7, stride // 2, padding=3, bias=bias)
            layers["norm"] = make_norm(net.block, width)
            layers["act"] = make_act(net.block)
            layers["pool"] = nn.MaxPool2d(3, 2, padding=1)
        elif net.stem == "mobilenet":
            layers["conv"] = nn.Conv2d(in_channels, 2 * width, 3, stride, padding=1, bias=bias)
            layers["norm"] = make_norm(net.block, 2 * width)
            layers["act"] = make_act(net.block)
            layers["spatial"] = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width, bias=bias)
            layers["spatial_norm"] = make_norm(net.block, 2 * width)
            layers["spatial_act"] = make_act(net.block)
            layers["pointwise"] = Pointwise(2 * width, width, bias=bias)
            layers["pointwise_norm"] = make_norm(net.block, width)
        super().__init__(layers)


class Downsample(nn.Sequential):
    """A separate downsampling layer: norm (where the network has boundary norms), convolution of its stride, or own."""

    def __init__(self, net: NetConfig, in_width: int, width: int, stride: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if net.boundary_norms:
            layers["norm"] = make_norm(net.block, in_width)
        if isinstance(net.downsample, OwnLayer):
            layers[net.downsample.name] = make_layer(net.downsample, in_width, width, stride)
        else:
            layers["conv"] = nn.Conv2d(in_width, width, stride, stride)
        super().__init__(layers)


class Mean(nn.Module):
    """The global average pool."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 1, 1)."""
        return x.mean((2, 3), keepdim=True)


class HeadConv(nn.Sequential):
    """A 1x1 convolution with norm and activation between the last stage and the pool."""

    def __init__(self, net: NetConfig, in_width: int) -> None:
        super().__init__(
            OrderedDict(
                conv=Pointwise(in_width, net.head_width, bias=net.block.norm == "none"),
                norm=make_norm(net.block, net.head_width),
                act=make_act(net.block),
            )
        )


class Block(nn.Module):
    """A block: its convolutions in order, each followed by the norm, activation and own layers whose slot asks for it.

    Where the shape changes, the shortcut is a strided 1x1 convolution with a norm, or there is none; else it is the
    input itself, or there is none. A user's own stands where its slot says. Without a shortcut, stochastic depth would
    drop all there is.
    """

    def __init__(self, block: BlockConfig, in_width: int, stage_width: int, stride: int, drop_path: float) -> None:
        super().__init__()
        width = stage_width * block.residual_ratio
        hidden = block.hidden_ratio * (in_width if block.hidden_of == "input" else stage_width)
        spatial_width = in_width if block.spatial_first else hidden
        shapes = {"pointwise1": (in_width, hidden), "spatial": (spatial_width,) * 2, "pointwise2": (hidden, width)}
        order = ("spatial", "pointwise1", "pointwise2") if block.spatial_first else block.convs
        if block.convs == PLAIN:
            shapes["spatial"] = (in_width, width)
        bias = block.norm != "batch_norm"  # whose own shift makes a bias idle

        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for slot in order:
            inputs, outputs = shapes[slot]
            if slot == "spatial" and block.spatial_conv:
                layers[slot] = make_layer(block.spatial_conv, inputs, outputs, stride)
            elif slot == "spatial":
                groups = outputs if block.depthwise else block.groups
                k = block.kernel_size
                layers[slot] = nn.Conv2d(inputs, outputs, k, stride, padding=k // 2, groups=groups, bias=bias)
            else:
                layers[slot] = Pointwise(inputs, outputs, bias=bias)
            if slot in block.norm_after:
                layers[f"{slot}_norm"] = make_norm(block, outputs)
            if slot in block.act_after:
                layers[f"{slot}_act"] = make_act(block)
            for own in block.layers_after:
                if own.slot == slot:
                    layers[f"{slot}_{own.name}"] = make_layer(own, outputs)
        if block.layer_scale is not None:
            layers["layer_scale"] = LayerScale(width, block.layer_scale)
        self.residual = nn.Sequential(layers)
        changes = stride != 1 or in_width != width
        self.adds = block.shortcut != "none" and not (block.shortcut == "identity" and changes)
        self.drop_path = make_drop_path(drop_path if self.adds else 0.0)
        self.shortcut: nn.Module = nn.Identity()
        if isinstance(block.shortcut, OwnLayer) and (changes or block.shortcut.slot == "shortcut"):
            self.shortcut = make_layer(block.shortcut, in_width, width, stride)
        elif self.adds and changes:
            self.shortcut = nn.Sequential(
                OrderedDict(conv=Pointwise(in_width, width, stride, bias=False), norm=make_norm(block, width))
            )
        self.act = make_act(block) if "add" in block.act_after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, width, H / stride, W / stride)."""
        # The shortcut first: gradients add up the other way round, and the last bits of GELU's hang on their order.
        before = self.shortcut(x) if self.adds else None
        residual = self.drop_path(self.residual(x))
        out: Tensor = self.act(residual if before is None else before + residual)
        return out
