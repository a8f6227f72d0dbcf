"""What a training step is made of, and in which memory layout it is fastest: `python -m benchmarks.step_parts`.

The first table says how much faster than timm's loop one could be that did nothing but compute: the forward and
backward pass of timm's own network on a batch in memory, with and without the optimizer's step, in turn with timm's
loop. The second trains our networks in both memory layouts.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.loops import BareLoop, TimmLoop
from benchmarks.side_by_side import (
    Progress,
    options,
    print_head,
    print_row,
    ratio,
    run,
)
from benchmarks.training_loop import RUNGS, write_recipe
from roadmap.common.machine import choose_device
from roadmap.data.batches import load_data
from roadmap.ladder.ladder import read_ladder
from roadmap.measuring.turns import take_turns, timed
from roadmap.runs.config import RunConfig
from roadmap.study.spec import StudySpec, plan_study


def passes(loop: TimmLoop, images: Tensor, targets: Tensor, step: bool) -> Callable[[int], None]:
    """Return work: forward and backward passes of a loop's network on one batch, and the optimizer's steps if asked."""

    def work(steps: int) -> None:
        for _ in range(steps):
            loop.optimizer.zero_grad()
            F.cross_entropy(loop.model(images), targets).backward()
            if step:
                loop.optimizer.step()

    return work


def first_batch(config: RunConfig, device: str) -> tuple[Tensor, Tensor]:
    """Return a run's first training batch."""
    batches: Iterator[tuple[Tensor, Tensor]] = load_data(config, None, device).epoch(0, 0)
    return next(batches)


def compare_parts(config: RunConfig, rung: str, device: str, steps: int, rounds: int, progress: Progress) -> None:
    """Print a row: timm's step, and how many times as fast its parts alone are."""
    timms = TimmLoop(config, None, device)
    images, targets = first_batch(config, device)
    images = images.contiguous(memory_format=torch.channels_last)
    works = {
        "timm's": timms,
        "passes": passes(timms, images, targets, step=False),
        "with the optimizer": passes(timms, images, targets, step=True),
    }
    visits = {name: timed(partial(work, steps), device) for name, work in works.items()}
    seconds = take_turns(visits, rounds, show=progress.of(rung), warm_up=True)
    progress.clear()
    whole = seconds["timm's"]
    ratios = [ratio(whole, seconds[name]) for name in ("passes", "with the optimizer")]
    print_row(rung, f"{1e3 * median(whole) / steps:.1f}", *ratios)


def compare_layouts(label: str, config: RunConfig, rung: str, device: str, steps: int, rounds: int) -> None:
    """Print a row: images per second in channels_last memory, and what the usual order has of them."""
    images, targets = first_batch(config, device)
    loops = {name: BareLoop(config, images, targets) for name in ("channels_last", "contiguous")}
    usual = loops["contiguous"]
    usual.images = images.contiguous(memory_format=torch.contiguous_format)
    usual.model.to(memory_format=torch.contiguous_format)
    visits = {name: timed(partial(loop, steps), device) for name, loop in loops.items()}
    seconds = take_turns(visits, rounds, warm_up=True)
    speed = steps * config.recipe.batch_size / median(seconds["channels_last"])
    print_row(label, rung, f"{speed:,.1f}", ratio(seconds["channels_last"], seconds["contiguous"]))


def main() -> None:
    """Print the tables."""
    arguments = options(__doc__).parse_args()
    device, quick = choose_device(arguments.device), arguments.quick
    torch.set_num_threads(1)
    progress = Progress()
    rungs = RUNGS[-1:] if quick else RUNGS
    with TemporaryDirectory() as name:
        large = write_recipe(Path(name), "fashion", image_size=224, batch_size=16)
        recipes = {"32x32": "smoke"} if quick else {"32x32": "fashion", "224x224": large}
        studies = {
            label: plan_study(StudySpec("resnet50", recipe, read_ladder(), runs=Path(name), seeds=[0]))
            for label, recipe in recipes.items()
        }
        rounds, steps = (1, 1) if quick else (12, 4 if device == "cpu" else 50)
        print_head("rung, 32x32, width / 8", "timm's step, ms", "passes alone", "passes and optimizer")
        for rung in rungs:
            compare_parts(studies["32x32"].configs[rung, 0], rung, device, steps, rounds, progress)
        print()
        print_head("images, width / 8", "rung", "images/s, channels_last", "contiguous")
        for (label, study), rung in [(pair, rung) for pair in studies.items() for rung in rungs]:
            compare_layouts(label, study.configs[rung, 0], rung, device, steps, max(1, rounds // 2))


if __name__ == "__main__":
    run(main)
