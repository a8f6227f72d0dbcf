"""The ConvNeXt modernization roadmap as a ladder of composable steps; README.md and docs/ say how to use it.

Importing this package is cheap: torch comes in only with what needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadmap.export.safetensors_files import load_model
    from roadmap.ladder.ladder import Ladder, read_ladder
    from roadmap.ladder.rung import Rung
    from roadmap.networks.config import BlockConfig, NetConfig, change_blocks
    from roadmap.networks.cost import count_activations, count_macs, count_params
    from roadmap.networks.model import build_model
    from roadmap.networks.nets import TimmNet
    from roadmap.networks.own_layers import own_layer
    from roadmap.recipe import Recipe, read_recipe
    from roadmap.runs.metrics import Metric, measures
    from roadmap.study.plan import Study
    from roadmap.study.spec import StudySpec, plan_study
    from roadmap.training import train

_HOMES = {
    "BlockConfig": "networks.config",
    "Ladder": "ladder.ladder",
    "Metric": "runs.metrics",
    "NetConfig": "networks.config",
    "Recipe": "recipe",
    "Rung": "ladder.rung",
    "Study": "study.plan",
    "StudySpec": "study.spec",
    "TimmNet": "networks.nets",
    "change_blocks": "networks.config",
    "build_model": "networks.model",
    "count_activations": "networks.cost",
    "count_macs": "networks.cost",
    "count_params": "networks.cost",
    "load_model": "export.safetensors_files",
    "measures": "runs.metrics",
    "own_layer": "networks.own_layers",
    "plan_study": "study.spec",
    "read_ladder": "ladder.ladder",
    "read_recipe": "recipe",
    "train": "training",
}
__all__ = [
    "BlockConfig",
    "Ladder",
    "Metric",
    "NetConfig",
    "Recipe",
    "Rung",
    "Study",
    "StudySpec",
    "TimmNet",
    "build_model",
    "change_blocks",
    "count_activations",
    "count_macs",
    "count_params",
    "load_model",
    "measures",
    "own_layer",
    "plan_study",
    "read_ladder",
    "read_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'roadmap' has no attribute '{name}'")
    return getattr(import_module(f"roadmap.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
