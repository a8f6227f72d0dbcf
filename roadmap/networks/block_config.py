"""The block that stages are made of, and the layers of a user's own: `BlockConfig` and `OwnLayer`.

Nothing here imports torch: `roadmap.networks.blocks` builds blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, get_args

from roadmap.common.errors import UserError, unknown
from roadmap.common.fields import LATER, PLACE

Activation = Literal["relu", "relu6", "gelu"]
Norm = Literal["none", "batch_norm", "layer_norm"]
Shortcut = Literal["none", "identity", "projection"]
Argument = bool | int | float | str | None  # of a layer of a user's own

# The places in a block where a norm or an activation can stand: after each of its three convolutions, named by what
# they do and not by position (so that a slot means the same before and after the depthwise convolution moves up), and
# after the addition of the shortcut.
CONV_SLOTS = ("pointwise1", "spatial", "pointwise2")
SLOTS = (*CONV_SLOTS, "add")
PLAIN = ("spatial",)  # the convolutions of a block that has no 1x1 ones

# How pydantic reads networks from files: what it does not know would make another network, so it is not left out.
STRICT = {"extra": "forbid"}


def check_choice(place: str, field: str, value: object, choices: tuple[str, ...], slots: Sequence[str] = ()) -> None:
    """Refuse a field's value that is neither one of its choices nor an own layer for one of its slots.

    Raises:
        UserError: If it is neither.
    """
    if isinstance(value, OwnLayer) and slots:
        if value.slot not in slots:
            raise unknown("slot", value.slot, slots, place=f"{place}: layer '{value.name}' in {field}")
    elif value not in choices:
        raise unknown(field, value, choices, place=place)


def _check_slots(place: str, field: str, value: tuple[str, ...], slots: tuple[str, ...]) -> None:
    if not isinstance(value, tuple):
        raise UserError(f"{place}: {field} is {value!r}, but must be a tuple of slots, such as ('{slots[0]}',).")
    for slot in value:
        check_choice(place, field, slot, slots)
    if list(value) != [slot for slot in slots if slot in value]:
        raise UserError(f"{place}: {field} is {value}, but slots are listed once each, in the order {slots}.")


@dataclass(frozen=True, repr=False)
class OwnLayer:
    """A layer of a user's own, somewhere in the network; `roadmap.own_layer` makes one of a class.

    Attributes:
        slot: Where it stands: one of `roadmap.networks.own_layers.SIZES`, which says what the class is called with.
        name: The class.
        path: The Python file that has it.
        fingerprint: Hash of the file: other code makes another run, the same code elsewhere does not.
        args: Further arguments of the class, by their names, sorted.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    slot: str
    name: str
    path: str = field(metadata=PLACE)
    fingerprint: str
    args: tuple[tuple[str, Argument], ...] = field(default=(), metadata=LATER)

    def __repr__(self) -> str:  # as tables of what a step changes show it
        args = f"({', '.join(f'{name}={value!r}' for name, value in self.args)})" if self.args else ""
        return f"{self.name}{args} after {self.slot}" if self.slot in CONV_SLOTS else f"{self.name}{args}"


@dataclass(frozen=True, repr=False)
class BlockConfig:
    """A block: two 1x1 convolutions and a spatial one, or that alone, its shortcut, its norms and activations.

    Attributes:
        convs: The convolutions that it has: all of `CONV_SLOTS`, or `PLAIN` (one dense spatial convolution, as in VGG).
        shortcut: What is added to the residual branch: the block's input, through a 1x1 convolution and a norm where
            the shape changes ("projection"); the input, where the shape stays ("identity"); nothing ("none"). An own
            layer with the slot "projection" stands in for the first, one with the slot "shortcut" in every block.
        residual_ratio: Width of the stream between blocks, in stage widths (ResNet 4, ConvNeXt 1).
        hidden_ratio: Width between the two 1x1 convolutions, in stage widths (ResNet 1, ConvNeXt 4).
        hidden_of: What `hidden_ratio` is a multiple of: the "stage" width, or that of the block's "input" (MobileNetV2,
            whose first blocks of a stage are as wide inside as the stage before asks).
        spatial_first: Whether the spatial convolution comes before both 1x1 convolutions instead of between them.
        depthwise: Whether the spatial convolution has one group per channel.
        groups: Groups of the spatial convolution where it is not depthwise (ResNeXt 32).
        kernel_size: Height and width of the spatial convolution, in pixels; odd, so that padding keeps the size.
        spatial_conv: An own layer in the place of the spatial convolution; `depthwise`, `groups` and `kernel_size` then
            have no effect.
        act: The activation function.
        act_after: The slots (see `SLOTS`) that an activation follows.
        norm: The normalisation, here and everywhere else in the network; with "none" there is nowhere any.
        norm_after: The slots (see `CONV_SLOTS`) that a norm follows. The shortcut's projection always has its own.
        layer_scale: Initial value of a learned scale per channel on the residual branch; None builds no such scale.
        layers_after: Own layers behind convolutions, their norms and activations, in the order in which they stand.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    convs: tuple[str, ...] = field(default=CONV_SLOTS, metadata=LATER)
    shortcut: Shortcut | OwnLayer = field(default="projection", metadata=LATER)
    residual_ratio: int = 4
    hidden_ratio: int = 1
    hidden_of: Literal["stage", "input"] = field(default="stage", metadata=LATER)
    spatial_first: bool = False
    depthwise: bool = False
    groups: int = field(default=1, metadata=LATER)
    kernel_size: int = 3
    spatial_conv: OwnLayer | None = field(default=None, metadata=LATER)
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
        check_choice("block", "shortcut", self.shortcut, get_args(Shortcut), ("shortcut", "projection"))
        if self.spatial_conv is not None:
            check_choice("block", "spatial_conv", self.spatial_conv, (), ("spatial_conv",))
        check_choice("block", "hidden_of", self.hidden_of, ("stage", "input"))
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
        check_choice("block", "act", self.act, get_args(Activation))
        check_choice("block", "norm", self.norm, get_args(Norm))
        _check_slots("block", "act_after", self.act_after, (*self.convs, "add"))
        _check_slots("block", "norm_after", self.norm_after, self.convs)
        for layer in self.layers_after:
            check_choice("block", "layers_after", layer, (), self.convs)
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

    def __repr__(self) -> str:  # what is not ResNet's: tables show the blocks of all stages
        said = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"BlockConfig({', '.join(said)})"

    @property
    def own_layers(self) -> tuple[OwnLayer, ...]:
        """Every layer of a user's own in the block."""
        return tuple(
            layer for layer in (self.shortcut, self.spatial_conv, *self.layers_after) if isinstance(layer, OwnLayer)
        )


BOTTLENECK = BlockConfig()  # ResNet's, where nothing else is said
