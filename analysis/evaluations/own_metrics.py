"""What functions of a user's own measured of a study's networks: from the run folders to a frame, cells, sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from analysis.metrics import Evaluated
from roadmap.common.errors import UserError
from roadmap.common.fingerprints import code_fingerprint
from roadmap.runs import run_folder
from roadmap.runs.metrics import Measured, Metric, all_measured, read_failed
from roadmap.study.plan import Study

IDENTITY = ("rung", "seed", "run")


@dataclass(frozen=True)
class OwnMetrics:
    """What was measured of a study's networks (an `analysis.metrics.Evaluated`).

    Attributes:
        frame: A row a run that has any, with the columns of `IDENTITY` and one a metric.
        metrics: Column -> what it is.
        notes: What a reader should know beside the numbers, a sentence each.
    """

    frame: pd.DataFrame
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def collect_own_metrics(study: Study) -> OwnMetrics:
    """Read what was measured of a study's networks: of those of finished runs, and what needs no training before.

    Each metric is that of the version of its function that the Python file holds now; where that was not measured, or
    the file is gone, that of the version which measured last.
    """
    runs = [(rung.id, seed, study.configs[rung.id, seed]) for rung in study.rungs for seed in study.seeds_of(rung.id)]
    found = {config.id: all_measured(study.folder(config)) for *_, config in runs}
    failed = [
        f"{rung} seed {seed}: {reason}"
        for rung, seed, config in runs
        if (reason := read_failed(study.folder(config)).rstrip("."))
    ]
    notes = [f"Measuring a network failed, {failed[0]}." + " So did others." * (len(failed) > 1)] if failed else []
    if not any(found.values()):
        return OwnMetrics(pd.DataFrame(columns=list(IDENTITY)), notes=tuple(notes))
    trained = {config.id for *_, config in runs if run_folder.is_finished(study.folder(config))}
    found = {
        run: [content for content in contents if run in trained or not _needs_trained(content)]
        for run, contents in found.items()
    }
    shown = _shown(content for contents in found.values() for content in contents)
    metrics = {name: content["metrics"][name] for name, content in shown.items()}
    rows = []
    for rung, seed, config in runs:
        values = {
            name: value
            for content in sorted(found[config.id], key=lambda content: content["at"])  # the last one counts
            for name, value in content["values"].items()
            if _version(content) == _version(shown[name])
        }
        rows += [{"rung": rung, "seed": seed, "run": config.id} | values] if values else []
    frame = pd.DataFrame(rows, columns=[*IDENTITY, *metrics])
    done = sum(config.id in trained for *_, config in runs)
    notes = [
        note
        for content in _once(shown.values())
        for note in _notes(content, frame, done if _needs_trained(content) else len(runs))
    ] + notes
    return OwnMetrics(frame, metrics, tuple(notes))


def runs_of(found: Evaluated, metric: str) -> pd.DataFrame:
    """Return what was found as a frame of runs, with the columns rung, seed, state and the metric, known or not."""
    frame = found.frame if metric in found.frame else found.frame.assign(**{metric: float("nan")})
    return frame.assign(state="finished")


def _needs_trained(content: Measured) -> bool:
    """Whether what was measured says something of a trained network alone."""
    return content.get("needs_trained", True)


def _version(content: Measured) -> tuple[str, str]:
    return content["function"], content["fingerprint"]


def _once(contents: Iterable[Measured]) -> list[Measured]:
    """Return what is of one version of a function once."""
    return list({_version(content): content for content in contents}.values())


def _shown(contents: Iterable[Measured]) -> dict[str, Measured]:
    """Return for each metric one of the files that the version of its function that is shown has left."""
    shown: dict[str, Measured] = {}
    for content in sorted(contents, key=lambda content: (_is_current(content), content["at"])):
        shown |= dict.fromkeys(content["metrics"], content)
    return {name: shown[name] for name in sorted(shown)}


def _is_current(content: Measured) -> bool:
    """Whether the Python file still is what measured."""
    try:
        return code_fingerprint(Path(content["file"])) == content["fingerprint"]
    except OSError:
        return False


def _notes(content: Measured, frame: pd.DataFrame, networks: int) -> list[str]:
    """Return what is to be said of a version of a function, which may measure so many networks."""
    names, function = ", ".join(content["metrics"]), f"{Path(content['file']).name}:{content['function']}"
    measured = int(frame[list(content["metrics"])].notna().any(axis=1).sum())
    notes, command = [], content.get("command", "evaluate")
    if measured < networks:
        notes.append(f"{names}: measured of {measured} of {networks} networks. '{command}' measures the others.")
    if Path(content["file"]).is_file() and not _is_current(content):
        notes.append(
            f"{names}: {function} has changed since it measured these. '{command}' measures with what it is now."
        )
    return notes


# -- in a record


def described(found: OwnMetrics) -> dict[str, dict[str, Any]]:
    """Return what a record says of its own metrics: name -> the fields of the metric."""
    return {name: asdict(about) for name, about in found.metrics.items()}


def read_described(content: Any, place: Path) -> dict[str, Metric]:
    """Return the metrics that `described` wrote.

    Raises:
        UserError: If it is something else.
    """
    try:
        return TypeAdapter(dict[str, Metric]).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{place}: its own_metrics are damaged. Fetch the record again, or write it anew.") from error


# -- for people


def own_metric_rows(study: Study, found: OwnMetrics) -> list[dict[str, Any]]:
    """Return JSON-able rows, one a run that was measured."""
    rows = found.frame.astype(object).where(found.frame.notna(), None).to_dict("records")
    return [{"base": study.base} | {str(name): value for name, value in row.items()} for row in rows]


def own_metric_cells(found: OwnMetrics) -> list[dict[str, str]]:
    """Return the cells of a table, a row a rung in the ladder's order: means over seeds, with standard deviations."""
    rows = []
    for rung, own in found.frame.groupby("rung", sort=False):
        cells = {"rung": str(rung), "n": str(len(own))}
        cells |= {about.label: _mean(own[name], about.digits) for name, about in found.metrics.items()}
        rows.append(cells)
    return rows


def _mean(values: "pd.Series[float]", digits: str) -> str:
    if values.isna().all():
        return ""
    std = values.std()
    return f"{values.mean():{digits}}" + ("" if pd.isna(std) else f" ± {std:{digits}}")
