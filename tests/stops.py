"""A worker that stands still before one of its changes to files, while another takes its run over and finishes it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from roadmap.common import files
from roadmap.jobs import worker
from roadmap.runs import attempts, run_folder
from roadmap.runs.config import RunConfig
from tests.processes import fork, wait_for

When = Callable[[int, str], bool]

# What changes files, as Python's audit events call it; `open` does where it is for writing.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.utime", "open")


class Stop:
    """Calls a function once, right before a change that this process makes to a folder.

    Args:
        folder: The folder.
        when: Says whether a change is the one, by its number, from 0, and what it is ("os.rename result.json").
        then: The function.

    Attributes:
        changes: The changes so far.
        came: Whether the function was called.
    """

    _now: "Stop | None" = None
    _is_installed = False

    def __init__(self, folder: Path, when: When, then: Callable[[], object]) -> None:
        self.folder, self.when, self.then = str(folder), when, then
        self.changes: list[str] = []
        self.came = False

    def __enter__(self) -> "Stop":
        if not Stop._is_installed:
            sys.addaudithook(_look)  # which cannot be taken away again
            Stop._is_installed = True
        Stop._now = self
        return self

    def __exit__(self, *_: object) -> None:
        Stop._now = None

    def look(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note a change, and call the function if it is the one."""
        if event not in CHANGES or (event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))):
            return
        paths = [os.fspath(path) for path in arguments[:2] if isinstance(path, str | os.PathLike)]
        if not paths or not str(paths[0]).startswith(self.folder):
            return
        named = paths[-1] if event in ("os.rename", "os.link") else paths[0]
        self.changes.append(f"{event} {Path(named).name}")
        if not self.came and self.when(len(self.changes) - 1, self.changes[-1]):
            self.came = True
            Stop._now = None  # what the function changes does not count
            try:
                self.then()
            finally:
                Stop._now = self


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if Stop._now is not None:
        Stop._now.look(event, arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a folder holds, file by file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def of_the_run(folder: Path) -> dict[str, bytes]:
    """Return the files of a run folder but those that say who worked on it."""
    return {name: content for name, content in contents(folder).items() if not name.startswith(attempts.ATTEMPTS)}


def stop_and_continue(config: RunConfig, place: Path, images: Path, when: When) -> tuple[bool, dict[str, bytes]]:
    """Stop the process of a job before a change; let a job of another machine take over and finish; continue the first.

    Returns:
        Whether there was such a change, and the run's files as the second left them (as the first did, without one).
    """
    folder = place / config.id
    folder.mkdir(parents=True)
    files.write_json(folder / run_folder.RUN, {"config": config.to_json()})
    first = fork(_work_and_stop, folder, images, when)
    pid = first.pid or 0
    wait_for(lambda: first.exitcode is not None or attempts._state(pid) == "T", what="the stop", timeout_s=300)
    if first.exitcode is not None:
        return False, of_the_run(folder)
    second = fork(_take_over, folder, images)
    second.join(300)
    left = of_the_run(folder)
    assert second.exitcode == 0
    os.kill(pid, signal.SIGCONT)
    first.join(300)
    assert first.exitcode == 0
    return True, left


def _work_and_stop(folder: Path, images: Path, when: When) -> None:
    attempts._space = lambda: "the first machine"  # type: ignore[assignment]
    # To this very thread, which a signal to the process may leave running for a moment.
    with Stop(folder, when, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)):
        worker.Job((folder,), images)()


def _take_over(folder: Path, images: Path) -> None:
    attempts._space = lambda: "the second machine"  # type: ignore[assignment]
    attempts.STALE_S = worker.STALE_S = 0.5
    while not run_folder.is_done(folder):
        worker.Job((folder,), images)()
        time.sleep(0.1)


class AtNumber:
    """The change of a number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, number: int, _: str) -> bool:
        return number == self.number


class AtChange:
    """The first change of a kind, such as "os.rename result.json"."""

    def __init__(self, change: str) -> None:
        self.change = change

    def __call__(self, _: int, change: str) -> bool:
        return change == self.change
