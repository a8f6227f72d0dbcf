import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from roadmap.cli.main import main
from roadmap.cli.progress import Watch, look
from roadmap.common import files
from roadmap.common.formats import clock
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.study.plan import PlannedRun


@pytest.fixture
def runs(tmp_path: Path, tiny_run: Callable[..., RunConfig]) -> list[PlannedRun]:
    planned = [PlannedRun(tiny_run(seed), ("start",), tmp_path / str(seed)) for seed in (0, 1)]
    for run in planned:
        run.folder.mkdir()
    return planned


def finish(run: PlannedRun, state: str = "finished", top1: float | None = 80.0) -> None:
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": state, "top1": top1, "train_loss": 0.5}
    files.write_json(run.folder / run_folder.RESULT, row)


def report_progress(run: PlannedRun, step: int, steps: int = 10, at: float | None = None) -> None:
    now: dict[str, Any] = {"state": "running", "epoch": 1, "epochs": 2, "step": step, "steps": steps}
    now |= {"train_loss": 1.5, "images_per_s": 100.0, "at": time.time() if at is None else at}
    (run.folder / run_folder.PROGRESS).write_text(json.dumps(now))


def shown(watch: Watch, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(watch.picture())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_table_shows_each_rungs_state_epoch_loss_accuracy_and_speed(runs: list[PlannedRun]) -> None:
    watch = Watch(runs, [1.0, 1.0], ["start"], Console())
    finish(runs[0])
    report_progress(runs[1], 5)
    text = shown(watch)
    assert [word for word in ("start", "1/2", "running", "1.500", "80.00", "100", "75%") if word not in text] == []


def test_a_diverged_run_shows_in_its_rungs_row(runs: list[PlannedRun]) -> None:
    watch = Watch(runs, [1.0, 1.0], ["start"], Console())
    finish(runs[0], "diverged", None)
    finish(runs[1])
    assert "diverged" in shown(watch)


def test_progress_of_an_earlier_attempt_does_not_count_as_this_ones(runs: list[PlannedRun]) -> None:
    report_progress(runs[0], 5, at=time.time() - 60)
    assert look(runs[0], time.time() - 1).state == "waiting"


def test_the_time_left_comes_from_what_this_launch_has_done(runs: list[PlannedRun]) -> None:
    finish(runs[0])
    watch = Watch(runs, [100.0, 10.0], ["start"], Console())
    assert watch.time_left() == "Starting"  # what was done before says nothing about speed
    report_progress(runs[1], 1)
    assert watch.time_left() == "Starting"  # nor does the first step, which had to wait for the start of its process
    assert watch.first
    watch.first = (watch.first[0] - 20, watch.first[1])
    report_progress(runs[1], 5)
    assert watch.time_left() == "About 25 s left"
    finish(runs[1])
    assert watch.time_left() == "All runs are done"


def test_a_round_shows_the_answers_so_far_and_when_the_next_come(runs: list[PlannedRun]) -> None:
    answers = {"start": "+0.43 (+0.10 to +0.76) ▲ helps"}
    watch = Watch(runs, [1.0, 1.0], ["start", "other"], Console(), answers, round=2)
    finish(runs[0])
    report_progress(runs[1], 1)
    assert watch.time_left() == "Starting"
    assert watch.first
    watch.first = (watch.first[0] - 20, watch.first[1])
    report_progress(runs[1], 5)
    text = shown(watch)
    assert "change so far (95% interval), answer" in text
    assert answers["start"] in text
    assert "other" not in text  # which has no seeds yet
    assert "Round 2: the next answers in about 25 s" in text


def test_without_a_terminal_each_finished_run_is_a_line(runs: list[PlannedRun]) -> None:
    console = Console(file=io.StringIO(), width=200)
    watch = Watch(runs, [1.0, 1.0], ["start"], console)
    finish(runs[0], top1=81.25)
    finish(runs[1], "diverged", None)
    watch.follow(lambda: True)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("[1/2] start seed 0: finished, top-1 81.25.")
    assert lines[1].startswith("[2/2] start seed 1: diverged.")
    watch.follow(lambda: True)
    assert len(console.file.getvalue().splitlines()) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (89, "89 s"), (100, "2 min"), (7300, "2 h 02 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def many_rungs(tmp_path: Path, tiny_run: Callable[..., RunConfig], count: int = 60) -> list[PlannedRun]:
    planned = [PlannedRun(tiny_run(number), (f"rung_{number}",), tmp_path / str(number)) for number in range(count)]
    for run in planned:
        run.folder.mkdir()
    return planned


def test_of_more_rungs_than_lines_those_at_work_and_the_bar_are_shown(
    tmp_path: Path, tiny_run: Callable[..., RunConfig]
) -> None:
    planned = many_rungs(tmp_path, tiny_run)
    console = Console(width=80, height=24, file=io.StringIO(), force_terminal=True)
    watch = Watch(planned, [1.0] * 60, [run.rungs[0] for run in planned], console)
    finish(planned[0])
    finish(planned[1], "failed", None)
    report_progress(planned[40], 5)
    report_progress(planned[59], 5)
    lines = shown(watch).splitlines()
    assert len(lines) < 24
    text = "\n".join(lines)
    words = ("rung_40 ", "rung_59 ", "rung_1 ", "failed", "and 40 more rungs", "%")
    assert [word for word in words if word not in text] == []
    assert "rung_0 " not in text


def test_a_narrow_terminal_shows_what_matters(tmp_path: Path, tiny_run: Callable[..., RunConfig]) -> None:
    planned = many_rungs(tmp_path, tiny_run, count=2)
    watch = Watch(planned, [1.0] * 2, [run.rungs[0] for run in planned], Console(width=40, height=24))
    report_progress(planned[0], 5)
    finish(planned[1])
    text = shown(watch, width=40)
    assert [word for word in ("rung_0", "running", "80.00", "75%", "Starting") if word not in text] == []
    assert "…" not in text


def test_a_run_that_is_evaluated_is_not_yet_done(runs: list[PlannedRun]) -> None:
    watch = Watch(runs, [10.0, 10.0], ["start"], Console(), rest=4.0)
    report_progress(runs[0], 10)
    watch.time_left()
    assert watch.done_cost() == 6.0
    finish(runs[0])
    watch.time_left()
    assert watch.done_cost() == 10.0


def test_a_narrow_terminal_keeps_the_notes_of_a_plan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["plan", "--base", "resnet50", "--recipe", "smoke", "--only", "baseline", "kernel_5"]) == 0
    told = capsys.readouterr().out
    assert "note" in told
    assert "not adopted" in told
    assert "…" not in told
