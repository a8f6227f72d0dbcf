"""Launching jobs and cancelling them. Starting again is always safe.

A job is a process (or several, which train together) that takes the runs of its list one after the other, each by
claiming it (`roadmap.runs.attempts`), so that no two jobs do the same work, whoever started them. Where jobs run, and
how the list is shared out among them, is the executor's part (`roadmap.jobs.executors`).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.provenance import provenance
from roadmap.jobs import slurm_queue
from roadmap.jobs.executors import EXECUTORS, Launch
from roadmap.jobs.launch_folders import CANCELLED, cancelled_runs, read_launches
from roadmap.jobs.options import JobOptions
from roadmap.jobs.tasks import TRAINING, Failure, Task, is_over
from roadmap.jobs.worker import Job
from roadmap.runs import run_folder
from roadmap.runs.attempts import ATTEMPTS, Worker, is_under_way, last_attempt
from roadmap.runs.claims import Lost, Writer, take
from roadmap.study.plan import PlannedRun


def prepare(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Write run.json where it is missing; return the runs to do, longest first.

    Raises:
        UserError: If a run folder cannot be written.
    """
    where = provenance()
    pending = [run for run in planned if not run_folder.is_done(run.folder)]
    for run in pending:
        run.write(where)
    _sweep([run.folder for run in planned if run_folder.is_done(run.folder)])
    return sorted(pending, key=lambda run: -run.cost)


def launch(folders: Sequence[Path], options: JobOptions, number: int = 0, task: Task = TRAINING) -> Launch:
    """Start the jobs that do a task on these run folders (the longest work first), by the executor that is named.

    Args:
        folders: The run folders, each with its run.json.
        options: How.
        number: How often this command has started jobs before.
        task: What they do.

    Raises:
        UserError: If the runs folder cannot be written, or the scheduler refuses.
    """
    executor = EXECUTORS[options.executor]
    job = Job(
        tuple(folder.absolute() for folder in folders),
        options.data_root and options.data_root.absolute(),
        threads=options.cluster.cpus_per_task,
        launch=options.name,
        owner=os.getpid() if options.wait and not executor.outlives_command else None,
        max_retries=options.max_retries,
        save_every_s=60 * options.cluster.save_every_min,
        grace_s=max(5.0, options.cluster.signal_delay_s - 20.0),
        loggers=options.loggers,
        needs_gpu=executor.outlives_command and options.cluster.gpus_per_node > 0,
        task=task,
    )
    with _failures_cleared(folders, task, options.name):
        return executor.submit(job, f"{options.name}-{number}", options)


@contextmanager
def _failures_cleared(folders: Sequence[Path], task: Task, command: str) -> Iterator[None]:
    """Take away the notes of failures, which are to be tried again; put them back if no job can be started.

    Both under a claim: meanwhile another command's job may have taken the work, and finished it.

    Raises:
        UserError: If a run folder cannot be written.
    """
    failed = [folder for folder in folders if task.failure(folder) is not None]
    me = Worker.here(command)
    cleared: list[tuple[Path, Failure]] = []
    for folder in failed:
        with _claimed(task.place(folder), me) as writer:
            if writer is not None and (failure := task.failure(folder)) is not None:
                writer.remove(failure.path)
                cleared.append((folder, failure))
    try:
        yield
    except UserError:
        for folder, failure in cleared:
            with _claimed(task.place(folder), me) as writer:
                if writer is not None and not is_over(task, folder):
                    writer.write_json(*failure)
        raise


@contextmanager
def _claimed(place: Path, me: Worker) -> Iterator[Writer | None]:
    """Hold a claim that leaves no trace; yields None where somebody else has it, and ends where they take it over.

    Raises:
        UserError: If the folder cannot be written.
    """
    try:
        with suppress(Lost), take(place, me, slurm_queue.has_job) as claim:
            if claim is not None:
                claim.withdraw()
            yield claim.writer if claim is not None else None
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror}). Choose another --runs.") from error


def _sweep(done: Sequence[Path]) -> None:
    """Remove what killed processes left in the folders of runs that are done; nothing else comes to these any more."""
    me: Worker | None = None
    for folder in filter(run_folder.has_litter, done):
        me = me or Worker.here("sweep")
        with suppress(UserError, OSError), _claimed(folder, me) as writer:
            if writer is not None:
                run_folder.sweep(writer)


# -- cancel


def cancel(folders: Sequence[Path], runs: Path) -> int:
    """Have jobs leave these runs alone; return how many jobs are at one of them or in line for it.

    A job looks about once a second whether the run at hand was cancelled, saves it and goes to the next, and passes by
    what was cancelled before it came. Jobs of Slurm's that have nothing else to do are ended by Slurm, having saved.

    Raises:
        UserError: If Slurm refuses, or has jobs of ours and does not answer.
    """
    from roadmap.jobs.status import look_at_queue

    ours = {folder.name for folder in folders}  # also what other tasks do with these runs: RUN/TASK
    queue = look_at_queue(runs)
    if not queue.answers:
        raise UserError("Slurm does not answer, so nothing was cancelled. Try again, or see 'squeue'.")
    for path, _, parts in read_launches(runs):
        if mine := [item for part in parts for item in part if item.partition("/")[0] in ours]:
            files.write_json(path.parent / CANCELLED, sorted({*mine, *cancelled_runs(path.parent)}))
    places = [
        place for folder in folders for place in (folder, *(path.parent for path in folder.glob(f"*/{ATTEMPTS}")))
    ]
    working = {(worker.space, worker.pid) for place in places if (worker := _worker_without_slurm(place))}
    queued = {job.id: of_job for job, of_job in queue.jobs if any(item.partition("/")[0] in ours for item in of_job)}
    # A job that has other runs to do as well goes on with them: it sees for itself what was cancelled.
    slurm_queue.cancel(
        sorted(job for job, of_job in queued.items() if all(_is_over(runs, item, ours) for item in of_job))
    )
    return len(working) + len(queued)


def _is_over(runs: Path, item: str, cancelled: set[str]) -> bool:
    run, _, task = item.partition("/")
    return run in cancelled or (not task and run_folder.is_done(runs / run))


def _worker_without_slurm(folder: Path) -> Worker | None:
    """Return the process that trains a run outside Slurm, here or on another machine; None if there is none."""
    last = last_attempt(folder)
    worker = last.worker() if last and is_under_way(last, lambda _: None) else None
    return worker if worker and worker.job is None else None
