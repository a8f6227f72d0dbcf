"""Anybody's results, trained by whatever program: a frame with a row a run, judged as a ladder's runs are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import pandas as pd

from analysis.ladder_table import LADDER_COLUMNS, with_answers
from analysis.metrics import metric_of
from analysis.sentences import headline, more_runs
from analysis.stats.answers import SHARED, Test
from analysis.verdicts import verdict_table
from roadmap.common.errors import UserError, unknown
from roadmap.runs.metrics import Metric

PREVIOUS = "previous"
MOST_RUNGS = 200  # a figure has a row for each


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameResults:
    """What a frame of results says. It is judged once, when an answer is first asked for.

    Attributes:
        runs: A row a run with the columns rung and seed, and a column a metric; NaN where a run has no value. The rungs
            are in their order.
        against: The rung that all others are held against, or `PREVIOUS`: each is held against the one before it.
        metrics: Which columns are metrics, the main one first; None takes all but rung, seed and state.
        lower_is_better: Metrics of which less is better, beside those that are known to be so (NLL, errors, losses of
            `analysis.metrics.METRICS`).
        margin: Changes of the main metric within it are as good as none; None takes its own, which is 0 where the
            metric is not one of `METRICS`: then no step is said to have no effect.
        labels: What rungs are called: rung -> label; they come in this order, others after them.
        title: The headline.
        test: The rule that gives the answers, as for `analysis.judge`.
    """

    runs: pd.DataFrame
    against: str = PREVIOUS
    metrics: Sequence[str] | None = None
    lower_is_better: Sequence[str] = ()
    margin: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    title: str = "Results"
    test: Test = SHARED

    def __post_init__(self) -> None:
        """Refuse what cannot be judged.

        Raises:
            UserError: If a column, rung or metric is not there, or a rung and seed are there twice.
        """
        for column in ("rung", "seed"):
            if column not in self.runs:
                raise UserError(f"results: no column '{column}'. Found: {', '.join(map(str, self.runs.columns))}.")
        if not self.names:
            raise UserError("results: no column is a metric. Beside rung and seed, give each run at least one number.")
        for name in self.names:
            if name not in self.runs:
                raise unknown("metric", name, [str(column) for column in self.runs if column not in ("rung", "seed")])
        for name in self.lower_is_better:
            if name not in self.names:
                raise unknown("metric", name, self.names, place="lower is better")
        if self.against != PREVIOUS and self.against not in self.rungs:
            raise unknown("rung", self.against, [PREVIOUS, *self.rungs], place="against")
        for rung in self.labels:
            if rung not in self.rungs:
                raise unknown("rung", rung, self.rungs, place="labels")
        if len(self.rungs) > MOST_RUNGS:
            raise UserError(
                f"results: {len(self.rungs):,} rungs, but a report shows {MOST_RUNGS} at most. Take a part."
            )
        twice = self.runs[self.runs.duplicated(["rung", "seed"])]
        if len(twice):
            row = twice.iloc[0]
            raise UserError(f"results: rung '{row['rung']}' has seed {row['seed']} twice. Keep one row a run.")

    @cached_property
    def names(self) -> list[str]:
        """The metrics, the main one first."""
        others = ("rung", "seed", "state")
        return [str(name) for name in self.runs if name not in others] if self.metrics is None else list(self.metrics)

    @cached_property
    def rungs(self) -> list[str]:
        """The rungs in order."""
        found = list(dict.fromkeys(map(str, self.runs["rung"])))
        return [rung for rung in self.labels if rung in found] + [rung for rung in found if rung not in self.labels]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each change: (rung, the one it is held against)."""
        if self.against == PREVIOUS:
            return list(zip(self.rungs[1:], self.rungs[:-1], strict=True))
        return [(rung, self.against) for rung in self.rungs if rung != self.against]

    def metric(self, name: str) -> Metric:
        """Return what a metric is."""
        known = metric_of(name)
        return replace(known, better=-1) if name in self.lower_is_better else known

    @cached_property
    def verdicts(self) -> list[pd.DataFrame]:
        """A table a metric, the main one first, with the columns of `verdicts.VERDICT_COLUMNS`."""
        runs = self.runs if "state" in self.runs else self.runs.assign(state="finished")
        return [
            verdict_table(
                runs,
                self.pairs,
                name,
                about=self.metric(name),
                margin=self.margin if name == self.names[0] else None,
                test=self.test,
            )
            for name in self.names
        ]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a rung with the columns of `ladder_table.LADDER_COLUMNS`, the main metric in place of top-1."""
        values = self.runs.groupby("rung", sort=False)[self.names[0]].agg(["mean", "std", "count"])
        values = values.set_axis(["top1", "top1_std", "n"], axis=1).reindex(self.rungs)
        table = values.reset_index(names="rung").reindex(columns=list(LADDER_COLUMNS))
        held_against = dict(self.pairs)
        table = table.assign(
            label=[self.labels.get(rung, rung) for rung in self.rungs],
            section=None,
            adopted=True,
            parent=pd.Series([held_against.get(rung) for rung in self.rungs], dtype=object),
            state=["finished" if n else "missing" for n in table["n"]],
            n=table["n"].astype(int),
            erratum="",
            answer="",
            paper_answer="",
        )
        by_rung = table.set_index("rung")["top1"]
        table["top1_delta"] = table["top1"] - table["parent"].map(by_rung).astype(float)
        return with_answers(table, self.verdicts[0])

    @cached_property
    def headline(self) -> str:
        """The sentence that says how many changes are answered, which, and what would answer the rest."""
        return headline(self.verdicts[0], more=more_runs(self.verdicts[0]))

    def describe(self) -> str:
        """Say in a line what the numbers are: metrics, which way is better, seeds, and what is held against what."""
        ways = {1: "more is better", -1: "less is better"}
        metrics = ", ".join(f"{name} ({ways[self.metric(name).better]})" for name in self.names)
        seeds = self.runs.groupby("rung").size()
        n = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
        against = "the one before it" if self.against == PREVIOUS else f"'{self.against}'"
        return (
            f"{len(self.rungs)} rungs, {n} seed{'s' * (n != '1')} each, every rung held against {against}. "
            f"Metrics: {metrics}."
        )
