"""How long the commands that only look take, starting Python included: `python -m benchmarks.start_up`.

Seconds are those of a whole process, the commands taking turns; the table holds their median beside what each may take,
and the seconds of a processor, which say more where the machine has other work. The last line is a job that does
nothing but import what training needs, beside the same with Python's garbage collector as it is by itself.
"""

import os
import resource
import subprocess
import sys
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.side_by_side import Progress, options, print_head, print_row, run
from roadmap.common.paths import ROOT
from roadmap.measuring.turns import take_turns, timed

MAY_TAKE_S = {"--help": 0.3, "verify": 5.0, "plan --base resnet50": 5.0, "plan --base resnet200": 5.0}
JOB, PLAIN_JOB = "a job's imports", "the same, collecting garbage as Python does"
RARELY = "from roadmap.common.machine import collecting_garbage_rarely\nwith collecting_garbage_rarely(): "
JOBS = {JOB: f"{RARELY}import torch, timm", PLAIN_JOB: "import torch, timm"}
ROUNDS = 5


def start(command: str, folder: str, processor_s: list[float]) -> None:
    """Run a command in a folder, or Python on a job's lines, and note the processor's seconds.

    Raises:
        CalledProcessError: If it fails.
    """
    words = ["-c", JOBS[command]] if command in JOBS else [str(ROOT / "run_ladder.py"), *command.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = children_s()
    subprocess.run([sys.executable, *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    processor_s.append(children_s() - before)


def children_s() -> float:
    """Return the seconds of a processor that the processes have had that this one started and saw end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    quick = options(__doc__).parse_args().quick  # of the devices, these commands use none
    progress = Progress()
    processor_s: dict[str, list[float]] = {name: [] for name in (["--help"] if quick else [*MAY_TAKE_S, *JOBS])}
    with TemporaryDirectory() as folder:
        visits = {command: timed(partial(start, command, folder, used), "cpu") for command, used in processor_s.items()}
        seconds = take_turns(visits, 1 if quick else ROUNDS, show=progress.of(), warm_up=True)
    progress.clear()
    print_head("command", "seconds", "range", "of a processor", "may take", "ratio")
    limits = MAY_TAKE_S if quick else MAY_TAKE_S | {JOB: median(seconds.pop(PLAIN_JOB))}
    for command, times in seconds.items():
        limit = limits[command]
        span = f"{min(times):.2f} to {max(times):.2f}"
        used, took = median(processor_s[command]), median(times)
        print_row(command, f"{took:.2f}", span, f"{used:.2f}", f"{limit:.3g}", f"{took / limit:.2f}")


if __name__ == "__main__":
    run(main)
