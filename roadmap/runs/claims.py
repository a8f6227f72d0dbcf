"""Claims: a run is one job's alone, and only the job that has it can change it.

Making the attempt of the next number is the claim: a file system, a shared one too, lets only one succeed. With it
comes a folder of the attempt's own, attempts/0003.work/, where every file of the run is written before a rename gives
it its name. Who takes a run over moves the folders of all earlier attempts away. From then on their renames fail, at
whatever point they had fallen silent: there is no gap between seeing that the run is still ours and changing it.
"""

import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from roadmap.common import files
from roadmap.runs.attempts import (
    ATTEMPTS,
    Attempt,
    End,
    Worker,
    attempts_of,
    last_attempt,
    life_of,
)

BEAT_EVERY_S = 15.0
LEFT = re.compile(r"(\d+)\.work|\.(\d+)\.[0-9a-f]{32}")  # an attempt's own folder, and a claim that was not made


class Lost(Exception):
    """The run is another job's by now, or its folder is gone; nothing there was changed."""


class Writer:
    """Writes the files of a run for as long as its attempt is the last one.

    Args:
        folder: The folder whose attempts are counted.
        attempt: The number of ours; 0 is that of one who works without a claim, and gives way to everybody.
    """

    def __init__(self, folder: Path, attempt: int = 0) -> None:
        self.folder, self.attempt = folder, attempt
        self._attempts = folder / ATTEMPTS
        self._work = self._attempts / f"{attempt:04d}.work"

    def open(self) -> None:
        """Make the attempt's own folder; shut out all earlier attempts and sweep what they left half-written.

        Raises:
            Lost: If there is a later attempt.
        """
        _delete(self._work)  # a withdrawn claim of this number may have left it
        self._work.mkdir(parents=self.attempt == 0)
        if self.is_lost():  # its owner may have looked for our folder before we made it
            self.close()
            raise Lost(self.folder)
        for name in os.listdir(self._attempts):
            match = LEFT.fullmatch(name)
            if match and int(match[1] or match[2]) <= self.attempt and name != self._work.name:
                self.remove(self._attempts / name)

    def is_lost(self) -> bool:
        """Whether another job has taken the run over (ours had been given up for dead), or the folder is gone."""
        return not self._work.exists() or any(other.number > self.attempt for other in attempts_of(self.folder))

    def age_s(self, path: Path) -> float:
        """Return how many seconds before this attempt a file was last written, by the file system's own clock."""
        return self._work.stat().st_mtime - path.stat().st_mtime

    def write(
        self,
        path: Path,
        content: Callable[[IO[bytes]], object],
        name: Callable[[], Path] | None = None,
        *,
        durable: bool = True,
    ) -> None:
        """Write a file whole or not at all, and only while the run is ours.

        Args:
            path: The file, on the file system of the run folder.
            content: Writes its content.
            name: Says what to call it once it is written; None leaves it at `path`.
            durable: Whether it must survive a power failure.

        Raises:
            Lost: If the run is another's.
            Unwritable: If the folder cannot be written or the disk is full; the old file stays.
        """
        try:
            temporary = self._work / f"{path.name}.{uuid.uuid4().hex}"
            files.write_through(temporary, path, content, name, durable=durable)
        except files.Unwritable as error:
            if self.is_lost():
                raise Lost(path) from error
            raise

    def write_json(self, path: Path, content: Any) -> None:
        """Write JSON; see `write`."""
        self.write(path, files.json_of(content))

    def remove(self, path: Path) -> None:
        """Remove a file or a folder, if it is there and the run is ours.

        Raises:
            Lost: If the run is another's.
            OSError: If it cannot be removed.
        """
        gone = self._work / f"removed-{uuid.uuid4().hex}"
        try:
            path.rename(gone)
        except FileNotFoundError as error:
            if self.is_lost():
                raise Lost(path) from error
            return
        except OSError as error:
            if self.is_lost():
                raise Lost(path) from error
            raise
        _delete(gone)

    def close(self) -> None:
        """Remove the attempt's own folder; nothing can be written any more."""
        _delete(self._work)
        if not self.attempt:
            with suppress(OSError):
                self._attempts.rmdir()


def _delete(path: Path) -> None:
    """Delete a file or a folder that nobody else uses; what cannot be deleted, the next attempt sweeps."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


class Claim:
    """A run that is ours to work on, for as long as nobody takes it over."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.folder = attempt.path.parents[1]
        self.writer = Writer(self.folder, attempt.number)
        self.end: End | None = "died"  # unless something else is known; None: there was nothing to do
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_EVERY_S):
            with suppress(OSError):
                os.utime(self.attempt.path)

    def is_lost(self) -> bool:
        """Whether another job has taken the run over, or is about to, or the folder is gone."""
        return not self.attempt.path.exists() or self.writer.is_lost()

    def withdraw(self) -> None:
        """Have it that this attempt never was: the run is done already."""
        self.end = None

    def release(self) -> None:
        """Stop the heartbeat and note the end."""
        self._over.set()
        self._thread.join()
        self.writer.close()
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
        in_queue: As for `life_of`.

    Raises:
        OSError: If the folder cannot be written.
    """
    claim = _claim(folder, me, in_queue)
    try:
        yield claim
    finally:
        if claim is not None:
            claim.release()


def _claim(folder: Path, me: Worker, in_queue: Callable[[Worker], bool | None]) -> Claim | None:
    while (last := last_attempt(folder)) is not None and last.end is None:
        worker = last.worker()
        if worker is not None and worker.is_earlier_start_of(me):  # it is over, or soon will be
            last.close("died" if worker.killed_mark.exists() else "preempted")
        elif life_of(last, in_queue) == "dead" and last.path.exists():
            last.close("died")
        elif last.path.exists():
            return None
        else:
            continue  # it ended while we looked
        break
    attempt = _make(folder, 1 if last is None else last.number + 1, me)
    if attempt is None:
        return None
    claim = Claim(attempt)
    try:
        claim.writer.open()
    except Lost:
        claim.release()
        return None
    except BaseException:
        claim.withdraw()
        claim.release()
        raise
    return claim


def _make(folder: Path, number: int, me: Worker) -> Attempt | None:
    """Make the attempt of this number; None where somebody else was faster."""
    path = folder / ATTEMPTS / f"{number:04d}.json"
    path.parent.mkdir(exist_ok=True)
    temporary = path.parent / f".{number:04d}.{uuid.uuid4().hex}"
    try:
        temporary.write_text(json.dumps(asdict(me)) + "\n")
        files.link(temporary, path)
    except FileExistsError:
        return None
    except FileNotFoundError:
        if path.parent.exists():  # swept by the one who has this number
            return None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    attempt = Attempt(path, number, None)
    if any(other.number >= number and other.path != path for other in attempts_of(folder)):
        path.unlink(missing_ok=True)  # somebody took this number, and ended, after we had looked
        return None
    return attempt
