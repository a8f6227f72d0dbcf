"""Measuring the networks of runs as tasks of jobs, part by part, and how far that is on each run."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.common.provenance import find_commit, gpu, processor
from roadmap.common.seeding import seed_step
from roadmap.jobs.tasks import Failure, Setting, Stopped, is_from_outside, read_failure
from roadmap.metrics.own_metrics import OwnMetric
from roadmap.metrics.trained import load_network, read_config, weights_fingerprint
from roadmap.runs import run_folder
from roadmap.runs.attempts import End
from roadmap.runs.claims import Writer
from roadmap.runs.config import RunConfig
from roadmap.runs.metrics import FAILED, OWN_METRICS_VERSION, path_of, read_measured, values_of

SEED = 0  # of the generators that a function may draw from: the same for every network

find_commit_once = cache(find_commit)


class NetworkTask(ABC):
    """Work on the network of a run, done part by part (a `roadmap.jobs.tasks.Task`)."""

    interruptible = True  # each part is written when it is done
    shared_out = False  # among the processes of a job that has several

    @property
    def needs_trained(self) -> bool:
        """Whether the run must be finished before."""
        return True

    @abstractmethod
    def place(self, folder: Path) -> Path:
        """Return the folder inside the run folder in which its claims lie, apart from those of training."""

    @abstractmethod
    def missing(self, folder: Path) -> tuple[str, ...]:
        """Return the parts that are not known yet of the weights that lie there now.

        Raises:
            UserError: If it cannot be done: the weights are gone, say.
        """

    @abstractmethod
    def cost(self, part: str) -> float:
        """Return about how much work a part is, in any unit."""

    @abstractmethod
    def work(
        self, folder: Path, config: RunConfig, setting: Setting, device: str, report: Callable[[str], None]
    ) -> None:
        """Do what is missing, and write each part when it is done.

        Args:
            folder: The run folder.
            config: The run.
            setting: The job's conditions.
            device: "cpu" or "cuda".
            report: To be called before each part with its name; what it raises ends the work.
        """

    def is_done(self, folder: Path) -> bool:
        """Whether every part is there."""
        try:
            return not self.missing(folder)
        except UserError:  # no weights, say; `do` says so
            return False

    def failure(self, folder: Path) -> Failure | None:
        """Return the note of a failure."""
        return read_failure(self.place(folder) / FAILED)

    def do(self, folder: Path, setting: Setting) -> tuple[End, str]:
        """Do what is missing."""
        import torch

        from roadmap.common.machine import choose_device

        def go_on(part: str) -> None:
            if setting.asked() in ("stop", "leave"):
                raise Stopped
            say(f"{folder.name}: {part}")

        torch.set_num_threads(setting.threads)
        self.work(folder, read_config(folder), setting, choose_device(), go_on)
        return "finished", "evaluated"

    def fail(self, writer: Writer, reason: str, wall_s: float | None = None) -> None:
        """Note why."""
        reason = reason.removeprefix("UserError: ")
        say(f"{writer.folder.parent.name}: not evaluated: {reason}")
        writer.write_json(writer.folder / FAILED, {"error": reason})


@dataclass(frozen=True)
class OwnMetricsTask(NetworkTask):
    """Measuring a trained network with functions of a user's own; a part is a function."""

    metrics: tuple[OwnMetric, ...]

    def place(self, folder: Path) -> Path:
        """See `NetworkTask`."""
        return folder / run_folder.OWN_METRICS

    def missing(self, folder: Path) -> tuple[str, ...]:
        """See `NetworkTask`."""
        return tuple(str(metric) for metric in self._missing(folder, weights_fingerprint(folder, read_config(folder))))

    def _missing(self, folder: Path, weights: str) -> list[OwnMetric]:
        found = {metric: read_measured(path_of(folder, metric.function, metric.fingerprint)) for metric in self.metrics}
        return [metric for metric, content in found.items() if not content or content["weights_fingerprint"] != weights]

    def cost(self, part: str) -> float:
        """See `NetworkTask`."""
        return 1.0

    def work(
        self, folder: Path, config: RunConfig, setting: Setting, device: str, report: Callable[[str], None]
    ) -> None:
        """Measure with one function after the other; one that fails does not stop the others.

        Raises:
            UserError: If any failed, with the reason of each.
        """
        from roadmap.data.batches import decoding_workers, load_data

        fingerprint, failed = weights_fingerprint(folder, config), []
        data = load_data(config, setting.data_root, device, decoding_workers(setting.threads, device))
        for metric in self._missing(folder, fingerprint):
            report(str(metric))
            try:
                content = _measure(metric, folder, config, data, device)
            except (Exception, SystemExit) as error:  # a function may raise what it likes
                if is_from_outside(error):
                    raise
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                failed.append(f"{metric}: {kind}{' '.join(str(error).split())}")
                continue
            content |= {"own_metrics_version": OWN_METRICS_VERSION, "weights_fingerprint": fingerprint}
            setting.writer.write_json(path_of(folder, metric.function, metric.fingerprint), content)
        if failed:
            raise UserError("; ".join(failed))


def _measure(metric: OwnMetric, folder: Path, config: RunConfig, data: Any, device: str) -> dict[str, Any]:
    """Return what a function measures of a run's network, which is its own to change."""
    function, metrics = metric.load()
    network = load_network(folder, config, device)
    wall, cpu = time.monotonic(), time.process_time()
    seed_step(SEED)
    values = values_of(function(network, data), metrics)
    return {
        "function": metric.function,
        "file": str(metric.path),
        "fingerprint": metric.fingerprint,
        "metrics": {name: asdict(about) for name, about in metrics.items()},
        "values": values,
        "wall_s": round(time.monotonic() - wall, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "at": time.time(),
        "commit": find_commit_once(),
        "device": (gpu() if device != "cpu" else None) or processor(),
    }
