"""Attempts: who works on a run and who did. Taking the next attempt is the claim that keeps a run from two jobs.

runs/<run id>/attempts/ holds a file for each time that a job took the run, numbered: 0001.json, 0002.json, ... Making
the file of the next number is the claim: a file system, a shared one too, lets only one succeed. Its modification time
is the heartbeat. When the attempt ends, how it ended joins its name (0001-preempted.json), which a full disk allows
too. An attempt without an end whose process is gone has died; the next job to come takes the run over, and the old
one, should it come back to life, sees the higher number and leaves everything alone.
"""

import errno
import json
import os
import platform
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from roadmap.common.errors import UserError
from roadmap.common.fields import PositiveInt
from roadmap.common.files import read_as
from roadmap.common.provenance import find_commit, gpu, processor

ATTEMPTS = "attempts"
BEAT_EVERY_S = 15.0
STALE_S = 120.0  # a heartbeat older than this is none

End = Literal["finished", "diverged", "failed", "stopped", "preempted", "died"]


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
        """Return the seconds since its last heartbeat."""
        try:
            return time.time() - self.path.stat().st_mtime
        except OSError:
            return float("inf")

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


def is_under_way(attempt: Attempt, in_queue: Callable[[Worker], bool | None]) -> bool:
    """Whether an attempt's process is still at it, as far as can be known from here.

    Args:
        attempt: The attempt.
        in_queue: Whether the scheduler still has the worker's job; None where there is none to ask, or no answer.
    """
    if attempt.end is not None:
        return False
    worker = attempt.worker()
    if worker is not None and worker.is_here():
        return worker.lives()
    if attempt.beat_age_s() < STALE_S:
        return True
    if worker is None or worker.job is None:
        return False
    return in_queue(worker) is not False  # no answer: its job may be there


def ends(folder: Path, launch: str | None = None) -> Counter[str]:
    """Count how a run's attempts ended, those of one command alone if it is named."""
    return Counter(
        attempt.end
        for attempt in attempts_of(folder)
        if attempt.end and (launch is None or ((worker := attempt.worker()) and worker.launch == launch))
    )


class Claim:
    """A run that is ours to train, for as long as nobody takes it over."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.end: End | None = "died"  # unless told better; None: there was nothing to do
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_EVERY_S):
            with suppress(OSError):
                os.utime(self.attempt.path)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.attempt.path.parents[1]

    def is_lost(self) -> bool:
        """Whether another job has taken the run over (ours had been given up for dead), or the folder is gone."""
        number, folder = self.attempt.number, self.attempt.path.parent
        return (folder / f"{number + 1:04d}.json").exists() or not self.attempt.path.exists()

    def withdraw(self) -> None:
        """Have it that this attempt never was: the run is done already."""
        self.end = None

    def release(self) -> None:
        """Stop the heartbeat and note the end."""
        self._over.set()
        self._thread.join()
        if self.end is None:
            self.attempt.path.unlink(missing_ok=True)
        else:
            self.attempt.close(self.end)


@contextmanager
def take(folder: Path, me: Worker, in_queue: Callable[[Worker], bool | None]) -> Iterator[Claim | None]:
    """Claim a run if nobody is at it; yields None where somebody is.

    Args:
        folder: The run folder.
        me: Who wants it.
        in_queue: As for `is_under_way`.

    Raises:
        OSError: If the folder cannot be written.
    """
    while (last := last_attempt(folder)) is not None and last.end is None:
        worker = last.worker()
        if worker is not None and worker.job is not None and worker.job == me.job and worker.restart < me.restart:
            # The scheduler started our job anew: what it had started before is over, or soon will be.
            last.close("died" if worker.killed_mark.exists() else "preempted")
        elif is_under_way(last, in_queue):
            yield None
            return
        elif last.path.exists():
            last.close("died")
        else:
            continue  # it ended while we looked
        break
    attempt = _make(folder, 1 if last is None else last.number + 1, me)
    if attempt is None:
        yield None
        return
    claim = Claim(attempt)
    try:
        yield claim
    finally:
        claim.release()


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name, which, unlike a rename, fails where the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS may have made the link and lost the answer: then the name is ours.
        if temporary.stat().st_nlink != 2:
            raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        with path.open("x") as file:  # a file system without links; for a moment the file is empty, as if damaged
            file.write(temporary.read_text())


def _make(folder: Path, number: int, me: Worker) -> Attempt | None:
    """Make the attempt of this number; None where somebody else was faster."""
    path = folder / ATTEMPTS / f"{number:04d}.json"
    path.parent.mkdir(exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}"
    try:
        temporary.write_text(json.dumps(asdict(me)) + "\n")
        _link(temporary, path)
    except FileExistsError:
        return None
    finally:
        temporary.unlink(missing_ok=True)
    attempt = Attempt(path, number, None)
    if any(other.number >= number and other.path != path for other in attempts_of(folder)):
        path.unlink(missing_ok=True)  # somebody took this number, and ended, after we had looked
        return None
    return attempt
