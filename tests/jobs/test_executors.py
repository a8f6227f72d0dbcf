from pathlib import Path

import pytest

from roadmap.cli.arguments import EXECUTOR
from roadmap.common.errors import UserError
from roadmap.jobs.executors import EXECUTORS, FinishedLaunch
from roadmap.jobs.launcher import launch
from roadmap.jobs.options import JobOptions
from roadmap.jobs.worker import Job


class Noting:
    """An executor that notes what it is given."""

    outlives_command = False

    def __init__(self) -> None:
        self.seen: list[tuple[Job, str]] = []

    def submit(self, job: Job, name: str, options: JobOptions) -> FinishedLaunch:
        self.seen.append((job, name))
        return FinishedLaunch()


def test_the_command_line_offers_every_executor() -> None:
    assert EXECUTOR.choices == tuple(EXECUTORS)


def test_an_executor_in_the_registry_gets_the_jobs_of_those_who_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Noting()
    monkeypatch.setitem(EXECUTORS, "noting", executor)  # type: ignore[arg-type]
    jobs = launch([tmp_path / "a-s0"], JobOptions("noting", tmp_path, "ours"), number=3)
    assert jobs.is_over()
    [(job, name)] = executor.seen
    assert (name, job.items, job.launch) == ("ours-3", ["a-s0"], "ours")


def test_an_order_of_an_earlier_version_is_one_of_training(tmp_path: Path) -> None:
    from roadmap.job import Job as Former

    job = Former((tmp_path / "a-s0",), None)
    former = dict(vars(job))
    del former["task"]
    again = Former.__new__(Former)
    again.__dict__.update(former)  # as unpickling does
    assert again == job


def test_a_runs_folder_that_a_scheduler_reads_as_a_pattern_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"r%j': jobs cannot name this folder: it has a '%', .* Choose another --runs"):
        JobOptions("local", tmp_path / "r%j", "name")
    assert not list(tmp_path.iterdir())
