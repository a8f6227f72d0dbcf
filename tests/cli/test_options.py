import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from roadmap.cli.main import main
from roadmap.cli.options import (
    studies_beside,
    study_of,
    study_to_report,
    with_rungs_before,
    with_seeds_found,
    words_of,
)
from roadmap.cli.parser import parse
from roadmap.common import files
from roadmap.jobs.launcher import prepare
from roadmap.runs import run_folder

Parse = Callable[..., Namespace]


@pytest.fixture
def options(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> Parse:
    """Parse a command line about a study of one seed."""
    recipe, runs = str(write_recipes(seeds=[0], validation_images=8)), str(tmp_path / "runs")

    def start(*words: str) -> Namespace:
        return parse([*words, "--base", "resnet50", "--recipe", recipe, "--data", str(small_images), "--runs", runs])

    return start


def put_run(options: Namespace, rung: str, seed: int, top1: float | None = 70.0) -> None:
    """Leave a run behind, finished unless it has no accuracy."""
    study = study_of(Namespace(**vars(options) | {"seeds": [str(seed)], "only": None, "until": None}))
    (run,) = (run for run in study.planned() if rung in run.rungs)
    prepare([run])
    row: dict[str, Any] = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": "finished", "top1": top1}
    if top1 is not None:
        files.write_json(run.folder / run_folder.RESULT, row)


def test_tables_take_every_seed_that_has_a_result_and_the_recipes(options: Parse) -> None:
    put_run(options("run"), "gelu", 2)
    put_run(options("run"), "baseline", 1)
    put_run(options("run"), "baseline", 7, top1=None)  # at work
    assert study_of(options("report")).seeds == (0,)
    assert study_of(with_seeds_found(options("report"))).seeds == (0, 1, 2)
    assert study_of(with_seeds_found(options("status"), run_folder.RUN)).seeds == (0, 1, 2, 7)
    assert study_of(with_seeds_found(options("report", "--only", "gelu"))).seeds == (0, 2)


def test_seeds_that_were_named_are_the_seeds(options: Parse) -> None:
    put_run(options("run"), "gelu", 2)
    assert study_of(with_seeds_found(options("report", "--seeds", "0", "1"))).seeds == (0, 1)


@pytest.mark.parametrize(("seeds", "said"), [(["--seeds", "0"], True), ([], False), (["--seeds", "0", "2"], False)])
def test_a_report_says_which_seeds_it_leaves_out(
    seeds: list[str], said: bool, options: Parse, capsys: pytest.CaptureFixture[str]
) -> None:
    put_run(options("run"), "gelu", 2)
    study_to_report(options("report", *seeds), Console(width=200))
    assert ("Seeds 2 have results too, but --seeds leaves them out of the report" in capsys.readouterr().out) == said


def test_seeds_of_other_studies_do_not_count(options: Parse, tmp_path: Path) -> None:
    put_run(options("run", "--validate"), "gelu", 3)
    (tmp_path / "runs" / "measured").mkdir()
    assert study_of(with_seeds_found(options("report"))).seeds == (0,)


def test_a_missing_runs_folder_has_no_seeds(tmp_path: Path) -> None:
    assert run_folder.seeds_with(run_folder.RESULT, tmp_path / "nowhere", {"0123456789ab"}) == set()


def test_seeds_are_found_by_one_listing_of_the_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("aa-s0", "aa-s12-wff00ff00", "ab-s3", "aa-s4", "aa-sx", "aa", "launches"):
        (tmp_path / name).mkdir()
        if name != "aa-s4":
            (tmp_path / name / run_folder.RESULT).touch()
    listed, scandir = [], os.scandir
    monkeypatch.setattr(run_folder.os, "scandir", lambda path: listed.append(path) or scandir(path))
    assert run_folder.seeds_with(run_folder.RESULT, tmp_path, {"aa", "cc"}) == {0, 12}
    assert listed == [tmp_path]


def test_only_brings_the_rung_before_it_where_that_has_a_result(options: Parse) -> None:
    words = ("report", "--only", "stage_ratio", "gelu")
    put_run(options("run"), "stage_ratio", 0)
    assert with_rungs_before(options(*words)).only == ["stage_ratio", "gelu"]
    put_run(options("run"), "baseline", 0)
    assert with_rungs_before(options(*words)).only == ["stage_ratio", "gelu", "baseline"]
    assert with_rungs_before(options("report")).only is None


def test_a_report_of_one_rung_compares_it_and_draws_nothing_that_was_not_asked_for(
    options: Parse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        put_run(options("run"), "baseline", seed, top1=70.0 + seed)
        put_run(options("run"), "stage_ratio", seed, top1=75.0 + seed)
        put_run(options("run"), "gelu", seed, top1=80.0)
    asked = options("report", "--only", "stage_ratio")
    assert main([*words_of(asked), "report", "--out", str(tmp_path / "out")]) == 0
    assert "baseline is shown too: --only names rungs that are judged against it." in capsys.readouterr().out
    verdicts = pd.read_csv(tmp_path / "out" / "verdicts.csv").set_index("metric")
    changes = verdicts.loc[["top1"], ["step", "against", "n", "delta"]].dropna(subset="delta")
    assert changes.to_numpy().tolist() == [["stage_ratio", "baseline", 2, 5.0]]
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(results["rung"]) == {"baseline", "stage_ratio"}
    assert set(results["seed"]) == {0, 1}
    assert not list((tmp_path / "out").glob("worths*"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "--seeds 0 1" in page


@pytest.mark.parametrize("part", [["--only", "gelu"], ["--until", "gelu"]])
def test_other_designs_stand_beside_a_whole_ladder_only(options: Parse, part: list[str]) -> None:
    whole = options("report")
    assert {"ladder", "leave-one-out"} <= studies_beside(whole, study_of(whole)).keys()
    assert studies_beside(options("report", *part), study_of(options("report", *part))) == {}


def test_compare_of_one_rung_judges_it_against_the_one_before(
    options: Parse, capsys: pytest.CaptureFixture[str]
) -> None:
    for rung, top1 in (("baseline", 70.0), ("stage_ratio", 75.0)):
        put_run(options("run"), rung, 0, top1)
    words = words_of(options("compare", "--only", "stage_ratio"))
    assert main(["compare", *words, "--json"]) == 0
    ended = capsys.readouterr()
    rows = [json.loads(line) for line in ended.out.splitlines()]
    (row,) = (row for row in rows if row["metric"] == "top1" and row["step"] == "stage_ratio")
    assert (row["against"], row["delta"]) == ("baseline", 5.0)
    assert "baseline is shown too" in ended.err


def test_status_shows_every_seed_that_was_started(options: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    put_run(options("run"), "baseline", 5, top1=None)
    words = words_of(options("status", "--only", "baseline"))
    assert main(["status", *words, "--json"]) == 0
    assert [json.loads(line)["seed"] for line in capsys.readouterr().out.splitlines()] == [0, 5]


def test_a_dry_run_needs_no_executor(options: Parse, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = words_of(options("launch", "--only", "baseline"))
    assert main(["launch", *asked, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "#SBATCH" in out
    assert out.endswith("# 1 runs in 1 jobs. Nothing was submitted.\n")
    assert not (tmp_path / "runs").exists()
