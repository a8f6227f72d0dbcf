"""Strict reading of YAML: all errors at once, each with file, line, what was found, what is allowed."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from roadmap.errors import UserError

T = TypeVar("T")


def read_yaml(path: Path, kind: type[T]) -> T:
    """Read a YAML file as a pydantic type.

    Raises:
        UserError: If the file is missing, is no YAML (with the line), names a key twice, or does not fit the type; all
            misfits come in one message.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"{path}: cannot be read ({reason}).") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}. Mend that line.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}.") from error
    if doubles := list(_doubled_keys(root)):
        raise UserError("\n".join(f"{path}:{line}: key '{key}' stands twice. Keep one." for line, key in doubles))
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise UserError(explain(error, str(path), root)) from error


def explain(error: ValidationError, path: str, root: yaml.Node | None = None) -> str:
    """Return a validation error as one line a misfit, with the line of the file where `root` is given."""
    lines = []
    for item in error.errors():
        names = [part for part in item["loc"] if part != "function-before" and not str(part).startswith("tagged-")]
        line = f":{found}" if root is not None and (found := _line(root, names)) else ""
        where = ".".join(str(name) for name in names) or "the file"
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            lines.append(f"{path}{line}: unknown key '{where}'.{_nearest(error, item['loc'])}")
        elif item["type"] in ("missing", "missing_argument"):
            lines.append(f"{path}{line}: key '{where}' is missing.")
        else:
            lines.append(f"{path}{line}: {where} is {item['input']!r}: {_rule(item)}.")
    return "\n".join(lines)


def _rule(item: Any) -> str:
    cause = item.get("ctx", {}).get("error")
    return str(cause or item["msg"]).rstrip(".")


def _nearest(error: ValidationError, loc: tuple[int | str, ...]) -> str:
    import roadmap.ladder as ladder
    import roadmap.recipe as recipe

    known = {name: fields for module in (ladder, recipe) for name, fields in module.KEYS.items()}
    fields = known.get(error.title, sorted({field for names in known.values() for field in names}))
    near = difflib.get_close_matches(str(loc[-1]), fields, n=1)
    return f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(fields)}."


def _line(node: yaml.Node, names: list[int | str]) -> int | None:
    """Return the line on which the value under these keys begins, or that of the nearest node above it."""
    line = None
    for name in names:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(name)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
            node = node.value[name]
            line = node.start_mark.line + 1
    return line


def _doubled_keys(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _doubled_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _doubled_keys(value)
