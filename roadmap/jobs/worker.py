"""What a job does: takes the runs of its list that nobody else is at, one after the other, and trains them."""

import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.jobs import slurm_queue
from roadmap.jobs.launch_folders import cancelled_runs
from roadmap.runs import run_folder
from roadmap.runs.attempts import Claim, Worker, ends, is_alive, take

if TYPE_CHECKING:
    from roadmap.common.process_group import Group
    from roadmap.training.loop import Request

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
START_AGAIN = 75  # exit code with which a job asks its script (`arrays.TEARDOWN`) for a new start


@dataclass
class Job:
    """A job's order; submitit calls it in the job's process (in each of them, where a run has several).

    The work goes on in a second thread, so that the first one can listen to signals: submitit asks for a checkpoint in
    a signal handler, which may run in the middle of anything.

    Attributes:
        folders: Run folders, longest run first; each holds its run.json.
        data_root: Where the data set lies, as `--data` says.
        logs: The launch's folder, where it stands which of the runs were cancelled.
        threads: CPU threads of each process; on Slurm those that the job was given.
        launch: The command that started it.
        owner: Process that the job ends with; None lets the job live on its own.
        max_retries: How often a run that died of something outside itself is tried again.
        save_every_s: Seconds between two checkpoints inside an epoch.
        grace_s: Seconds that a job has to save itself when the scheduler asks for that.
        needs_gpu: Whether to refuse to work without one.
        loggers: Who else is told how runs go (`roadmap.training.loggers`).
    """

    folders: tuple[Path, ...]
    data_root: Path | None
    logs: Path | None = None
    threads: int = 1
    launch: str = ""
    owner: int | None = None
    max_retries: int = 2
    save_every_s: float = 120.0
    grace_s: float = 60.0
    needs_gpu: bool = False
    loggers: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Train every run of the list that has no result and that nobody else is at."""
        # What others ask of the run at hand, and whether the scheduler asked.
        self._request: Request = ""
        self._preempted = False
        self._on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        if self._on_slurm:
            self.threads = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        with self._signals(), ThreadPoolExecutor(1) as thread:
            self._work: Future[None] = thread.submit(self._train_all)
            self._work.result()

    def checkpoint(self) -> Any:
        """Save the run at hand and return the order for the job's next start; submitit calls this on its signal."""
        from submitit.core.utils import DelayedSubmission

        self._preempted, self._request = True, "stop"
        # What does not look up in time (an evaluation, a hanging network) goes on from its last checkpoint.
        wait([self._work] if hasattr(self, "_work") else [], self.grace_s)
        return DelayedSubmission(Job(**{key.name: getattr(self, key.name) for key in fields(self)}))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Note requests to end. On Slurm, that is to save and go on: it requeues us, or kills us if it means it.

        A run that was cancelled ends in any case (`_asked`).
        """

        def note(number: int, _: object) -> None:
            if self._request != "stop":  # which stands: SIGTERM comes on the heels of a preemption's signal
                self._request = "save" if self._on_slurm else "stop"

        before = {name: signal.signal(name, note) for name in STOP_SIGNALS}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _train_all(self) -> None:
        import torch  # now: who works here is written down together with the device

        from roadmap.common.process_group import join

        if self.needs_gpu and not torch.cuda.is_available():
            raise RuntimeError(f"{platform.node()}: the job was given GPUs, but torch finds none. See its driver.")
        with join() as group:
            if group.rank == 0:
                me = _this_worker(self.launch)
                while any([self._try_run(folder, me, group) for folder in self.folders]):
                    pass  # again: a run whose job died meanwhile is ours to take over
                group.agree(None)
            else:
                while (folder := group.agree(None)) is not None:
                    self._follow(folder, group)

    def _try_run(self, folder: Path, me: Worker, group: "Group") -> bool:
        """Train a run if it is to be had; return whether it was. A full disk is given time."""
        deadline = time.monotonic() + files.PATIENCE_S
        while True:
            try:
                return not self._is_to_end() and self._take_run(folder, me, group)
            except (OSError, UserError) as error:  # a folder that cannot be used costs only its own run
                say(f"{folder}: {error}")
                if not files.may_pass(error) or time.monotonic() > deadline:
                    return False
            time.sleep(files.RETRY_EVERY_S)

    def _take_run(self, folder: Path, me: Worker, group: "Group") -> bool:
        if run_folder.read_result(folder) is not None or self._is_cancelled(folder):
            return False
        with take(folder, me, slurm_queue.has_job) as claim:
            if claim is None:
                return False
            if run_folder.read_result(folder) is not None:  # just now, by the one who held it
                claim.withdraw()
                return False
            died = ends(folder, self.launch)["died"]
            if died > self.max_retries:
                _write_failure(folder, claim, f"ended {died} times without a word: killed (out of memory?)")
            else:
                self._train(folder, claim, group)
            return True

    def _train(self, folder: Path, claim: Claim, group: "Group") -> None:
        """Train a run that is ours, and note how that ended."""
        from roadmap.common.process_group import LostProcess
        from roadmap.training.loop import Stopped

        start = time.monotonic()
        say(f"{folder.name}: start")
        group.agree(folder)
        try:
            row = self._train_here(folder, group, lambda: self._asked(claim))
            claim.end = row["state"]
            say(f"{folder.name}: {row['state']}, top-1 {row['top1']}, {row['wall_s']:.1f} s")
        except Stopped:
            claim.end = "preempted" if self._preempted else "stopped"
            say(f"{folder.name}: stopped")
        except Exception as error:
            cause = group.cause(error)
            with suppress(OSError):
                traceback.print_exc()
            try:
                if not (isinstance(cause, LostProcess) or _is_from_outside(cause)):
                    _write_failure(folder, claim, f"{type(cause).__name__}: {cause}", time.monotonic() - start)
            finally:
                # The processes do not understand each other any more; a GPU may answer nothing but errors from now on.
                if group.size > 1 or (_has_used_gpu() and os.environ.get("SUBMITIT_EXECUTOR") in ("slurm", "local")):
                    raise SystemExit(START_AGAIN) from error

    def _follow(self, folder: Path, group: "Group") -> None:
        """Train a run together with rank 0, which has the say."""
        from roadmap.common.process_group import is_loss
        from roadmap.training.loop import Stopped

        try:
            self._train_here(folder, group, lambda: "")
        except Stopped:
            pass
        except Exception as error:
            if is_loss(error) or _is_from_outside(error):
                raise
            group.tell(error)
            with suppress(files.Unwritable):  # rank 0 may be waiting in a kernel, and never get to see why
                _write_failure(folder, None, f"process {group.rank}: {type(error).__name__}: {error}")
            raise

    def _train_here(self, folder: Path, group: "Group", asked: Callable[[], "Request"]) -> dict[str, Any]:
        from roadmap.runs.config import RunConfig
        from roadmap.training.loop import train

        config = RunConfig.from_json((files.read_object(folder / run_folder.RUN) or {})["config"])
        return train(
            config,
            folder,
            data_root=self.data_root,
            threads=self.threads,
            save_every_s=self.save_every_s,
            asked=asked,
            loggers=self.loggers,
            group=group,
        )

    def _asked(self, claim: Claim) -> "Request":
        if claim.is_lost():
            return "leave"
        if self._is_orphan() or self._is_cancelled(claim.folder):
            return "stop"
        request = self._request
        if request == "save":
            self._request = ""
        return request

    def _is_cancelled(self, folder: Path) -> bool:
        return self.logs is not None and folder.name in cancelled_runs(self.logs)

    def _is_to_end(self) -> bool:
        return self._request == "stop" or self._is_orphan()

    def _is_orphan(self) -> bool:
        return self.owner is not None and not is_alive(self.owner)


def _this_worker(launch: str) -> Worker:
    """Return what others need to know of this process."""
    if "SUBMITIT_EXECUTOR" not in os.environ or "SUBMITIT_FOLDER" not in os.environ:
        return Worker.here(launch)
    import submitit

    job = submitit.JobEnvironment()
    on_slurm = os.environ["SUBMITIT_EXECUTOR"] == "slurm"
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0")) if on_slurm else 0
    return Worker.here(launch, str(job.paths.stdout), job.job_id if on_slurm else None, restart)


def _is_from_outside(error: BaseException) -> bool:
    """Whether a run has died of something outside itself: a disk that may have room again, a worker that was killed."""
    killed = "DataLoader worker" in str(error) and "killed by signal" in str(error)
    return files.may_pass(error) or killed


def _has_used_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def _write_failure(folder: Path, claim: Claim | None, reason: str, wall_s: float | None = None) -> None:
    """Write the row of a run that failed."""
    row = dict.fromkeys(run_folder.COLUMNS) | {
        "result_version": run_folder.RESULT_VERSION,
        "state": "failed",
        "error": reason,
        "wall_s": wall_s,
    }
    say(f"{folder.name}: failed: {reason}")
    files.write_json(folder / run_folder.RESULT, row)
    if claim is not None:
        claim.end = "failed"
