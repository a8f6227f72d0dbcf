"""Where every run stands, from its folder and the scheduler's queue; needs no accounting and no memory of its own."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from roadmap.common.errors import UserError
from roadmap.common.files import open_regular
from roadmap.common.formats import printable
from roadmap.jobs import slurm_queue
from roadmap.jobs.launch_folders import JOBS, cancelled_runs, read_launches
from roadmap.jobs.slurm_queue import QueuedJob
from roadmap.jobs.tasks import TRAINING, Task, item_of
from roadmap.runs import run_folder
from roadmap.runs.attempts import Attempt, Worker, attempts_of, is_under_way, last_attempt, life_of

State = Literal["waiting", "pending", "running", "interrupted", "lost", "finished", "diverged", "failed"]
LOG_TAIL, LOG_TAIL_BYTES = 8, 20_000


@dataclass(frozen=True)
class Queue:
    """What the scheduler has of our jobs.

    Attributes:
        jobs: Each job that has not ended, with its items: runs, or RUN/TASK (`roadmap.jobs.tasks.item_of`).
        launched: The items that were ever submitted, but those that were cancelled, and a pattern for the job's log.
        cancelled: The name of a launch and an item of it, for each that was cancelled.
        answers: Whether the scheduler answers, if there is anything to ask it.
    """

    jobs: tuple[tuple[QueuedJob, tuple[str, ...]], ...] = ()
    launched: dict[str, str] = field(default_factory=dict)
    cancelled: frozenset[tuple[str, str]] = frozenset()
    answers: bool = True

    @cached_property
    def job_of(self) -> dict[str, QueuedJob]:
        """Return a job that is to do an item."""
        return {run: job for job, runs in self.jobs for run in runs}

    def runs(self, worker: Worker) -> bool | None:
        """Whether a worker's job is at work; None where nobody knows. One that waits has been requeued."""
        if not self.answers:
            return None
        return any(worker.is_job(job.id, job.name) and job.state != "PENDING" for job, _ in self.jobs)


def look_at_queue(runs: Path) -> Queue:
    """Return what the scheduler has of the jobs launched from a runs folder; asks it only if there are any."""
    jobs = []
    parts: dict[str, list[list[str]]] = {}  # of each launch: the runs of each of its jobs
    cancelled: set[tuple[str, str]] = set()
    launched: dict[str, str] = {}
    for path, executor, of_jobs in read_launches(runs):
        name, gone = path.parent.name, cancelled_runs(path.parent)
        cancelled |= {(name, run) for run in gone}
        if executor == "slurm":
            parts[name] = of_jobs
            for index, of_job in enumerate(of_jobs):
                number = f"*_{index}" if len(of_jobs) > 1 else "*"
                launched |= dict.fromkeys(set(of_job) - gone, f"{glob.escape(str(path.parent))}/{number}_0_log.out")
    queue = slurm_queue.read_queue() if parts else []
    for job in queue or ():
        of_jobs = parts.get(job.name, [])
        jobs.append((job, tuple(of_jobs[job.index] if job.index < len(of_jobs) else ())))
    return Queue(tuple(jobs), launched, frozenset(cancelled), queue is not None)


@dataclass(frozen=True)
class Standing:
    """Where one run stands.

    Attributes:
        state: waiting (nobody has begun it), pending (in the scheduler's queue), running, interrupted (stopped and
            saved), lost (its job is gone without a result), finished, diverged or failed.
        attempts: How its earlier attempts ended, and how often.
        log: The log of the last attempt; None where there is none.
        reason: Why it waits or failed.
    """

    state: State
    attempts: Counter[str]
    log: Path | None = None
    reason: str = ""

    @property
    def note(self) -> str:
        """What happened to it, in words."""
        counts = {end: self.attempts[end] for end in ("preempted", "died", "stopped")}
        times = [f"{end} {count} time{'s' if count > 1 else ''}" for end, count in counts.items() if count]
        return printable("; ".join(filter(None, [self.reason, *times])))

    def log_tail(self) -> list[str]:
        """Return the last lines of the log, as a terminal can show them."""
        if self.log is None:
            return []
        try:
            with open_regular(self.log) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                return [printable(line) for line in file.read().decode(errors="replace").splitlines()[-LOG_TAIL:]]
        except (OSError, ValueError):  # ValueError: a path that is none
            return []


def standing(folder: Path, queue: Queue) -> Standing:
    """Return where a run stands; one whose result is damaged, or of another version, has failed, and says so."""
    try:
        row = run_folder.read_result(folder)
    except UserError as error:
        return Standing("failed", Counter(), reason=str(error))
    if row is not None and row["state"] != "failed":
        return Standing(row["state"], Counter(), reason=row.get("error") or "")
    tried = attempts_of(folder)
    ends: Counter[str] = Counter(attempt.end for attempt in tried if attempt.end)
    log = _log_of(folder, tried)
    if tried and _may_be_under_way(tried[-1], queue):
        return Standing("running", ends, log, tried[-1].doubt())
    job = queue.job_of.get(folder.name)
    cancelled = bool(tried) and _was_cancelled(folder, tried[-1], queue)
    if tried and tried[-1].end is None:
        ends["preempted" if job else "stopped" if cancelled else "died"] += 1
    if job is not None:
        return Standing("pending", ends, log, _reason(job))
    if row is not None:
        return Standing("failed", ends, log, row["error"] or "")
    if not queue.answers and folder.name in queue.launched and (not tried or tried[-1].end != "stopped"):
        return Standing("pending", ends, log, "unconfirmed")
    if tried and (tried[-1].end == "stopped" or cancelled):
        return Standing("interrupted", ends, log)
    if tried:
        return Standing("lost", ends, log)
    if folder.name in queue.launched:
        log = next(map(Path, glob.iglob(queue.launched[folder.name])), None)
        return Standing("lost", ends, log, "its job ended before it began")
    return Standing("waiting", ends, log)


def _was_cancelled(folder: Path, attempt: Attempt, queue: Queue) -> bool:
    """Whether somebody ended the job of an attempt that had no time to say so."""
    worker = attempt.worker() if attempt.end is None else None
    marks = (name for name, run in queue.cancelled if run == folder.name)
    return worker is not None and any(name.startswith(f"{worker.launch}-") for name in marks)


def _log_of(folder: Path, tried: Sequence[Attempt]) -> Path | None:
    """Return the log of a run's last attempt, if it is one of a launch: others may have written the attempt's file."""
    worker = tried[-1].worker() if tried else None
    if worker is None or not worker.log or "\0" in worker.log:
        return None
    log = Path(worker.log)
    return log if log.resolve().is_relative_to((folder.parent / JOBS).resolve()) else None


def _reason(job: QueuedJob) -> str:
    if job.state != "PENDING":
        return "ending" if job.state == "COMPLETING" else "starting"
    return "" if job.reason in ("None", "") else job.reason


def _may_be_under_way(attempt: Attempt, queue: Queue) -> bool:
    """Whether an attempt's process is at it, or its clock is ahead of ours, and it may be."""
    life = life_of(attempt, queue.runs)
    return life == "alive" or (life == "unknown" and attempt.beat_age_s() < 0)


def is_at_work(folder: Path, queue: Queue, task: Task = TRAINING) -> bool:
    """Whether a task is being done on a run folder, or waits in the scheduler's queue for that."""
    if task.is_done(folder):
        return False
    last, item = last_attempt(task.place(folder)), item_of(task, folder)
    if (last is not None and is_under_way(last, queue.runs)) or item in queue.job_of:
        return True
    may_wait = not queue.answers and item in queue.launched and task.failure(folder) is None
    return may_wait and (last is None or last.end != "stopped")
