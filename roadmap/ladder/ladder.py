"""The ladder: a strict reader of steps.yaml, and the climb from a base to its rungs."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from roadmap.common.errors import FieldErrors, UserError, unknown
from roadmap.common.paths import LADDERS, STEPS_FILE
from roadmap.common.yaml_files import read_yaml
from roadmap.ladder.library_steps import MODEL, take_step
from roadmap.ladder.models import read_net
from roadmap.ladder.own_steps import load_steps
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.references import check_references
from roadmap.ladder.rung import AppliedStep, Rung, train_under
from roadmap.ladder.schema import Base, Beside, Erratum, Match, Part, Published, Reference, RungEntry
from roadmap.ladder.steps import ALL_STEPS, NET_STEPS
from roadmap.networks.families import BASES
from roadmap.networks.nets import Net
from roadmap.recipe import Recipe, read_recipe


class Ladder(Part):
    """A study as data: where it can start, and its rungs in order. Read one with `read_ladder`."""

    extends: str | None = None  # a ladder that comes with the harness: this one's rungs come after that one's
    steps_module: Beside | None = None  # a Python file of steps, as --steps-module names others
    sections: tuple[str, ...] = ()
    bases: dict[str, Base] = Field(default={})
    match: Match | None = None  # of every rung that steps on the network and has none of its own
    references: tuple[str, ...] = ()  # of `roadmap.ladder.references.REFERENCES`: trained beside the rungs
    rungs: tuple[RungEntry, ...]
    _count: Callable[[Net], int] | None = None
    _recipe: str | None = None

    def counted_by(self, count: Callable[[Net], int]) -> Self:
        """Return the ladder with its networks matched by their multiply-adds as this counts them, as for a proxy."""
        ladder = self.model_copy()
        ladder._count = count
        return ladder

    def towards(self, recipe: str) -> Self:
        """Return the ladder with the techniques that a recipe has: steps that change nothing in it are left out.

        Raises:
            UserError: If there is no such recipe, or it does not fit.
        """
        read_recipe(recipe)
        ladder = self.model_copy()
        ladder._recipe = recipe
        return ladder

    @property
    def has_techniques(self) -> bool:
        """Whether any rung takes a part of the recipe."""
        return any(rung.step in RECIPE_STEPS and rung.step != "enhanced_recipe" for rung in self.rungs)

    @property
    def matches(self) -> bool:
        """Whether any rung's multiply-adds are matched."""
        return self.match is not None or any(rung.match for rung in self.rungs)

    @model_validator(mode="after")
    def _check(self) -> Self:
        inherited = self._extend()
        if self.steps_module is not None:
            load_steps(self.steps_module)
        errors = self._base_errors()
        for index, rung in list(enumerate(self.rungs))[inherited:]:
            errors += [(("rungs", index - inherited), problem) for problem in self._problems(index, rung)]
        try:
            check_references(self.references, "references")
        except UserError as error:
            errors.append((("references",), str(error)))
        if not self.bases:
            known = f"{', '.join(BASES)}, or a model of timm's or your own"
            errors.append((("bases",), f"bases: there are none, but a ladder starts somewhere: {known}."))
        if not self.rungs:
            errors.append((("rungs",), "rungs: there are none, but a ladder has at least its start."))
        if errors:
            raise FieldErrors(errors)
        return self

    def _base_errors(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Return what is wrong with the bases, each with its place."""
        errors: list[tuple[tuple[str | int, ...], str]] = []
        for name, base in self.bases.items():
            if base.model is None and name not in BASES:
                way = f"Or say what it is: {name}: {{model: timm:NAME}}, or FILE.py:FUNCTION."
                errors.append((("bases", name), f"{unknown('base', name, BASES)} {way}"))
            elif base.model is None and (base.args or base.proxy):
                errors.append((("bases", name), f"base '{name}': has args, but is one of ours. Take them out."))
            elif base.model is not None and name in BASES:
                errors.append(
                    (("bases", name), f"base '{name}': has a model, but is one of ours. Give it another name.")
                )
            elif base.model is not None:
                try:
                    read_net(base.model, base.args, base.proxy, f"base '{name}'")
                except UserError as error:
                    errors.append((("bases", name), str(error)))
        return errors

    def _extend(self) -> int:
        """Put the parts of the ladder that this one extends before its own; return how many rungs those are."""
        if self.extends is None:
            return 0
        known = known_ladders()
        if self.extends not in known:
            raise FieldErrors([(("extends",), str(unknown("ladder", self.extends, known)))])
        below = read_ladder(self.extends)
        for name, whole in {
            "sections": tuple(dict.fromkeys(below.sections + self.sections)),
            "bases": below.bases | self.bases,
            "references": tuple(dict.fromkeys(below.references + self.references)),
            "rungs": below.rungs + self.rungs,
        }.items():
            object.__setattr__(self, name, whole)  # while it is being made
        return len(below.rungs)

    def _problems(self, index: int, rung: RungEntry) -> list[str]:
        """Return what is wrong with one rung, each a sentence."""
        place, above = f"rung '{rung.id}'", [other.id for other in self.rungs[:index]]
        found: list[str | UserError] = []
        if rung.id in above:
            found.append(f"{place}: stands twice. Give one of the two another id.")
        if rung.section is not None and rung.section not in self.sections:
            found.append(unknown("section", rung.section, self.sections, place=place))
        found += [
            unknown("base", name, self.bases, place=f"{place}: published")
            for name in rung.published
            if name not in self.bases
        ]
        if index == 0:
            if rung.parent or rung.step in RECIPE_STEPS or (rung.args and not rung.step):
                found.append(
                    f"{place}: is where the ladder starts: it has no 'from', no args without a step and no step on the "
                    "recipe. Take them out."
                )
            if not rung.adopted:
                found.append(f"{place}: is where the ladder starts, so it cannot be a side branch. Take 'adopted' out.")
            if rung.match:
                found.append(f"{place}: is where the ladder starts, which is what it is. Take 'match' out.")
        elif rung.recipe == "plain":
            found.append(f"{place}: only the first rung says under which recipe the ladder starts. Take 'recipe' out.")
        if rung.parent is not None and rung.parent not in above:
            found.append(unknown("rung", rung.parent, above, place=f"{place}: from"))
        if rung.step is None and index:
            found.append(f"{place}: has no step. Known: {', '.join(ALL_STEPS)}.")
        elif rung.step is not None and rung.step not in ALL_STEPS:
            found.append(f"{unknown('step', rung.step, ALL_STEPS, place=place)} Your own? Say --steps-module FILE.")
        elif rung.step is not None:
            if rung.match and rung.step in RECIPE_STEPS:
                found.append(f"{place}: step '{rung.step}' leaves the network as it is. Take 'match' out.")
            for base in self.bases:
                found += self._argument_problems(f"{place}: step '{rung.step}'", rung, base)
        return list(dict.fromkeys(str(problem) for problem in found))

    def _argument_problems(self, place: str, rung: RungEntry, base: str) -> list[str | UserError]:
        for name, part in rung.parts().items():
            if not isinstance(part, dict) or not set(part) & set(self.bases):
                continue
            if strange := [other for other in part if other not in self.bases]:
                return [unknown("base", other, self.bases, place=f"{place}: {name or 'args'}") for other in strange]
            if name != MODEL and not isinstance(given := part.get(base, {}), dict):
                return [f"{place}: args of {base} are {given!r}, but must be names and values, as in {{size: 7}}."]
        step, arguments = ALL_STEPS[rung.step or ""], arguments_of(rung, base, self.bases)
        types = get_type_hints(step, localns={"Recipe": Recipe})
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(step).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name != "target"
        }
        found: list[str | UserError] = []
        for name, value in arguments.items():
            if name not in parameters:
                found.append(unknown("argument", name, parameters or ("none",), place=place))
                continue
            try:
                TypeAdapter(types[name]).validate_python(value, strict=True)
            except ValidationError as error:
                found.append(f"{place}: argument '{name}' is {value!r}: {error.errors()[0]['msg']}.")
        if rung.step == MODEL and not found:
            try:
                read_net(**arguments, place=place)
            except UserError as error:
                found.append(error)
        return found + [
            f"{place}: argument '{name}' is missing."
            for name, parameter in parameters.items()
            if parameter.default is inspect.Parameter.empty and name not in arguments
        ]

    def take(
        self, entry: RungEntry, base: str, net: Net, recipe_steps: tuple[AppliedStep, ...]
    ) -> tuple[Net, tuple[AppliedStep, ...], float]:
        """Return what a rung's step makes of a network and of what has changed in the recipe so far.

        The third value is by how much the network's multiply-adds miss what they are matched to, as a share of it.

        Raises:
            NeedsStep: If the step needs another before it.
            UserError: If what it makes is no network.
        """
        arguments = arguments_of(entry, base, self.bases)
        if entry.step in NET_STEPS:
            made, miss = take_step(NET_STEPS[entry.step], net, arguments), 0.0
            if (match := self.match_of(entry)) and entry is not self.rungs[0]:
                made, miss = match.fit(made, self.start(base), net, self._count)
            return made, recipe_steps, miss
        if entry.step is not None:
            taken = (*recipe_steps, AppliedStep(entry.step, tuple(arguments.items())))
            if not self._recipe or self._recipe_of(taken, base) != self._recipe_of(recipe_steps, base):
                recipe_steps = taken
        return net, recipe_steps, 0.0

    def _recipe_of(self, steps: tuple[AppliedStep, ...], base: str) -> dict[str, Any]:
        """Return the settings of training under the recipe that the ladder leads towards."""
        target = read_recipe(self._recipe or "", base)
        return train_under(self.rungs[0].recipe == "plain", steps, target, base).training()

    def match_of(self, entry: RungEntry) -> Match | None:
        """Return what a rung's multiply-adds are brought near to."""
        return entry.match or self.match if entry.step in NET_STEPS else None

    def why_not(self, name: str) -> str:
        """Say why a rung of this ladder is not climbed."""
        step = next(entry.step for entry in self.rungs if entry.id == name)
        place = f"Under recipe '{self._recipe}'" if step in RECIPE_STEPS else "At matched multiply-adds"
        return f"{place} '{name}' changes nothing"

    def start(self, base: str) -> Net:
        """Return the network of the first rung from a base.

        Raises:
            UserError: If what the base names is not there, or the first rung's step does not apply to it.
        """
        found = self.bases[base]
        if found.model is None:
            net: Net = BASES[base]
        else:
            net = read_net(found.model, found.args, found.proxy, f"base '{base}'")
        first = self.rungs[0]
        return take_step(NET_STEPS[first.step], net, arguments_of(first, base, self.bases)) if first.step else net

    def climb(self, base: str) -> list[Rung]:
        """Return every rung from a base, in order, each with its network.

        Raises:
            UserError: If the base is unknown, a step is out of order, or a rung changes nothing (it is left out where
                the whole ladder is matched, as a step on the width alone then does, and where the recipe that is
                trained towards lacks the technique).
        """
        if base not in self.bases:
            raise unknown("base", base, self.bases)
        plain_start = self.rungs[0].recipe == "plain"
        rungs: dict[str, Rung] = {}
        nets: dict[str, Net] = {}
        current = ""
        same: dict[str, str] = {}  # rungs that are left out: the one that they would equal
        for entry in self.rungs:
            parent = rungs.get(same.get(entry.parent or "", entry.parent) or current)
            try:
                before: tuple[Net, tuple[AppliedStep, ...]]
                before = (nets[parent.id], parent.recipe_steps) if parent else (start := self.start(base), ())
                net, recipe_steps, miss = self.take(entry, base, *before) if parent else (*before, 0.0)
                if parent and (net, recipe_steps) == before:
                    if self.match_of(entry) or (self._recipe and entry.step in RECIPE_STEPS):
                        same[entry.id] = parent.id
                        continue
                    raise UserError(f"step '{entry.step}' changes nothing after '{parent.id}'. Take the rung out.")
            except UserError as error:
                raise UserError(f"rung '{entry.id}' from {base}: {error}") from error
            except Exception as error:  # a user's own step may raise what it likes
                text = f"step '{entry.step}' failed ({type(error).__name__}: {error}). Mend the step."
                raise UserError(f"rung '{entry.id}' from {base}: {text}") from error
            nets[entry.id] = net
            rungs[entry.id] = Rung(
                id=entry.id,
                label=entry.label,
                section=entry.section,
                adopted=entry.adopted,
                parent=parent.id if parent else None,
                step=entry.step,
                net=net,
                plain_start=plain_start,
                recipe_steps=recipe_steps,
                paper=entry.published.get(base, Published()) if not (self.match and net != start) else Published(),
                match=self.match_of(entry),
                match_miss=miss,
            )
            if entry.adopted:
                current = entry.id
        return list(rungs.values())


# The parts of steps.yaml by the key that they stand under, and their keys, for a reader who misspelt one.
_PARTS: dict[str, type[BaseModel]] = {
    "": Ladder,
    "bases": Base,
    "reference": Reference,
    "rungs": RungEntry,
    "published": Published,
    "erratum": Erratum,
    "match": Match,
}
KEYS = {key: [field.alias or name for name, field in part.model_fields.items()] for key, part in _PARTS.items()}


def arguments_of(rung: RungEntry, base: str, bases: Mapping[str, Base]) -> dict[str, Any]:
    """Return the step's arguments for a base: those under its name, or, where no base is named, all."""

    def own(part: Any) -> Any:
        return part.get(base) or {} if isinstance(part, dict) and set(part) & set(bases) else part

    parts = {name: own(part) for name, part in rung.parts().items()}
    return dict(parts[""]) if "" in parts else parts


def read_ladder(ladder: str | Path = "steps") -> Ladder:
    """Read a ladder; without a name, the paper's.

    Args:
        ladder: The name of one that ships with the harness, such as "vgg16", or the path of a YAML file.

    Raises:
        UserError: If there is none of that name, or the file is missing, is no YAML, or describes no ladder: all
            errors in one message, each with its place, what was found and the nearest name that would be right.
    """
    return read_yaml(_find_file(ladder), Ladder, KEYS)


def _find_file(ladder: str | Path) -> Path:
    """Return the file of a shipped ladder, by its name, or of one's own, by its path."""
    known = known_ladders()
    if isinstance(ladder, Path) or ladder.endswith((".yaml", ".yml")):
        return Path(ladder)
    if ladder not in known:
        raise unknown("ladder", ladder, known, place="--steps")
    return known[ladder]


def known_ladders() -> dict[str, Path]:
    """Return the ladders that come with the harness by their names: the paper's, "steps", first."""
    return {path.stem: path for path in (STEPS_FILE, *sorted(LADDERS.glob("*.yaml")))}


def find_ladder(ladder: str | Path | None = None, base: str | None = None) -> Ladder:
    """Return a ladder, named as for `read_ladder`; without a name the first shipped one that has the base.

    Raises:
        UserError: If there is none of that name, it does not fit, or it does not have the base.
    """
    if base is None:
        return read_ladder(ladder or "steps")
    bases: dict[str, Base] = {}
    for path in [ladder] if ladder else known_ladders().values():
        found = read_ladder(path)
        if base in found.bases:
            return found
        bases |= found.bases
    raise unknown("base", base, bases)
