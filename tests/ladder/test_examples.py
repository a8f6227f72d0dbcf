"""The ladders with steps of their own that come with the program."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from roadmap.common.paths import LADDERS
from roadmap.jobs.launcher import prepare
from roadmap.ladder.conformance import TARGET, Inspector, trials
from roadmap.ladder.ladder import read_ladder
from roadmap.ladder.own_steps import load_steps
from roadmap.networks.cost import count_macs, count_params
from roadmap.recipe import read_recipe
from roadmap.runs import run_folder
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training.loop import train

EXAMPLES = sorted((LADDERS / "examples").glob("*.yaml"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest, own_steps: None) -> Iterator[Path]:
    load_steps(request.param.with_suffix(".py"))
    return request.param


def test_there_is_one_for_each_kind_of_layer_that_the_manual_shows() -> None:
    assert {path.stem for path in EXAMPLES} == {"blur_pool", "squeeze_excitation", "patch_stem"}


def test_every_step_of_an_example_keeps_what_a_step_must(example: Path) -> None:
    inspector = Inspector()
    for trial in trials(read_ladder(example), "resnet50", read_recipe(TARGET, "resnet50")):
        assert inspector.inspect(trial).problems == {}


def test_an_example_trains_on_the_smoke_recipe(example: Path, tmp_path: Path) -> None:
    study = plan_study(StudySpec("resnet50", "smoke", ladder=example, runs=tmp_path / "runs"))
    (run,) = prepare([run for run in study.planned() if study.rungs[-1].id in run.rungs])
    train(run.config, run.folder)
    row = run_folder.read_result(run.folder) or {}
    assert row["state"] == "finished"
    # Guessing costs log(10) = 2.3. Top-1 is no measure after 62 steps: it was a little over or under 12, as processors
    # round.
    assert row["train_loss"] < 2.1


def test_an_example_costs_what_its_source_says(example: Path) -> None:
    first, *_, last = read_ladder(example).climb("resnet50")
    if example.stem == "squeeze_excitation":  # Hu et al. 2018, Table 2: 3.86 -> 3.87 GFLOPs, 25.6 -> 28.1 M parameters
        assert count_macs(last.net) / count_macs(first.net) == pytest.approx(3.87 / 3.86, abs=2e-3)
        assert round(count_params(last.net) / 1e6, 1) == 28.1
    elif example.stem == "blur_pool":  # the blur has no weights, and nine multiply-adds a channel and pixel
        before = read_ladder(example).climb("resnet50")[-2].net
        assert count_params(last.net) == count_params(before)
        pixels = [(256, 56), (512, 28), (1024, 14)]
        assert count_macs(last.net) - count_macs(before) == sum(9 * width * side**2 for width, side in pixels)
    else:
        assert last.net.reductions == (16, 16, 16, 32)
