"""Taking turns side by side: what is compared is measured in rounds, with the same threads, on the same device."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

K = TypeVar("K")
R = TypeVar("R")
Show = Callable[[int, int, str], None]  # called with the number of visits done, that of all, and what is at hand


def show_nothing(done: int, total: int, what: str) -> None:
    """Show no progress."""


def take_turns(
    visits: Mapping[K, Callable[[], R]],
    rounds: int,
    *,
    label: Callable[[K], str] = str,
    show: Show = show_nothing,
    limit_s: float = float("inf"),
    warm_up: bool = False,
) -> dict[K, list[R]]:
    """Visit everything once a round, in an order that is reversed from round to round.

    Whatever else the machine does then affects all of them alike, and results of one round can be compared.

    Args:
        visits: What is done in a visit of each; it returns what was measured.
        rounds: How often each is visited.
        label: What each is called where progress is shown.
        show: Called before each visit.
        limit_s: When so many seconds have passed, no further round begins. There is always one.
        warm_up: Whether a round that does not count comes first.

    Returns:
        The results of each, one a round.
    """
    start = time.monotonic()
    results: dict[K, list[R]] = {key: [] for key in visits}
    for number in range(-1 if warm_up else 0, rounds):
        if number > 0 and time.monotonic() - start > limit_s:
            break
        order = list(visits)[:: -1 if number % 2 else 1]
        for place, key in enumerate(order):
            done = number * len(order) + place if number >= 0 else 0
            show(done, rounds * len(order), f"{label(key)}{_round(number, rounds)}")
            result = visits[key]()
            if number >= 0:
                results[key].append(result)
    return results


def _round(number: int, rounds: int) -> str:
    """Return what is said of a round after the name of what is visited; nothing where there is one round alone."""
    if number < 0:
        return ": warming up"
    return f": round {number + 1} of {rounds}" if rounds > 1 else ""


@contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Have torch compute with so many threads; afterwards with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_on(device: str) -> float:
    """Return the time, in seconds of a clock, when the device has done all that it was given."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def work_per_s(work: Callable[[], object], device: str, seconds: float) -> float:
    """Do some work on a device again and again for about so long, once at least; return how often a second it was done.

    It is done once before, which is not timed: kernels are chosen then, and memory is found.
    """
    work()
    times, start = 0, time_on(device)
    while times == 0 or time_on(device) - start < seconds:
        work()
        times += 1
    return times / (time_on(device) - start)


def timed(work: Callable[[], object], device: str) -> Callable[[], float]:
    """Return a visit that does some work on a device and returns the seconds that it took."""

    def visit() -> float:
        start = time_on(device)
        work()
        return time_on(device) - start

    return visit
