"""What the benchmarks of speed share: their options, progress, ratios of times, tables."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

from roadmap.common.errors import UserError
from roadmap.measuring.turns import Show

QUIET_S = 2.0  # work that is done by then needs no progress


class Progress:
    """A line on stderr that says what is at hand, where that takes longer than `QUIET_S`."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def say(self, what: str) -> None:
        """Show what is at hand in place of what was."""
        if time.monotonic() - self.start > QUIET_S:
            print(f"\r{what:<78.78}", end="", file=sys.stderr, flush=True)

    def of(self, place: str = "") -> Show:
        """Return what shows the visits of a round of turns, after the name of a part of the benchmark."""
        return lambda done, total, what: self.say(", ".join(filter(None, (place, what))))

    def clear(self) -> None:
        """Leave the line empty, before a row of the table is printed."""
        if time.monotonic() - self.start > QUIET_S:
            print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Return the median of the rounds' ratios and, in brackets, the smallest and the largest."""
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def print_head(*names: str) -> None:
    """Print the head of a Markdown table: the first column to the left, the others to the right."""
    print_row(*names)
    print_row("---", *["---:"] * (len(names) - 1))


def print_row(*cells: str) -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all scripts have."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one")
    parser.add_argument("--quick", action="store_true", help="one round of very little: to see that everything works")
    return parser


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that its user caused ends it with a line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
