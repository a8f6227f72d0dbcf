"""Networks whose blocks differ by stage."""

import json
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from roadmap import build_model, change_blocks, count_macs, count_params
from roadmap.common.errors import UserError
from roadmap.common.fields import hashed_fields
from roadmap.ladder.steps import NET_STEPS
from roadmap.networks.config import BlockConfig, NetConfig, scale_down
from roadmap.networks.convert import under_our_names
from roadmap.networks.families import BASES
from tests.samples import nets

ADAPTER = TypeAdapter(NetConfig)
RESNET = replace(BASES["resnet50"], depths=(1, 1, 1, 1))


def larger_kernels(net: NetConfig, stages: list[int], size: int = 5) -> NetConfig:
    return change_blocks(net, lambda block: replace(block, kernel_size=size), stages)


def test_blocks_change_in_the_stages_that_are_named_and_in_all_without() -> None:
    assert [block.kernel_size for block in larger_kernels(RESNET, [1, -1]).stage_blocks] == [3, 5, 3, 5]
    assert larger_kernels(RESNET, [0, 1, 2, 3]) == replace(RESNET, block=replace(RESNET.block, kernel_size=5))
    with pytest.raises(UserError, match="no stage 4, but 4, from 0 or from -4 up"):
        larger_kernels(RESNET, [4])


@given(net=nets(), stages=st.sets(st.integers(0, 3)))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_equal_networks_are_equal_however_their_blocks_are_said(net: NetConfig, stages: set[int]) -> None:
    chosen = [stage for stage in stages if stage < len(net.depths)]
    other = larger_kernels(net, chosen, 9)
    assert (other == net) == (not chosen)
    back = larger_kernels(other, chosen, net.block.kernel_size)
    assert (back, hash(back), hashed_fields(back)) == (net, hash(net), hashed_fields(net))
    assert ADAPTER.validate_python(json.loads(ADAPTER.dump_json(other))) == other


def test_tables_show_of_a_block_what_is_not_resnets_and_python_reads_it_back() -> None:
    block = replace(RESNET.block, act="gelu", norm_after=("spatial",))
    assert repr(block) == "BlockConfig(act='gelu', norm_after=('spatial',))"
    assert eval(repr(block)) == block


def test_a_step_reaches_every_stage() -> None:
    net = larger_kernels(RESNET, [2])
    assert [block.act for block in NET_STEPS["gelu"](net).stage_blocks] == ["gelu"] * 4
    assert not NET_STEPS["kernel_size"](net, size=7).blocks
    assert [block.kernel_size for block in NET_STEPS["depthwise_conv"](net).stage_blocks] == [3, 3, 5, 3]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"blocks": (BlockConfig(), BlockConfig(act="gelu"))}, ["2 blocks for 4 stages", "one for all of them"]),
        ({"block": BlockConfig(act="gelu")}, ["block is not the first of blocks", "change_blocks(net, lambda"]),
        ({"widths": (6, 8, 8, 8)}, ["groups is 4", "hidden width 6 x 1"]),
    ],
)
def test_blocks_that_do_not_fit_the_stages_are_refused(fields: dict[str, Any], words: list[str]) -> None:
    net = larger_kernels(replace(RESNET, block=replace(RESNET.block, groups=4)), [1])
    with pytest.raises(UserError) as error:
        replace(net, **fields)
    assert [word for word in words if word not in str(error.value)] == []


def test_an_original_block_stands_in_the_stages_that_patchify_leaves() -> None:
    vgg = larger_kernels(BASES["vgg16"], [2, 4])
    net = NET_STEPS["patchify_stem"](vgg)
    assert (len(net.depths), [block.kernel_size for block in net.stage_blocks]) == (3, [5, 3, 5])


def test_a_proxy_divides_each_stages_groups_so_that_they_stay_as_wide() -> None:
    widths = (32, 64, 160, 384)
    net = regnet(widths)
    small = scale_down(net, width_divisor=4, stem_stride=4)
    assert [w // b.groups for w, b in zip(small.widths, small.stage_blocks, strict=True)] == [8, 8, 8, 8]
    assert small.reductions == net.reductions
    odd = scale_down(regnet((24, 56, 152, 368)), width_divisor=4, stem_stride=4)  # 38 channels in 5 groups
    assert [block.groups for block in odd.stage_blocks] == [1, 2, 2, 4]


# A RegNet: groups of eight channels in every stage, and a stem of its own.
STEM = """\
from torch import nn


def conv_stem(in_width, width, stride):
    conv = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
"""


def regnet(widths: tuple[int, ...] = (24, 56, 152, 368), **fields: Any) -> NetConfig:
    block = BlockConfig(residual_ratio=1)
    return NetConfig(
        depths=(1, 1, 4, 7),
        widths=widths,
        strides=(2, 2, 2, 2),
        stem_width=32,
        stem_stride=2,
        blocks=tuple(replace(block, groups=width // 8) for width in widths),
        **fields,
    )


@pytest.mark.usefixtures("own_steps")
def test_a_regnet_costs_and_computes_what_timms_does(tmp_path: Any) -> None:
    from roadmap import own_layer
    from roadmap.networks.own_layers import load_module

    (tmp_path / "my_steps.py").write_text(STEM)
    net = regnet(stem=own_layer("stem", load_module(tmp_path / "my_steps.py").conv_stem))
    torch.manual_seed(0)
    theirs, model = timm.create_model("regnetx_002").eval(), build_model(net).eval()
    assert count_params(net) == sum(p.numel() for p in theirs.parameters())
    assert round(count_macs(net) / 1e6) == 199  # as its authors count
    # timm lists the shortcut's convolution last in a block, and so do we.
    for mine, its in zip(model.state_dict().values(), theirs.state_dict().values(), strict=True):
        mine.copy_(its)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(images), theirs(images), rtol=1e-4, atol=1e-5)
    found = under_our_names(theirs.state_dict(), net)
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
