"""Subsets of a ladder's steps: what network and recipe they make, what they need, what they are called."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from roadmap.common.errors import UserError
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import AppliedStep, Rung
from roadmap.ladder.schema import Published
from roadmap.ladder.steps import NeedsStep
from roadmap.networks.nets import Net


@dataclass(frozen=True)
class Built:
    """What a set of steps makes, and those of them that could not be applied: rung -> the step that it needs."""

    net: Net
    recipe_steps: tuple[AppliedStep, ...]
    lacking: dict[str, str]


class Steps:
    """The steps of a ladder from a base, named by their rungs, to be combined.

    Attributes:
        start: The rung that the ladder starts from.
        path: The steps that lead to the last adopted rung, in order.
        recipe: Those of them that take the whole recipe: what the others are tried under.
        single: The others, each on the network or on a part of the recipe.
    """

    def __init__(self, ladder: Ladder, base: str, climbed: list[Rung]) -> None:
        self.ladder, self.base = ladder, base
        self.climbed = {rung.id: rung for rung in climbed}
        self.start = climbed[0]
        path = []
        rung = [rung for rung in climbed if rung.adopted][-1]
        while rung.parent is not None:
            path.append(rung.id)
            rung = self.climbed[rung.parent]
        self.path = tuple(reversed(path))
        self.recipe = tuple(name for name in self.path if self.climbed[name].step == "enhanced_recipe")
        self.single = tuple(name for name in self.path if name not in self.recipe)

    def build(self, chosen: Collection[str]) -> Built:
        """Apply steps in the ladder's order, without those that need one which is not there."""
        net, lacking = self.start.net, dict[str, str]()
        recipe_steps: tuple[AppliedStep, ...] = ()
        for entry in self.ladder.rungs:
            if entry.id in chosen:
                try:
                    net, recipe_steps, _ = self.ladder.take(entry, self.base, net, recipe_steps)
                except NeedsStep as error:
                    lacking[entry.id] = error.needs
                except UserError as error:
                    raise UserError(f"rung '{entry.id}' from {self.base}, with {', '.join(chosen)}: {error}") from error
        return Built(net, recipe_steps, lacking)

    def with_needed(self, chosen: Iterable[str]) -> frozenset[str]:
        """Return steps and what they need, of which the ladder has the last rung before them."""
        names, closed = list(self.climbed), frozenset(chosen)
        while lacking := self.build(closed).lacking:
            for name, needs in lacking.items():
                before = [other for other in names[: names.index(name)] if self.climbed[other].step == needs]
                best = [other for other in before if other in self.path] or before
                if not best or best[-1] in closed:
                    raise UserError(f"rung '{name}' needs the step '{needs}', which this ladder does not take before.")
                closed |= {best[-1]}
        return closed

    def needed(self, name: str) -> frozenset[str]:
        """Return the steps that a step needs."""
        return self.with_needed([name]) - {name}

    def labels(self, names: Collection[str], between: str = ", ") -> str:
        """Return the labels of steps in the ladder's order."""
        return between.join(rung.label for rung in self.climbed.values() if rung.id in names)

    def rung(
        self, chosen: Collection[str], *, id: str, label: str, section: str | None, parent: str | None, of: str | None
    ) -> Rung:
        """Return the rung of a set of steps; it has the published numbers of the ladder's rung that is the same.

        Args:
            chosen: The steps.
            id: Its name.
            label: Its name in tables and figures.
            section: Its heading.
            parent: The rung that it is judged against.
            of: The step that it is about, if it is one.
        """
        built = self.build(chosen)
        same = [rung for rung in self.climbed.values() if content(rung) == content(built)]
        return Rung(
            id=id,
            label=label,
            section=section,
            adopted=True,
            parent=parent,
            step=self.climbed[of].step if of else None,
            net=built.net,
            plain_start=self.start.plain_start,
            recipe_steps=built.recipe_steps,
            paper=same[0].paper if same else Published(),
        )

    def all_steps(self, parent: str | None) -> Rung:
        """Return the last adopted rung under the name that it has in every design."""
        label = self.ladder.bases[self.base].result
        return self.rung(self.path, id="all_steps", label=label, section="All steps", parent=parent, of=None)

    def named(self, chosen: frozenset[str], *, parent: str | None = None, about: str | None = None) -> Rung:
        """Return the rung of a few steps, named by them and what is missing of the recipe; without any, the ladder's.

        Args:
            chosen: The steps, with what they need.
            parent: The rung that it is judged against.
            about: The step that it is about; the others are said to be with it.
        """
        section = self.climbed[about].section if about else None
        own = chosen - set(self.recipe)
        if not own:
            built = self.build(chosen)
            for rung in self.climbed.values():
                if content(rung) == content(built):
                    return replace(rung, parent=parent, section=section, adopted=True)
            id = "_with_".join([self.start.id, "_".join(name for name in self.recipe if name in chosen)])
            label = f"{self.start.label}, {self.labels(chosen)}"
            return self.rung(chosen, id=id, label=label, section=section, parent=parent, of=about)
        implied = own & frozenset().union(*(self.needed(name) for name in own))
        ids = [name for name in self.climbed if name in own - implied]
        id, label = "_and_".join(ids), self.labels(ids, " and ")
        if len(ids) == 1:
            id, label = f"only_{id}", f"only {label}"
        if implied:
            label += f" (with {self.labels(implied)})"
        if missing := [name for name in self.recipe if name not in chosen]:
            id += f"_without_{'_'.join(missing)}"
            label += f", without {self.labels(missing)}"
        return self.rung(chosen, id=id, label=label, section=section, parent=parent, of=about)


def content(made: Rung | Built) -> tuple[Net, tuple[AppliedStep, ...]]:
    """Return what makes rungs from one start the same."""
    return made.net, made.recipe_steps
