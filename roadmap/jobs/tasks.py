"""Tasks: what a job does with each run folder of its list. Training is one; others are pickled with the job."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from roadmap.common import files
from roadmap.common.log import say
from roadmap.runs import run_folder
from roadmap.runs.attempts import End
from roadmap.runs.claims import Writer

if TYPE_CHECKING:
    from roadmap.common.process_group import Group
    from roadmap.training.loop import Request


def is_from_outside(error: BaseException) -> bool:
    """Whether work has died of something outside itself: no room on a disk or in memory, a worker that was killed."""
    torch = sys.modules.get("torch")
    kinds = (files.LostWorker, MemoryError, *([torch.OutOfMemoryError] if torch else []))
    # For want of a processor's memory torch raises no error of its own kind: the allocator's name is what there is.
    return files.may_pass(error) or isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


class Stopped(Exception):
    """The work on a folder was saved and left, because somebody asked for that."""


@dataclass(frozen=True)
class Setting:
    """Under which conditions a job does its task.

    Attributes:
        data_root: Where the data set lies, as `--data` says.
        threads: CPU threads.
        save_every_s: Seconds between two checkpoints.
        asked: Says what others want of the work at hand (`roadmap.training.loop.Request`).
        group: The processes that do it together.
        loggers: What else is to receive the progress of runs.
        writer: What writes at the task's place, for as long as the work is ours.
    """

    data_root: Path | None
    threads: int
    save_every_s: float
    asked: Callable[[], "Request"]
    group: "Group"
    loggers: tuple[str, ...]
    writer: Writer


class FailureNote(TypedDict):
    """What a task other than training writes when it fails."""

    error: str


_FAILURE_NOTE = TypeAdapter(FailureNote)


class Failure(NamedTuple):
    """The note that a task failed on a folder: a file and what it says."""

    path: Path
    content: dict[str, Any]


def read_failure(path: Path) -> Failure | None:
    """Return a task's note of a failure; None where it is missing or damaged."""
    note = files.read_as(path, _FAILURE_NOTE)
    return Failure(path, dict(note)) if note is not None else None


class Task(Protocol):
    """Work on a run folder. It is claimed before it is done, so that nothing is done twice.

    Attributes:
        interruptible: Whether a process may be ended in the middle of it, with little lost.
    """

    @property
    def interruptible(self) -> bool:
        """See the class."""

    def place(self, folder: Path) -> Path:
        """Return the folder in which its claims lie (`roadmap.runs.attempts`): the run folder or one inside it."""

    def is_done(self, folder: Path) -> bool:
        """Whether nothing is left to do, a failure not counted."""

    def failure(self, folder: Path) -> Failure | None:
        """Return the note of its failure, if it failed; the next launch removes that and tries again."""

    def do(self, folder: Path, setting: Setting) -> tuple[End, str]:
        """Do the work; return how it ended, and a few words for the log.

        Raises:
            Stopped: If that was asked for.
            Lost: If another job has taken the work over.
        """

    def fail(self, writer: Writer, reason: str, wall_s: float | None = None) -> None:
        """Note at the task's place that it failed.

        Raises:
            Lost: If another job has taken the work over.
        """


def item_of(task: Task, folder: Path) -> str:
    """Return what a launch calls the work on a run folder: the run's id, or for other tasks RUN/TASK."""
    return task.place(folder).relative_to(folder.parent).as_posix()


def is_over(task: Task, folder: Path) -> bool:
    """Whether the work on a folder is done or has failed."""
    return task.is_done(folder) or task.failure(folder) is not None


@dataclass(frozen=True)
class Training:
    """Training a run."""

    interruptible = False

    def place(self, folder: Path) -> Path:
        """Return the run folder."""
        return folder

    def is_done(self, folder: Path) -> bool:
        """Whether the run has a result."""
        return run_folder.is_done(folder)

    def failure(self, folder: Path) -> Failure | None:
        """Return the row of a run that failed."""
        row = run_folder.read_result(folder)
        return Failure(folder / run_folder.RESULT, row) if row and row["state"] == "failed" else None

    def do(self, folder: Path, setting: Setting) -> tuple[End, str]:
        """Train the run, going on where its folder says it stopped."""
        from roadmap.runs.config import read_config
        from roadmap.training import loop

        config = read_config(folder)
        try:
            row = loop.train(
                config,
                folder,
                data_root=setting.data_root,
                threads=setting.threads,
                save_every_s=setting.save_every_s,
                asked=setting.asked,
                loggers=setting.loggers,
                group=setting.group,
                writer=setting.writer,
            )
        except loop.Stopped as error:
            raise Stopped from error
        return row["state"], f"{row['state']}, top-1 {row['top1']}, {row['wall_s']:.1f} s"

    def fail(self, writer: Writer, reason: str, wall_s: float | None = None) -> None:
        """Write the row of a run that failed."""
        row = dict.fromkeys(run_folder.COLUMNS) | {
            "result_version": run_folder.RESULT_VERSION,
            "state": "failed",
            "error": reason,
            "wall_s": wall_s,
        }
        say(f"{writer.folder.name}: failed: {reason}")
        run_folder.write_result(writer, row)


TRAINING = Training()


def undone(task: Task, folders: Sequence[Path]) -> list[Path]:
    """Return the folders on which the work is neither done nor has failed."""
    return [folder for folder in folders if not is_over(task, folder)]
