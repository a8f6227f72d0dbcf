"""Jobs: which runs, spread over which jobs, on which executor. Starting again is always safe.

A job is a process that takes the next run nobody else holds, longest first, until none is left; so all jobs end about
together, and a run that fails costs only itself. A run is held by a lock on its folder that the operating system lets
go of when its process is gone, however it went.
"""

import fcntl
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Literal

from roadmap import results
from roadmap.errors import UserError
from roadmap.plan import PlannedRun

ROOT = Path(__file__).parents[1]
LOCK = ".lock"
JOBS = "jobs"  # folder of scheduler files and logs, in the runs folder
WEEK_MIN = 7 * 24 * 60
LOOK_S = 0.2
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

State = Literal["waiting", "running", "interrupted", "finished", "diverged", "failed"]


@dataclass(frozen=True)
class Work:
    """What a job is given.

    Attributes:
        folders: Run folders, longest run first; each holds its run.json.
        data_root: Where the data set lies, as `--data` says.
        threads: CPU threads of this job.
        owner: Process that the job ends with; None lets the job live on its own.
    """

    folders: tuple[Path, ...]
    data_root: Path | None
    threads: int
    owner: int | None = None


def do_work(work: Work) -> None:
    """Train every run of the list that has no result and that nobody else holds. This is what a job runs."""
    with _signals_noted() as stopped:
        for folder in work.folders:
            if stopped() or _gone(work.owner):
                return
            try:
                with hold(folder) as mine:
                    if mine and results.read_result(folder) is None:
                        _train_safely(folder, work, lambda: stopped() or _gone(work.owner))
            except (OSError, UserError) as error:  # a folder that cannot be used costs only its own run
                print(f"{folder}: {error}", flush=True)


def _train_safely(folder: Path, work: Work, stop: Callable[[], bool]) -> None:
    from roadmap.run import RunConfig
    from roadmap.train import Stopped, train

    start = time.monotonic()
    print(f"{folder.name}: start", flush=True)
    try:
        config = RunConfig.from_json((results.read_object(folder / results.RUN) or {})["config"])
        row = train(config, folder, data_root=work.data_root, threads=work.threads, stop=stop)
        print(f"{folder.name}: {row['state']}, top-1 {row['top1']}, {row['wall_s']:.1f} s", flush=True)
    except Stopped:
        print(f"{folder.name}: stopped; its checkpoint is saved", flush=True)
    except Exception as error:  # one run's failure must not take the others along
        traceback.print_exc()
        row = dict.fromkeys(results.COLUMNS) | {
            "result_version": results.RESULT_VERSION,
            "state": "failed",
            "error": f"{type(error).__name__}: {error}",
            "wall_s": time.monotonic() - start,
        }
        results.write_json(folder / results.RESULT, row)


@contextmanager
def _signals_noted() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether this process was asked to stop (SIGTERM, SIGINT)."""
    asked: list[int] = []
    before = {name: signal.signal(name, lambda number, _: asked.append(number)) for name in STOP_SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _gone(owner: int | None) -> bool:
    """Whether a process has ended, even if nobody has taken note of its end yet (a zombie)."""
    if owner is None or not Path("/proc/self").exists():
        return False
    try:
        return Path(f"/proc/{owner}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Hold a run's folder, if nobody else does; yields whether it is ours. The lock's file has the holder's number."""
    with (folder / LOCK).open("a+") as file:
        deadline = time.monotonic() + LOOK_S
        while not (mine := _lock(file, fcntl.LOCK_EX)) and time.monotonic() < deadline:
            time.sleep(LOOK_S / 20)  # perhaps someone only looks who holds it (`holder`), which takes no time
        if mine:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield mine


def holder(folder: Path) -> int | None:
    """Return the number of the process that holds a run's folder; None if nobody does."""
    try:
        with (folder / LOCK).open() as file:
            number = file.read()
            return None if _lock(file, fcntl.LOCK_SH) or not number else int(number)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def cancel_holders(folders: Sequence[Path]) -> set[int]:
    """Ask the jobs on this machine that hold any of these folders to save and end; return their process numbers."""
    asked = {number for folder in folders if (number := holder(folder)) is not None}
    for number in asked:
        with suppress(ProcessLookupError, PermissionError):  # gone by now, or another user's
            os.kill(number, signal.SIGTERM)
    return asked


def state_of(folder: Path) -> State:
    """Return where a run stands, from its folder alone."""
    row = results.read_result(folder)
    if row is not None and row["state"] != "failed":
        return row["state"]  # type: ignore[no-any-return]
    if holder(folder) is not None:
        return "running"
    if row is not None:
        return "failed"
    return "interrupted" if (folder / results.PROGRESS).exists() else "waiting"


def prepare(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Write run.json where it is missing, clear failed attempts away; return the runs to do, longest first.

    Raises:
        UserError: If a run folder cannot be written.
    """
    where = _provenance()
    pending = [run for run in planned if not results.is_done(run.folder)]
    for run in pending:
        if results.read_result(run.folder) is not None:
            try:
                (run.folder / results.RESULT).unlink()
            except OSError as error:
                raise UserError(
                    f"{run.folder}: cannot be written ({error.strerror}). Choose another --runs."
                ) from error
        about = results.read_object(run.folder / results.RUN)
        if about is None or not _is_config_of(about.get("config"), run.config.id):
            about = {"rungs": run.rungs, "macs": run.macs, "params": run.params, "config": run.config.to_json()}
            results.write_json(run.folder / results.RUN, about | where)
    return sorted(pending, key=lambda run: -run.cost)


def _is_config_of(content: Any, name: str) -> bool:
    """Whether a run.json's configuration is that of the run of this name."""
    from roadmap.run import RunConfig

    try:
        return RunConfig.from_json(content).id == name
    except (AttributeError, LookupError, TypeError, ValueError):  # damaged in whatever way
        return False


def _provenance() -> dict[str, Any]:
    """Return where and with what a run was planned: commit, versions, host, command, time."""
    return {
        "commit": _commit(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
        "python": platform.python_version(),
        "host": platform.node(),
        "processor": _processor(),
        "command": sys.argv,
        "planned_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """Return the commit of this code, marked where the tree has changes; None where there is no git to ask."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


@dataclass(frozen=True)
class Cluster:
    """What this machine offers: how many jobs at once, on what, with how many threads each."""

    jobs: int
    gpus: int
    threads: int


def look_around(jobs: int | None = None) -> Cluster:
    """Return one job a GPU, or, without GPUs, one a core; `jobs` overrides the number.

    Two processes of one thread do about 1.4 times the work of one process with two threads on small networks, and
    processes with more threads than cores a third of it; so threads are cores / jobs.
    """
    cores = len(os.sched_getaffinity(0))
    gpus = _count_gpus()
    jobs = jobs or gpus or cores
    return Cluster(jobs, gpus, max(1, cores // jobs))


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def submit(
    folders: Sequence[Path], runs: Path, *, executor: str, cluster: Cluster, data_root: Path | None, wait: bool
) -> list[Any]:
    """Start the jobs that work through these run folders (longest first) and return their submitit jobs.

    Args:
        folders: The runs' folders.
        runs: The runs folder, where logs go.
        executor: "local" (processes on this machine) or "debug" (in this process, when waited for).
        cluster: How many jobs and threads.
        data_root: Where the data set lies.
        wait: Whether the caller stays; jobs of one who stays end with it, even if it is killed.

    Raises:
        UserError: If the runs folder cannot be written.
    """
    import submitit

    # A fresh folder for each launch: submitit would take an old result for that of a new job of the same number.
    logs = runs / JOBS / time.strftime("%Y%m%d-%H%M%S") / str(os.getpid())
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{logs}: cannot be made ({error.strerror}). Choose another place with --runs.") from error
    work = Work(tuple(folders), data_root, cluster.threads, os.getpid() if wait else None)
    count = min(cluster.jobs, len(folders)) if executor == "local" else 1
    pool = submitit.AutoExecutor(folder=logs, cluster=executor)
    started = []
    with _environment_for_jobs(cluster.threads):
        for number in range(count):
            pool.update_parameters(timeout_min=WEEK_MIN)
            if cluster.gpus and executor == "local":
                pool.update_parameters(gpus_per_node=1, local_visible_gpus=(number % cluster.gpus,))
            try:
                started.append(pool.submit(do_work, work))
            except OSError as error:
                stop(started)
                raise UserError(
                    f"{logs}: no job can be started ({error.strerror}). Make room, or use --runs."
                ) from error
    return started


@contextmanager
def _environment_for_jobs(threads: int) -> Iterator[None]:
    """Set what jobs inherit: thread counts, the way to this package, and no share in a Ctrl-C at the terminal.

    The terminal sends Ctrl-C to every process of its group; jobs ignore it, and the one who waits for them asks them to
    stop in order (`stop`).
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} | {"PYTHONPATH": path}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def stop(jobs: Sequence[Any], patience_s: float = 30.0) -> None:
    """Ask jobs to save their runs and end; wait for that, at most `patience_s`."""
    deadline = time.monotonic() + patience_s
    while (left := [job for job in jobs if not job.done()]) and time.monotonic() < deadline:
        for job in left:  # again and again: a job that is only starting does not listen yet
            os.kill(int(job.job_id), signal.SIGTERM)
        time.sleep(0.2)
