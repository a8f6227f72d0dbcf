"""Detectors and segmenters that several processes train together."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from roadmap.common.process_group import ALONE, Group, join
from roadmap.common.seeding import seed_step
from roadmap.downstream import training, upernet
from roadmap.downstream.data.task_data import SceneData
from roadmap.downstream.task_recipe import TaskRecipe
from roadmap.downstream.training import TaskRun, make_task_model, train_task
from roadmap.jobs.tasks import Setting, Stopped
from roadmap.runs.claims import Writer
from tests.downstream.test_training import LAST, small
from tests.training.test_process_group import start_together, wait_for_all

TOGETHER = {"batch_size": 4, "test_images": 5}


def _train(folder: Path, recipe: TaskRecipe, stop_after: int = 0) -> None:
    """Train as a member of a group, in which rank 0 has the say, and write what each process found."""
    training.LOOK_EVERY_S, upernet.DROPOUT = 0.0, 0.0
    torch.set_num_threads(1)
    with join() as group:
        writer, looks = Writer(folder), 0
        if group.rank == 0:
            writer.open()

        def asked() -> str:
            nonlocal looks
            looks += 1
            return "stop" if group.rank == 0 and looks == stop_after else ""

        setting = Setting(None, 1, 1000.0, asked, group, (), writer)  # type: ignore[arg-type]
        try:
            outcome = train_task(TaskRun(recipe, LAST, 5), SceneData(recipe, 1), None, setting, "cpu")
            torch.save([outcome.values, outcome.details["train_loss"]], folder / f"found-{group.rank}")
        except Stopped:
            pass


def train_together(size: int, folder: Path, recipe: TaskRecipe, stop_after: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    assert wait_for_all(start_together(size, _train, folder, recipe, stop_after)) == [0] * size


def test_two_processes_train_one_detector_and_what_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recipe, whole, cut = small("detection", **TOGETHER), tmp_path / "whole", tmp_path / "cut"
    train_together(2, whole, recipe)
    train_together(2, cut, recipe, stop_after=2)
    assert not (cut / "found-0").exists()
    train_together(2, cut, recipe)
    found = [torch.load(folder / f"found-{rank}") for folder in (whole, cut) for rank in range(2)]
    assert all(each == found[0] for each in found)
    weights = [load_file(folder / "model.safetensors") for folder in (whole, cut)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_two_processes_learn_what_one_alone_does_where_nothing_is_drawn_inside_the_network(tmp_path: Path) -> None:
    recipe = small("segmentation", **TOGETHER, lr=1e-4)
    for size in (1, 2):
        train_together(size, tmp_path / str(size), recipe)
    (alone, loss), (together, other) = (torch.load(tmp_path / name / "found-0") for name in ("1", "2"))
    assert other == pytest.approx(loss, rel=1e-4)
    assert together["pixel_accuracy"] == pytest.approx(alone["pixel_accuracy"], abs=1.0)
    # Half a batch would move the weights otherwise, and have BatchNorm see other statistics.
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("1", "2")]
    seed_step(5, -2 % 2**32)
    first = make_task_model(TaskRun(recipe, LAST, 5), 11, 1, None)
    ways = [torch.cat([(end[name] - value).flatten() for name, value in first.named_parameters()]) for end in weights]
    assert torch.cosine_similarity(ways[0], ways[1], dim=0).item() > 0.999
    statistics = [name for name, _ in first.named_buffers() if name.endswith(("running_mean", "running_var"))]
    assert statistics
    for name in statistics:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5)


def test_shares_of_a_batch_and_of_the_test_are_the_whole_together() -> None:
    data = SceneData(small("detection", **TOGETHER), 1)
    groups = [Group(rank, 2) for rank in range(2)]
    order = torch.cat([group.share(4) for group in groups]).argsort().tolist()
    torch.manual_seed(0)
    whole = data.batch(3, 1, ALONE).images
    parts = []
    for group in groups:
        torch.manual_seed(0)
        parts += data.batch(3, 1, group).images
    assert all(torch.equal(parts[place], image) for place, image in zip(order, whole, strict=True))
    tests = [[image for batch in data.test(group) for image in batch.images] for group in (ALONE, *groups)]
    assert [len(each) for each in tests] == [5, 3, 2]
    assert all(torch.equal(tests[1 + number % 2][number // 2], image) for number, image in enumerate(tests[0]))
