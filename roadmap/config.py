"""A network as it is, not the path that led there: `NetConfig` and `BlockConfig`, frozen and validated.

Every rung of both of the paper's ladders, the ConvNeXt family and all legal mixes in between are values of these two
classes. Nothing here imports torch: `roadmap.model` builds what is described here.
"""

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from roadmap.errors import UserError, unknown

Stem = Literal["resnet", "patchify"]
Downsampling = Literal["in_block", "separate"]
Activation = Literal["relu", "gelu"]
Norm = Literal["batch_norm", "layer_norm"]

# The places in a block where a norm or an activation can stand: after each of its three convolutions, named by what
# they do and not by position (so that a slot means the same before and after the depthwise convolution moves up), and
# after the addition of the shortcut.
CONV_SLOTS = ("pointwise1", "spatial", "pointwise2")
SLOTS = (*CONV_SLOTS, "add")

# How pydantic reads networks from files: what it does not know would make another network, so it is not left out.
STRICT = {"extra": "forbid"}


def _check_choice(place: str, field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise unknown(field, value, choices, place=place)


def _check_slots(place: str, field: str, value: tuple[str, ...], slots: tuple[str, ...]) -> None:
    if not isinstance(value, tuple):
        raise UserError(f"{place}: {field} is {value!r}, but must be a tuple of slots, such as ('{slots[0]}',).")
    for slot in value:
        _check_choice(place, field, slot, slots)
    if list(value) != [slot for slot in slots if slot in value]:
        raise UserError(f"{place}: {field} is {value}, but slots are listed once each, in the order {slots}.")


@dataclass(frozen=True)
class BlockConfig:
    """A residual block: two 1x1 convolutions and a spatial one, and where norms and activations stand.

    Attributes:
        residual_ratio: Width of the stream between blocks, in stage widths (ResNet 4, ConvNeXt 1).
        hidden_ratio: Width between the two 1x1 convolutions, in stage widths (ResNet 1, ConvNeXt 4).
        spatial_first: Whether the spatial convolution comes before both 1x1 convolutions instead of between them.
        depthwise: Whether the spatial convolution has one group per channel.
        kernel_size: Height and width of the spatial convolution, in pixels; odd, so that padding keeps the size.
        act: The activation function.
        act_after: The slots (see `SLOTS`) that an activation follows.
        norm: The normalisation, here and everywhere else in the network.
        norm_after: The slots (see `CONV_SLOTS`) that a norm follows. The shortcut's projection always has its own.
        layer_scale: Initial value of a learned scale per channel on the residual branch; None builds no such scale.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    residual_ratio: int = 4
    hidden_ratio: int = 1
    spatial_first: bool = False
    depthwise: bool = False
    kernel_size: int = 3
    act: Activation = "relu"
    act_after: tuple[str, ...] = ("pointwise1", "spatial", "add")
    norm: Norm = "batch_norm"
    norm_after: tuple[str, ...] = CONV_SLOTS
    layer_scale: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built, saying the rule, the value and the way out."""
        for field in ("residual_ratio", "hidden_ratio", "kernel_size"):
            if not isinstance(value := getattr(self, field), int) or value < 1:
                raise UserError(f"block: {field} is {value!r}, but must be a whole number of at least 1.")
        if self.kernel_size % 2 == 0:
            raise UserError(
                f"block: kernel_size is {self.kernel_size}, but must be odd, so that padding keeps the size. "
                f"Use {self.kernel_size - 1} or {self.kernel_size + 1}."
            )
        if self.spatial_first and not self.depthwise:
            raise UserError(
                "block: spatial_first is set with depthwise=False, but only a depthwise convolution can move up (a "
                "dense one would grow with the square of the stream's width). Put the step 'depthwise_conv' first."
            )
        _check_choice("block", "act", self.act, get_args(Activation))
        _check_choice("block", "norm", self.norm, get_args(Norm))
        _check_slots("block", "act_after", self.act_after, SLOTS)
        _check_slots("block", "norm_after", self.norm_after, CONV_SLOTS)


@dataclass(frozen=True)
class NetConfig:
    """A network of four stages of residual blocks behind a stem, in front of a pooled linear head.

    Attributes:
        depths: Blocks per stage.
        widths: Stage widths in channels; what a block makes of them is up to its two ratios.
        stem: "resnet" (7x7 convolution, norm, activation, 3x3 max pool) or "patchify" (one convolution whose kernel
            is its stride).
        stem_stride: Pixels of the image per pixel of the first stage; 4 in the paper, less for small images.
        downsample: "in_block" (the first spatial convolution of a stage carries the stride) or "separate" (norm and
            2x2 convolution of stride 2 between stages).
        boundary_norms: Whether norms stand where the resolution changes: after the stem, before each separate
            downsampling convolution.
        final_norm: Whether a norm stands between the global average pool and the head.
        block: The block that all stages are made of.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Stem = "resnet"
    stem_stride: int = 4
    downsample: Downsampling = "in_block"
    boundary_norms: bool = False
    final_norm: bool = False
    block: BlockConfig = BlockConfig()

    def __post_init__(self) -> None:
        """Refuse what cannot be built, saying the rule, the value and the way out."""
        for field in ("depths", "widths"):
            value = getattr(self, field)
            if not isinstance(value, tuple) or not value or any(not isinstance(n, int) or n < 1 for n in value):
                raise UserError(f"network: {field} is {value!r}, but must be whole numbers of at least 1, one a stage.")
        if len(self.depths) != len(self.widths):
            raise UserError(
                f"network: {len(self.depths)} depths {self.depths} do not match {len(self.widths)} widths "
                f"{self.widths}. Give one of each per stage."
            )
        _check_choice("network", "stem", self.stem, get_args(Stem))
        _check_choice("network", "downsample", self.downsample, get_args(Downsampling))
        if self.stem_stride not in (2, 4):
            raise UserError(
                f"network: stem_stride is {self.stem_stride}, but must be 4 (the paper) or 2 (small images)."
            )
        if self.boundary_norms and self.downsample != "separate":
            raise UserError(
                "network: boundary_norms is set with downsample='in_block', but those norms belong to separate "
                "downsampling layers. Put the step 'separate_downsampling' first."
            )

    @property
    def total_stride(self) -> int:
        """Pixels of the image per pixel of the last stage, in one direction."""
        return int(self.stem_stride * 2 ** (len(self.depths) - 1))


def flatten(config: Any) -> dict[str, Any]:
    """Return every field of a (nested) dataclass under its dotted name, such as `block.act`."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{name}": inner for name, inner in flatten(value).items()}
        else:
            flat[field.name] = value
    return flat


def diff(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two configs of one class differ: dotted name -> (before, after)."""
    old, new = flatten(before), flatten(after)
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}


def scale_down(net: NetConfig, *, width_divisor: int, stem_stride: int) -> NetConfig:
    """Return the proxy of a network: all stage widths divided, the stem's stride set, the proportions kept.

    Widths round half up to whole channels (in the paper's ladders only ResNet-200's 84 / 8 needs it: 11, 21, 42, 84).
    """
    widths = tuple(max(1, (2 * width + width_divisor) // (2 * width_divisor)) for width in net.widths)
    return replace(net, widths=widths, stem_stride=stem_stride)


def convnext(size: str, *, layer_scale: float | None = 1e-6) -> NetConfig:
    """Return a published ConvNeXt by its size: tiny, small, base, large or xlarge.

    Source: section 3 of the paper (widths and depths), Table 5 (layer scale).
    """
    family = {
        "tiny": (96, (3, 3, 9, 3)),
        "small": (96, (3, 3, 27, 3)),
        "base": (128, (3, 3, 27, 3)),
        "large": (192, (3, 3, 27, 3)),
        "xlarge": (256, (3, 3, 27, 3)),
    }
    if size not in family:
        raise unknown("ConvNeXt size", size, family)
    width, depths = family[size]
    return NetConfig(
        depths=depths,
        widths=(width, 2 * width, 4 * width, 8 * width),
        stem="patchify",
        downsample="separate",
        boundary_norms=True,
        final_norm=True,
        block=BlockConfig(
            residual_ratio=1,
            hidden_ratio=4,
            spatial_first=True,
            depthwise=True,
            kernel_size=7,
            act="gelu",
            act_after=("pointwise1",),
            norm="layer_norm",
            norm_after=("spatial",),
            layer_scale=layer_scale,
        ),
    )


# Where a ladder can start. Source: He et al. 2016 (torchvision's "v1.5": the stride sits in the 3x3); ResNet-200 as in
# timm, depths (3, 24, 36, 3).
BASES: dict[str, NetConfig] = {
    "resnet50": NetConfig(depths=(3, 4, 6, 3)),
    "resnet200": NetConfig(depths=(3, 24, 36, 3)),
}
