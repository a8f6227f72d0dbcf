"""What a metric is, how a function of a user's own declares what it measures, and what run folders hold of it.

A run folder's own_metrics/ holds a file for each function that measured its network, named after the function and the
hash of the Python file that it was read from: an edited function measures anew, and what it measured before stays.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypeVar

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.runs import run_folder

# Raised when the content of such a file changes; other versions are not read.
OWN_METRICS_VERSION = 1
FAILED = "failed.json"  # beside the claims of work on trained networks: why it failed
MEASURES = "roadmap_measures"  # under this name a function knows what it measures


@dataclass(frozen=True)
class Metric:
    """A quantity that a step can change.

    Attributes:
        label: Its name in tables, with the unit.
        better: 1 where more is better, -1 where less is.
        margin: Changes within it are as good as none, in the metric's unit; with 0 no step is said to have no effect.
        digits: How its values are printed.
        unit: The unit of a change, as a sentence says it; empty where there is none.
        samples: What it was measured over: seeds, or rounds of one process.
    """

    label: str
    better: int = 1
    margin: float = 0.0
    digits: str = ".2f"
    unit: str = "points"
    samples: str = "seeds"

    @property
    def name(self) -> str:
        """What it is called in a sentence: the label without the unit."""
        return self.label.partition(" (")[0]

    def __post_init__(self) -> None:
        """Refuse what is no metric.

        Raises:
            UserError: If a field is not as it must be.
        """
        place = f"Metric '{self.label}'"
        if not isinstance(self.label, str) or not self.label.strip():
            raise UserError(f"{place}: its label is empty. Say what it is called, with its unit: 'OOD top-1 (%)'.")
        if self.better not in (1, -1):
            raise UserError(f"{place}: better is {self.better!r}, but must be 1 (more is better) or -1 (less is).")
        if not is_number(self.margin) or not 0 <= self.margin < math.inf:
            raise UserError(f"{place}: margin is {self.margin!r}, but must be a number from 0 up.")
        try:
            format(0.0, self.digits)
        except (ValueError, TypeError):
            raise UserError(f"{place}: digits are {self.digits!r}, but must be a format such as '.2f'.") from None


class OwnFunction(Protocol):
    """A function that measures trained networks; `roadmap.metrics.own_metrics` says what it is called with."""

    def __call__(self, network: Any, data: Any, /) -> Any:
        """Return a number, or a number for each name that was declared."""


F = TypeVar("F", bound=OwnFunction)


def measures(**metrics: Metric) -> Callable[[F], F]:
    """Declare what a function measures of a trained network, so that `--metric FILE:FUNCTION` can name it.

    The function takes the network (`torch.nn.Module`, in evaluation mode, on its device) and the study's data
    (`roadmap.data.batches.Data`), and returns a number; or, where it measures several, a mapping of their names to
    numbers.

    Args:
        **metrics: Name -> what it is, as in `@measures(ood_top1=Metric("OOD top-1 (%)", margin=0.5))`.

    Returns:
        What declares it and returns the function as it is.

    Raises:
        UserError: If nothing is declared, or something else than a `Metric`.
    """
    if not metrics:
        raise UserError(
            "measures: declares nothing. Say what the function measures, as in measures(ood=Metric('OOD'))."
        )
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise UserError(f"measures: '{name}' is {metric!r}, but must be a Metric, such as Metric('OOD top-1 (%)').")

    def declare(function: F) -> F:
        setattr(function, MEASURES, metrics)
        return function

    return declare


def declared(function: object) -> dict[str, Metric] | None:
    """Return what a function measures: name -> metric; None where it does not say so."""
    return getattr(function, MEASURES, None)


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# -- the files


@with_config(ConfigDict(extra="allow"))
class Measured(TypedDict):
    """What a function measured of a run's network."""

    own_metrics_version: int
    function: str
    file: str
    fingerprint: str  # hash of that file
    weights_fingerprint: str  # hash of the weights that it saw
    at: run_folder.Finite  # when, in seconds
    metrics: dict[str, Metric]
    values: dict[str, run_folder.Finite]
    command: NotRequired[str]  # which measures it of networks that lack it; 'evaluate' unless it says otherwise
    needs_trained: NotRequired[bool]  # whether it says something of a trained classifier; so it does unless it says no
    details: NotRequired[dict[str, Any]]  # what else is known: of a task, how long it took


_MEASURED = TypeAdapter(Measured)


def path_of(folder: Path, function: str, fingerprint: str) -> Path:
    """Return where a run folder holds what a function measured, as its Python file was then."""
    return folder / run_folder.OWN_METRICS / f"{function}-{fingerprint}.json"


def task_folder(task: str, fingerprint: str) -> str:
    """Return what the folder of a task is called that is trained on a run's network, in the run folder."""
    return f"downstream-{task}-{fingerprint}"


def read_measured(path: Path) -> Measured | None:
    """Return what a file of own_metrics/ holds; None where it is missing, damaged, or of another version."""
    content = files.read_as(path, _MEASURED)
    if content is None or content["own_metrics_version"] != OWN_METRICS_VERSION:
        return None
    return content if content["values"].keys() == content["metrics"].keys() else None


def all_measured(folder: Path) -> list[Measured]:
    """Return all that functions of a user's own have measured of a run's network, in the order of their files."""
    found = (read_measured(path) for path in sorted((folder / run_folder.OWN_METRICS).glob("*-*.json")))
    return [content for content in found if content is not None]


def last_measured(folder: Path) -> dict[str, tuple[Metric, float]]:
    """Return each metric that was measured of a run's network, and the value that was measured last."""
    return {
        name: (content["metrics"][name], value)
        for content in sorted(all_measured(folder), key=lambda content: content["at"])
        for name, value in content["values"].items()
    }


def read_failed(folder: Path) -> str:
    """Return why measuring a run's network failed the last time; nothing where it did not."""
    return str((files.read_object(folder / run_folder.OWN_METRICS / FAILED) or {}).get("error", ""))


def values_of(returned: object, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return what a function returned as numbers by their names.

    Raises:
        UserError: If it is something else than a finite number for each metric that the function declares.
    """
    names = ", ".join(metrics)
    if not isinstance(returned, Mapping):
        if len(metrics) > 1:
            raise UserError(
                f"returned {_shown(returned)}, but declares {names}. Return a number for each, by its name."
            )
        returned = {next(iter(metrics)): returned}
    if returned.keys() != metrics.keys():
        found = ", ".join(map(str, returned)) or "nothing"
        raise UserError(f"returned {found}, but declares {names}. Return a number for each of these.")
    return {name: _number(name, returned[name]) for name in metrics}


def _number(name: str, value: object) -> float:
    """Return a number, or the only one in a tensor or an array, as Python's own."""
    try:
        plain = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError, TypeError):  # an array of several
        plain = value
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise UserError(f"{name} is {_shown(value)}, which is no number. Return one number of it.")
    if not files.is_finite(plain):
        raise UserError(f"{name} is {plain}, but must be a finite number. Nothing can be judged with it.")
    return float(plain)


def _shown(value: object) -> str:
    """Return what a value is, short enough for a line."""
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text}" if len(text) < 40 else f"a {type(value).__name__}"
