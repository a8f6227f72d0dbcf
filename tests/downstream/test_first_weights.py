"""Backbones that start from given weights or from random ones: no classifier is trained, and one may come later."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from roadmap import StudySpec, build_model, plan_study
from roadmap import train as train_run
from roadmap.cli.main import main
from roadmap.common.errors import UserError
from roadmap.downstream.first_weights import find_given_weights
from roadmap.downstream.task import DownstreamTask
from roadmap.downstream.task_recipe import read_task
from roadmap.jobs.launcher import prepare
from roadmap.jobs.worker import Job
from roadmap.networks.config import NetConfig
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig
from roadmap.runs.metrics import all_measured
from roadmap.study.plan import PlannedRun
from tests.downstream.samples import TINY, write_tiny_task

MakeRun = Callable[..., RunConfig]
NET = NetConfig(depths=(1, 1, 1, 1), widths=(4, 4, 8, 8))
STILL = replace(read_task("segmentation"), **TINY, lr=1e-12, weight_decay=0.0)  # type: ignore[arg-type]


def write_weights(path: Path, net: NetConfig = NET, seed: int = 7) -> dict[str, torch.Tensor]:
    """Write first weights of a network for grey images of ten classes."""
    torch.manual_seed(seed)
    weights = build_model(net, num_classes=10, in_channels=1).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return weights


@pytest.fixture
def planned(tmp_path: Path, tiny_run: MakeRun) -> list[PlannedRun]:
    """Two runs that nobody has trained, prepared as a command does it."""
    configs = [tiny_run(net=NET, seed=seed) for seed in (0, 1)]
    runs = [PlannedRun(config, ("only",), tmp_path / "runs" / config.id) for config in configs]
    prepare(runs)
    return runs


def task_from(place: Path, planned: list[PlannedRun]) -> DownstreamTask:
    return DownstreamTask(STILL, data="scenes-1", weights=find_given_weights(str(place), planned))


def trained_backbone(task: DownstreamTask, folder: Path) -> dict[str, torch.Tensor]:
    left = load_file(task.place(folder) / run_folder.WEIGHTS)
    return {name.removeprefix("backbone.network."): value for name, value in left.items()}


def test_a_backbone_starts_from_the_file_that_was_given(tmp_path: Path, planned: list[PlannedRun]) -> None:
    given, (run, _) = write_weights(tmp_path / "theirs.v1.safetensors"), planned
    task = task_from(tmp_path / "theirs.v1.safetensors", planned)
    Job((run.folder,), None, task=task)()
    left = trained_backbone(task, run.folder)
    for name in ("stem.conv.weight", "stages.3.0.residual.pointwise2.weight"):
        torch.testing.assert_close(left[name], given[name])
    [measured] = all_measured(run.folder)
    assert measured["values"].keys() == {
        "miou_segmentation_from_theirs_v1", "pixel_accuracy_segmentation_from_theirs_v1",
    }  # fmt: skip
    assert measured["metrics"]["miou_segmentation_from_theirs_v1"].label == "mIoU from theirs_v1 (%)"
    assert measured["command"].endswith(f"--weights {tmp_path / 'theirs.v1.safetensors'}")  # type: ignore[typeddict-item]


def test_other_weights_are_other_work_and_an_export_has_a_file_for_each_run(
    tmp_path: Path, planned: list[PlannedRun]
) -> None:
    first, second = (run.folder for run in planned)
    for seed in (0, 1):
        write_weights(tmp_path / "study" / "export" / f"only-s{seed}" / run_folder.WEIGHTS, seed=seed)
    for place, seed in (("one", 7), ("same", 7), ("other", 8)):
        write_weights(tmp_path / place / "a.safetensors", seed=seed)
    export = task_from(tmp_path / "study/export", planned)
    one, same, other = (task_from(tmp_path / place / "a.safetensors", planned) for place in ("one", "same", "other"))
    assert export.name == "segmentation_from_study_export"
    assert export.place(first).name != export.place(second).name
    assert one.place(first).name == one.place(second).name == same.place(first).name
    assert {one.name, other.name} == {"segmentation_from_a"}
    assert one.place(first).name != other.place(first).name
    (tmp_path / "study" / "export" / "only-s1" / run_folder.WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"nothing for rung 'only' and seed 1: no only-s1/model.safetensors"):
        task_from(tmp_path / "study/export", planned)


def test_weights_of_another_network_are_refused_before_any_job(tmp_path: Path, planned: list[PlannedRun]) -> None:
    write_weights(tmp_path / "wide.safetensors", NetConfig(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8)))
    with pytest.raises(UserError, match=r"rung 'only': .*wide.safetensors: weights of another network: .* \(--only\)"):
        task_from(tmp_path / "wide.safetensors", planned)


def test_folders_of_work_on_classifiers_keep_their_names() -> None:
    recipe = replace(read_task("segmentation"), width=64, steps=600, lr=5e-3)
    names = [DownstreamTask(recipe, scratch, data="scenes-1").place(Path("run")).name for scratch in (False, True)]
    assert names == ["downstream-segmentation-21eca923852f", "downstream-segmentation_from_scratch-5a41d9087a47"]


# -- by the command


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    return write_tiny_task(tmp_path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_outcomes_without_classifiers_are_shown_and_a_classifier_trained_later_stands_beside_them(
    tmp_path: Path,
    small_images: Path,
    write_recipes: Callable[..., Path],
    task_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, runs, only = write_recipes(epochs=1), tmp_path / "runs", ["baseline", "stage_ratio"]
    words = ["--base", "resnet50", "--recipe", str(recipe), "--data", str(small_images), "--runs", str(runs)]
    words += ["--only", *only]
    from_scratch = ["downstream", *words, "--task", str(task_file), "--from-scratch", "--executor", "debug"]
    assert main([*from_scratch, "--seeds", "0", "5"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 runs, 0 evaluated already, 4 to do, with task 'segmentation'" in out
    assert "mIoU from scratch (%)" in out
    assert main([*from_scratch, "--json"]) == 0
    before = lines(capsys)
    assert [(row["rung"], row["seed"]) for row in before] == [(rung, seed) for rung in only for seed in (0, 5)]
    assert main(["status", *words, "--json"]) == 0
    for row in lines(capsys):
        assert (row["state"], row["top1"]) == ("waiting", None)
        assert row["measured"].keys() == {
            "miou_segmentation_from_scratch", "pixel_accuracy_segmentation_from_scratch",
        }  # fmt: skip
    for command in (["status"], ["report", "--out", str(tmp_path / "out")], ["compare"]):
        assert main([*command, *words]) == 0
    assert "mIoU from scratch" in capsys.readouterr().out
    assert "miou_segmentation_from_scratch" in (tmp_path / "out" / "own_metrics.csv").read_text()
    spec = StudySpec("resnet50", str(recipe), only=only, seeds=[0], data_root=small_images, runs=runs)
    result = train_run(plan_study(spec).planned()[0], data_root=small_images)
    assert result["state"] == "finished"
    assert main([*from_scratch, "--json"]) == 0
    assert lines(capsys) == before
    assert main(["downstream", *words, "--task", str(task_file), "--executor", "debug"]) == 0
    assert "4 runs, 1 trained" in " ".join(capsys.readouterr().out.split())


def test_timms_weights_go_into_the_backbone_and_keep_their_layer_scale(
    tmp_path: Path, small_images: Path, write_recipes: Callable[..., Path], task_file: Path
) -> None:
    theirs = timm.models.ConvNeXt(
        in_chans=1, num_classes=7, depths=(3, 3, 9, 3), dims=(3, 6, 12, 24), ls_init_value=0.5
    )
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    words = ["--base", "resnet50", "--recipe", str(write_recipes()), "--data", str(small_images)]
    words += ["--only", "separate_downsampling", "--runs", str(tmp_path / "runs"), "--executor", "debug"]
    command = ["downstream", *words, "--task", str(task_file), "--weights", str(tmp_path / "theirs.safetensors")]
    assert main(command) == 0
    [left] = (tmp_path / "runs").glob("*/downstream-segmentation_from_theirs-*/model.safetensors")
    gammas = [value for name, value in load_file(left).items() if name.endswith("layer_scale.gamma")]
    assert len(gammas) == 18
    assert all((value - 0.5).abs().max() < 0.1 for value in gammas)


def test_no_images_of_the_classifier_are_needed(
    tmp_path: Path, write_recipes: Callable[..., Path], task_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipes(dataset="folder", images=1000, classes=5)
    words = ["--base", "resnet50", "--recipe", str(recipe), "--only", "baseline", "--runs", str(tmp_path / "runs")]
    command = ["downstream", *words, "--task", str(task_file), "--from-scratch", "--executor", "debug"]
    assert main(["report", *words]) == 2
    assert main(command) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Without --data: counted with 1,000 training images of 5 classes. What was trained with --data is not" in out
    for looks in (["status"], ["report", "--out", str(tmp_path / "out")]):
        assert main([*looks, *words]) == 0
    assert "mIoU from scratch" in capsys.readouterr().out
    assert main(["run", *words]) == 2  # training needs them


def test_what_backbones_start_from_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["downstream", "--base", "resnet50", "--from-scratch", "--weights", "a.pth"]) == 2
    assert "--from-scratch: --weights a.pth says what the backbones start from." in capsys.readouterr().err
