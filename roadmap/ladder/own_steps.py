"""Steps of a user's own: a Python file, `--steps-module my_steps.py`."""

import inspect
from pathlib import Path
from typing import Any, get_type_hints

from roadmap.common.errors import UserError
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.steps import ALL_STEPS, NET_STEPS
from roadmap.networks.config import NetConfig
from roadmap.networks.own_layers import load_module


def load_steps(path: str | Path) -> list[str]:
    """Read a file of steps and have ladders know them; return their names.

    Steps are the public functions that the file defines whose first parameter is annotated `NetConfig` or `Recipe`.

    Raises:
        UserError: If the file cannot be imported, has no steps, or one with the name of another.
    """
    from roadmap.recipe import Recipe

    tables: dict[Any, dict[str, Any]] = {NetConfig: NET_STEPS, Recipe: RECIPE_STEPS}
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
        table = tables.get(hints.get(next(iter(inspect.signature(function).parameters), "")))
        if table is None:
            continue
        if name in ALL_STEPS and ALL_STEPS[name].__module__ != module.__name__:
            raise UserError(f"{path}: step '{name}' has the name of another step. Give yours a name of its own.")
        table[name] = ALL_STEPS[name] = function
        names.append(name)
    if not names:
        raise UserError(
            f"{path}: has no steps. A step is a public function whose first parameter is annotated: 'net: NetConfig', "
            "or 'recipe: Recipe'."
        )
    return names
