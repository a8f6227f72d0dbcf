"""Attempts: who works on a run and who did, and whether they are still at it.

runs/<run id>/attempts/ holds a file for each time that a job took the run, numbered: 0001.json, 0002.json, ... Making
the file of the next number is the claim (`roadmap.runs.claims`). Its modification time is the heartbeat. When the
attempt ends, how it ended joins its name (0001-preempted.json), which a full disk allows too. An attempt without an end
whose process is gone has died; the next job to come takes the run over.
"""

import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from roadmap.common.errors import UserError
from roadmap.common.fields import PositiveInt
from roadmap.common.files import read_as
from roadmap.common.formats import clock
from roadmap.common.provenance import find_commit, gpu, processor

ATTEMPTS = "attempts"
STALE_S = 120.0  # a heart that is not seen to beat for so long has stopped

End = Literal["finished", "diverged", "failed", "stopped", "preempted", "died"]
Life = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True)
class Worker:
    """The process that makes an attempt.

    Attributes:
        host: Its machine's name.
        space: Within which process numbers mean something: the machine since it was booted, and the container.
        pid: Its process number.
        born: When the process began, in the system's ticks, so that a number used again is not taken for it.
        job: The scheduler's id of its job; None without a scheduler.
        restart: How often the scheduler had started this job before.
        launch: The command that started the job; retries are counted for each command.
        log: Where it writes.
        device: What it computes on.
        commit: Of which commit its program is.
    """

    host: str
    space: str
    pid: PositiveInt  # numbers from 0 down are whole groups of processes
    born: int
    job: str | None = None
    restart: int = 0
    launch: str = ""
    log: str = ""
    device: str = ""
    commit: str = ""

    @classmethod
    def here(cls, launch: str = "", log: str = "", job: str | None = None, restart: int = 0) -> "Worker":
        """Return this process."""
        pid = os.getpid()
        device, commit = gpu() or processor(), find_commit() or ""
        return cls(platform.node(), _space(), pid, _born(pid) or 0, job, restart, launch, log, device, commit)

    @property
    def killed_mark(self) -> Path:
        """Where the job's script says that this start of the job ended by a kill, not by a requeue."""
        return Path(self.log).parent / f"{self.job}.{self.restart}.killed"

    @property
    def job_name(self) -> str:
        """What the scheduler calls its job: a launch's name, which is that of the folder of its logs."""
        return Path(self.log).parent.name

    def is_job(self, number: str, name: str) -> bool:
        """Whether a job of the scheduler is its own; numbers alone start anew when a scheduler is set up again."""
        return self.job == number and (not self.log or self.job_name == name)

    def is_earlier_start_of(self, other: "Worker") -> bool:
        """Whether the scheduler has started the same job anew since, as another worker."""
        same = self.job is not None and other.job is not None and self.is_job(other.job, other.job_name)
        return same and self.restart < other.restart

    def is_here(self) -> bool:
        """Whether its process number means something to us."""
        return self.space == _space()

    def lives(self) -> bool:
        """Whether its process is there; for one that `is_here`. A zombie is not."""
        return _born(self.pid) == self.born


@cache
def _worker_schema() -> TypeAdapter[Worker]:
    return TypeAdapter(Worker)


@cache
def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _state(pid: int) -> str:
    """Return the state of a process of this machine, such as "T" if it is stopped; "" where that is not known."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _born(pid: int) -> int | None:
    """Return when a process began, in ticks since the machine's start; None where it is gone or a zombie."""
    if not Path("/proc/self").exists():  # not Linux: then a living number has to do
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is there and no zombie."""
    return _born(pid) is not None


@dataclass(frozen=True)
class Attempt:
    """One time that a job took a run."""

    path: Path
    number: int
    end: End | None

    def worker(self) -> Worker | None:
        """Return who made it; None where the file is gone, damaged or another's."""
        with suppress(UserError):
            return read_as(self.path, _worker_schema())
        return None

    def beat_age_s(self) -> float:
        """Return the seconds since its last heartbeat, as far as this machine's clock can say."""
        try:
            return time.time() - self.path.stat().st_mtime
        except OSError:
            return float("inf")

    def doubt(self) -> str:
        """Return in words what speaks against its being at work; empty where nothing does."""
        worker, age = self.worker(), self.beat_age_s()
        if worker is not None and worker.is_here() and _state(worker.pid) == "T":
            return f"its process {worker.pid} is stopped ('kill -CONT {worker.pid}' lets it go on)"
        if age > STALE_S:
            return f"no heartbeat for {clock(min(age, 1e9))}"
        return f"its heartbeat is {clock(-age)} ahead of this machine's clock" if age < -STALE_S else ""

    def close(self, end: End) -> None:
        """Note how it ended."""
        with suppress(OSError):  # someone else noted it, or the folder is gone
            self.path.rename(self.path.with_name(f"{self.number:04d}-{end}.json"))


def attempts_of(folder: Path) -> list[Attempt]:
    """Return a run's attempts, first to last."""
    try:
        names = os.listdir(folder / ATTEMPTS)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        number, _, end = name.removesuffix(".json").partition("-")
        if name.endswith(".json") and number.isdecimal():
            found.append(Attempt(folder / ATTEMPTS / name, int(number), end or None))  # type: ignore[arg-type]
    return sorted(found, key=lambda attempt: (attempt.number, attempt.path.name))


def last_attempt(folder: Path) -> Attempt | None:
    """Return a run's last attempt; None before the first."""
    found = attempts_of(folder)
    return found[-1] if found else None


def life_of(attempt: Attempt, in_queue: Callable[[Worker], bool | None]) -> Life:
    """Say whether an attempt's process is still at it.

    A process of this machine is there or not. A job is what the scheduler says of it; where that does not answer, the
    job may be there. Any other is judged by its heart, which must be seen to beat: the clocks of two machines can be
    hours apart, so a heartbeat that is old, or of the future, says nothing before it was watched for `STALE_S`.

    Args:
        attempt: The attempt.
        in_queue: Whether the scheduler still has the worker's job; None where there is none to ask, or no answer.

    Returns:
        alive, dead, or unknown: then ask again later, up to `STALE_S` from now.
    """
    if attempt.end is not None:
        return "dead"
    worker = attempt.worker()
    if worker is not None and worker.is_here():
        return "alive" if worker.lives() else "dead"
    if worker is not None and worker.job is not None:
        return "dead" if in_queue(worker) is False else "alive"
    beat = _watch(attempt)
    if time.monotonic() - beat.since >= STALE_S:
        return "dead"
    return "alive" if beat.has_moved or abs(attempt.beat_age_s()) < STALE_S else "unknown"


def is_under_way(attempt: Attempt, in_queue: Callable[[Worker], bool | None]) -> bool:
    """Whether an attempt's process is at it; what is not known counts as no (`life_of`)."""
    return life_of(attempt, in_queue) == "alive"


@dataclass(frozen=True)
class _Beat:
    """A heartbeat that this process has seen: of what time, since when by our own clock, and whether it ever moved."""

    time_ns: int
    since: float
    has_moved: bool


_BEATS: dict[Path, _Beat] = {}


def _watch(attempt: Attempt) -> _Beat:
    """Look at a heartbeat; return since when it has been as it is."""
    try:
        found = attempt.path.stat().st_mtime_ns
    except OSError:
        found = -1
    before = _BEATS.get(attempt.path)
    if before is None or before.time_ns != found:
        _BEATS[attempt.path] = _Beat(found, time.monotonic(), before is not None)
    return _BEATS[attempt.path]


def ends(folder: Path, launch: str | None = None) -> Counter[str]:
    """Count how a run's attempts ended, those of one command alone if it is named."""
    return Counter(
        attempt.end
        for attempt in attempts_of(folder)
        if attempt.end and (launch is None or ((worker := attempt.worker()) and worker.launch == launch))
    )
