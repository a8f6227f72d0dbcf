"""Add the runs of a folder to the bank's table: `python records/bank/export.py RUNS [results.csv]`.

Rows that the table has stay as they are, so that runs of several machines can be added one after the other.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = [
    "rung",
    "seed",
    "run",
    "state",
    "top1",
    "top5",
    "nll",
    "ece",
    "train_loss",
    "train_s",
    "wall_s",
    "threads",
    "commit",
    "torch",
    "processor",
    "planned_at",
]


def read(runs: Path) -> list[dict[str, object]]:
    """Return a row for every run on the test images that has ended, in the ladder's order."""
    rows = []
    for path in runs.glob("*-s*/result.json"):
        about, result = json.loads((path.parent / "run.json").read_text()), json.loads(path.read_text())
        if about["config"]["data"]["test_on"] != "test" or about["config"]["recipe"]["name"].split("_")[0] != "fashion":
            continue
        row = {
            "rung": next(iter(about["rungs"])),
            "seed": about["config"]["seed"],
            "run": path.parent.name,
            "threads": 1,
        }
        row |= {"commit": about["commit"], "torch": about["versions"]["torch"]}
        rows.append(row | {key: about.get(key) for key in ("processor", "planned_at")} | result | {"threads": 1})
    return in_order(rows)


def in_order(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return rows in the ladder's order, the seeds of a rung together."""
    order = [line["rung"] for line in csv.DictReader((HERE.parent / "resnet50-fashion" / "ladder.csv").open())]
    return sorted(rows, key=lambda row: (order.index(str(row["rung"])), int(str(row["seed"]))))


def main() -> None:
    """Write or count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("to", type=Path, nargs="?", default=HERE / "results.csv")
    parser.add_argument("--count", action="store_true", help="print how many of --seeds and --rungs there are")
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--rungs", nargs="*", default=[])
    args = parser.parse_args()
    rows = read(args.runs)
    if args.count:
        print(sum(row["seed"] in args.seeds and row["rung"] in args.rungs for row in rows))
        return
    known = list(csv.DictReader(args.to.open())) if args.to.exists() else []
    have = {(row["rung"], int(row["seed"])) for row in known}
    rows = in_order([*known, *(row for row in rows if (row["rung"], row["seed"]) not in have)])
    with args.to.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{args.to}: {len(rows)} runs", file=sys.stderr)


if __name__ == "__main__":
    main()
