"""Try every recipe of candidates.yaml and write trials.csv: `python records/recipe-choice/choose.py`.

Each candidate trains eight of the ladder's rungs with one seed that no report uses, and is tested on the 5,000
validation images, never on the test set. The criterion, fixed before the trials: the best mean accuracy over the eight
rungs among the candidates whose whole default ladder (51 runs, two at a time) stays under ten minutes. Trials that are
done are not done again.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "runs" / "recipe-choice"
RUNGS = [
    "baseline",
    "patchify_stem",
    "increase_width",
    "inverted_bottleneck",
    "kernel_7",
    "fewer_activations",
    "layer_norm",
    "separate_downsampling",
]
SEED = 100
BEFORE = {"lr": 4.0e-3, "label_smoothing": 0.1}  # of the recipe that the candidates change


def trial(name: str, changes: dict[str, object]) -> dict[str, object]:
    """Train one candidate on the eight rungs and return its row."""
    recipe = yaml.safe_load((ROOT / "recipes" / "fashion.yaml").read_text()) | BEFORE | changes
    path = WORK / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    # The first rung is not tried, but its recipe must fit in scale.
    path.write_text(yaml.safe_dump(recipe | {"name": name, "plain": name}))
    out = WORK / name
    command = [sys.executable, "run_ladder.py", "--base", "resnet50", "--recipe", str(path), "--validate"]
    command += ["--seeds", str(SEED), "--only", *RUNGS, "--runs", str(WORK / "runs"), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    runs = pd.read_csv(out / "results.csv")
    row = {"candidate": name, "changes": ", ".join(f"{key} {value}" for key, value in changes.items()) or "none"}
    row |= {"mean_top1": round(runs["top1"].mean(), 2)}
    return row | {run.rung: round(run.top1, 2) for run in runs.itertuples()}


def main() -> None:
    """Try all candidates, writing the table after each."""
    rows = []
    for name, changes in yaml.safe_load((HERE / "candidates.yaml").read_text()).items():
        rows.append(trial(name, changes))
        pd.DataFrame(rows).to_csv(HERE / "trials.csv", index=False)


if __name__ == "__main__":
    main()
