"""How much of a device the rungs use: `python -m benchmarks.roofline`.

Trains some rungs at full width and 224x224 in bfloat16 on images that lie on the device, with and without compiled
kernels, in turn; beside that it measures what the device can do: the rate of a large matrix product, and of copying.
A rung's share of the one is that of its multiply-adds (three times the forward pass's), its share of the other that of
the bytes which any implementation moves that keeps layers apart: every layer's output at 16 bits is written and read
in the forward pass, read again in the backward pass, and so are written and read the gradients, five in all.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from benchmarks.side_by_side import (
    Progress,
    options,
    print_head,
    print_row,
    ratio,
    run,
)
from roadmap.common.machine import choose_device
from roadmap.ladder.ladder import read_ladder
from roadmap.measuring.meter import Meter, make_batches
from roadmap.measuring.turns import take_turns, timed
from roadmap.study.plan import PlannedRun
from roadmap.study.spec import StudySpec, plan_study

RUNGS = ("baseline", "depthwise_conv", "kernel_7", "layer_norm", "separate_downsampling")
MOVES, BYTES = 5, 2  # of each activation
BATCH = {"cuda": 256, "cpu": 4}
SIDE = {"cuda": 8192, "cpu": 1024}  # of the matrices
SMALL = {"image_size": 32}  # a processor without bfloat16 takes a minute for a step at 224
ROUNDS, VISIT_S = 7, 1.0


def device_rates(device: str, side: int) -> tuple[float, float]:
    """Return the multiply-adds a second of a matrix product in bfloat16, and the bytes a second of a copy."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(side * side * 4, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    visits = {
        "product": timed(lambda: torch.mm(a, b), device),
        "copy": timed(lambda: target.copy_(source), device),
    }
    seconds = take_turns(visits, ROUNDS, warm_up=True)
    return side**3 / min(seconds["product"]), 2 * source.numel() / min(seconds["copy"])


def planned(rungs: tuple[str, ...], folder: Path, **settings: object) -> list[PlannedRun]:
    """Return the rungs' runs under the paper's recipe, but for these settings."""
    study = plan_study(StudySpec("resnet50", "imagenet", read_ladder(), runs=folder, seeds=[0], assume_data=True))
    runs = [run for run in study.planned() if set(run.rungs) & set(rungs)]
    return [replace(run, config=replace(run.config, recipe=replace(run.config.recipe, **settings))) for run in runs]


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, help="images a step")
    arguments = parser.parse_args()
    device, progress = choose_device(arguments.device), Progress()
    quick = arguments.quick
    batch = arguments.batch or (2 if quick else BATCH[device])
    rungs, rounds, visit_s = (RUNGS[:1], 1, 0.0) if quick else (RUNGS, ROUNDS, VISIT_S)
    macs_per_s, bytes_per_s = device_rates(device, 64 if quick else SIDE[device])
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}: {macs_per_s / 1e12:.3g}e12 multiply-adds a second, {bytes_per_s / 1e9:.3g}e9 bytes a second\n")
    print_head("rung", "images/s", "compiled", "ratio", "of the product's rate", "of the copy's")
    with TemporaryDirectory() as folder:
        for planned_run in planned(rungs, Path(folder), **SMALL if quick else {}):
            visits = {}
            for compiles in (False,) if quick else (False, True):
                recipe = replace(planned_run.config.recipe, compile=compiles)
                config = replace(planned_run.config, recipe=recipe)
                meter = Meter(config, make_batches(config, batch, 1, device), memory_and_inference=False)
                visits[compiles] = partial(meter.training_speed, visit_s)
            rung = planned_run.rungs[0]
            speeds = take_turns(visits, rounds, label=lambda compiles: "compiled" * compiles, show=progress.of(rung))
            progress.clear()
            best = max(map(median, speeds.values()))
            print_row(
                planned_run.rungs[0],
                f"{median(speeds[False]):,.1f}",
                f"{median(speeds[True]):,.1f}" if True in speeds else "",
                ratio(speeds[True], speeds[False]) if True in speeds else "",
                f"{100 * 3 * planned_run.macs * best / macs_per_s:.0f}%",
                f"{100 * MOVES * BYTES * planned_run.activations * best / bytes_per_s:.0f}%",
            )


if __name__ == "__main__":
    run(main)
