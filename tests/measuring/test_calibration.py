from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from roadmap.common.machine import Machine
from roadmap.measuring import calibration as module
from roadmap.measuring.calibration import Calibration, calibrate
from roadmap.runs.config import RunConfig
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.samples import PAPER

MakeRun = Callable[..., RunConfig]


@dataclass
class FakeMeter:
    """A network that trains as fast as the test says."""

    speed: float

    def training_speed(self, seconds: float) -> float:
        return self.speed


@pytest.fixture
def study(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> Study:
    return plan_study(
        StudySpec("resnet50", str(write_recipes()), PAPER, runs=tmp_path / "runs", data_root=small_images)
    )


@pytest.fixture
def found(study: Study, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calibration]:
    """Return a function from how many times as fast each way is to what calibrating says of it."""

    def find(images_per_s: float = 100.0, jobs: tuple[float, ...] = (1.0, 1.0), **times: float) -> Calibration:
        def meter(config: RunConfig, device: str) -> FakeMeter:
            recipe = config.recipe
            if recipe.compile and times.get("compile") == 0:
                raise RuntimeError("no C++ compiler")
            factor = times.get(recipe.amp, 1.0) * (times.get("compile", 1.0) if recipe.compile else 1.0)
            return FakeMeter(images_per_s * factor)

        monkeypatch.setattr(module, "_meter", meter)
        monkeypatch.setattr(module, "count_cores", lambda: 2)
        monkeypatch.setattr(module, "_train_together", lambda config, count, device: jobs[count - 1])
        seen: list[Any] = []
        result = calibrate(study, Machine(2, 0, 1), lambda *step: seen.append(step))
        assert [done for done, _, _ in seen] == list(range(seen[0][1]))
        return result

    return find


def test_what_is_not_clearly_faster_is_left_as_the_recipe_has_it(found: Callable[..., Calibration]) -> None:
    amp, compiler, jobs = found(bfloat16=1.04, compile=1.04, jobs=(100.0, 104.0)).choices
    assert amp == "amp: none (no other precision is faster)"
    assert compiler.startswith("compile: false (compiled it is 1.04 times as fast")
    assert jobs.startswith("--jobs 1 ")


def test_the_fastest_way_is_named_with_what_it_brings(found: Callable[..., Calibration]) -> None:
    calibration = found(images_per_s=1e-3, bfloat16=2.0, compile=1.5, jobs=(100.0, 140.0))
    amp, compiler, jobs = calibration.choices
    assert amp == "amp: bfloat16 (2.00 times as fast as none; it changes numbers)"
    assert compiler.startswith("compile: true (compiled it is 1.50 times as fast")
    assert jobs == "--jobs 2 (1.40 times the images of one run at a time)"
    assert [way.words for way in calibration.ways][-3:] == ["compile: true", "--jobs 1", "--jobs 2"]


def test_compiling_is_advised_against_where_a_run_is_too_short_for_it(found: Callable[..., Calibration]) -> None:
    assert found(images_per_s=1e12, compile=1.5).choices[1].startswith("compile: false (compiled it is 1.50 times")


def test_a_compiler_that_does_not_work_is_no_end(found: Callable[..., Calibration]) -> None:
    assert found(compile=0).choices[1] == "compile: false (compile: true does not work here: RuntimeError)"


@pytest.mark.slow
def test_runs_at_a_time_are_processes_that_train_together(tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VISIT_S", 0.01)
    assert module._train_together(tiny_run(), 2, "cpu") > 0
