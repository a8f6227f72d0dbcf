"""Whether each step is worth the same in several studies: one is held against the others, all differences together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.agreement import (
    AGREEMENT_COLUMNS,
    FEWEST_STEPS,
    agreement,
    correlate,
    correlation_in_words,
)
from analysis.comparison.sides import LABELS, Effects, Side
from analysis.metrics import TOP1, metric_of
from analysis.sentences import count, names
from analysis.stats.answers import SHARED, Test
from analysis.stats.differences import DECIDED, Other, Worth, compare_studies
from roadmap.common.errors import UserError, unknown

# A row of a table of differences: column -> meaning and unit.
DIFFERENCE_COLUMNS = {
    "step": "rung that both studies have",
    "against": "the rung that it is judged against here",
    "study": "the study there",
    "against_there": "the rung that it is judged against there",
    "metric": "what changed; `analysis.metrics.metric_of` says in which unit",
    "n": "finished seeds here, the fewer of the two rungs'",
    "n_there": "those there",
    "effect": "the step's change of the mean here",
    "effect_low": "lower end of its 95% interval, for this change alone",
    "effect_high": "upper end",
    "answer_here": "helps, hurts, no effect, undecided or not tested, among the steps of the study here",
    "effect_there": "the step's change of the mean there",
    "effect_there_low": "lower end of its interval",
    "effect_there_high": "upper end",
    "answer_there": "its answer there",
    "difference": "effect here less effect there",
    "ci_low": "lower end of its 95% interval, for this difference alone",
    "ci_high": "upper end",
    "p": "test of no difference, two-sided, for this difference alone",
    "p_adjusted": "the same, allowing for all differences of the table in this metric",
    "p_same": "test of a difference beyond the margin, allowing for all: a small p says that there is none",
    "p_welch": "Welch's test over the four rungs' own seeds, for this difference alone",
    "margin": "differences within it are as good as none",
    "worth": "more here, more there, the same, undecided or not tested; more is where the effect is better",
    "verdict": "the same in words",
}
CLAIMS = ("ci_low", "ci_high", "p", "p_adjusted", "p_same", "p_welch")


@dataclass(frozen=True, eq=False)
class StudyComparison:
    """A study beside others.

    Attributes:
        here: The study.
        others: Those that it is compared with.
        margin: Differences of top-1 within it are as good as none; None takes the metric's own.
        test: The rule, as for `analysis.judge`.
        step: The one step that is shown, judged together with all others; None shows all.
    """

    here: Side
    others: Sequence[Side]
    margin: float | None = None
    test: Test = SHARED
    step: str | None = None

    def __post_init__(self) -> None:
        """Refuse studies that have nothing to compare.

        Raises:
            UserError: If two have one name, or one has no step or no metric that the study here has too.
        """
        called = [self.here.name, *(other.name for other in self.others)]
        if twice := next((name for name in called if called.count(name) > 1), None):
            raise UserError(f"'{twice}' is there twice. Compare different studies.")
        for other in self.others:
            if not self.steps_with(other):
                ours, theirs = (names([step for step, _ in side.pairs]) or "none" for side in (self.here, other))
                raise UserError(
                    f"{self.here.name} and {other.name} have no step in common. Steps here: {ours}; there: {theirs}."
                )
            if not set(self.here.metrics) & set(other.metrics):
                ours, theirs = (names(side.metrics) for side in (self.here, other))
                raise UserError(
                    f"{self.here.name} and {other.name} have no metric in common. Here: {ours}; there: {theirs}."
                )

    def steps_with(self, other: Side) -> list[str]:
        """Return the steps that a study has too, in the order here."""
        theirs = {step for step, _ in other.pairs}
        return [step for step, _ in self.here.pairs if step in theirs]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a metric, other study and step, with the columns of `DIFFERENCE_COLUMNS`."""
        shared = [metric for metric in self.here.metrics if any(metric in other.metrics for other in self.others)]
        table = pd.concat([self._judge(metric) for metric in shared], ignore_index=True)
        steps = set(table["step"]) if self.step is None else {self.step}
        return table[table["step"].isin(steps)].reset_index(drop=True)

    def about(self, step: str) -> "StudyComparison":
        """Return the same of one step.

        Raises:
            UserError: If no other study has it.
        """
        both = [own for own, _ in self.here.pairs if any(own in self.steps_with(other) for other in self.others)]
        if step not in both:
            raise unknown("step", step, both, place="--step")
        return replace(self, step=step)

    @property
    def means_nothing(self) -> bool:
        """Whether one of the studies only shows that everything works, so that nothing is claimed."""
        return any(side.means_nothing for side in (self.here, *self.others))

    @cached_property
    def main(self) -> pd.DataFrame:
        """The rows of the first metric: top-1, where both studies have it."""
        first: pd.DataFrame = self.table[self.table["metric"] == self.table["metric"].iloc[0]]
        return first

    @property
    def steps(self) -> list[str]:
        """The steps that any other study has too, in the order here."""
        found = set(self.table["step"])
        return [step for step, _ in self.here.pairs if step in found]

    @property
    def labels(self) -> pd.DataFrame:
        """A row a rung of the study here, with the columns of `sides.LABELS`."""
        return self.here.labels[LABELS]

    def _judge(self, metric: str) -> pd.DataFrame:
        """Return the rows of one metric."""
        about, others = metric_of(metric), [other for other in self.others if metric in other.metrics]
        margin = about.margin if self.margin is None or metric != TOP1 else self.margin
        asked = []
        for other in others:
            ours, theirs, steps = dict(self.here.pairs), dict(other.pairs), self.steps_with(other)
            pairs, pairs_there = [[(step, side[step]) for step in steps] for side in (ours, theirs)]
            asked.append(Other(other.values(metric), pairs, pairs_there))
        values = self.here.values(metric)
        found = compare_studies(values, asked, better=about.better, margin=margin, test=self.test)
        tables = [self._with_effects(rows, other, metric) for rows, other in zip(found, others, strict=True)]
        table = pd.concat(tables).assign(metric=metric, margin=margin)
        if self.means_nothing:
            table = table.assign(**dict.fromkeys(CLAIMS, np.nan), verdict="")
        rows: list[Any] = list(table.itertuples())
        words = ["" if self.means_nothing else in_words(row, about.samples) for row in rows]
        table = table.rename(columns={"verdict": "worth"}).assign(verdict=words)
        return table.reindex(columns=list(DIFFERENCE_COLUMNS))

    def _with_effects(self, rows: pd.DataFrame, other: Side, metric: str) -> pd.DataFrame:
        """Return differences from one study with each study's own interval and answer of the effect."""
        columns: dict[str, list[Any]] = {}
        for side, ending, answer in ((self.here, "effect", "answer_here"), (other, "effect_there", "answer_there")):
            own: Mapping[str, Effects] = side.effects(metric)
            of_steps = [own.get(step, {}) for step in rows["step"]]
            columns[ending] = [row.get("delta", found) for row, found in zip(of_steps, rows[ending], strict=True)]
            columns[f"{ending}_low"] = [row.get("ci_low", np.nan) for row in of_steps]
            columns[f"{ending}_high"] = [row.get("ci_high", np.nan) for row in of_steps]
            columns[answer] = [str(row.get("answer", "")) for row in of_steps]
        return rows.assign(study=other.name, **columns)

    # -- in words

    @cached_property
    def headline(self) -> str:
        """Say how many steps are worth more here or there, which, and how many are undecided."""
        if self.means_nothing:
            return "These numbers mean nothing: a recipe trains for a few steps, to show that everything works."
        return " ".join(difference_headline(rows) for _, rows in self.main.groupby("study", sort=False))

    @cached_property
    def sentences(self) -> list[str]:
        """What else is to be said in words, a paragraph each."""
        sentences = [f"Here: {self.here.name}. {self.here.note}"]
        sentences += [f"There: {other.name}. {other.note}" for other in self.others]
        for other in self.others if not self.means_nothing else ():
            rows = self.main[self.main["study"] == other.name]
            step, ours, theirs = (rows[name].tolist() for name in ("step", "answer_here", "answer_there"))
            sentences.append(agreement(step, ours, theirs, other.name))
            if TOP1 in self.here.metrics and TOP1 in other.metrics:
                found = self.correlation(other)
                is_proxy = self.here.is_proxy and other.published is not None
                sentences.append(correlation_in_words(found, proxy=is_proxy, name=other.name))
        for side in (self.here, *self.others):
            sentences += side.caveats
        if (self.main["verdict"] == SAME_RUNS).any():
            sentences.append("Where both studies have the same runs, the two effects are one number: nothing to test.")
        sentences.append(
            "Effects are changes of each study's own numbers. They also differ where one study's networks have more "
            "left to gain."
        )
        return sentences

    def correlation(self, other: Side) -> pd.DataFrame:
        """Return how the effects on top-1 of the adopted steps rank here and there (`agreement.AGREEMENT_COLUMNS`)."""
        adopted = set(self.labels.loc[self.labels["adopted"].astype(bool), "rung"])
        steps = [step for step in self.steps_with(other) if step in adopted]
        sides = [_means(side, TOP1) for side in (self.here, other)]
        pairs = [[(step, dict(side.pairs)[step]) for step in steps] for side in (self.here, other)]
        known = [
            place
            for place in range(len(steps))
            if all(rung in values for values, own in zip(sides, pairs, strict=True) for rung in own[place])
        ]
        row: dict[str, Any] = {"metric": TOP1, "steps": len(known)}
        if len(known) >= FEWEST_STEPS:
            ours, theirs = [[own[place] for place in known] for own in pairs]
            row |= correlate(sides[0], ours, sides[1], theirs, np.random.default_rng(0))
        return pd.DataFrame([row], columns=list(AGREEMENT_COLUMNS))


SAME_RUNS = "not tested: the same runs"


def in_words(row: Any, samples: str = "seeds") -> str:
    """Return an answer on a difference as a table prints it.

    Args:
        row: The difference, with the columns of `stats.differences.compare_effects` and margin.
        samples: What n counts.
    """
    n, worth = int(min(row.n, row.n_there)), Worth(row.verdict)
    if worth == Worth.SAME:
        return f"{worth} within {row.margin:g}"
    if worth == Worth.UNDECIDED:
        return f"{worth} at {count(n, samples)}"
    if worth == Worth.NOT_TESTED:
        if row.same_runs:
            return SAME_RUNS
        return f"{worth}: " + ("no result here" if not row.n else "no result there" if not row.n_there else "no spread")
    return str(worth)


def difference_headline(rows: pd.DataFrame) -> str:
    """Say of one other study how many steps are worth more here or there, and which.

    Args:
        rows: Differences in one metric, with the columns of `DIFFERENCE_COLUMNS`.
    """
    steps = {worth: rows.loc[rows["worth"] == worth, "step"].astype(str).tolist() for worth in Worth}
    total, decided = len(rows), sum(len(steps[worth]) for worth in DECIDED)
    metric = metric_of(str(rows["metric"].iloc[0]))
    margin = f"{rows['margin'].iloc[0]:g} {metric.unit}".strip()
    words = {
        Worth.MORE_HERE: ("is worth more here", "are worth more here"),
        Worth.MORE_THERE: ("is worth more there", "are worth more there"),
        Worth.SAME: (f"is worth the same within {margin}", f"are worth the same within {margin}"),
        Worth.UNDECIDED: ("is undecided", "are undecided"),
    }
    parts = []
    for worth, (one, several) in words.items():
        if found := steps[worth]:
            listed = f" ({names(found)})" if worth != Worth.UNDECIDED else ""
            parts.append(f"{len(found)} {one if len(found) == 1 else several}{listed}")
    for verdict, untested in rows[rows["worth"] == Worth.NOT_TESTED].groupby("verdict", sort=False):
        found = untested["step"].astype(str).tolist()
        listed = f" ({names(found)})" if len(found) < total else ""
        parts.append(f"{len(found)} {'is' if len(found) == 1 else 'are'} {verdict}{listed}")
    both = f"the {count(total, 'steps')} that both have" if total > 1 else "the one step that both have"
    return f"Against {rows['study'].iloc[0]}, {decided} of {both} {'is' if decided == 1 else 'are'} answered: " + (
        f"{', '.join(parts)}."
    )


def _means(side: Side, metric: str) -> dict[str, Any]:
    """Return each rung's values, or its printed mean alone."""
    values = side.values(metric)
    if not isinstance(values, dict):
        return {rung: np.array([mean]) for rung, mean in values.mean.items()}
    arrays = {rung: np.array(list(own.values()) if isinstance(own, dict) else own) for rung, own in values.items()}
    return {rung: own for rung, own in arrays.items() if len(own)}
