"""The images of a task: what training and testing ask of a data set, and the scenes, which are made."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from roadmap.common.process_group import ALONE, Group
from roadmap.downstream.data import scenes
from roadmap.downstream.data.scenes import Part, Scene, make_scene
from roadmap.downstream.task_recipe import TaskRecipe

IGNORED = 255  # the label of pixels that do not count
MEAN, STD = 0.2868, 0.3540  # of the training images that scenes are made from, in the range 0 to 1
TEST_BATCH = 16


class Batch(NamedTuple):
    """Images with what is known of them.

    Attributes:
        images: Each (C, H, W), normalised.
        targets: Of each image: in segmentation {"labels": (H, W)}; in detection {"boxes": (n, 4), "labels": (n,) from 1
            up, "masks": (n, H, W)}.
    """

    images: list[Tensor]
    targets: list[dict[str, Any]]


class TaskData(Protocol):
    """A data set of a task.

    Attributes:
        classes: Names of the classes, in the order of their labels.
        in_channels: Channels of the images.
        fingerprint: Changes when the images do.
    """

    classes: tuple[str, ...]
    in_channels: int
    fingerprint: str

    def batch(self, seed: int, step: int, group: Group = ALONE) -> Batch:
        """Return the images of a training step, augmented; to each process of a group its share."""

    def test(self, group: Group = ALONE) -> Iterator[Batch]:
        """Yield the test images in order; to each of n processes every nth."""


def order_of(seed: int, epoch: int, images: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return the order of the training images in an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(images)


def chosen(seed: int, step: int, batch_size: int, images: int) -> list[int]:
    """Return the numbers of the images of a step: those of whole epochs, one after the other, each in its own order."""
    places = range(step * batch_size, (step + 1) * batch_size)
    return [int(order_of(seed, place // images, images)[place % images]) for place in places]


class SceneData:
    """Scenes as a data set; `TaskData` says what its parts are."""

    def __init__(self, recipe: TaskRecipe, in_channels: int) -> None:
        """Take as many scenes as a recipe has, in as many channels as a backbone sees."""
        self.recipe, self.in_channels = recipe, in_channels
        self.classes: tuple[str, ...] = ("background", *scenes.CLASSES) if recipe.is_segmentation else scenes.CLASSES
        self.fingerprint = f"scenes-{scenes.SCENES_VERSION}"
        assert recipe.train_images is not None
        assert recipe.test_images is not None
        self.train_images, self.test_images = recipe.train_images, recipe.test_images

    def batch(self, seed: int, step: int, group: Group = ALONE) -> Batch:
        """Return our scenes of a training step, mirrored as the seeded generators say."""
        numbers = chosen(seed, step, self.recipe.batch_size, self.train_images)
        mirrored = (torch.rand(len(numbers)) < self.recipe.hflip).tolist()
        places = group.share(len(numbers)).tolist()
        return self._batch([_scene("train", numbers[place]) for place in places], [mirrored[place] for place in places])

    def test(self, group: Group = ALONE) -> Iterator[Batch]:
        """Yield our test scenes in order."""
        ours = range(group.rank, self.test_images, group.size)
        for start in range(0, len(ours), TEST_BATCH):
            numbers = ours[start : start + TEST_BATCH]
            yield self._batch([_scene("test", number) for number in numbers], [False] * len(numbers))

    def _batch(self, found: list[Scene], mirrored: list[bool]) -> Batch:
        pairs = [self._example(scene, flip) for scene, flip in zip(found, mirrored, strict=True)]
        return Batch([image for image, _ in pairs], [target for _, target in pairs])

    def _example(self, scene: Scene, flip: bool) -> tuple[Tensor, dict[str, Tensor]]:
        image = torch.from_numpy(scene.image).float().div(255).sub(MEAN).div(STD)
        image = image.expand(self.in_channels, -1, -1)
        if self.recipe.is_segmentation:
            labels = torch.from_numpy(scenes.label_map(scene))
            return (image.flip(-1), {"labels": labels.flip(-1)}) if flip else (image, {"labels": labels})
        masks = torch.from_numpy(scene.masks).to(torch.uint8)
        if flip:
            image, masks = image.flip(-1), masks.flip(-1)
        labels = torch.from_numpy(scene.labels) + 1
        return image, {"boxes": boxes_of(masks), "labels": labels, "masks": masks}


@lru_cache(maxsize=20_000)  # about 50 kB each
def _scene(part: Part, number: int) -> Scene:
    return make_scene(part, number)


def boxes_of(masks: Tensor) -> Tensor:
    """Return the boxes (n, 4) that just hold masks (n, H, W), as x and y of their first and behind their last pixel."""
    from torchvision.ops import masks_to_boxes

    boxes: Tensor = masks_to_boxes(masks)
    boxes[:, 2:] += 1
    return boxes
