"""The ConvNeXt modernization roadmap as a ladder of composable steps; README.md says how to use it.

Importing this package is cheap: torch comes in only with what needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadmap.config import NetConfig
    from roadmap.cost import count_activations, count_macs, count_params
    from roadmap.export import load_model
    from roadmap.ladder import Ladder, read_ladder
    from roadmap.model import build_model
    from roadmap.own import own_layer
    from roadmap.recipe import Recipe
    from roadmap.rung import Rung

__all__ = [
    "Ladder",
    "NetConfig",
    "Recipe",
    "Rung",
    "build_model",
    "count_activations",
    "count_macs",
    "count_params",
    "load_model",
    "own_layer",
    "read_ladder",
]
_HOMES = {
    "Ladder": "ladder",
    "NetConfig": "config",
    "Recipe": "recipe",
    "own_layer": "own",
    "Rung": "rung",
    "read_ladder": "ladder",
    "build_model": "model",
    "count_activations": "cost",
    "count_macs": "cost",
    "count_params": "cost",
    "load_model": "export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'roadmap' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"roadmap.{_HOMES[name]}"), name)
