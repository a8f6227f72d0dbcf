"""The fields of frozen configurations: flat, compared, and those that enter a run's id.

A field says by its metadata how it enters an id: `LATER` or `PLACE`; most have none and always enter.
"""

import dataclasses
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt

# Numbers as a file must have them: 3, not "3" nor true.
PositiveInt = Annotated[StrictInt, Field(gt=0)]
PositiveFloat = Annotated[StrictFloat, Field(gt=0)]

# Came after runs had been named: enters an id only where it is not at its default, so that those keep their names.
LATER = {"later": True}
# Says where something lies, not what it is: never enters an id.
PLACE = {"place": True}


def flatten(config: Any) -> dict[str, Any]:
    """Return every field of a (nested) dataclass under its dotted name, such as `block.act`.

    What only may be a dataclass, such as a layer of a user's own, is one value.
    """
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(field.default):
            flat |= {f"{field.name}.{name}": inner for name, inner in flatten(value).items()}
        else:
            flat[field.name] = value
    return flat


def hashed_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a (nested) dataclass that enter a run's id."""
    hashed: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("place") or (field.metadata.get("later") and value == field.default):
            continue
        hashed[field.name] = _hashed(value)
    return hashed


def _hashed(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_hashed(part) for part in value)
    return hashed_fields(value) if dataclasses.is_dataclass(value) else value


def diff(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two configs of one class differ: dotted name -> (before, after)."""
    old, new = flatten(before), flatten(after)
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}
