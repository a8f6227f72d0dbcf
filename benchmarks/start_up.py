"""How long the commands that only look take, starting Python included: `python -m benchmarks.start_up`.

Seconds are those of a whole process, the commands taking turns; the table holds their median beside what each may take.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.side_by_side import Progress, options, print_head, print_row, run, take_turns, timed

RUN_LADDER = Path(__file__).parents[1] / "run_ladder.py"
MAY_TAKE_S = {"--help": 0.3, "verify": 5.0, "plan --base resnet50": 5.0, "plan --base resnet200": 5.0}
ROUNDS = 7


def start(command: str, folder: str) -> None:
    """Run a command in a folder.

    Raises:
        CalledProcessError: If it fails.
    """
    subprocess.run([sys.executable, RUN_LADDER, *command.split()], cwd=folder, stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    """Print the table."""
    quick = options(__doc__).parse_args().quick  # of the devices, these commands use none
    progress = Progress()
    commands = ["--help"] if quick else list(MAY_TAKE_S)
    with TemporaryDirectory() as folder:
        visits = {command: timed(partial(start, command, folder), "cpu") for command in commands}
        seconds = take_turns(visits, 1 if quick else ROUNDS, progress.say)
    progress.clear()
    print_head("command", "seconds", "range", "may take", "share of that")
    for command, times in seconds.items():
        limit = MAY_TAKE_S[command]
        span = f"{min(times):.2f} to {max(times):.2f}"
        print_row(command, f"{median(times):.2f}", span, f"{limit:g}", f"{median(times) / limit:.2f}")


if __name__ == "__main__":
    run(main)
