import inspect
import re
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadmap.common.errors import UserError
from roadmap.common.fields import diff
from roadmap.ladder import library_steps, recipe_steps, steps
from roadmap.ladder.conformance import Inspector, Trial, trials
from roadmap.ladder.steps import (
    ALL_STEPS,
    NET_STEPS,
    RECIPE_STEPS,
    NeedsStep,
    increase_width,
    kernel_size,
    move_up_depthwise,
    stage_ratio,
)
from roadmap.networks.config import NetConfig
from roadmap.networks.families import BASES, convnext
from roadmap.recipe import Recipe, read_recipe
from tests.samples import FIELD_STEPS, LADDERS, PAPER, arguments_of

# Those of the harness; ladders bring others in, from files of their own.
OURS = {name: step for name, step in ALL_STEPS.items() if step.__module__.startswith("roadmap.")}
NO_STEPS = ("require", "take_step", "kinds_of", "read_net")
ADOPTED = [entry for entry in PAPER.rungs if entry.adopted and entry.step in NET_STEPS]


PLAIN = read_recipe("imagenet_original")
TARGET = read_recipe("imagenet")


def take(step: str, start: NetConfig | Recipe, arguments: dict[str, Any]) -> Any:
    """Apply a step of either kind."""
    extra = {"target": TARGET} if step in RECIPE_STEPS else {}
    return ALL_STEPS[step](start, **extra, **arguments)


TRIALS = {
    (trial.step, str(trial.arguments), str(trial.before)): pytest.param(trial, id=f"{trial.base}-{trial.rung.id}")
    for ladder in LADDERS.values()
    for base in ladder.bases
    for trial in trials(ladder, base, TARGET)
}


@pytest.mark.parametrize("trial", TRIALS.values())
def test_a_step_keeps_what_every_step_must(trial: Trial) -> None:
    assert Inspector().inspect(trial).problems == {}


@pytest.mark.parametrize("step", OURS)
def test_a_step_says_what_it_does_and_its_source(step: str) -> None:
    text = inspect.getdoc(ALL_STEPS[step])
    assert text
    assert text.splitlines()[0].endswith(".")
    assert any(line.startswith("Source: ") and len(line) > len("Source: ") + 5 for line in text.splitlines())


@pytest.mark.parametrize("step", FIELD_STEPS | RECIPE_STEPS)
def test_a_step_is_used_by_a_ladder(step: str) -> None:
    assert step in {entry.step for ladder in LADDERS.values() for entry in ladder.rungs}


def test_every_public_function_of_the_module_is_a_step_under_its_own_name() -> None:
    public = {
        name: function
        for module in (steps, library_steps, recipe_steps)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_") and name not in NO_STEPS
    }
    assert public == OURS


@pytest.mark.parametrize("step", OURS)
def test_arguments_of_a_step_are_keywords_with_types(step: str) -> None:
    first, *others = inspect.signature(ALL_STEPS[step]).parameters.values()
    assert first.name == ("recipe" if step in RECIPE_STEPS else "net")
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY and p.annotation is not p.empty for p in others)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("step", FIELD_STEPS)
def test_a_step_out_of_order_names_the_step_to_put_first(step: str, base: str) -> None:
    said = refusal(step, BASES[base], base)
    if said:
        with pytest.raises(NeedsStep, match=re.escape(said)) as caught:
            take(step, BASES[base], arguments_of(step, base))
        assert f"step '{step}' needs the step '{caught.value.needs}' before it" in said
        net = BASES[base]
        for _ in FIELD_STEPS:  # what comes first may need another before it
            needed = step
            while first := need(needed, net, base):
                needed = first
            if needed == step:
                break
            net = take(needed, net, arguments_of(needed, base))
        assert not refusal(step, net, base)


def need(step: str, net: NetConfig, base: str) -> str:
    try:
        take(step, net, arguments_of(step, base))
    except NeedsStep as error:
        return error.needs
    return ""


def refusal(step: str, start: NetConfig, base: str) -> str:
    try:
        take(step, start, arguments_of(step, base))
    except UserError as error:
        return str(error)
    return ""


def test_moving_up_needs_a_depthwise_convolution() -> None:
    with pytest.raises(
        UserError, match=r"'move_up_depthwise' needs the step 'depthwise_conv' .*Put 'depthwise_conv' first"
    ) as caught:
        move_up_depthwise(BASES["resnet50"])
    assert isinstance(caught.value, NeedsStep)
    assert (caught.value.step, caught.value.needs) == ("move_up_depthwise", "depthwise_conv")


@pytest.mark.parametrize(("one", "other"), list(combinations(FIELD_STEPS, 2)))
def test_steps_that_set_different_fields_commute(one: str, other: str) -> None:
    bottlenecks = {base: steps.bottleneck(steps.shortcuts(steps.batch_norm(net))) for base, net in BASES.items()}
    starts = [(b, net) for b in BASES for net in (BASES[b], steps.depthwise_conv(bottlenecks[b]))]
    for base, start in starts:
        try:
            a, b = (take(step, start, arguments_of(step, base)) for step in (one, other))
        except UserError:
            continue  # out of order from here
        if start not in (a, b) and not set(diff(start, a)) & set(diff(start, b)):
            there = take(other, a, arguments_of(other, base))
            back = take(one, b, arguments_of(one, base))
            assert there == back
            assert set(diff(start, there)) == set(diff(start, a)) | set(diff(start, b))


def test_of_two_steps_on_the_width_the_later_one_counts() -> None:
    narrow = stage_ratio(increase_width(BASES["resnet200"], width=128), blocks=(3, 3, 27, 3), width=84)
    wide = increase_width(stage_ratio(BASES["resnet200"], blocks=(3, 3, 27, 3), width=84), width=128)
    assert (narrow.widths[0], wide.widths[0]) == (84, 128)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(order=st.permutations(ADOPTED))
def test_the_papers_steps_lead_to_convnext_tiny_in_any_order_that_they_allow(order: list[Any]) -> None:
    ids = [entry.step for entry in order]
    if ids.index("move_up_depthwise") < ids.index("depthwise_conv"):
        with pytest.raises(UserError, match="Put 'depthwise_conv' first"):
            climb(order, "resnet50")
    else:
        assert climb(order, "resnet50") == convnext("tiny", layer_scale=None)


@pytest.mark.parametrize("base", BASES)
def test_every_ladder_of_networks_ends_at_a_convnext_without_layer_scale(base: str) -> None:
    size = "base" if base == "resnet200" else "tiny"
    ladder = next(ladder for ladder in LADDERS.values() if base in ladder.bases)
    assert ladder.climb(base)[-1].net == convnext(size, layer_scale=None)


def test_vgg_becomes_a_resnet_on_its_way_and_from_there_on_shares_its_runs() -> None:
    resnet = {rung.id: rung.net for rung in PAPER.climb("resnet50")}
    vgg = {rung.id: rung.net for rung in LADDERS["vgg16"].climb("vgg16")}
    assert vgg["bottleneck"] == resnet["patchify_stem"]
    late = list(vgg)[list(vgg).index("depthwise_conv") :]
    assert {name: vgg[name] for name in late} == {name: resnet[name] for name in late}


def test_mobilenet_shares_the_last_rungs() -> None:
    resnet = {rung.id: rung.net for rung in PAPER.climb("resnet50")}
    mobile = {rung.id: rung.net for rung in LADDERS["mobilenet_v2"].climb("mobilenet_v2")}
    late = ["fewer_activations", "fewer_norms", "layer_norm", "separate_downsampling"]
    assert {name: mobile[name] for name in late} == {name: resnet[name] for name in late}


def test_patchify_takes_out_the_stages_that_work_at_a_finer_resolution() -> None:
    net = steps.patchify_stem(BASES["vgg16"])
    assert (net.widths, net.reductions) == ((256, 512, 512), (4, 8, 16))
    mobile = steps.patchify_stem(BASES["mobilenet_v2"])
    assert (mobile.widths, mobile.reductions) == (BASES["mobilenet_v2"].widths, (4, 8, 16, 16, 32, 32))


def test_stage_ratio_makes_as_many_stages_as_it_has_blocks() -> None:
    net = stage_ratio(BASES["mobilenet_v2"], blocks=[3, 3, 9, 3])
    assert (net.depths, net.widths, net.reductions) == ((3, 3, 9, 3), (24, 48, 96, 192), (4, 8, 16, 32))


def climb(order: list[Any], base: str) -> NetConfig:
    net = BASES[base]
    for entry in order:
        net = take(entry.step, net, entry.args.get(base, entry.args))
    return net


def test_the_last_rungs_are_convnexts_without_layer_scale() -> None:
    assert PAPER.climb("resnet50")[-1].net == convnext("tiny", layer_scale=None)
    assert PAPER.climb("resnet200")[-1].net == convnext("base", layer_scale=None)


def test_two_ladders_that_meet_give_equal_configs() -> None:
    meeting = [stage_ratio(BASES[base], blocks=[3, 3, 9, 3]) for base in ("resnet50", "resnet200")]
    assert meeting[0] == meeting[1]
    assert hash(meeting[0]) == hash(meeting[1])
    late = kernel_size(kernel_size(BASES["resnet50"], size=11), size=7)
    assert late == kernel_size(BASES["resnet50"], size=7)


def test_widening_keeps_the_proportions_of_the_stages() -> None:
    assert increase_width(BASES["resnet50"], width=84).widths == (84, 168, 336, 672)
    uneven = replace(BASES["resnet50"], widths=(64, 64, 192, 256))
    assert increase_width(uneven, width=96).widths == (96, 96, 288, 384)


def test_separate_downsampling_can_leave_out_its_norms() -> None:
    bare = steps.separate_downsampling(BASES["resnet50"], norms=False)
    assert (bare.downsample, bare.boundary_norms, bare.final_norm) == ("separate", False, False)
