import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from roadmap.runs import attempts, claims
from roadmap.runs.attempts import (
    ATTEMPTS,
    STALE_S,
    End,
    Worker,
    attempts_of,
    ends,
    is_alive,
    is_under_way,
    last_attempt,
    life_of,
)
from roadmap.runs.claims import BEAT_EVERY_S, Claim, take
from tests.processes import ROOT, fork, wait_for

PROCESSES = 8
ENDS: tuple[End, ...] = ("finished", "diverged", "failed", "stopped", "preempted", "died")


def nobody(_: Worker) -> bool | None:
    """What a machine without a scheduler answers."""
    return None


def leave_attempt(folder: Path, end: str | None = None, *, number: int = 1, age_s: float = 0.0, **changed: Any) -> Path:
    """Write the attempt of a worker that differs from this process in what `changed` says."""
    path = folder / ATTEMPTS / f"{number:04d}{'' if end is None else f'-{end}'}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(replace(Worker.here(), **changed))))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def fall_silent(path: Path) -> None:
    """Have it that this process has watched an attempt's heart for long, and that it did not beat."""
    os.utime(path, (0, 0))
    attempts._BEATS[path] = attempts._Beat(0, float("-inf"), False)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / ATTEMPTS))


def can_take(folder: Path, me: Worker | None = None) -> bool:
    with take(folder, me or Worker.here(), nobody) as claim:
        return claim is not None


# -- one of many


@pytest.mark.parametrize("before", [None, "open", "stopped"])
def test_of_many_processes_that_want_a_run_at_once_exactly_one_gets_it(tmp_path: Path, before: str | None) -> None:
    folders = [tmp_path / "runs" / str(number) for number in range(30)]
    for folder in folders:
        folder.mkdir(parents=True)
        if before:
            leave_attempt(folder, None if before == "open" else before, born=1)
    processes = [fork(_want_all, folders, tmp_path, number) for number in range(PROCESSES)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    got = Counter(line for file in tmp_path.glob("got-*") for line in file.read_text().splitlines())
    assert got == {str(folder): 1 for folder in folders}
    own = ["0001-finished.json"] if before is None else [f"0001-{before.replace('open', 'died')}.json"]
    own += [] if before is None else ["0002-finished.json"]
    assert all(names(folder) == own for folder in folders)


def _want_all(folders: list[Path], place: Path, own: int) -> None:
    """Try to take run after run, each when the others do too, and keep what we get until all have tried."""

    def meet(what: str) -> float:
        (place / f"{what}-{own}").touch()
        wait_for(lambda: len(list(place.glob(f"{what}-*"))) == PROCESSES, what=what)
        return max(file.stat().st_mtime for file in place.glob(f"{what}-*"))

    start = meet("ready") + 0.1
    with ExitStack() as mine, (place / f"got-{own}").open("w") as file:
        for number, folder in enumerate(folders):
            time.sleep(max(0.0, start + 0.02 * number - time.time()))
            claim = mine.enter_context(take(folder, Worker.here(), nobody))
            if claim is not None:
                claim.end = "finished"
                file.write(f"{folder}\n")
        meet("tried")


def test_a_run_that_goes_from_hand_to_hand_is_never_in_two(tmp_path: Path) -> None:
    processes = [fork(_take_often, tmp_path, seed) for seed in range(PROCESSES)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    taken = sum(int(file.read_text()) for file in tmp_path.glob("taken-*"))
    ended = [attempt.number for attempt in attempts_of(tmp_path) if attempt.end in ("preempted", "stopped")]
    assert ended == list(range(1, taken + 1))
    assert taken > PROCESSES


def _take_often(folder: Path, seed: int) -> None:
    draw, taken, until = random.Random(seed), 0, time.monotonic() + 1.5
    me = Worker.here()
    while time.monotonic() < until:
        with take(folder, me, nobody) as claim:
            if claim is None:
                time.sleep(0.0005)
                continue
            held = os.open(folder / "held", os.O_CREAT | os.O_EXCL)  # fails if another process has it too
            taken += 1
            time.sleep(draw.choice([0.0, 0.001]))
            os.close(held)
            (folder / "held").unlink()
            claim.end = draw.choice(["preempted", "stopped"])
    (folder / f"taken-{seed}").write_text(str(taken))


@pytest.mark.parametrize("end", ENDS)
def test_an_attempt_that_has_ended_lets_the_next_one_in(tmp_path: Path, end: End) -> None:
    with take(tmp_path, Worker.here(), nobody) as claim:
        assert claim is not None
        claim.end = end
        assert not can_take(tmp_path)
    assert names(tmp_path) == [f"0001-{end}.json"]
    with take(tmp_path, Worker.here(), nobody) as claim:
        assert claim is not None
        assert claim.attempt.number == 2


def test_an_attempt_that_says_nothing_about_its_end_has_died(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), take(tmp_path, Worker.here(), nobody):
        raise ZeroDivisionError
    assert names(tmp_path) == ["0001-died.json"]


def test_an_attempt_with_nothing_to_do_leaves_no_trace(tmp_path: Path) -> None:
    with take(tmp_path, Worker.here(), nobody) as claim:
        assert claim is not None
        claim.withdraw()
    assert names(tmp_path) == []


# -- who is dead


def test_the_run_of_a_killed_process_can_be_taken_at_once_though_nobody_has_noticed_its_end(tmp_path: Path) -> None:
    code = "import sys, time; from tests.runs.test_attempts import *\n"
    code += "with take(Path(sys.argv[1]), Worker.here(), nobody): time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        wait_for(lambda: last_attempt(tmp_path), what="the attempt")
        assert not can_take(tmp_path)
        holder.send_signal(signal.SIGKILL)
        wait_for(lambda: not is_alive(holder.pid), what="the end")
        assert Path(f"/proc/{holder.pid}").exists()  # a zombie
        assert can_take(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    assert names(tmp_path) == ["0001-died.json", "0002-died.json"]
    leave_attempt(tmp_path, number=3, pid=holder.pid, born=1)  # now its number is nobody's
    assert can_take(tmp_path)


def test_a_process_number_that_was_used_again_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    leave_attempt(tmp_path)
    assert not can_take(tmp_path)
    leave_attempt(tmp_path, born=Worker.here().born - 1)
    assert can_take(tmp_path)


@pytest.mark.parametrize("age_s", [0.0, STALE_S + 5, 1e6, -1e6])
def test_an_attempt_of_another_machine_lives_as_long_as_its_heart_is_seen_to_beat_whatever_the_clocks_say(
    tmp_path: Path, age_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(attempts.time, "monotonic", lambda: now)
    path = leave_attempt(tmp_path, space="elsewhere", age_s=age_s)
    last = last_attempt(tmp_path)
    assert last is not None
    assert life_of(last, nobody) == ("alive" if age_s == 0.0 else "unknown")
    assert bool(last.doubt()) == (age_s != 0.0)
    assert not can_take(tmp_path)
    for _ in range(3):  # it beats, by its own clock
        now += STALE_S - 1
        os.utime(path, (path.stat().st_mtime + 15,) * 2)
        assert life_of(last, nobody) == "alive"
        assert not can_take(tmp_path)
    now += STALE_S - 1
    assert not can_take(tmp_path)
    now += 1
    assert life_of(last, nobody) == "dead"
    assert can_take(tmp_path)


def test_what_speaks_against_an_attempt_is_said_in_words(tmp_path: Path) -> None:
    for age_s, words in [
        (3 * 3600, "no heartbeat for 3 h 00 min"),
        (-7200, "2 h 00 min ahead of this machine's clock"),
        (0, ""),
    ]:
        leave_attempt(tmp_path, age_s=age_s)
        last = last_attempt(tmp_path)
        assert last is not None
        assert words in last.doubt()
        assert bool(words) == bool(last.doubt())
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        leave_attempt(tmp_path, pid=sleeper.pid)
        sleeper.send_signal(signal.SIGSTOP)
        wait_for(lambda: f"its process {sleeper.pid} is stopped" in last.doubt(), what="the hint")
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_process_number_of_another_machine_says_nothing(tmp_path: Path) -> None:
    leave_attempt(tmp_path, space="elsewhere", pid=2**30)
    assert not can_take(tmp_path)


@pytest.mark.parametrize(("answer", "lives"), [(True, True), (None, True), (False, False)])
@pytest.mark.parametrize("age_s", [0.0, 1e6])
def test_a_job_lives_while_the_scheduler_has_it_or_does_not_answer_whatever_its_heart_does(
    tmp_path: Path, answer: bool | None, lives: bool, age_s: float
) -> None:
    leave_attempt(tmp_path, space="elsewhere", age_s=age_s, job="7_1")
    last = last_attempt(tmp_path)
    assert last is not None
    asked: list[Worker] = []
    assert is_under_way(last, lambda worker: asked.append(worker) or answer) is lives  # type: ignore[func-returns-value]
    assert [worker.job for worker in asked] == ["7_1"]


def test_the_scheduler_is_not_asked_about_what_can_be_seen_from_here(tmp_path: Path) -> None:
    for changed in ({"born": 1}, {}):
        leave_attempt(tmp_path, job="7", age_s=0.0, **changed)
        last = last_attempt(tmp_path)
        assert last is not None
        is_under_way(last, lambda _: pytest.fail("was asked"))


@pytest.mark.parametrize("killed", [False, True])
def test_a_jobs_own_earlier_start_gives_way_at_once(tmp_path: Path, killed: bool) -> None:
    log = str(tmp_path / "7_1_0_log.out")
    leave_attempt(tmp_path, space="elsewhere", job="7_1", restart=1, log=log)
    another_launch = {"job": "7_1", "restart": 2, "log": str(tmp_path.parent / "7_1_0_log.out")}
    for other in ({"job": "7_2", "restart": 2}, {"job": None, "restart": 2}, {"job": "7_1", "restart": 1}):
        assert not can_take(tmp_path, replace(Worker.here(), **{"log": log} | other))
    assert not can_take(tmp_path, replace(Worker.here(), **another_launch))
    (tmp_path / "7_1.0.killed").touch()  # of an earlier start yet
    if killed:
        (tmp_path / "7_1.1.killed").touch()
    assert can_take(tmp_path, replace(Worker.here(), job="7_1", restart=2, log=log))
    assert names(tmp_path)[0] == ("0001-died.json" if killed else "0001-preempted.json")


# -- heartbeat and loss


def test_the_heart_beats_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 4 * BEAT_EVERY_S < STALE_S  # some may be missed
    monkeypatch.setattr(claims, "BEAT_EVERY_S", 0.01)
    with take(tmp_path, Worker.here(), nobody) as claim:
        assert claim is not None
        for _ in range(3):
            os.utime(claim.attempt.path, (0, 0))
            wait_for(lambda: claim.attempt.beat_age_s() < 60, what="a beat", timeout_s=60)
    (path,) = (tmp_path / ATTEMPTS).iterdir()
    os.utime(path, (0, 0))
    time.sleep(0.05)
    assert path.stat().st_mtime == 0


def test_a_heart_that_cannot_beat_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_EVERY_S", 0.001)
    with take(tmp_path, Worker.here(), nobody) as claim:
        assert claim is not None
        shutil.rmtree(tmp_path / ATTEMPTS)
        time.sleep(0.05)
        assert claim._thread.is_alive()
        assert claim.is_lost()
    assert list(tmp_path.iterdir()) == []


def test_who_was_given_up_for_dead_notices_that_the_run_is_anothers_and_changes_nothing(tmp_path: Path) -> None:
    with take(tmp_path, Worker.here(), nobody) as old:
        assert old is not None
        assert not old.is_lost()
        fall_silent(leave_attempt(tmp_path, space="elsewhere"))  # as it looks to another machine
        with take(tmp_path, Worker.here(), nobody) as new:
            assert new is not None
            assert old.is_lost()
            assert not new.is_lost()
            new.end = "preempted"
        assert old.is_lost()
        before = names(tmp_path)
        old.end = "finished"
    assert names(tmp_path) == before == ["0001-died.json", "0002-preempted.json"]


def test_who_cannot_be_told_that_it_was_given_up_still_sees_the_next_attempt(tmp_path: Path) -> None:
    with take(tmp_path, Worker.here(), nobody) as claim:
        assert claim is not None
        leave_attempt(tmp_path, number=2)  # while the old name stays, as a file system may have it for a while
        assert claim.is_lost()


# -- what lies there


def test_ends_are_counted_for_all_launches_or_for_one(tmp_path: Path) -> None:
    for number, (end, launch) in enumerate([("died", "a"), ("died", "b"), ("preempted", "a"), ("died", "a")], start=1):
        leave_attempt(tmp_path, end, number=number, launch=launch)
    leave_attempt(tmp_path, number=5, launch="a")
    assert ends(tmp_path) == {"died": 3, "preempted": 1}
    assert ends(tmp_path, "a") == {"died": 2, "preempted": 1}
    assert ends(tmp_path, "c") == {}


def test_looking_at_a_run_leaves_no_trace(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert attempts_of(folder) == []
        assert last_attempt(folder) is None
        assert ends(folder) == {}
    assert list(tmp_path.iterdir()) == []
    path = leave_attempt(tmp_path, age_s=1e6, space="elsewhere")
    before = path.stat().st_mtime_ns
    last = last_attempt(tmp_path)
    assert last is not None
    assert not is_under_way(last, nobody)
    assert (names(tmp_path), path.stat().st_mtime_ns) == (["0001.json"], before)


@pytest.mark.parametrize("is_silent", [False, True])
@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=80), st.integers(0, 200)))
def test_a_damaged_attempt_blocks_a_run_only_until_it_is_stale(content: bytes | int, is_silent: bool) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        path = leave_attempt(folder, space="elsewhere")
        path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
        if is_silent:
            fall_silent(path)
        assert ends(folder, "a") == {}
        assert can_take(folder) is is_silent


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@settings(max_examples=100, deadline=None)
@given(content=st.fixed_dictionaries({}, optional={name: JSON for name in asdict(Worker.here())}) | JSON)
def test_a_worker_that_someone_made_up_is_none(content: Any) -> None:
    """Above all none with a process number of -1 or 0, which stand for many processes when they are sent signals."""
    with TemporaryDirectory() as place:
        path = leave_attempt(Path(place))
        path.write_text(json.dumps(content))
        last = last_attempt(Path(place))
        assert last is not None
        worker = last.worker()
        if worker is not None:
            assert worker.pid > 0
            assert not worker.lives()
        is_under_way(last, nobody)


def test_what_is_no_attempt_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ATTEMPTS).mkdir()
    for name in ("notes.txt", ".0bad", "x.json", "-died.json", "0007.json.bak", ".json"):
        (tmp_path / ATTEMPTS / name).touch()
    before = names(tmp_path)
    assert attempts_of(tmp_path) == []
    assert can_take(tmp_path)
    assert names(tmp_path) == sorted([*before, "0001-died.json"])


def test_attempts_stay_in_order_beyond_the_width_of_their_names(tmp_path: Path) -> None:
    leave_attempt(tmp_path, "died", number=9_999)
    assert can_take(tmp_path)
    assert can_take(tmp_path)
    assert [attempt.number for attempt in attempts_of(tmp_path)] == [9_999, 10_000, 10_001]


def test_an_attempts_folder_that_is_none_is_an_error_of_its_own_run(tmp_path: Path) -> None:
    (tmp_path / ATTEMPTS).touch()
    assert last_attempt(tmp_path) is None
    with pytest.raises(OSError), take(tmp_path, Worker.here(), nobody):  # noqa: PT011
        pytest.fail("was taken")


# -- any sequence of events


@dataclass
class Held:
    """A claim that was given, and whether it still stands."""

    claim: Claim
    stack: ExitStack
    worker: Worker
    fresh: bool = True


class AnyHistory(RuleBasedStateMachine):
    """Workers of this machine and others come, end, die, fall silent and are requeued, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.place = TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.last: Held | None = None  # who has the run
        self.lost: list[Held] = []
        self.expected: list[str] = []  # how the attempts before the last one ended
        self.answer: bool | None = None

    @rule(answer=st.sampled_from([True, False, None]))
    def the_scheduler_says(self, answer: bool | None) -> None:
        self.answer = answer

    @rule(
        here=st.booleans(),
        dead=st.booleans(),
        job=st.sampled_from([None, "1", "2"]),
        restart=st.integers(0, 3),
        killed=st.booleans(),
    )
    def someone_comes(self, here: bool, dead: bool, job: str | None, restart: int, killed: bool) -> None:
        me = replace(Worker.here("", f"{self.folder}/log", job, restart), space=Worker.here().space if here else "far")
        me = replace(me, born=1) if dead else me
        old = self.last
        mark = old.worker.killed_mark if old else None
        if killed and mark:
            mark.touch()
        stack = ExitStack()
        claim = stack.enter_context(take(self.folder, me, lambda _: self.answer))
        anew = old is not None and job is not None and old.worker.job == job and old.worker.restart < restart
        assert (claim is not None) == (old is None or anew or not self.lives(old))
        if claim is None:
            stack.close()
        else:
            if old:
                self.lost.append(old)
                self.expected.append("preempted" if anew and not killed else "died")
            self.last = Held(claim, stack, me)
        if mark:
            mark.unlink(missing_ok=True)

    def lives(self, held: Held) -> bool:
        if held.worker.is_here():
            return held.worker.born != 1
        return held.fresh if held.worker.job is None else self.answer is not False

    @precondition(lambda self: self.last)
    @rule()
    def the_holder_falls_silent(self) -> None:
        assert self.last
        self.last.fresh = False
        fall_silent(self.last.claim.attempt.path)

    @precondition(lambda self: self.last)
    @rule(end=st.sampled_from(ENDS))
    def the_holder_ends(self, end: End) -> None:
        assert self.last
        self.last.claim.end = end
        self.last.stack.close()
        self.expected.append(end)
        self.last = None

    @precondition(lambda self: self.last)
    @rule()
    def the_holder_finds_nothing_to_do(self) -> None:
        assert self.last
        self.last.claim.withdraw()
        self.last.stack.close()
        self.last = None

    @precondition(lambda self: self.lost)
    @rule(end=st.sampled_from(ENDS))
    def one_given_up_for_dead_ends(self, end: End) -> None:
        held = self.lost.pop()
        held.claim.end = end
        held.stack.close()

    @invariant()
    def the_folder_tells_the_history(self) -> None:
        found = attempts_of(self.folder)
        assert [attempt.number for attempt in found] == list(range(1, len(found) + 1))
        assert [attempt.end for attempt in found] == [*self.expected, *([None] if self.last else [])]
        assert ends(self.folder) == Counter(self.expected)
        assert all(held.claim.is_lost() for held in self.lost)
        assert self.last is None or not self.last.claim.is_lost()

    def teardown(self) -> None:
        for held in [*self.lost, *([self.last] if self.last else [])]:
            held.stack.close()
        self.place.cleanup()


AnyHistory.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAnyHistory = AnyHistory.TestCase
