"""Real processes that tests start, signal and wait for: training runs and command lines; and what they leave behind.

They are forked from a server that has imported torch and its kin already, and what the tests' functions need, so that
one costs no seconds to start.
"""

import hashlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, set_start_method
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from roadmap.runs import run_folder
from roadmap.runs.attempts import ATTEMPTS, Worker, last_attempt
from roadmap.runs.claims import Writer
from roadmap.runs.config import RunConfig

Left = tuple[str, str, list[dict[str, Any]], dict[str, Any]]
TESTS = Path(__file__).parent
ROOT = TESTS.parent
STOPPED = 3

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload([
    "tests", "torch", "timm.data", "timm.optim", "timm.scheduler", "timm.utils", "submitit", "pandas", "scipy.stats",
    "matplotlib.pyplot", "rich.live", "pytest", "hypothesis", "roadmap.cli.run_commands", "roadmap.data.augmentation",
    "roadmap.jobs.worker", "roadmap.networks.cost", "roadmap.training.loop", "roadmap.training.parallel",
    "analysis.report.write", "tests.conftest", "tests.samples",
])  # fmt: skip


def fork(target: Callable[..., None], *args: Any) -> ForkServerProcess:
    """Start a function of a module of the tests in a process of its own."""
    process = _FORKS.Process(target=_call, args=(dict(os.environ), target, *args))
    process.start()
    return process


def _call(environment: dict[str, str], target: Callable[..., None], *args: Any) -> None:
    os.environ.clear()  # the server's is that of its start
    os.environ.update(environment)
    set_start_method(None, force=True)  # whatever it starts in its turn, it starts as any other process would
    target(*args)


def wait_for(condition: Callable[[], Any], *, what: str, timeout_s: float = 60.0) -> Any:
    """Return what a condition gives as soon as it is true, or one part in fifty later.

    Who looked as often after a minute as in the first moment would take a core from what he waits for.
    """
    start = time.monotonic()
    while (waited := time.monotonic() - start) < timeout_s:
        if found := condition():
            return found
        time.sleep(max(0.01, min(waited / 50, 1.0)))
    raise AssertionError(f"waited {timeout_s:.0f} s for {what}")


def worker_of(folder: Path) -> Worker | None:
    """Return who made a run's last attempt; None before the first."""
    last = last_attempt(folder)
    return last.worker() if last else None


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int | None
    out: str
    err: str

    def rows(self) -> list[dict[str, Any]]:
        """Return what `--json` printed."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """`python run_ladder.py ARGUMENTS`, running in a folder; its output goes to files beside it.

    `cores` is what it takes the machine to have, so that its jobs have as many threads everywhere.
    """

    def __init__(self, folder: Path, *arguments: str, cores: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder.parent / f"{folder.name}-{time.monotonic_ns()}"
        self.files = stem.with_suffix(".out"), stem.with_suffix(".err")
        self.process = fork(_run_ladder, folder, arguments, *self.files, cores)

    @property
    def pid(self) -> int:
        """The command's number and that of its process group, to which its jobs belong."""
        assert self.process.pid
        return self.process.pid

    def wait(self, timeout_s: float = 120.0) -> Outcome:
        """Return its outcome when it has ended."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, f"still running after {timeout_s} s: {self.files[0].read_text()}"
        return Outcome(self.process.exitcode, *(file.read_text() for file in self.files))


def _run_ladder(folder: Path, arguments: tuple[str, ...], out: Path, err: Path, cores: int | None) -> None:
    for number, file in enumerate((out, err), start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.setsid()  # a process group of its own, as in a terminal
    if cores:
        os.sched_getaffinity = lambda _: set(range(cores))
    sys.argv = ["run_ladder.py", *arguments]
    runpy.run_path(str(ROOT / "run_ladder.py"), run_name="__main__")


def start_training(config: RunConfig, folder: Path, root: Path, *, save_every_step: bool = False) -> ForkServerProcess:
    """Start `train` in a process that stops as a job does when it is sent SIGTERM (exit code `STOPPED`)."""
    folder.mkdir(parents=True, exist_ok=True)
    return fork(_train, config, folder, root, save_every_step)


def _train(config: RunConfig, folder: Path, root: Path, save_every_step: bool) -> None:
    from roadmap.training import loop as module

    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    module.LOOK_EVERY_S = 0.0
    options = {"save_every_s": 0.0} if save_every_step else {}
    try:
        module.train(config, folder, data_root=root, asked=lambda: "stop" if asked else "", **options)
    except module.Stopped:
        sys.exit(STOPPED)


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """Write a run's files without a claim."""
    writer = Writer(folder)
    writer.open()
    try:
        yield writer
    finally:
        writer.close()


def outcome(folder: Path) -> Left:
    """Return all that a run leaves but times: weights, predictions, epochs, row; fail at a file too many or too few."""
    row = run_folder.read_result(folder)
    assert row is not None
    trained = {run_folder.WEIGHTS, *([run_folder.EMA_WEIGHTS] if row["top1_ema"] is not None else [])}
    files = {file.name for file in folder.iterdir()} - {run_folder.RUN, ATTEMPTS}
    assert files == {run_folder.METRICS, run_folder.PROGRESS, run_folder.RESULT, run_folder.PREDICTIONS, *trained}
    weights, predictions = (
        hashlib.sha256(b"".join((folder / name).read_bytes() for name in sorted(names))).hexdigest()
        for names in (trained, {run_folder.PREDICTIONS})
    )
    return weights, predictions, [_without_times(line) for line in run_folder.read_metrics(folder)], _without_times(row)


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column not in ("images_per_s", "train_s", "wall_s")}
