"""Launches, as the runs folder knows them: runs/jobs/<launch>/ has what its jobs are to train, and their logs."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from roadmap.common import files
from roadmap.common.errors import UserError

JOBS = "jobs"  # folder of all launches, in the runs folder
LAUNCH = "launch.json"  # the executor, and the items of each job: runs, or RUN/TASK
WRITTEN_WITHIN_S = 600.0  # what is still half-written after this time, nobody writes any more
CANCELLED = "cancelled"  # the items of the launch that 'cancel' ended, as JSON


@with_config(ConfigDict(extra="allow"))
class Launch(TypedDict):
    """What `LAUNCH` holds."""

    executor: str
    jobs: list[list[str]]


_LAUNCH, _CANCELLED = TypeAdapter(Launch), TypeAdapter(set[str])


def make_logs(runs: Path, name: str, executor: str, jobs: Sequence[Sequence[str]]) -> Path:
    """Return a fresh folder for a launch, which says what each of its jobs is to do (`roadmap.jobs.tasks.item_of`).

    Fresh, because submitit would take an old result for that of a new job of the same number; and written before
    anything is submitted, so that the jobs are known by their name whatever happens next. Its owner alone can write
    there, because jobs execute what they find there.

    Raises:
        UserError: If it cannot be made.
    """
    logs = (runs / JOBS / name).absolute()
    try:
        logs.mkdir(parents=True)
        logs.chmod(0o755)  # whatever the user's files are usually given
    except OSError as error:
        raise UserError(f"{logs}: cannot be made ({error.strerror}). Choose another place with --runs.") from error
    _sweep(runs, logs.stat().st_mtime)
    files.write_json(logs / LAUNCH, {"executor": executor, "jobs": [list(job) for job in jobs]})
    return logs


def _sweep(runs: Path, now: float) -> None:
    """Remove what launchers that were killed while they wrote have left; `now` is by the file system's own clock."""
    for path in (runs / JOBS).glob(f"*/.{LAUNCH}.*"):
        with suppress(OSError):
            if now - path.stat().st_mtime > WRITTEN_WITHIN_S:
                path.unlink()


def read_launches(runs: Path) -> Iterator[tuple[Path, str, list[list[str]]]]:
    """Yield each launch's file, its executor and the runs of its jobs; one that is damaged is left out."""
    for path in sorted((runs / JOBS).glob(f"*/{LAUNCH}")):
        launch = files.read_as(path, _LAUNCH)
        if launch is not None:
            yield path, launch["executor"], launch["jobs"]


def cancelled_runs(logs: Path) -> set[str]:
    """Return the runs of a launch that somebody has cancelled, by the folder of its logs."""
    return files.read_as(logs / CANCELLED, _CANCELLED) or set()
