import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import run_ladder
from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.machine import Machine
from roadmap.common.provenance import processor
from roadmap.measuring.forecast import (
    DEVICES,
    REST_S,
    Rates,
    Work,
    fit_rates,
    forecast,
    forecast_by_timing,
    forecast_on,
    rates_of,
)
from roadmap.measuring.rung_costs import networks, write_measured
from roadmap.networks.config import NetConfig
from roadmap.networks.cost import count_activations, count_depthwise_macs, count_macs
from roadmap.networks.families import BASES, convnext
from roadmap.recipe import read_recipe
from roadmap.runs import run_folder
from roadmap.study.deviations import DEVIATIONS, deviations_of
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.processes import ROOT
from tests.samples import PAPER

# Training images/s on an RTX 3090, mixed precision, channels_last. Source: timm's results/benchmark-train-amp-nhwc-
# pt112-cu113-rtx3090.csv.
PUBLISHED = [
    (BASES["resnet50"], 224, 1218.01),
    (NetConfig(depths=(3, 4, 23, 3)), 224, 747.89),
    (NetConfig(depths=(3, 8, 36, 3)), 224, 501.44),
    (BASES["resnet200"], 224, 357.55),
    (convnext("tiny"), 224, 819.24),
    (convnext("small"), 224, 487.15),
    (convnext("base"), 224, 338.68),
    (convnext("large"), 224, 187.93),
    (convnext("xlarge"), 224, 116.37),
    (convnext("tiny"), 384, 282.39),
]
A100_HOURS = {"baseline": 43, "separate_downsampling": 64}  # of 300 epochs, as users report them
BUSY = Machine(jobs=2, gpus=0, threads=1)


def work_of(net: NetConfig, image_size: int) -> Work:
    macs, depthwise = count_macs(net, image_size), count_depthwise_macs(net, image_size)
    return Work(3.0 * (macs - depthwise), 3.0 * depthwise, float(count_activations(net, image_size)))


@pytest.fixture
def imagenet(tmp_path: Path) -> Study:
    return plan_study(StudySpec("resnet50", "imagenet", PAPER, runs=tmp_path / "runs", assume_data=True))


@pytest.fixture
def study(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> Study:
    recipe = str(write_recipes(seeds=[0, 1]))
    return plan_study(StudySpec("resnet50", recipe, PAPER, runs=tmp_path / "runs", data_root=small_images))


def test_the_data_sheets_rates_meet_published_speeds_of_resnets_and_convnexts() -> None:
    rates = rates_of("rtx3090")
    for net, image_size, speed in PUBLISHED:
        assert rates.images_per_s(work_of(net, image_size)) == pytest.approx(speed, rel=0.05)


def test_the_papers_ladder_on_a100s_takes_what_users_report(imagenet: Study) -> None:
    ahead = forecast_on("a100", imagenet, 8)
    own = {rung: ahead.hours([r for r in imagenet.planned() if rung in r.rungs]) / 3 for rung in A100_HOURS}
    assert own == pytest.approx(A100_HOURS, rel=0.1)
    first, last = own.values()
    said = f"about {first:.0f} GPU-hours for ResNet-50 and {last:.0f} for ConvNeXt-T"
    assert said in (ROOT / "docs" / "planning.md").read_text()
    assert ahead.wall_s(imagenet.planned()) == pytest.approx(ahead.hours(imagenet.planned()) * 3600 / 8)


def test_fine_tuning_can_be_priced_before_there_are_weights(said: Callable[..., str]) -> None:
    told = said("plan", "--base", "resnet200", "--recipe", "finetune_384", "--device", "a100", "--json")
    assert all(json.loads(line)["hours"] > 0 for line in told.splitlines())


def test_the_longest_run_is_waited_for_however_many_devices_there_are(imagenet: Study) -> None:
    ahead = forecast_on("h100", imagenet, 1000)
    assert ahead.wall_s(imagenet.planned()) == max(ahead.seconds.values())


def test_depthwise_multiply_adds_are_those_of_its_kernels() -> None:
    net, kernel = convnext("tiny"), 7 * 7
    pixels = [(56 // 2**stage) ** 2 for stage in range(4)]
    stages = zip(net.depths, net.widths, pixels, strict=True)
    assert count_depthwise_macs(net) == sum(depth * width * kernel * area for depth, width, area in stages)
    assert count_depthwise_macs(BASES["resnet50"]) == 0


@settings(deadline=None)
@given(st.lists(st.floats(1e-14, 1e-10), min_size=3, max_size=3))
def test_rates_are_found_again_from_the_speeds_that_they_give(values: list[float]) -> None:
    rates = Rates(*values)
    works = [work_of(net, size) for net, size, _ in PUBLISHED]
    fitted = fit_rates(works, [rates.images_per_s(work) for work in works])
    for work in works:
        assert fitted.images_per_s(work) == pytest.approx(rates.images_per_s(work), rel=1e-3)


def test_what_a_data_sheet_says_nothing_of_is_refused(study: Study, imagenet: Study) -> None:
    with pytest.raises(UserError, match=r"float32 \(amp: none\)"):
        forecast_on("a100", study, 1)
    with pytest.raises(UserError, match=r"unknown device 'a10'.*Did you mean 'a100'"):
        forecast_on("a10", imagenet, 1)
    assert set(DEVICES) >= {"v100", "a100", "h100", "h200", "rtx3090", "rtx4090"}


def test_without_anything_known_it_is_called_a_guess_and_with_runs_done_it_follows_them(study: Study) -> None:
    runs = study.planned()
    assert "rough guess" in forecast(study, BUSY).source
    for run, wall_s in zip(runs[1:3], (10.0, 20.0), strict=True):
        row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": "finished", "wall_s": wall_s}
        row["top1"] = 80.0
        files.write_json(run.folder / run_folder.RESULT, row)
    ahead = forecast(study, BUSY)
    assert ahead.source == "from the 2 runs done here"
    assert [ahead.seconds[run.config.id] for run in runs[1:3]] == [10.0, 20.0]
    other = next(run for run in runs if run.rungs == ("gelu",))
    assert ahead.seconds[other.config.id] == pytest.approx(30 * other.cost / (runs[1].cost + runs[2].cost))
    twin = next(run for run in runs if run.config.key == runs[1].config.key and run.config.seed == 1)
    assert ahead.seconds[twin.config.id] == 10.0  # another seed of the same network takes as long
    assert ahead.devices == 2


def test_what_was_measured_on_this_machine_counts_and_on_another_does_not(study: Study) -> None:
    speeds = {run.config.key: 100.0 + number for number, run in enumerate(networks(study))}
    row = {"rungs": [], "test_images_per_s": [1.0], "peak_memory_mb": 1.0, "activations": 1}
    rows = {key: row | {"train_images_per_s": [speed]} for key, speed in speeds.items()}
    measured = {"measured_version": 1, "device": "another", "rows": rows}
    write_measured(study.runs, measured)
    assert "rough guess" in forecast(study, BUSY).source
    write_measured(study.runs, measured | {"device": processor()})
    ahead = forecast(study, BUSY)
    assert (ahead.source, ahead.devices, ahead.unit) == ("as measured here", 1, "machine")
    assert all(ahead.images_per_s[run.config.id] == pytest.approx(speeds[run.config.key]) for run in study.planned())


def test_a_few_networks_are_timed_for_all(study: Study) -> None:
    seen: list[str] = []
    ahead = forecast_by_timing(study, BUSY, lambda done, total, what: seen.append(what))
    assert seen == ["baseline_original", "increase_width", "kernel_11", "separate_downsampling"]
    assert all(speed > 0 for speed in ahead.images_per_s.values())


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function from arguments of the program to what it prints."""
    monkeypatch.chdir(tmp_path)

    def say(*arguments: str) -> str:
        assert run_ladder.main([*arguments]) == 0
        return capsys.readouterr().out

    return say


def test_plan_prices_the_papers_ladder_without_its_images(said: Callable[..., str]) -> None:
    options = ("--base", "resnet50", "--recipe", "imagenet", "--device", "a100", "--price", "2", "--jobs", "8")
    told = " ".join(said("plan", *options).split())
    rows = [json.loads(line) for line in said("plan", *options, "--json").splitlines()]
    hours = sum(row["hours"] for row in rows)
    assert f"about {hours:,.0f} GPU-hours ({2 * hours:,.2f} at 2 an hour)" in told
    assert "Without --data: counted with 1,281,167 training images of 1,000 classes." in told
    assert {row["source"] for row in rows} == {"from the data sheet of the a100"}


def test_diff_lists_what_a_recipe_changes_of_the_papers(said: Callable[..., str]) -> None:
    rows = said("diff", "--recipe", "finetune_384", "--against", "finetune_224", "--json").splitlines()
    assert [json.loads(row) for row in rows] == [
        {"setting": "image_size", "finetune_224": 224, "finetune_384": 384},
        {"setting": "ghost_batch", "finetune_224": 32, "finetune_384": 16},
        {"setting": "test_resize", "finetune_224": "shorter", "finetune_384": "squash"},
        {"setting": "test_crop", "finetune_224": 0.875, "finetune_384": 1.0},
    ]
    shown = said("diff", "--recipe", "imagenet22k", "--against", "imagenet")
    settings = [line.split()[0] for line in shown.splitlines()[1:]]
    assert settings == ["epochs", "warmup_epochs", "ghost_batch", "drop_path"]


def test_diff_of_one_of_the_papers_recipes_lists_what_it_does_not_repeat(said: Callable[..., str]) -> None:
    shown = said("diff", "--recipe", "imagenet")
    assert shown.startswith("'imagenet' and 'imagenet' train the same way.")
    for subject in ("precision", "first weights", "moving average", "the epoch that counts", "random numbers"):
        assert subject in shown
    assert "groups of layers" not in shown
    rows = [json.loads(row) for row in said("diff", "--recipe", "imagenet", "--json").splitlines()]
    assert [row["subject"] for row in rows] == [each.subject for each in deviations_of("imagenet")]
    assert deviations_of("fashion") == []


def test_every_deviation_is_of_recipes_that_are_there() -> None:
    papers = {"imagenet", "imagenet_original", "imagenet22k", "finetune_224", "finetune_384", "finetune_384_1k"}
    assert {name for each in DEVIATIONS for name in each.recipes} == papers


def test_a_runs_file_says_what_is_not_the_papers(study: Study) -> None:
    from roadmap.jobs.launcher import prepare

    run = prepare(study.planned())[0]
    about = json.loads((run.folder / run_folder.RUN).read_text())
    assert about["paper_recipe"] == "imagenet"
    paper, own = read_recipe("imagenet"), run.config.recipe
    assert about["deviations"]["epochs"] == [paper.epochs, own.epochs]
    assert {name: values[1] for name, values in about["deviations"].items()} == {
        name: json.loads(json.dumps(getattr(own, name))) for name in about["deviations"]
    }
    assert "betas" not in about["deviations"]


def test_accumulation_is_warned_about(tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path) -> None:
    recipe = str(write_recipes(accumulate=4))
    study = plan_study(StudySpec("resnet50", recipe, PAPER, runs=tmp_path / "runs", data_root=small_images))
    assert any("summed over 4 pieces of a batch, of 8 images each" in note for note in study.notes)


def test_every_recipe_of_the_paper_differs_from_itself_in_nothing() -> None:
    for name in ("imagenet", "imagenet_original", "imagenet22k", "finetune_224", "finetune_384", "finetune_384_1k"):
        recipe = read_recipe(name)
        assert (recipe.paper, recipe.differences(read_recipe(recipe.paper))) == (name, {})
        assert yaml.safe_load(Path(f"recipes/{name}.yaml").read_text())["images"] > 1e6


def test_what_a_run_takes_beside_its_steps_counts_too(study: Study) -> None:
    ahead = forecast(study, Machine(2, 0, 1))
    for run in study.planned():
        name = run.config.id
        steps_s = run.config.images_seen / ahead.images_per_s[name]
        assert ahead.seconds[name] == pytest.approx(steps_s + REST_S)
