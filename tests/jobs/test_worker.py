import errno
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from roadmap.cli.main import main
from roadmap.common.errors import UserError
from roadmap.common.files import LostWorker, MayPass
from roadmap.common.machine import NEW_OBJECTS
from roadmap.jobs.tasks import Failure, Setting, is_from_outside
from roadmap.jobs.worker import Job
from roadmap.runs.attempts import End, ends
from roadmap.runs.claims import Writer
from tests.processes import ROOT


@pytest.mark.parametrize(
    "error",
    [
        LostWorker("a decoding worker was killed (Killed)"),
        MayPass("no room in /dev/shm"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    ],
)
def test_what_comes_from_outside_a_run_is_known_by_its_kind_and_tried_again(error: Exception) -> None:
    assert is_from_outside(error)


def test_want_of_a_processors_memory_comes_from_outside() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert is_from_outside(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: not so, a step of the user's says this"),
        UserError("a.jpg: cannot be decoded"),
        ValueError("out of memory"),
        OSError(errno.EACCES, "Permission denied"),
    ],
)
def test_what_a_run_does_itself_is_not(error: Exception) -> None:
    assert not is_from_outside(error)


class Killed:
    """A task whose decoding worker is always killed."""

    interruptible = False

    def place(self, folder: Path) -> Path:
        return folder

    def is_done(self, folder: Path) -> bool:
        return False

    def failure(self, folder: Path) -> Failure | None:
        note = folder / "failed"
        return Failure(note, {}) if note.is_file() else None

    def do(self, folder: Path, setting: Setting) -> tuple[End, str]:
        raise LostWorker("a decoding worker was killed (Bus error)")

    def fail(self, writer: Writer, reason: str, wall_s: float | None = None) -> None:
        (writer.folder / "failed").write_text(reason)


def test_a_run_whose_worker_is_always_killed_is_tried_so_often_and_says_why_it_failed(tmp_path: Path) -> None:
    Job((tmp_path,), None, launch="name", max_retries=2, task=Killed())()
    assert ends(tmp_path, "name") == {"died": 3, "failed": 1}
    assert (tmp_path / "failed").read_text() == ("ended 3 times: LostWorker: a decoding worker was killed (Bus error)")


@pytest.mark.parametrize(
    "start", [Job((), None), lambda: main(["verify", "--base", "resnet50", "--json"])], ids=["job", "command"]
)
def test_a_job_and_a_command_collect_garbage_rarely_and_leave_the_collector_as_it_was(
    start: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, found, set_threshold = gc.get_threshold(), [], gc.set_threshold

    def note(*numbers: int) -> None:
        found.append(numbers)
        set_threshold(*numbers)

    monkeypatch.setattr(gc, "set_threshold", note)
    start()
    assert found == [(NEW_OBJECTS,), before]
    assert gc.get_threshold() == before


def test_a_process_that_collected_rarely_does_not_at_its_end() -> None:
    script = """\
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 0))  # what is registered first comes last
from roadmap.common.machine import collecting_garbage_rarely
with collecting_garbage_rarely():
    print(gc.get_freeze_count())
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["0", "True"]
