import html
import json
import os
import platform
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.ladder_table import LADDER_COLUMNS, ladder_table, published_table
from analysis.report.record import RECORD_VERSION, read_record
from analysis.report.record_results import RecordResults
from analysis.report.tables import markdown
from analysis.report.write import write_published, write_record, write_report
from analysis.study_results import StudyResults
from roadmap.cli.main import main
from roadmap.cli.options import words_of
from roadmap.cli.parser import parse
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.formats import big
from roadmap.common.provenance import find_commit
from roadmap.jobs.launcher import prepare
from roadmap.ladder.designs import Design, lay_out
from roadmap.ladder.ladder import Ladder, read_ladder
from roadmap.ladder.own_steps import load_steps
from roadmap.ladder.references import REFERENCES
from roadmap.runs import run_folder
from roadmap.runs.attempts import Worker
from roadmap.runs.claims import take
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.processes import ROOT
from tests.samples import LADDERS, PAPER

TABLES = {f"{table}.{form}" for table in ("ladder", "verdicts") for form in ("csv", "md", "tex")}
FIGURE = {"roadmap.png"} | {f"{name}.{form}" for name in ("roadmap", "verdicts") for form in ("svg", "pdf")}
FILES = {"results.csv", "record.json", "report.html", "tradeoff.svg", "tradeoff.pdf"} | TABLES | FIGURE


@pytest.fixture
def study(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> Study:
    return plan_study(
        StudySpec("resnet50", str(write_recipes()), PAPER, runs=tmp_path / "runs", seeds=(0, 1), data_root=small_images)
    )


def put_result(study: Study, rung: str, seed: int, **values: Any) -> None:
    config = study.configs[rung, seed]
    prepare([run for run in study.planned() if run.config == config])
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": "finished", "train_s": 2.0, "wall_s": 3.0}
    files.write_json(study.folder(config) / run_folder.RESULT, row | values)


def test_a_report_holds_tables_figure_and_record(study: Study, tmp_path: Path) -> None:
    for rung, top1 in (("baseline_original", 70.0), ("baseline", 75.0)):
        for seed in (0, 1):
            put_result(study, rung, seed, top1=top1 + seed, images_per_s=100.0)
    files = write_report(study, tmp_path / "out")
    assert {file.name for file in files} == FILES == set(os.listdir(tmp_path / "out"))
    runs = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(runs) == 34
    assert (runs["state"] == "finished").sum() == 4
    table = pd.read_csv(tmp_path / "out" / "ladder.csv").set_index("rung")
    assert table.loc["baseline", "n"] == 2
    assert table.loc["baseline", "top1"] == 75.5
    assert table.loc["baseline", "top1_delta"] == 5.0
    assert table.loc["baseline", "paper_top1_delta"] == pytest.approx(2.69)
    assert table.loc["gelu", "state"] == "missing"


def test_a_proxy_says_so_in_every_table_in_the_figure_and_on_the_page(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path / "out")
    for name in ("ladder.md", "ladder.tex", "verdicts.md", "verdicts.tex", "roadmap.svg", "report.html"):
        assert "PROXY, not ImageNet" in (tmp_path / "out" / name).read_text(), name


@pytest.mark.usefixtures("only_svg")
def test_the_page_says_what_differs_from_the_papers_recipe(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path / "out")
    _, _, deviations = (tmp_path / "out" / "report.html").read_text().partition("What differs from the paper's recipe")
    section = deviations.partition("</section>")[0]
    assert re.search(r"batch_<wbr>size</dt><dd>32 <small>paper: 4096</small>", section)
    assert "betas" not in section


@pytest.mark.usefixtures("only_svg")
def test_verdicts_are_written_for_every_metric_and_those_of_top1_for_latex(study: Study, tmp_path: Path) -> None:
    for rung, top1 in (("baseline_original", 70.0), ("baseline", 75.0)):
        for seed in (0, 1):
            put_result(study, rung, seed, top1=top1 + seed / 10, nll=0.5 - seed / 100)
    write_report(study, tmp_path / "out")
    verdicts = pd.read_csv(tmp_path / "out" / "verdicts.csv")
    assert list(verdicts["metric"].unique()) == ["top1", "nll", "macs", "params"]  # the others were not measured
    assert len(verdicts) == 4 * 16
    text = (tmp_path / "out" / "verdicts.md").read_text()
    assert re.findall("## (.*)", text) == ["top-1 (%)", "NLL (nats)", "multiply-adds", "parameters"]
    assert "| baseline | +5.00 (" in text
    assert "modern recipe & +5.00 (" in (tmp_path / "out" / "verdicts.tex").read_text()


@pytest.mark.usefixtures("only_svg")
def test_the_pages_commands_are_those_of_this_study(study: Study, tmp_path: Path) -> None:
    put_result(study, "baseline_original", 0, top1=70.0)
    put_result(study, "baseline", 0, top1=75.0)
    asked = "--base resnet50 --seeds 0 1 --recipe 'my own.yaml' --data d --runs r --until gelu --validate"
    words = words_of(parse(shlex.split(asked)))
    write_report(study, tmp_path / "out", words=words)
    page = html.unescape((tmp_path / "out" / "report.html").read_text())
    commands = re.findall(r"<code>python run_ladder\.py (.*)</code>", page)
    told = [parse(shlex.split(command)) for command in commands]
    assert [options.command for options in told] == ["plan", "run", "report", "compare"]
    assert told[-1].step == ["baseline"]
    assert all(words_of(options) == words for options in told)
    write_report(study, tmp_path / "out")
    assert "run --base resnet50 --recipe tiny --seeds 0 1</code>" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("only_svg")
def test_the_page_tells_how_every_run_stands_and_what_it_left(study: Study, tmp_path: Path) -> None:
    put_result(study, "baseline", 0, top1=75.0)
    put_result(study, "gelu", 1, state="failed", error="OSError: no <space>")
    folder = study.folder(study.configs["baseline", 0])
    lines = [json.dumps({"epoch": epoch + 1, "train_loss": loss}) for epoch, loss in enumerate((2.5, 1.25))]
    (folder / run_folder.METRICS).write_text("\n".join(lines) + "\n")
    with take(folder, Worker.here(job="77"), lambda _: None) as claim:
        assert claim
        claim.end = "finished"
    write_report(study, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "34 runs (2 seeds a rung): 1 finished, 1 failed, 32 missing." in page
    assert "<td>failed: OSError: no &lt;space&gt;<td>" in page
    assert "not tested: one seed" not in page  # a step has results on one side alone
    data = json.loads(re.findall(r'id="data">(.*)</script>', page)[0])
    (run,) = [run for run in data["runs"] if run[0] == folder.name]
    assert run[1:3] == [2, [2.5, 1.25]]
    assert data["planned"][run[3]]["host"] == platform.node()
    assert data["planned"][run[3]]["planned_at"]
    assert [attempt[1] for attempt in run[4]] == ["finished"]
    assert run[4][0][3] == "77"
    assert data["workers"][run[4][0][0]][0] == platform.node()


def test_validation_images_are_never_passed_off_as_the_test_set(
    write_recipes: Callable[..., Path], small_images: Path, tmp_path: Path
) -> None:
    recipe = str(write_recipes(validation_images=64))
    studies = [
        plan_study(StudySpec("resnet50", recipe, PAPER, runs=tmp_path, data_root=small_images, validate=validate))
        for validate in (False, True)
    ]
    assert "VALIDATION" not in studies[0].describe()
    assert "VALIDATION" in studies[1].describe()
    assert not {run.config.id for run in studies[0].planned()} & {run.config.id for run in studies[1].planned()}


@pytest.mark.usefixtures("only_svg")
def test_diverged_and_failed_runs_are_named_with_their_reason(study: Study, tmp_path: Path) -> None:
    put_result(study, "baseline", 0, state="diverged", error="the loss is nan at step 3")
    put_result(study, "gelu", 1, state="failed", error="OSError: no space")
    write_report(study, tmp_path / "out")
    text = (tmp_path / "out" / "ladder.md").read_text()
    assert "baseline, seed 0: diverged: the loss is nan at step 3" in text
    assert "gelu, seed 1: failed: OSError: no space" in text
    table = pd.read_csv(tmp_path / "out" / "ladder.csv").set_index("rung")
    assert (table.loc["baseline", "state"], table.loc["gelu", "state"]) == ("diverged", "failed")


@pytest.mark.usefixtures("only_svg")
def test_the_other_base_stands_behind_once_it_has_results(study: Study, tmp_path: Path, small_images: Path) -> None:
    recipe = str(tmp_path / "recipes" / "tiny.yaml")
    behind = plan_study(StudySpec("resnet200", recipe, PAPER, runs=study.runs, seeds=(0, 1), data_root=small_images))
    put_result(study, "baseline", 0, top1=70.0)
    write_report(study, tmp_path / "out", behind=behind)
    assert "ResNet-200 ladder" not in (tmp_path / "out" / "roadmap.svg").read_text()
    put_result(behind, "baseline", 0, top1=72.0)
    write_report(study, tmp_path / "out", behind=behind)
    assert "ResNet-200 ladder" in (tmp_path / "out" / "roadmap.svg").read_text()


@pytest.mark.usefixtures("only_svg")
def test_part_of_a_ladder_does_not_call_its_end_convnext(study: Study, tmp_path: Path, small_images: Path) -> None:
    part = replace(study, rungs=study.rungs[:3])
    write_report(part, tmp_path / "part")
    assert "ConvNeXt-T" not in (tmp_path / "part" / "roadmap.svg").read_text()
    write_report(study, tmp_path / "whole")
    assert "ConvNeXt-T" in (tmp_path / "whole" / "roadmap.svg").read_text()


def finish_record(study: Study) -> None:
    """Give two rungs two seeds each, a point apart."""
    for i, rung in enumerate(("baseline", "stage_ratio")):
        for seed in study.seeds:
            put_result(study, rung, seed, top1=70.0 + i + seed / 10)


@pytest.mark.usefixtures("only_svg")
def test_a_record_is_judged_again_from_its_rows_as_its_runs_were(study: Study, tmp_path: Path) -> None:
    finish_record(study)
    results = StudyResults(study)
    written = {path.name for path in write_report(results, tmp_path / "out")}
    record = read_record(tmp_path / "out")
    assert record.about["versions"][0]["torch"]
    assert list(record.table.columns) == list(LADDER_COLUMNS)
    again = RecordResults(record)
    assert again.headline == results.headline
    assert {path.name for path in write_record(again, tmp_path / "again")} == written
    for name in ("verdicts.csv", "ladder.csv", "ladder.tex", "verdicts.tex", "roadmap.svg", "results.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    told = [json.loads((tmp_path / folder / "record.json").read_text()) for folder in ("out", "again")]
    assert told[0] == told[1]
    assert told[0]["judged"] == {"rule": "shared", "margin": 0.2, "commit": find_commit()}


@pytest.mark.usefixtures("only_svg")
def test_a_record_says_by_which_rule_it_was_judged_last_and_keeps_its_origin(study: Study, tmp_path: Path) -> None:
    finish_record(study)
    write_report(study, tmp_path / "out")
    before = json.loads((tmp_path / "out" / "record.json").read_text())
    options = ["--record", str(tmp_path / "out"), "--margin", "50", "--test", "welch"]
    assert main(["report", "--base", "resnet50", *options]) == 0
    after = json.loads((tmp_path / "out" / "record.json").read_text())
    assert (after["judged"]["rule"], after["judged"]["margin"]) == ("welch", 50)
    assert after["planned_first"] == before["planned_first"]
    judged = pd.read_csv(tmp_path / "out" / "verdicts.csv").query("metric == 'top1' and step == 'stage_ratio'")
    assert judged["p"].to_list() == judged["p_welch"].to_list()
    assert judged["margin"].to_list() == [50]
    assert "rule &#39;welch&#39;, margin 50 points" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("only_svg")
def test_a_record_of_another_version_is_refused(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "record.json").read_text())
    (tmp_path / "out" / "record.json").write_text(json.dumps(about | {"record_version": RECORD_VERSION + 1}))
    with pytest.raises(UserError, match=f"record_version is {RECORD_VERSION + 1}, but this program reads"):
        read_record(tmp_path / "out")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_that_is_no_record_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    with pytest.raises(UserError, match="no record here"):
        read_record(tmp_path)


def ladders_of(folder: Path) -> list[Ladder]:
    """Return the ladders that a record may be of: the harness's, and its own."""
    examples = ROOT / "ladders" / "examples"
    for steps in (*folder.glob("my_*.py"), *examples.glob("*.py")):
        load_steps(steps)
    return [*LADDERS.values(), *(read_ladder(path) for place in (folder, examples) for path in place.glob("*.yaml"))]


def test_every_committed_record_can_be_read(own_steps: None) -> None:
    records = [path.parent for path in (ROOT / "records").glob("*/record.json")]
    assert records
    for folder in records:
        record = read_record(folder)
        assert record.table["n"].sum() > 0
        base, design, recipe = (record.about[name] for name in ("base", "design", "recipe"))
        ladders = [ladder.towards(recipe) for ladder in ladders_of(folder) if base in ladder.bases]
        layouts = [[rung.id for rung in lay_out(ladder, base, Design(design)).rungs] for ladder in ladders]
        rungs = [rung for rung in record.table["rung"] if rung not in REFERENCES]
        assert any([rung for rung in layout if rung in rungs] == rungs for layout in layouts), folder


def test_published_numbers_come_in_the_same_form_and_name_their_misprints(tmp_path: Path) -> None:
    for base in PAPER.bases:
        write_published(PAPER, base, tmp_path / base)
    text = (tmp_path / "resnet50" / "ladder.md").read_text()
    assert "| separate_downsampling | 3 | 81.97 ± 0.06 | +0.50 (" in text
    assert text.split("\n\n")[1].startswith("In the paper's own numbers: ")
    assert "prints 4.46 for a network that counts 4.146" in text
    assert "ResNet-200 ladder" in (tmp_path / "resnet50" / "roadmap.svg").read_text()
    assert set(os.listdir(tmp_path / "resnet50")) == {"report.html"} | TABLES | FIGURE
    assert "report --published --base resnet200</code>" in (tmp_path / "resnet200" / "report.html").read_text()
    assert "prints" not in (tmp_path / "resnet200" / "ladder.md").read_text()


def test_an_output_folder_that_cannot_be_written_is_refused_in_words(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(study, tmp_path / "file" / "out")


def test_a_table_of_ours_never_carries_the_papers_misprints(study: Study) -> None:
    from analysis.run_frames import collect

    assert not ladder_table(collect(study), study.rungs)["erratum"].any()
    assert published_table(PAPER, "resnet50")["erratum"].astype(bool).sum() == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.09e9, "4.09 G"), (15.01e9, "15.0 G"), (1_368_576, "1.37 M"), (785_000, "785.0 k"), (12, "12")],
)
def test_counts_are_rounded_with_their_unit(value: float, text: str) -> None:
    assert big(value) == text


def test_what_is_missing_is_blank_in_a_table() -> None:
    table = published_table(PAPER, "resnet50").assign(top1=float("nan"), state="missing")
    assert "| gelu | 3 | missing |" in markdown(table)
