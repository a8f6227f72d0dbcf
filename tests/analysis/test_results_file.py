from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.frame_results import FrameResults
from analysis.report.csv_text import as_written, csv_text
from analysis.report.write import write_report
from analysis.results_file import MOST_ERRORS, read_labels, read_results
from roadmap.common.errors import UserError
from tests.processes import ROOT

RECORD = ROOT / "records" / "resnet50-fashion" / "results.csv"
GOOD = "rung,seed,acc\nplain,0,70\nplain,1,71\nwide,0,80\nwide,1,81\nwide,2,80.5\n"


def file_of(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# -- reading


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\n\n"),
        GOOD.replace(",", " , "),
        GOOD.replace("plain", '"plain"'),
        GOOD.encode("utf-16"),
    ],
    ids=["commas", "semicolons", "tabs", "BOM", "CRLF", "blank lines", "spaces", "quotes", "UTF-16"],
)
def test_a_file_is_read_however_it_was_exported(text: str | bytes, tmp_path: Path) -> None:
    frame = read_results(file_of(tmp_path, text))
    assert list(frame.columns) == ["rung", "seed", "acc"]
    assert frame["rung"].tolist() == ["plain"] * 2 + ["wide"] * 3
    assert frame["acc"].tolist() == [70, 71, 80, 81, 80.5]


def test_results_of_a_report_are_read_as_they_are_without_what_is_no_metric(tmp_path: Path) -> None:
    frame = read_results(RECORD)
    assert list(frame.columns) == ["rung", "seed", "top1", "top5", "nll", "ece", "train_loss"]
    assert len(frame) == 102
    assert list(read_results(RECORD, ["nll"]).columns) == ["rung", "seed", "nll"]


def test_an_empty_cell_was_not_measured_and_a_run_that_did_not_finish_does_not_count(tmp_path: Path) -> None:
    text = "rung,seed,state,acc,loss\na,0,finished,70,\na,1,diverged,3,9\nb,0,finished,71,0.5\n"
    frame = read_results(file_of(tmp_path, text))
    assert frame["acc"].isna().tolist() == [False, True, False]
    assert frame["loss"].isna().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty. Its first line names the columns"),
        ("rung,seed,acc\n", "has a header and no rows"),
        ("rung,acc\na,1\n", r":1: no column 'seed'.*found: 'rung', 'acc'"),
        ("step,seed,acc\na,1,2\n", r":1: no column 'rung'"),
        ("rung,seed\na,1\n", ":1: no column is a metric"),
        ("rung,seed,acc,acc\na,0,1,2\n", ":1: column 'acc' is there twice"),
        ("rung,seed,acc\na,0,1\n\na,0,2\n", r":4: rung 'a' has seed 0 on line 2 already"),
        ("rung,seed,acc\na,0,good\n", ":2: column 'acc': 'good' is not a number"),
        ("rung;seed;acc\na;0;81,5\n", ":2: column 'acc': '81,5' is not a number. Write decimals with a point"),
        (
            "rung,seed,acc\na,0,nan\n",
            ":2: column 'acc': 'nan' is no value. Leave the cell of a run that diverged",
        ),
        ("rung,seed,acc\na,0,inf\n", ":2: column 'acc': 'inf' is no value"),
        ("rung,seed,acc\na,x,1\n", ":2: column 'seed': 'x' is not a whole number from 0 up"),
        ("rung,seed,acc\n,0,1\n", ":2: column 'rung' is empty"),
        ("rung,seed,acc\na,0\n", ":2: 2 cells, but the header has 3"),
        ("rung,seed,acc\na,0,\n", "no run has a value of acc"),
        (b"rung,seed,acc\na,0,1\n\xff\xf0,1,2\n", ":3: is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_results(file_of(tmp_path, text))


def test_all_lines_that_are_wrong_are_named_at_once_up_to_a_limit(tmp_path: Path) -> None:
    text = "rung,seed,acc\n" + "".join(f"a,{seed},bad\n" for seed in range(MOST_ERRORS + 5))
    with pytest.raises(UserError) as error:
        read_results(file_of(tmp_path, text))
    lines = str(error.value).splitlines()
    assert len(lines) == MOST_ERRORS + 1
    assert lines[1].startswith(f"{tmp_path}/mine.csv:3: column 'acc'")
    assert lines[-1] == "... and 5 more lines."


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv: cannot be read \(No such file"):
        read_results(Path("nowhere.csv"))


# -- judging


def frame_of(**values: list[float]) -> pd.DataFrame:
    rows = [(rung, seed, value) for rung, some in values.items() for seed, value in enumerate(some)]
    return pd.DataFrame(rows, columns=["rung", "seed", "acc"])


FRAME = frame_of(plain=[70, 70.5, 71], wide=[80, 80.5, 81], deep=[80.1, 80.6, 81.1])


def test_each_rung_is_held_against_the_one_before_or_all_against_one() -> None:
    assert FrameResults(runs=FRAME).pairs == [("wide", "plain"), ("deep", "wide")]
    assert FrameResults(runs=FRAME, against="plain").pairs == [("wide", "plain"), ("deep", "plain")]
    judged = FrameResults(runs=FRAME, against="plain").verdicts[0]
    assert judged["answer"].tolist() == ["helps", "helps"]
    assert FrameResults(runs=FRAME).headline.startswith("1 of 2 steps is answered at 3 seeds: 1 helps (wide)")


def test_less_is_better_where_it_is_known_or_said() -> None:
    loss = FRAME.rename(columns={"acc": "my_loss"})
    assert FrameResults(runs=loss).verdicts[0]["answer"].iloc[0] == "helps"
    lower = FrameResults(runs=loss, lower_is_better=["my_loss"])
    assert lower.verdicts[0]["answer"].iloc[0] == "hurts"
    assert "my_loss (less is better)" in lower.describe()
    assert FrameResults(runs=FRAME.rename(columns={"acc": "nll"})).verdicts[0]["answer"].iloc[0] == "hurts"


def test_labels_name_the_rungs_and_put_them_in_order(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text("deep: Deep & wide\nplain: Plain\n")
    results = FrameResults(runs=FRAME, labels=read_labels(tmp_path / "labels.yaml"))
    assert results.rungs == ["deep", "plain", "wide"]
    assert results.table["label"].tolist() == ["Deep & wide", "Plain", "wide"]
    with pytest.raises(UserError, match="labels: unknown rung 'depe'"):
        FrameResults(runs=FRAME, labels={"depe": "x"})


def test_no_effect_takes_a_margin_that_somebody_has_named() -> None:
    same = frame_of(a=[70, 70.01, 70.02, 69.99], b=[70, 70.01, 70.02, 69.99])
    assert FrameResults(runs=same).verdicts[0]["answer"].tolist() == ["undecided"]
    assert FrameResults(runs=same, margin=0.5).verdicts[0]["answer"].tolist() == ["no effect"]


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        (FRAME.drop(columns="seed"), {}, "no column 'seed'"),
        (FRAME.drop(columns="acc"), {}, "no column is a metric"),
        (FRAME, {"against": "narrow"}, "against: unknown rung 'narrow'"),
        (FRAME, {"metrics": ["ac"]}, "unknown metric 'ac'. Did you mean 'acc'"),
        (FRAME, {"lower_is_better": ["loss"]}, "lower is better: unknown metric 'loss'"),
        (pd.concat([FRAME, FRAME]), {}, "rung 'plain' has seed 0 twice"),
        (frame_of(**{f"r{i}": [1.0] for i in range(201)}), {}, "201 rungs, but a report shows 200"),
    ],
)
def test_a_frame_that_cannot_be_judged_is_refused_in_words(
    frame: pd.DataFrame, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        FrameResults(runs=frame, **options)  # type: ignore[arg-type]


# -- the report


def test_a_frame_has_a_report_like_a_study(tmp_path: Path) -> None:
    loss = np.repeat([1.0, 2.0, 3.0], 3) + np.tile([0.0, 0.1, 0.2], 3)
    results = FrameResults(runs=FRAME.assign(loss=loss), title="Mine", lower_is_better=["loss"])
    names = {file.name for file in write_report(results, tmp_path)}
    assert {"ladder.csv", "ladder.md", "ladder.tex", "verdicts.csv", "roadmap.svg", "verdicts.svg"} <= names
    assert "report.html" in names
    for name in ("ladder.md", "verdicts.md", "report.html"):
        assert results.headline in (tmp_path / name).read_text()
    assert "loss: 2 of 2 answered." in (tmp_path / "verdicts.md").read_text()
    assert set(pd.read_csv(tmp_path / "verdicts.csv")["metric"]) == {"acc", "loss"}


@pytest.mark.parametrize(
    ("metric", "factor", "names"),
    [("acc", 0.01, {"roadmap.svg", "verdicts.svg"}), ("nll", 0.01, {"verdicts.svg"}), ("speed", 50, {"verdicts.svg"})],
)
def test_bars_are_of_accuracies_in_percent_or_shares_and_tables_are_named_after_the_metric(
    metric: str, factor: float, names: set[str], tmp_path: Path
) -> None:
    runs = FRAME.assign(acc=factor * FRAME["acc"]).rename(columns={"acc": metric})
    files = {file.name for file in write_report(FrameResults(runs=runs), tmp_path)}
    assert {name for name in files if name.endswith(".svg")} == names
    assert {metric, f"{metric}_delta"} <= set(pd.read_csv(tmp_path / "ladder.csv").columns)
    assert "top-1" not in (tmp_path / "ladder.md").read_text()


def test_hostile_names_do_nothing_in_tables_and_pages(tmp_path: Path) -> None:
    hostile = ["=1+1", "<script>alert(1)</script>", "a|b", "*bold* [x](y)"]
    values = {name: [70.0 + i, 71.0 + i] for i, name in enumerate(hostile)}
    write_report(FrameResults(runs=frame_of(**values), title="<b>T</b> & $x$"), tmp_path)
    text = (tmp_path / "ladder.md").read_text()
    assert "<script>" not in text
    assert "a\\|b" in text
    assert "\\*bold\\* [x\\](y)" in text
    assert "<script>alert" not in (tmp_path / "report.html").read_text()
    assert pd.read_csv(tmp_path / "ladder.csv")["rung"].iloc[0] == "'=1+1"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@x", "plain", "'quoted", ""])
def test_a_cell_that_a_spreadsheet_would_compute_is_quoted_and_read_back(text: str) -> None:
    written = csv_text(pd.DataFrame({"a": [text], "b": [-1.0]})).splitlines()[1].rpartition(",")[0].strip('"')
    assert not written.startswith(("=", "+", "-", "@"))
    assert as_written(written) == text
