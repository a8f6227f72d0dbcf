"""Strict reading of YAML: all errors at once, each with file, line, what was found, what is allowed."""

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

from roadmap.common.errors import FieldErrors, UserError

T = TypeVar("T")

# The keys that each part of a file has, by the key that such parts stand under; "" for the file itself.
Keys = Mapping[str, Sequence[str]]
FOLDER = "folder"  # pydantic's validators find under this name in their context where the file lies
MOST_DEEP = 100
MOST_VALUES = 100_000  # in a file, with what its aliases repeat: a few lines of nested aliases can stand for billions


# What a plain value is, as in YAML 1.2's JSON schema: on is a word, and so are 0123, 0x1f and 2026-01-01.
_EXPONENT = r"[eE][-+]?[0-9]+"
_PLAIN_VALUES = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": rf"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)({_EXPONENT})?|[0-9]+{_EXPONENT}|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
    "merge": r"<<",
}
_PATTERNS = [(Tag(suffix=f"tag:yaml.org,2002:{name}"), re.compile(text)) for name, text in _PLAIN_VALUES.items()]


class _Resolver(VersionedResolver):
    """Tells plain values apart by `_PLAIN_VALUES`, whatever version of YAML a file names."""

    processing_version = (1, 2)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Return the tag of a node without one."""
        if kind is ScalarNode and implicit[0]:
            return next((tag for tag, pattern in _PATTERNS if pattern.fullmatch(value)), self.DEFAULT_SCALAR_TAG)
        return super().resolve(kind, value, implicit)


class _Constructor(SafeConstructor):
    """Makes numbers, words, lists and mappings; any other tag (a date, a set, a Python object) is an error."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Return what a node stands for.

        Raises:
            ConstructorError: If its tag says otherwise than its text, as in `!!bool maybe`.
        """
        try:
            return super().construct_object(node, deep)
        except (LookupError, ValueError) as error:
            kind = str(node.tag).rpartition(":")[2]
            raise ConstructorError(None, None, f"{reprlib.repr(node.value)} is no {kind}", node.start_mark) from error


_KNOWN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
_Constructor.yaml_constructors = {
    tag: make
    for tag, make in SafeConstructor.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _KNOWN_TAGS
}


def read_yaml(path: Path, kind: type[T], keys: Keys) -> T:
    """Read a YAML file as a pydantic type.

    Args:
        path: The file.
        kind: What it describes.
        keys: Its keys, for the reader who misspelt one.

    Raises:
        UserError: If the file is missing, is no YAML (with the line), names a key twice, or does not fit the type; all
            errors come in one message.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"{path}: cannot be read ({reason}).") from error
    try:
        root, repeated, content = _parse(text)
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = f"nested more than {MOST_DEEP} deep" if isinstance(error, MaxDepthExceededError) else error.problem
        begin = f" in what begins on line {error.context_mark.line + 1}" if error.context_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {problem}{begin}. Correct it there.") from error
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: `_parse` counts too many values
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path}: not valid YAML: {reason}. Correct it there.") from error
    if root is None:
        raise UserError(f"{path}: is empty. Its keys: {', '.join(keys[''])}.")
    if repeated:
        raise UserError("\n".join(f"{path}:{line}: key '{key}' stands twice. Keep one." for line, key in repeated))
    try:
        return TypeAdapter(kind).validate_python(deepcopy(content), context={FOLDER: path.parent})
    except ValidationError as error:
        raise UserError(explain(error, str(path), keys, root)) from error


def write_flow(value: Any) -> str:
    """Return a value as a YAML file has it on one line."""
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = True
    yaml.width = 1_000_000
    yaml.dump(value, text)
    return text.getvalue().removesuffix("...\n").strip()


@lru_cache(maxsize=64)  # a command reads its ladder and its recipe in several places, a quarter of a second each
def _parse(text: str) -> tuple[Node | None, list[tuple[int, str]], Any]:
    """Return the nodes of a YAML text, which know their lines; its repeated keys with theirs; and what it means."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Constructor = _Resolver, _Constructor
    yaml.allow_duplicate_keys = True  # `_repeated_keys` names all of them
    yaml.max_depth = MOST_DEEP  # what is nested deeper takes long to read, and then fails
    root = yaml.compose(text)
    if root is None:
        return None, [], None
    if (values := _count_values(root, {})) > MOST_VALUES:
        raise ValueError(f"its aliases (*) make it {values:.0e} values, of which there may be {MOST_VALUES:,}")
    repeated = list(_repeated_keys(root))
    return root, repeated, yaml.constructor.construct_document(root)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _count_values(node: Node, counted: dict[int, int]) -> int:
    """Count the values of a node, those behind an alias as often as it stands; each node is looked at once."""
    if id(node) not in counted:
        counted[id(node)] = 1  # also for an alias of what it stands in
        counted[id(node)] = 1 + sum(_count_values(child, counted) for child in _children(node))
    return counted[id(node)]


def explain(error: ValidationError, path: str, keys: Keys, root: Node | None = None) -> str:
    """Return a validation error as one line for each error, with the line of the file where `root` is given."""

    def place(names: Sequence[str | int]) -> str:
        line = _line(root, names) if root is not None else None
        return f"{path}:{line}" if line else path

    lines = []
    for item in error.errors():
        names = [part for part in item["loc"] if part != "function-before" and not str(part).startswith("tagged-")]
        where = ".".join(str(name) for name in names) or "the file"
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, FieldErrors):
            lines += [f"{place([*names, *more])}: {text}" for more, text in cause.errors]
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


def _line(node: Node, names: Sequence[str | int]) -> int | None:
    """Return the line on which the value under these keys begins, or that of the nearest node above it."""
    line = None
    for name in names:
        if isinstance(node, MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(name)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, SequenceNode) and isinstance(name, int) and name < len(node.value):
            node = node.value[name]
            line = node.start_mark.line + 1
    return line


def _repeated_keys(root: Node) -> Iterator[tuple[int, str]]:
    """Yield line and name of every key that its mapping has already."""
    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            names = [key.value for key, _ in node.value]
            yield from (
                (key.start_mark.line + 1, str(key.value))
                for place, (key, _) in enumerate(node.value)
                if key.value in names[:place]
            )
        left += _children(node)
