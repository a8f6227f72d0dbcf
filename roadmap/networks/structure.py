"""Matching the tensors of a state dict whose names nobody knows with ours, by shapes and places.

A module is matched with one of ours that has the same tensors. What is numbered, as the entries of a list of modules
are, stands in the order in which it computes; a role in a block (such as ".convs.1") is the same role in all blocks;
and where several ways remain, modules that stand together here stand together there. If more than one way is left,
nothing is matched: a guess would load and compute something else.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig

PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
Shape = tuple[int | None, ...]
Module = Mapping[str, Shape]  # the shape of each tensor of a module, without num_batches_tracked; None fits any size
Place = tuple[int, ...]  # of a block: stage and number
Role = Mapping[Place, Module]  # what stands at one place of the blocks, or (at the place ()) outside of them
MOST_WAYS = 1000  # matches that are looked at
CANNOT = "Rename the tensors as one of the known code bases does, or load them where they come from."


@dataclass(frozen=True)
class Parts:
    """A state dict taken apart: its roles in blocks and outside of them, each in the order of the state dict."""

    blocks: Mapping[str, Role]
    rest: Mapping[str, Role]
    prefixes: Mapping[Place, str]  # a module's name is prefix + role


def match_structure(
    theirs: Mapping[str, tuple[int, ...]], ours: Mapping[str, Tensor], net: NetConfig
) -> dict[str, str]:
    """Return their name of each of our tensors.

    Args:
        theirs: The shapes of their tensors by name.
        ours: Our state dict of the network; the classes and the channels of images may be others.
        net: The network.

    Raises:
        UserError: If the tensors are those of another network, or can be matched in several ways.
    """
    shapes: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    shapes |= {name: (None, *shapes[name][1:]) for name in ("head.weight", "head.bias") if name in shapes}
    first = next(iter(shapes))  # the convolution that sees the image
    if len(shapes[first]) == 4:
        shapes[first] = (shapes[first][0], None, *shapes[first][2:])
    mine, ways, errors = next(_taken_apart(_modules_of(shapes), net)), [], []
    for parts in _taken_apart(_modules_of(theirs), net):
        try:
            ways.append((parts, _match(mine.blocks, parts.blocks), _match(mine.rest, parts.rest)))
        except UserError as error:
            errors.append(error)
    if not ways:
        raise (
            errors[0]
            if errors
            else UserError(
                f"weights: names like {_some(theirs)} are unknown, and no tensors are numbered like the blocks of this "
                f"network, {' + '.join(map(str, net.depths))}. Give those of this rung, or of a known code base."
            )
        )
    if len(ways) > 1:
        raise UserError(f"weights: which tensors are those of the blocks is not clear from names like {_some(theirs)}. "
                        f"{CANNOT}")  # fmt: skip
    parts, in_blocks, outside = ways[0]
    modules = {
        mine.prefixes[place] + role: parts.prefixes[place] + other
        for matched, roles in ((in_blocks, mine.blocks), (outside, mine.rest))
        for role, other in matched.items()
        for place in roles[role]
    }
    return {name: _renamed(name, modules) for name in ours}


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    if name in modules:  # a parameter by itself
        return modules[name]
    module, _, part = name.rpartition(".")
    return f"{modules[module]}.{part}"


def _modules_of(shapes: Mapping[str, Shape]) -> dict[str, dict[str, Shape]]:
    """Return the tensors of each module; a parameter that is no weight or bias is a module by itself."""
    modules: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        module, _, part = name.rpartition(".")
        if part not in PARTS:
            module, part = name, ""
        if part != "num_batches_tracked":
            modules.setdefault(module, {})[part] = _usual(shape)
    return modules


def _usual(shape: Shape) -> Shape:
    """Return a shape as a convolution's where it is a linear layer's, (out, in), and (C,) where it is (C, 1, 1)."""
    if len(shape) == 3 and shape[1:] == (1, 1):
        return shape[:1]
    return (*shape, 1, 1) if len(shape) == 2 else shape


def _taken_apart(modules: Mapping[str, Module], net: NetConfig) -> Iterator[Parts]:
    """Yield each way to find the blocks of a network: numbered by stage and block, or all in one row."""
    grid = [(stage, block) for stage, depth in enumerate(net.depths) for block in range(depth)]
    for numbers in (2, 1):
        groups: dict[tuple[str, ...], dict[tuple[int, ...], dict[str, str]]] = {}
        for name in modules:
            words = re.split(r"(\d+)", name, maxsplit=numbers)
            if len(words) == 2 * numbers + 1:
                place = tuple(map(int, words[1::2]))
                groups.setdefault(tuple(words[:-1:2]), {}).setdefault(place, {})[words[-1]] = name
        for key, group in groups.items():
            found = sorted(group)
            depths = [sum(place[0] == stage for place in found) for stage in sorted({place[0] for place in found})]
            if (numbers == 2 and depths == list(net.depths)) or (numbers == 1 and len(found) == len(grid)):
                places = dict(zip(found, grid, strict=True))
                blocks: dict[str, dict[Place, Module]] = {}
                inside = set()
                for place, roles in group.items():
                    for role, name in roles.items():
                        blocks.setdefault(role, {})[places[place]] = modules[name]
                        inside.add(name)
                outside: Place = ()
                rest = {name: {outside: module} for name, module in modules.items() if name not in inside}
                prefixes: dict[Place, str] = {
                    ours: "".join(text + str(number) for text, number in zip(key, place, strict=True))
                    for place, ours in places.items()
                }
                yield Parts(blocks, rest, prefixes | {outside: ""})


def _match(ours: Mapping[str, Role], theirs: Mapping[str, Role]) -> dict[str, str]:
    """Return their role of each of ours."""
    candidates = {role: [other for other in theirs if _fit(ours[role], theirs[other])] for role in ours}
    lonely = [role for role, others in candidates.items() if not others]
    strange = [other for other in theirs if not any(other in others for others in candidates.values())]
    if lonely or strange or len(ours) != len(theirs):
        raise UserError(
            f"weights: of another network: of ours, nothing fits {_some(lonely)}; of theirs, {_some(strange)} fit "
            f"nothing ({len(ours)} and {len(theirs)} kinds of modules). Give those of this rung."
        )
    ways = []
    for way in _ways(list(ours), candidates, {}):
        ways.append((_together(way), way))
        if len(ways) > MOST_WAYS:
            break
    most = max((score for score, _ in ways), default=0)
    best = [way for score, way in ways if score == most]
    if not best or len(ways) > MOST_WAYS or len(best) > 1:
        unclear = [role for role in ours if len({way[role] for way in best}) != 1]
        raise UserError(
            f"weights: our {_some(unclear)} could each be several of theirs, such as "
            f"{_some(candidates[unclear[0]])}, and neither shapes nor places tell which. {CANNOT}"
        )
    return best[0]


def _fit(one: Role, other: Role) -> bool:
    """Say whether two roles stand at the same places with tensors of the same shapes."""
    return one.keys() == other.keys() and all(_same(one[place], other[place]) for place in one)


def _same(one: Module, other: Module) -> bool:
    return one.keys() == other.keys() and all(
        len(one[part]) == len(other[part])
        and all(a is None or a == b for a, b in zip(one[part], other[part], strict=True))
        for part in one
    )


def _ways(
    roles: Sequence[str], candidates: Mapping[str, Sequence[str]], way: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Yield each assignment of one candidate to each role in which what is numbered keeps its order."""
    if len(way) == len(roles):
        yield dict(way)
        return
    role = roles[len(way)]
    for other in candidates[role]:
        text, numbers = _numbered(other)
        if other in way.values() or any(
            before_text == text and before > numbers for before_text, before in map(_numbered, way.values())
        ):
            continue
        yield from _ways(roles, candidates, {**way, role: other})


def _numbered(name: str) -> tuple[str, tuple[int, ...]]:
    """Return a name without its numbers, and these."""
    return re.sub(r"\d+", "#", name), tuple(map(int, re.findall(r"\d+", name)))


def _together(way: Mapping[str, str]) -> int:
    """Return how many pairs of modules that stand in one module here stand in one there."""
    pairs = [(a, b) for a in way for b in way if a < b and _parent(a) == _parent(b)]
    return sum(_parent(way[a]) == _parent(way[b]) for a, b in pairs)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _some(names: Collection[str]) -> str:
    shown = [f"'{name.lstrip('.')}'" for name in list(names)[:2]]
    return f"{', '.join(shown)}{' and others' if len(names) > 2 else ''}" if names else "none"
