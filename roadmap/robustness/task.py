"""Evaluating robustness as a task of jobs, and how far it is on each run."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.jobs.tasks import Failure, Setting, Stopped, read_failure
from roadmap.robustness.settings import Damaged, Settings, read_found
from roadmap.runs import config, run_folder
from roadmap.runs.attempts import End
from roadmap.runs.claims import Writer
from roadmap.runs.config import RunConfig

FAILED = "failed.json"  # beside the claims


@dataclass(frozen=True)
class RobustnessTask:
    """Evaluating how robust a trained network is (`roadmap.jobs.tasks.Task`)."""

    settings: Settings
    interruptible = True  # each part is written when it is done

    def place(self, folder: Path) -> Path:
        """Return a folder inside the run folder: claims there do not mix with those of training."""
        return folder / run_folder.ROBUSTNESS_CLAIMS

    def is_done(self, folder: Path) -> bool:
        """Whether every part is there, of the weights that lie there now."""
        try:
            return not missing_parts(folder, self.settings)
        except UserError:  # no weights, say; `do` says so
            return False

    def failure(self, folder: Path) -> Failure | None:
        """Return the note of a failure."""
        return read_failure(self.place(folder) / FAILED)

    def do(self, folder: Path, setting: Setting) -> tuple[End, str]:
        """Evaluate what is missing, part by part."""
        import torch

        from roadmap.common.machine import choose_device
        from roadmap.robustness.evaluation import evaluate

        def go_on(part: str) -> None:
            if setting.asked() in ("stop", "leave"):
                raise Stopped
            say(f"{folder.name}: {part}")

        torch.set_num_threads(setting.threads)
        evaluate(
            folder,
            read_config(folder),
            self.settings,
            data_root=setting.data_root,
            device=choose_device(),
            report=go_on,
            write=setting.writer.write_json,
        )
        return "finished", "evaluated"

    def fail(self, writer: Writer, reason: str, wall_s: float | None = None) -> None:
        """Note why."""
        reason = reason.removeprefix("UserError: ")
        say(f"{writer.folder.parent.name}: not evaluated: {reason}")
        writer.write_json(writer.folder / FAILED, {"error": reason})


def missing_parts(folder: Path, settings: Settings) -> tuple[str, ...]:
    """Return the parts that are not known yet of a trained run; all of them where its robustness.json is damaged.

    Raises:
        UserError: If its weights are gone.
    """
    from roadmap.robustness.evaluation import ask

    asked = ask(folder, read_config(folder), settings)
    try:
        found = read_found(folder)
    except Damaged:
        found = []
    known: dict[str, Any] = next((entry["parts"] for entry in found if entry["asked"] == asked), {})
    return tuple(part for part in settings.parts if part not in known)


def read_config(folder: Path) -> RunConfig:
    """Return a run's configuration, from its run.json.

    Raises:
        UserError: If that is gone or damaged, or another run's.
    """
    path = folder / run_folder.RUN
    try:
        return _read_config(folder, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Train the run again.") from error


@lru_cache(maxsize=1024)
def _read_config(folder: Path, modified_ns: int) -> RunConfig:
    """Read a file; it is another one as soon as its time is."""
    return config.read_config(folder)
