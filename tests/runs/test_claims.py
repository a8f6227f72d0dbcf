import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from roadmap.common import files
from roadmap.jobs.worker import LOST, Job
from roadmap.runs import claims, run_folder
from roadmap.runs.attempts import ATTEMPTS, Worker, last_attempt
from roadmap.runs.claims import Claim, Lost, Writer, take
from roadmap.runs.config import RunConfig
from tests.processes import writing
from tests.runs.test_attempts import fall_silent, leave_attempt, names, nobody
from tests.stops import AtChange, AtNumber, Stop, contents, of_the_run, stop_and_continue

ROW = dict.fromkeys(run_folder.COLUMNS) | {"result_version": run_folder.RESULT_VERSION, "state": "finished"}
NAMES = (run_folder.METRICS, "checkpoint-2.pt", run_folder.WEIGHTS, run_folder.PREDICTIONS, run_folder.PROGRESS)


def work(claim: Claim, content: bytes, row: dict[str, object]) -> None:
    """Change files of every kind, as training does, or fail."""
    folder, writer = claim.folder, claim.writer
    run_folder.sweep(writer)
    writer.remove(folder / "checkpoint-1.pt")
    for name in NAMES:
        writer.write(folder / name, lambda file: file.write(content))
    run_folder.write_result(writer, row)
    writer.remove(folder / "checkpoint-2.pt")
    claim.end = row["state"]  # type: ignore[assignment]


def finish(folder: Path, me: Worker, row: dict[str, object], content: bytes = b"the first's") -> None:
    """Take a run and change its files, unless somebody is at it or it is finished."""
    with take(folder, me, nobody) as claim:
        if claim is not None and not run_folder.is_done(folder):
            work(claim, content, row)


def another_finishes(folder: Path, elsewhere: Worker) -> dict[str, bytes]:
    """Take a run over whose worker has been silent for long, finish it, and return what it then holds."""
    last = last_attempt(folder)
    if last is not None:
        fall_silent(last.path)
    finish(folder, elsewhere, ROW | {"top1": 81.25}, b"the second's")
    return of_the_run(folder)


def make_run(folder: Path) -> None:
    folder.mkdir()
    for name in ("checkpoint-1.pt", ".result.json.0123"):
        (folder / name).touch()


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_a_worker_that_stood_still_before_any_change_leaves_a_run_alone_that_another_has_finished(
    tmp_path: Path, state: str
) -> None:
    silent, elsewhere = replace(Worker.here(), space="silent"), replace(Worker.here(), space="elsewhere")
    for number in itertools.count():
        folder = tmp_path / str(number)
        make_run(folder)
        seen: dict[str, bytes] = {}
        another = partial(lambda folder, seen: seen.update(another_finishes(folder, elsewhere)), folder, seen)
        with Stop(folder, AtNumber(number), another) as stop, suppress(Lost):
            finish(folder, silent, ROW | {"state": state, "top1": 12.5})
        if not stop.came:
            break
        assert of_the_run(folder) == seen, f"stopped before {stop.changes[number]}"
    assert number > 20
    assert (run_folder.read_result(folder) or {})["state"] == state  # nobody came: it is the first's


CHOSEN = ("os.mkdir 0001.work", "os.rename metrics.jsonl", "os.rename progress.json", "os.rename model.safetensors",
          "os.rename predictions.npy", "os.rename result.json")  # fmt: skip


@pytest.mark.parametrize("change", CHOSEN)
def test_a_training_that_stood_still_says_once_that_its_run_is_anothers_and_leaves_its_files_alone(
    change: str,
    tmp_path: Path,
    small_images: Path,
    tiny_run: Callable[..., RunConfig],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent, elsewhere = replace(Worker.here(), space="silent"), replace(Worker.here(), space="elsewhere")
    monkeypatch.setattr("roadmap.jobs.worker._this_worker", lambda _: silent)
    config = tiny_run(epochs=1)
    folder = tmp_path / config.id
    folder.mkdir()
    files.write_json(folder / run_folder.RUN, {"config": config.to_json()})
    seen: dict[str, bytes] = {}
    with Stop(folder, AtChange(change), lambda: seen.update(another_finishes(folder, elsewhere))) as stop:
        Job((folder,), small_images)()
    assert stop.came
    assert of_the_run(folder) == seen
    assert names(folder) == ["0001-died.json", "0002-finished.json"]
    assert capsys.readouterr().out.count(LOST) == (change != CHOSEN[0])  # before that it had begun nothing


def test_a_process_that_was_stopped_and_continued_changes_nothing_of_what_another_machines_job_has_finished(
    tmp_path: Path, small_images: Path, tiny_run: Callable[..., RunConfig]
) -> None:
    config = tiny_run(epochs=1)
    stopped, left = stop_and_continue(config, tmp_path, small_images, AtChange("os.rename result.json"))
    assert stopped
    assert of_the_run(tmp_path / config.id) == left
    assert names(tmp_path / config.id) == ["0001-died.json", "0002-finished.json"]


def test_a_finished_row_is_never_replaced(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        run_folder.write_result(writer, ROW | {"top1": 81.25})
        run_folder.write_result(writer, ROW | {"state": "failed", "error": "too late"})
    assert (run_folder.read_result(tmp_path) or {})["top1"] == 81.25


def test_who_works_without_a_claim_gives_way_to_a_claim_and_leaves_no_trace(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        writer.write_json(tmp_path / "a.json", 1)
        with take(tmp_path, Worker.here(), nobody) as claim:
            assert claim is not None
            with pytest.raises(Lost):
                writer.write_json(tmp_path / "a.json", 2)
            with pytest.raises(Lost):
                writer.remove(tmp_path / "a.json")
            claim.withdraw()
    assert contents(tmp_path) == {"a.json": b"1\n"}
    with writing(tmp_path / "new") as writer:
        pass
    assert list((tmp_path / "new").iterdir()) == []


def test_what_killed_attempts_left_is_swept_by_the_next_one(tmp_path: Path) -> None:
    leave_attempt(tmp_path, born=1)
    (tmp_path / ATTEMPTS / "0001.work").mkdir()
    for name in ("0001.work/result.json.0123", f".0001.{'0' * 32}", f".0002.{'0' * 32}", f".0003.{'0' * 32}"):
        (tmp_path / ATTEMPTS / name).touch()
    with take(tmp_path, Worker.here(), nobody) as claim:
        assert claim is not None
        # Somebody may be about to make the third.
        assert names(tmp_path) == [f".0003.{'0' * 32}", "0001-died.json", "0002.json", "0002.work"]
        assert list((tmp_path / ATTEMPTS / "0002.work").iterdir()) == []


def test_a_claim_whose_folder_cannot_be_made_was_never_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Writer) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims.Writer, "open", full)
    with pytest.raises(OSError, match="No space"), take(tmp_path, Worker.here(), nobody):
        pytest.fail("was taken")
    assert names(tmp_path) == []
