"""Results on a terminal of 80 columns: a ladder's answers, one step, costs, robustness, own metrics, Table 1."""

from textwrap import fill
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.evaluations.own_metrics import own_metric_cells
from analysis.evaluations.robustness import Robustness
from analysis.fractions import AGAINST
from analysis.frame_results import FrameResults
from analysis.metrics import COSTS, COUNTED, SPEEDS, TOP1, metric_of
from analysis.report.table1 import TRAINING, models_cells
from analysis.report.tables import p_value, seeds_in_words
from analysis.sentences import MARKS, headline, marked, metric_headline, more_runs
from analysis.stats.answers import Answer
from analysis.step_comparison import Comparison
from analysis.study_results import StudyResults
from roadmap.common.formats import MINUS, big, change, interval, number
from roadmap.robustness.settings import PGD, name_of

NARROW_COSTS = {"multiply-adds": "multiply-\nadds", "parameters": "para-\nmeters", "activations": "activa-\ntions"}
HEADING_WIDTH = 12  # of own metrics, whose names may be long
# The columns of Table 1, where two lines of heading make them narrow enough.
NARROW_MODELS = {
    "model": "model",
    "image": "image",
    "parameters (M)": "params\n(M)",
    "paper's (M)": "paper's\n(M)",
    "multiply-adds (G)": "MACs\n(G)",
    "of attention": "atten-\ntion's",
    "paper's (G)": "paper's\n(G)",
    "images/s here": "im/s\nhere",
    "V100, paper's": "im/s\nV100",
    "top-1": "top-1",
    "": "",
}


# -- a ladder


def print_results(results: StudyResults, console: Console) -> None:
    """Print what a study's runs answer: the sentence, the ladder, and how it agrees with the paper."""
    say(results.headline, console)
    console.print()
    print_ladder(results.table, console)
    if results.fraction:
        console.print()
        print_verdicts(results.steps, console)
    for metric, rows in results.verdicts.groupby("metric", sort=False):
        if metric == TOP1 or rows["delta"].isna().all():
            continue
        if text := metric_headline(rows):
            say(text + ".", console)
    for sentence in results.sentences:
        say(sentence, console)


def print_frame_results(results: FrameResults, console: Console) -> None:
    """Print what anybody's results answer: the sentence, the main metric's table, counts for the others."""
    say(results.headline, console)
    console.print()
    print_verdicts(results.verdicts[0], console)
    for judged in results.verdicts[1:]:
        say(f"{metric_headline(judged)}.", console)


def print_ladder(table: pd.DataFrame, console: Console) -> None:
    """Print a ladder's rungs: top-1, the change with its interval, the answer, and the paper's change and answer.

    Args:
        table: A row a rung with the columns of `ladder_table.LADDER_COLUMNS`.
        console: Where.
    """
    paper = bool(table["paper_top1_delta"].notna().any())
    shown = _narrow_table("rung", "top-1", "change (95% interval)", "answer", *(["paper"] if paper else []))
    rows: list[Any] = list(table.itertuples())
    for row in rows:
        ends = interval(row.ci_low, row.ci_high, ".2f")
        top1 = row.state if pd.isna(row.top1) else f"{row.top1:.2f}"
        theirs = change(row.paper_top1_delta, ".2f")
        mark = MARKS[Answer(row.paper_answer)] if row.paper_answer and theirs else ""
        cells = [row.rung, top1, change(row.top1_delta, ".2f") + (f" ({ends})" if ends else ""), marked(row.answer)]
        shown.add_row(*map(escape, [*cells, *([f"{theirs} {mark}".strip()] if paper else [])]))
    console.print(shown)
    if note := _against(table):
        say(note, console)


def _against(table: pd.DataFrame) -> str:
    """Say which rungs are not judged against the row above."""
    others: dict[str, list[str]] = {}
    above = None
    for rung, parent in zip(table["rung"], table["parent"], strict=True):
        if not pd.isna(parent) and parent != above:
            others.setdefault(str(parent), []).append(str(rung))
        above = rung
    told = [f"{', '.join(rungs)} against {parent}" for parent, rungs in others.items()]
    return f"Not against the row above: {'; '.join(told)}." if told else ""


def print_verdicts(judged: pd.DataFrame, console: Console) -> None:
    """Print the changes of one metric with their answers, a row a step, and below them by which rule."""
    if judged.empty:
        return
    metric = metric_of(judged["metric"].iloc[0])
    is_plan = judged["against"].iloc[0] in AGAINST.values()
    table = _narrow_table("step", "change", "95% interval", "p", "answer", "seeds needed", wrapped=is_plan)
    rows: list[Any] = list(judged.itertuples())
    for row in rows:
        undecided = row.answer == Answer.UNDECIDED
        table.add_row(
            escape(row.step),
            change(row.delta, metric.digits),
            interval(row.ci_low, row.ci_high, metric.digits),
            p_value(row.p_adjusted),
            marked(row.answer),
            seeds_in_words(row.seeds_needed) if undecided else "",
        )
    console.print(table)
    what = f"Effects on {metric.label}" if is_plan else f"Changes of {metric.label} from the rung before"
    say(
        f"{what}. p allows for all of them. No effect: within {judged['margin'].iloc[0]:g}. Seeds needed: a rung, to "
        "answer a change of this size with a probability of 80%.",
        console,
    )


# -- one step


def print_step(comparison: Comparison, console: Console) -> None:
    """Print all about one step."""
    head = f"[bold]{escape(comparison.step)}[/bold] against {escape(comparison.against)}, from {comparison.base}"
    console.print(head, highlight=False)
    fields = Table(box=None, pad_edge=False)
    for name in ("what differs", comparison.against, comparison.step):
        fields.add_column(escape(name))
    for name, (old, new) in comparison.fields.items():
        fields.add_row(*map(escape, (name, _words(old), _words(new))))
    console.print(fields)
    console.print()
    table = _narrow_table("metric", "before → after", "change", "95% interval", "answer")
    rows: list[Any] = list(comparison.verdicts.itertuples())
    for row in (row for row in rows if not pd.isna(row.value) or not pd.isna(row.value_against)):
        metric = metric_of(row.metric)
        form = big if row.metric in COUNTED else lambda value, metric=metric: number(value, metric.digits)
        values = ["" if pd.isna(value) else form(value) for value in (row.value_against, row.value)]
        delta = "" if pd.isna(row.delta) else (MINUS if row.delta < 0 else "+") + (form(abs(row.delta)) or "0")
        ends = interval(row.ci_low, row.ci_high, metric.digits)
        table.add_row(metric.label, " → ".join(values), delta, ends, marked(row.answer) or row.verdict)
    console.print(table)
    console.print()
    for line in _notes(comparison):
        say(line, console)


def _notes(comparison: Comparison) -> list[str]:
    """Say what the table has no column for."""
    top1: Any = comparison.verdicts.set_index("metric").to_dict("index")["top1"]
    lines = []
    if changes := comparison.changes("top1"):
        by_seed = ", ".join(f"seed {seed} {change(delta, '.2f')}" for seed, delta in changes.items())
        lines.append(f"Top-1 by seed: {by_seed}.")
    if pd.notna(top1["p"]):
        more = {"Welch's": "p_welch", "Welch's after Holm's correction": "p_holm", "paired": "p_paired"}
        others = ", ".join(f"{name} {top1[p]:.4f}" for name, p in more.items() if pd.notna(top1[p]))
        lines.append(f"p of no change of top-1: {top1['p']:.4f}, allowing for all steps {top1['p_adjusted']:.4f}.")
        lines.append(f"By other tests: {others}.")
        needed = seeds_in_words(top1["seeds_needed"])
        seeds = f"; {needed} seeds a rung would answer it" if top1["answer"] == Answer.UNDECIDED and needed else ""
        lines.append(f"Answer on top-1: {top1['verdict']}{seeds}. Margin: {top1['margin']:g} points.")
    if pd.notna(top1["test_se"]):
        seeds = number(top1["seed_se"], ".2f")
        noise = f"{seeds} points from the seeds and " if seeds else ""
        lines.append(
            f"Standard error of its change: {noise}{top1['test_se']:.2f} from the choice of test images. By McNemar's "
            f"test, {top1['mcnemar_differ']:.0f} of {top1['mcnemar_pairs']:.0f} seeds' pairs of networks differ."
        )
    if comparison.caveat:
        lines.append(comparison.caveat)
    elif not top1["n"] and not top1["n_against"]:
        lines.append("Neither has a finished run yet: the command run trains them.")
    elif comparison.family > 1:
        lines.append(f"The answer allows for all {comparison.family} steps of the study.")
    old, new = comparison.paper
    if old is not None and new is not None:
        lines.append(f"The paper, on ImageNet: {old:.2f} → {new:.2f}, change {change(new - old, '.2f')}.")
    return lines


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# -- costs, robustness, own metrics, Table 1


def print_costs(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the costs of rungs, each change beside its value, or below it where the console is narrow."""
    table = _costs_table(rows, " ")
    if console.measure(table, options=console.options.update(max_width=1000)).maximum > console.width:
        table = _costs_table(rows, "\n")
    console.print(table)


def _costs_table(rows: list[dict[str, Any]], between: str) -> Table:
    narrow = between == "\n"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    table.add_column("rung", no_wrap=True)
    for name in (metric.label for metric in (COSTS | SPEEDS).values()):
        heading = NARROW_COSTS.get(name, name) if narrow else name
        table.add_column(heading.replace(" ", "\n"), justify="right")
    for row in rows:
        cells = (_cost_cell(cost, row[cost], row[f"{cost}_factor"], between) for cost in COSTS | SPEEDS)
        table.add_row(escape(row["rung"]), *cells)
    return table


def _cost_cell(cost: str, value: float | None, factor: float | None, between: str) -> str:
    if value is None:
        return ""
    text = big(value) if cost in COUNTED else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
    return text if factor is None else f"{text}{between}x{factor:.2f}"


def print_robustness(found: Robustness, console: Console) -> None:
    """Print what was found of networks' robustness, as much of it as a terminal has room for."""
    if found.frame.empty:
        console.print("No trained run has been examined yet.", *found.notes, sep="\n", highlight=False, markup=False)
        return
    shown = {"clean": "clean_top1"} | {f"PGD\n{radius:g}/255": name_of(PGD, radius) for radius in found.radii}
    shown |= {"corrup-\nted": "corrupted_top1", "mCE": "mce"}
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("rung", *shown, "masked"):
        table.add_column(name, justify="left" if name == "rung" else "right", no_wrap=True)
    for rung, rows in found.frame.groupby("rung", sort=False):
        means = [number(rows[name].mean(), ".1f") for name in shown.values()]
        table.add_row(escape(str(rung)), *means, "YES" if rows["masks_gradients"].any() else "no")
    console.print(table)
    for note in found.notes:
        say(note, console)


def print_own_metrics(results: StudyResults, console: Console) -> None:
    """Print what a user's functions measured of a study's networks: the means of every rung, then the answers."""
    found = results.own_metrics
    if found.frame.empty:
        console.print(
            "No trained network has been measured yet.", *found.notes, sep="\n", highlight=False, markup=False
        )
        return
    cells = own_metric_cells(found)
    table = _narrow_table(*(fill(heading, HEADING_WIDTH) for heading in cells[0]))
    for row in cells:
        table.add_row(*map(escape, row.values()))
    console.print(table)
    for metric, judged in results.verdicts.groupby("metric", sort=False):
        if metric in found.metrics and judged["answer"].any():
            console.print()
            say(f"{metric_of(str(metric)).name}: {headline(judged, more=more_runs(judged))}", console)
            print_verdicts(judged, console)
    for note in found.notes:
        say(note, console)


def print_models(table: pd.DataFrame, console: Console) -> None:
    """Print Table 1 as counted (`report.table1.models_table`), with its notes."""
    cells, notes = models_cells(table)
    for training, title in TRAINING.items():
        shown = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name, heading in NARROW_MODELS.items():
            if name in cells[0]:
                shown.add_column(heading, justify="left" if name in ("model", "") else "right", no_wrap=True)
        rows = [row for row, other in zip(cells, table["training"], strict=True) if other == training]
        for row in rows:
            shown.add_row(*(escape(row[name]) for name in NARROW_MODELS if name in row))
        if rows:
            console.print(shown)
            console.print()
    for place, note in enumerate(notes, 1):
        say(f"[{place}] {note}.", console)


def say(text: str, console: Console) -> None:
    """Print a sentence as it is."""
    console.print(text, highlight=False, markup=False)


def _narrow_table(*columns: str, wrapped: bool = False) -> Table:
    """Return an empty table that fits a terminal of 80 columns; its first column and the answers are words.

    Args:
        columns: The headings.
        wrapped: Whether words of the first column may stand on several lines.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(columns):
        is_word, may_wrap = place == 0 or name == "answer", wrapped and place == 0
        table.add_column(name, justify="left" if is_word else "right", no_wrap=not may_wrap)
    return table
