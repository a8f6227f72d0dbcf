"""What one study brings to a comparison, whatever it was read from: runs, a record, a file, the paper's table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.evaluations.own_metrics import runs_of
from analysis.frame_results import FrameResults
from analysis.metrics import METRICS, TOP1
from analysis.report.record_results import RecordResults
from analysis.stats.answers import SHARED, Test
from analysis.stats.differences import Summary
from analysis.study_results import StudyResults
from analysis.verdicts import PRINTED, Pairs, pairs_of, published_verdicts, verdict_table
from roadmap.common.errors import UserError
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.references import SECTION
from roadmap.ladder.rung import Rung

LABELS = ["rung", "label", "section", "adopted"]
Effects = Mapping[str, Any]  # a row of a verdict table


@dataclass(frozen=True, eq=False, kw_only=True)
class Side:
    """One study of a comparison.

    Attributes:
        name: What it is called beside the others, such as "fashion_full" or "the paper".
        note: What its numbers are, in a line.
        pairs: Its steps: (rung, the one it is judged against). References are no steps.
        labels: A row a rung in its order: the columns of `LABELS`.
        verdicts: Its own answers: rows of one metric or more, with the columns of `verdicts.VERDICT_COLUMNS`.
        frames: Metric -> a row a run: rung, state, the metric and, where runs are known by a name, run.
        published: What is printed of top-1 in place of runs.
        is_proxy: Whether its numbers stand for the paper's experiment instead of repeating it.
        means_nothing: Whether its recipe only shows that everything works, so that nothing is claimed.
        caveats: What else a reader should know of it here, a sentence each.
    """

    name: str
    note: str
    pairs: Pairs
    labels: pd.DataFrame
    verdicts: pd.DataFrame
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    published: Summary | None = None
    is_proxy: bool = False
    means_nothing: bool = False
    caveats: Sequence[str] = ()

    @property
    def metrics(self) -> list[str]:
        """The metrics that it has numbers of."""
        return [TOP1] if self.published else list(self.frames)

    def effects(self, metric: str) -> dict[str, Effects]:
        """Return its own row of the verdicts for each step."""
        rows = self.verdicts[self.verdicts["metric"] == metric].to_dict("records")
        return {str(row["step"]): {str(name): value for name, value in row.items()} for row in rows}

    def values(self, metric: str) -> "dict[str, Any] | Summary":
        """Return each rung's values for `analysis.stats.differences.compare_studies`.

        A run is known by its name and its value: trained again on another machine it has another value, and is another
        run.
        """
        if self.published:
            return self.published
        frame = self.frames[metric]
        done = frame[frame["state"] == "finished"].dropna(subset=[metric])
        rungs = dict.fromkeys([*self.labels["rung"], *(rung for pair in self.pairs for rung in pair)])
        values: dict[str, Any] = {str(rung): {} for rung in rungs}
        for rung, rows in done.groupby("rung", sort=False):
            numbers = rows[metric].astype(float)
            named = "run" in rows and rows["run"].notna().all()
            values[str(rung)] = (
                {f"{run}={value!r}": value for run, value in zip(rows["run"], numbers.tolist(), strict=True)}
                if named
                else numbers.to_numpy()
            )
        return values


def side_of_study(results: StudyResults, name: str) -> Side:
    """Return what a study's runs bring.

    Raises:
        UserError: If its design has no steps from one rung to another.
    """
    study = results.study
    if study.design == "fractional":
        raise _no_steps(name)
    caveats = []
    if study.looks or results.own_metrics.looks:
        caveats.append(
            f"Seeds of {name} came in rounds, to the steps that were open there. The differences are tested once, with "
            "the seeds that there are now."
        )
    return Side(
        name=name,
        note=study.describe(),
        pairs=pairs_of(study.rungs),
        labels=labels_of(study.rungs),
        verdicts=results.verdicts,
        frames=_frames(results.runs, results.evaluated),
        is_proxy=study.recipe.is_proxy,
        means_nothing=results.means_nothing,
        caveats=caveats,
    )


def side_of_record(results: RecordResults, name: str) -> Side:
    """Return what a record's rows bring.

    Raises:
        UserError: If its design has no steps from one rung to another.
    """
    table = results.record.table
    if results.fraction is not None:
        raise _no_steps(name)
    steps = table[table["parent"].notna() & (table["section"] != SECTION)]
    return Side(
        name=name,
        note=results.record.chart.note,
        pairs=list(zip(steps["rung"], steps["parent"], strict=True)),
        labels=table[LABELS],
        verdicts=pd.concat(results.verdicts, ignore_index=True),
        frames=_frames(results.runs, results.evaluated),
        is_proxy=results.record.is_proxy,
    )


def side_of_frame(results: FrameResults, name: str, wanted: Pairs = ()) -> Side:
    """Return what anybody's results bring: the steps that are wanted, as far as it has both rungs.

    Args:
        results: The results.
        name: What they are called.
        wanted: The steps of the study that they are compared with; without any, each rung and the one before it.
    """
    runs = results.runs if "state" in results.runs else results.runs.assign(state="finished")
    rungs = set(results.rungs)
    pairs = [pair for pair in wanted if rungs.issuperset(pair)] or results.pairs
    verdicts = [
        verdict_table(runs, pairs, metric, about=results.metric(metric), test=results.test) for metric in results.names
    ]
    labels = pd.DataFrame({"rung": results.rungs}).assign(section=None, adopted=True)
    return Side(
        name=name,
        note=results.describe(),
        pairs=pairs,
        labels=labels.assign(label=[results.labels.get(rung, rung) for rung in results.rungs])[LABELS],
        verdicts=pd.concat(verdicts, ignore_index=True),
        frames={metric: runs for metric in results.names},
    )


def side_of_paper(
    ladder: Ladder, base: str, name: str = "the paper", *, margin: float | None = None, test: Test = SHARED
) -> Side:
    """Return what the paper prints of its own steps: means and standard deviations of top-1.

    Raises:
        UserError: If nothing is published of the ladder.
    """
    rungs, info = ladder.climb(base), ladder.bases[base]
    known = {rung.id: rung.paper for rung in rungs if rung.paper.top1 is not None}
    if not known:
        raise UserError(f"nothing is published of the ladder from {base}. Compare it with runs or a record.")
    mean = {rung: float(paper.top1) for rung, paper in known.items() if paper.top1 is not None}
    std = {rung: paper.top1_std for rung, paper in known.items() if paper.top1_std is not None}
    pairs = [pair for pair in pairs_of(rungs) if known.keys() >= set(pair)]
    return Side(
        name=name,
        note=f"Published numbers: Liu et al. 2022, {info.source}",
        pairs=pairs,
        labels=labels_of(rungs),
        verdicts=published_verdicts(ladder, base, pairs=pairs, margin=margin, test=test),
        published=Summary(mean, std, {rung: info.seeds if rung in std else 1 for rung in mean}, PRINTED),
    )


def labels_of(rungs: Iterable[Rung]) -> pd.DataFrame:
    """Return a row a rung with the columns of `LABELS`."""
    rows = [(rung.id, rung.label, rung.section, rung.adopted) for rung in rungs]
    return pd.DataFrame(rows, columns=LABELS)


def _frames(runs: pd.DataFrame, evaluated: Iterable[Any]) -> dict[str, pd.DataFrame]:
    later = {metric: runs_of(found, metric) for found in evaluated for metric in found.metrics}
    return {metric: runs for metric in METRICS if metric in runs} | later


def _no_steps(name: str) -> UserError:
    return UserError(
        f"{name}: a fractional factorial plan has effects over many networks, and no step from one rung to another. "
        "Compare ladders, or another design of both."
    )
