"""Arrays of Slurm jobs: their script, and submitting it."""

import io
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roadmap.common.errors import UserError
from roadmap.common.machine import environment_lines
from roadmap.jobs import slurm_queue
from roadmap.jobs.cluster import Cluster
from roadmap.jobs.launch_folders import JOBS, LAUNCH, make_logs
from roadmap.jobs.options import JobOptions
from roadmap.jobs.worker import Job

ASK_QUEUE_EVERY_S = 5.0

# The end of a job's script. A process that a signal ended has an exit code of 128 and that signal: 137 where it was
# killed (for memory, say), 140 or 143 where a preemption's signal came before the program listened. One that lost
# another process of its run asks for a new start with 75, one that did not find the others with 76. All of these go
# back into the queue, unless the job is being ended (submitit ends a job that it has requeued with 255) or was killed
# more often than its runs may be; the next start counts the kills. A controller that does not answer is given five
# minutes. Slurm by itself requeues for a node's failure, and for a preemption that the job has outlived.
TEARDOWN = """\
code=$?
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
patiently() { for _ in $(seq 30); do "$@" && return; sleep 10; done; }
if { [ $code = 75 ] || [ $code = 76 ] || [ $code -gt 128 ]; } && [ $code != 255 ] &&
    [ "$(patiently squeue -h -j "$job" -o %T)" = RUNNING ]; then
  case $code in 75 | 140 | 143) ;; *) touch "$logs/$job.${SLURM_RESTART_COUNT:-0}.killed" ;; esac
  if [ "$(ls "$logs" | grep -c "^${job}[.].*[.]killed\\$")" -le "$most" ]; then patiently scontrol requeue "$job"; fi
fi
exit $code"""


# What waits in the launch's folder is executed, so nobody else may have put it there meanwhile.
CHECK_OWNER = """\
[ "$(stat -c %u "$logs")" = "$owner" ] || { echo "$logs: belongs to another user; not started." >&2; exit 1; }"""

# submitit gives a job its order, which it waits for, once it knows the job's number. A launcher that was killed just
# after sbatch never does, so each job's order also lies there from before.
ORDER = "order-{}.pkl"
TAKE_ORDER = f"""\
order="$logs/${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}_submitted.pkl"
[ -e "$order" ] || ln "$logs/{ORDER.format("${SLURM_ARRAY_TASK_ID:-0}")}" "$order" 2>/dev/null"""


@dataclass
class SlurmLaunch:
    """Arrays of Slurm jobs, by the names that they have in the queue."""

    names: list[str]

    def __post_init__(self) -> None:
        self._asked_at, self._there = float("-inf"), True

    def is_over(self) -> bool:
        """Whether none of the jobs is in the queue any more; asks now and then, and takes no answer for a no."""
        if time.monotonic() - self._asked_at > ASK_QUEUE_EVERY_S:
            self._asked_at, queue = time.monotonic(), slurm_queue.read_queue()
            self._there = queue is None or any(job.name in self.names for job in queue)
        return not self._there

    def stop(self) -> None:
        """Take the jobs out of the queue; Slurm ends those that run, having let them save."""
        slurm_queue.cancel(job.id for job in slurm_queue.read_queue() or () if job.name in self.names)


def share_out(folders: Sequence[Path], runs_per_job: int) -> list[tuple[Path, ...]]:
    """Return the runs of each job, dealt out so that jobs take about as long as each other, the longest first."""
    count = -(-len(folders) // runs_per_job)
    return [tuple(folders[number::count]) for number in range(count)]


def launch_on_slurm(job: Job, name: str, options: JobOptions) -> SlurmLaunch:
    """Submit the jobs of a launch, as one array if Slurm takes so many.

    Raises:
        UserError: If Slurm refuses, or would let the jobs wait for ever.
    """
    import submitit

    parts = [replace(job, folders=part) for part in share_out(job.folders, options.runs_per_job)]
    _check_time(options.cluster)
    most = slurm_queue.max_array_size()
    started = SlurmLaunch([])
    for start in range(0, len(parts), most):
        mine = parts[start : start + most]
        own = name if len(parts) <= most else f"{name}-{start // most}"
        logs = make_logs(options.runs, own, options.executor, [part.items for part in mine])
        try:
            executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=options.cluster.max_timeouts)
            executor.update_parameters(**_parameters(own, logs, options))
            # Its own print of a refusal would be the second.
            with slurm_queue.no_options_from_outside(), redirect_stderr(io.StringIO()), executor.batch():
                for index, part in enumerate(mine):
                    own_job = replace(part, logs=logs)
                    _write_order(own_job, logs / ORDER.format(index), options.cluster)
                    executor.submit(own_job)
        except Exception as error:
            (logs / LAUNCH).unlink(missing_ok=True)  # nothing is in the queue under its name
            if not isinstance(error, RuntimeError | OSError | subprocess.SubprocessError):
                raise
            before = f" {start} of {len(parts)} jobs were submitted before; 'cancel' ends them." if start else ""
            raise UserError(
                f"Slurm did not take the jobs: {slurm_queue.explain(error)}{before} Mend the settings (--cluster) and "
                "see what would be submitted with --dry-run."
            ) from error
        started.names.append(own)
    return started


def sbatch_text(folders: Sequence[Path], options: JobOptions) -> str:
    """Return the script that would be submitted for these runs."""
    from submitit.slurm.slurm import _make_sbatch_string  # what its executor writes; there is no public way

    name = f"{options.name}-dryrun"
    logs = (options.runs / JOBS / name).absolute()
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(logs))}"
    count = len(share_out(folders, options.runs_per_job))
    parameters = _parameters(name, logs, options)
    text: str = _make_sbatch_string(command, logs, map_count=count if count > 1 else None, **parameters)
    return text


def _write_order(job: Job, path: Path, cluster: Cluster) -> None:
    """Write what a job is to do, as submitit does once it knows the job's number."""
    from submitit.core.utils import DelayedSubmission

    order = DelayedSubmission(job)
    order.set_timeout(cluster.time_min, cluster.max_timeouts)
    order.dump(path)


def _check_time(cluster: Cluster) -> None:
    """Refuse jobs that would wait for ever, where Slurm lets them into the queue.

    Raises:
        UserError: If none of the partitions gives a job so much time.
    """
    limits = slurm_queue.time_limits(cluster.partition)
    if limits and cluster.time_min > max(limits.values()):
        most = max(limits.values())
        raise UserError(
            f"time_min is {cluster.time_min}, but partition {' or '.join(sorted(limits))} ends jobs after {most:g} "
            f"minutes, so they would wait for ever. Set time_min to {most:g} or less: a run that takes longer is "
            "requeued and goes on."
        )


def _parameters(name: str, logs: Path, options: JobOptions) -> dict[str, Any]:
    cluster, most_kills = options.cluster, options.runs_per_job * (options.max_retries + 1)
    inherit = [
        f"logs={shlex.quote(str(logs))} owner={logs.stat().st_uid if logs.exists() else os.getuid()} most={most_kills}",
        CHECK_OWNER,
        "set +e",
        TAKE_ORDER,
        "unset SLURM_EXPORT_ENV",
        *environment_lines("$SLURM_CPUS_PER_TASK"),
    ]
    return cluster.sbatch_parameters() | {
        "job_name": name,
        "array_parallelism": options.jobs or 1_000_000,
        "stderr_to_stdout": True,
        "setup": [*cluster.setup, *inherit],
        "teardown": [TEARDOWN],
        # One process lost ends the others too; and each gets its cores (srun does not take them from sbatch).
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}"],
    }
