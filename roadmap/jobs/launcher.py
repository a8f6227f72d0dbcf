"""Jobs: which runs, spread over which jobs, on which executor. Starting again is always safe.

A job is a process (or several, which train together) that takes the runs of its list one after the other, each by
claiming it (`roadmap.runs.attempts`), so that no two jobs train the same run, whoever started them. On this machine all
jobs have the whole list, longest run first, and so end about together; on Slurm each has its own part of it.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.machine import environment_for_jobs, look_around
from roadmap.common.provenance import provenance
from roadmap.jobs import slurm_queue
from roadmap.jobs.cluster import Cluster
from roadmap.jobs.launch_folders import CANCELLED, cancelled_runs, make_logs, read_launches
from roadmap.jobs.slurm_arrays import launch_on_slurm
from roadmap.jobs.worker import Job
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker, is_under_way, last_attempt
from roadmap.study.plan import PlannedRun

WEEK_MIN = 7 * 24 * 60


@dataclass(frozen=True)
class JobOptions:
    """How a study's jobs are started.

    Attributes:
        executor: "local" (processes on this machine), "slurm", or "debug" (in this process).
        runs: The runs folder, where logs go.
        name: What the jobs are called; it is one command's alone.
        cluster: What a run's job asks for.
        jobs: Jobs at once; None takes as many as the machine, or the cluster, has room for.
        runs_per_job: Runs that share a job, on Slurm.
        max_retries: How often a run that died of something outside itself is tried again.
        data_root: Where the data set lies.
        loggers: Who else is told how runs go (`roadmap.training.loggers`).
        wait: Whether the caller stays; local jobs of one who stays end with it, even if it is killed.
    """

    executor: str
    runs: Path
    name: str
    cluster: Cluster = field(default_factory=lambda: Cluster())
    jobs: int | None = None
    runs_per_job: int = 1
    max_retries: int = 2
    data_root: Path | None = None
    wait: bool = True
    loggers: tuple[str, ...] = ()


def prepare(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Write run.json where it is missing; return the runs to do, longest first.

    Raises:
        UserError: If a run folder cannot be written.
    """
    where = provenance()
    pending = [run for run in planned if not run_folder.is_done(run.folder)]
    for run in pending:
        run.write(where)
    return sorted(pending, key=lambda run: -run.cost)


class Launch(Protocol):
    """Jobs that were started."""

    def is_over(self) -> bool:
        """Whether all of them have ended."""


def launch(folders: Sequence[Path], options: JobOptions, round_number: int = 0) -> Launch:
    """Start the jobs that work through these run folders (longest first).

    Args:
        folders: The run folders, each with its run.json.
        options: How.
        round_number: How often this command has started jobs before.

    Raises:
        UserError: If the runs folder cannot be written, or the scheduler refuses.
    """
    name = f"{options.name}-{round_number}"
    job = Job(
        tuple(folder.absolute() for folder in folders),
        options.data_root and options.data_root.absolute(),
        threads=options.cluster.cpus_per_task,
        launch=options.name,
        owner=os.getpid() if options.wait and options.executor != "slurm" else None,
        max_retries=options.max_retries,
        save_every_s=60 * options.cluster.save_every_min,
        grace_s=max(5.0, options.cluster.signal_delay_s - 20.0),
        loggers=options.loggers,
        needs_gpu=options.executor == "slurm" and options.cluster.gpus_per_node > 0,
    )
    with _failures_cleared(folders):
        return launch_on_slurm(job, name, options) if options.executor == "slurm" else _launch_here(job, name, options)


@contextmanager
def _failures_cleared(folders: Sequence[Path]) -> Iterator[None]:
    """Take away the rows of runs that failed, which are to be tried again; put them back if no job can be started.

    Raises:
        UserError: If a run folder cannot be written.
    """
    rows = [(folder / run_folder.RESULT, run_folder.read_result(folder)) for folder in folders]
    failed = [(path, row) for path, row in rows if row and row["state"] == "failed"]
    try:
        for path, _ in failed:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror}). Choose another --runs.") from error
    try:
        yield
    except UserError:
        for path, row in failed:
            files.write_json(path, row)
        raise


# -- this machine


@dataclass
class LocalLaunch:
    """Jobs that are processes of this machine, or (debug) wait to be run in this one."""

    jobs: list[Any]

    def is_over(self) -> bool:
        """Whether all processes have ended."""
        return all(job.done() for job in self.jobs)

    def run_here(self) -> None:
        """Do the work of the debug executor."""
        for job in self.jobs:
            job.result()

    def stop(self, patience_s: float = 30.0) -> None:
        """Ask the processes to save their runs and end; wait for that."""
        deadline = time.monotonic() + patience_s
        while (left := [job for job in self.jobs if not job.done()]) and time.monotonic() < deadline:
            for job in left:  # again and again: a job that is only starting does not listen yet
                os.kill(int(job.job_id), signal.SIGTERM)
            time.sleep(0.2)


def _launch_here(job: Job, name: str, options: JobOptions) -> LocalLaunch:
    import submitit

    cluster, processes = options.cluster, options.cluster.processes
    machine = look_around(options.jobs, processes)
    if machine.gpus and processes > machine.gpus:
        raise UserError(
            f"tasks_per_node is {processes}, but this machine has {machine.gpus} GPUs. Use as many or fewer."
        )
    logs = make_logs(options.runs, name, options.executor, [job.folders])
    local = options.executor == "local"
    job = replace(job, threads=machine.threads, logs=logs)
    pool = submitit.AutoExecutor(folder=logs, cluster=options.executor)
    started = LocalLaunch([])
    with environment_for_jobs(machine.threads):
        for number in range(min(machine.jobs, len(job.folders)) if local else 1):
            pool.update_parameters(timeout_min=WEEK_MIN, stderr_to_stdout=True)
            if local:
                pool.update_parameters(tasks_per_node=cluster.tasks_per_node)
            if machine.gpus and local:
                mine = tuple((number * processes + gpu) % machine.gpus for gpu in range(processes))
                pool.update_parameters(gpus_per_node=len(mine), local_visible_gpus=mine)
            try:
                started.jobs.append(pool.submit(job))
            except OSError as error:
                started.stop()
                raise UserError(
                    f"{logs}: no job can be started ({error.strerror}). Make room, or use --runs."
                ) from error
    return started


def cancel(folders: Sequence[Path], runs: Path) -> int:
    """Have jobs leave these runs alone; return how many jobs are at one of them or in line for it.

    A job looks about once a second whether the run at hand was cancelled, saves it and goes to the next, and passes by
    what was cancelled before it came. Jobs of Slurm's that have nothing else to do are ended by Slurm, having saved.

    Raises:
        UserError: If Slurm refuses, or has jobs of ours and does not answer.
    """
    from roadmap.jobs.status import look_at_queue

    ours = {folder.name for folder in folders}
    queue = look_at_queue(runs)
    if not queue.answers:
        raise UserError("Slurm does not answer, so nothing was cancelled. Try again, or see 'squeue'.")
    for path, _, parts in read_launches(runs):
        if mine := [run for part in parts for run in part if run in ours]:
            files.write_json(path.parent / CANCELLED, sorted({*mine, *cancelled_runs(path.parent)}))
    working = {(worker.space, worker.pid) for folder in folders if (worker := _worker_without_slurm(folder))}
    queued = {job.id: of_job for job, of_job in queue.jobs if ours.intersection(of_job)}
    # A job that has other runs to do as well goes on with them: it sees for itself what was cancelled.
    slurm_queue.cancel(
        sorted(job for job, of_job in queued.items() if all(_is_over(runs / run, ours) for run in of_job))
    )
    return len(working) + len(queued)


def _is_over(folder: Path, cancelled: set[str]) -> bool:
    return folder.name in cancelled or run_folder.is_done(folder)


def _worker_without_slurm(folder: Path) -> Worker | None:
    """Return the process that trains a run outside Slurm, here or on another machine; None if there is none."""
    last = last_attempt(folder)
    worker = last.worker() if last and is_under_way(last, lambda _: None) else None
    return worker if worker and worker.job is None else None
