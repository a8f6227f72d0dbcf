"""The ladder as a table: a row a rung, its change from the rung before and the answer, the paper's beside them."""

from collections.abc import Sequence

import pandas as pd

from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Rung
from roadmap.ladder.schema import MATCHED

# A row of the ladder's table: column -> meaning and unit.
LADDER_COLUMNS = {
    "rung": "id",
    "label": "name in figures",
    "section": "heading",
    "adopted": "whether the ladder goes on from it",
    "parent": "the rung before, against which it is judged",
    "state": "finished; else what became of its runs: missing, diverged, failed",
    "n": "finished runs (seeds)",
    "top1": "mean top-1 accuracy, percent",
    "top1_std": "its standard deviation over seeds (n - 1), points",
    "top1_delta": "change of the mean from the rung before, points",
    "paper_top1": "the paper's top-1, percent",
    "paper_top1_std": "its standard deviation over the paper's seeds, points",
    "paper_top1_delta": "the paper's change from the rung before, points",
    "macs": "multiply-adds of the network for one image",
    "params": "trainable parameters",
    "images_per_s": "mean images per second while it was trained, whatever else the machine did then",
    "erratum": "where `macs` is the paper's print and wrong, or misses what it was matched to: a note that says so",
    "ci_low": "lower end of the 95% interval of `top1_delta`, points",
    "ci_high": "upper end",
    "answer": "helps, hurts, no effect, undecided or not tested; empty for the start",
    "paper_answer": "the same from the paper's printed means and deviations, by the same rule; empty without any",
}
ANSWERS = ("ci_low", "ci_high", "answer", "paper_answer")  # what `with_answers` adds


def ladder_table(runs: pd.DataFrame, rungs: Sequence[Rung]) -> pd.DataFrame:
    """Summarise a frame of runs (see `analysis.run_frames`) to a row a rung, in the ladder's order.

    Returns:
        A frame with the columns of `LADDER_COLUMNS`. Means are over finished runs alone; where a rung or the rung
        before it has none, the change is missing.
    """
    rows = []
    for rung in rungs:
        own = runs[runs["rung"] == rung.id]
        done = own[own["state"] == "finished"]
        states = [state for state in ("failed", "diverged", "missing") if (own["state"] == state).any()]
        rows.append(
            _rung_row(rung)
            | {
                "state": "finished" if len(done) else states[0] if states else "missing",
                "n": len(done),
                "top1": done["top1"].mean(),
                "top1_std": done["top1"].std(),
                "macs": own["macs"].max(),
                "params": own["params"].max(),
                "images_per_s": done["images_per_s"].mean(),
                "erratum": _unmatched(rung),
            }
        )
    return _with_deltas(pd.DataFrame(rows, columns=list(LADDER_COLUMNS)))


def with_answers(table: pd.DataFrame, verdicts: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a ladder's table with the answers to its steps and their intervals.

    Args:
        table: That of `ladder_table` or `published_table`.
        verdicts: The changes of top-1, with the columns of `verdicts.VERDICT_COLUMNS`.
        published: The paper's own, in the same shape.
    """
    ours = verdicts.set_index(["step", "against"])
    places = pd.MultiIndex.from_arrays([table["rung"], table["parent"]])
    found = ours[["ci_low", "ci_high", "answer"]].reindex(places)
    columns = {str(name): found[name].to_numpy() for name in found}
    if published is not None:
        theirs = published.set_index(["step", "against"])["answer"].reindex(places)
        columns["paper_answer"] = theirs.to_numpy()
    table = table.assign(**columns)
    words = ["answer", "paper_answer"]
    return table.assign(**{name: table[name].astype(object).where(table[name].notna(), "") for name in words})


def _unmatched(rung: Rung) -> str:
    """Say that a rung is not matched, where that was asked for."""
    if rung.match is None or rung.is_matched:
        return ""
    return f"not matched: over {MATCHED:.0%} from {rung.match.describe()}, to which it should be near"


def notes_of(table: pd.DataFrame) -> list[str]:
    """Return what is noted of a ladder's rows, each note once: cells refer to the first as [1]."""
    return [note for note in table["erratum"].unique() if note]


def published_table(ladder: Ladder, base: str) -> pd.DataFrame:
    """Return the paper's own numbers in the shape of `ladder_table`: its top-1 in place of ours, costs as printed."""
    info = ladder.bases[base]
    rows = []
    for rung in ladder.climb(base):
        paper = rung.paper
        seeds = info.seeds if paper.top1_std is not None else 1
        rows.append(
            _rung_row(rung)
            | {
                "state": "finished" if paper.top1 is not None else "missing",
                "n": seeds if paper.top1 is not None else 0,
                "top1": paper.top1,
                "top1_std": paper.top1_std,
                "macs": None if paper.gmacs is None else round(paper.gmacs * 1e9),
                "erratum": paper.erratum.note if paper.erratum else "",
                "paper_top1": None,
                "paper_top1_std": None,
            }
        )
    return _with_deltas(pd.DataFrame(rows, columns=list(LADDER_COLUMNS)))


def _rung_row(rung: Rung) -> dict[str, object]:
    return {
        "rung": rung.id,
        "label": rung.label,
        "section": rung.section,
        "adopted": rung.adopted,
        "parent": rung.parent,
        "paper_top1": rung.paper.top1,
        "paper_top1_std": rung.paper.top1_std,
        "erratum": "",
    }


def _with_deltas(table: pd.DataFrame) -> pd.DataFrame:
    """Fill in the changes from the rung before."""
    table[["answer", "paper_answer"]] = ""
    numbers = [
        "top1",
        "top1_std",
        "paper_top1",
        "paper_top1_std",
        "macs",
        "params",
        "images_per_s",
        "ci_low",
        "ci_high",
    ]
    table[numbers] = table[numbers].apply(pd.to_numeric).astype(float)
    by_rung = table.set_index("rung")
    for column in ("top1", "paper_top1"):
        table[f"{column}_delta"] = table[column] - table["parent"].map(by_rung[column])
    return table
