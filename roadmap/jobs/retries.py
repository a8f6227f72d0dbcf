"""Waiting for jobs, and starting jobs again for runs that died of something outside themselves."""

import time
from collections.abc import Sequence

from roadmap.jobs.launch_folders import JOBS, cancelled_runs
from roadmap.jobs.launcher import JobOptions, Launch
from roadmap.jobs.status import Queue, is_at_work, look_at_queue
from roadmap.runs import run_folder
from roadmap.runs.attempts import ends, last_attempt
from roadmap.study.plan import PlannedRun

LOOK_EVERY_S = 2.0


class Rounds:
    """The rounds of jobs that one command starts for its runs."""

    def __init__(self, planned: Sequence[PlannedRun], how: JobOptions) -> None:
        self.planned, self.how = planned, how
        self.number = 0
        self.queue, self.looked_at = Queue(), float("-inf")
        self.tried = self._count()

    def _count(self) -> int:
        """Count the attempts so far."""
        lasts = (last_attempt(run.folder) for run in self.planned)
        return sum(last.number for last in lasts if last)

    def _undone(self) -> list[PlannedRun]:
        return [run for run in self.planned if run_folder.read_result(run.folder) is None]

    def are_over(self, jobs: Launch | None) -> bool:
        """Whether our jobs have ended, and nobody else is at any of our runs or in line for one."""
        if jobs is not None and not jobs.is_over():
            return False
        if time.monotonic() - self.looked_at > LOOK_EVERY_S:
            self.queue, self.looked_at = look_at_queue(self.how.runs), time.monotonic()
        return not any(is_at_work(run.folder, self.queue) for run in self._undone())

    def to_try_again(self) -> list[PlannedRun]:
        """Return the runs for another round: none if the last one came to nothing, was cancelled or asked to stop.

        A run that has died too often is left; one that nobody came to, because its job died first, is not.
        """
        before, self.tried = self.tried, self._count()
        logs = (self.how.runs / JOBS).glob(f"{self.how.name}-*")
        cancelled = {run for folder in logs for run in cancelled_runs(folder)} & {r.config.id for r in self._undone()}
        if cancelled or self.tried == before or any(self._was_stopped(run) for run in self.planned):
            return []
        self.number += 1
        return [run for run in self._undone() if self._died(run) <= self.how.max_retries]

    def _was_stopped(self, run: PlannedRun) -> bool:
        """Whether someone asked our job to stop while it was at this run (Ctrl-C, in the debug executor)."""
        last = last_attempt(run.folder)
        worker = last.worker() if last and last.end == "stopped" else None
        return worker is not None and worker.launch == self.how.name

    def _died(self, run: PlannedRun) -> int:
        last = last_attempt(run.folder)
        return ends(run.folder, self.how.name)["died"] + (last is not None and last.end is None)
