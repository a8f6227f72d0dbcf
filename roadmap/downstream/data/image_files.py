"""Images of a task in files: ADE20K's images and label maps, COCO's images and instances; checked before any job.

A batch is decoded and augmented by threads, one step ahead. What is drawn for an image depends on the seed, the step
and its place in the batch alone.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from roadmap.common.errors import UserError
from roadmap.common.machine import count_cores
from roadmap.common.process_group import ALONE, Group
from roadmap.downstream.data.task_data import Batch, chosen
from roadmap.downstream.task_recipe import TaskRecipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as backbones saw it
SHOWN = 3  # wrong things that an error names

Example = tuple[Tensor, dict[str, Any]]  # an image (C, H, W) and what is known of it


class FileData(ABC):
    """What the two formats share; `roadmap.downstream.data.task_data.TaskData` says what its parts are."""

    in_channels = 3

    def __init__(self, recipe: TaskRecipe, root: Path) -> None:
        """Look through the folder, and check it."""
        self.recipe, self.root = recipe, root
        self.classes, self.training, self.testing = self._look()
        names = "\n".join([*self.classes, *(f"{path.name} {path.stat().st_size}" for path in self._files())])
        self.fingerprint = f"{recipe.dataset}-{hashlib.sha256(names.encode()).hexdigest()[:16]}"
        self._threads: ThreadPoolExecutor | None = None
        self._ahead: tuple[tuple[int, int], list[Future[Example]]] | None = None

    @abstractmethod
    def _look(self) -> tuple[tuple[str, ...], list[Any], list[Any]]:
        """Return the classes, what there is to train on, and what there is to test on.

        Raises:
            UserError: If something is missing or wrong.
        """

    @abstractmethod
    def _files(self) -> Iterator[Path]:
        """Yield the files whose names and sizes tell one data set from another."""

    @abstractmethod
    def _read(self, item: Any) -> Example:
        """Return an image (3, H, W) of bytes and what is known of it."""

    @abstractmethod
    def _augment(self, image: Tensor, target: dict[str, Any], random: np.random.Generator) -> Example:
        """Return an image for training, in bytes."""

    @abstractmethod
    def _at_test(self, image: Tensor, target: dict[str, Any]) -> Example:
        """Return an image for the test, in bytes, in the size in which it is looked at."""

    def batch(self, seed: int, step: int, group: Group = ALONE) -> Batch:
        """Return our images of a training step, and begin with those of the next."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(min(self.recipe.batch_size, max(count_cores(), 1)))
        if self._ahead is None or self._ahead[0] != (seed, step):
            self._ahead = ((seed, step), self._begin(seed, step, group))
        pending = self._ahead[1]
        self._ahead = ((seed, step + 1), self._begin(seed, step + 1, group))
        pairs = [future.result() for future in pending]
        return Batch([image for image, _ in pairs], [target for _, target in pairs])

    def _begin(self, seed: int, step: int, group: Group) -> list[Future[Example]]:
        assert self._threads is not None
        numbers = chosen(seed, step, self.recipe.batch_size, len(self.training))
        places = group.share(len(numbers)).tolist()
        return [self._threads.submit(self._example, numbers[place], (seed, step, place)) for place in places]

    def _example(self, number: int, draws: tuple[int, ...]) -> Example:
        random = np.random.default_rng(draws)
        image, target = self._read(self.training[number])
        image, target = self._augment(image, target, random)
        return normalised(image), target

    def test(self, group: Group = ALONE) -> Iterator[Batch]:
        """Yield our test images one by one, in order."""
        for item in self.testing[group.rank :: group.size]:
            image, target = self._at_test(*self._read(item))
            yield Batch([normalised(image)], [target])


def normalised(image: Tensor) -> Tensor:
    """Return an image of bytes as a backbone sees it."""
    found: Tensor = F.normalize(image.float().div(255), list(MEAN), list(STD))
    return found


def read_image(path: Path) -> Tensor:
    """Return an image (3, H, W) of bytes.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with Image.open(path) as file:
            return torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: is no image that can be read ({error}). Put a whole copy in its place.") from error


def resized(image: Tensor, masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return an image (C, H, W) and masks or labels (n, H, W) in another height and width."""
    image = F.resize(image, list(size), antialias=True)
    return image, F.resize(masks, list(size), interpolation=F.InterpolationMode.NEAREST)


def fitting(size: tuple[int, int], short: float, long: float) -> tuple[int, int]:
    """Return a size of the same proportions: the shorter side as asked, or less where the longer is at its limit."""
    factor = min(short / min(size), long / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def some(names: list[str]) -> str:
    """Return the first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
