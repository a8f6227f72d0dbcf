"""Our training loop beside a bare one and one of timm's parts: `python -m benchmarks.training_loop`.

The first table is of images per second, the loops taking turns in one process with a thread each; the second of peak
memory, each loop in a process of its own. `benchmarks.loops` says what each loop does, the README what is compared.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml
from PIL import Image

from benchmarks.loops import BareLoop, OurLoop, TimmLoop
from benchmarks.side_by_side import (
    Progress,
    options,
    print_head,
    print_row,
    ratio,
    run,
)
from roadmap.common.machine import choose_device
from roadmap.common.paths import RECIPES
from roadmap.data.batches import load_data
from roadmap.ladder.ladder import read_ladder
from roadmap.measuring.turns import take_turns, timed
from roadmap.runs.config import RunConfig
from roadmap.study.spec import StudySpec, plan_study

RUNGS = ("baseline", "move_up_depthwise", "separate_downsampling")
ENDLESS = 10_000  # epochs: no run ends before the measurement does
MEMORY_STEPS = 4
PHOTOGRAPH = (500, 375)  # pixels, as most of ImageNet's images have


@dataclass(frozen=True)
class Setting:
    """Where the loops are compared.

    Attributes:
        label: What the table calls it.
        recipe: A recipe's name or path.
        data_root: The recipe's image folder; None for images in memory.
        steps: Steps a visit; with workers that decode, more than they may have ready by then (two).
        rounds: Visits of each loop.
    """

    label: str
    recipe: str
    data_root: Path | None
    steps: int
    rounds: int

    def config(self, rung: str, runs: Path) -> RunConfig:
        """Return a rung's run."""
        study = plan_study(
            StudySpec("resnet50", self.recipe, read_ladder(), runs=runs, seeds=[0], data_root=self.data_root)
        )
        config = study.configs[rung, 0]
        return replace(config, recipe=replace(config.recipe, epochs=ENDLESS))


def write_photographs(folder: Path, count: int) -> None:
    """Write an image folder of two classes: JPEG files as large as ImageNet's, in pixels and about in bytes."""
    draw = np.random.default_rng(0)
    for part, number in (("train", count), ("val", 2)):
        for label in ("one", "two"):
            (folder / part / label).mkdir(parents=True)
            for index in range(number // 2):
                coarse = Image.fromarray(draw.integers(0, 256, (94, 125, 3), np.uint8))
                picture = coarse.resize(PHOTOGRAPH, Image.Resampling.BICUBIC)
                picture.save(folder / part / label / f"{index}.jpg", quality=90)


def write_recipe(folder: Path, base: str, **settings: object) -> str:
    """Write a recipe with some settings of another one changed, and return its path."""
    name = f"{base}_{settings['image_size']}"
    recipe = yaml.safe_load((RECIPES / f"{base}.yaml").read_text()) | {"name": name, "plain": name} | settings
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def make_settings(folder: Path, device: str, width_divisor: int | None, quick: bool) -> list[Setting]:
    """Return where the loops are compared; the images of the last place are written to a folder."""
    if quick:
        return [Setting("32x32, in memory, width / 8", "smoke", None, steps=1, rounds=1)]
    cpu = device == "cpu"
    divisor, batch_size = width_divisor or (8 if cpu else 1), 16 if cpu else 128
    write_photographs(folder, 16 * batch_size)
    # Not the paper's strength of 9: with its spread that reaches 10 at times, where timm posterizes to no bits at all,
    # which Pillow 13 refuses.
    policy = {"randaugment": "rand-m7-mstd0.5-inc1"}
    settings = {"image_size": 224, "width_divisor": divisor, "batch_size": batch_size}
    settings["amp"] = "none" if cpu else "bfloat16"
    steps = 6 if cpu else 20
    return [
        Setting("32x32, in memory, width / 8", "fashion", None, 4 if cpu else 50, 12),
        Setting(f"224x224, in memory, width / {divisor}", write_recipe(folder, "fashion", **settings), None, steps, 7),
        Setting(
            f"224x224, folder, width / {divisor}",
            write_recipe(folder, "imagenet", **settings, **policy),
            folder,
            steps,
            7,
        ),
    ]


def compare_speed(setting: Setting, rung: str, device: str, progress: Progress) -> None:
    """Print a row: our loop's images per second, and how many times those of the others they are."""
    with TemporaryDirectory() as name:
        config = setting.config(rung, Path(name))
        ours = OurLoop(config, setting.data_root, Path(name), device)
        loops: dict[str, Callable[[int], None]] = {
            "ours": ours,
            "bare": BareLoop(config, *next(ours.data.epoch(0, 0))),
            "timm's": TimmLoop(config, setting.data_root, device),
        }
        visits = {who: timed(partial(loop, setting.steps), device) for who, loop in loops.items()}
        try:
            seconds = take_turns(
                visits, setting.rounds, show=progress.of(f"{setting.label}, {rung}"), warm_up=True
            )  # fmt: skip
        finally:
            ours.close()
    progress.clear()
    speed = setting.steps * config.recipe.batch_size / median(seconds["ours"])
    versus = [ratio(seconds[other], seconds["ours"]) for other in ("bare", "timm's")]
    print_row(setting.label, rung, f"{speed:,.1f}", *versus)


def peak_memory(setting: Setting, rung: str, device: str, ours: bool) -> int:
    """Return the most memory that this process, or its tensors on the GPU, have held after some steps, bytes.

    Both loops have the data set at hand; ours saves a checkpoint too.
    """
    import timm  # noqa: F401  ours needs it and the bare loop does not, but its modules are no part of the loop

    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        config = setting.config(rung, Path(name))
        if ours:
            loop = OurLoop(config, setting.data_root, Path(name), device)
            loop(MEMORY_STEPS)
            loop.run.save()
            loop.close()
        else:
            data = load_data(config, setting.data_root, device)
            BareLoop(config, *next(data.epoch(0, 0)))(MEMORY_STEPS)
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    # Not getrusage's: that begins with what the process held which started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def compare_memory(setting: Setting, rung: str, device: str, progress: Progress) -> None:
    """Print a row: the peak memory of our loop, of the bare one, and their ratio."""
    peaks = []
    for ours in (True, False):
        progress.say(f"{setting.label}, {rung}: memory")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks.append(pool.submit(peak_memory, setting, rung, device, ours).result())
    progress.clear()
    print_row(setting.label, rung, *(f"{peak / 1e6:,.0f}" for peak in peaks), f"{peaks[0] / peaks[1]:.3f}")


def main() -> None:
    """Print the tables."""
    parser = options(__doc__)
    parser.add_argument("--width-divisor", type=int, metavar="N", help="at 224x224 (default: 8 on CPUs, 1 on GPUs)")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    torch.set_num_threads(1)
    progress = Progress()
    with TemporaryDirectory() as name:
        settings = make_settings(Path(name), device, arguments.width_divisor, arguments.quick)
        rows = [(setting, rung) for setting in settings for rung in (RUNGS[-1:] if arguments.quick else RUNGS)]
        print_head("images", "rung", "our images/s", "of the bare loop's", "of timm's")
        for setting, rung in rows:
            compare_speed(setting, rung, device, progress)
        if arguments.quick:  # a process for each loop takes seconds to start
            return
        print()
        print_head("images", "rung", "our peak, MB", "the bare loop's, MB", "ratio")
        for setting, rung in rows:
            compare_memory(setting, rung, device, progress)


if __name__ == "__main__":
    run(main)
