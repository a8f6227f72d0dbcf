import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from analysis.ladder_table import ladder_table, published_table, with_answers
from analysis.report.record import read_record
from analysis.report.tables import (
    COMPACT,
    MINUS,
    ladder_latex,
    markdown,
    tex,
    verdict_cells,
    verdict_latex,
    verdict_markdown,
)
from analysis.verdicts import pairs_of, published_verdicts, verdict_table
from tests.analysis.test_step_comparison import runs_frame
from tests.processes import ROOT
from tests.samples import PAPER

RUNGS = PAPER.climb("resnet50")
# One seed, none, and a spread so wide that no number of seeds would do.
FEW = runs_frame({"baseline": [70.0, 71.0], "stage_ratio": [69.0, 72.01], "patchify_stem": [80.0], "gelu": ["failed"]})
DASH = "\N{EN DASH}"
AWKWARD = 'A & B: 50% → $9, #1_{x} ~^\\ ± 2\N{MULTIPLICATION SIGN}2 <3> "q" [4]*|µ'
DOCUMENT = """\\documentclass%s{article}
\\usepackage{booktabs}
\\begin{document}
\\noindent\\input{%s}
\\end{document}
"""


def judged(runs: pd.DataFrame = FEW) -> pd.DataFrame:
    return verdict_table(runs.assign(nll=0.5), pairs_of(RUNGS), "top1")


def row(table: str, name: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def compile_latex(text: str, folder: Path, options: str = "") -> str:
    """Set a table as pdflatex does; return its log."""
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex here (Debian's package texlive-latex-recommended)")
    (folder / "table.tex").write_text(text)
    (folder / "main.tex").write_text(DOCUMENT % (options, "table"))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "main.pdf").stat().st_size
    return done.stdout


# -- Markdown


def test_a_verdict_reads_as_step_change_interval_p_word_noise_and_seeds() -> None:
    table = verdict_markdown(published_verdicts(PAPER, "resnet50"))
    assert table.splitlines()[0] == ("| step | change (95% interval) | answer | p | seed noise | seeds needed |")
    cells = row(table, "depthwise_conv")
    assert re.fullmatch(rf"{MINUS}1\.23 \({MINUS}\d\.\d\d to {MINUS}\d\.\d\d\)", cells[1])
    assert cells[2] == "▼ hurts"
    assert re.fullmatch(r"<?0\.\d{3}", cells[3])
    assert re.fullmatch(r"± 0\.\d\d", cells[4])
    assert cells[5].isdecimal()


def test_what_is_not_known_of_a_verdict_is_empty() -> None:
    table = verdict_markdown(judged())
    cells = row(verdict_markdown(published_verdicts(PAPER, "resnet200")), "gelu")
    assert cells[2] == f"{DASH} not tested: one seed"
    assert row(table, "gelu") == ["gelu", "", f"{DASH} not tested: no result", "", "", ""]
    assert "nan" not in table


def test_a_change_that_would_take_too_many_seeds_says_so_and_one_of_nothing_has_no_sign() -> None:
    cells = row(verdict_markdown(judged()), "stage_ratio")
    assert cells[-1] == ">1,000" or int(cells[-1]) > 100
    same = judged(runs_frame({"baseline": [70.0, 71.0], "stage_ratio": [69.999, 70.999]}))
    assert row(verdict_markdown(same), "stage_ratio")[1].startswith("0.00 (")


def test_the_noise_of_the_test_set_stands_in_its_own_column() -> None:
    verdicts = judged().assign(test_se=0.25)
    assert row(verdict_markdown(verdicts), "gelu")[5] == "± 0.25"


def test_verdicts_on_several_metrics_say_which() -> None:
    both = pd.concat([judged(), verdict_table(FEW.assign(nll=0.5), pairs_of(RUNGS), "nll")])
    assert {cells["metric"] for cells in verdict_cells(both)} == {"top-1 (%)", "NLL (nats)"}
    assert all(cells["metric"] == "" for cells in verdict_cells(judged()))


def test_labels_take_the_place_of_ids_and_a_bar_in_one_ends_no_cell() -> None:
    table = verdict_markdown(judged(), {"gelu": "ReLU | GELU"})
    assert "| ReLU \\| GELU |" in table


# -- LaTeX


def test_a_latex_table_is_a_tabular_that_says_what_it_needs() -> None:
    lines = verdict_latex(published_verdicts(PAPER, "resnet50"), note="PROXY, 50%").splitlines()
    assert lines[0].startswith("%")
    assert "\\usepackage{booktabs}" in lines[0]
    assert lines[1] == "\\begin{tabular}{lrlrrr}"
    assert lines[-1] == "\\end{tabular}"
    assert "PROXY, 50\\%" in lines[-2]
    assert any("$-$1.23 ($-$" in line for line in lines)
    assert all(line.count(" & ") == 5 for line in lines if " & " in line)


def test_ids_labels_and_any_sign_in_them_are_printed_by_latex_as_they_are(tmp_path: Path) -> None:
    verdicts = published_verdicts(PAPER, "resnet50")
    table = published_table(PAPER, "resnet50")
    table.loc[3, "label"] = AWKWARD
    table.loc[4, "label"] = "[1em] first in its row"
    for number, text in enumerate(
        (verdict_latex(verdicts), verdict_latex(verdicts, {"gelu": AWKWARD}, AWKWARD), ladder_latex(table, AWKWARD))
    ):
        (tmp_path / f"{number}").mkdir()
        log = compile_latex(text, tmp_path / f"{number}")
        assert "Missing character" not in log


def test_a_ladder_that_is_only_begun_can_be_set_too(tmp_path: Path) -> None:
    text = ladder_latex(ladder_table(FEW, RUNGS), "PROXY")
    assert "missing" in text
    compile_latex(text, tmp_path)


def test_a_ladder_in_latex_has_the_numbers_and_footnotes_of_the_markdown() -> None:
    table = published_table(PAPER, "resnet50")
    text = ladder_latex(table)
    assert "BN $\\rightarrow$ LN & 3 & 81.47 $\\pm$ 0.09 & +0.06 &  & 4.46 G {[}1] \\\\" in text
    assert "prints 4.46 for a network that counts 4.146" in text
    assert "| layer_norm | 3 | 81.47 ± 0.09 | +0.06 |  | 4.46 G [1] |" in markdown(table)


def test_quotation_marks_open_and_close_and_lines_do_not_break() -> None:
    assert tex('a "b"\n\tc\N{NO-BREAK SPACE}d') == "a \\textquotedblleft{}b\\textquotedblright{} c~d"


def test_the_compact_tables_fit_one_column_of_two_with_the_labels_of_the_default_record(tmp_path: Path) -> None:
    record = read_record(ROOT / "records" / "resnet50-fashion")
    table = record.table
    steps = table[table["parent"].notna()]
    runs = pd.read_csv(ROOT / "records" / "resnet50-fashion" / "results.csv")
    answers = verdict_table(runs, list(zip(steps["rung"], steps["parent"], strict=True)))
    labels, note = dict(zip(table["rung"], table["label"], strict=True)), record.chart.note
    ladder = ladder_latex(with_answers(table, answers), note, COMPACT)
    assert "kernel size $\\rightarrow$ 11{*} &" in ladder
    for text in (ladder, verdict_latex(answers, labels, note, COMPACT)):
        assert "undecided \\\\" in text
        assert "Overfull" not in compile_latex(text, tmp_path, "[twocolumn]")
