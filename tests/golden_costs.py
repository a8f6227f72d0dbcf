"""The golden file of costs. After a change that is meant to change them: `python -m tests.golden_costs`."""

import csv
import io
from pathlib import Path

from roadmap import count_macs, count_params, read_ladder

GOLDEN = Path(__file__).parent / "golden" / "costs.csv"


def costs() -> str:
    """Return the multiply-adds and parameters of every rung of the paper's ladders, as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["base", "rung", "macs", "params"])
    ladder = read_ladder()
    for base in ladder.bases:
        table.writerows([base, rung.id, count_macs(rung.net), count_params(rung.net)] for rung in ladder.climb(base))
    return text.getvalue()


if __name__ == "__main__":
    GOLDEN.write_text(costs(), encoding="utf-8")
    print(f"Wrote {GOLDEN}.")
