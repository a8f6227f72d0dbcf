"""A study in a notebook: frames of its runs, answers and curves, its figures as objects, wherever its numbers lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.comparison.differences import StudyComparison
from analysis.comparison.sides import Side, side_of_frame, side_of_record, side_of_study
from analysis.frame_results import FrameResults
from analysis.history import CURVE_COLUMNS
from analysis.report.contents import DEFAULT, Contents, Presentation
from analysis.report.record import RECORD, read_record
from analysis.report.record_results import RecordResults
from analysis.report.tables import COMPACT, ladder_latex, verdict_latex
from analysis.report.write import contents_of, write_report
from analysis.results_file import read_results
from analysis.stats.answers import SHARED, Test
from analysis.study_results import StudyResults
from roadmap.common.errors import UserError, unknown
from roadmap.study.found_seeds import plan_found
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec

OF_STUDIES = [field.name for field in fields(StudySpec) if field.name != "base"]
OF_FRAMES = [field.name for field in fields(FrameResults) if field.name not in ("runs", "margin", "test")]
Results = StudyResults | RecordResults | FrameResults


def open_study(
    place: str | Path | StudySpec | Study | pd.DataFrame,
    *,
    margin: float | None = None,
    test: Test = SHARED,
    **settings: Any,
) -> "StudyFrames":
    """Open a study, to look at its frames and draw its figures. Nothing is trained and nothing written.

    Args:
        place: A record's folder; a CSV file with a row a run, or a frame like it; a base such as "resnet50", whose
            runs are in the runs folder; or the whole `StudySpec` or `Study`.
        margin: Changes of the main metric within it are as good as none; None takes its own.
        test: The rule that gives the answers, as for `analysis.judge`.
        **settings: Of a base: the other fields of `StudySpec`, such as recipe and runs; without seeds, all that have a
            result are taken. Of a file or frame: those of `FrameResults`, such as against, metrics and labels.

    Returns:
        The study.

    Raises:
        UserError: If there is no such study, or a setting is not one of its.
    """
    rule: dict[str, Any] = {"margin": margin, "test": test}
    if isinstance(place, Study):
        _check(settings, (), _name_of(place))
        return StudyFrames(_name_of(place), StudyResults(place, **rule))
    if isinstance(place, pd.DataFrame):
        _check(settings, OF_FRAMES, "results")
        return StudyFrames("results", FrameResults(runs=place, **settings, **rule))
    if isinstance(place, StudySpec):
        _check(settings, OF_STUDIES, place.base)
        study = plan_found(replace(place, **settings))
        return StudyFrames(_name_of(study), StudyResults(study, **rule))
    path = Path(place)
    if (path / RECORD).is_file():
        if settings:
            raise UserError(f"{path}: a record takes no {', '.join(settings)}. Its {RECORD} says what it was.")
        return StudyFrames(path.resolve().name, RecordResults(read_record(path), **rule))
    if path.suffix == ".csv":
        _check(settings, OF_FRAMES, str(path))
        metrics = settings.get("metrics")
        return StudyFrames(path.stem, FrameResults(runs=read_results(path, metrics), **settings, **rule))
    if path.is_dir():
        raise UserError(
            f"{path}: no record here ({RECORD}). For a folder of runs, name the study in it: "
            f'open_study("resnet50", recipe="fashion", runs="{path}").'
        )
    _check(settings, OF_STUDIES, str(place))
    study = plan_found(StudySpec(str(place), **settings))
    return StudyFrames(_name_of(study), StudyResults(study, **rule))


def _check(settings: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Refuse a setting that a study has not."""
    for name in settings:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(f"{place}: no setting '{name}'.{hint} Known: {', '.join(known) or 'none'}.")


def _name_of(study: Study) -> str:
    return f"{study.base}-{study.recipe.name}"


@dataclass(frozen=True, eq=False)
class StudyFrames:
    """A study's frames, figures and tables. Each is read or judged once, when it is first asked for.

    Attributes:
        name: What the study is called.
        results: What its runs, its record or its file say.
    """

    name: str
    results: Results

    # -- frames

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run: rung, seed, its metrics; of runs of our own their state and costs too."""
        return self.results.runs

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """A row a metric and change, with the columns of `analysis.verdicts.VERDICT_COLUMNS`."""
        found = self.results.verdicts
        return found if isinstance(found, pd.DataFrame) else pd.concat(found, ignore_index=True)

    @cached_property
    def ladder(self) -> pd.DataFrame:
        """A row a rung in the ladder's order, with the columns of `analysis.ladder_table.LADDER_COLUMNS`."""
        return self.results.table

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row a run and epoch, with the columns of `analysis.history.CURVE_COLUMNS`; empty without run folders."""
        if isinstance(self.results, StudyResults):
            return self.results.curves
        return pd.DataFrame(columns=list(CURVE_COLUMNS))

    @property
    def headline(self) -> str:
        """The sentence that says which steps are answered, and what would answer the rest."""
        return self.results.headline

    # -- figures and tables

    @property
    def figures(self) -> list[str]:
        """The names of the figures that there is something to draw for."""
        return [drawing.name for drawing in self._contents().drawings]

    def draw(
        self, figure: str = "verdicts", *, title: str | None = None, width: float | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Figure:  # fmt: skip
        """Draw a figure of the report, to be shown, restyled or saved: `savefig`, `axes`, `findobj`.

        What is drawn has a name (`get_gid`) such as "change-gelu" or "label-gelu", by which it is found again.

        Args:
            figure: One of `figures`.
            title: Its title; None makes one.
            width: In inches: 7 for a page, 3.3 for a column of two.
            labels: What rungs are called: id -> label.

        Raises:
            UserError: If there is no such figure.
        """
        contents = self._contents(_look(title, width, labels))
        found = {drawing.name: drawing for drawing in contents.drawings}
        if figure not in found:
            raise unknown("figure", figure, found, place=self.name)
        return found[figure].draw()

    def latex(
        self, table: str = "verdicts", *, columns: Sequence[str] | None = COMPACT,
        labels: Mapping[str, str] | None = None,
    ) -> str:  # fmt: skip
        """Return a LaTeX tabular for a document to read in; it needs booktabs.

        Args:
            table: "verdicts" of the main metric, or "ladder".
            columns: Its columns, as `--columns` takes them; those of the default fit a column of two. None takes all.
            labels: What rungs are called: id -> label.

        Raises:
            UserError: If there is no such table.
        """
        if table not in ("verdicts", "ladder"):
            raise unknown("table", table, ("verdicts", "ladder"), place=self.name)
        page = self._contents(_look(None, None, labels)).page
        if table == "ladder":
            return ladder_latex(page.ladder, page.note, columns, page.metric)
        names = dict(zip(page.ladder["rung"], page.ladder["label"], strict=True))
        return verdict_latex(page.verdicts[0], names, page.note, columns)

    def write_report(self, out: str | Path) -> list[Path]:
        """Write the whole report into a folder: tables, figures, the page."""
        return write_report(self.results, Path(out))

    def _contents(self, look: Presentation = DEFAULT) -> Contents:
        return contents_of(self.results, look)

    # -- beside others

    def compare(self, *others: "StudyFrames", margin: float | None = None, test: Test = SHARED) -> StudyComparison:
        """Hold this study against others: each step's effects and their differences (`compare --with`).

        Raises:
            UserError: If two have one name, or nothing in common.
        """
        here = self.side()
        return StudyComparison(here, [other.side(here) for other in others], margin=margin, test=test)

    def side(self, here: Side | None = None) -> Side:
        """Return what it brings to a comparison with the study `here`."""
        if isinstance(self.results, StudyResults):
            return side_of_study(self.results, self.name)
        if isinstance(self.results, RecordResults):
            return side_of_record(self.results, self.name)
        return side_of_frame(self.results, self.name, here.pairs if here else ())


def _look(title: str | None, width: float | None, labels: Mapping[str, str] | None) -> Presentation:
    return replace(DEFAULT, title=title, width=DEFAULT.width if width is None else width, labels=labels or {})
