"""Executors: where jobs run. To add one, write a class with `submit` here and enter it in `EXECUTORS`."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from roadmap.common.errors import UserError
from roadmap.common.machine import Machine, environment_for_jobs, this_machine
from roadmap.jobs.launch_folders import make_logs
from roadmap.jobs.options import JobOptions
from roadmap.jobs.slurm_arrays import launch_on_slurm
from roadmap.jobs.worker import Job

WEEK_MIN = 7 * 24 * 60


class Launch(Protocol):
    """Jobs that were started."""

    def is_over(self) -> bool:
        """Whether all of them have ended."""

    def stop(self) -> None:
        """Have them save what they are at, and end."""


class Executor(Protocol):
    """A place where jobs run.

    Attributes:
        outlives_command: Whether its jobs go on when the command that waits for them is interrupted.
    """

    @property
    def outlives_command(self) -> bool:
        """See the class."""

    def submit(self, job: Job, name: str, options: JobOptions) -> Launch:
        """Start the jobs that work through the folders of an order, shared out as the executor sees fit.

        Args:
            job: The order: each job of the launch is a copy of it, with its own folders, logs and threads.
            name: Of the launch.
            options: How.

        Raises:
            UserError: If the runs folder cannot be written, or no job can be started.
        """


# -- processes of this machine


@dataclass
class LocalLaunch:
    """Jobs that are processes of this machine."""

    jobs: list[Any]

    def is_over(self) -> bool:
        """Whether all processes have ended."""
        return all(job.done() for job in self.jobs)

    def stop(self, patience_s: float = 30.0) -> None:
        """Ask the processes to save their runs and end; wait for that."""
        deadline = time.monotonic() + patience_s
        while (left := [job for job in self.jobs if not job.done()]) and time.monotonic() < deadline:
            for job in left:  # again and again: a job that is only starting does not listen yet
                os.kill(int(job.job_id), signal.SIGTERM)
            time.sleep(0.2)


class LocalExecutor:
    """Processes of this machine, one a GPU or a core, each of which has the whole list: they end about together."""

    outlives_command = False

    def submit(self, job: Job, name: str, options: JobOptions) -> LocalLaunch:
        """Start them; see `Executor`."""
        import submitit

        machine = _machine_for(options)
        logs = make_logs(options.runs, name, options.executor, [job.items])
        job = replace(job, threads=machine.threads, logs=logs)
        executor = submitit.AutoExecutor(folder=logs, cluster="local")
        executor.update_parameters(
            timeout_min=WEEK_MIN, stderr_to_stdout=True, tasks_per_node=options.cluster.tasks_per_node
        )
        launch = LocalLaunch([])
        with environment_for_jobs(machine.threads):
            for number in range(min(machine.jobs, len(job.folders))):
                executor.update_parameters(**_gpus_of(number, options.cluster.processes, machine))
                try:
                    launch.jobs.append(executor.submit(job))
                except OSError as error:
                    launch.stop()
                    raise UserError(
                        f"{logs}: no job can be started ({error.strerror}). Make room, or use --runs."
                    ) from error
        return launch


def _machine_for(options: JobOptions) -> Machine:
    processes = options.cluster.processes
    machine = this_machine(options.jobs, processes)
    if machine.gpus and processes > machine.gpus:
        raise UserError(
            f"tasks_per_node is {processes}, but this machine has {machine.gpus} GPUs. Use as many or fewer."
        )
    return machine


def _gpus_of(number: int, processes: int, machine: Machine) -> dict[str, Any]:
    """Return submitit's parameters for the GPUs of the job of this number."""
    if not machine.gpus:
        return {}
    gpus = tuple((number * processes + gpu) % machine.gpus for gpu in range(processes))
    return {"gpus_per_node": len(gpus), "local_visible_gpus": gpus}


# -- this process


class FinishedLaunch:
    """A job that was done while it was submitted."""

    def is_over(self) -> bool:
        """It is."""
        return True

    def stop(self) -> None:
        """Do nothing: nothing goes on."""


class DebugExecutor:
    """This process, for a debugger: `submit` returns when the work is done."""

    outlives_command = False

    def submit(self, job: Job, name: str, options: JobOptions) -> FinishedLaunch:
        """Do the work; see `Executor`."""
        machine = _machine_for(options)
        logs = make_logs(options.runs, name, options.executor, [job.items])
        replace(job, threads=machine.threads, logs=logs)()
        return FinishedLaunch()


# -- a cluster


class SlurmExecutor:
    """Slurm: arrays of jobs, each with a part of the list."""

    outlives_command = True

    def submit(self, job: Job, name: str, options: JobOptions) -> Launch:
        """Submit them; see `Executor`."""
        return launch_on_slurm(job, name, options)


EXECUTORS: Mapping[str, Executor] = {"local": LocalExecutor(), "slurm": SlurmExecutor(), "debug": DebugExecutor()}
