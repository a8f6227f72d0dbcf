"""Train the candidates for the default recipe, resumably: `python records/default-choice/choose.py modern|plain ...`.

    choose.py modern before lr_2e-3 --seeds 100 101    16 rungs of candidates.yaml's recipes
    choose.py plain two_epochs --seeds 100 101         the first rung under plain_candidates.yaml's recipes

Each run is a row of trials.csv, added when its candidate has ended; rows that are there are not trained again.
judge.py counts the answers.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = Path(os.environ.get("TRIALS", ROOT / "runs" / "default-choice"))
TABLE = HERE / "trials.csv"
COLUMNS = ["kind", "candidate", "rung", "seed", "state", "top1", "nll", "train_loss", "train_s", "run"]
RUNGS = [
    "baseline",
    "stage_ratio",
    "patchify_stem",
    "depthwise_conv",
    "increase_width",
    "inverted_bottleneck",
    "move_up_depthwise",
    "kernel_5",
    "kernel_7",
    "kernel_9",
    "kernel_11",
    "gelu",
    "fewer_activations",
    "fewer_norms",
    "layer_norm",
    "separate_downsampling",
]
# The recipes that the candidates change, as they stood before the choice.
BEFORE = {
    "fashion": {"epochs": 2, "batch_size": 64, "lr": 4.0e-3, "warmup_epochs": 0.1, "label_smoothing": 0.1},
    "fashion_full": {},
    "fashion_original": {"epochs": 1, "batch_size": 64, "lr": 0.025, "decay_epochs": 0.34},
    "fashion_full_original": {"epochs": 1, "batch_size": 64, "lr": 0.025, "decay_epochs": 0.34},
}


def write_recipe(name: str, base: str, changes: dict[str, object], plain: str) -> Path:
    """Write a candidate's recipe and return its path."""
    recipe = yaml.safe_load((ROOT / "recipes" / f"{base}.yaml").read_text()) | BEFORE[base] | changes
    recipe.pop("seeds", None)
    path = WORK / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe | {"name": name, "plain": plain}))
    return path


def train(kind: str, name: str, changes: dict[str, object], seeds: list[int], jobs: int) -> pd.DataFrame:
    """Train one candidate and return its rows."""
    full = "_full" if name.startswith("full_") else ""
    if kind == "modern":
        path, rungs = write_recipe(name, "fashion", changes, name), RUNGS
    else:
        scale = {key: changes[key] for key in ("width_divisor", "stem_stride") if key in changes}
        plain = write_recipe(f"plain_{name}", f"fashion{full}_original", changes, f"plain_{name}")
        path = write_recipe(f"of_plain_{name}", f"fashion{full}", scale, plain.stem)
        rungs = ["baseline_original"]
    runs = WORK / "runs"
    command = [sys.executable, "run_ladder.py", "launch", "--base", "resnet50", "--recipe", str(path), "--validate"]
    command += ["--seeds", *map(str, seeds), "--only", *rungs, "--jobs", str(jobs), "--runs", str(runs)]
    subprocess.run(command, cwd=ROOT, check=True)
    recipe = path.stem if kind == "modern" else f"plain_{name}"
    while len(rows := collect(runs, recipe, seeds)) < len(seeds) * len(rungs):
        time.sleep(2)
    return pd.DataFrame(rows).assign(kind=kind, candidate=name)[COLUMNS]


def collect(runs: Path, recipe: str, seeds: list[int]) -> list[dict[str, object]]:
    """Return a row for each run of a recipe that has ended."""
    rows = []
    for path in sorted(runs.glob("*/result.json")):
        about = json.loads((path.parent / "run.json").read_text())
        config, result = about["config"], json.loads(path.read_text())
        if config["recipe"]["name"] == recipe and config["seed"] in seeds:
            named = {"rung": next(iter(about["rungs"])), "seed": config["seed"], "run": path.parent.name}
            rows.append(named | {column: result[column] for column in COLUMNS if column in result})
    return rows


def main() -> None:
    """Train what is asked for, writing the table after each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["modern", "plain"])
    parser.add_argument("candidates", nargs="*", help="all, if left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    file = "candidates.yaml" if args.kind == "modern" else "plain_candidates.yaml"
    known = yaml.safe_load((HERE / file).read_text())
    for name in args.candidates or known:
        table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame(columns=COLUMNS)
        done = table[(table.kind == args.kind) & (table.candidate == name)]
        wanted = len(RUNGS) if args.kind == "modern" else 1
        seeds = [seed for seed in args.seeds if (done.seed == seed).sum() < wanted]
        if seeds:
            rows = train(args.kind, name, known[name], seeds, args.jobs)
            table = pd.concat([table, rows]) if len(table) else rows
            table = table.drop_duplicates(["kind", "candidate", "rung", "seed"], keep="last")
            table.to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
