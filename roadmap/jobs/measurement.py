"""Measuring a study's networks as a task of one job."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from roadmap.common import files
from roadmap.common.log import say
from roadmap.jobs.tasks import Failure, Setting, read_failure
from roadmap.runs.attempts import End
from roadmap.runs.claims import Writer
from roadmap.study.plan import Study


class Done(TypedDict):
    """What `DONE` holds: the name of the measurement's file."""

    file: str


_DONE = TypeAdapter(Done)
DONE, FAILED = "done.json", "failed.json"


@dataclass(frozen=True)
class MeasureTask:
    """Measuring the time and memory of a study's networks (`roadmap.jobs.tasks.Task`).

    It has a folder of its own in runs/measured/; the measurement is written beside that folder, and its name inside.
    """

    study: Study
    interruptible = True

    def place(self, folder: Path) -> Path:
        """Return the folder."""
        return folder

    def is_done(self, folder: Path) -> bool:
        """Whether the measurement is written."""
        return (folder / DONE).is_file()

    def failure(self, folder: Path) -> Failure | None:
        """Return the note of a failure."""
        return read_failure(folder / FAILED)

    def do(self, folder: Path, setting: Setting) -> tuple[End, str]:
        """Measure, and write what was found."""
        from roadmap.measuring.rung_costs import measure, write_measured

        def show(done: int, total: int, what: str) -> None:
            say(f"[{done}/{total}] {what}")

        measured, writer = measure(self.study, threads=setting.threads, show=show), setting.writer
        path = write_measured(self.study.runs, measured, writer.write_json)
        writer.write_json(folder / DONE, {"file": path.name})
        return "finished", f"wrote {path.name}"

    def fail(self, writer: Writer, reason: str, wall_s: float | None = None) -> None:
        """Note why."""
        say(f"not measured: {reason}")
        writer.write_json(writer.folder / FAILED, {"error": reason})


def read_outcome(folder: Path) -> Path | None:
    """Return the measurement's file; None where there is none yet."""
    done = files.read_as(folder / DONE, _DONE)
    return folder.parent / Path(done["file"]).name if done else None
