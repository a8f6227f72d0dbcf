"""A rung: a named network and recipe on a ladder."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from roadmap.common.errors import UserError, unknown
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.schema import MATCHED, Match, Published
from roadmap.networks.nets import Net
from roadmap.recipe import Recipe, read_plain

Changes = dict[str, tuple[Any, Any]]  # setting -> (before, after)


@dataclass(frozen=True)
class AppliedStep:
    """A step on the recipe, as a rung applies it."""

    name: str
    args: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Rung:
    """A named network and recipe on the ladder.

    Attributes:
        id: Its name, unique on the ladder.
        label: Its name in tables and figures.
        section: The heading that it stands under; None for the start.
        adopted: Whether the ladder goes on from it; if not, it is a side branch.
        parent: The rung that its step was applied to, and that it is judged against; None for the start.
        step: The step that made it; None for the start. (In other designs: the one that it adds or leaves out.)
        net: The network.
        plain_start: Whether the ladder started from the recipe's plain counterpart.
        recipe_steps: What the rungs up to here changed in the recipe.
        paper: What is published about it.
        match: What its multiply-adds were brought near to; None where they are what the step made them.
        match_miss: By how much they miss that, as a share of it.
        is_reference: Whether it is no rung, but a network that the ladder is held against.
    """

    id: str
    label: str
    section: str | None
    adopted: bool
    parent: str | None
    step: str | None
    net: Net
    plain_start: bool
    recipe_steps: tuple[AppliedStep, ...]
    paper: Published
    match: Match | None = None
    match_miss: float = 0.0
    is_reference: bool = False

    @property
    def is_matched(self) -> bool:
        """Whether its multiply-adds are near enough to what they were matched to."""
        return abs(self.match_miss) <= MATCHED

    def recipe(self, target: Recipe, base: str | None = None) -> Recipe:
        """Return the recipe that this rung trains under, where the study's recipe is `target`."""
        return train_under(self.plain_start, self.recipe_steps, target, base)


def recipe_changes(rungs: Collection[Rung], target: Recipe, base: str | None = None) -> dict[str, Changes]:
    """Return what each rung changes in the recipe of the rung that it is judged against, where it changes any of it."""
    recipes = {rung.id: rung.recipe(target, base) for rung in rungs}
    changes = {rung.id: recipes[rung.id].differences(recipes[rung.parent]) for rung in rungs if rung.parent in recipes}
    return {name: changed for name, changed in changes.items() if changed}


def train_under(plain_start: bool, steps: tuple[AppliedStep, ...], target: Recipe, base: str | None) -> Recipe:
    """Return what steps make of the recipe that a ladder starts under; the target itself where nothing differs from it.

    A recipe in between is named after its start and its steps.
    """
    recipe = start = read_plain(target, base) if plain_start else target
    for step in steps:
        recipe = RECIPE_STEPS[step.name](recipe, target=target, **dict(step.args))
    if not steps:
        return recipe
    if not recipe.differences(target):
        return target
    return replace(recipe, name=" + ".join([start.name, *(step.name for step in steps)]))


def select(rungs: list[Rung], *, only: Collection[str] | None = None, until: str | None = None) -> list[Rung]:
    """Return the rungs that a user asked for (`--only`, `--until`), in the ladder's order, and references.

    `only` chooses among references too, `until` leaves them and has them judged against the last rung that it leaves.

    Raises:
        UserError: If a name is unknown.
    """
    names = [rung.id for rung in rungs]
    for name in [*(only or ()), *([until] if until else ())]:
        if name not in names:
            raise unknown("rung", name, names)
    if until:
        rungs = [rung for i, rung in enumerate(rungs) if i <= names.index(until) or rung.is_reference]
        if late := [name for name in only or () if name not in {rung.id for rung in rungs}]:
            raise UserError(f"rung '{late[0]}' (--only) comes after '{until}' (--until). Leave one of the two out.")
    kept = [rung for rung in rungs if only is None or rung.id in only]
    ids, last = {rung.id for rung in kept}, next((rung.id for rung in reversed(kept) if rung.adopted), None)
    return [
        replace(rung, parent=last) if rung.is_reference and rung.parent not in ids and until else rung for rung in kept
    ]
