"""Networks that a ladder's file names, and steps on any network: other arguments, another network.

In a ladder's file they are written `set_args: {...}` and `model: ...` in the place of `step: ...`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from roadmap.common.errors import UserError, unknown
from roadmap.common.fingerprints import CODE_DIGITS, checksum
from roadmap.networks.config import NetConfig
from roadmap.networks.nets import TIMM, FactoryNet, ModifiedNet, Net, TimmNet
from roadmap.networks.own_layers import load_module
from roadmap.networks.proxies import ArgsProxy, freeze

SET_ARGS, MODEL = "set_args", "model"


def set_args(net: Net, *, args: dict[str, Any], proxy: dict[str, Any]) -> Net:
    """Give the function that makes a network other arguments; those that are not named stay.

    Source: the file that names them.
    """
    return net.set_args(freeze(args, SET_ARGS), freeze(proxy, f"{SET_ARGS}: proxy"))


def model(net: Net, *, model: str, args: dict[str, Any], proxy: dict[str, Any]) -> Net:
    """Take another network, whatever there was before it.

    Source: the file that names it.
    """
    return read_net(model, args, proxy, MODEL)


def take_step(step: Callable[..., Any], net: Net, arguments: dict[str, Any]) -> Net:
    """Return what a step makes of a network; one on our fields reaches under the functions that change a module.

    Raises:
        UserError: If the step takes another kind of network, or makes none.
    """
    kinds = kinds_of(step)
    if isinstance(net, ModifiedNet) and ModifiedNet not in kinds:
        made = take_step(step, net.source, arguments)
        if isinstance(made, ModifiedNet):
            raise UserError(f"step '{step.__name__}' changes a module beneath others that do. Put it before them.")
        return replace(net, source=made)
    if not isinstance(net, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise UserError(
            f"step '{step.__name__}' takes a {wanted}, but the network is {net.title}. Change that by 'set_args', by "
            "'model', or by a function of yours from a torch.nn.Module to one (--steps-module)."
        )
    made = step(net, **arguments)
    if not isinstance(made, Net):
        raise UserError(f"step '{step.__name__}' returns {made!r}, but must return a NetConfig, or another network.")
    return made


@cache
def kinds_of(step: Callable[..., Any]) -> tuple[type, ...]:
    """Return the kinds of network that a step takes, as its first parameter is annotated."""
    first = next(iter(inspect.signature(step).parameters), "")
    hint = get_type_hints(step).get(first, NetConfig)
    return (get_args(hint) or (hint,)) if hint == Net or hint in get_args(Net) else get_args(Net)


def read_net(model: str, args: Mapping[str, Any], proxy: Mapping[str, Any], place: str) -> Net:
    """Return the network that a file names.

    Args:
        model: "timm:NAME", or "FILE.py:FUNCTION" of a function that makes a module, or, if it is annotated so, returns
            a `NetConfig`. That one is called with the arguments alone.
        args: Its arguments.
        proxy: Those that a proxy has in their place.
        place: What names it, for errors.

    Raises:
        UserError: If it names none.
    """
    kept, small = freeze(args, place), ArgsProxy(freeze(proxy, f"{place}: proxy"))
    if model.startswith(TIMM) and model != TIMM:
        return TimmNet(model.removeprefix(TIMM), kept, small)
    file, _, function = model.rpartition(":")
    if not file.endswith(".py"):
        raise UserError(f"{place}: model is '{model}', but must be timm:NAME, or FILE.py:FUNCTION of yours.")
    path = Path(file).resolve()
    fingerprint = checksum(path)[:CODE_DIGITS]
    returned = _annotation_of(path, function, place)
    if returned.rpartition(".")[2] != NetConfig.__name__:
        return FactoryNet(str(path), function, fingerprint, kept, small)
    if proxy:
        raise UserError(
            f"{place}: proxy has arguments, but {function} returns a NetConfig, which a recipe scales itself."
        )
    try:
        net = getattr(load_module(path, fingerprint), function)(**args)
    except TypeError as error:
        raise UserError(
            f"{place}: {path.name}:{function} cannot be called with its args ({error}). Correct them."
        ) from error
    if not isinstance(net, Net):
        raise UserError(f"{place}: {path.name}:{function} returns {net!r}, but is annotated to return a NetConfig.")
    return net


def _annotation_of(path: Path, function: str, place: str) -> str:
    """Return what a function of a file is annotated to return, or ""; nothing is run.

    Raises:
        UserError: If the file has no such function.
    """
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{place}: {path} is no Python file ({error}).") from error
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.unparse(node.returns).strip("'\"") if node.returns else ""
        elif isinstance(node, ast.ClassDef):
            found[node.name] = ""
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name: "" for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id: "" for target in node.targets if isinstance(target, ast.Name)}
    if function not in found:
        raise unknown("function", function, found or ("none",), place=f"{place}: {path.name}")
    return found[function]
