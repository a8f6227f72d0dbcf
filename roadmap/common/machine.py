"""What this machine offers: cores, GPUs, threads; which device to use; what processes started here inherit."""

import atexit
import gc
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from roadmap.common.errors import UserError
from roadmap.common.paths import ROOT

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # jobs import nothing from the folder that a command was given in
NEW_OBJECTS = 50_000  # after which the rare collection of garbage looks; by itself Python does after some hundred
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# How long a thread that waits for others keeps its core, where the user does not say: about as short as OpenMP (GNU's)
# has it itself where it knows of more threads than cores. It does not know of another command's jobs: two of two
# threads each on two cores trained 7 images/s for want of this, and 200 with it.
WAITING = {"GOMP_SPINCOUNT": "1000"}


@dataclass(frozen=True)
class Machine:
    """What this machine offers: how many jobs at once, on what, with how many threads for each of their processes."""

    jobs: int
    gpus: int
    threads: int

    @property
    def device(self) -> str:
        """What the jobs compute on: "cuda" or "cpu"."""
        return "cuda" if self.gpus else "cpu"


def this_machine(jobs: int | None = None, processes: int = 1) -> Machine:
    """Return one job a GPU, or, without GPUs, one a core (fewer if a run takes several); `jobs` overrides the number.

    Two processes of one thread do about 1.4 times the work of one process with two threads on small networks, and
    processes with more threads than cores a third of it; so threads are cores / processes.
    """
    cores = count_cores()
    gpus = _count_gpus()
    jobs = jobs or max(1, (gpus or cores) // processes)
    return Machine(jobs, gpus, max(1, cores // (jobs * processes)))


def count_cores() -> int:
    """Return the cores that we may use: those of our Slurm job where we are in one, which may not bind us to them."""
    mine = len(os.sched_getaffinity(0))
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(mine, int(given)) if given.isdecimal() else mine


def choose_device(asked: str | None = None) -> str:
    """Return the device to compute on, as torch names it: what was asked for, else a GPU where there is one.

    Raises:
        UserError: If a GPU was asked for and torch finds none.
    """
    gpus = _count_gpus()
    if asked == "cuda" and not gpus:
        raise UserError("device: 'cuda' was asked for, but torch finds no GPU here. Leave it out, or say cpu.")
    return asked or ("cuda" if gpus else "cpu")


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@contextmanager
def collecting_garbage_rarely() -> Iterator[None]:
    """Have this process look for garbage less often, and not at its end, when all goes anyway.

    To import torch and timm makes a million objects and no garbage. To look through them again and again takes a fifth
    of the time of that, and a last time most of a second more.
    """
    before = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS)
    atexit.unregister(gc.freeze)  # once is enough
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def environment_for_jobs(threads: int) -> Iterator[None]:
    """Set what jobs inherit: thread counts, the way to this package, and no share in a Ctrl-C at the terminal.

    The terminal sends Ctrl-C to every process of its group; jobs ignore it, and the one who waits for them asks them to
    stop in order (`Launch.stop`).
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"PYTHONPATH": path, **SAFE_PATH}
    ours |= {name: value for name, value in WAITING.items() if not {name, "OMP_WAIT_POLICY"} & os.environ.keys()}
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


def environment_lines(threads: str) -> list[str]:
    """Return the same environment as lines of a shell script; `threads` is a shell's expression."""
    counts = " ".join(f'{name}="{threads}"' for name in THREAD_VARIABLES)
    safe = "".join(f" {name}={value}" for name, value in SAFE_PATH.items())
    return [f"export{safe} PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}", f"export {counts}"]
