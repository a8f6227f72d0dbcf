"""Measuring a study's networks as a task of one job."""

from dataclasses import dataclass
from pathlib import Path

from roadmap.common import files
from roadmap.common.log import say
from roadmap.jobs.tasks import Failure, Setting
from roadmap.runs.attempts import End
from roadmap.study.plan import Study

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
        content = files.read_object(folder / FAILED)
        return Failure(folder / FAILED, content) if content is not None else None

    def do(self, folder: Path, setting: Setting) -> tuple[End, str]:
        """Measure, and write what was found."""
        from roadmap.measuring.rung_costs import measure, write_measured

        def show(done: int, total: int, what: str) -> None:
            say(f"[{done}/{total}] {what}")

        path = write_measured(self.study.runs, measure(self.study, threads=setting.threads, show=show))
        files.write_json(folder / DONE, {"file": path.name})
        return "finished", f"wrote {path.name}"

    def fail(self, folder: Path, reason: str, wall_s: float | None = None) -> None:
        """Note why."""
        say(f"not measured: {reason}")
        files.write_json(folder / FAILED, {"error": reason})


def read_outcome(folder: Path) -> Path | None:
    """Return the measurement's file; None where there is none yet."""
    done = files.read_object(folder / DONE)
    return folder.parent / str(done["file"]) if done and "file" in done else None
