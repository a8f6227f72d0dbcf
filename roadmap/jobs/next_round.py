"""The job that starts a study's next round on Slurm: a small one, which waits for the jobs of the round before.

It runs the same command again, as anybody might by hand: what there is to do lies in the runs folder. Of two such jobs
of one study, started by two commands at once, the later one does nothing.
"""

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from roadmap.common.errors import UserError
from roadmap.common.machine import environment_lines
from roadmap.jobs import slurm_queue
from roadmap.jobs.launch_folders import CANCELLED, JOBS, LAUNCH, make_logs, read_launches
from roadmap.jobs.options import JobOptions
from roadmap.jobs.slurm_queue import QueuedJob
from roadmap.jobs.status import Queue, look_at_queue
from roadmap.runs import run_folder

TASK = "next-round"  # its items in a launch are RUN/next-round, for each run that it waits for
TIME_MIN = 30
TRIES = 3  # of submitting it
BEGIN_MIN = 10  # where runs are at work outside Slurm, so that there is no job to wait for: look again after so long
# Slurm may be away for a moment: a refusal (exit code 2) is tried again.
SCRIPT = """\
cd {folder}
for wait in 30 60 120 0; do
  {command}
  code=$?
  [ $code = 2 ] || exit $code
  sleep $wait
done
exit $code"""


def jobs_for_next_round(runs: Collection[str], queue: Queue) -> list[QueuedJob]:
    """Return the jobs in the queue that are to start the round after these runs."""
    items = {f"{run}/{TASK}" for run in runs}
    return [job for job, of_job in queue.jobs if items & set(of_job)]


def my_job() -> str | None:
    """Return the number of the job that this process is of; None outside Slurm."""
    return os.environ.get("SLURM_JOB_ID")


def is_cancelled(runs_folder: Path) -> bool:
    """Whether this process is a job for the next round that somebody has cancelled."""
    return (runs_folder / JOBS / os.environ.get("SLURM_JOB_NAME", "") / CANCELLED).is_file()


def count_tries(run: str, runs_folder: Path) -> int:
    """Return how often a job for the next round was to wait for a run."""
    return sum(f"{run}/{TASK}" in item for _, _, parts in read_launches(runs_folder) for item in parts)


def submit_next_round(command: Sequence[str], runs: Sequence[str], name: str, options: JobOptions) -> str:
    """Submit the job that carries out a command when no job of Slurm's has any of these runs.

    Args:
        command: The words of the command, after the program's name.
        runs: The runs that it waits for.
        name: What the job is called.
        options: How the runs' jobs are started; the small job goes to the same partition and account.

    Returns:
        The job's number.

    Raises:
        UserError: If Slurm refuses.
    """
    logs = make_logs(options.runs, name, options.executor, [[f"{run}/{TASK}" for run in runs]])
    tries_left = TRIES
    while True:
        queue, tries_left = look_at_queue(options.runs), tries_left - 1
        before = sorted({job.id.partition("_")[0] for run in runs if (job := queue.job_of.get(run))})
        elsewhere = not before and any(run_folder.read_result(options.runs / run) is None for run in runs)
        begin = f"now+{BEGIN_MIN}minutes" if elsewhere else None
        try:
            return slurm_queue.submit(script(command, name, logs, options, before=before, begin=begin))
        except UserError:  # perhaps because the jobs to wait for have just ended
            if not tries_left:
                (logs / LAUNCH).unlink(missing_ok=True)  # nothing is in the queue under its name
                raise


def script(
    command: Sequence[str],
    name: str,
    logs: Path,
    options: JobOptions,
    *,
    before: Sequence[str] = (),
    begin: str | None = None,
) -> str:
    """Return the job's script.

    Args:
        command: As for `submit_next_round`.
        name: What it is called.
        logs: Where its log goes.
        options: As for `submit_next_round`.
        before: The jobs that it waits for.
        begin: When it may start, as sbatch takes it; None for at once.
    """
    cluster = options.cluster
    asked = {
        "job-name": name,
        "output": f"{logs}/%j_0_log.out",
        "open-mode": "append",
        "time": min(TIME_MIN, cluster.time_min),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "dependency": f"afterany:{':'.join(before)}" if before else None,
        "begin": begin,
    }
    lines = [f"#SBATCH --{option}={value}" for option, value in asked.items() if value is not None]
    words = [sys.executable, "-m", "roadmap", *command]
    body = SCRIPT.format(folder=shlex.quote(os.getcwd()), command=shlex.join(words))
    setup = [*cluster.setup, "unset SLURM_EXPORT_ENV", *environment_lines("1")]
    return "\n".join(["#!/bin/bash", *lines, "#SBATCH --requeue", *setup, body, ""])
