"""What a record says, judged again by today's rule from its rows alone: no run folder is needed."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from analysis.comparison.agreement import AGREEMENT_COLUMNS, agreement_with_paper, correlation_in_words
from analysis.evaluations.own_metrics import OwnMetrics, read_described, runs_of
from analysis.evaluations.robustness import Robustness
from analysis.fractions import AGAINST, effect_rows, fraction_verdicts
from analysis.ladder_table import with_answers
from analysis.metrics import COSTS, METRICS, SPEEDS, TOP1, Evaluated, declared
from analysis.report.csv_text import as_written
from analysis.report.record import RECORD, Record
from analysis.sentences import headline, more_runs
from analysis.stats.answers import SHARED, Test
from analysis.verdicts import FACTOR_COLUMNS, VERDICT_COLUMNS, Pairs, published_verdicts, sought_verdicts
from roadmap.common.errors import UserError
from roadmap.ladder.fractions import Fraction
from roadmap.ladder.ladder import read_ladder
from roadmap.ladder.references import SECTION
from roadmap.robustness.settings import FGSM

# What only the runs' own files tell of a change of top-1: it stays as it was recorded.
KEPT = ["test_se", "mcnemar_pairs", "mcnemar_differ", *FACTOR_COLUMNS]


@dataclass(frozen=True, eq=False)
class RecordResults:
    """What a record's rows say.

    Speeds and costs stay as they were recorded: a record has no rounds of measuring.

    Attributes:
        record: The record.
        margin: Changes of top-1 within it are as good as none; None takes the recorded one.
        test: The rule that gives the answers, as for `analysis.judge`.
    """

    record: Record
    margin: float | None = None
    test: Test = SHARED

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a rung and seed (`run_frames.collect`)."""
        return self._read("results.csv")

    @cached_property
    def recorded(self) -> pd.DataFrame:
        """The verdicts as they were recorded."""
        return self._read("verdicts.csv")

    @cached_property
    def used_margin(self) -> float:
        """The margin of top-1 that the answers go by."""
        if self.margin is not None:
            return self.margin
        known = self.recorded.loc[self.recorded["metric"] == "top1", "margin"]
        return float(known.iloc[0]) if len(known) else METRICS["top1"].margin

    @cached_property
    def robustness(self) -> Robustness:
        """What was found of the networks' robustness; a rung's mCE against itself is 100."""
        if not (self.record.folder / "robustness.csv").is_file():
            return Robustness(pd.DataFrame())
        frame = self._read("robustness.csv")
        found = (re.fullmatch(rf"{FGSM}_([\d.]+)", str(name)) for name in frame)
        radii = tuple(float(radius[1]) for radius in found if radius)
        errors = frame.groupby("rung")["mce"].mean().sub(100).abs()
        return Robustness(frame, radii, str(errors.idxmin()) if errors.notna().any() else None)

    @cached_property
    def own_metrics(self) -> OwnMetrics:
        """What functions of the user's own measured of the networks."""
        about = self.record.about
        if not about.get("own_metrics") or not (self.record.folder / "own_metrics.csv").is_file():
            return OwnMetrics(pd.DataFrame())
        return read_described(self._read("own_metrics.csv"), about, self.record.folder / RECORD)

    @cached_property
    def evaluated(self) -> tuple[Evaluated, ...]:
        """What was found of the trained networks after their runs."""
        return declared(self.robustness, self.own_metrics)

    @cached_property
    def verdicts(self) -> list[pd.DataFrame]:
        """A table a metric, top-1 with what each step costs first, with the columns of `verdicts.VERDICT_COLUMNS`."""
        metrics = [*METRICS, *SPEEDS, *COSTS, *(name for found in self.evaluated for name in found.metrics)]
        tables = [pd.concat([self._judge(metric, pairs) for pairs in self._families()]) for metric in metrics]
        if fraction := self.fraction:
            tables = [self._judge_fraction(fraction, metric) for metric in metrics]
        return [rows.reset_index(drop=True) for rows in tables if rows["delta"].notna().any()]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a rung, with the columns of `ladder_table.LADDER_COLUMNS`."""
        return with_answers(self.record.table, self.verdicts[0], self._published())

    @property
    def rows(self) -> pd.DataFrame:
        """What is judged and what it is called, for figures: columns rung, label, section, adopted and others."""
        return self.table if self.fraction is None else effect_rows(self.fraction)

    @cached_property
    def headline(self) -> str:
        """The sentence that says which steps are answered, and what would answer the rest."""
        references = self.table.loc[self.table["section"] == SECTION, "rung"]
        steps = self.verdicts[0][~self.verdicts[0]["step"].isin(references)]
        if self.fraction:
            return headline(steps, noun="effect")
        seconds = self.runs[self.runs["state"] == "finished"].groupby("rung")["wall_s"].mean()
        more = more_runs(steps, {str(rung): float(s) for rung, s in seconds.items()})
        return headline(steps, noun="step" if self._is_ladder else "change", more=more)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Rank correlations with the paper's changes, as recorded: no rule enters them."""
        is_there = (self.record.folder / "agreement.csv").is_file()
        return self._read("agreement.csv") if is_there else pd.DataFrame(columns=list(AGREEMENT_COLUMNS))

    @property
    def sentences(self) -> list[str]:
        """What else is to be said in words, a paragraph each."""
        sentences = []
        if self._is_ladder:
            sentences.append(agreement_with_paper(self.table))
            sentences.append(correlation_in_words(self.correlations, proxy=self.record.is_proxy))
        return sentences + [str(note) for note in self.record.about.get("notes", [])]

    @property
    def _is_ladder(self) -> bool:
        return bool(self.record.about["design"] == "ladder")

    def _families(self) -> list[Pairs]:
        """Return what is judged together: the steps, and the references."""
        table = self.record.table[self.record.table["parent"].notna()]
        parts = [table[table["section"] != SECTION], table[table["section"] == SECTION]]
        return [list(zip(part["rung"], part["parent"], strict=True)) for part in parts if len(part)] or [[]]

    @cached_property
    def fraction(self) -> Fraction | None:
        """Which steps each network has, for the design "fractional"."""
        content = self.record.about.get("fraction")
        if content is None:
            return None
        try:
            return TypeAdapter(Fraction).validate_python(content)
        except ValidationError as error:
            raise UserError(
                f"{self.record.folder / RECORD}: its fraction is damaged. Fetch the record again."
            ) from error

    def _judge_fraction(self, fraction: Fraction, metric: str) -> pd.DataFrame:
        """Judge the effects of a factorial plan; what is counted stays as it was recorded."""
        places = [(effect.name, AGAINST[len(effect.steps)]) for effect in fraction.effects]
        if metric in SPEEDS or metric in COSTS:
            return self._as_recorded(metric, places)
        margin = self.used_margin if metric == TOP1 else None
        runs = next((runs_of(found, metric) for found in self.evaluated if metric in found.metrics), self.runs)
        return self._with_kept(fraction_verdicts(runs, fraction, metric, margin), places)

    def _as_recorded(self, metric: str, pairs: Pairs) -> pd.DataFrame:
        """Return the changes in what is counted or was measured side by side, as they were recorded."""
        rows = self._recorded_of(metric, pairs).reset_index().reindex(columns=list(VERDICT_COLUMNS))
        counts = {name: rows[name].fillna(0).astype(int) for name in ("n", "n_against")}
        words = {name: rows[name].astype(object).fillna("") for name in ("answer", "verdict")}
        return rows.assign(metric=metric, **counts, **words)

    def _recorded_of(self, metric: str, pairs: Pairs) -> pd.DataFrame:
        recorded = self.recorded[self.recorded["metric"] == metric].set_index(["step", "against"])
        return recorded.reindex(pd.MultiIndex.from_tuples(pairs, names=["step", "against"]))

    def _with_kept(self, judged: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
        """Return judged changes with what only the runs' own files tell of them, of top-1."""
        if not (judged["metric"] == TOP1).all():
            return judged
        recorded = self._recorded_of(TOP1, pairs)
        return judged.assign(**{name: recorded[name].to_numpy() for name in KEPT if name in recorded})

    def _judge(self, metric: str, pairs: Pairs) -> pd.DataFrame:
        if metric in SPEEDS or metric in COSTS:
            return self._as_recorded(metric, pairs)
        for found in self.evaluated:
            if metric in found.metrics:
                return self._judge_runs(found.frame.assign(state="finished"), pairs, metric)
        table = self.record.table
        apart = set(table.loc[table["section"] == SECTION, "rung"]).difference(*pairs)
        runs = self.runs[~self.runs["rung"].isin(apart)]
        return self._with_kept(self._judge_runs(runs, pairs, metric), pairs)

    def _judge_runs(self, runs: pd.DataFrame, pairs: Pairs, metric: str) -> pd.DataFrame:
        """Judge changes in a metric of runs, with the looks that were recorded of a study in rounds."""
        about, margin = self.record.about, self.used_margin if metric == "top1" else None
        looks, sought = about.get("looks", ()), about.get("sought", ())
        if own := self.own_metrics.looks.get(metric):
            looks, sought = own.seeds, own.sought
        return sought_verdicts(runs, pairs, metric, sought, looks=looks, margin=margin, test=self.test)

    def _published(self) -> pd.DataFrame | None:
        """Return the answers to the paper's own steps, by the same rule; None where the base is not the paper's."""
        ladder, base = read_ladder(), str(self.record.about["base"])
        if not self._is_ladder or base not in ladder.bases:
            return None
        rungs = ladder.climb(base)
        known = {rung.id for rung in rungs if rung.paper.top1 is not None}
        pairs = [(rung.id, rung.parent) for rung in rungs if rung.parent in known and rung.id in known and rung.parent]
        return published_verdicts(ladder, base, pairs=pairs, margin=self.used_margin, test=self.test)

    def _read(self, name: str) -> pd.DataFrame:
        path: Path = self.record.folder / name
        try:
            frame = pd.read_csv(path)
        except (OSError, ValueError) as error:  # pandas' and Unicode's errors are ValueErrors
            raise UserError(f"{path}: cannot be read ({error}). A record is judged from the rows in it.") from error
        words = frame.select_dtypes(["object", "string"]).columns
        return frame.assign(
            **{
                column: [as_written(text) if isinstance(text, str) else text for text in frame[column]]
                for column in words
            }
        )
