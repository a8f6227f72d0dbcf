"""What the benchmarks of speed share: contestants that take turns, the ratios of their times, tables, progress."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from roadmap.common.errors import UserError

QUIET_S = 2.0  # work that is done by then needs no progress

Visit = Callable[[], float]  # does a contestant's share of work and returns the seconds it took


class Progress:
    """A line on stderr that says what is at hand, where that takes longer than `QUIET_S`."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def say(self, what: str) -> None:
        """Show what is at hand in place of what was."""
        if time.monotonic() - self.start > QUIET_S:
            print(f"\r{what:<78.78}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line empty, before a row of the table is printed."""
        if time.monotonic() - self.start > QUIET_S:
            print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)


def timed(work: Callable[[], object], device: str) -> Visit:
    """Return a visit that does some work and waits until the device has done it."""

    def visit() -> float:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        return time.perf_counter() - start

    return visit


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def take_turns(visits: Mapping[str, Visit], rounds: int, show: Callable[[str], None]) -> dict[str, list[float]]:
    """Visit every contestant once a round, in an order that turns round from round to round.

    Whatever else the machine does then hits all alike; times of one round are to be compared with each other. A round
    before the first warms up and does not count.

    Args:
        visits: The contestants.
        rounds: How often each is visited.
        show: Called before each visit with what is at hand.

    Returns:
        The seconds of each contestant's visits.
    """
    seconds: dict[str, list[float]] = {name: [] for name in visits}
    for number in range(-1, rounds):
        for name in list(visits)[:: -1 if number % 2 else 1]:
            show(f"{name}: {f'round {number + 1} of {rounds}' if number >= 0 else 'warming up'}")
            took = visits[name]()
            if number >= 0:
                seconds[name].append(took)
    return seconds


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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="one round of very little: to see that everything works")
    return parser


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UserError: If it is a GPU and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: 'cuda', but torch finds no GPU here. Leave it out, or say cpu.")


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that its user caused ends it with a line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
