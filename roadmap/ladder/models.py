"""The networks that a ladder's file names: "timm:NAME", or "FILE.py:FUNCTION"."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roadmap.common.errors import UserError, unknown
from roadmap.common.fingerprints import checksum
from roadmap.networks.config import NetConfig
from roadmap.networks.nets import TIMM, FactoryNet, Net, TimmNet
from roadmap.networks.own_layers import FINGERPRINT_LENGTH, load_module
from roadmap.networks.proxies import ArgsProxy, freeze


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
    fingerprint = checksum(path)[:FINGERPRINT_LENGTH]
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
