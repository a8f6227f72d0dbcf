import io

import pandas as pd
from rich.console import Console

from analysis.frame_results import FrameResults
from analysis.ladder_table import published_table, with_answers
from analysis.metrics import COSTS, SPEEDS
from analysis.results_file import read_results
from analysis.sentences import MARKS
from analysis.terminal import print_costs, print_frame_results, print_ladder, print_verdicts
from analysis.verdicts import published_verdicts
from tests.processes import ROOT
from tests.samples import PAPER

RECORD = ROOT / "records" / "resnet50-fashion" / "results.csv"


def lines_of(draw: object, *what: object, width: int = 80) -> list[str]:
    """Return what a function prints on a terminal of so many columns."""
    console = Console(file=io.StringIO(), width=width)
    draw(*what, console)  # type: ignore[operator]
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def paper() -> pd.DataFrame:
    """Return the published ladder with its answers, as if it were also what we trained."""
    table, judged = published_table(PAPER, "resnet50"), published_verdicts(PAPER, "resnet50")
    table = with_answers(table, judged, judged)
    return table.assign(paper_top1=table["top1"], paper_top1_delta=table["top1_delta"])


def test_a_ladder_fits_a_terminal_of_80_columns_with_all_that_it_says() -> None:
    lines = lines_of(print_ladder, paper())
    (line,) = (line for line in lines if line.startswith("separate_downsampling"))
    assert "81.97" in line
    assert "+0.50 (+0." in line
    assert "▲ helps" in line
    assert line.rstrip().endswith("+0.50 ▲")
    assert len([line for line in lines if line[:4].strip() and line.split()[0] in set(paper()["rung"])]) == 17
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in "".join(lines)


def test_rungs_that_are_not_held_against_the_row_above_are_named() -> None:
    text = " ".join(" ".join(lines_of(print_ladder, paper())).split())
    assert "kernel_7, kernel_9, kernel_11 against move_up_depthwise; gelu against kernel_7." in text


def test_a_ladder_of_which_nothing_is_published_has_no_column_of_the_paper() -> None:
    table = with_answers(published_table(PAPER, "resnet50"), published_verdicts(PAPER, "resnet50"))
    assert "paper" not in lines_of(print_ladder, table)[0]


def test_anybodys_results_begin_with_the_sentence_and_count_the_other_metrics() -> None:
    results = FrameResults(runs=read_results(RECORD))
    lines = lines_of(print_frame_results, results)
    assert " ".join(" ".join(lines).split()).startswith(results.headline)
    assert any(line.startswith("NLL (nats): ") and line.endswith("of 16 answered.") for line in lines)


def test_only_what_is_undecided_needs_more_seeds() -> None:
    judged = published_verdicts(PAPER, "resnet50")
    lines = lines_of(print_verdicts, judged)
    for row in judged.itertuples():
        (line,) = (line for line in lines if line.startswith(f"{row.step} "))
        assert (MARKS[row.answer] + " " + row.answer) in line  # type: ignore[index]
        assert line.rstrip().endswith(str(row.answer)) == (row.answer != "undecided")
    assert lines_of(print_verdicts, judged.head(0)) == []


def test_what_looks_like_a_terminals_markup_is_printed_as_it_is() -> None:
    costs = list(COSTS | SPEEDS)
    row = {"rung": "[red]x[/red]"} | dict.fromkeys(costs, 5.0) | {f"{cost}_factor": None for cost in costs}
    assert any("[red]x[/red]" in line for line in lines_of(print_costs, [row], width=120))
