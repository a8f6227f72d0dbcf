"""How long runs take before they have run: from those done or measured here, a few timed now, or a GPU's data sheet.

A training image takes time for the multiply-adds of dense convolutions and linear layers, for moving activations, and
for depthwise convolutions, which are slow for their few multiply-adds. Three rates say how much; a device's are fitted
to networks timed on it, or follow from its data sheet. Loading images is not part of it.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from roadmap.common.errors import UserError, unknown
from roadmap.common.machine import Machine
from roadmap.common.provenance import gpu, processor
from roadmap.measuring.rung_costs import keys_of, networks, read_measured
from roadmap.measuring.turns import Show, cpu_threads, take_turns
from roadmap.runs import run_folder
from roadmap.study.plan import PlannedRun, Study

BYTES = 2  # of an activation, at 16 bits
# Multiply-adds that this harness trains a second on one core of a recent x86 server (measured on an AMD EPYC 9004);
# an estimate before anything has run here, and said to be one.
GUESSED_MACS_PER_S = 5e9
# What a run takes beside its steps: to be set up, evaluated and written. Measured on the default proxy, whose 102 runs
# take 1.0 to 2.5 s; where images are many it is nothing beside the training.
REST_S = 1.5
PROBED = 4  # networks that are timed for the rates of this device,
PROBE_S = 0.3  # each for about as long,
PROBE_MACS = {"cpu": 1.5e9, "cuda": 2e12}  # with batches of as much work


class Work(NamedTuple):
    """What a training image asks of a device: multiply-adds of dense layers and of depthwise ones, activations."""

    dense: float
    depthwise: float
    activations: float

    @classmethod
    def of(cls, run: PlannedRun) -> "Work":
        """Return that of a run's network; backward is twice the work of forward."""
        return cls(3.0 * (run.macs - run.depthwise_macs), 3.0 * run.depthwise_macs, float(run.activations))


class Rates(NamedTuple):
    """Seconds of a device for a unit of each kind of `Work`."""

    dense: float
    depthwise: float
    activations: float

    def images_per_s(self, work: Work) -> float:
        """Return the training images per second of a network."""
        return 1 / sum(rate * amount for rate, amount in zip(self, work, strict=True))


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet.

    Attributes:
        macs_per_s: Dense multiply-adds at 16 bits with float32 sums, a second: half of the FLOPS that are printed.
        bytes_per_s: Memory bandwidth.
    """

    macs_per_s: float
    bytes_per_s: float


# Source: NVIDIA's data sheets (without sparsity; SXM versions).
DEVICES = {
    "v100": Device(62.5e12, 0.9e12),
    "rtx3090": Device(35.5e12, 0.936e12),
    "rtx4090": Device(82.6e12, 1.008e12),
    "a100": Device(156e12, 1.555e12),
    "a100-80gb": Device(156e12, 2.039e12),
    "h100": Device(494.7e12, 3.35e12),
    "h200": Device(494.7e12, 4.8e12),
}

# How a GPU uses what its data sheet promises: the time of dense layers is this share of that at the highest rate; each
# activation is moved this often, whatever needs it; each multiply-add of a depthwise convolution (forward and backward
# together are three) takes as long as to move so many bytes. Fitted to the training speeds, with mixed precision and
# channels_last, of ten ResNets and ConvNeXts on an RTX 3090 that timm publishes (benchmark-train-amp-nhwc-pt112-cu113),
# which it meets to 5%. What it says of an A100, which it was not fitted to, is near what users report.
DENSE, MOVES, DEPTHWISE_BYTES = 0.93, 21.9, 0.67


def rates_of(device: str) -> Rates:
    """Return the rates of a GPU by its name in `DEVICES`.

    Raises:
        UserError: If it is not there.
    """
    if device not in DEVICES:
        raise unknown("device", device, DEVICES, place="--device")
    gpu = DEVICES[device]
    return Rates(DENSE / gpu.macs_per_s, DEPTHWISE_BYTES / gpu.bytes_per_s, MOVES * BYTES / gpu.bytes_per_s)


def fit_rates(works: Sequence[Work], images_per_s: Sequence[float]) -> Rates:
    """Return the rates that come nearest to measured speeds, by their ratios; none is negative."""
    from scipy.optimize import nnls

    speeds = np.array(images_per_s)
    solution, _ = nnls(np.array(works) * speeds[:, None], np.ones(len(works)))
    return Rates(*map(float, solution))


@dataclass(frozen=True)
class Forecast:
    """What runs will take.

    Attributes:
        seconds: How long each run keeps one device (a GPU, or as many cores as a job has), by its id.
        images_per_s: How fast each trains.
        devices: How many devices work at a time.
        unit: What a device is: a GPU or what a job has of it, a core, the machine.
        source: What all of it is based on.
    """

    seconds: dict[str, float]
    images_per_s: dict[str, float]
    devices: int
    unit: str
    source: str

    def hours(self, runs: Sequence[PlannedRun]) -> float:
        """Return the device-hours of some of the runs."""
        return sum(self.seconds[run.config.id] for run in runs) / 3600

    def wall_s(self, runs: Sequence[PlannedRun]) -> float:
        """Return the seconds until some of the runs are done, all devices at work; not before the longest."""
        longest = max((self.seconds[run.config.id] for run in runs), default=0.0)
        return max(longest, 3600 * self.hours(runs) / self.devices)


def forecast_on(device: str, study: Study, gpus: int) -> Forecast:
    """Return what a study's runs take on GPUs that are known by their data sheet.

    Raises:
        UserError: If the device is not known, or the study trains in float32, which its rates say nothing of.
    """
    rates = rates_of(device)
    if study.recipe.amp == "none":
        raise UserError(
            f"--device {device}: its data sheet's speed is for 16 bits, but recipe '{study.recipe.name}' trains in "
            "float32 (amp: none). Leave --device out, and have it timed where it will run: --measure."
        )
    return _by_rates(study, rates, gpus, "GPU", f"from the data sheet of the {device}")


def forecast_by_timing(study: Study, machine: Machine, show: Show) -> Forecast:
    """Return what a study's runs take on this machine, by a few of its networks that are timed now."""
    runs = networks(study)
    some = [runs[i] for i in sorted({round(i) for i in np.linspace(0, len(runs) - 1, PROBED)})]
    visits = {run.rungs[0]: partial(_time, run, machine.device) for run in some}
    with cpu_threads(machine.threads):
        speeds = take_turns(visits, 1, show=show)
    rates = fit_rates([Work.of(run) for run in some], [speed for [speed] in speeds.values()])
    unit = "GPU" if machine.gpus else "core"
    devices = machine.gpus or machine.jobs
    return _by_rates(study, rates, devices, unit, f"from {len(some)} networks timed just now")


def _time(run: PlannedRun, device: str) -> float:
    """Return the images per second with which a run's network trains, on batches of about the same work for all."""
    from roadmap.measuring.meter import Meter, make_batches

    size = max(2, min(run.config.recipe.batch_size, int(PROBE_MACS[device] / (3 * run.macs))) // 2 * 2)
    meter = Meter(run.config, make_batches(run.config, size, 1, device), memory_and_inference=False)
    return meter.training_speed(PROBE_S)


def forecast(study: Study, machine: Machine) -> Forecast:
    """Return what a study's runs take on this machine, by what ran, or was measured, on it; else a rough guess."""
    planned = study.planned()
    unit = "core" if not machine.gpus else "GPU" if machine.jobs <= machine.gpus else "share of a GPU"
    done = [(run, row) for run in planned if (row := run_folder.read_result(run.folder)) and _is_timed(row)]
    if done:
        known = {run.config.key: float(row["wall_s"]) for run, row in done}
        pace = sum(known[run.config.key] for run, _ in done) / sum(run.cost for run, _ in done)
        seconds = {run.config.id: known.get(run.config.key, pace * run.cost) for run in planned}
        speeds = {run.config.id: run.config.images_seen / seconds[run.config.id] for run in planned}
        return Forecast(seconds, speeds, machine.jobs, unit, f"from the {len(done)} runs done here")
    keys = keys_of(study)
    measured = read_measured(study.runs, keys)
    if measured and keys <= measured["rows"].keys() and measured.get("device") == (gpu() or processor()):
        speeds = {key: statistics.median(row["train_images_per_s"]) for key, row in measured["rows"].items()}
        seconds = {run.config.id: run.config.images_seen / speeds[run.config.key] for run in planned}
        if machine.gpus:
            return _forecast(planned, seconds, machine.gpus, "GPU", "as measured here")
        return _forecast(planned, seconds, 1, "machine", "as measured here")  # on all its cores
    seconds = {run.config.id: run.cost / GUESSED_MACS_PER_S for run in planned}
    source = "a rough guess for one core a job; nothing has run here yet: --measure times it"
    return _forecast(planned, seconds, machine.jobs, "core", source)


def _is_timed(row: dict[str, object]) -> bool:
    return isinstance(row["wall_s"], int | float) and 0 < row["wall_s"] < float("inf") and row["state"] == "finished"


def _by_rates(study: Study, rates: Rates, devices: int, unit: str, source: str) -> Forecast:
    planned = study.planned()
    speeds = {run.config.key: rates.images_per_s(Work.of(run)) for run in networks(study)}
    seconds = {run.config.id: run.config.images_seen / speeds[run.config.key] for run in planned}
    return _forecast(planned, seconds, devices, unit, source)


def _forecast(planned: list[PlannedRun], seconds: dict[str, float], devices: int, unit: str, source: str) -> Forecast:
    """Return a forecast from the seconds that the steps of each run take."""
    speeds = {run.config.id: run.config.images_seen / seconds[run.config.id] for run in planned}
    whole = {name: s + REST_S for name, s in seconds.items()}
    return Forecast(whole, speeds, devices, unit, source)
