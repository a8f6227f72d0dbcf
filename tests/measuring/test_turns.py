import time
from collections.abc import Callable

import pytest
import torch

from roadmap.common import machine
from roadmap.common.errors import UserError
from roadmap.common.machine import choose_device
from roadmap.measuring.turns import cpu_threads, take_turns, timed


def visits_of(names: str, seen: list[str]) -> dict[str, Callable[[], int]]:
    """Return visits that note the name and give how many visits there have been."""
    return {name: lambda name=name: seen.append(name) or len(seen) for name in names}  # type: ignore[func-returns-value]


def test_the_order_is_reversed_from_round_to_round() -> None:
    seen: list[str] = []
    assert take_turns(visits_of("abc", seen), 3) == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert "".join(seen) == "abccbaabc"


def test_a_round_that_warms_up_does_not_count() -> None:
    seen: list[str] = []
    assert take_turns(visits_of("ab", seen), 2, warm_up=True) == {"a": [3, 6], "b": [4, 5]}
    assert "".join(seen) == "baabba"


def test_no_round_begins_after_the_limit_but_the_first_is_whole() -> None:
    seen: list[str] = []
    take_turns(visits_of("ab", seen), 9, limit_s=0.0)
    assert seen == ["a", "b"]


def test_progress_counts_the_visits_that_count() -> None:
    shown: list[tuple[int, int, str]] = []
    take_turns(visits_of("ab", []), 2, label=str.upper, show=lambda *step: shown.append(step), warm_up=True)
    assert [step[0] for step in shown] == [0, 0, 0, 1, 2, 3]
    assert shown[0] == (0, 4, "B: warming up")
    assert shown[-1] == (3, 4, "A: round 2 of 2")


def test_threads_are_those_of_before_whatever_happens() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def fail() -> None:
        with cpu_threads(before + 1):
            seen.append(torch.get_num_threads())
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_timed_visit_takes_as_long_as_its_work() -> None:
    assert 0.02 <= timed(lambda: time.sleep(0.02), "cpu")() < 2


@pytest.mark.parametrize(("gpus", "asked", "device"), [(0, None, "cpu"), (1, None, "cuda"), (1, "cpu", "cpu")])
def test_the_device_is_the_one_asked_for_or_a_gpu_where_there_is_one(
    gpus: int, asked: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_count_gpus", lambda: gpus)
    assert choose_device(asked) == device


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_count_gpus", lambda: 0)
    with pytest.raises(UserError, match="torch finds no GPU"):
        choose_device("cuda")
