import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.training import loop as train_module
from roadmap.training.checkpoints import KEPT, checkpoints, read_last, remove_checkpoints, write_checkpoint
from roadmap.training.loop import Request, Stopped, train
from tests.conftest import small_file_system
from tests.processes import Left, outcome, writing

MakeRun = Callable[..., RunConfig]
CONTENT: dict[str, Any] = {"model": {"weight": torch.arange(6.0)}, "step": 3, "history": [{"epoch": 1}], "ema": None}


def steps(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in checkpoints(folder)]


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)


# -- files


def test_the_last_two_checkpoints_are_kept_and_the_latest_is_read(tmp_path: Path) -> None:
    assert KEPT == 2
    with writing(tmp_path) as writer:
        assert read_last(writer, "cpu") is None
        for step in (9, 10, 99, 100):
            write_checkpoint(writer, step, CONTENT | {"step": step})
        assert steps(tmp_path) == [100, 99]
        found = read_last(writer, "cpu")
        assert found is not None
        path, content = found
        assert path == checkpoints(tmp_path)[0]
        assert content["step"] == 100
        assert torch.equal(content["model"]["weight"], CONTENT["model"]["weight"])
        remove_checkpoints(writer)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_a_checkpoint_with_any_bit_flipped_or_its_end_cut_off_is_not_believed(
    position: int, bit: int, cut: bool
) -> None:
    with TemporaryDirectory() as place, writing(folder := Path(place)) as writer:
        for step in (1, 2):
            write_checkpoint(writer, step, CONTENT | {"step": step})
        newest, older = checkpoints(folder)
        if cut:
            os.truncate(newest, position % newest.stat().st_size)
        else:
            flip(newest, position, bit)
        found = read_last(writer, "cpu")
        assert found is not None
        assert (found[0], found[1]["step"]) == (older, 1)
        assert checkpoints(folder) == [older]


def test_a_checkpoint_is_data_and_never_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"model": Trap()}, tmp_path / "trap")
    digest = hashlib.sha256((tmp_path / "trap").read_bytes()).hexdigest()  # so its checksum is right
    (tmp_path / "trap").rename(tmp_path / f"checkpoint-000000009-{digest}.pt")
    with writing(tmp_path) as writer:
        assert read_last(writer, "cpu") is None
    assert "Weights only load failed" in capsys.readouterr().out
    assert not (tmp_path / "executed").exists()


def test_files_of_other_names_are_no_checkpoints_and_stay(tmp_path: Path) -> None:
    others = ["checkpoint.pt", "checkpoint-3.pt", f"checkpoint-x-{'0' * 64}.pt", f"checkpoint-3-{'0' * 64}.pt.part"]
    for name in others:
        (tmp_path / name).touch()
    with writing(tmp_path) as writer:
        assert read_last(writer, "cpu") is None
        for step in range(4):
            write_checkpoint(writer, step, CONTENT)
        remove_checkpoints(writer)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_what_was_saved_before_outlives_a_full_disk(small_disk: Path) -> None:
    with writing(small_disk) as writer:
        write_checkpoint(writer, 1, CONTENT)
        before = sorted(small_disk.rglob("*"))
        with pytest.raises(files.Unwritable, match="No space left on device"):
            write_checkpoint(writer, 2, CONTENT | {"model": torch.zeros(100_000)})
        assert sorted(small_disk.rglob("*")) == before
        write_checkpoint(writer, 2, CONTENT)
    assert steps(small_disk) == [2, 1]


# -- runs


@pytest.fixture(autouse=True)
def look_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "LOOK_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def config(tiny_run: MakeRun) -> RunConfig:
    return tiny_run(batch_size=64)


@pytest.fixture(scope="module")
def undisturbed(config: RunConfig, small_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(config, folder, data_root=small_images)
    return outcome(folder)


def stop_after(count: int) -> Callable[[], Request]:
    requests: Iterator[Request] = iter([""] * (count - 1))
    return lambda: next(requests, "stop")


@pytest.mark.parametrize(
    "wrong", [{"step": "3"}, {"step": -1}, {"history": [3]}, {"loss_sum": float("nan")}, {"wall_s": None}]
)
def test_a_checkpoint_of_something_else_is_removed_and_the_next_start_goes_on_from_the_one_before(
    wrong: dict[str, Any], config: RunConfig, undisturbed: Left, small_images: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train(config, tmp_path, data_root=small_images, save_every_s=0.0, asked=stop_after(3))
    with writing(tmp_path) as writer:
        write_checkpoint(writer, 9, torch.load(checkpoints(tmp_path)[0], weights_only=True) | wrong)
    with pytest.raises(UserError, match="not a checkpoint of this run, so it was removed"):
        train(config, tmp_path, data_root=small_images)
    train(config, tmp_path, data_root=small_images)
    assert outcome(tmp_path) == undisturbed


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_run_goes_on_from_the_last_whole_checkpoint_and_ends_as_if_nothing_had_been(
    damaged: int,
    config: RunConfig,
    undisturbed: Left,
    small_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Stopped):
        train(config, tmp_path, data_root=small_images, save_every_s=0.0, asked=stop_after(7))
    assert steps(tmp_path) == [7, 6]
    broken = checkpoints(tmp_path)[:damaged]
    for path in broken:
        flip(path, 10_000, 3)
    capsys.readouterr()
    train(config, tmp_path, data_root=small_images)
    said = capsys.readouterr().out
    assert said.count("damaged (its checksum differs) and removed. What was saved before it is used.") == damaged
    assert all(f"{path}: damaged" in said for path in broken)
    assert [f"goes on from step {step}" in said for step in (7, 6)] == [damaged == 0, damaged == 1]
    assert outcome(tmp_path) == undisturbed


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for what a finished run leaves."""
    with small_file_system(tmp_path / "disk", "1m") as disk:
        yield disk


def fill(disk: Path) -> Path:
    """Leave no room on a file system; return what to remove to make some."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return ballast


def test_a_run_goes_on_without_the_checkpoints_that_a_disk_has_no_room_for(
    config: RunConfig, undisturbed: Left, small_images: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = disk / "run"
    folder.mkdir()
    ballast = fill(disk)
    asked = 0

    def free_at_the_end() -> Request:
        nonlocal asked
        asked += 1
        if asked == 9:
            ballast.unlink()
        return ""

    train(config, folder, data_root=small_images, save_every_s=0.0, asked=free_at_the_end)
    said = capsys.readouterr().out
    assert said.count("No space left on device). Nothing there was changed. The run goes on without this") >= 7
    assert outcome(folder) == undisturbed


def test_a_result_waits_for_room_on_a_full_disk(
    config: RunConfig,
    undisturbed: Left,
    small_images: Path,
    disk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "RETRY_EVERY_S", 0.02)
    folder = disk / "run"
    folder.mkdir()
    ballast = fill(disk)
    refused = threading.Event()

    def make_room() -> None:
        if refused.wait(60):
            assert not run_folder.is_done(folder)
            ballast.unlink()

    say = train_module.say

    def listen(line: str) -> None:
        say(line)
        if "Trying again for" in line:
            refused.set()

    monkeypatch.setattr(train_module, "say", listen)
    thread = threading.Thread(target=make_room)
    thread.start()
    row = train(config, folder, data_root=small_images)
    thread.join()
    assert row["state"] == "finished"
    assert "No space left on device). Nothing there was changed. Trying again for 600 s." in capsys.readouterr().out
    assert outcome(folder) == undisturbed


@pytest.mark.parametrize("why", ["time is up", "asked to stop"])
def test_a_result_does_not_wait_for_ever_and_what_was_saved_stays(
    why: str, config: RunConfig, undisturbed: Left, small_images: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RETRY_EVERY_S", 0.02)
    monkeypatch.setattr(files, "PATIENCE_S", 0.1 if why == "time is up" else 600.0)
    folder = disk / "run"
    folder.mkdir()
    with pytest.raises(Stopped):
        train(config, folder, data_root=small_images, asked=stop_after(9))
    ballast = fill(disk)
    last = iter(["", "stop"] if why == "asked to stop" else [])
    with pytest.raises(files.Unwritable):
        train(config, folder, data_root=small_images, asked=lambda: next(last, ""))  # type: ignore[arg-type]
    assert steps(folder) == [9]
    ballast.unlink()
    train(config, folder, data_root=small_images)
    assert outcome(folder) == undisturbed
