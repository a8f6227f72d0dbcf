"""Training of detectors and segmenters: its rates, its groups of layers, and going on where it stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from roadmap.common.errors import UserError
from roadmap.common.process_group import ALONE
from roadmap.downstream.data.task_data import SceneData, TaskData
from roadmap.downstream.feature_maps import FeatureMaps
from roadmap.downstream.segmentation import make as make_segmenter
from roadmap.downstream.task_recipe import FOLDER, TaskRecipe, read_task
from roadmap.downstream.training import (
    Outcome,
    TaskRun,
    layers_of,
    make_task_model,
    parameter_groups,
    rate_at,
    train_task,
)
from roadmap.jobs.tasks import Setting, Stopped
from roadmap.networks.config import scale_down
from roadmap.networks.families import BASES, convnext
from roadmap.networks.model import build_model
from roadmap.runs.claims import Writer
from roadmap.training.checkpoints import checkpoints
from tests.samples import PAPER

LAST = scale_down(convnext("tiny", layer_scale=None), width_divisor=16, stem_stride=4)
SMALL = {"steps": 4, "batch_size": 2, "warmup_steps": 1, "train_images": 6, "test_images": 3, "width": 8}


def small(task: str, **settings: object) -> TaskRecipe:
    return replace(read_task(task), **SMALL | settings)  # type: ignore[arg-type]


def train(
    folder: Path, recipe: TaskRecipe, asked: Callable[[], str] = lambda: "", data: TaskData | None = None
) -> Outcome:
    folder.mkdir(exist_ok=True)
    writer = Writer(folder)
    writer.open()
    setting = Setting(None, 1, 1000.0, asked, ALONE, (), writer)  # type: ignore[arg-type]
    torch.set_num_threads(1)
    try:
        return train_task(TaskRun(recipe, LAST, 5), data or SceneData(recipe, 1), None, setting, "cpu")
    finally:
        writer.close()


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_what_was_stopped_goes_on_to_the_same_weights_bit_for_bit(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadmap.downstream.training.LOOK_EVERY_S", 0.0)  # asks after every step
    recipe = small(task)
    whole = train(tmp_path / "whole", recipe)
    for answers in (["", "stop"], ["stop"], []):  # after step 2, after step 3, to the end
        waiting = iter(answers)
        try:
            outcome = train(tmp_path / "cut", recipe, lambda waiting=waiting: next(waiting, ""))  # type: ignore[misc]
        except Stopped:
            assert checkpoints(tmp_path / "cut")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert outcome.values == whole.values
    assert outcome.details["train_loss"] == whole.details["train_loss"]


def test_a_backbone_starts_from_the_classifier_and_refuses_another_networks_weights() -> None:
    classifier = build_model(LAST, num_classes=10, in_channels=1).state_dict()
    backbone = FeatureMaps(LAST, in_channels=1)
    backbone.load_classifier(classifier)
    assert all(torch.equal(value, classifier[name]) for name, value in backbone.network.state_dict().items())
    with pytest.raises(UserError, match=r"of another network: \d+ of \d+ tensors of the backbone do not fit"):
        FeatureMaps(scale_down(BASES["resnet50"], width_divisor=16, stem_stride=4), in_channels=1).load_classifier(
            classifier
        )


def test_a_loss_that_is_no_number_ends_with_words(tmp_path: Path) -> None:
    class Broken(SceneData):
        def _example(self, scene: object, flip: bool) -> tuple[Tensor, dict[str, Tensor]]:
            image, target = super()._example(scene, flip)  # type: ignore[arg-type]
            return image * float("nan"), target

    recipe = small("segmentation")
    with pytest.raises(UserError, match=r"the loss is nan by step \d\. Lower lr"):
        train(tmp_path / "run", recipe, data=Broken(recipe, 1))


def test_rates_rise_linearly_and_fall_to_nothing_or_in_steps() -> None:
    linear = replace(read_task("segmentation"), lr=1.0, steps=100, warmup_steps=10, warmup_ratio=0.0)
    assert rate_at(linear, 0) == 0
    assert rate_at(linear, 5) == pytest.approx(0.5 * 0.95)
    assert rate_at(linear, 10) == pytest.approx(0.9)
    assert rate_at(linear, 99) == pytest.approx(0.01)
    stepped = replace(linear, schedule="step", decay_steps=(60, 80), warmup_steps=0)
    assert [round(rate_at(stepped, step), 6) for step in (0, 59, 60, 79, 80)] == [1, 1, 0.1, 0.1, 0.01]


@pytest.mark.parametrize(("size", "top"), [("tiny", 7), ("small", 13)])
def test_groups_of_layers_are_the_authors(size: str, top: int) -> None:
    """Stem 0, stage 1 1, second downsampling and stage 2 2, third 3, stage 3 3 + block // 3, then stage 4, the rest."""
    with torch.device("meta"):
        model = make_segmenter(read_task("segmentation"), FeatureMaps(convnext(size)), 5, 3)
    layers = layers_of(read_task("segmentation"), model)
    for name, layer in layers.items():
        part, *place = name.removeprefix("backbone.network.").split(".")
        if part == "stem":
            assert layer == 0, name
        else:
            stage, block = int(place[0]), 0 if place[1] == "downsample" else int(place[1])
            assert layer == {0: 1, 1: 2, 2: 3 + block // 3, 3: top - 1}[stage], name
    assert not any(name.startswith(("head", "backbone.norms")) for name in layers)


@pytest.mark.parametrize(("by", "shares"), [("layers", range(8)), ("stages", [0, 1, 2, 3, 4, 7])])
def test_each_group_has_its_share_of_the_rate_and_only_weights_decay(by: str, shares: list[int]) -> None:
    recipe = replace(read_task("segmentation"), layer_decay=0.5, decay_by=by)
    with torch.device("meta"):
        model = make_segmenter(recipe, FeatureMaps(convnext("tiny")), 5, 3)
    groups = parameter_groups(recipe, model)
    assert {group["scale"] for group in groups} == {0.5 ** (7 - share) for share in shares}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        assert all((group["weight_decay"] > 0) == (parameter.ndim > 1) for parameter in group["params"])


@pytest.mark.parametrize("rung", [rung.id for rung in PAPER.climb("resnet50")])
def test_every_rung_can_be_a_backbone(rung: str) -> None:
    net = next(each.net for each in PAPER.climb("resnet50") if each.id == rung)
    with torch.device("meta"):
        for name in ("segmentation", "detection", "ade20k", "coco", "coco_cascade"):
            recipe = read_task(name)
            model = make_task_model(TaskRun(recipe, net, 0), 10, 3, None)  # type: ignore[arg-type]
            assert parameter_groups(recipe, model)


def test_errors_of_a_recipe_come_all_at_once(tmp_path: Path) -> None:
    text = (FOLDER / "detection.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("steps: 600", "steps: 10").replace("test_images: 500", ""))
    with pytest.raises(UserError) as raised:
        read_task(str(path))
    for part in ("mine.yaml", "dataset 'scenes' needs both", "warmup_steps is 30, but must be below steps, 10"):
        assert part in str(raised.value)
    path.write_text(text.replace("test_images", "tests"))
    with pytest.raises(UserError, match=r"mine\.yaml:12: unknown key 'tests'"):
        read_task(str(path))
    with pytest.raises(UserError, match=r"unknown task 'detecton'\. Did you mean 'detection'"):
        read_task("detecton")
