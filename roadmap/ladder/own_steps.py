"""Steps of a user's own: a Python file, `--steps-module my_steps.py`."""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from roadmap.common.errors import UserError
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.steps import ALL_STEPS, NET_STEPS
from roadmap.networks.nets import ModelStep, Net, change
from roadmap.networks.own_layers import fingerprint_of, load_module
from roadmap.networks.proxies import freeze


def load_steps(path: str | Path) -> list[str]:
    """Read a file of steps and have ladders know them; return their names.

    Steps are the public functions that the file defines whose first parameter is annotated `NetConfig` (or another kind
    of network of `roadmap.networks.nets`), `torch.nn.Module` or `Recipe`. Those on modules are recorded, and called
    where the network is built.

    Raises:
        UserError: If the file cannot be imported, has no steps, or one with the name of another.
    """
    from roadmap.recipe import Recipe

    tables: dict[Any, dict[str, Any]] = {kind: NET_STEPS for kind in (Net, *get_args(Net))} | {Recipe: RECIPE_STEPS}
    module, names = load_module(Path(path)), []
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("_") or function.__module__ != module.__name__:
            continue
        try:
            hints = get_type_hints(function)
        except NameError as error:
            raise UserError(f"{path}: step '{name}': {error} in its annotations. Import it.") from error
        except Exception as error:  # annotations may be any text
            raise UserError(
                f"{path}: step '{name}': its annotations cannot be read ({error}). Correct them."
            ) from error
        hint = hints.get(next(iter(inspect.signature(function).parameters), ""))
        step: Callable[..., Any] = function
        table = tables.get(hint)
        if _is_module(hint):
            step, table = _recorded(function, str(Path(path).resolve()), fingerprint_of(module)), NET_STEPS
        if table is None:
            continue
        if name in ALL_STEPS and ALL_STEPS[name].__module__ != module.__name__:
            raise UserError(f"{path}: step '{name}' has the name of another step. Give yours a name of its own.")
        table[name] = ALL_STEPS[name] = step
        names.append(name)
    if not names:
        raise UserError(
            f"{path}: has no steps. A step is a public function whose first parameter is annotated: 'net: NetConfig', "
            "'model: nn.Module', or 'recipe: Recipe'."
        )
    return names


def is_recorded(step: Callable[..., Any]) -> bool:
    """Say whether a step is a function on modules, which is called where a network is built."""
    return hasattr(step, "__wrapped__")


def _is_module(hint: object) -> bool:
    """Say whether an annotation is `torch.nn.Module`; a file that has one has imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and hint is torch.nn.Module


def _recorded(function: Callable[..., Any], path: str, fingerprint: str) -> Callable[..., Net]:
    """Return the step on a network that a function on its module stands for."""

    @functools.wraps(function)
    def step(net: Net, **arguments: Any) -> Net:
        return change(net, ModelStep(function.__name__, path, fingerprint, freeze(arguments, function.__name__)))

    return step
