"""Which way of training is fastest on this device: precision, compiled kernels, runs at a time.

What it finds is a recommendation, in the words of a recipe: precision changes numbers, compiled kernels their rounding,
so a run has them because its recipe says so, not because of the device that it met.
"""

import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from roadmap.common.machine import Machine, count_cores, environment_for_jobs
from roadmap.common.provenance import gpu, processor
from roadmap.measuring.rung_costs import networks
from roadmap.measuring.turns import Show, cpu_threads, take_turns
from roadmap.recipe import Precision
from roadmap.runs.config import RunConfig
from roadmap.study.plan import PlannedRun, Study

if TYPE_CHECKING:
    from roadmap.measuring.meter import Meter

ROUNDS = 3
VISIT_S = 0.5
LEAST_GAIN = 1.05  # how much faster another way must be: less is the clock's noise
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cpu": ("none", "bfloat16"),
    "cuda": ("none", "bfloat16", "float16"),
}
MOST_JOBS_A_GPU = 8


@dataclass(frozen=True)
class Way:
    """A way of training, and how fast it is.

    Attributes:
        words: What it is, as a recipe or command line says it.
        images_per_s: Of each network that it was tried on; of all runs at a time together.
        ratio: Its speed in that of the way it is compared with: the median over networks and rounds.
        before_s: Seconds before the first step (compiling).
    """

    words: str
    images_per_s: dict[str, float]
    ratio: float
    before_s: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """What was tried, in order, and what follows: a sentence for each choice."""

    device: str
    ways: tuple[Way, ...]
    choices: tuple[str, ...]


def calibrate(study: Study, machine: Machine, show: Show) -> Calibration:
    """Try ways of training on the first, a middle and the last network of a study.

    Args:
        study: Its recipe says what a batch is, and what the other ways are compared with.
        machine: This machine.
        show: Called before each trial with the number done, that of all, and what is at hand.
    """
    runs = networks(study)
    some = [runs[i] for i in sorted({0, len(runs) // 2, len(runs) - 1})]
    amps: list[Precision] = list(dict.fromkeys((study.recipe.amp, *PRECISIONS[machine.device])))
    counts = _job_counts(machine.device)
    total, done = len(amps) * len(some) + 1 + len(counts), 0

    def report(what: str) -> None:
        nonlocal done
        show(done, total, what)
        done += 1

    with cpu_threads(machine.threads):
        ways = _try_precisions(some, amps, machine.device, report)
        amp, choice = _choose_precision(ways, amps)
        rung, config = some[-1].rungs[0], some[-1].config
        config = replace(config, recipe=replace(config.recipe, amp=amp, compile=False))
        report(f"{rung}, compiled")
        compiled = _try_compiler(config, rung, machine.device)
        together = {}
        for count in counts:
            report(f"{count} runs at a time")
            together[count] = _train_together(config, count, machine.device)
    ways += [compiled]
    ways += [Way(f"--jobs {n}", {rung: speed}, speed / together[counts[0]]) for n, speed in together.items()]
    choices = (choice, _choose_compiler(compiled, config), _choose_jobs(together, machine))
    return Calibration(gpu() or processor(), tuple(ways), choices)


def _choose_precision(ways: Sequence[Way], amps: Sequence[Precision]) -> tuple[Precision, str]:
    """Return the precision that is clearly the fastest, else the recipe's own, and why."""
    own = amps[0]
    best, fastest = max(zip(ways, amps, strict=True), key=lambda pair: pair[0].ratio)
    if best.ratio < LEAST_GAIN:
        return own, f"amp: {own} (no other precision is faster)"
    return fastest, f"amp: {fastest} ({best.ratio:.2f} times as fast as {own}; it changes numbers)"


def _choose_jobs(together: dict[int, float], machine: Machine) -> str:
    """Say how many runs at a time are clearly the fastest, by the images per second of all of them."""
    one = together[1]
    most = max(together, key=lambda count: together[count])
    best = most if together[most] >= LEAST_GAIN * one else 1
    per = " for each GPU" if machine.gpus else ""
    return f"--jobs {best}{per} ({together[best] / one:.2f} times the images of one run at a time)"


def _try_precisions(
    runs: Sequence[PlannedRun], amps: Sequence[Precision], device: str, report: Callable[[str], None]
) -> list[Way]:
    """Train each network in each precision, taking turns; the first precision is what the others are compared with."""
    speeds: dict[Precision, dict[str, list[float]]] = {amp: {} for amp in amps}
    for run in runs:
        visits: dict[Precision, Callable[[], float]] = {}
        for amp in amps:
            report(f"{run.rungs[0]}, amp: {amp}")
            meter = _meter(replace(run.config, recipe=replace(run.config.recipe, amp=amp)), device)
            visits[amp] = partial(meter.training_speed, VISIT_S)
        for amp, rounds in take_turns(visits, ROUNDS).items():
            speeds[amp][run.rungs[0]] = rounds
    first = speeds[amps[0]]
    return [
        Way(
            f"amp: {amp}",
            {rung: median(rounds) for rung, rounds in own.items()},
            median(x / y for rung, rounds in own.items() for x, y in zip(rounds, first[rung], strict=True)),
        )
        for amp, own in speeds.items()
    ]


def _meter(config: RunConfig, device: str) -> "Meter":
    from roadmap.measuring.meter import Meter, make_batches

    return Meter(config, make_batches(config, config.recipe.batch_size, 1, device), memory_and_inference=False)


def _try_compiler(config: RunConfig, rung: str, device: str) -> Way:
    # Who has no GPU is told so for each kernel.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    plain = _meter(config, device)
    start = time.monotonic()
    try:
        compiled = _meter(replace(config, recipe=replace(config.recipe, compile=True)), device)
    except Exception as error:  # no compiler for C++ on this machine, say
        return Way(f"compile: true does not work here: {type(error).__name__}", {}, 0.0)
    before_s = time.monotonic() - start
    meters = {"compiled": compiled, "plain": plain}
    speeds = take_turns({name: partial(meter.training_speed, VISIT_S) for name, meter in meters.items()}, ROUNDS)
    ratio = median(fast / slow for fast, slow in zip(speeds["compiled"], speeds["plain"], strict=True))
    return Way("compile: true", {rung: median(speeds["compiled"])}, ratio, before_s)


def _job_counts(device: str) -> list[int]:
    """Return how many runs at a time are tried: 1, 2, 4, ..."""
    most = MOST_JOBS_A_GPU if device == "cuda" else count_cores()
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def _train_together(config: RunConfig, count: int, device: str) -> float:
    """Train as many runs at a time, a process each, and return the images/s of all; on a CPU they share its cores."""
    threads = max(1, count_cores() // count)
    context = multiprocessing.get_context("spawn")
    with (
        environment_for_jobs(threads),
        ProcessPoolExecutor(count, context, _join, (context.Barrier(count),)) as processes,
    ):
        return sum(processes.map(_train_one, [config] * count, [threads] * count, [device] * count))


_barrier: Any = None  # of the processes that train at a time


def _join(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _train_one(config: RunConfig, threads: int, device: str) -> float:
    import torch

    torch.set_num_threads(threads)
    meter = _meter(config, device)
    _barrier.wait(timeout=120)
    return float(meter.training_speed(3 * VISIT_S))


def _choose_compiler(way: Way, config: RunConfig) -> str:
    """Say whether compiling brings more than it costs over a whole run."""
    if not way.images_per_s:
        return f"compile: false ({way.words})"
    [speed] = way.images_per_s.values()
    saved_s = config.images_seen / speed * (way.ratio - 1)
    gain = f"{way.ratio:.2f} times as fast, after {way.before_s:.0f} s before the first step"
    pays = way.ratio >= LEAST_GAIN and saved_s > way.before_s
    return f"compile: {'true' if pays else 'false'} (compiled it is {gain}; a run would be {saved_s:,.0f} s shorter)"
