"""Steps on any network: other arguments, another network; and how a step is taken on the network that there is.

In a ladder's file they are written `set_args: {...}` and `model: ...` in the place of `step: ...`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, get_args, get_type_hints

from roadmap.common.errors import UserError
from roadmap.ladder.models import read_net
from roadmap.networks.config import NetConfig
from roadmap.networks.nets import ModifiedNet, Net
from roadmap.networks.proxies import freeze

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
