"""Modules that are not ours: timm's, and what functions of a user's make; their heads, and what they take.

`roadmap.networks.nets` says what they are; `roadmap.networks.model.build_model` builds any network.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from roadmap.common.errors import UserError
from roadmap.common.fingerprints import remember
from roadmap.networks.blocks import make_drop_path
from roadmap.networks.own_layers import load_module

if TYPE_CHECKING:
    from roadmap.networks.nets import FactoryNet, ModelStep, TimmNet

OPTIONAL = "drop_path_rate"  # what networks that have no stochastic depth do not take


def from_timm(net: "TimmNet", num_classes: int, in_channels: int, drop_path: float) -> nn.Module:
    """Build a network of timm's.

    Raises:
        UserError: If timm has none of its name, or it does not take its arguments.
    """
    settings = {"num_classes": num_classes, "in_chans": in_channels}
    if net.accepts(OPTIONAL):
        settings[OPTIONAL] = drop_path  # type: ignore[assignment]
    with _blaming(net.title):
        # Not timm.create_model, which leaves out what is None: that is a value like others.
        return _with_our_drop_path(_timms(net.timm)(**settings | dict(net.args)))


def from_factory(net: "FactoryNet", num_classes: int, in_channels: int, drop_path: float) -> nn.Module:
    """Have a user's function make a network.

    Raises:
        UserError: If its file is not there or is another one now, it does not take its arguments, or makes no module.
    """
    settings = {"num_classes": num_classes, "in_chans": in_channels}
    if net.accepts(OPTIONAL):
        settings[OPTIONAL] = drop_path  # type: ignore[assignment]
    function = _function_of(net.path, net.function, net.fingerprint)
    with _blaming(net.title):
        model = function(**settings | dict(net.args))
    return _with_our_drop_path(_module(model, net.title))


def take_model_step(step: "ModelStep", model: nn.Module) -> nn.Module:
    """Have a user's function change a module, and return what it returns.

    Raises:
        UserError: If its file is not there or is another one now, or it fails, or returns no module.
    """
    function = _function_of(step.path, step.name, step.fingerprint)
    with _blaming(f"step '{step.name}'"):
        changed = function(model, **dict(step.args))
    return _with_our_drop_path(_module(changed, f"step '{step.name}'"))


def parameters_of(net: "TimmNet | FactoryNet") -> frozenset[str]:
    """Return the names that the function of a network takes, and, of timm's, the class behind it."""
    from roadmap.networks.nets import FactoryNet

    if isinstance(net, FactoryNet):
        return frozenset(inspect.signature(_function_of(net.path, net.function, net.fingerprint)).parameters)
    return _parameters_in_timm(net.timm)


@cache
def _parameters_in_timm(name: str) -> frozenset[str]:
    def find() -> str:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _blaming(f"timm:{name}"):
            return " ".join(inspect.signature(type(_timms(name)()).__init__).parameters)

    return frozenset(remember(f"parameters of timm {version('timm')}'s {name}", find).split())


def head_of(model: nn.Module, num_classes: int) -> tuple[str, nn.Module | None]:
    """Return the name and the layer that maps features to classes; of one that does not say, the last linear one.

    Args:
        model: The network.
        num_classes: The outputs that it has.

    Returns:
        The name in the module, such as "head.fc", and the layer; "" and None where there is none.
    """
    names = {id(module): name for name, module in model.named_modules()}
    if hasattr(model, "get_classifier"):
        head: Any = model.get_classifier()  # type: ignore[operator]
        return names.get(id(head), ""), head if isinstance(head, nn.Module) else None
    linear = [
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == num_classes
    ]
    return (names[id(linear[-1])], linear[-1]) if linear else ("", None)


def first_convolution_of(model: nn.Module) -> str:
    """Return the name of the first convolution; "" where there is none."""
    return next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), "")


def features_of(model: nn.Module, num_classes: int) -> int | None:
    """Return the channels that the head sees; None where that is not known."""
    if isinstance(found := getattr(model, "num_features", None), int):
        return found
    _, head = head_of(model, num_classes)
    return head.in_features if isinstance(head, nn.Linear) else None


def _timms(name: str) -> Callable[..., nn.Module]:
    """Return timm's function of a network.

    Raises:
        UserError: If there is none of its name.
    """
    import timm

    if "." in name or not timm.is_model(name):
        known = timm.list_models()
        near = difflib.get_close_matches(name.partition(".")[0], known, n=1)
        hint = f" Did you mean 'timm:{near[0]}'?" if near else ""
        raise UserError(
            f"timm {timm.__version__} has no network '{name}'.{hint} timm.list_models() lists {len(known)}."
        )
    return timm.models.model_entrypoint(name)  # type: ignore[no-any-return]


def _function_of(path: str, name: str, fingerprint: str) -> Callable[..., Any]:
    """Return a function of a user's file.

    Raises:
        UserError: If the file is not there, is another one now, or has no such function.
    """
    function = getattr(load_module(Path(path), fingerprint), name, None)
    if not callable(function):
        raise UserError(f"{path}: has no function '{name}'. Put it there, or name another.")
    return function  # type: ignore[no-any-return]


def _module(made: object, what: str) -> nn.Module:
    if isinstance(made, nn.Module):
        return made
    raise UserError(f"{what}: returns {type(made).__name__}, but must return a torch.nn.Module.")


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Have an error of code that is not ours say where it comes from."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # timm's and users' code may raise what it likes
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(
            f"{what}: cannot be built ({type(error).__name__}: {reason}). Correct its arguments."
        ) from error


def _with_our_drop_path(model: nn.Module) -> nn.Module:
    """Return a module with stochastic depth of ours in place of timm's: several processes draw it together."""
    import timm

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, timm.layers.DropPath):
                setattr(parent, name, make_drop_path(child.drop_prob))
    return model
