import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from roadmap.common.errors import UserError
from roadmap.common.machine import Machine
from roadmap.jobs.pool import work_through


def double(path: Path, number: int, tell: Callable[[str], None]) -> None:
    tell(f"at {number}")
    if number == 2:
        raise ValueError("no twos")
    (path / str(number)).write_text(f"{2 * number} {os.environ['OMP_NUM_THREADS']}")


def die(tell: Callable[[str], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_items_are_done_in_processes_of_their_own_and_one_that_fails_costs_itself_alone(tmp_path: Path) -> None:
    items = [partial(double, tmp_path, number) for number in (1, 2, 3)]
    heard = []
    errors = work_through(items, Machine(2, 0, 1), lambda item, told: heard.append(told))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]
    assert (tmp_path / "3").read_text() == "6 1"
    assert [type(error) for error in errors] == [type(None), ValueError, type(None)]
    assert set(heard) <= {"at 1", "at 2", "at 3"}


def test_a_process_that_is_killed_is_said_to_be() -> None:
    with pytest.raises(UserError, match="a process of this command was killed"):
        work_through([die], Machine(1, 0, 1), lambda item, told: None)
