"""Waiting for jobs, and starting jobs again for work that died of something outside itself."""

import time
from collections.abc import Sequence
from pathlib import Path

from roadmap.jobs.executors import Launch
from roadmap.jobs.launch_folders import JOBS, cancelled_runs
from roadmap.jobs.options import JobOptions
from roadmap.jobs.status import is_at_work, look_at_queue
from roadmap.jobs.tasks import TRAINING, Task, item_of, undone
from roadmap.runs.attempts import ends, is_under_way, last_attempt

LOOK_EVERY_S = 2.0


class Retries:
    """The launches of one command: how many there were, and on which run folders there is to be another."""

    def __init__(self, folders: Sequence[Path], options: JobOptions, task: Task = TRAINING) -> None:
        self.folders, self.options, self.task = folders, options, task
        self.number = 0
        self.queue, self.looked_at = look_at_queue(options.runs), float("-inf")
        self.found = self._look()

    def _look(self) -> list[tuple[int, str | None, bool]]:
        """Return for each folder its last attempt's number and end, and whether that is under way."""
        lasts = (last_attempt(self.task.place(folder)) for folder in self.folders)
        return [(a.number, a.end, is_under_way(a, self.queue.runs)) if a else (0, None, False) for a in lasts]

    def are_over(self, jobs: Launch | None) -> bool:
        """Whether our jobs have ended, and nobody else is at any of our folders or in line for one."""
        if jobs is not None and not jobs.is_over():
            return False
        if time.monotonic() - self.looked_at > LOOK_EVERY_S:
            self.queue, self.looked_at = look_at_queue(self.options.runs), time.monotonic()
        return not any(is_at_work(folder, self.queue, self.task) for folder in undone(self.task, self.folders))

    def to_try_again(self) -> list[Path]:
        """Return the folders for another launch: none if nothing happened, or it was cancelled or asked to stop.

        Work that has died too often is left; work that nobody came to, because its job died first, is not.
        """
        before, self.found = self.found, self._look()
        left = undone(self.task, self.folders)
        logs = (self.options.runs / JOBS).glob(f"{self.options.name}-*")
        cancelled = {item for folder in logs for item in cancelled_runs(folder)}
        if cancelled & {item_of(self.task, folder) for folder in left} or self.found == before:
            return []
        if any(map(self._was_stopped, self.folders)):
            return []
        self.number += 1
        return [folder for folder in left if self._died(folder) <= self.options.max_retries]

    def _was_stopped(self, folder: Path) -> bool:
        """Whether someone asked our job to stop while it was at this folder (Ctrl-C, in the debug executor)."""
        last = last_attempt(self.task.place(folder))
        worker = last.worker() if last and last.end == "stopped" else None
        return worker is not None and worker.launch == self.options.name

    def _died(self, folder: Path) -> int:
        place = self.task.place(folder)
        last = last_attempt(place)
        return ends(place, self.options.name)["died"] + (last is not None and last.end is None)
