"""A job: takes the run folders of its list that nobody else is at, one after the other, and does its task on them."""

import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.log import say
from roadmap.common.machine import collecting_garbage_rarely
from roadmap.jobs import slurm_queue
from roadmap.jobs.launch_folders import cancelled_runs
from roadmap.jobs.tasks import TRAINING, Setting, Stopped, Task, is_from_outside, is_over, item_of
from roadmap.runs.attempts import STALE_S, Attempt, Worker, ends, is_alive, last_attempt, life_of
from roadmap.runs.claims import Claim, Lost, Writer, take

if TYPE_CHECKING:
    from roadmap.common.process_group import Group
    from roadmap.training.loop import Request

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
START_AGAIN = 75  # exit code with which a job asks its script (`slurm_arrays.TEARDOWN`) for a new start
LOST = "taken over by another job (this one was given up for dead, or the folder is gone); left alone"
WATCHES = 40  # looks at a silent heart before it is given up
LOOK_EVERY_S = 0.2  # whether an interruptible task is to end


@dataclass
class Job:
    """A job's order; submitit calls it in the job's process (in each of them, where a run has several).

    The work goes on in a second thread, so that the first one can listen to signals: submitit asks for a checkpoint in
    a signal handler, which may run in the middle of anything.

    Attributes:
        folders: Run folders, those with the longest work first; each holds its run.json.
        data_root: Where the data set lies, as `--data` says.
        logs: The launch's folder, where it stands which of the runs were cancelled.
        threads: CPU threads of each process; on Slurm those that the job was given.
        launch: The command that started it.
        owner: Process that the job ends with; None lets the job live on its own.
        max_retries: How often a run that died of something outside itself is tried again.
        save_every_s: Seconds between two checkpoints inside an epoch.
        grace_s: Seconds that a job has to save itself when the scheduler asks for that.
        needs_gpu: Whether to refuse to work without one.
        loggers: What else is to receive the progress of runs (`roadmap.training.loggers`).
        task: What to do with each of them.
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
    task: Task = TRAINING

    @property
    def items(self) -> list[str]:
        """What the launch calls each piece of work."""
        return [item_of(self.task, folder) for folder in self.folders]

    def __call__(self) -> None:
        """Do the task on every folder of the list where it is not done and nobody else is at it."""
        # What others ask of the run at hand, and whether the scheduler asked.
        self._request: Request = ""
        self._preempted = False
        self._claim: Claim | None = None
        self._reasons: dict[Path, str] = {}  # why the last attempt at a run ended, where it is tried again
        self._watched: set[Path] = set()  # of which it is not known whether anybody is at them
        executor = os.environ.get("SUBMITIT_EXECUTOR")
        self._on_slurm = executor == "slurm"
        if self._on_slurm:
            self.threads = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        with self._signals(), ThreadPoolExecutor(1) as thread:
            self._work: Future[None] = thread.submit(self._do_all)
            if self.task.interruptible and executor == "local":
                while wait([self._work], LOOK_EVERY_S).not_done:
                    self._end_if_asked()
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

    def _end_if_asked(self) -> None:
        """End this process in the middle of its work, if it is to end."""
        if self._is_to_end():
            if (claim := self._claim) is not None:
                claim.end = "stopped"
                claim.release()  # does nothing where the work has just ended by itself
            os._exit(0)

    def _do_all(self) -> None:
        # Now: who works here is written down together with the device; timm brings torch._dynamo, as optimizers would.
        with collecting_garbage_rarely():
            import timm  # noqa: F401
            import torch

        from roadmap.common.process_group import join

        if self.needs_gpu and not torch.cuda.is_available():
            raise RuntimeError(f"{platform.node()}: the job was given GPUs, but torch finds none. See its driver.")
        with join() as group:
            if group.rank == 0:
                me = _this_worker(self.launch)
                while any([self._try(folder, me, group) for folder in self.folders]) or self._watches():
                    pass  # again: work whose job died meanwhile is ours to take over
                group.agree(None)
            else:
                while (found := group.agree(None)) is not None:
                    self._follow(*found, group)

    def _try(self, folder: Path, me: Worker, group: "Group") -> bool:
        """Do the task on a folder if nobody else is at it; return whether it was ours. A full disk is given time."""
        deadline = time.monotonic() + files.PATIENCE_S
        while True:
            try:
                return not self._is_to_end() and self._take(folder, me, group)
            except (OSError, UserError) as error:  # a folder that cannot be used costs only its own run
                say(f"{folder}: {error}")
                if not files.may_pass(error) or time.monotonic() > deadline:
                    return False
            time.sleep(files.RETRY_EVERY_S)

    def _take(self, folder: Path, me: Worker, group: "Group") -> bool:
        if is_over(self.task, folder) or self._is_cancelled(folder):
            return False
        place = self.task.place(folder)
        if place != folder:
            place.mkdir(exist_ok=True)
        with take(place, me, slurm_queue.has_job) as claim:
            if claim is None:
                return False
            if is_over(self.task, folder):  # just now, by the one who held it
                claim.withdraw()
                return False
            self._claim = claim
            died = ends(place, self.launch)["died"]
            if died > self.max_retries:
                reason = self._reasons.get(folder, "killed without a word (out of memory?)")
                self._fail(claim, f"ended {died} times: {reason}")
            else:
                self._do(folder, claim, group)
            return True

    def _watches(self) -> bool:
        """Whether there is work of which it will be known in a while whether anybody is at it; waits a little if so."""
        opened = [(place, last, life_of(last, slurm_queue.has_job)) for place, last in self._open_attempts()]
        unknown = {place for place, _, life in opened if life == "unknown"}
        for place, last, life in opened:
            who, doubt = _name_of(last), last.doubt()
            if life == "unknown" and place not in self._watched:
                say(f"{place.name}: {who} may be at it: {doubt}. Watching it for up to {STALE_S:.0f} s.")
            elif life == "alive" and place in self._watched:
                say(f"{place.name}: {who} is at it, though {doubt}. Set the clocks of both machines.")
        self._watched = unknown
        if unknown and not self._is_to_end():
            time.sleep(STALE_S / WATCHES)
            return True
        return False

    def _open_attempts(self) -> Iterator[tuple[Path, Attempt]]:
        """Yield the places of undone work that has an attempt without an end, and that attempt."""
        for folder in self.folders:
            with suppress(OSError, UserError):
                last = None if is_over(self.task, folder) else last_attempt(self.task.place(folder))
                if last is not None and last.end is None:
                    yield self.task.place(folder), last

    def _do(self, folder: Path, claim: Claim, group: "Group") -> None:
        """Do the task on a folder that is ours, and note how that ended."""
        from roadmap.common.process_group import LostProcess

        start = time.monotonic()
        say(f"{folder.name}: start")
        group.agree((folder, claim.attempt.number))
        try:
            claim.end, words = self.task.do(folder, self._setting(folder, group, claim.writer, claim))
            say(f"{folder.name}: {words}")
        except Stopped:
            claim.end = "preempted" if self._preempted else "stopped"
            say(f"{folder.name}: {LOST if claim.is_lost() else 'stopped'}")
        except Lost as error:
            say(f"{folder.name}: {LOST}")
            if group.size > 1:  # the others wait for us
                raise SystemExit(START_AGAIN) from error
        except Exception as error:
            cause = group.cause(error)
            with suppress(OSError):
                traceback.print_exc()
            try:
                if isinstance(cause, LostProcess) or is_from_outside(cause):
                    self._reasons[folder] = f"{type(cause).__name__}: {cause}"
                else:
                    self._fail(claim, f"{type(cause).__name__}: {cause}", time.monotonic() - start)
            except Lost:
                say(f"{folder.name}: {LOST}")
            finally:
                # The processes do not understand each other any more; a GPU may answer nothing but errors from now on.
                if group.size > 1 or (_has_used_gpu() and os.environ.get("SUBMITIT_EXECUTOR") in ("slurm", "local")):
                    raise SystemExit(START_AGAIN) from error

    def _follow(self, folder: Path, attempt: int, group: "Group") -> None:
        """Do the task together with rank 0, which has the say, and the claim."""
        from roadmap.common.process_group import is_loss

        writer = Writer(self.task.place(folder), attempt)
        try:
            self.task.do(folder, self._setting(folder, group, writer))
        except Stopped:
            pass
        except Exception as error:
            if is_loss(error) or is_from_outside(error):
                raise
            group.tell(error)
            with suppress(files.Unwritable, Lost):  # rank 0 may be waiting in a kernel, and never get to see why
                self.task.fail(writer, f"process {group.rank}: {type(error).__name__}: {error}")
            raise

    def _setting(self, folder: Path, group: "Group", writer: Writer, claim: Claim | None = None) -> Setting:
        """Return the conditions of the work: on rank 0 with its claim, which says what others ask."""

        def asked() -> "Request":
            return self._asked(folder, claim) if claim else ""

        return Setting(self.data_root, self.threads, self.save_every_s, asked, group, self.loggers, writer)

    def _fail(self, claim: Claim, reason: str, wall_s: float | None = None) -> None:
        self.task.fail(claim.writer, reason, wall_s)
        claim.end = "failed"

    def _asked(self, folder: Path, claim: Claim) -> "Request":
        if claim.is_lost():
            return "leave"
        if self._is_orphan() or self._is_cancelled(folder):
            return "stop"
        request = self._request
        if request == "save":
            self._request = ""
        return request

    def _is_cancelled(self, folder: Path) -> bool:
        return self.logs is not None and item_of(self.task, folder) in cancelled_runs(self.logs)

    def _is_to_end(self) -> bool:
        return self._request == "stop" or self._is_orphan()

    def _is_orphan(self) -> bool:
        return self.owner is not None and not is_alive(self.owner)


def _name_of(attempt: Attempt) -> str:
    worker = attempt.worker()
    return f"process {worker.pid} of {worker.host}" if worker else f"somebody ({attempt.path.name} is damaged)"


def _this_worker(launch: str) -> Worker:
    """Return what others need to know of this process."""
    if "SUBMITIT_EXECUTOR" not in os.environ or "SUBMITIT_FOLDER" not in os.environ:
        return Worker.here(launch)
    import submitit

    job = submitit.JobEnvironment()
    on_slurm = os.environ["SUBMITIT_EXECUTOR"] == "slurm"
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0")) if on_slurm else 0
    return Worker.here(launch, str(job.paths.stdout), job.job_id if on_slurm else None, restart)


def _has_used_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()
