import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roadmap.common import files
from roadmap.jobs import slurm_queue
from roadmap.jobs.launch_folders import CANCELLED, JOBS, LAUNCH
from roadmap.jobs.slurm_queue import QueuedJob
from roadmap.jobs.status import LOG_TAIL, Queue, is_at_work, look_at_queue, standing
from roadmap.ladder.ladder import read_ladder
from roadmap.runs import run_folder
from roadmap.runs.attempts import STALE_S
from roadmap.study.plan import PlannedRun
from roadmap.study.spec import StudySpec, plan_study
from tests.processes import Command
from tests.runs.test_attempts import leave_attempt

MakeRecipes = Callable[..., Path]
WAITS = QueuedJob("7_0", "a-0", 0, "PENDING", "Priority")
RUNS = QueuedJob("7_0", "a-0", 0, "RUNNING", "None")
RUNS_ELSE = QueuedJob("7_0", "interactive", 5, "RUNNING", "None")  # of the same number, after a reset of the scheduler
ENDS = QueuedJob("7_0", "a-0", 0, "COMPLETING", "None")
AHEAD = {"space": "elsewhere", "age_s": -STALE_S - 60}
THEIRS = {"space": "elsewhere", "job": "7_0", "log": "/runs/jobs/b-0/7_0_log.out"}
GONE = {"space": "elsewhere", "age_s": STALE_S + 60}


def leave_row(folder: Path, state: str, error: str | None = None, **values: Any) -> None:
    row = dict.fromkeys(run_folder.COLUMNS) | {
        "result_version": run_folder.RESULT_VERSION,
        "state": state,
        "error": error,
        "top1": 81.25 if state == "finished" else None,
    }
    files.write_json(folder / run_folder.RESULT, row | values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "run-s0"


def queue(job: QueuedJob | None = None, **fields: Any) -> Queue:
    return Queue(((job, ("run-s0",) if job.name == "a-0" else ()),) if job else (), **fields)


LAUNCHED = {"launched": {"run-s0": "/nowhere/*_0_log.out"}}
SILENT: dict[str, Any] = LAUNCHED | {"answers": False}


@pytest.mark.parametrize(
    ("attempts", "row", "seen", "state", "note"),
    [
        # Earlier attempts and the last one's worker; the result; the queue; what is said.
        ([], None, queue(), "waiting", ""),
        ([], None, queue(WAITS), "pending", "Priority"),
        ([], None, queue(RUNS), "pending", "starting"),
        ([], None, queue(**LAUNCHED), "lost", "its job ended before it began"),
        ([], None, queue(**SILENT), "pending", "unconfirmed"),
        ([], None, queue(answers=False), "waiting", ""),
        ([], "finished", queue(), "finished", ""),
        ([], "diverged", queue(), "diverged", "what happened"),
        ([], "failed", queue(), "failed", "what happened"),
        ([{}], None, queue(), "running", ""),
        ([{"space": "elsewhere"}], None, queue(), "running", ""),
        (["preempted", "died", "died", {}], None, queue(), "running", "preempted 1 time; died 2 times"),
        ([{"born": 1}], None, queue(), "lost", "died 1 time"),
        ([GONE], None, queue(), "lost", "died 1 time"),
        ([AHEAD], None, queue(), "running", "its heartbeat is 3 min ahead of this machine's clock"),
        (["stopped"], None, queue(), "interrupted", "stopped 1 time"),
        (["stopped", "died"], None, queue(), "lost", "died 1 time; stopped 1 time"),
        (["preempted"], None, queue(), "lost", "preempted 1 time"),
        # A job of the scheduler's.
        ([GONE | {"job": "7_0"}], None, queue(RUNS), "running", "no heartbeat for 3 min"),
        ([GONE | {"job": "7_0"}], None, queue(**SILENT), "running", "no heartbeat for 3 min"),
        ([{"space": "elsewhere", "job": "7_0"}], None, queue(**LAUNCHED), "lost", "died 1 time"),
        (
            [{"space": "elsewhere", "job": "7_0", "log": "/runs/jobs/b-0/log"}],
            None,
            queue(RUNS_ELSE),
            "lost",
            "died 1 time",
        ),
        ([], None, queue(ENDS), "pending", "ending"),
        ([GONE | {"job": "6"}], None, queue(RUNS), "pending", "starting; preempted 1 time"),
        ([GONE | {"job": "7_0"}], None, queue(**LAUNCHED), "lost", "died 1 time"),
        ([{"born": 1, "job": "7_0"}], None, queue(WAITS), "pending", "Priority; preempted 1 time"),
        (["preempted"], None, queue(WAITS), "pending", "Priority; preempted 1 time"),
        (["preempted"], None, queue(**SILENT), "pending", "unconfirmed; preempted 1 time"),
        (["stopped"], None, queue(**SILENT), "interrupted", "stopped 1 time"),
        (
            [{"born": 1, "launch": "a"}],
            None,
            queue(cancelled=frozenset({("a-0", "run-s0")})),
            "interrupted",
            "stopped 1 time",
        ),
        (
            [{"born": 1, "launch": "a"}],
            None,
            queue(cancelled=frozenset({("ab-0", "run-s0"), ("a-0", "other")})),
            "lost",
            "died 1 time",
        ),
        # A result says more than all else; one that failed less than who is at it again.
        ([{}], "finished", queue(RUNS), "finished", ""),
        (["died"], "diverged", queue(WAITS), "diverged", "what happened"),
        ([{}], "failed", queue(), "running", ""),
        (["failed"], "failed", queue(WAITS), "pending", "Priority"),
        (["died", "failed"], "failed", queue(**SILENT), "failed", "what happened; died 1 time"),
    ],
)
def test_where_a_run_stands_follows_from_its_folder_and_the_queue(
    attempts: list[str | dict[str, Any]], row: str | None, seen: Queue, state: str, note: str, folder: Path
) -> None:
    for number, attempt in enumerate(attempts, start=1):
        if isinstance(attempt, str):
            leave_attempt(folder, attempt, number=number)
        else:
            leave_attempt(folder, number=number, **attempt)
    if row:
        leave_row(folder, row, "what happened" if row != "finished" else None)
    stands = standing(folder, seen)
    assert stands.state == state
    assert re.fullmatch(note, stands.note), stands.note
    in_doubt = AHEAD in attempts  # a job that looks at it longer finds out
    assert is_at_work(folder, seen) == (state in ("running", "pending") and not in_doubt)


def test_the_log_is_that_of_the_last_attempt_and_its_end_is_shown(folder: Path, tmp_path: Path) -> None:
    log = folder.parent / JOBS / "log"
    log.parent.mkdir(parents=True)
    leave_attempt(folder, "died", log=str(tmp_path / "old"))
    leave_attempt(folder, "died", number=2, log=str(log))
    stands = standing(folder, Queue())
    assert stands.log == log
    assert stands.log_tail() == []  # not there (yet)
    log.write_bytes(b"\xff\n" + b"".join(b"%d\n" % number for number in range(100)))
    assert stands.log_tail() == [str(number) for number in range(100)][-LOG_TAIL:]
    log.unlink()
    log.mkdir()
    assert stands.log_tail() == []
    assert standing(tmp_path, Queue()).log_tail() == []


@pytest.mark.parametrize("wrong", [{"result_version": 99}, {"top1": -50.0}, {"top1": 1e17}, {"top1": None}])
def test_a_run_whose_result_is_none_has_failed_and_says_so(wrong: dict[str, Any], folder: Path) -> None:
    leave_row(folder, "finished", **wrong)
    stands = standing(folder, Queue())
    assert stands.state == "failed"
    assert "result.json: " in stands.note


@pytest.mark.parametrize("log", ["/dev/tty", "/etc/passwd", "../../secret", "\0", "jobs/a-0/../../../secret"])
def test_only_the_log_of_a_launch_is_shown_whatever_an_attempt_names(log: str, folder: Path) -> None:
    (folder.parent.parent / "secret").write_text("secret")
    leave_attempt(folder, "died", log=log if log[0] == "/" else f"{folder.parent}/{log}")
    assert standing(folder, Queue()).log_tail() == []


def test_the_end_of_a_log_is_read_and_no_terminal_obeys_it(folder: Path) -> None:
    logs = folder.parent / JOBS / "a-0"
    logs.mkdir(parents=True)
    leave_attempt(folder, "died", log=str(logs / "1_0_log.out"))
    with (logs / "1_0_log.out").open("w") as file:
        file.truncate(10**12)
        file.seek(0, 2)
        file.write("\n\x1b]0;title\x07 done\n")
    assert standing(folder, Queue()).log_tail()[-1] == r"\x1b]0;title\x07 done"
    (logs / "1_0_log.out").unlink()
    os.mkfifo(logs / "1_0_log.out")
    assert standing(folder, Queue()).log_tail() == []


def test_what_a_row_says_of_its_failure_is_shown_without_control_characters(folder: Path) -> None:
    leave_row(folder, "failed", "\x1b[2Jbad\nworse")
    assert standing(folder, Queue()).note == r"\x1b[2Jbad\nworse"


# -- the queue


def leave_launch(runs: Path, name: str, content: Any) -> Path:
    files.write_json(runs / JOBS / name / LAUNCH, content)
    return runs / JOBS / name


@pytest.fixture
def squeue(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What `squeue` will print (None: nothing, it fails); how often it was asked follows."""
    says: list[str | None] = [None]

    def ask(*command: str) -> str | None:
        assert command[0] == "squeue"
        says.append("asked")
        return says[0]

    monkeypatch.setattr(slurm_queue, "_ask", ask)
    return says


def test_the_scheduler_is_asked_only_if_something_was_submitted(tmp_path: Path, squeue: list[str | None]) -> None:
    assert look_at_queue(tmp_path) == Queue()
    leave_launch(tmp_path, "a-0", {"name": "a-0", "executor": "local", "jobs": [["r"]]})
    assert look_at_queue(tmp_path) == Queue()
    assert squeue == [None]
    leave_launch(tmp_path, "b-0", {"name": "b-0", "executor": "slurm", "jobs": [["r"], ["s"]]})
    seen = look_at_queue(tmp_path)
    assert (seen.jobs, set(seen.launched), seen.answers) == ((), {"r", "s"}, False)
    assert squeue == [None, "asked"]


def test_jobs_in_the_queue_are_matched_to_their_runs_by_launch_and_number(
    tmp_path: Path, squeue: list[str | None]
) -> None:
    leave_launch(tmp_path, "a-0", {"name": "a-0", "executor": "slurm", "jobs": [["r", "s"], ["t"]]})
    leave_launch(tmp_path, "a-1", {"name": "a-1", "executor": "slurm", "jobs": [["u"]]})
    squeue[0] = (
        "12_1|1|PENDING|Resources|a-0\n12_0|0|RUNNING|None|a-0\n13|N/A|PENDING|None|a-1\n"
        "14_0|0|RUNNING|None|another's\n12_9|9|PENDING|None|a-0\nslurm_load_jobs error\n\n"
    )
    seen = look_at_queue(tmp_path)
    assert {run: (job.id, job.state) for run, job in seen.job_of.items()} == {
        "r": ("12_0", "RUNNING"), "s": ("12_0", "RUNNING"), "t": ("12_1", "PENDING"), "u": ("13", "PENDING")
    }  # fmt: skip
    assert set(seen.launched) == set("rstu")
    assert standing(tmp_path / "t", seen).note == "Resources"


def test_a_cancelled_launch_owes_nothing_but_its_jobs_are_seen_while_they_last(
    tmp_path: Path, squeue: list[str | None]
) -> None:
    folder = leave_launch(tmp_path, "a-0", {"name": "a-0", "executor": "slurm", "jobs": [["r"], ["s"]]})
    files.write_json(folder / CANCELLED, ["r", "s"])
    squeue[0] = "12_1|1|RUNNING|None|a-0\n"
    seen = look_at_queue(tmp_path)
    assert [standing(tmp_path / run, seen).state for run in "rs"] == ["waiting", "pending"]
    assert (seen.launched, seen.cancelled) == ({}, frozenset({("a-0", "r"), ("a-0", "s")}))


@pytest.mark.parametrize(
    "content",
    [
        None, [], {}, "x", {"executor": "slurm"}, {"executor": 3, "jobs": []}, {"executor": "slurm", "jobs": 3},
        {"executor": "slurm", "jobs": [3, None]}, {"executor": "slurm", "jobs": [[{}]]},
    ],
)  # fmt: skip
def test_a_damaged_launch_is_left_out(content: Any, tmp_path: Path, squeue: list[str | None]) -> None:
    leave_launch(tmp_path, "a-0", content)
    (leave_launch(tmp_path, "b-0", {}) / LAUNCH).write_text('{"executor": "slu')
    squeue[0] = "12_0|0|RUNNING|None|a-0\n"
    seen = look_at_queue(tmp_path)
    assert (seen.job_of, seen.launched) == ({}, {})


def test_a_scheduler_that_is_not_there_fails_or_hangs_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_queue, "ASK_TIMEOUT_S", 0.2)
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_queue.read_queue() is None
    for script, expected in (("exit 1", None), ("exec /bin/sleep 5", None), ("echo '1|0|PENDING|None|a'", 1)):
        squeue.write_text(f"#!/bin/sh\n{script}\n")
        squeue.chmod(0o755)
        if expected:
            monkeypatch.setattr(slurm_queue, "ASK_TIMEOUT_S", 20)
        found = slurm_queue.read_queue()
        assert (found if found is None else len(found)) == expected, script


def test_a_job_of_any_name_may_be_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nprintf '1|0|PENDING|None|caf\\351\\n2|0|RUNNING|None|a|b\\n'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = slurm_queue.read_queue()
    assert found is not None
    assert [job.name for job in found] == ["caf\ufffd", "a|b"]


# -- the screen


@pytest.fixture
def study(tmp_path: Path, write_recipes: MakeRecipes, small_images: Path) -> tuple[list[PlannedRun], list[str]]:
    recipe = write_recipes()
    options = ["--base", "resnet50", "--recipe", str(recipe), "--data", str(small_images)]
    runs = tmp_path / "work" / "runs"
    planned = plan_study(StudySpec("resnet50", str(recipe), read_ladder(), runs=runs, data_root=small_images)).planned()
    log = runs / JOBS / "log"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback\nMemoryError: far too much\n")
    leave_row(planned[0].folder, "finished", top1=81.25)
    leave_row(planned[1].folder, "diverged", "the loss is nan at step 4")
    leave_row(planned[2].folder, "failed", "MemoryError: far [too] much")
    leave_attempt(planned[2].folder, "failed", log=str(log))
    leave_attempt(planned[3].folder, space="elsewhere")
    leave_attempt(planned[4].folder, "stopped")
    leave_attempt(planned[5].folder, born=1)
    now = {"state": "running", "epoch": 2, "epochs": 9, "step": 15, "steps": 90, "left_s": 40.0, "at": 0.0}
    for run in planned[3:5]:
        files.write_json(run.folder / run_folder.PROGRESS, now | {"train_loss": 1.0, "images_per_s": 1.0})
    return planned, options


def test_status_prints_every_run_with_what_it_knows(
    study: tuple[list[PlannedRun], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, options = study
    monkeypatch.setenv("COLUMNS", "80")
    rows = Command(tmp_path / "work", "status", *options, "--json").wait().rows()
    fields = ["rung", "seed", "run", "state", "epoch", "step", "left_s", "top1", "measured", "note", "log"]
    assert all(list(row) == fields for row in rows)
    assert [row["run"] for row in rows] == [run.config.id for run in planned]
    states = ["finished", "diverged", "failed", "running", "interrupted", "lost"]
    assert [row["state"] for row in rows] == states + ["waiting"] * (len(planned) - 6)
    assert [row["top1"] for row in rows[:2]] == [81.25, None]
    assert [row["note"] for row in rows[:6]] == [
        "", "the loss is nan at step 4", "MemoryError: far [too] much", "", "stopped 1 time", "died 1 time"
    ]  # fmt: skip
    assert [(row["epoch"], row["step"], row["left_s"]) for row in rows[2:6]] == [
        ("", "", None), ("2/9", "15/90", 40.0), ("2/9", "15/90", None), ("", "", None)
    ]  # fmt: skip
    assert rows[2]["log"] == str(tmp_path / "work" / "runs" / JOBS / "log")
    ended = Command(tmp_path / "work", "status", *options).wait()
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    for run, state in zip(planned, states, strict=False):
        assert any(re.match(rf"{run.rungs[0]} +0 +{state}\b", line) for line in lines), run.rungs
    assert any(re.search(r"running +epoch 2/9, 40 s left", line) for line in lines)
    assert any(re.search(r"finished +top-1 81\.25", line) for line in lines)
    text = " ".join(ended.out.split())
    assert "far [too] much" in text
    assert f"seed 0, the end of {rows[2]['log']}: Traceback".replace(" ", "") in text.replace(" ", "")  # it is long
    assert "Traceback MemoryError: far too much" in text
    assert "17 runs: 1 finished, 1 diverged, 1 failed, 1 running, 1 interrupted, 1 lost, 11 waiting." in text


def test_status_says_that_slurm_does_not_answer(
    study: tuple[list[PlannedRun], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, options = study
    monkeypatch.setenv("PATH", "/nowhere")
    last = planned[-1].config.id
    leave_launch(tmp_path / "work" / "runs", "a-0", {"name": "a-0", "executor": "slurm", "jobs": [[last]]})
    ended = Command(tmp_path / "work", "status", *options).wait()
    assert ended.code == 0
    assert "Slurm does not answer: what waits in its queue cannot be told now." in ended.out
    rows = [
        json.loads(line) for line in Command(tmp_path / "work", "status", *options, "--json").wait().out.splitlines()
    ]
    assert (rows[-1]["state"], rows[-2]["state"]) == ("pending", "waiting")


def test_a_run_whose_job_was_requeued_from_another_machine_waits_and_does_not_run(folder: Path) -> None:
    leave_attempt(folder, job="7_0", **GONE)
    assert standing(folder, queue(WAITS)).state == "pending"
    assert standing(folder, queue(RUNS)).state == "running"


def test_a_job_that_died_before_its_first_attempt_shows_its_log(tmp_path: Path, squeue: list[str | None]) -> None:
    there = leave_launch(tmp_path, "a-0", {"executor": "slurm", "jobs": [["r"], ["s"]]})
    (there / "12_1_0_log.out").write_text("module: command not found\n")
    squeue[0] = ""
    seen = look_at_queue(tmp_path)
    assert standing(tmp_path / "s", seen).log_tail() == ["module: command not found"]
    assert standing(tmp_path / "r", seen).log is None
