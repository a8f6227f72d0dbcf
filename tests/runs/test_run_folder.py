import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.files import write_atomically, write_json
from roadmap.runs import run_folder
from roadmap.runs.attempts import ATTEMPTS
from roadmap.runs.claims import Writer
from roadmap.runs.config import RunConfig, read_config, read_run_file
from roadmap.runs.run_folder import COLUMNS, METRICS, RESULT, RESULT_VERSION
from roadmap.training.loop import Stopped, train
from tests.processes import fork

NAMES = st.sampled_from(
    ["config", "training_version", "net", "recipe", "data", "seed", "result_version", "state", "top1"]
)
ANYTHING = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5),
)
ROW = dict.fromkeys(COLUMNS) | {"result_version": RESULT_VERSION, "state": "finished", "top1": 81.25}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Refuse to let files grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- writing


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "row.json", {"a": 1})
    assert files.read_json(tmp_path / "new" / "row.json") == {"a": 1}
    assert os.listdir(tmp_path / "new") == ["row.json"]


def test_a_file_that_no_longer_fits_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    write_json(path, "old")
    with (
        files_of_at_most(1000),
        pytest.raises(UserError, match=r"row\.json: cannot be written .*Nothing there was changed"),
    ):
        write_json(path, "x" * 2000)
    assert files.read_json(path) == "old"
    assert os.listdir(tmp_path) == ["row.json"]


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "row.json"
    write_json(path, "old")
    with pytest.raises(UserError, match=r"row\.json: cannot be written \(No space left on device\)"):
        write_json(path, "x" * 100_000)
    assert files.read_json(path) == "old"
    assert os.listdir(small_disk) == ["row.json"]


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_said_and_leaves_nothing(
    tiny_run: Callable[..., RunConfig], small_images: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        train(tiny_run(), small_disk, data_root=small_images, asked=lambda: "stop")
    assert "checkpoint: cannot be written (No space left on device)" in capsys.readouterr().out
    assert not any("checkpoint" in name for name in os.listdir(small_disk))


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "row.json", tmp_path / "file" / "deeper" / "row.json"):
        with pytest.raises(UserError, match=r"row\.json: cannot be written"):
            write_json(path, {})


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_writer_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    def interrupted(file: IO[bytes]) -> None:
        file.write(b"half of the")
        raise error

    path = tmp_path / "row.json"
    write_json(path, "old")
    with pytest.raises(error):
        write_atomically(path, interrupted)
    assert files.read_json(path) == "old"
    assert os.listdir(tmp_path) == ["row.json"]


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    contents = ["a" * 200_000, "b" * 100_000]
    write_json(path, contents[0])
    writer = fork(_write_by_turns, path, contents, 200)
    seen = set()
    while writer.is_alive():
        seen.add(files.read_json(path))
    assert seen == set(contents)


def _write_by_turns(path: Path, contents: list[str], times: int) -> None:
    for number in range(times):
        write_json(path, contents[number % len(contents)])


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.open()
    for name in (".checkpoint.0123", f".{RESULT}.0123", ".progress.json", ".run.json.old"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".run.json.old", (0, 0))
    kept = {run_folder.RUN, RESULT, ".lock", f".{run_folder.RUN}.0123"}  # another process may be writing run.json
    for name in kept:
        (tmp_path / name).touch()
    run_folder.sweep(writer)
    assert set(os.listdir(tmp_path)) == {*kept, ATTEMPTS}


# -- reading


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / RESULT, ROW)
    assert run_folder.read_result(tmp_path) == ROW


def test_half_of_a_result_is_none(tmp_path: Path) -> None:
    assert run_folder.read_result(tmp_path) is None
    assert run_folder.read_result(tmp_path / "nowhere") is None
    text = json.dumps(ROW)
    for length in (0, 1, 20, len(text) - 1):
        (tmp_path / RESULT).write_text(text[:length])
        assert run_folder.read_result(tmp_path) is None
        assert not run_folder.is_done(tmp_path)
    (tmp_path / RESULT).write_bytes(bytes(len(text)))  # what a file system may make of it after a power cut
    assert run_folder.read_result(tmp_path) is None


def test_a_result_in_a_place_that_is_no_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run_folder.read_result(tmp_path / "file") is None


def test_a_result_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    (tmp_path / RESULT).mkdir()
    with pytest.raises(UserError, match=r"result\.json: cannot be read \(Is a directory\)"):
        run_folder.read_result(tmp_path)


@pytest.mark.parametrize("version", [0, RESULT_VERSION + 1, None])
def test_a_result_of_another_version_is_refused(version: int | None, tmp_path: Path) -> None:
    write_json(tmp_path / RESULT, ROW | {"result_version": version})
    with pytest.raises(
        UserError, match=rf"result_version is {version}, but this program reads {RESULT_VERSION}\. .*version"
    ):
        run_folder.read_result(tmp_path)


@pytest.mark.parametrize(("state", "done"), [("finished", True), ("diverged", True), ("failed", False)])
def test_a_failed_run_is_not_done(state: str, done: bool, tmp_path: Path) -> None:
    write_json(tmp_path / RESULT, ROW | {"state": state})
    assert run_folder.is_done(tmp_path) == done


def test_half_of_a_last_line_of_metrics_is_left_out(tmp_path: Path) -> None:
    assert run_folder.read_metrics(tmp_path) == []
    lines: list[dict[str, Any]] = [{"epoch": 1, "train_loss": 2.5}, {"epoch": 2, "train_loss": 1.5}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / METRICS).write_text(text)
    assert run_folder.read_metrics(tmp_path) == lines
    for cut in (2, 10, len(text) // 2 - 2):
        (tmp_path / METRICS).write_text(text[:-cut])
        assert run_folder.read_metrics(tmp_path) == lines[:1]


# -- predictions


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)), min_size=1))
def test_predictions_say_which_images_were_right_in_few_bytes(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs).T
    with TemporaryDirectory() as folder:
        writer = Writer(Path(folder))
        writer.open()
        run_folder.write_predictions(writer, predicted, labels)
        right = run_folder.read_right(Path(folder))
        assert right is not None
        assert right.tolist() == [one == other for one, other in pairs]


def test_predictions_of_ten_classes_take_two_bytes_an_image(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 10_000)
    writer = Writer(tmp_path)
    writer.open()
    run_folder.write_predictions(writer, labels, labels)
    assert (tmp_path / run_folder.PREDICTIONS).stat().st_size < 2 * 10_000 + 200


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in (RESULT, METRICS, run_folder.PROGRESS, run_folder.PREDICTIONS, run_folder.RUN):
        os.mkfifo(tmp_path / name)
    for read in (run_folder.read_result, run_folder.read_progress, read_config):
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path)
    assert run_folder.read_metrics(tmp_path) == []
    assert run_folder.read_right(tmp_path) is None


def test_predictions_whose_head_promises_terabytes_take_no_memory(tmp_path: Path) -> None:
    with (tmp_path / run_folder.PREDICTIONS).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2, 10**13)})
    assert run_folder.read_right(tmp_path) is None


@settings(max_examples=200, deadline=None)
@given(content=ANYTHING)
def test_any_content_of_the_files_of_a_run_is_read_or_named(content: Any) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name in (RESULT, METRICS, run_folder.PROGRESS, run_folder.PREDICTIONS, run_folder.RUN):
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        for read in (run_folder.read_result, run_folder.read_progress, read_run_file, read_config):
            with suppress(UserError):
                read(folder)
        run_folder.read_metrics(folder)
        run_folder.read_right(folder)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00 and then nothing", None, np.zeros((3, 4)), np.float64(1)])
def test_predictions_that_are_missing_damaged_or_something_else_are_not_known(content: Any, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / run_folder.PREDICTIONS).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / run_folder.PREDICTIONS, content)
    assert run_folder.read_right(tmp_path) is None


def test_predictions_are_data_and_never_executed(tmp_path: Path) -> None:
    np.save(tmp_path / run_folder.PREDICTIONS, np.array([[print], [print]]), allow_pickle=True)
    assert run_folder.read_right(tmp_path) is None


# -- what is not ours


@pytest.mark.parametrize("left_s", ["x", [1], float("nan"), float("inf"), 10**400, True])
def test_progress_with_a_time_that_is_none_is_none_or_a_number(left_s: Any, tmp_path: Path) -> None:
    now = {"state": "running", "epoch": 1, "epochs": 2, "step": 3, "steps": 4, "at": 0.0}
    write_json(tmp_path / run_folder.PROGRESS, now)
    assert run_folder.read_progress(tmp_path) == now | dict.fromkeys(("left_s", "train_loss", "images_per_s"))
    write_json(tmp_path / run_folder.PROGRESS, now | {"left_s": left_s})
    found = run_folder.read_progress(tmp_path)
    assert found is None or 0 <= found["left_s"] < 1e18


def test_a_bare_result_has_every_column_and_an_error_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / RESULT, {"result_version": RESULT_VERSION, "state": "finished", "top1": 1})
    row = run_folder.read_result(tmp_path)
    assert row is not None
    assert row.keys() == COLUMNS.keys()
    write_json(tmp_path / RESULT, ROW | {"error": 5})
    with pytest.raises(UserError, match="is no result row"):
        run_folder.read_result(tmp_path)


def test_a_number_too_long_to_read_is_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text('{"result_version": ' + "9" * 5000 + "}")
    assert run_folder.read_result(tmp_path) is None


@pytest.mark.parametrize(("number", "may_pass"), [(28, True), (116, True), (5, True), (13, False), (2, False)])
def test_what_may_pass_is_told_from_what_stays_also_behind_another_error(number: int, may_pass: bool) -> None:
    error = UserError("cannot be read")
    error.__cause__ = OSError(number, os.strerror(number))
    assert files.may_pass(error) == may_pass
    assert not files.may_pass(UserError("something else"))


def test_a_row_may_lack_columns_and_have_ones_that_this_program_does_not_know(tmp_path: Path) -> None:
    write_json(tmp_path / RESULT, {"result_version": RESULT_VERSION, "state": "finished", "top1": 80.5, "energy_j": 3})
    row = run_folder.read_result(tmp_path)
    assert row == dict.fromkeys(COLUMNS) | {"result_version": 1, "state": "finished", "top1": 80.5, "energy_j": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"top1": True},
        {"top1": None},
        {"top1": -50.0},
        {"top1": 100.5},
        {"top1": 1e17},
        {"top1": 10**400},
        {"top5": 101},
        {"nll": -1},
        {"top1_per_class": [50.0, 1e9]},
        {"images_seen": -1},
        {"top1": "80"},
        {"state": "won"},
        {"top1": float("nan")},
        {"images_seen": 0.5},
        {"classes": "ten"},
    ],
    ids=str,
)
def test_a_row_with_a_wrong_value_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / RESULT, ROW | wrong)
    with pytest.raises(UserError, match=r"is no result row\. Move the folder away"):
        run_folder.read_result(tmp_path)


def test_counts_are_read_as_whole_numbers(tmp_path: Path) -> None:
    now = {"state": "running", "epoch": 1, "epochs": 2, "step": 3, "steps": 4, "at": 0.5}
    write_json(tmp_path / run_folder.PROGRESS, now)
    read = run_folder.read_progress(tmp_path) or {}
    assert [repr(read[name]) for name in ("epoch", "epochs", "step", "steps")] == ["1", "2", "3", "4"]
    write_json(tmp_path / RESULT, ROW | {"images_seen": 100})
    assert repr((run_folder.read_result(tmp_path) or {})["images_seen"]) == "100"
