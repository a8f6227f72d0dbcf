"""The paper's design steps on the network, one pure function each, under the paper's headings.

A step maps a `NetConfig` to the next one; those on the recipe are in `roadmap.ladder.recipe_steps`. A step has one
idea, never looks at where the ladder started (what differs between bases comes in as an argument from steps.yaml), and
says its source. Multiply-adds are those of ResNet-50's ladder, in 1e9, at 224x224.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from roadmap.common.errors import UserError
from roadmap.ladder.library_steps import model, set_args
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.networks.config import CONV_SLOTS, NetConfig, with_width

NetStep = Callable[..., Any]  # from a network to the next one


class NeedsStep(UserError):
    """A step is out of order.

    Attributes:
        step: The step.
        needs: The step that has to come before it.
    """

    def __init__(self, step: str, needs: str, why: str) -> None:
        super().__init__(f"step '{step}' needs the step '{needs}' before it: {why}. Put '{needs}' first.")
        self.step, self.needs = step, needs


def require(met: bool, step: str, needs: str, why: str) -> None:
    """Refuse a step that is out of order, naming the step to put first.

    Raises:
        NeedsStep: If what the step needs is not met.
    """
    if not met:
        raise NeedsStep(step, needs, why)


def _require_bottleneck(net: NetConfig, step: str, why: str) -> None:
    require(net.block.convs == CONV_SLOTS, step, "bottleneck", why)


def _require_norms(net: NetConfig, step: str) -> None:
    require(net.block.norm != "none", step, "batch_norm", "there are no norms")


# From other starts to what a ResNet is


def batch_norm(net: NetConfig) -> NetConfig:
    """Put BatchNorm after every convolution of a block that has no norms, or in place of another norm.

    Source: Ioffe and Szegedy 2015, "Batch Normalization"; where it stands, torchvision's vgg16_bn.
    """
    norm_after = net.block.convs if net.block.norm == "none" else net.block.norm_after
    return replace(net, block=replace(net.block, norm="batch_norm", norm_after=norm_after))


def shortcuts(net: NetConfig) -> NetConfig:
    """Add the input of every block to its output; where the shape changes, through a 1x1 convolution with a norm.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", option B.
    """
    return replace(net, block=replace(net.block, shortcut="projection"))


def strided_convs(net: NetConfig) -> NetConfig:
    """Downsample by the first spatial convolution of a stage, which gets its stride, and not by max pooling.

    Source: Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional Net".
    """
    return replace(net, downsample="in_block")


def bottleneck(net: NetConfig) -> NetConfig:
    """Make each block ResNet's bottleneck: 1x1 down to a quarter of the stream, spatial, 1x1 up. Stages keep widths.

    Where there were no 1x1 convolutions, norms follow all three and activations the first two and the addition.
    Source: He et al. 2016, Figure 5.
    """
    require(net.block.shortcut != "none", "bottleneck", "shortcuts", "the block ends with adding the shortcut")
    block = replace(net.block, convs=CONV_SLOTS, residual_ratio=4, hidden_ratio=1, hidden_of="stage")
    if net.block.convs != CONV_SLOTS:
        norm_after = () if net.block.norm == "none" else CONV_SLOTS
        block = replace(block, act_after=("pointwise1", "spatial", "add"), norm_after=norm_after)
    return replace(net, block=block)


def drop_head_conv(net: NetConfig) -> NetConfig:
    """Pool and classify the last stage itself, without MobileNetV2's wide 1x1 convolution before the pool.

    Source: none of ResNet (He et al. 2016) and ConvNeXt has it; MobileNetV2's is the last but one row of its Table 2.
    """
    return replace(net, head_width=0)


# Macro design


def stage_ratio(net: NetConfig, *, blocks: Sequence[int], width: int | None = None) -> NetConfig:
    """Distribute the blocks over the stages as Swin does, 1:1:3:1; ResNet-200 also gets wider. 4.09 -> 4.53.

    Where the base has another number of stages, they become as many as there are `blocks`, each twice as wide as the
    one before and at half of its resolution.
    Source: section 2.2, "Changing stage compute ratio"; the width in Table 11.
    """
    if len(blocks) != len(net.depths):  # the stages of the base do not fit: the usual ones, each twice as wide
        first = net.widths[0] if width is None else width
        widths = tuple(first * 2**i for i in range(len(blocks)))
        strides = (net.stage_strides[0],) + (2,) * (len(blocks) - 1)
        return replace(net, depths=tuple(blocks), widths=widths, strides=strides)
    net = replace(net, depths=tuple(blocks))
    return net if width is None else with_width(net, width)


def patchify_stem(net: NetConfig) -> NetConfig:
    """Replace the stem by one convolution whose kernel is its stride, without norm, activation or pool. 4.53 -> 4.42.

    Its stride is 4; stages that work at a finer resolution than that (VGG's first two) go with the old stem.
    Source: section 2.2, "Changing stem to 'Patchify'".
    """
    fine = min(sum(reduction < 4 for reduction in net.reductions), len(net.depths) - 1)
    strides = (max(1, net.reductions[fine] // 4), *net.stage_strides[fine + 1 :])
    depths, widths = net.depths[fine:], net.widths[fine:]
    return replace(net, stem="patchify", stem_width=0, stem_stride=4, depths=depths, widths=widths, strides=strides)


# ResNeXt


def depthwise_conv(net: NetConfig) -> NetConfig:
    """Give the spatial convolution one group per channel. 4.42 -> 2.35, and accuracy falls until the width makes up.

    Source: section 2.3.
    """
    _require_bottleneck(net, "depthwise_conv", "a depthwise convolution alone never mixes channels")
    return replace(net, block=replace(net.block, depthwise=True))


def increase_width(net: NetConfig, *, width: int) -> NetConfig:
    """Widen all stages in proportion, so that the first has `width` channels, as in Swin. 2.35 -> 5.27.

    Source: section 2.3.
    """
    return with_width(net, width)


# Inverted bottleneck


def inverted_bottleneck(net: NetConfig) -> NetConfig:
    """Make the hidden width four times the stream's, not a quarter of it. 5.27 -> 4.64.

    Source: section 2.4; block (b) of Figure 3.
    """
    _require_bottleneck(net, "inverted_bottleneck", "a block of one convolution has no hidden width")
    return replace(net, block=replace(net.block, residual_ratio=1, hidden_ratio=4, hidden_of="stage"))


# Large kernel


def move_up_depthwise(net: NetConfig) -> NetConfig:
    """Put the depthwise convolution before the two 1x1 convolutions, on the narrow stream. 4.64 -> 4.07.

    Source: section 2.5; block (c) of Figure 3.
    """
    require(net.block.depthwise, "move_up_depthwise", "depthwise_conv", "there is no depthwise convolution to move")
    return replace(net, block=replace(net.block, spatial_first=True))


def kernel_size(net: NetConfig, *, size: int) -> NetConfig:
    """Set the spatial convolution's kernel. From 3 to 7: 4.07 -> 4.15.

    Source: section 2.5; 7 is adopted, larger ones bring no more.
    """
    return replace(net, block=replace(net.block, kernel_size=size))


# Micro design


def gelu(net: NetConfig) -> NetConfig:
    """Use GELU for every ReLU. Costs no multiply-adds.

    Source: section 2.6, "Replacing ReLU with GELU".
    """
    return replace(net, block=replace(net.block, act="gelu"))


def fewer_activations(net: NetConfig) -> NetConfig:
    """Keep only the activation between the two 1x1 convolutions. Costs no multiply-adds.

    Source: section 2.6, "Fewer activation functions".
    """
    _require_bottleneck(net, "fewer_activations", "a block of one convolution has no two 1x1 ones")
    return replace(net, block=replace(net.block, act_after=("pointwise1",)))


def fewer_norms(net: NetConfig) -> NetConfig:
    """Keep only the norm after the spatial convolution, beside the shortcut's. Costs no multiply-adds.

    Source: section 2.6, "Fewer normalization layers".
    """
    _require_norms(net, "fewer_norms")
    return replace(net, block=replace(net.block, norm_after=("spatial",)))


def layer_norm(net: NetConfig) -> NetConfig:
    """Use LayerNorm over channels for BatchNorm; convolutions in blocks get the biases that BatchNorm made idle.

    Source: section 2.6, "Substituting BN with LN".
    """
    _require_norms(net, "layer_norm")
    return replace(net, block=replace(net.block, norm="layer_norm"))


def separate_downsampling(net: NetConfig, *, norms: bool = True) -> NetConfig:
    """Downsample between stages by a 2x2 convolution of stride 2, with norms where the resolution changes. -> 4.456.

    With `norms=False` the three extra norms stay out: the paper's training diverged without them.
    Source: section 2.6, "Separate downsampling layers".
    """
    if norms:
        _require_norms(net, "separate_downsampling")
    return replace(net, downsample="separate", boundary_norms=norms, final_norm=norms)


# Every step that steps.yaml can name.
NET_STEPS: dict[str, NetStep] = {
    step.__name__: step
    for step in (
        batch_norm,
        shortcuts,
        strided_convs,
        bottleneck,
        drop_head_conv,
        stage_ratio,
        patchify_stem,
        depthwise_conv,
        increase_width,
        inverted_bottleneck,
        move_up_depthwise,
        kernel_size,
        gelu,
        fewer_activations,
        fewer_norms,
        layer_norm,
        separate_downsampling,
        set_args,
        model,
    )
}
ALL_STEPS: dict[str, Callable[..., Any]] = {**RECIPE_STEPS, **NET_STEPS}
