"""A comparison of studies on a terminal of 80 columns."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.comparison.differences import StudyComparison
from analysis.metrics import metric_of
from analysis.sentences import MARKS, WORTH_MARKS
from analysis.stats.answers import Answer
from analysis.stats.differences import Worth
from analysis.terminal import say
from roadmap.common.formats import change, interval

# How the effect here is to that of a column.
RELATION = {Worth.MORE_HERE: ">", Worth.MORE_THERE: "<", Worth.SAME: "=", Worth.UNDECIDED: " ", Worth.NOT_TESTED: "–"}  # noqa: RUF001
RELATIONS = (
    "Each effect with the mark of its own answer. Behind it: worth more here (>), more there (<), the same (=), or not "
    "tested (–); nothing where it is undecided."  # noqa: RUF001
)


def print_comparison(comparison: StudyComparison, console: Console) -> None:
    """Print what each step is worth here and in other studies: the sentence, a table, all else in words."""
    say(comparison.headline, console)
    console.print()
    if len(comparison.others) == 1:
        console.print(_table(comparison, "step"))
    else:
        console.print(_side_by_side(comparison))
        say(RELATIONS, console)
    for sentence in comparison.sentences:
        say(sentence, console)


def print_step_by_study(comparison: StudyComparison, step: str, console: Console) -> None:
    """Print one step's effects in every metric."""
    console.print(f"[bold]{escape(step)}[/bold], here in {escape(comparison.here.name)}", highlight=False)
    for other in comparison.others:
        say(f"\nThere: {other.name}", console)
        console.print(_table(comparison, "metric", other.name))
    if not comparison.means_nothing:
        say("The answers allow for all steps that both studies have.", console)


def _table(comparison: StudyComparison, first: str, study: str | None = None) -> Table:
    """Return a row a step of the main metric, or a row a metric of the one step, of one other study."""
    shown = _empty(first, "here", "there", "difference (95% interval)", "worth")
    table = comparison.main if study is None else comparison.table
    rows: list[Any] = list(table[table["study"] == (study or comparison.others[0].name)].itertuples())
    for row in rows:
        about = metric_of(row.metric)
        form, ends = about.digits, interval(row.ci_low, row.ci_high, about.digits)
        effects = (_effect(row.effect, row.answer_here, form), _effect(row.effect_there, row.answer_there, form))
        difference = change(row.difference, form) + (f" ({ends})" if ends else "")
        cells = (
            row.step if first == "step" else about.label,
            *effects,
            difference,
            f"{WORTH_MARKS[Worth(row.worth)]} {row.worth}" if row.verdict else "",
        )
        shown.add_row(*map(escape, cells))
    return shown


def _side_by_side(comparison: StudyComparison) -> Table:
    """Return the effects by study, each with the mark of its own answer and how it relates to the effect here."""
    studies = [other.name for other in comparison.others]
    shown = _empty("step", "here", *studies)
    every: list[Any] = list(comparison.main.itertuples())
    rows = {(row.step, row.study): row for row in every}
    form = metric_of(comparison.main["metric"].iloc[0]).digits
    for step in comparison.steps:
        own = [rows.get((step, study)) for study in studies]
        first = next(row for row in own if row is not None)
        cells = [step, _effect(first.effect, first.answer_here, form)]
        for row in own:
            there = "" if row is None else _effect(row.effect_there, row.answer_there, form)
            cells.append(there if row is None else f"{there} {RELATION[Worth(row.worth)]}")
        shown.add_row(*map(escape, cells))
    return shown


def _empty(*columns: str) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        left = name in ("step", "metric", "worth")
        shown.add_column(escape(name), justify="left" if left else "right", no_wrap=name in columns[:2])
    return shown


def _effect(value: float, answer: str, form: str) -> str:
    text = change(value, form)
    return f"{text} {MARKS[Answer(answer)]}" if text and answer else text
