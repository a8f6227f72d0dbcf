"""What is wrong with a ladder's file, each fault a sentence; and what a rung's step is called with."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from roadmap.common.errors import UserError, unknown
from roadmap.ladder.library_steps import MODEL, SET_ARGS, read_net
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.schema import Base, RungEntry
from roadmap.ladder.steps import ALL_STEPS
from roadmap.networks.families import BASES
from roadmap.recipe import Recipe


def base_faults(bases: Mapping[str, Base]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what is wrong with the bases, each with its place."""
    errors: list[tuple[tuple[str | int, ...], str]] = []
    for name, base in bases.items():
        if base.model is None and name not in BASES:
            way = f"Or say what it is: {name}: {{model: timm:NAME}}, or FILE.py:FUNCTION."
            errors.append((("bases", name), f"{unknown('base', name, BASES)} {way}"))
        elif base.model is None and (base.args or base.proxy):
            errors.append((("bases", name), f"base '{name}': has args, but is one of ours. Take them out."))
        elif base.model is not None and name in BASES:
            errors.append((("bases", name), f"base '{name}': has a model, but is one of ours. Give it another name."))
        elif base.model is not None:
            try:
                read_net(base.model, base.args, base.proxy, f"base '{name}'")
            except UserError as error:
                errors.append((("bases", name), str(error)))
    return errors


def rung_faults(
    index: int, rungs: Sequence[RungEntry], sections: Sequence[str], bases: Mapping[str, Base]
) -> list[str]:
    """Return what is wrong with one rung, each a sentence."""
    rung = rungs[index]
    place, above = f"rung '{rung.id}'", [other.id for other in rungs[:index]]
    found: list[str | UserError] = []
    if rung.id in above:
        found.append(f"{place}: stands twice. Give one of the two another id.")
    if rung.section is not None and rung.section not in sections:
        found.append(unknown("section", rung.section, sections, place=place))
    found += [unknown("base", name, bases, place=f"{place}: published") for name in rung.published if name not in bases]
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
    named = [name for name in ALL_STEPS if name not in (SET_ARGS, MODEL)]  # those have keys of their own
    if rung.step is None and index:
        found.append(f"{place}: has no step. Known: {', '.join(named)}.")
    elif rung.step is not None and rung.step not in ALL_STEPS:
        found.append(f"{unknown('step', rung.step, named, place=place)} Your own? Say --steps-module FILE.")
    elif rung.step is not None:
        if rung.match and rung.step in RECIPE_STEPS:
            found.append(f"{place}: step '{rung.step}' leaves the network as it is. Take 'match' out.")
        for base in bases:
            found += _argument_faults(f"{place}: step '{rung.step}'", rung, base, bases)
    return list(dict.fromkeys(str(problem) for problem in found))


def _argument_faults(place: str, rung: RungEntry, base: str, bases: Mapping[str, Base]) -> list[str | UserError]:
    for name, part in rung.parts().items():
        if not isinstance(part, dict) or not set(part) & set(bases):
            continue
        if strange := [other for other in part if other not in bases]:
            return [unknown("base", other, bases, place=f"{place}: {name or 'args'}") for other in strange]
        if name != MODEL and not isinstance(given := part.get(base, {}), dict):
            return [f"{place}: args of {base} are {given!r}, but must be names and values, as in {{size: 7}}."]
    step, arguments = ALL_STEPS[rung.step or ""], arguments_of(rung, base, bases)
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


def arguments_of(rung: RungEntry, base: str, bases: Mapping[str, Base]) -> dict[str, Any]:
    """Return the step's arguments for a base: those under its name, or, where no base is named, all."""

    def own(part: Any) -> Any:
        return part.get(base) or {} if isinstance(part, dict) and set(part) & set(bases) else part

    parts = {name: own(part) for name, part in rung.parts().items()}
    return dict(parts[""]) if "" in parts else parts
