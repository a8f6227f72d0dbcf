"""Metrics of a user's own: functions in Python files that measure trained networks, `--metric FILE:FUNCTION`.

    @measures(ood_top1=Metric("OOD top-1 (%)", better=1, margin=0.5))
    def ood(network, data):
        ...
        return 61.2

What it is called with, and what it may return, `roadmap.runs.metrics.measures` says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from roadmap.common.errors import UserError, unknown
from roadmap.common.fingerprints import code_fingerprint
from roadmap.networks.own_layers import load_module
from roadmap.runs.metrics import Metric, declared

PLACE = "--metric"


@dataclass(frozen=True)
class OwnMetric:
    """A function that measures trained networks, as it was when a command was started.

    Attributes:
        path: Its Python file.
        function: Its name there.
        fingerprint: Hash of the file.
        names: What it measures.
    """

    path: Path
    function: str
    fingerprint: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as a user names it."""
        return f"{self.path.name}:{self.function}"

    def load(self) -> tuple[Callable[[Any, Any], Any], Mapping[str, Metric]]:
        """Return the function and what it measures.

        Raises:
            UserError: If its file is gone or another one now, or cannot be imported.
        """
        if (found := _hash(self.path)) != self.fingerprint:
            raise UserError(
                f"{self.path}: has changed since the command was started (fingerprint {found}, not "
                f"{self.fingerprint}). Start the same command again, which measures with what it is now."
            )
        function = getattr(load_module(self.path, self.fingerprint), self.function)
        return function, declared(function) or {}


def find_metric(place: str, taken: Mapping[str, object]) -> OwnMetric:
    """Return a metric of a user's own, having imported its file.

    Args:
        place: FILE:FUNCTION.
        taken: Names that other metrics have.

    Raises:
        UserError: If there is no such file or function, or it does not declare what it measures, or under a name that
            is taken.
    """
    file, _, name = place.rpartition(":")
    if not file.endswith(".py") or not name:
        raise UserError(f"{PLACE}: '{place}' names no function. Say FILE:FUNCTION, such as my_metrics.py:ood_top1.")
    path = Path(file).resolve()
    fingerprint = _hash(path)
    module = load_module(path)
    known = _functions(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise unknown("function", name, known or ["none"], place=f"{PLACE} {file}")
    metrics = declared(function)
    if metrics is None:
        raise UserError(
            f"{PLACE} {place}: does not say what it measures. Write @measures({name}=Metric('...')) above it, with "
            "'from roadmap import Metric, measures'."
        )
    for metric in metrics:
        if metric in taken:
            raise UserError(f"{PLACE} {place}: '{metric}' is another metric already. Give yours a name of its own.")
    return OwnMetric(path, name, fingerprint, tuple(metrics))


def _functions(module: ModuleType) -> list[str]:
    """Return the names of the functions of a module that declare what they measure."""
    return [name for name, value in vars(module).items() if declared(value) is not None]


def _hash(path: Path) -> str:
    try:
        return code_fingerprint(path)
    except OSError as error:
        raise UserError(f"{PLACE} {path}: cannot be read ({error.strerror}). Say where the file is.") from error
