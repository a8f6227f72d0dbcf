import copy
import inspect
import re
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadmap import steps
from roadmap.config import BASES, NetConfig, convnext, diff
from roadmap.errors import UserError
from roadmap.recipe import Recipe
from roadmap.steps import (
    NET_STEPS,
    RECIPE_STEPS,
    STEPS,
    NeedsStep,
    increase_width,
    kernel_size,
    move_up_depthwise,
    stage_ratio,
)
from tests.samples import PAPER, arguments_of, make_recipe

ADOPTED = [entry for entry in PAPER.rungs if entry.adopted and entry.step in NET_STEPS]
TARGET = make_recipe(name="target", lr=0.5)


def take(step: str, start: NetConfig | Recipe, arguments: dict[str, Any]) -> Any:
    """Apply a step of either kind."""
    extra = {"target": TARGET} if step in RECIPE_STEPS else {}
    return STEPS[step](start, **extra, **arguments)


def starts(step: str) -> list[Any]:
    """Return what steps.yaml applies a step to."""
    if step in RECIPE_STEPS:
        return [make_recipe()]
    climbed = {base: {rung.id: rung for rung in PAPER.climb(base)} for base in PAPER.bases}
    return [rungs[rung.parent or ""].net for rungs in climbed.values() for rung in rungs.values() if rung.step == step]


@pytest.mark.parametrize("base", PAPER.bases)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_pure_and_changes_something(step: str, base: str) -> None:
    arguments = arguments_of(step, base)
    for start in starts(step):
        before, given_arguments = copy.deepcopy(start), copy.deepcopy(arguments)
        after = take(step, start, arguments)
        assert take(step, start, arguments) == after
        assert (start, arguments) == (before, given_arguments)
        assert type(after) is type(start)
        assert after != start


@pytest.mark.parametrize("step", STEPS)
def test_a_step_says_what_it_does_and_its_source(step: str) -> None:
    text = inspect.getdoc(STEPS[step])
    assert text
    assert text.splitlines()[0].endswith(".")
    assert any(line.startswith("Source: ") and len(line) > len("Source: ") + 5 for line in text.splitlines())


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_used_by_the_papers_ladder(step: str) -> None:
    assert step in {entry.step for entry in PAPER.rungs}


def test_every_public_function_of_the_module_is_a_step_under_its_own_name() -> None:
    public = {
        name: function
        for name, function in inspect.getmembers(steps, inspect.isfunction)
        if function.__module__ == steps.__name__ and not name.startswith("_") and name != "require"
    }
    assert public == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_arguments_of_a_step_are_keywords_with_types(step: str) -> None:
    first, *others = inspect.signature(STEPS[step]).parameters.values()
    assert first.name == ("recipe" if step in RECIPE_STEPS else "net")
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY and p.annotation is not p.empty for p in others)


@pytest.mark.parametrize("base", PAPER.bases)
@pytest.mark.parametrize("step", NET_STEPS)
def test_a_step_out_of_order_names_the_step_to_put_first(step: str, base: str) -> None:
    said = refusal(step, BASES[base], base)
    if said:
        with pytest.raises(NeedsStep, match=re.escape(said)) as caught:
            take(step, BASES[base], arguments_of(step, base))
        first = caught.value.needs
        assert f"step '{step}' needs the step '{first}' before it" in said
        assert not refusal(step, take(first, BASES[base], arguments_of(first, base)), base)


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


@pytest.mark.parametrize(("one", "other"), list(combinations(NET_STEPS, 2)))
def test_steps_that_set_different_fields_commute(one: str, other: str) -> None:
    for base, start in [(b, net) for b in PAPER.bases for net in (BASES[b], steps.depthwise_conv(BASES[b]))]:
        try:
            a, b = (take(step, start, arguments_of(step, base)) for step in (one, other))
        except UserError:
            continue  # out of order from here
        if not set(diff(start, a)) & set(diff(start, b)):
            there = take(other, a, arguments_of(other, base))
            back = take(one, b, arguments_of(one, base))
            assert there == back
            assert diff(start, there) == diff(start, a) | diff(start, b)


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


def test_the_recipe_step_trains_with_the_target() -> None:
    assert steps.enhanced_recipe(make_recipe(), target=TARGET) == TARGET
