"""A study in rounds from the command line, its runs made up in an instant; real processes at the end."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from roadmap.cli import run_commands
from roadmap.cli.main import main
from roadmap.common import files
from roadmap.jobs.launcher import prepare
from roadmap.runs import run_folder
from roadmap.runs.attempts import attempts_of
from roadmap.study.plan import PlannedRun, Study
from tests.processes import Command, wait_for

ONLY = ("baseline", "stage_ratio", "patchify_stem", "depthwise_conv")
EFFECTS = {"baseline": 70.0, "stage_ratio": 70.9, "patchify_stem": 80.0, "depthwise_conv": 60.0}
Ladder = Callable[..., int]


def make_up(run: PlannedRun) -> None:
    """Leave the result of a run whose top-1 is a function of its rung and seed."""
    if run_folder.is_done(run.folder):
        return
    rng = np.random.default_rng([run.config.seed, *run.rungs[0].encode()])
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": "finished", "wall_s": 3600.0}
    row["top1"] = EFFECTS[run.rungs[0]] + 0.3 * rng.standard_normal()
    files.write_json(run.folder / run_folder.RESULT, row)


@pytest.fixture
def trained() -> list[str]:
    """The runs that were trained, in order."""
    return []


@pytest.fixture
def ladder(
    tmp_path: Path,
    write_recipes: Callable[..., Path],
    small_images: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: list[str],
) -> Ladder:
    """Return a command line about a ladder of four rungs, whose runs are made up."""
    recipe = write_recipes()

    def train(console: object, study: Study, runs: list[PlannedRun], *others: object, **more: object) -> bool:
        for run in prepare(runs):
            make_up(run)
            trained.append(f"{run.rungs[0]} {run.config.seed}")
        return True

    monkeypatch.setattr(run_commands, "_train", train)
    monkeypatch.setattr(run_commands, "measure_trained", lambda *_: None)
    monkeypatch.setattr(run_commands, "report_results", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def start(*words: str) -> int:
        study = ["--base", "resnet50", "--recipe", str(recipe), "--data", str(small_images), "--only", *ONLY]
        return main([*words, *study, "--runs", str(tmp_path / "runs")])

    return start


def seeds_of(trained: list[str]) -> dict[str, int]:
    return {rung: sum(name.split()[0] == rung for name in trained) for rung in ONLY}


def test_seeds_go_to_open_steps_until_the_budget_is_spent(
    ladder: Ladder, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ladder("run", "--budget", "30runs") == 0
    said = " ".join(capsys.readouterr().out.split())
    seeds = seeds_of(trained)
    assert len(trained) == len(set(trained)) <= 30
    assert "Round 1: 3 more seeds of every rung." in said
    assert "Round 2: " in said
    assert re.search(r"(steps are answered|budget is spent).*\d rounds, \d+ of 30 runs\.", said)
    assert seeds["depthwise_conv"] == 3  # answered at the first look
    assert seeds["stage_ratio"] > 3
    assert ladder("compare", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = {row["step"]: (row["answer"], row["n"]) for row in rows if row["metric"] == "top1"}
    assert told["patchify_stem"] == ("helps", seeds["patchify_stem"])


def test_the_same_command_trains_nothing_again_and_one_with_more_goes_on(
    ladder: Ladder, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ladder("run", "--budget", "12runs") == 0
    first = list(trained)
    assert ladder("run", "--budget", "12runs") == 0
    assert trained == first
    capsys.readouterr()
    assert ladder("run", "--budget", "30runs") == 0
    assert trained[:12] == first
    assert 12 < len(trained) <= 30
    assert "Round 2" in capsys.readouterr().out


def test_a_study_of_three_seeds_goes_on_from_them(ladder: Ladder, trained: list[str]) -> None:
    assert ladder("run", "--seeds", "0", "1", "2") == 0
    assert len(trained) == 12
    assert ladder("run", "--budget", "20runs") == 0
    assert len(trained) == len(set(trained))
    assert {name.split()[1] for name in trained[12:]} <= {"3", "4", "5", "6"}


def test_a_report_pays_for_the_looks_and_a_fixed_number_of_seeds_does_not(
    ladder: Ladder, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder("run", "--budget", "20runs")
    capsys.readouterr()

    def p_of(*words: str) -> dict[str, float]:
        assert ladder("compare", "--json", *words) == 0
        rows = map(json.loads, capsys.readouterr().out.splitlines())
        return {row["step"]: row["p_adjusted"] for row in rows if row["metric"] == "top1" and row["p_adjusted"]}

    paid, free = p_of(), p_of("--seeds", "0", "1", "2")
    assert paid["stage_ratio"] > free["stage_ratio"] or paid["stage_ratio"] < 0.05
    assert p_of("--budget", "20runs") == paid  # the words that started it name it


def test_only_the_steps_that_are_sought_get_seeds(ladder: Ladder, trained: list[str]) -> None:
    assert ladder("run", "--until-answered", "--step", "patchify_stem") == 0
    assert {name.split()[0] for name in trained} == {"stage_ratio", "patchify_stem"}
    assert ladder("status") == 0
    assert ladder("run", "--budget", "14runs") == 0
    assert seeds_of(trained)["baseline"] >= 3
    assert seeds_of(trained)["depthwise_conv"] >= 3


def test_a_budget_in_hours_pays_by_what_runs_took(ladder: Ladder, trained: list[str]) -> None:
    assert ladder("run", "--budget", "14gpuh") == 0
    assert len(trained) <= 14


def test_plan_knows_the_runs_of_the_rounds(ladder: Ladder, capsys: pytest.CaptureFixture[str]) -> None:
    ladder("run", "--budget", "14runs")
    capsys.readouterr()
    assert ladder("status", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["state"] for row in rows} == {"finished"}
    assert 12 <= len(rows) <= 14


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--budget 12runs --seeds 0", "--seeds: is a fixed number of seeds"),
        ("--budget 12", "--budget: '12' is no budget"),
        ("--budget 12runs --step gelu", "unknown step 'gelu'"),
        ("--step stage_ratio", "--step: goes with --budget or --until-answered"),
        ("--price 2", "--price: goes with --budget"),
        ("--budget 3eur", "Say with --price"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(
    words: str, message: str, ladder: Ladder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ladder("run", *words.split()) == 2
    assert message in capsys.readouterr().err


def test_a_budget_below_two_seeds_of_every_rung_trains_nothing(
    ladder: Ladder, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ladder("run", "--budget", "7runs")
    assert not trained
    assert "does not pay for two seeds of every rung" in " ".join(capsys.readouterr().out.split())


def test_a_recipe_may_name_its_budget(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipes(budget="4runs")
    words = [
        "--base",
        "resnet50",
        "--recipe",
        str(path),
        "--data",
        str(small_images),
        "--only",
        "baseline",
        "stage_ratio",
    ]
    assert main(["run", *words, "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    assert "# 4 runs in 4 jobs" in capsys.readouterr().out
    path = write_recipes(budget="10m")
    assert main(["run", *words, "--dry-run"]) == 2
    assert "budget is '10m', but must be a number of runs" in capsys.readouterr().err


# -- what plan says


def test_plan_forecasts_a_curve_from_the_runs_that_are_here(ladder: Ladder, capsys: pytest.CaptureFixture[str]) -> None:
    ladder("run", "--budget", "12runs")
    capsys.readouterr()
    assert ladder("plan", "--budget", "20runs", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["share"], row["budget"]) for row in rows] == [(0.25, 5), (0.5, 10), (1, 20), (2, 40)]
    assert [row["answered"] for row in rows] == sorted(row["answered"] for row in rows)
    assert rows[0]["runs"] == 0  # what is here has cost more than a quarter
    assert rows[0]["answered"] > 0
    assert rows[-1]["spent"] <= 40 - 12


def test_plan_takes_the_papers_noise_where_nothing_has_run(ladder: Ladder, capsys: pytest.CaptureFixture[str]) -> None:
    assert ladder("plan", "--budget", "16runs", "--step", "depthwise_conv") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "forecast from the paper's means and deviations" in said
    assert "answered of 1" in said
    assert ladder("plan", "--budget", "16runs", "--record", "nowhere") == 2
    assert "--record: nowhere has no results.csv" in capsys.readouterr().err


# -- real processes


@pytest.mark.slow
def test_after_a_kill_two_commands_at_once_end_the_round_and_train_every_run_once(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    words = ["--base", "resnet50", "--recipe", str(write_recipes(epochs=1)), "--data", str(small_images)]
    words += ["--only", "baseline", "stage_ratio", "--budget", "4runs"]
    words += ["--executor", "debug"]  # which saves the start of jobs
    work = tmp_path / "work"
    killed = Command(work, "run", *words)
    wait_for(lambda: list(work.glob("runs/*/metrics.jsonl")), what="an epoch", timeout_s=200)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    ended = [command.wait(400) for command in (Command(work, "run", *words), Command(work, "run", *words))]
    assert [(command.code, command.err) for command in ended] == [(0, ""), (0, "")]
    assert all("The budget is spent" in command.out for command in ended)
    assert [path.name for path in work.glob("runs/studies/*/*")] == ["round-0001.json"]
    runs = list(work.glob("runs/*-s*"))
    assert len(runs) == 4
    for run in runs:
        assert [attempt.end for attempt in attempts_of(run)].count("finished") == 1
