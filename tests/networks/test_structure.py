"""State dicts under names that nobody told us, as the ladder's networks of other code bases have them."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from roadmap import build_model, read_ladder
from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig, scale_down
from roadmap.networks.convert import under_our_names
from roadmap.networks.families import convnext
from tests.networks.test_convert import random_weights

RUNGS = {rung.id: rung.net for rung in read_ladder().climb("resnet50")}
Rename = Callable[[str, NetConfig], str]


def small(net: NetConfig) -> NetConfig:
    return replace(scale_down(net, width_divisor=16, stem_stride=4), depths=(1, 2, 3, 1))


def weights_of(net: NetConfig) -> dict[str, Tensor]:
    return random_weights(build_model(net, num_classes=7, in_channels=1).state_dict())


def in_lists(name: str, net: NetConfig) -> str:
    """Return the name in a code base that keeps a block's convolutions in one list and its norms in another."""
    order = ("spatial", "pointwise1", "pointwise2") if net.block.spatial_first else net.block.convs
    normed = [slot for slot in order if slot in net.block.norm_after]
    name = re.sub(r"residual\.(\w+)_norm", lambda found: f"norms.{normed.index(found[1])}", name)
    name = re.sub(r"residual\.(\w+\d|spatial)", lambda found: f"convs.{order.index(found[1])}", name)
    name = name.replace("residual.layer_scale.gamma", "gamma").replace("shortcut.conv", "shortcut.0")
    name = name.replace("shortcut.norm", "shortcut.1").replace("stem.conv", "downsample_layers.0.0")
    name = name.replace("stem.norm", "downsample_layers.0.1")
    name = re.sub(r"stages\.(\d)\.downsample\.norm", r"downsample_layers.\1.0", name)
    return re.sub(r"stages\.(\d)\.downsample\.conv", r"downsample_layers.\1.1", name)


def as_in_torchvision(name: str, net: NetConfig) -> str:
    """Return the name in a code base that grew from torchvision's ResNet: numbered layers, convolutions and norms."""
    name = re.sub(r"stages\.(\d)\.(\d)", lambda found: f"layer{int(found[1]) + 1}.{found[2]}", in_lists(name, net))
    name = re.sub(r"convs\.(\d)", lambda found: f"conv{int(found[1]) + 1}", name)
    return re.sub(r"norms\.(\d)", lambda found: f"bn{int(found[1]) + 1}", name)


def in_one_row(name: str, net: NetConfig) -> str:
    """Return the name in a code base that numbers all blocks in one row."""

    def number(found: re.Match[str]) -> str:
        return f"blocks.{sum(net.depths[: int(found[1])]) + int(found[2])}."

    return re.sub(r"stages\.(\d)\.(\d)\.", number, in_lists(name, net))


def renamed(weights: dict[str, Tensor], rename: Rename, net: NetConfig) -> dict[str, Tensor]:
    """Return weights under other names, in another order; 1x1 convolutions of ConvNeXts are linear layers."""
    linear = net.downsample == "separate"
    theirs = {
        rename(name, net): tensor.flatten(1) if linear and tensor.shape[2:] == (1, 1) else tensor
        for name, tensor in weights.items()
    }
    return {name: theirs[name] for name in sorted(theirs)}


@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_is_matched_under_names_of_others(rung: str) -> None:
    net = small(RUNGS[rung])
    weights = weights_of(net)
    for rename in (in_lists, as_in_torchvision, in_one_row):
        found = under_our_names(renamed(weights, rename, net), net)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_files_without_counts_of_batches_are_matched() -> None:
    net = small(RUNGS["inverted_bottleneck"])
    theirs = renamed(weights_of(net), in_lists, net)
    old = {name: tensor for name, tensor in theirs.items() if not name.endswith("num_batches_tracked")}
    assert under_our_names(old, net).keys() == weights_of(net).keys()


def test_a_layer_scale_that_the_rung_lacks_is_multiplied_into_the_convolution_before_it() -> None:
    scaled, plain = small(convnext("tiny", layer_scale=1.0)), small(convnext("tiny", layer_scale=None))
    weights = weights_of(scaled)
    found = under_our_names(renamed(weights, in_lists, scaled), plain)
    scale, before = (weights[f"stages.0.0.residual.{name}"] for name in ("layer_scale.gamma", "pointwise2.weight"))
    torch.testing.assert_close(found["stages.0.0.residual.pointwise2.weight"], scale[:, None, None, None] * before)


def test_norms_that_could_be_either_are_not_guessed() -> None:
    net = small(RUNGS["stage_ratio"])

    def without_numbers(name: str, net: NetConfig) -> str:
        name = in_lists(name, net).replace("norms.0", "one").replace("norms.1", "other")
        return name.replace("norms.2", "third")

    with pytest.raises(UserError) as refusal:
        under_our_names(renamed(weights_of(net), without_numbers, net), net, "there.pth")
    expected = "there.pth: our 'residual.pointwise1_norm', 'residual.spatial_norm' could each be several of theirs, "
    assert str(refusal.value).startswith(f"{expected}such as 'one', 'other'")


def test_the_weights_of_another_rung_are_refused_with_the_first_names_that_do_not_fit() -> None:
    net, other = small(RUNGS["kernel_7"]), small(RUNGS["kernel_5"])
    with pytest.raises(UserError) as refusal:
        under_our_names(renamed(weights_of(other), in_lists, other), net, "there.pth")
    expected = (
        "there.pth: of another network: of ours, nothing fits 'residual.spatial'; of theirs, 'convs.0' fit nothing"
    )
    assert str(refusal.value).startswith(expected)


def test_blocks_of_other_depths_are_refused() -> None:
    net = small(RUNGS["kernel_7"])
    deeper = replace(net, depths=(1, 2, 4, 1))
    with pytest.raises(UserError, match=r"no tensors are numbered like the blocks of this network, 1 \+ 2 \+ 3 \+ 1"):
        under_our_names(renamed(weights_of(deeper), in_lists, deeper), net)
