"""A record: a report's folder that can be committed, read again and judged again without its runs."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.roadmap import Chart
from analysis.ladder_table import ANSWERS, LADDER_COLUMNS
from analysis.report.csv_text import as_written
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.formats import clock
from roadmap.common.provenance import find_commit
from roadmap.ladder.schema import Reference
from roadmap.runs import run_folder
from roadmap.study.plan import PROXY, Study

RECORD = "record.json"
TABLE = "ladder.csv"

# The version of record.json and of the tables beside it.
RECORD_VERSION = 1

ADOPTED = {"True": True, "False": False}

# Options of the command that say where files lay on one machine, which a record leaves out.
PLACES = ("--runs", "--out", "--data")
# What run.json says of where a run was planned, and a record gathers from all its runs.
PROVENANCE = ("commit", "command", "processor", "python", "versions")


@dataclass(frozen=True)
class Record:
    """A record as read: what it is, its table, a row a rung with the columns of `LADDER_COLUMNS`, and its folder."""

    about: dict[str, Any]
    table: pd.DataFrame
    folder: Path

    @property
    def is_proxy(self) -> bool:
        """Whether its numbers stand for the paper's experiment instead of repeating it."""
        return self.chart.note.startswith(PROXY)

    @property
    def chart(self) -> Chart:
        """What its figure says beside the bars."""
        fields = dict(self.about["chart"])
        if fields.get("reference"):
            fields["reference"] = Reference(**fields["reference"])
        return Chart(**fields)


def describe_record(
    study: Study, runs: pd.DataFrame, chart: Chart, planned: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the content of record.json: what was run, how, when, on what, at which commit, how long it took.

    Args:
        study: The study.
        runs: The frame of `collect`.
        chart: What its figure says beside the bars.
        planned: What `read_provenance` says of each run that was planned.
    """
    about: dict[str, list[Any]] = {name: [] for name in PROVENANCE}
    dates = []
    for told in planned:
        dates += [str(told["planned_at"])] if "planned_at" in told else []
        for name in PROVENANCE:
            if name in told and told[name] not in about[name]:
                about[name].append(told[name])
    fields = asdict(chart)
    if chart.reference is not None:
        fields["reference"] = chart.reference.model_dump()
    return {
        "record_version": RECORD_VERSION,
        "result_version": run_folder.RESULT_VERSION,
        "base": study.base,
        "design": study.layout.design.slug,
        "recipe": study.recipe.name,
        "seeds": list(study.seeds),
        **({"looks": [dict(seeds) for seeds in study.looks], "sought": sorted(study.sought)} if study.looks else {}),
        **({"fraction": asdict(fraction)} if (fraction := study.layout.fraction) else {}),
        "runs": len(runs),
        "finished": int((runs["state"] == "finished").sum()),
        "planned_first": min(dates, default=None),
        "planned_last": max(dates, default=None),
        "train_s_sum": round(float(runs.drop_duplicates("run")["train_s"].sum()), 1),
        "wall_s_sum": round(float(runs.drop_duplicates("run")["wall_s"].sum()), 1),
        **about,
        "chart": fields,
    }


def judged_by(test: str, margin: float) -> dict[str, Any]:
    """Return what a record says of how its answers were given: rule, margin of top-1, the program's commit."""
    return {"rule": test, "margin": margin, "commit": find_commit()}


def origin_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of where its numbers come from, in words."""
    judged = about["judged"]
    return {
        "commit": about["commit"],
        "planned": sorted({day for day in (about["planned_first"], about["planned_last"]) if day}),
        "command": [shlex.join(command) for command in about["command"] if isinstance(command, list)],
        "planned on": about["processor"],
        "Python": about["python"],
        "versions": about["versions"],
        "training time, all runs": clock(about["train_s_sum"]) if about["finished"] else None,
        "time, all runs": clock(about["wall_s_sum"]) if about["finished"] else None,
        "judged": f"rule '{judged['rule']}', margin {judged['margin']:g} points, at commit {judged['commit']}",
    }


def read_provenance(told: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return what a run.json says of where and with what a run was planned, but not where files lay on that machine."""
    known = {name: told[name] for name in names if name in told}
    command = known.get("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        known.pop("command", None)
    else:
        known["command"] = [
            word
            for before, word in zip([None, *command], command, strict=False)
            if word not in PLACES and before not in PLACES
        ]
    return known


def read_record(folder: Path) -> Record:
    """Read a record.

    Raises:
        UserError: If the folder holds none, or one of another version.
    """
    about = files.read_object(folder / RECORD)
    if about is None or not (folder / TABLE).is_file():
        raise UserError(
            f"{folder}: no record here. A record is a folder with {RECORD} and {TABLE}, as 'report' writes them."
        )
    if about.get("record_version") != RECORD_VERSION:
        raise UserError(
            f"{folder / RECORD}: record_version is {about.get('record_version')}, but this program reads "
            f"{RECORD_VERSION}. Read it with the version that wrote it, or write it again from its runs."
        )
    damaged = UserError(f"{folder}: {RECORD} or {TABLE} is damaged. Fetch the record again, or write it from its runs.")
    try:
        table = pd.read_csv(folder / TABLE, dtype={"erratum": str})
    except (ValueError, OSError) as error:  # pandas' and Unicode's errors are ValueErrors
        raise damaged from error
    if list(table.columns) not in (list(LADDER_COLUMNS), [name for name in LADDER_COLUMNS if name not in ANSWERS]):
        raise UserError(f"{folder / TABLE}: columns are {', '.join(table.columns)}, not those of a ladder's table.")
    table = table.reindex(columns=list(LADDER_COLUMNS))  # records from before there were answers lack them
    words = ["rung", "label", "section", "parent", "state", "erratum", "answer", "paper_answer"]
    table[words] = table[words].astype(object)
    try:
        table = table.assign(adopted=table["adopted"].astype(str).map(ADOPTED))
        empty = ["erratum", "answer", "paper_answer"]
        table[empty] = table[empty].fillna("")
        for name in words:
            table[name] = [as_written(text) if isinstance(text, str) else text for text in table[name]]
        numbers = [name for name in LADDER_COLUMNS if name not in (*words, "adopted")]
        table[numbers] = table[numbers].apply(pd.to_numeric)
        record = Record(about, table, folder)
        if (
            table.empty
            or np.isinf(table[numbers].to_numpy(float)).any()
            or table[["rung", "label", "adopted", "n"]].isna().any(axis=None)
        ):
            raise damaged
        _ = record.chart
    except (LookupError, TypeError, ValueError) as error:
        raise damaged from error
    return record
