"""Images of tasks in files: read as the formats say, and refused in words before any job where they are not so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from roadmap.common.errors import UserError
from roadmap.downstream.data.ade20k import Ade20k
from roadmap.downstream.data.coco import Coco
from roadmap.downstream.data.sources import open_data
from roadmap.downstream.data.task_data import IGNORED
from roadmap.downstream.task_recipe import read_task

ADE = replace(read_task("ade20k"), image_size=32, batch_size=2)
COCO = replace(read_task("coco"), image_size=96, batch_size=2, short_sides=(48, 64))


def write_image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    Image.fromarray(shade.astype(np.uint8)).save(path)


def write_labels(path: Path, height: int, width: int, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((height, width), np.uint8)
    labels[:, : width // 2] = label
    labels[: height // 2, width // 2 :] = 3
    Image.fromarray(labels).save(path)


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    root = tmp_path / "ade"
    for part, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            write_image(root / f"images/{part}/{number}.jpg", 40, 60)
            write_labels(root / f"annotations/{part}/{number}.png", 40, 60, 150)
    return root


def square(left: float, top: float, side: float) -> list[list[float]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def an_object(number: int, image: int, left: float, top: float, side: float, **more: Any) -> dict[str, Any]:
    about = {"id": number, "image_id": image, "category_id": 7, "bbox": [left, top, side, side], "iscrowd": 0}
    return about | {"segmentation": square(left, top, side), "area": side * side} | more


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a small set in COCO's format, with more objects in its training part."""

    def write(*more: dict[str, Any]) -> Path:
        root = tmp_path / "coco"
        for part in ("train2017", "val2017"):
            images = [{"id": n, "file_name": f"{n}.jpg", "height": 50, "width": 80} for n in (1, 2, 3)]
            for each in images:
                write_image(root / part / str(each["file_name"]), 50, 80)
            crowd = np.zeros((50, 80), np.uint8)
            crowd[:10, :30] = 1
            run_lengths = coco_mask.encode(np.asfortranarray(crowd))
            run_lengths["counts"] = run_lengths["counts"].decode()
            objects = [
                an_object(1, 1, 10, 10, 20),
                an_object(2, 1, 40, 5, 30, category_id=9),
                an_object(3, 2, 0, 0, 10, iscrowd=1, segmentation=run_lengths, bbox=[0, 0, 30, 10]),
                an_object(4, 2, 50, 20, 25),
                an_object(5, 2, 50, 20, 0, segmentation=square(50, 20, 0)),  # without height, as COCO has some
                *(more if part == "train2017" else ()),
            ]
            categories = [{"id": 7, "name": "seven"}, {"id": 9, "name": "nine"}]
            path = root / f"annotations/instances_{part}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
        return root

    return write


def test_ade20k_is_read_with_what_does_not_count_left_out(ade: Path) -> None:
    data = Ade20k(ADE, ade)
    assert len(data.classes) == 150
    batch = data.batch(0, 0)
    assert {tuple(image.shape) for image in batch.images} == {(3, 32, 32)}
    seen = {int(label) for target in batch.targets for label in target["labels"].unique()}
    assert seen <= {149, 2, IGNORED}
    [first, _] = data.test()
    assert first.images[0].shape == (3, 32, 48)
    assert first.targets[0]["labels"].shape == (40, 60)
    assert first.targets[0]["labels"].unique().tolist() == [2, 149, IGNORED]


@pytest.mark.parametrize("kind", ["ade", "coco"])
def test_a_batch_depends_on_seed_and_step_alone(kind: str, ade: Path, write_coco: Callable[..., Path]) -> None:
    def make() -> Any:
        return Ade20k(ADE, ade) if kind == "ade" else Coco(COCO, write_coco())

    one, other = make(), make()
    for step in range(3):
        one.batch(4, step)
    for image, again in zip(one.batch(4, 3).images, other.batch(4, 3).images, strict=True):
        assert torch.equal(image, again)
    assert one.fingerprint == other.fingerprint


def _missing_map(root: Path) -> None:
    (root / "annotations/training/1.png").unlink()


def _missing_image(root: Path) -> None:
    (root / "images/validation/1.jpg").unlink()


def _other_size(root: Path) -> None:
    write_labels(root / "annotations/training/2.png", 40, 61, 1)


def _strange_label(root: Path) -> None:
    write_labels(root / "annotations/validation/0.png", 40, 60, 151)


def _no_image(root: Path) -> None:
    (root / "images/training/0.jpg").write_text("no image")


def _no_folder(root: Path) -> None:
    (root / "annotations").rename(root / "labels")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_missing_map, r"annotations/training: no label map \(\.png\) for 1\.jpg\. Put them there"),
        (_missing_image, r"images/validation: no image for 1\.png"),
        (_other_size, r"2\.png: is 61x40, but its image is 60x40"),
        (_strange_label, r"0\.png: has label 151, but a label map is grey, with 0 .* and 1 to 150"),
        (_no_image, r"0\.jpg: is no image that can be read"),
        (_no_folder, r"annotations/training: is not there\. --task-data names the folder"),
    ],
)
def test_faults_of_ade20k_are_said_in_words(ade: Path, harm: Callable[[Path], None], words: str) -> None:
    harm(ade)
    with pytest.raises(UserError, match=words):
        Ade20k(ADE, ade)


def test_coco_is_read_without_crowds_to_train_on_and_with_them_at_test(write_coco: Callable[..., Path]) -> None:
    data = Coco(COCO, write_coco())
    assert data.classes == ("seven", "nine")
    assert len(data.training) == 2  # the third has no objects
    images = list(data.test())
    assert len(images) == 3
    first, second = images[0].targets[0], images[1].targets[0]
    assert first["boxes"].tolist() == [[10, 10, 30, 30], [40, 5, 70, 35]]
    assert first["labels"].tolist() == [1, 2]
    assert first["size"] == (50, 80)
    assert second["iscrowd"].tolist() == [1, 0]
    assert images[0].images[0].shape == (3, 60, 96)  # the longer side is at its limit


def test_objects_go_with_the_image_through_training(write_coco: Callable[..., Path]) -> None:
    data = Coco(COCO, write_coco())
    for step in range(6):
        for image, target in zip(*data.batch(1, step), strict=True):
            height, width = image.shape[1:]
            assert max(height, width) <= 96
            assert target["masks"].shape[1:] == (height, width)
            assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"])
            for box, mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
                assert mask[box[1] : box[3], box[0] : box[2]].sum() == mask.sum() > 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (an_object(9, 99, 1, 1, 5), "annotations 9: image_id is no image's"),
        (an_object(9, 1, 1, 1, 5, category_id=8), "annotations 9: category_id is no category's"),
        (an_object(9, 1, 70, 1, 20), "annotations 9: bbox leaves its image"),
        (an_object(9, 1, 7, 1, 20, segmentation=[]), "annotations 9: segmentation is empty"),
        (an_object(9, 1, 7, 1, 20, bbox=[1, 2]), r"annotations 9: bbox is not \[left, top, width, height\]"),
    ],
)
def test_faults_of_coco_are_said_in_words(write_coco: Callable[..., Path], more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=rf"instances_train2017\.json: {words}"):
        Coco(COCO, write_coco(more))


def test_missing_images_of_coco_are_named(write_coco: Callable[..., Path]) -> None:
    root = write_coco()
    (root / "train2017/2.jpg").unlink()
    with pytest.raises(UserError, match=r"train2017: 2\.jpg of instances_train2017\.json are not there"):
        Coco(COCO, root)
    (root / "annotations/instances_train2017.json").write_text("{")
    with pytest.raises(UserError, match=r"instances_train2017\.json: is no JSON"):
        Coco(COCO, root)


def test_a_task_says_what_images_it_needs(ade: Path) -> None:
    with pytest.raises(UserError, match=r"task 'ade20k' needs images\. Say where they are: --task-data DIR"):
        open_data(ADE, 3, None)
    with pytest.raises(UserError, match=r"colour images, but the networks of this study see 1 channel"):
        open_data(ADE, 1, ade)
    with pytest.raises(UserError, match=r"'segmentation' makes its images, so --task-data .* would not be used"):
        open_data(read_task("segmentation"), 1, ade)
