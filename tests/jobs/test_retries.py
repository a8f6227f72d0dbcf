import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadmap.jobs.options import JobOptions
from roadmap.jobs.retries import Retries
from roadmap.runs import attempts
from tests.runs.test_attempts import leave_attempt

Process = subprocess.Popen[bytes]


@pytest.fixture
def other() -> Iterator[Process]:
    """The process of another command's job."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_run_that_another_commands_job_held_when_it_died_is_tried_again(tmp_path: Path, other: Process) -> None:
    folder = tmp_path / "run-s0"
    leave_attempt(folder, pid=other.pid, born=attempts._born(other.pid), launch="theirs")
    retries = Retries([folder], JobOptions("local", tmp_path, "ours"))
    assert not retries.are_over(None)
    other.kill()
    other.wait()
    assert retries.are_over(None)
    assert retries.to_try_again() == [folder]
    assert retries.to_try_again() == []  # that launch came to nothing


def test_a_launch_that_came_to_nothing_is_not_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "run-s0"
    leave_attempt(folder, "died", launch="theirs")
    retries = Retries([folder], JobOptions("local", tmp_path, "ours"))
    assert retries.are_over(None)
    assert retries.to_try_again() == []
