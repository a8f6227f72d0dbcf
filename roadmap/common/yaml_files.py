"""Strict reading of YAML: all errors at once, each with file, line, what was found, what is allowed."""

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from roadmap.common.errors import Misfits, UserError

T = TypeVar("T")

# The keys that each part of a file has, by the key that such parts stand under; "" for the file itself.
Keys = Mapping[str, Sequence[str]]


class _Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does: 0123, 16:00 and 2026-01-01 are text; to YAML 1.1 they are 83, 960 and a date."""


_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float", "timestamp")
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def read_yaml(path: Path, kind: type[T], keys: Keys) -> T:
    """Read a YAML file as a pydantic type.

    Args:
        path: The file.
        kind: What it describes.
        keys: Its keys, for the reader who misspelt one.

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
        root = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        begin = f" in what begins on line {error.context_mark.line + 1}" if error.context_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}{begin}. Mend it there.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or number that is none
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path}: not valid YAML: {reason}. Mend it there.") from error
    if root is None:
        raise UserError(f"{path}: is empty. Its keys: {', '.join(keys[''])}.")
    if doubles := list(_doubled_keys(root)):
        raise UserError("\n".join(f"{path}:{line}: key '{key}' stands twice. Keep one." for line, key in doubles))
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise UserError(explain(error, str(path), keys, root)) from error


def explain(error: ValidationError, path: str, keys: Keys, root: yaml.Node | None = None) -> str:
    """Return a validation error as one line a misfit, with the line of the file where `root` is given."""

    def place(names: Sequence[str | int]) -> str:
        line = _line(root, names) if root is not None else None
        return f"{path}:{line}" if line else path

    lines = []
    for item in error.errors():
        names = [part for part in item["loc"] if part != "function-before" and not str(part).startswith("tagged-")]
        where = ".".join(str(name) for name in names) or "the file"
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Misfits):
            lines += [f"{place([*names, *more])}: {text}" for more, text in cause.misfits]
        elif isinstance(cause, UserError):
            lines.append(f"{place(names)}: {cause}")
        elif item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            lines.append(f"{place(names)}: unknown key '{where}'.{_nearest(names, keys)}")
        elif item["type"] in ("missing", "missing_argument"):
            lines.append(f"{place(names)}: key '{where}' is missing.")
        else:
            lines.append(f"{place(names)}: {where} is {reprlib.repr(item['input'])}: {item['msg'].rstrip('.')}.")
    return "\n".join(lines)


def _nearest(names: Sequence[str | int], keys: Keys) -> str:
    fields = keys[next((str(name) for name in reversed(names[:-1]) if name in keys), "")]
    near = difflib.get_close_matches(str(names[-1]), fields, n=1)
    return f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(fields)}."


def _line(node: yaml.Node, names: Sequence[str | int]) -> int | None:
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


def _doubled_keys(node: yaml.Node, above: tuple[yaml.Node, ...] = ()) -> Iterator[tuple[int, str]]:
    if node in above:  # an alias of what it stands in
        return
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _doubled_keys(value, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _doubled_keys(value, (*above, node))
