"""Studies beside each other: what each brings, the table, the words, the figure, the files."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.comparison.agreement import correlations
from analysis.comparison.differences import DIFFERENCE_COLUMNS, StudyComparison
from analysis.comparison.sides import Side, side_of_frame, side_of_paper, side_of_record
from analysis.comparison.terminal import print_comparison, print_step_by_study
from analysis.figures.differences import draw_differences
from analysis.figures.style import Words
from analysis.frame_results import FrameResults
from analysis.report.comparison import STEM, comparison_markdown, difference_cells, write_comparison
from analysis.report.record import read_record
from analysis.report.record_results import RecordResults
from analysis.stats.differences import Worth
from roadmap.common.errors import UserError
from tests.artists import assert_texts_are_apart, words
from tests.processes import ROOT
from tests.samples import PAPER

FASHION, FULL, VGG, GRN = (
    ROOT / "records" / name
    for name in ("resnet50-fashion", "resnet50-fashion_full", "vgg16-fashion", "resnet50-fashion-grn")
)


def record(folder: Path) -> Side:
    return side_of_record(RecordResults(read_record(folder)), folder.name)


@pytest.fixture(scope="module")
def sides() -> dict[str, Side]:
    return {folder.name: record(folder) for folder in (FASHION, FULL, VGG, GRN)} | {
        "the paper": side_of_paper(PAPER, "resnet50")
    }


@pytest.fixture(scope="module")
def comparison(sides: dict[str, Side]) -> StudyComparison:
    return StudyComparison(sides[FASHION.name], [sides[FULL.name]])


def frame(tops: dict[str, float], name: str = "mine", seeds: int = 3) -> Side:
    """Return anybody's results around these means."""
    rows = [(rung, seed, top1 + seed / 10) for rung, top1 in tops.items() for seed in range(seeds)]
    return side_of_frame(FrameResults(runs=pd.DataFrame(rows, columns=["rung", "seed", "top1"])), name)


def test_every_step_of_both_has_both_effects_as_each_study_reports_them(comparison: StudyComparison) -> None:
    rows = comparison.main.set_index("step")
    assert list(comparison.table) == list(DIFFERENCE_COLUMNS)
    assert list(rows.index) == [step for step, _ in comparison.here.pairs]
    for side, effect, answer in (
        (comparison.here, "effect", "answer_here"),
        (comparison.others[0], "effect_there", "answer_there"),
    ):
        own = side.verdicts[side.verdicts["metric"] == "top1"].set_index("step")
        assert rows[effect].to_numpy() == pytest.approx(own.loc[rows.index, "delta"].to_numpy())
        assert list(rows[answer]) == list(own.loc[rows.index, "answer"])
    assert rows["difference"].to_numpy() == pytest.approx((rows["effect"] - rows["effect_there"]).to_numpy())
    assert {"top1", "nll", "train_loss"} <= set(comparison.table["metric"])


def test_the_sentence_names_the_steps_that_differ_and_counts_the_others(comparison: StudyComparison) -> None:
    more = comparison.main.loc[comparison.main["worth"] == Worth.MORE_HERE, "step"]
    assert f"is worth more here ({', '.join(more)})" in comparison.headline
    assert comparison.headline.startswith(f"Against {FULL.name}, {len(more)} of the 16 steps that both have")


def test_ladders_that_meet_have_nothing_to_test_in_the_runs_that_they_share(sides: dict[str, Side]) -> None:
    found = StudyComparison(sides[GRN.name], [sides[VGG.name]])
    rows = found.main.set_index("step")
    assert set(rows.index[rows["verdict"] == "not tested: the same runs"]) >= {"increase_width", "gelu", "layer_norm"}
    assert rows.loc["patchify_stem", "p"] > 0
    assert rows.loc["patchify_stem", "against_there"] == "strided_convs"
    assert "are not tested: the same runs (depthwise_conv" in found.headline
    assert any("Where both studies have the same runs" in sentence for sentence in found.sentences)


def test_a_run_trained_again_with_other_numbers_is_another_run(sides: dict[str, Side]) -> None:
    rows = StudyComparison(sides[FASHION.name], [sides[VGG.name]]).main
    assert rows["p"].notna().all()


def test_the_papers_table_is_a_study_and_its_agreement_that_of_a_report(sides: dict[str, Side]) -> None:
    found = StudyComparison(sides[FASHION.name], [sides["the paper"]])
    results = RecordResults(read_record(FASHION))
    assert results.sentences[0] in found.sentences
    by_report = correlations(results.runs, PAPER.climb("resnet50")).iloc[0]
    ours = found.correlation(found.others[0]).iloc[0]
    assert ours[["spearman", "kendall", "steps"]].tolist() == by_report[["spearman", "kendall", "steps"]].tolist()
    assert set(found.table["metric"]) == {"top1"}
    assert found.main["p"].notna().all()


def test_several_studies_stand_side_by_side(sides: dict[str, Side]) -> None:
    found = StudyComparison(sides[FASHION.name], [sides[FULL.name], sides[VGG.name], sides["the paper"]])
    assert list(dict.fromkeys(found.main["study"])) == [FULL.name, VGG.name, "the paper"]
    cells = difference_cells(found.main)
    assert [row["step"] for row in cells][:2] == ["baseline", "stage_ratio"]
    assert f"in {VGG.name}" in cells[0]
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "+0.65 ▲ >" in out.getvalue()  # fewer_activations in the paper
    together = found.main[found.main["study"] == FULL.name].set_index("step")["p_adjusted"]
    alone = StudyComparison(sides[FASHION.name], [sides[FULL.name]]).main.set_index("step")["p_adjusted"]
    assert (together >= alone - 0.01).all()


def test_one_step_is_shown_in_every_metric_and_judged_with_all_others(comparison: StudyComparison) -> None:
    one = comparison.about("fewer_activations")
    assert set(one.table["step"]) == {"fewer_activations"}
    assert list(one.table["metric"]) == list(dict.fromkeys(comparison.table["metric"]))
    p = comparison.main.set_index("step").loc["fewer_activations", "p_adjusted"]
    assert one.main["p_adjusted"].iloc[0] == p
    out = io.StringIO()
    print_step_by_study(one, "fewer_activations", Console(file=out, width=80))
    assert "NLL (nats)" in out.getvalue()
    with pytest.raises(UserError, match=r"--step: unknown step 'gely'\. Did you mean 'gelu'"):
        comparison.about("gely")


def test_a_file_of_anybodys_has_the_steps_that_are_wanted() -> None:
    wide = {"plain": 70.0, "wide": 75.0, "deep": 76.0, "other": 50.0}
    rows = [(rung, seed, top1 + seed / 10) for rung, top1 in wide.items() for seed in range(3)]
    results = FrameResults(runs=pd.DataFrame(rows, columns=["rung", "seed", "top1"]))
    there = side_of_frame(results, "there", [("wide", "plain"), ("deep", "plain"), ("gone", "plain")])
    assert there.pairs == [("wide", "plain"), ("deep", "plain")]
    assert side_of_frame(results, "there").pairs[-1] == ("other", "deep")


def test_a_recipe_that_means_nothing_has_no_answers_in_a_comparison() -> None:
    here, there = frame({"a": 70.0, "b": 80.0}, "here"), frame({"a": 70.0, "b": 70.0}, "there")
    clear = StudyComparison(here, [there])
    assert set(clear.main["worth"]) == {Worth.MORE_HERE}
    found = StudyComparison(here, [replace(there, means_nothing=True)])
    assert found.main["difference"].notna().all()
    assert found.main[["ci_low", "p", "p_adjusted"]].isna().all(axis=None)
    assert set(found.main["verdict"]) == {""}
    assert found.headline.startswith("These numbers mean nothing")
    assert "more here" not in comparison_markdown(found, "title")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (frame({"x": 1.0, "y": 2.0}, "there"), "no step in common. Steps here: b; there: y"),
        (frame({"a": 1.0, "b": 2.0}, "here"), "'here' is there twice"),
        (replace(frame({"a": 1.0, "b": 2.0}, "there"), frames={}), "no metric in common. Here: top1; there: "),
    ],
)  # fmt: skip
def test_studies_with_nothing_in_common_are_refused(there: Side, said: str) -> None:
    with pytest.raises(UserError, match=said):
        StudyComparison(frame({"a": 1.0, "b": 2.0}, "here"), [there])


@pytest.mark.parametrize("width", [3.3, 7.0])
@pytest.mark.parametrize("number", [1, 3])
def test_the_figure_has_a_line_for_each_effect_and_difference(
    sides: dict[str, Side], width: float, number: int
) -> None:
    others = [sides[FULL.name], sides["the paper"], sides[VGG.name]][:number]
    found = StudyComparison(sides[FASHION.name], others)
    figure = draw_differences(found.main, found.labels, Words(title="title", axis="axis", width=width), found.here.name)
    drawn = {line.get_gid(): line for axes in figure.axes for line in axes.lines}
    _, right = figure.axes
    limits = right.get_xlim()
    for row in found.main.itertuples():
        name = f"difference-{row.step}-{row.study}"
        if limits[0] <= row.difference <= limits[1]:
            assert drawn[name].get_xdata()[0] == pytest.approx(row.difference)
            is_open = drawn[name].get_markerfacecolor() == "#FFFFFF"
            assert is_open == (row.worth in (Worth.UNDECIDED, Worth.NOT_TESTED))
        else:
            assert f"beyond-{name}" in drawn
        assert list(drawn[f"interval-{name}"].get_xdata()) == pytest.approx([row.ci_low, row.ci_high])
    assert bool([text for text in words(figure, "worth")]) == (number == 1 and width > 5)
    assert_texts_are_apart(figure)


def test_a_figure_has_room_for_four_other_studies(comparison: StudyComparison, tmp_path: Path) -> None:
    rows = comparison.main
    five = pd.concat([rows.assign(study=str(number)) for number in range(5)])
    with pytest.raises(ValueError, match="room for 4"):
        draw_differences(five, comparison.labels, Words(title="", axis=""), "here")
    many = [frame({"a": 1.0, "b": 2.0}, str(number)) for number in range(5)]
    with pytest.raises(UserError, match="room for 4"):
        write_comparison(StudyComparison(frame({"a": 1.0, "b": 2.0}, "here"), many), tmp_path)


def test_the_files_hold_the_same_numbers(comparison: StudyComparison, tmp_path: Path) -> None:
    files = write_comparison(comparison, tmp_path)
    assert {file.name for file in files} == {f"{STEM}.{form}" for form in ("csv", "md", "tex", "png", "svg", "pdf")}
    table = pd.read_csv(tmp_path / f"{STEM}.csv")
    assert list(table) == list(DIFFERENCE_COLUMNS)
    assert table["difference"].to_numpy() == pytest.approx(comparison.table["difference"].to_numpy(), nan_ok=True)
    text, latex = ((tmp_path / f"{STEM}.{form}").read_text() for form in ("md", "tex"))
    row: Any = comparison.main.set_index("step").loc["fewer_activations"]
    assert f"| {row['difference']:+.2f} (" in text
    assert f"{row['difference']:+.2f} (" in latex
    assert "\\toprule" in latex
    assert np.isfinite(row["p_adjusted"])
