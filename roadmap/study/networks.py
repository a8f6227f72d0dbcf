"""What is trained in rounds: a study's classifiers, or on these the networks of a task, such as segmenters."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from roadmap.runs import run_folder
from roadmap.runs.metrics import FAILED, path_of, read_measured, task_folder
from roadmap.runs.run_folder import State


class Outcome(NamedTuple):
    """What came of training one network.

    Attributes:
        state: As of a run. A task on a classifier that diverged counts as one that did: it is never trained.
        value: What the network is judged by; NaN where it did not finish.
        device_s: Seconds of one device that it took; None where nothing was trained.
    """

    state: State
    value: float
    device_s: float | None

    @property
    def is_done(self) -> bool:
        """Whether it needs no more training. What failed is tried again."""
        return self.state != "failed"


class Networks(ABC):
    """What is trained in rounds, a network for each rung and seed."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What tells its rounds from others of the same study; empty for the classifiers."""

    @abstractmethod
    def outcome(self, folder: Path) -> Outcome | None:
        """Return what came of the network of a run folder; None where it is still to be trained.

        Raises:
            UserError: If the run's result is damaged, or of another version.
        """

    def is_done(self, folder: Path) -> bool:
        """Whether the network of a run folder needs no more training."""
        outcome = self.outcome(folder)
        return outcome is not None and outcome.is_done


@dataclass(frozen=True)
class Classifiers(Networks):
    """The runs of a study, judged by top-1."""

    name = ""

    def outcome(self, folder: Path) -> Outcome | None:
        """See `Networks`."""
        row = run_folder.read_result(folder)
        if row is None:
            return None
        value = row["top1"] if row["state"] == "finished" else None
        device_s = (row["wall_s"] or 0.0) * (row["processes"] or 1)
        return Outcome(row["state"], math.nan if value is None else value, device_s)


CLASSIFIERS = Classifiers()


@dataclass(frozen=True)
class TaskNetworks(Networks):
    """The networks of a task that is trained on classifiers.

    Attributes:
        task: What the task's outcome is called beside a run.
        fingerprint: Hash of all that decides its numbers beside the run.
        metric: What it is judged by.
    """

    task: str
    fingerprint: str
    metric: str

    @property
    def name(self) -> str:
        """See `Networks`."""
        return f"{self.task}-{self.fingerprint}"

    def outcome(self, folder: Path) -> Outcome | None:
        """See `Networks`."""
        if measured := read_measured(path_of(folder, self.task, self.fingerprint)):
            details = measured.get("details", {})
            device_s = (details.get("wall_s") or 0.0) * details.get("processes", 1)
            return Outcome("finished", measured["values"].get(self.metric, math.nan), device_s)
        if (folder / task_folder(self.task, self.fingerprint) / FAILED).is_file():
            return Outcome("failed", math.nan, 0.0)
        row = run_folder.read_result(folder)
        return Outcome("diverged", math.nan, None) if row and row["state"] == "diverged" else None
