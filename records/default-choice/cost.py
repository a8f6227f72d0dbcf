"""Measure what a run of each candidate costs beside the recipe before, in CPU seconds, and write costs.csv.

`python records/default-choice/cost.py [candidate ...]`, of candidates.yaml or plain_candidates.yaml. For each of five
rungs the candidates take turns: a few training steps and a few test batches in this process, with one thread. A run is
its images seen times the cost of one, and 10,000 test images.

"""

import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import pandas as pd  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from choose import write_recipe  # noqa: E402

from roadmap import read_ladder  # noqa: E402
from roadmap.networks.model import build_model  # noqa: E402
from roadmap.recipe import read_recipe  # noqa: E402
from roadmap.training.step import make_optimizer, make_scaler, take_step  # noqa: E402

RUNGS = ["baseline", "depthwise_conv", "move_up_depthwise", "kernel_11", "separate_downsampling"]
COSTLY = ("width_divisor", "stem_stride", "epochs", "batch_size", "optimizer", "hflip", "shift")
TURNS, STEPS = 4, 640  # images a turn
TRAIN_IMAGES, TEST_IMAGES = 10_000, 10_000


def main() -> None:
    """Time the candidates in turns and write the table."""
    torch.set_num_threads(1)
    known = {}
    for file in ("candidates.yaml", "plain_candidates.yaml"):
        base = "fashion" if file == "candidates.yaml" else "fashion_original"
        prefix = "" if base == "fashion" else "plain_"
        for name, changes in yaml.safe_load((HERE / file).read_text()).items():
            known[prefix + name] = (base, changes)
    names = sys.argv[1:] or [name for name, (base, _) in known.items() if base == "fashion"]
    recipes = {}
    for name in names:
        base, changes = known[name]
        plain = f"cost_{name}"
        recipes[name] = read_recipe(str(write_recipe(plain, base, changes, plain)))
    # Learning rates and the like cost nothing: candidates alike in the rest are timed once.
    alike = {name: tuple(getattr(recipe, field) for field in COSTLY) for name, recipe in recipes.items()}
    everyone, names = names, [name for name in names if next(n for n in names if alike[n] == alike[name]) == name]
    total = dict.fromkeys(names, 0.0)
    for rung in RUNGS:
        train: dict[str, list[float]] = {name: [] for name in names}
        test: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(TURNS + 1):
            for name in names:
                a, b = one_turn(rung, recipes[name])
                if turn:  # the first warms up
                    train[name].append(a)
                    test[name].append(b)
        for name in names:
            recipe = recipes[name]
            seen = TRAIN_IMAGES // recipe.batch_size * recipe.batch_size * recipe.epochs
            total[name] += seen * median(train[name]) + TEST_IMAGES * median(test[name])
    total = {name: total[next(n for n in names if alike[n] == alike[name])] for name in everyone}
    table = pd.DataFrame({"cpu_s_of_a_run": {name: round(value / len(RUNGS), 2) for name, value in total.items()}})
    table["ratio"] = (table.cpu_s_of_a_run / table.cpu_s_of_a_run["before"]).round(3)
    table.index.name = "candidate"
    path = HERE / "costs.csv"
    if path.exists():
        before = pd.read_csv(path, index_col="candidate")
        table = pd.concat([before[~before.index.isin(table.index)], table])
    table.to_csv(path)
    print(table)


def one_turn(rung: str, recipe: Any) -> tuple[float, float]:
    """Return CPU seconds for one training image and one test image."""
    rungs = {r.id: r for r in read_ladder().climb("resnet50")}
    scale = {"width_divisor": recipe.width_divisor, "stem_stride": recipe.stem_stride}
    net = rungs[rung].net.scaled(**scale, image_size=recipe.image_size)
    model = build_model(net, num_classes=10, in_channels=1).to(memory_format=torch.channels_last)
    optimizer, scaler = make_optimizer(recipe, model), make_scaler(recipe, "cpu")
    images = torch.randn(recipe.batch_size, 1, recipe.image_size, recipe.image_size)
    targets = torch.randint(10, (recipe.batch_size,))
    model.train()
    take_step(recipe, model, optimizer, scaler, images, targets)
    start = time.process_time()
    steps = max(1, STEPS // recipe.batch_size)
    for _ in range(steps):
        take_step(recipe, model, optimizer, scaler, images, targets)
    trained = (time.process_time() - start) / (steps * recipe.batch_size)
    model.eval()
    images = torch.randn(500, 1, recipe.image_size, recipe.image_size).contiguous(memory_format=torch.channels_last)
    start = time.process_time()
    with torch.no_grad():
        model(images)
    return trained, (time.process_time() - start) / 500


if __name__ == "__main__":
    main()
