"""Slurm, as far as it must be asked: what is in the queue, and how to take it out. Works without accounting."""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from roadmap.common.errors import UserError
from roadmap.runs.attempts import Worker

ASK_TIMEOUT_S = 60.0
MAX_ARRAY_SIZE = 1001  # Slurm's own default
CANCEL_AT_ONCE = 500  # ids in one command
AS_TEXT: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}  # a name may be anything


@dataclass(frozen=True)
class QueuedJob:
    """A job (one element of an array) that has not ended.

    Attributes:
        id: Its number, such as 12_3.
        name: The name of its array, which is that of its launch.
        index: Its number in the array, from 0.
        state: Slurm's word, such as PENDING.
        reason: Why it waits.
    """

    id: str
    name: str
    index: int
    state: str
    reason: str


@contextmanager
def no_options_from_outside() -> Iterator[None]:
    """Take Slurm's variables out of the environment, which would be options of sbatch or of a job around us."""
    before = {name: value for name, value in os.environ.items() if _is_option(name)}
    for name in before:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _is_option(variable: str) -> bool:
    return variable != "SLURM_CONF" and variable.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_"))


def read_queue() -> list[QueuedJob] | None:
    """Return this user's jobs that have not ended; None where there is no Slurm or it does not answer."""
    text = _ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%r|%j")
    return None if text is None else [_parse(line) for line in text.splitlines() if line.count("|") >= 4]


def _parse(line: str) -> QueuedJob:
    number, index, state, reason, name = line.split("|", 4)
    return QueuedJob(number, name, int(index) if index.isdecimal() else 0, state, reason)


def has_job(worker: Worker) -> bool | None:
    """Whether a worker's job has not ended; None where nobody answers."""
    if worker.job is None:
        return False
    queue = read_queue()
    return None if queue is None else any(worker.is_job(job.id, job.name) for job in queue)


def cancel(ids: Iterable[str]) -> None:
    """Take jobs out of the queue, and end those that run.

    Raises:
        UserError: If Slurm refuses or does not answer.
    """
    ids = list(ids)
    for start in range(0, len(ids), CANCEL_AT_ONCE):
        command = ["scancel", *ids[start : start + CANCEL_AT_ONCE]]
        try:
            with no_options_from_outside():
                subprocess.run(command, check=True, timeout=ASK_TIMEOUT_S, **AS_TEXT)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"scancel: {explain(error)} Try again when Slurm answers.") from error


def submit(script: str) -> str:
    """Submit a script and return its job's number.

    Raises:
        UserError: If Slurm refuses or does not answer.
    """
    try:
        with no_options_from_outside():
            command = ["sbatch", "--parsable"]
            done = subprocess.run(command, input=script, check=True, timeout=ASK_TIMEOUT_S, **AS_TEXT)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"sbatch: {explain(error)} Mend the settings (--cluster), or try again.") from error
    return str(done.stdout).strip().partition(";")[0]


def max_array_size() -> int:
    """Return how many elements an array may have here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config") or "", re.MULTILINE)
    return max(int(found[1]) - 1, 1) if found else MAX_ARRAY_SIZE - 1  # the largest index is one less


def time_limits(partition: str | None) -> dict[str, float]:
    """Return the time limit in minutes of each partition that is named (with commas), or of the default one.

    Empty where Slurm does not answer.
    """
    names = partition.split(",") if partition else None
    limits = {}
    for line in (_ask("sinfo", "--noheader", "--format=%l|%P") or "").splitlines():
        limit, _, name = line.partition("|")
        if (name.endswith("*") if names is None else name.rstrip("*") in names) and (minutes := _minutes(limit)):
            limits[name.rstrip("*")] = minutes
    return limits


def _minutes(limit: str) -> float | None:
    """Return a time of Slurm's, such as 1-12:00:00, in minutes; None where it is none."""
    if limit == "infinite":
        return float("inf")
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60


def explain(error: BaseException) -> str:
    """Return what Slurm said, in a line."""
    text: Any = getattr(error, "stderr", None) or str(error)
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("sbatch:", "scancel:", "slurm"))] or lines[-1:]
    return " ".join(said).rstrip(".") + "."


def _ask(*command: str) -> str | None:
    try:
        with no_options_from_outside():
            done = subprocess.run(command, check=True, timeout=ASK_TIMEOUT_S, **AS_TEXT)
    except (OSError, subprocess.SubprocessError):
        return None
    return str(done.stdout)
