import dataclasses
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from roadmap.common.errors import UserError
from roadmap.common.fields import diff, flatten, hashed_fields
from roadmap.ladder.steps import ALL_STEPS
from roadmap.networks.config import BlockConfig, NetConfig, scale_down
from roadmap.networks.families import BASES, convnext

BARE = BASES["vgg16"].block
ONE_CONV = partial(replace, BARE)


def net(**fields: Any) -> NetConfig:
    return NetConfig(**{"depths": (1, 1, 1, 1)} | fields)


@pytest.mark.parametrize(
    ("build", "fields", "words"),
    [
        # What it builds, with which fields, and what the refusal says: the field, the value, the rule, the way out.
        (BlockConfig, {"residual_ratio": 0}, ["residual_ratio is 0", "at least 1"]),
        (BlockConfig, {"hidden_ratio": -4}, ["hidden_ratio is -4", "at least 1"]),
        (BlockConfig, {"hidden_ratio": 0.5}, ["hidden_ratio is 0.5", "whole number"]),
        (BlockConfig, {"kernel_size": "7"}, ["kernel_size is '7'", "whole number"]),
        (BlockConfig, {"kernel_size": 6}, ["kernel_size is 6", "must be odd", "Use 5 or 7"]),
        (BlockConfig, {"spatial_first": True}, ["spatial_first", "depthwise=False", "'depthwise_conv' first"]),
        (BlockConfig, {"act": "rleu"}, ["unknown act 'rleu'", "Did you mean 'relu'?", "Known: relu, relu6, gelu"]),
        (BlockConfig, {"norm": "layernorm"}, ["unknown norm 'layernorm'", "Did you mean 'layer_norm'?"]),
        (BlockConfig, {"act_after": ("spacial",)}, ["unknown act_after 'spacial'", "Did you mean 'spatial'?"]),
        (BlockConfig, {"norm_after": ("add",)}, ["unknown norm_after 'add'", "Known: pointwise1, spatial, pointwise2"]),
        (BlockConfig, {"act_after": ("add", "spatial")}, ["act_after is ('add', 'spatial')", "in the order"]),
        (BlockConfig, {"norm_after": ("spatial", "spatial")}, ["norm_after is", "once each"]),
        (BlockConfig, {"act_after": ["spatial"]}, ["act_after is ['spatial']", "must be a tuple"]),
        (BlockConfig, {"act_after": "add"}, ["act_after is 'add'", "must be a tuple"]),
        (net, {"depths": ()}, ["depths is ()", "at least 1", "one a stage"]),
        (net, {"depths": (3, 0, 3, 3)}, ["depths is (3, 0, 3, 3)", "at least 1"]),
        (net, {"depths": [3, 3, 9, 3]}, ["depths is [3, 3, 9, 3]", "one a stage"]),
        (net, {"widths": (64, 128, 256, 51.2)}, ["widths is (64, 128, 256, 51.2)", "whole numbers"]),
        (net, {"depths": (3, 3, 3)}, ["3 depths (3, 3, 3)", "4 widths", "one of each per stage"]),
        (
            net,
            {"stem": "patch"},
            ["unknown stem 'patch'", "Did you mean 'patchify'?", "Known: none, resnet, mobilenet, patchify"],
        ),
        (net, {"downsample": "seperate"}, ["unknown downsample 'seperate'", "Did you mean 'separate'?"]),
        (net, {"stem_stride": 3}, ["stem_stride is 3", "with stem 'resnet' must be 2 or 4"]),
        (net, {"stem": "none"}, ["stem_stride is 4", "with stem 'none' must be 1"]),
        (net, {"stem_width": -1}, ["stem_width is -1", "from 0 up"]),
        (net, {"strides": (1, 2)}, ["strides is (1, 2)", "one for each of 4 stages"]),
        (net, {"strides": (1, 3, 2, 2)}, ["strides is (1, 3, 2, 2)", "1, 2 or 4"]),
        (net, {"final_norm": True, "block": BARE}, ["final_norm", "norm='none'", "'batch_norm' first"]),
        (BlockConfig, {"norm": "none"}, ["norm_after is", "norm='none'", "'batch_norm' first"]),
        (BlockConfig, {"shortcut": "none"}, ["act_after has 'add'", "shortcut='none'", "'shortcuts' first"]),
        (BlockConfig, {"shortcut": "projecton"}, ["unknown shortcut 'projecton'", "Did you mean 'projection'?"]),
        (BlockConfig, {"convs": ("pointwise1",)}, ["convs is ('pointwise1',)", "must be"]),
        (ONE_CONV, {"depthwise": True}, ["depthwise is True", "dense", "'bottleneck' first"]),
        (ONE_CONV, {"hidden_ratio": 4}, ["hidden_ratio 4", "nothing hidden"]),
        (ONE_CONV, {"norm_after": ("pointwise1",)}, ["unknown norm_after 'pointwise1'", "Known: spatial"]),
        (net, {"boundary_norms": True}, ["boundary_norms", "downsample='in_block'", "'separate_downsampling' first"]),
    ],
)
def test_what_cannot_be_built_is_refused_with_rule_value_and_way_out(
    build: Callable[..., Any], fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        build(**fields)
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("build", "fields"),
    [
        (BlockConfig, {"spatial_first": True}),
        (BlockConfig, {"norm": "none"}),
        (BlockConfig, {"shortcut": "none"}),
        (ONE_CONV, {"depthwise": True}),
        (net, {"boundary_norms": True}),
        (net, {"final_norm": True, "block": BARE}),
    ],
)
def test_a_step_that_a_refusal_sends_to_exists(build: Callable[..., Any], fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Put the step") as error:
        build(**fields)
    assert str(error.value).split("'")[-2] in ALL_STEPS


def test_a_config_cannot_be_changed_in_place() -> None:
    for config in (BASES["resnet50"], BASES["resnet50"].block):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.__setattr__(dataclasses.fields(config)[0].name, 1)


def test_equal_networks_are_equal_and_hash_alike_however_they_came_about() -> None:
    one = replace(BASES["resnet50"], depths=(3, 24, 36, 3))
    assert one == BASES["resnet200"]
    assert hash(one) == hash(BASES["resnet200"])
    assert one != BASES["resnet50"]


def test_flatten_names_every_field_and_diff_those_that_changed() -> None:
    before = BASES["resnet50"]
    after = replace(before, stem="patchify", block=replace(before.block, act="gelu"))
    assert diff(before, after) == {"stem": ("resnet", "patchify"), "block.act": ("relu", "gelu")}
    assert diff(before, before) == {}
    fields = {f.name for f in dataclasses.fields(NetConfig)} - {"block"}
    assert set(flatten(before)) == fields | {f"block.{f.name}" for f in dataclasses.fields(BlockConfig)}


def test_scaling_down_divides_all_widths_and_sets_the_stem_stride_and_nothing_else() -> None:
    before = convnext("tiny")
    after = scale_down(before, width_divisor=8, stem_stride=2)
    assert diff(before, after) == {"widths": (before.widths, (12, 24, 48, 96)), "stem_stride": (4, 2)}
    assert scale_down(before, width_divisor=1, stem_stride=4) == before


@pytest.mark.parametrize(
    ("widths", "divisor", "scaled"),
    [((84, 168, 336, 672), 8, (11, 21, 42, 84)), ((12, 20, 10, 11), 8, (2, 3, 1, 1)), ((1, 2, 4, 8), 16, (1, 1, 1, 1))],
)
def test_scaling_down_rounds_halves_up_and_leaves_at_least_one_channel(
    widths: tuple[int, ...], divisor: int, scaled: tuple[int, ...]
) -> None:
    assert scale_down(net(widths=widths), width_divisor=divisor, stem_stride=4).widths == scaled


@pytest.mark.parametrize(("stem_stride", "stages", "total"), [(4, 4, 32), (2, 4, 16), (4, 1, 4)])
def test_total_stride_doubles_with_every_stage_after_the_stem(stem_stride: int, stages: int, total: int) -> None:
    assert NetConfig(depths=(1,) * stages, widths=(8,) * stages, stem_stride=stem_stride).total_stride == total


def test_strides_that_are_the_usual_ones_are_the_same_network_as_none_said() -> None:
    assert net(strides=(1, 2, 2, 2)) == net()
    assert net(strides=(2, 2, 2, 2)).reductions == (8, 16, 32, 64)


def test_what_a_config_says_for_an_id_leaves_out_what_came_later_where_it_is_not_used() -> None:
    said = hashed_fields(BASES["resnet50"])
    assert not {"strides", "stem_width", "head_width"} & set(said)
    assert not {"convs", "shortcut", "hidden_of"} & set(said["block"])
    mobile = hashed_fields(BASES["mobilenet_v2"])
    assert (mobile["strides"], mobile["head_width"], mobile["block"]["hidden_of"]) == (
        (2, 2, 2, 1, 2, 1),
        1280,
        "input",
    )


@pytest.mark.parametrize(
    ("base", "stride", "scaled"), [("vgg16", 2, 1), ("mobilenet_v2", 4, 2), ("mobilenet_v2", 2, 1)]
)
def test_other_stems_scale_their_stride_in_proportion_as_far_as_they_can(base: str, stride: int, scaled: int) -> None:
    small = scale_down(BASES[base], width_divisor=8, stem_stride=stride)
    assert small.stem_stride == scaled
    assert (small.stem_width, small.head_width) == ((2, 160) if base == "mobilenet_v2" else (0, 0))


def test_an_unknown_convnext_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"unknown ConvNeXt size 'tini'. Did you mean 'tiny'\? Known: tiny, small, base"
    ):
        convnext("tini")
