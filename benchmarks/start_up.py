"""How long the commands that only look take, starting Python included: `python -m benchmarks.start_up`.

Seconds are those of a whole process, the commands taking turns; the table holds their median beside what each may take,
and the seconds of a processor, which say more where the machine has other work.
"""

import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.side_by_side import Progress, options, print_head, print_row, run
from roadmap.measuring.turns import take_turns, timed

RUN_LADDER = Path(__file__).parents[1] / "run_ladder.py"
MAY_TAKE_S = {"--help": 0.3, "verify": 5.0, "plan --base resnet50": 5.0, "plan --base resnet200": 5.0}
ROUNDS = 5


def start(command: str, folder: str, processor_s: list[float]) -> None:
    """Run a command in a folder and note the processor's seconds.

    Raises:
        CalledProcessError: If it fails.
    """
    before = children_s()
    subprocess.run([sys.executable, RUN_LADDER, *command.split()], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    processor_s.append(children_s() - before)


def children_s() -> float:
    """Return the seconds of a processor that the processes have had that this one started and saw end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    quick = options(__doc__).parse_args().quick  # of the devices, these commands use none
    progress = Progress()
    processor_s: dict[str, list[float]] = {command: [] for command in (["--help"] if quick else MAY_TAKE_S)}
    with TemporaryDirectory() as folder:
        visits = {command: timed(partial(start, command, folder, used), "cpu") for command, used in processor_s.items()}
        seconds = take_turns(visits, 1 if quick else ROUNDS, show=progress.of(), warm_up=True)
    progress.clear()
    print_head("command", "seconds", "range", "of a processor", "may take", "ratio")
    for command, times in seconds.items():
        limit = MAY_TAKE_S[command]
        span = f"{min(times):.2f} to {max(times):.2f}"
        used, took = median(processor_s[command]), median(times)
        print_row(command, f"{took:.2f}", span, f"{used:.2f}", f"{limit:g}", f"{took / limit:.2f}")


if __name__ == "__main__":
    run(main)
