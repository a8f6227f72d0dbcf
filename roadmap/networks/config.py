"""A network as it is, not the path that led there: `NetConfig`, frozen and validated.

Every rung of the paper's ladders and of those from VGG-16 and MobileNetV2, the ConvNeXt family and all legal mixes in
between are values of this class and of `BlockConfig`. Nothing here imports torch: `roadmap.networks.model` builds it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul
from typing import Any, ClassVar, Literal, NoReturn, Self, cast, get_args

from roadmap.common.errors import UserError
from roadmap.common.fields import LATER, flatten
from roadmap.networks.block_config import BOTTLENECK, OwnLayer, check_choice
from roadmap.networks.block_config import STRICT as STRICT  # a network and its blocks are imported from here
from roadmap.networks.block_config import BlockConfig as BlockConfig

Stem = Literal["none", "resnet", "mobilenet", "patchify"]
Downsampling = Literal["max_pool", "in_block", "separate"]
Init = Literal["trunc_normal", "kaiming", "pytorch"]  # how weights are first drawn; `Recipe.init` says what each is

# The strides that each stem can have; an own one has any.
STEM_STRIDES: dict[str, tuple[int, ...]] = {
    "none": (1,),
    "resnet": (2, 4),
    "mobilenet": (1, 2),
    "patchify": (2, 4, 8, 16),
}

# The scale of the paper, as `scaled` of every network takes it.
FULL = {"width_divisor": 1, "stem_stride": 4, "image_size": 224}


@dataclass(frozen=True)
class NetConfig:
    """A network of stages of blocks behind a stem, in front of a pooled linear head.

    Attributes:
        depths: Blocks per stage.
        widths: Stage widths in channels; what a block makes of them is up to its two ratios.
        strides: By how much each stage divides the resolution; empty is 1 for the first stage and 2 for each other.
        stem: "resnet" (7x7 convolution, norm, activation, 3x3 max pool), "patchify" (one convolution whose kernel is
            its stride), "mobilenet" (a strided 3x3 convolution to twice the stem's width, a depthwise 3x3, both with
            norm and activation, and a 1x1 with a norm: what stands before MobileNetV2's first expansion), "none", or
            an own layer.
        stem_width: Channels that leave the stem; 0 is as many as the first stage's width.
        stem_stride: Pixels of the image per pixel that leaves the stem, in one direction; 4 in the paper, less for
            small images.
        downsample: What carries a stage's stride: "in_block" (its first spatial convolution), "separate" (norm and
            convolution whose kernel is the stride, before its blocks), "max_pool" (before its blocks), or an own layer
            in the place of that separate convolution.
        boundary_norms: Whether norms stand where the resolution changes: after the stem, before each separate
            downsampling convolution.
        pool: How the last stage's output is pooled: the mean over all positions ("avg"), or an own layer.
        final_norm: Whether a norm stands between the pool and the head.
        head_width: Outputs of a 1x1 convolution with norm and activation before the pool (MobileNetV2); 0 has none.
        head: What maps the pooled features to classes: one "linear" layer, or an own layer.
        block: The block that all stages are made of. Its norm and activation are also those outside of blocks.
        blocks: The block of each stage, where they differ; `block` is then the first of them. Empty where all stages
            have `block`. `change_blocks` changes those of some or all stages.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = field(default=(), metadata=LATER)
    stem: Stem | OwnLayer = "resnet"
    stem_width: int = field(default=0, metadata=LATER)
    stem_stride: int = 4
    downsample: Downsampling | OwnLayer = "in_block"
    boundary_norms: bool = False
    pool: Literal["avg"] | OwnLayer = field(default="avg", metadata=LATER)
    final_norm: bool = False
    head_width: int = field(default=0, metadata=LATER)
    head: Literal["linear"] | OwnLayer = field(default="linear", metadata=LATER)
    block: BlockConfig = BOTTLENECK
    blocks: tuple[BlockConfig, ...] = field(default=(), metadata=LATER)

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
        check_choice("network", "stem", self.stem, get_args(Stem), ("stem",))
        check_choice("network", "downsample", self.downsample, get_args(Downsampling), ("downsample",))
        check_choice("network", "pool", self.pool, ("avg",), ("pool",))
        check_choice("network", "head", self.head, ("linear",), ("head",))
        self._check_stem_stride()
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
        self._settle_blocks()
        for width, block in zip(self.widths, self.stage_blocks, strict=True):
            if width * block.hidden_ratio % block.groups:
                raise UserError(
                    f"network: groups is {block.groups}, but must divide the hidden width {width} x "
                    f"{block.hidden_ratio} of every stage."
                )
        if self.final_norm and self.block.norm == "none":
            raise UserError("network: final_norm is set with norm='none'. Put the step 'batch_norm' first.")
        if self.boundary_norms and self.downsample in ("in_block", "max_pool"):
            raise UserError(
                f"network: boundary_norms is set with downsample='{self.downsample}', but those norms belong to "
                "separate downsampling layers. Put the step 'separate_downsampling' first."
            )

    def _check_stem_stride(self) -> None:
        if isinstance(self.stem, OwnLayer):
            if not isinstance(self.stem_stride, int) or self.stem_stride < 1:
                raise UserError(f"network: stem_stride is {self.stem_stride!r}, but must be a whole number from 1 up.")
        elif self.stem_stride not in STEM_STRIDES[self.stem]:
            known = " or ".join(map(str, STEM_STRIDES[self.stem]))
            raise UserError(f"network: stem_stride is {self.stem_stride}, but with stem '{self.stem}' must be {known}.")

    def _settle_blocks(self) -> None:
        """Have one way to say which blocks the stages have, so that equal networks are equal."""
        if not self.blocks:
            return
        if len(self.blocks) != len(self.depths):
            raise UserError(
                f"network: there are {len(self.blocks)} blocks for {len(self.depths)} stages. Give one a stage, or "
                "one for all of them: blocks=(), block=..."
            )
        if self.block not in (self.blocks[0], BOTTLENECK):
            raise UserError(
                "network: block is not the first of blocks, so it is not clear which of them the stages should have. "
                "Change them with change_blocks(net, lambda block: replace(block, ...)), which reaches every stage."
            )
        object.__setattr__(self, "block", self.blocks[0])
        if len(set(self.blocks)) == 1:
            object.__setattr__(self, "blocks", ())

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """By how much each stage divides the resolution."""
        return self.strides or _usual_strides(len(self.depths))

    @property
    def stage_blocks(self) -> tuple[BlockConfig, ...]:
        """The block of each stage."""
        return self.blocks or (self.block,) * len(self.depths)

    @property
    def own_layers(self) -> tuple[OwnLayer, ...]:
        """Every layer of a user's own in the network, once each."""
        parts = (self.stem, self.downsample, self.pool, self.head)
        layers = [layer for layer in parts if isinstance(layer, OwnLayer)]
        return tuple(dict.fromkeys([*layers, *(layer for block in self.stage_blocks for layer in block.own_layers)]))

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

    def tiny(self, image_size: int) -> "NetConfig":
        """Return a network that is tried in a second: a sixteenth of the width, two blocks a stage."""
        shallow = replace(self, depths=tuple(min(depth, 2) for depth in self.depths))
        return scale_down(shallow, width_divisor=16, stem_stride=2)

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

    @property
    def has_stochastic_depth(self) -> bool:
        """Whether a recipe's stochastic depth means anything to it."""
        return True

    def set_args(self, args: object, proxy: object = ()) -> NoReturn:
        """Refuse arguments.

        Raises:
            UserError: Always.
        """
        raise UserError("set_args: the network is one of ours, which has fields and no arguments. Use a step on them.")

    @property
    def code(self) -> tuple[tuple[str, str, str], ...]:
        """What it has from a user's files: a name for errors, the file and the hash of its content, each."""
        return tuple((f"layer '{layer.name}'", layer.path, layer.fingerprint) for layer in self.own_layers)


def _usual_strides(stages: int) -> tuple[int, ...]:
    return (1,) + (2,) * (stages - 1)


def change_blocks(
    net: NetConfig, change: Callable[[BlockConfig], BlockConfig], stages: Sequence[int] | None = None
) -> NetConfig:
    """Return a network whose blocks are changed, in all stages or in some.

    Args:
        net: The network.
        change: What becomes of a block, such as `lambda block: replace(block, kernel_size=7)`.
        stages: The stages, from 0, or from the end if negative; all without.

    Raises:
        UserError: If there is no such stage, or a block cannot be built.
    """
    count = len(net.depths)
    if strange := [stage for stage in stages or () if not -count <= stage < count]:
        raise UserError(f"change_blocks: no stage {strange[0]}, but {count}, from 0 or from -{count} up.")
    chosen = range(count) if stages is None else {stage % count for stage in stages}
    blocks = tuple(change(block) if i in chosen else block for i, block in enumerate(net.stage_blocks))
    return replace(net, block=blocks[0], blocks=blocks)


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
    Groups are divided too, so that they are as wide as they were; there are as many as divide the widths of
    all stages that have the same block.
    `stem_stride` is what becomes of the paper's 4; other stems' strides change with it, as far as they can.
    """
    widths = tuple(narrow(width, width_divisor) for width in net.widths)

    def narrowed(block: BlockConfig, widths: Sequence[int]) -> BlockConfig:
        most = narrow(block.groups, width_divisor)
        fitting = (n for n in range(most, 0, -1) if not any(width * block.hidden_ratio % n for width in widths))
        return replace(block, groups=next(fitting))

    blocks = tuple(narrowed(block, [width]) for block, width in zip(net.blocks, widths, strict=False))  # or none
    least = 1 if isinstance(net.stem, OwnLayer) else STEM_STRIDES[net.stem][0]
    return replace(
        net,
        widths=widths,
        stem_width=narrow(net.stem_width, width_divisor),
        head_width=narrow(net.head_width, width_divisor),
        stem_stride=max(least, net.stem_stride * stem_stride // 4),
        block=blocks[0] if blocks else narrowed(net.block, widths),
        blocks=blocks,
    )
