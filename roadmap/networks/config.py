"""A network as it is, not the path that led there: `NetConfig` and `BlockConfig`, frozen and validated.

Every rung of the paper's ladders and of those from VGG-16 and MobileNetV2, the ConvNeXt family and all legal mixes in
between are values of these two classes. Nothing here imports torch: `roadmap.networks.model` builds it.
"""

from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self, cast, get_args

from roadmap.common.errors import UserError, unknown
from roadmap.common.fields import LATER, PLACE, flatten

if TYPE_CHECKING:
    from torch import nn

    from roadmap.networks.nets import ModelStep, ModifiedNet

Stem = Literal["none", "resnet", "mobilenet", "patchify"]
Downsampling = Literal["max_pool", "in_block", "separate"]
Activation = Literal["relu", "relu6", "gelu"]
Norm = Literal["none", "batch_norm", "layer_norm"]
Shortcut = Literal["none", "identity", "projection"]
Init = Literal["trunc_normal", "kaiming", "pytorch"]  # how weights are first drawn; `Recipe.init` says what each is

# The places in a block where a norm or an activation can stand: after each of its three convolutions, named by what
# they do and not by position (so that a slot means the same before and after the depthwise convolution moves up), and
# after the addition of the shortcut.
CONV_SLOTS = ("pointwise1", "spatial", "pointwise2")
SLOTS = (*CONV_SLOTS, "add")
PLAIN = ("spatial",)  # the convolutions of a block that has no 1x1 ones

# The strides that each stem can have.
STEM_STRIDES: dict[str, tuple[int, ...]] = {
    "none": (1,),
    "resnet": (2, 4),
    "mobilenet": (1, 2),
    "patchify": (2, 4, 8, 16),
}

# How pydantic reads networks from files: what it does not know would make another network, so it is not left out.
STRICT = {"extra": "forbid"}

# The scale of the paper, as `scaled` of every network takes it.
FULL = {"width_divisor": 1, "stem_stride": 4, "image_size": 224}


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


@dataclass(frozen=True, repr=False)
class OwnLayer:
    """A layer of a user's own in the block; `roadmap.own_layer` makes one of a class.

    Attributes:
        slot: The convolution that it follows, behind that one's norm and activation.
        name: The class. Called with a number of channels, it makes a module from (N, channels, H, W) to the same shape.
        path: The Python file that has it.
        fingerprint: Hash of the file: other code makes another run, the same code elsewhere does not.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    slot: str
    name: str
    path: str = field(metadata=PLACE)
    fingerprint: str

    def __repr__(self) -> str:  # as tables of what a step changes show it
        return f"{self.name} after {self.slot}"


@dataclass(frozen=True)
class BlockConfig:
    """A block: two 1x1 convolutions and a spatial one, or that alone, its shortcut, its norms and activations.

    Attributes:
        convs: The convolutions that it has: all of `CONV_SLOTS`, or `PLAIN` (one dense spatial convolution, as in VGG).
        shortcut: What is added to the residual branch: the block's input, through a 1x1 convolution and a norm where
            the shape changes ("projection"); the input, where the shape stays ("identity"); nothing ("none").
        residual_ratio: Width of the stream between blocks, in stage widths (ResNet 4, ConvNeXt 1).
        hidden_ratio: Width between the two 1x1 convolutions, in stage widths (ResNet 1, ConvNeXt 4).
        hidden_of: What `hidden_ratio` is a multiple of: the "stage" width, or that of the block's "input" (MobileNetV2,
            whose first blocks of a stage are as wide inside as the stage before asks).
        spatial_first: Whether the spatial convolution comes before both 1x1 convolutions instead of between them.
        depthwise: Whether the spatial convolution has one group per channel.
        groups: Groups of the spatial convolution where it is not depthwise (ResNeXt 32).
        kernel_size: Height and width of the spatial convolution, in pixels; odd, so that padding keeps the size.
        act: The activation function.
        act_after: The slots (see `SLOTS`) that an activation follows.
        norm: The normalisation, here and everywhere else in the network; with "none" there is nowhere any.
        norm_after: The slots (see `CONV_SLOTS`) that a norm follows. The shortcut's projection always has its own.
        layer_scale: Initial value of a learned scale per channel on the residual branch; None builds no such scale.
        layers_after: Layers of a user's own, in the order in which they stand.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    convs: tuple[str, ...] = field(default=CONV_SLOTS, metadata=LATER)
    shortcut: Shortcut = field(default="projection", metadata=LATER)
    residual_ratio: int = 4
    hidden_ratio: int = 1
    hidden_of: Literal["stage", "input"] = field(default="stage", metadata=LATER)
    spatial_first: bool = False
    depthwise: bool = False
    groups: int = field(default=1, metadata=LATER)
    kernel_size: int = 3
    act: Activation = "relu"
    act_after: tuple[str, ...] = ("pointwise1", "spatial", "add")
    norm: Norm = "batch_norm"
    norm_after: tuple[str, ...] = CONV_SLOTS
    layer_scale: float | None = None
    layers_after: tuple[OwnLayer, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        """Refuse what cannot be built, saying the rule, the value and the way out."""
        for name in ("residual_ratio", "hidden_ratio", "kernel_size", "groups"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise UserError(f"block: {name} is {value!r}, but must be a whole number of at least 1.")
        if self.kernel_size % 2 == 0:
            raise UserError(
                f"block: kernel_size is {self.kernel_size}, but must be odd, so that padding keeps the size. "
                f"Use {self.kernel_size - 1} or {self.kernel_size + 1}."
            )
        if self.convs not in (CONV_SLOTS, PLAIN):
            raise UserError(f"block: convs is {self.convs}, but must be {CONV_SLOTS} or {PLAIN}.")
        _check_choice("block", "shortcut", self.shortcut, get_args(Shortcut))
        _check_choice("block", "hidden_of", self.hidden_of, ("stage", "input"))
        if self.convs == PLAIN and (self.depthwise or self.hidden_ratio != 1 or self.hidden_of != "stage"):
            raise UserError(
                f"block: depthwise is {self.depthwise}, hidden_ratio {self.hidden_ratio} and hidden_of "
                f"'{self.hidden_of}' with convs={PLAIN}, but one convolution alone is dense (groups would never mix "
                "channels) and has nothing hidden. Put the step 'bottleneck' first."
            )
        if self.spatial_first and not self.depthwise:
            raise UserError(
                "block: spatial_first is set with depthwise=False, but only a depthwise convolution can move up (a "
                "dense one would grow with the square of the stream's width). Put the step 'depthwise_conv' first."
            )
        if self.groups > 1 and (self.depthwise or self.convs == PLAIN or self.hidden_of != "stage"):
            raise UserError(
                f"block: groups is {self.groups}, but only the dense spatial convolution between two 1x1 ones, in a "
                "hidden width of the stage's, has groups. Use groups=1."
            )
        _check_choice("block", "act", self.act, get_args(Activation))
        _check_choice("block", "norm", self.norm, get_args(Norm))
        _check_slots("block", "act_after", self.act_after, (*self.convs, "add"))
        _check_slots("block", "norm_after", self.norm_after, self.convs)
        for layer in self.layers_after:
            if layer.slot not in self.convs:
                raise unknown("slot", layer.slot, self.convs, place=f"block: layer '{layer.name}' in layers_after")
        if len({(layer.slot, layer.name) for layer in self.layers_after}) < len(self.layers_after):
            raise UserError(f"block: layers_after has a layer twice after one convolution: {self.layers_after}.")
        if self.shortcut == "none" and "add" in self.act_after:
            raise UserError(
                "block: act_after has 'add' with shortcut='none', but nothing is added. Put the step 'shortcuts' first."
            )
        if self.norm == "none" and self.norm_after:
            raise UserError(
                f"block: norm_after is {self.norm_after} with norm='none'. Put the step 'batch_norm' first."
            )


@dataclass(frozen=True)
class NetConfig:
    """A network of stages of blocks behind a stem, in front of a pooled linear head.

    Attributes:
        depths: Blocks per stage.
        widths: Stage widths in channels; what a block makes of them is up to its two ratios.
        strides: By how much each stage divides the resolution; empty is 1 for the first stage and 2 for each other.
        stem: "resnet" (7x7 convolution, norm, activation, 3x3 max pool), "patchify" (one convolution whose kernel is
            its stride), "mobilenet" (a strided 3x3 convolution to twice the stem's width, a depthwise 3x3, both with
            norm and activation, and a 1x1 with a norm: what stands before MobileNetV2's first expansion) or "none".
        stem_width: Channels that leave the stem; 0 is as many as the first stage's width.
        stem_stride: Pixels of the image per pixel that leaves the stem, in one direction; 4 in the paper, less for
            small images.
        downsample: What carries a stage's stride: "in_block" (its first spatial convolution), "separate" (norm and
            convolution whose kernel is the stride, before its blocks) or "max_pool" (before its blocks).
        boundary_norms: Whether norms stand where the resolution changes: after the stem, before each separate
            downsampling convolution.
        final_norm: Whether a norm stands between the global average pool and the head.
        head_width: Outputs of a 1x1 convolution with norm and activation before the pool (MobileNetV2); 0 has none.
        block: The block that all stages are made of.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = field(default=(), metadata=LATER)
    stem: Stem = "resnet"
    stem_width: int = field(default=0, metadata=LATER)
    stem_stride: int = 4
    downsample: Downsampling = "in_block"
    boundary_norms: bool = False
    final_norm: bool = False
    head_width: int = field(default=0, metadata=LATER)
    block: BlockConfig = BlockConfig()

    def __post_init__(self) -> None:
        """Refuse what cannot be built, saying the rule, the value and the way out."""
        for name in ("depths", "widths"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not value or any(not isinstance(n, int) or n < 1 for n in value):
                raise UserError(f"network: {name} is {value!r}, but must be whole numbers of at least 1, one a stage.")
        if len(self.depths) != len(self.widths):
            raise UserError(
                f"network: {len(self.depths)} depths {self.depths} do not match {len(self.widths)} widths "
                f"{self.widths}. Give one of each per stage."
            )
        _check_choice("network", "stem", self.stem, get_args(Stem))
        _check_choice("network", "downsample", self.downsample, get_args(Downsampling))
        if self.stem_stride not in STEM_STRIDES[self.stem]:
            known = " or ".join(map(str, STEM_STRIDES[self.stem]))
            raise UserError(f"network: stem_stride is {self.stem_stride}, but with stem '{self.stem}' must be {known}.")
        for name in ("stem_width", "head_width"):
            if not isinstance(value := getattr(self, name), int) or value < 0:
                raise UserError(f"network: {name} is {value!r}, but must be a whole number from 0 up.")
        if self.strides and (
            len(self.strides) != len(self.depths) or any(stride not in (1, 2, 4) for stride in self.strides)
        ):
            raise UserError(
                f"network: strides is {self.strides}, but must be 1, 2 or 4, one for each of {len(self.depths)} stages."
            )
        if self.strides == _usual_strides(len(self.depths)):
            object.__setattr__(self, "strides", ())  # one way to say it, so that equal networks are equal
        if odd := [width for width in self.widths if width * self.block.hidden_ratio % self.block.groups]:
            raise UserError(
                f"network: groups is {self.block.groups}, but must divide the hidden width {odd[0]} x "
                f"{self.block.hidden_ratio} of every stage."
            )
        if self.final_norm and self.block.norm == "none":
            raise UserError("network: final_norm is set with norm='none'. Put the step 'batch_norm' first.")
        if self.boundary_norms and self.downsample != "separate":
            raise UserError(
                "network: boundary_norms is set with downsample='in_block', but those norms belong to separate "
                "downsampling layers. Put the step 'separate_downsampling' first."
            )

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """By how much each stage divides the resolution."""
        return self.strides or _usual_strides(len(self.depths))

    @property
    def reductions(self) -> tuple[int, ...]:
        """Pixels of the image per pixel that leaves each stage, in one direction."""
        return tuple(accumulate(self.stage_strides, mul, initial=self.stem_stride))[1:]

    @property
    def total_stride(self) -> int:
        """Pixels of the image per pixel of the last stage, in one direction."""
        return self.reductions[-1]

    # -- what every network answers (`roadmap.networks.nets`)

    @property
    def title(self) -> str:
        """Its name in tables and errors."""
        return "a network of ours"

    def describe(self) -> dict[str, Any]:
        """Return what it is made of, each field under its dotted name."""
        return flatten(self)

    def scaled(self, *, width_divisor: int, stem_stride: int, image_size: int) -> Self:
        """Return the network as a recipe trains it: `scale_down`, for images of any size."""
        return cast(Self, scale_down(self, width_divisor=width_divisor, stem_stride=stem_stride))

    def scale_words(self, width_divisor: int, stem_stride: int) -> str:
        """Say nothing: a recipe's width divisor and stem stride are what a proxy of it is."""
        return ""

    def check_image(self, image_size: int) -> None:
        """Refuse images that are smaller than its total stride.

        Raises:
            UserError: If these are.
        """
        if image_size < self.total_stride:
            raise UserError(
                f"image_size is {image_size}, but the network divides the resolution by {self.total_stride}. "
                f"Use images of at least {self.total_stride} pixels, or a recipe with a smaller stem stride."
            )

    def check_fits(self, image_size: int, *, in_channels: int, num_classes: int) -> None:
        """Refuse images that it cannot take, which their size alone says.

        Raises:
            UserError: If these are such.
        """
        self.check_image(image_size)

    @property
    def has_stochastic_depth(self) -> bool:
        """Whether a recipe's stochastic depth means anything to it."""
        return True

    def build(self, *, num_classes: int, in_channels: int, drop_path: float, init: Init) -> "nn.Module":
        """Build it, with its first weights."""
        from roadmap.networks.model import Network, initialise

        model = Network(self, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)
        initialise(model, self, init)
        return model

    def set_args(self, args: object, proxy: object = ()) -> NoReturn:
        """Refuse arguments.

        Raises:
            UserError: Always.
        """
        raise UserError("set_args: the network is one of ours, which has fields and no arguments. Use a step on them.")

    def then(self, step: "ModelStep") -> "ModifiedNet":
        """Return the network whose module a function changes."""
        from roadmap.networks.nets import ModifiedNet

        return ModifiedNet(self, (step,))

    def import_code(self) -> None:
        """Import the files of its own layers."""
        from roadmap.networks.own_layers import import_layers

        import_layers(self)

    def check_trust(self) -> None:
        """Refuse to run the files of its own layers, unless they are trusted."""
        from roadmap.networks.own_layers import check_trust

        check_trust(self)


def _usual_strides(stages: int) -> tuple[int, ...]:
    return (1,) + (2,) * (stages - 1)


def with_width(net: NetConfig, width: int) -> NetConfig:
    """Return a network whose first stage has this width, the others in the proportions that they had."""
    return replace(net, widths=tuple(max(1, width * w // net.widths[0]) for w in net.widths))


def with_blocks(net: NetConfig, blocks: int) -> NetConfig:
    """Return a network with this many blocks in all, shared out over the stages as they were, each with one at least.

    What a fair share leaves over goes to the stages that it cuts most.
    """
    shares = [depth * blocks / sum(net.depths) for depth in net.depths]
    depths = [max(1, int(share)) for share in shares]
    for stage in sorted(range(len(shares)), key=lambda i: depths[i] - shares[i])[: max(0, blocks - sum(depths))]:
        depths[stage] += 1
    return replace(net, depths=tuple(depths))


def narrow(width: int, divisor: int) -> int:
    """Return a width divided for a proxy, rounded half up to whole channels, one at least; 0 stays 0."""
    return width and max(1, (2 * width + divisor) // (2 * divisor))


def scale_down(net: NetConfig, *, width_divisor: int, stem_stride: int) -> NetConfig:
    """Return the proxy of a network: all widths divided, the stem's stride set, the proportions kept.

    Widths round half up to whole channels (in the paper's ladders only ResNet-200's 84 / 8 needs it: 11, 21, 42, 84).
    Groups are divided too, so that they are as wide as they were; there are as many as divide all stages' widths.
    `stem_stride` is what becomes of the paper's 4; other stems' strides change with it, as far as they can.
    """
    widths, ratio = tuple(narrow(width, width_divisor) for width in net.widths), net.block.hidden_ratio
    most = narrow(net.block.groups, width_divisor)
    fitting = (n for n in range(most, 0, -1) if not any(width * ratio % n for width in widths))
    return replace(
        net,
        widths=widths,
        stem_width=narrow(net.stem_width, width_divisor),
        head_width=narrow(net.head_width, width_divisor),
        stem_stride=max(STEM_STRIDES[net.stem][0], net.stem_stride * stem_stride // 4),
        block=replace(net.block, groups=next(fitting)),
    )
