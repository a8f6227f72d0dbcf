"""Try every recipe of candidates.yaml and write trials.csv: `python records/recipe-choice-modern/choose.py`.

Each candidate trains the proxy's ResNet-50 with two seeds that no report uses, and is tested on the 5,000 validation
images, never on the test set. The criterion, fixed before the trials: the best mean accuracy of the two seeds, for each
of the two recipes by itself, of which shifts must be the same. Trials that are done are not done again.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "runs" / HERE.name
SEEDS = ["100", "101"]
BEFORE: dict[str, dict[str, object]] = {  # of the recipes that the candidates change
    "fashion_modern": {
        "shift": 2, "mixup": 0.8, "cutmix": 1.0, "randaugment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.25,
        "drop_path": 0.1,
    },
    "fashion_modern_original": {"shift": 2, "lr": 0.025},
}  # fmt: skip


def trial(recipe: str, name: str, changes: dict[str, object]) -> dict[str, object]:
    """Train one candidate and return its row."""
    settings = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
    path = WORK / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings | BEFORE[recipe] | changes | {"name": name, "plain": name}))
    command = [sys.executable, "run_ladder.py", "--base", "resnet50", "--recipe", str(path), "--validate"]
    command += ["--seeds", *SEEDS, "--only", "baseline", "--runs", str(WORK / "runs"), "--out", str(WORK / name)]
    subprocess.run(command, cwd=ROOT, check=True)
    runs = pd.read_csv(WORK / name / "results.csv")
    words = ", ".join(f"{key} {value}" for key, value in changes.items()) or "none"
    row = {"recipe": recipe, "candidate": name, "changes": words, "mean_top1": round(runs["top1"].mean(), 2)}
    return row | {f"seed_{run.seed}": round(run.top1, 2) for run in runs.itertuples()}


def main() -> None:
    """Try all candidates, writing the table after each."""
    rows = []
    for recipe, candidates in yaml.safe_load((HERE / "candidates.yaml").read_text()).items():
        for name, changes in candidates.items():
            rows.append(trial(recipe, name, changes))
            pd.DataFrame(rows).to_csv(HERE / "trials.csv", index=False)


if __name__ == "__main__":
    main()
