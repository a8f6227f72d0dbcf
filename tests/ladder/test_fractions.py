from itertools import combinations
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadmap.common.errors import UserError
from roadmap.ladder.designs import Design, lay_out
from roadmap.ladder.fractions import GENERATORS, Fraction, plan_fraction, resolution_of
from tests.samples import PAPER

PLANS = [(steps, networks) for steps, sizes in GENERATORS.items() for networks in sizes]
# Steps and networks -> the resolution that the published tables print.
PUBLISHED = {
    (3, 4): 3, (4, 8): 4, (5, 8): 3, (5, 16): 5, (6, 8): 3, (6, 16): 4, (6, 32): 6, (7, 8): 3, (7, 16): 4, (7, 32): 4,
    (7, 64): 7, (8, 16): 4, (8, 32): 4, (8, 64): 5, (9, 16): 3, (9, 32): 4, (9, 64): 4, (10, 16): 3, (10, 32): 4,
    (10, 64): 4, (11, 16): 3, (11, 32): 4, (11, 64): 4,
}  # fmt: skip
STEPS = ("gelu", "fewer_activations", "fewer_norms", "layer_norm", "separate_downsampling", "kernel_7")


def plan(steps: int, networks: int) -> Fraction:
    return plan_fraction([f"s{place}" for place in range(steps)], networks)


def column(fraction: Fraction, word: tuple[int, ...]) -> tuple[int, ...]:
    """Return the products of a word's levels, worked out from the networks alone."""
    return tuple(prod(1 if row[place] else -1 for place in word) for row in fraction.taken)


@pytest.mark.parametrize(("steps", "networks"), PLANS)
def test_a_plan_is_balanced_in_every_step_and_every_two_and_has_no_network_twice(steps: int, networks: int) -> None:
    fraction = plan(steps, networks)
    assert len(set(fraction.taken)) == len(fraction.taken) == networks
    least = 3 if fraction.resolution == 3 else 4
    for word in (word for length in range(1, least) for word in combinations(range(steps), length)):
        if length_of_alias(fraction, word):
            continue
        assert sum(column(fraction, word)) == 0


def length_of_alias(fraction: Fraction, word: tuple[int, ...]) -> bool:
    """Whether a word is the same in all networks."""
    return len(set(column(fraction, word))) == 1


@pytest.mark.parametrize(("steps", "networks"), PLANS)
def test_the_resolution_is_that_of_the_networks_and_of_the_published_tables(steps: int, networks: int) -> None:
    fraction = plan(steps, networks)
    words = (word for length in range(1, steps + 1) for word in combinations(range(steps), length))
    found = next((len(word) for word in words if length_of_alias(fraction, word)), None)
    assert fraction.resolution == found == PUBLISHED.get((steps, networks))
    assert (found is None) == (networks == 2**steps)


@pytest.mark.parametrize(("steps", "networks"), PLANS)
def test_effects_come_together_exactly_where_their_columns_are_the_same(steps: int, networks: int) -> None:
    fraction = plan(steps, networks)
    places = {name: place for place, name in enumerate(fraction.steps)}
    groups = [[effect.steps, *effect.aliases] for effect in fraction.effects]
    columns = [{column(fraction, tuple(places[name] for name in one)) for one in group} for group in groups]
    assert all(len(group) == 1 for group in columns)
    assert len(set.union(*columns)) == len(groups)
    assert sum(map(len, groups)) == steps + steps * (steps - 1) // 2
    assert [effect.steps for effect in fraction.effects[:steps]] == [(name,) for name in fraction.steps]
    clear = all(not effect.aliases for effect in fraction.effects)
    assert clear == (fraction.resolution is None or fraction.resolution >= 5)


@given(st.integers(3, 11))
def test_without_a_number_as_few_networks_are_taken_as_keep_single_steps_clear(steps: int) -> None:
    fraction = plan_fraction([f"s{place}" for place in range(steps)])
    assert all(len(alias) > 1 for effect in fraction.effects[:steps] for alias in effect.aliases)
    assert all(resolution_of(steps, size) == 3 for size in GENERATORS[steps] if size < len(fraction.taken))


@pytest.mark.parametrize(
    ("steps", "networks", "said"),
    [
        ((), None, "takes 3 to 11 different steps, but was given none"),
        (("gelu", "layer_norm"), None, "but was given 'gelu layer_norm'"),
        (("gelu", "gelu", "layer_norm"), None, "different steps"),
        (
            STEPS,
            12,
            r"is 12, but 6 steps .* 8 \(resolution III\), 16 \(resolution IV\), .* 64 \(all of them",
        ),
    ],
)
def test_what_is_no_plan_is_refused_with_those_that_are(
    steps: tuple[str, ...], networks: int | None, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Design("fractional", steps, networks)


def test_a_layout_has_the_networks_of_the_plan_and_says_what_it_can_tell() -> None:
    layout = lay_out(PAPER, "resnet50", Design("fractional", STEPS), [])
    assert layout.fraction
    assert layout.fraction.rungs == tuple(rung.id for rung in layout.rungs)
    assert len({rung.net for rung in layout.rungs}) == 16
    for rung, row in zip(layout.rungs, layout.fraction.taken, strict=True):
        has = dict(zip(STEPS, row, strict=True))
        assert (rung.net.block.act == "gelu") == has["gelu"]  # type: ignore[union-attr]
        assert (rung.net.block.kernel_size == 7) == has["kernel_7"]  # type: ignore[union-attr]
        assert rung.parent is None
    whole = next(rung for rung, row in zip(layout.rungs, layout.fraction.taken, strict=True) if all(row))
    assert whole.label == "all"
    assert "16 of 64 combinations of 6 steps, resolution IV: effects of one step are clear" in layout.notes[0]
    assert "--samples 32 (resolution VI)" in layout.notes[1]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (("gelu", "layer_norm", "gelo"), "unknown step 'gelo'. Did you mean 'gelu'?"),
        (("gelu", "depthwise_conv", "move_up_depthwise"), "'move_up_depthwise' needs 'depthwise_conv'"),
        (("kernel_5", "kernel_7", "gelu"), "are the same network under the same recipe"),
    ],
)
def test_steps_that_cannot_be_combined_are_refused(steps: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as error:
        lay_out(PAPER, "resnet50", Design("fractional", steps), [])
    assert said in str(error.value)
