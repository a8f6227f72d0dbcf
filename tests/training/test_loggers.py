import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import run_ladder
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.training import loggers as module
from roadmap.training import loop as train_module
from roadmap.training.loggers import check_logger
from roadmap.training.loop import Stopped, train
from tests.processes import outcome

MakeRun = Callable[..., RunConfig]
OWN = """\
told = []

def keep(about, folder):
    told.append((about["rungs"], folder))
    return lambda step, values: told.append((step, dict(values)))

def refuse(about, folder):
    raise OSError("no network")

def fail(about, folder):
    def log(step, values):
        told.append("failed")
        raise RuntimeError("quota")
    return log

nothing = None
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A module `my_loggers` that Python finds, and what it was told."""
    (tmp_path / "my_loggers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_loggers", raising=False)
    monkeypatch.setattr(train_module, "LOOK_EVERY_S", 0.0)
    import my_loggers  # type: ignore[import-not-found]

    kept: list[Any] = my_loggers.told
    return kept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files.write_json(tmp_path / "runs" / "some-s0" / run_folder.RUN, {"config": {}, "rungs": ["baseline", "twin"]})
    return tmp_path / "runs" / "some-s0"


def test_a_logger_of_ones_own_is_told_every_loss_and_the_result(
    told: list[Any], folder: Path, tiny_run: MakeRun, small_images: Path
) -> None:
    row = train(tiny_run(), folder, data_root=small_images, loggers=("my_loggers:keep",))
    (rungs, where), *steps, (last, end) = told
    assert (rungs, where) == (["baseline", "twin"], folder)
    assert [step for step, _ in steps] == list(range(1, 21))
    assert all(values.keys() == {"train/loss", "train/lr", "train/images_per_s"} for _, values in steps)
    epoch = [values["train/loss"] for _, values in steps[10:]]
    assert sum(epoch) / 10 == pytest.approx(row["train_loss"])
    assert (last, end) == (20, {f"test/{name}": row[name] for name in ("top1", "top5", "nll", "ece")})


def test_a_logger_that_fails_is_dropped_and_the_run_ends_as_without(
    told: list[Any], folder: Path, tiny_run: MakeRun, small_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("my_loggers:refuse", "my_loggers:fail", "my_loggers:keep", "my_loggers:gone")
    train(tiny_run(), folder, data_root=small_images, loggers=names)
    assert told.count("failed") == 1
    said = capsys.readouterr().out
    assert "logger my_loggers:refuse: OSError: no network. The run goes on without it." in said
    assert "logger my_loggers:gone: UserError" in said
    (folder.parent / "plain").mkdir()
    train(tiny_run(), folder.parent / "plain", data_root=small_images)
    assert outcome(folder) == outcome(folder.parent / "plain")


def read_events(folder: Path) -> Mapping[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_a_run_that_was_stopped_as_one_curve(
    told: list[Any], folder: Path, tiny_run: MakeRun, small_images: Path
) -> None:
    looks = iter(range(12))
    with pytest.raises(Stopped):
        train(
            tiny_run(), folder, data_root=small_images, loggers=("tensorboard",),
            asked=lambda: "stop" if next(looks) == 11 else "",
        )  # fmt: skip
    row = train(tiny_run(), folder, data_root=small_images, loggers=("tensorboard",))
    events = read_events(folder.parent / "tensorboard" / "baseline+twin-some-s0")
    assert [step for step, _ in events["train/loss"]] == list(range(1, 21))
    assert events["test/top1"] == [(20, pytest.approx(row["top1"]))]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_loggers:gone", "cannot be imported .AttributeError"),
        ("nowhere:keep", "cannot be imported .ModuleNotFoundError"),
        ("my_loggers", "no function. Say MODULE:FUNCTION"),
        ("my_loggers:nothing", "no function. Say MODULE:FUNCTION"),
    ],
)
def test_a_logger_that_no_job_could_make_is_refused_before_the_queue(
    name: str, message: str, told: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=message):
        check_logger(name)
    assert run_ladder.main(["run", "--base", "resnet50", "--recipe", "smoke", "--logger", name]) == 2
    assert f"--logger {name}: " in capsys.readouterr().err


def test_a_missing_tensorboard_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        check_logger("tensorboard")


class Rude(BaseException):
    def __str__(self) -> str:
        raise ValueError("says nothing")


@pytest.mark.parametrize("end", [SystemExit("bye"), SystemExit(0), KeyboardInterrupt(), GeneratorExit(), Rude()])
@pytest.mark.parametrize("when", ["made", "told"])
def test_however_a_logger_ends_the_run_goes_on(
    end: BaseException, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[int] = []

    def rude(_: object, __: object) -> Any:
        def log(step: int, values: Any) -> None:
            raise end

        if when == "made":
            raise end
        return log

    makers = {"a:rude": rude, "a:kind": lambda *_: lambda step, values: told.append(values.pop("train/loss"))}
    monkeypatch.setattr(module, "_find", makers.get)

    def work() -> None:
        loggers = module.Loggers(tuple(makers), tmp_path, 0)
        for step in range(2):
            loggers.log(step, {"train/loss": step})

    with ThreadPoolExecutor(1) as thread:  # as in a job, where the first one listens to signals
        thread.submit(work).result()
    assert told == [0, 1]
    assert capsys.readouterr().out.count(f"logger a:rude: {type(end).__name__}") == 1


def test_ctrl_c_while_a_logger_is_told_is_meant_for_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(step: int, values: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_find", lambda _: lambda *_: interrupted)
    loggers = module.Loggers(("a:logger",), tmp_path, 0)
    with pytest.raises(KeyboardInterrupt):
        loggers.log(0, {})


def test_a_module_that_exits_when_it_is_imported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exits_at_once.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"--logger exits_at_once:log: cannot be imported \(SystemExit: 0\)"):
        module.check_logger("exits_at_once:log")
