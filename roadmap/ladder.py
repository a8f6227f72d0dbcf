"""The ladder: a strict reader of steps.yaml, and the climb from a base to its rungs."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from roadmap.config import BASES, NetConfig
from roadmap.errors import Misfits, UserError, unknown
from roadmap.reading import read_yaml
from roadmap.recipe import Recipe, read_plain, read_recipe
from roadmap.reference import Net, check_references
from roadmap.steps import NET_STEPS, STEPS
from roadmap.techniques import RECIPE_STEPS

MATCHED = 0.02  # multiply-adds that miss what they are matched to by a larger share are not called matched
STEPS_FILE = Path(__file__).parents[1] / "steps.yaml"
LADDERS = Path(__file__).parents[1] / "ladders"

Changes = dict[str, tuple[Any, Any]]  # setting -> (before, after)


class Strict(BaseModel):
    """A part of steps.yaml: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Erratum(Strict):
    """The true value of a misprint, and why."""

    gmacs: float
    note: str


class Published(Strict):
    """What the paper reports for a rung: top-1 in percent, its standard deviation over seeds, 1e9 multiply-adds."""

    top1: float | None = None
    top1_std: float | None = None
    gmacs: float | None = None
    erratum: Erratum | None = None

    @property
    def true_gmacs(self) -> float | None:
        """The count to hold ours against: what is printed, or what the erratum says it should be."""
        return self.erratum.gmacs if self.erratum else self.gmacs


class Reference(Strict):
    """The network that a ladder is measured against, as published."""

    label: str
    top1: float
    gmacs: float


class Base(Strict):
    """Where a ladder starts: its name in a figure, the name of its last rung, where its numbers are published."""

    label: str
    result: str
    source: str = ""
    seeds: int = Field(default=1, ge=1)
    reference: Reference | None = None


class Match(Strict):
    """What a rung's multiply-adds are to come nearest to once its step is taken, and by what: FLOPs matching.

    The step decides everything but the sizes; then all widths, or all depths, are scaled together.
    """

    to: Literal["previous", "base"] | Annotated[float, Field(gt=0)] = "base"  # a number: 1e9 multiply-adds at 224x224
    by: Literal["width", "depth"] = "width"
    multiple: int = Field(default=1, ge=1)

    def describe(self) -> str:
        """Say in words what is brought near to."""
        words = {"base": "the base's", "previous": "those of the rung before"}
        return words.get(str(self.to), f"{self.to:g} G" if isinstance(self.to, float) else "")

    def fit(
        self, net: NetConfig, base: NetConfig, previous: NetConfig, count: Callable[[NetConfig], int] | None
    ) -> tuple[NetConfig, float]:
        """Return the network that comes nearest, and by how much its multiply-adds miss, as a share of what was asked.

        Args:
            net: What the step made.
            base: Where the ladder starts.
            previous: What the step was applied to.
            count: Counts multiply-adds as trained, where a ladder is trained at another scale than the paper's.
        """
        from roadmap.cost import count_macs, fit_depth, fit_width

        if isinstance(self.to, float):
            count, target = count_macs, 1e9 * self.to
        else:
            count = count or count_macs
            target = count(base if self.to == "base" else previous)
        fitted = (fit_width if self.by == "width" else fit_depth)(net, target, multiple=self.multiple, count=count)
        return fitted, count(fitted) / target - 1


class RungEntry(Strict):
    """A rung as steps.yaml lists it."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    label: str
    section: str | None = None
    step: str | None = None
    args: dict[str, Any] = {}
    match: Match | None = None
    parent: str | None = Field(default=None, alias="from")
    adopted: bool = True
    recipe: Literal["plain", "full"] = "full"
    published: dict[str, Published] = {}


@dataclass(frozen=True)
class RecipeStep:
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
    recipe_steps: tuple[RecipeStep, ...]
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


def train_under(plain_start: bool, steps: tuple[RecipeStep, ...], target: Recipe, base: str | None) -> Recipe:
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


class Ladder(Strict):
    """A study as data: where it can start, and its rungs in order. Read one with `read_ladder`."""

    extends: str | None = None  # a ladder that comes with the harness: this one's rungs come after that one's
    sections: tuple[str, ...] = ()
    bases: dict[str, Base] = {}
    match: Match | None = None  # of every rung that steps on the network and has none of its own
    references: tuple[str, ...] = ()  # of `roadmap.reference.REFERENCES`: trained beside the rungs
    rungs: tuple[RungEntry, ...]
    _count: Callable[[NetConfig], int] | None = None
    _recipe: str | None = None

    def counted_by(self, count: Callable[[NetConfig], int]) -> Self:
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
        misfits: list[tuple[tuple[str | int, ...], str]] = [
            (("bases", name), str(unknown("base", name, BASES))) for name in self.bases if name not in BASES
        ]
        for index, rung in list(enumerate(self.rungs))[inherited:]:
            misfits += [(("rungs", index - inherited), problem) for problem in self._problems(index, rung)]
        try:
            check_references(self.references, "references")
        except UserError as error:
            misfits.append((("references",), str(error)))
        if not self.bases:
            misfits.append((("bases",), f"bases: there are none, but a ladder starts somewhere: {', '.join(BASES)}."))
        if not self.rungs:
            misfits.append((("rungs",), "rungs: there are none, but a ladder has at least its start."))
        if misfits:
            raise Misfits(misfits)
        return self

    def _extend(self) -> int:
        """Put the parts of the ladder that this one extends before its own; return how many rungs those are."""
        if self.extends is None:
            return 0
        known = known_ladders()
        if self.extends not in known:
            raise Misfits([(("extends",), str(unknown("ladder", self.extends, known)))])
        below = read_ladder(known[self.extends])
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
            if rung.step or rung.parent or rung.args:
                found.append(f"{place}: is where the ladder starts: it has no step, args or 'from'. Take them out.")
            if not rung.adopted:
                found.append(f"{place}: is where the ladder starts, so it cannot be a side branch. Take 'adopted' out.")
            if rung.match:
                found.append(f"{place}: is where the ladder starts, which is what it is. Take 'match' out.")
            return [str(problem) for problem in found]
        if rung.recipe == "plain":
            found.append(f"{place}: only the first rung says under which recipe the ladder starts. Take 'recipe' out.")
        if rung.parent is not None and rung.parent not in above:
            found.append(unknown("rung", rung.parent, above, place=f"{place}: from"))
        if rung.step is None:
            found.append(f"{place}: has no step. Known: {', '.join(STEPS)}.")
        elif rung.step not in STEPS:
            found.append(f"{unknown('step', rung.step, STEPS, place=place)} Your own? Say --steps-module FILE.")
        else:
            if rung.match and rung.step in RECIPE_STEPS:
                found.append(f"{place}: step '{rung.step}' leaves the network as it is. Take 'match' out.")
            for base in self.bases:
                found += self._argument_problems(f"{place}: step '{rung.step}'", rung, base)
        return list(dict.fromkeys(str(problem) for problem in found))

    def _argument_problems(self, place: str, rung: RungEntry, base: str) -> list[str | UserError]:
        if set(rung.args) & set(self.bases):
            strange = [name for name in rung.args if name not in self.bases]
            if strange:
                return [unknown("base", name, self.bases, place=f"{place}: args") for name in strange]
            if not isinstance(rung.args.get(base, {}), dict):
                given = rung.args[base]
                return [f"{place}: args of {base} are {given!r}, but must be names and values, as in {{size: 7}}."]
        step, arguments = STEPS[rung.step or ""], arguments_of(rung, base, self.bases)
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
        return found + [
            f"{place}: argument '{name}' is missing."
            for name, parameter in parameters.items()
            if parameter.default is inspect.Parameter.empty and name not in arguments
        ]

    def take(
        self, entry: RungEntry, base: str, net: NetConfig, recipe_steps: tuple[RecipeStep, ...]
    ) -> tuple[NetConfig, tuple[RecipeStep, ...], float]:
        """Return what a rung's step makes of a network and of what has changed in the recipe so far.

        The third value is by how much the network's multiply-adds miss what they are matched to, as a share of it.

        Raises:
            NeedsStep: If the step needs another before it.
            UserError: If what it makes is no network.
        """
        arguments = arguments_of(entry, base, self.bases)
        if entry.step in NET_STEPS:
            made, miss = NET_STEPS[entry.step](net, **arguments), 0.0
            if not isinstance(made, NetConfig):
                raise UserError(f"step '{entry.step}' returns {made!r}, but must return a NetConfig.")
            if match := self.match_of(entry):
                made, miss = match.fit(made, BASES[base], net, self._count)
            return made, recipe_steps, miss
        if entry.step is not None:
            taken = (*recipe_steps, RecipeStep(entry.step, tuple(arguments.items())))
            if not self._recipe or self._recipe_of(taken, base) != self._recipe_of(recipe_steps, base):
                recipe_steps = taken
        return net, recipe_steps, 0.0

    def _recipe_of(self, steps: tuple[RecipeStep, ...], base: str) -> dict[str, Any]:
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
        nets: dict[str, NetConfig] = {}
        current = ""
        start = BASES[base]
        same: dict[str, str] = {}  # rungs that are left out: the one that they would equal
        for entry in self.rungs:
            parent = rungs.get(same.get(entry.parent or "", entry.parent) or current)
            try:
                before = (nets[parent.id], parent.recipe_steps) if parent else (start, ())
                net, recipe_steps, miss = self.take(entry, base, *before)
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
    return dict(rung.args.get(base) or {}) if set(rung.args) & set(bases) else rung.args


def read_ladder(path: str | Path = STEPS_FILE) -> Ladder:
    """Read a ladder; without a path, the paper's.

    Raises:
        UserError: If the file is missing, is no YAML, or describes no ladder: all misfits in one message, each with
            its place, what was found and the nearest name that would be right.
    """
    return read_yaml(Path(path), Ladder, KEYS)


def known_ladders() -> dict[str, Path]:
    """Return the ladders that come with the harness by their names: the paper's, "steps", first."""
    return {path.stem: path for path in (STEPS_FILE, *sorted(LADDERS.glob("*.yaml")))}


def find_ladder(name: str | None, base: str | None = None) -> Ladder:
    """Return a ladder by its name or by the path of a YAML file; without either, the first one that has a base.

    Raises:
        UserError: If there is none of that name, it does not fit, or it does not have the base.
    """
    known = known_ladders()
    if name is not None:
        if name not in known and not name.endswith((".yaml", ".yml")):
            raise unknown("ladder", name, known, place="--steps")
        ladder = read_ladder(known.get(name, Path(name)))
        bases = list(ladder.bases)
    else:
        ladders = [read_ladder(path) for path in known.values()] if base else []
        bases = list(dict.fromkeys(name for ladder in ladders for name in ladder.bases))
        ladder = next((ladder for ladder in ladders if base in ladder.bases), ladders[0]) if base else read_ladder()
    if base is not None and base not in ladder.bases:
        raise unknown("base", base, bases)
    return ladder


def select(rungs: list[Rung], *, only: list[str] | None = None, until: str | None = None) -> list[Rung]:
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
