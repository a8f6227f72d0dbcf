"""What functions of a user's own measured of a study's networks: from the run folders to a frame, cells, sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from analysis.metrics import Evaluated
from roadmap.common.errors import UserError
from roadmap.common.fingerprints import code_fingerprint
from roadmap.runs import run_folder
from roadmap.runs.metrics import Measured, Metric, all_measured, read_failed
from roadmap.study.networks import TaskNetworks
from roadmap.study.plan import Study
from roadmap.study.rounds import Looks, in_rounds, read_rounds

IDENTITY = ("rung", "seed", "run")


@dataclass(frozen=True)
class OwnMetrics:
    """What was measured of a study's networks (an `analysis.metrics.Evaluated`).

    Attributes:
        frame: A row a run that has any, with the columns of `IDENTITY` and one a metric.
        metrics: Column -> what it is.
        notes: What a reader should know beside the numbers, a sentence each.
        looks: Column -> when its answers were looked at, for those of a task that was trained in rounds.
    """

    frame: pd.DataFrame
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    looks: Mapping[str, Looks] = field(default_factory=dict)

    def looks_of(self, metric: str, study: Study) -> Looks:
        """Return when the answers on a metric were looked at: in rounds of its task's own, else in those of a study."""
        return self.looks.get(metric) or Looks(study.looks, study.sought)


def collect_own_metrics(study: Study) -> OwnMetrics:
    """Read what was measured of a study's networks: of those of finished runs, and what needs no training before.

    Each metric is that of the version of its function that the Python file holds now; where that was not measured, or
    the file is gone, that of the version which measured last. A task that was trained in rounds has the seeds of those
    that are over, whichever seeds the study has.
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
    by_version = {_version(content): _in_rounds(study, content) for content in _once(shown.values())}
    source = {name: by_version[_version(content)] or study for name, content in shown.items()}
    configs = {(rung, seed): config for rung, seed, config in runs}
    for given in filter(None, by_version.values()):
        more = {key: config for key, config in given.configs.items() if key not in study.configs}
        found |= {config.id: all_measured(study.folder(config)) for config in more.values()}
        configs |= more
    places = {rung.id: place for place, rung in enumerate(study.rungs)}
    rows = []
    for (rung, seed), config in sorted(configs.items(), key=lambda item: places[item[0][0]]):
        values = {
            name: value
            for content in sorted(found[config.id], key=lambda content: content["at"])  # the last one counts
            for name, value in content["values"].items()
            if name in shown and _version(content) == _version(shown[name]) and (rung, seed) in source[name].configs
        }
        rows += [{"rung": rung, "seed": seed, "run": config.id} | values] if values else []
    frame = pd.DataFrame(rows, columns=[*IDENTITY, *metrics])
    looks = {name: Looks(given.looks, given.sought) for name, given in source.items() if given is not study}
    about = [
        note
        for content in _once(shown.values())
        for note in _notes(content, frame, len(trained) if _needs_trained(content) else len(runs), looks)
    ]
    return OwnMetrics(frame, metrics, (*about, *notes), looks)


def _in_rounds(study: Study, content: Measured) -> Study | None:
    """Return a study with the seeds and looks of a task's rounds that are over; None where the task had no rounds."""
    metric = next(iter(content["metrics"]))
    rounds = read_rounds(study, TaskNetworks(content["function"], content["fingerprint"], metric))
    if not rounds.seeds:
        return None
    given = in_rounds(study, rounds)
    last = given.looks[-1] if given.looks else {}
    configs = {(rung, seed): config for (rung, seed), config in given.configs.items() if seed < last.get(rung, 0)}
    return replace(given, configs=configs)


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


def _notes(content: Measured, frame: pd.DataFrame, networks: int, looks: Mapping[str, Looks]) -> list[str]:
    """Return what is to be said of a version of a function, which may measure so many networks."""
    names, function = ", ".join(content["metrics"]), f"{Path(content['file']).name}:{content['function']}"
    measured = int(frame[list(content["metrics"])].notna().any(axis=1).sum())
    notes, command = [], content.get("command", "evaluate")
    own = looks.get(next(iter(content["metrics"])))
    if own and own.seeds:
        number = f"{len(own.seeds)} round{'s' if len(own.seeds) > 1 else ''}"
        notes.append(
            f"{names}: seeds came in {number} of the task's own, to the steps that were open. The answers are on these "
            "seeds, and allow for having been looked at after every round."
        )
    elif own:
        notes.append(f"{names}: the first round of seeds is not over. '{command}' with its budget goes on with it.")
    elif measured < networks:
        notes.append(f"{names}: measured of {measured} of {networks} networks. '{command}' measures the others.")
    if "command" not in content and Path(content["file"]).is_file() and not _is_current(content):
        notes.append(
            f"{names}: {function} has changed since it measured these. '{command}' measures with what it is now."
        )
    return notes


# -- in a record


def described(found: OwnMetrics) -> dict[str, dict[str, Any]]:
    """Return what a record says of its own metrics: name -> the fields of the metric."""
    return {name: asdict(about) for name, about in found.metrics.items()}


def described_looks(found: OwnMetrics) -> dict[str, dict[str, Any]]:
    """Return what a record says of the looks at its own metrics: name -> the fields of `Looks`."""
    return {
        name: {"seeds": [dict(seeds) for seeds in looks.seeds], "sought": sorted(looks.sought)}
        for name, looks in found.looks.items()
    }


def read_described(frame: pd.DataFrame, about: Mapping[str, Any], place: Path) -> OwnMetrics:
    """Return the metrics that a record describes.

    Args:
        frame: A row a run.
        about: The record's content.
        place: Its file.

    Raises:
        UserError: If what `described` or `described_looks` wrote is something else now.
    """
    try:
        metrics = TypeAdapter(dict[str, Metric]).validate_python(about.get("own_metrics", {}))
        looks = TypeAdapter(dict[str, Looks]).validate_python(about.get("own_metrics_looks", {}))
    except ValidationError as error:
        raise UserError(f"{place}: its own_metrics are damaged. Fetch the record again, or write it anew.") from error
    return OwnMetrics(frame, metrics, looks=looks)


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
