"""COCO's format: images in folders, objects in annotations/instances_*.json, read by faster-coco-eval.

Source: Lin et al. 2014, "Microsoft COCO" (the layout of 2017); augmentation as in the configurations of the authors of
    ConvNeXt: at random a resized image, or a resized part of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from roadmap.common.errors import UserError
from roadmap.downstream.data.image_files import Example, FileData, fitting, read_image, resized, some
from roadmap.downstream.data.task_data import boxes_of

PARTS = {"train2017": "annotations/instances_train2017.json", "val2017": "annotations/instances_val2017.json"}
KEYS = ("images", "annotations", "categories")
OUTSIDE = 2.0  # pixels by which a box may leave its image
CROP_FROM = (400, 500, 600)  # shorter sides of an image from which a part is cut
CROP_SIDES = (384, 600)  # of the part, at least and at most


class Item(NamedTuple):
    """An image with its objects, as the file has them."""

    path: Path
    objects: tuple[dict[str, Any], ...]


class Coco(FileData):
    """COCO, or anything in its format."""

    def _look(self) -> tuple[tuple[str, ...], list[Item], list[Item]]:
        (training, names), (testing, test_names) = (self._part(part) for part in PARTS)
        if names != test_names:
            raise UserError(f"{self.root / PARTS['val2017']}: has other categories than the training part.")
        # What has no objects teaches nothing; crowds are for the test, which does not count what is found in them.
        training = [Item(path, tuple(each for each in objects if not each["iscrowd"])) for path, objects in training]
        training = [item for item in training if item.objects]
        if not training or not testing:
            raise UserError(f"{self.root}: has no images with objects to train on, or none to test on.")
        return names, training, testing

    def _part(self, part: str) -> tuple[list[Item], tuple[str, ...]]:
        folder, path = self.root / part, self.root / PARTS[part]
        content = _read_json(path)
        if not folder.is_dir():
            raise UserError(f"{folder}: is not there. --task-data names the folder that has it beside annotations/.")
        there = {each.name for each in folder.iterdir()}
        images = {each["id"]: each for each in content["images"]}
        if missing := sorted(each["file_name"] for each in images.values() if each["file_name"] not in there):
            raise UserError(f"{folder}: {some(missing)} of {path.name} are not there. Put them there.")
        labels = {each["id"]: label for label, each in enumerate(content["categories"], 1)}
        _check(path, content["annotations"], images, labels)
        objects: dict[int, list[dict[str, Any]]] = {}
        for each in content["annotations"]:
            if each["bbox"][2] >= 1 and each["bbox"][3] >= 1:  # COCO has a few without width or height
                kept = {"segmentation": each["segmentation"], "iscrowd": each.get("iscrowd", 0)}
                kept["label"] = labels[each["category_id"]]
                objects.setdefault(each["image_id"], []).append(kept)
        items = [Item(folder / each["file_name"], tuple(objects.get(key, ()))) for key, each in images.items()]
        return items, tuple(str(each["name"]) for each in content["categories"])

    def _files(self) -> Iterator[Path]:
        yield from (self.root / path for path in PARTS.values())

    def _read(self, item: Item) -> Example:
        from faster_coco_eval.core import mask as coco_mask

        image = read_image(item.path)
        height, width = image.shape[1:]
        masks = np.zeros((len(item.objects), height, width), np.uint8)
        for number, each in enumerate(item.objects):
            found = each["segmentation"]
            if isinstance(found, list):
                found = coco_mask.merge(coco_mask.frPyObjects(found, height, width))
            elif isinstance(found["counts"], list):
                found = coco_mask.frPyObjects(found, height, width)
            mask = coco_mask.decode(found)
            if mask.shape != (height, width):
                raise UserError(f"{item.path}: is {width}x{height}, but its mask {mask.shape[1]}x{mask.shape[0]}.")
            masks[number] = mask
        return image, {
            "masks": torch.from_numpy(masks),
            "labels": torch.tensor([each["label"] for each in item.objects], dtype=torch.long),
            "iscrowd": torch.tensor([each["iscrowd"] for each in item.objects], dtype=torch.long),
        }

    def _augment(self, image: Tensor, target: dict[str, Any], random: np.random.Generator) -> Example:
        recipe, masks = self.recipe, target["masks"]
        if random.random() < recipe.hflip:
            image, masks = image.flip(-1), masks.flip(-1)
        if random.random() < 0.5:
            short = int(random.choice(CROP_FROM))
            image, masks = resized(image, masks, fitting(_size(image), short, recipe.image_size))
            sides = [int(random.integers(min(CROP_SIDES[0], n), min(CROP_SIDES[1], n) + 1)) for n in _size(image)]
            top, left = (int(random.integers(0, n - side + 1)) for n, side in zip(_size(image), sides, strict=True))
            cut = (..., slice(top, top + sides[0]), slice(left, left + sides[1]))
            image, masks = image[cut], masks[cut]
        size = fitting(_size(image), int(random.choice(recipe.short_sides)), recipe.image_size)
        return _with_boxes(*resized(image, masks, size), target["labels"])

    def _at_test(self, image: Tensor, target: dict[str, Any]) -> Example:
        from torchvision.transforms.v2 import functional as F

        size = fitting(_size(image), self.recipe.short_sides[-1], self.recipe.image_size)
        there = (target["masks"].flatten(1) > 0).any(1)
        kept = {name: value[there] for name, value in target.items()}
        return F.resize(image, list(size), antialias=True), kept | {
            "boxes": boxes_of(kept["masks"]),
            "size": _size(image),
        }


def _with_boxes(image: Tensor, masks: Tensor, labels: Tensor) -> Example:
    """Return an image and the objects that are still to be seen in it."""
    there = (masks.flatten(1) > 0).any(1)
    return image, {"boxes": boxes_of(masks[there]), "labels": labels[there], "masks": masks[there]}


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). --task-data names the folder that has annotations/, "
            "train2017/ and val2017/."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({error}). Put a whole copy in its place.") from error
    lists = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS)
    if not lists:
        raise UserError(f"{path}: lacks one of the lists {', '.join(KEYS)}, which COCO's format has.")
    return dict(content)


def _check(
    path: Path, objects: list[dict[str, Any]], images: dict[int, dict[str, Any]], labels: dict[int, int]
) -> None:
    """Refuse objects that are of no image or category, leave their image, or have no mask; all kinds at once."""
    wrong: dict[str, list[str]] = {}
    for each in objects:
        reason = _fault(each, images, labels)
        if reason:
            wrong.setdefault(reason, []).append(str(each.get("id")))
    if wrong:
        lines = [f"{path}: annotations {some(ids)}: {reason}." for reason, ids in wrong.items()]
        raise UserError("\n".join([*lines, "Mend the file, or leave these out of it."]))


def _fault(each: dict[str, Any], images: dict[int, dict[str, Any]], labels: dict[int, int]) -> str:
    """Return what is wrong with an object; nothing where all is well."""
    if (image := images.get(each.get("image_id", -1))) is None:
        return "image_id is no image's"
    if each.get("category_id") not in labels:
        return "category_id is no category's"
    box = each.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(n, int | float) for n in box):
        return "bbox is not [left, top, width, height]"
    left, top, width, height = box
    inside = min(left, top) >= -OUTSIDE and left + width <= image["width"] + OUTSIDE
    if not inside or top + height > image["height"] + OUTSIDE or min(width, height) < 0:
        return "bbox leaves its image"
    mask = each.get("segmentation")
    is_polygons = isinstance(mask, list) and mask and all(isinstance(p, list) and len(p) >= 6 for p in mask)
    if not is_polygons and not (isinstance(mask, dict) and {"counts", "size"} <= mask.keys()):
        return "segmentation is empty, or neither polygons of at least three corners nor run lengths"
    return ""
