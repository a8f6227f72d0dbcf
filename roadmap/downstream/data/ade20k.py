"""ADE20K as its authors give it: images/ and annotations/, each with training/ and validation/; label 0 does not count.

Source: Zhou et al. 2017, "Scene Parsing through ADE20K Dataset" (the layout of ADEChallengeData2016); augmentation as
    in the configurations of the authors of ConvNeXt.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from roadmap.common.errors import UserError
from roadmap.downstream.data.image_files import Example, FileData, fitting, read_image, resized, some
from roadmap.downstream.data.task_data import IGNORED

CLASSES = 150
NAMES = "objectInfo150.txt"  # of the classes, a table whose last column has them
PARTS = ("training", "validation")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
LOOKED_AT = 50  # label maps of each part that are opened before any job
LONGEST = 4  # longer side of an image by the crop's side, at most, before it is scaled at random
MOST_OF_ONE, CROPS = 0.75, 10  # share of a crop that one class may have; how many crops are tried for it
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32 / 255, (0.5, 1.5), (0.5, 1.5), 18 / 180


class Pair(NamedTuple):
    """An image and its label map."""

    image: Path
    labels: Path


class Ade20k(FileData):
    """ADE20K, or anything in its layout with labels from 0 to 150."""

    def _look(self) -> tuple[tuple[str, ...], list[Pair], list[Pair]]:
        training, testing = (self._pairs(part) for part in PARTS)
        for pairs in (training, testing):
            for pair in pairs[:: max(1, len(pairs) // LOOKED_AT)]:
                image, labels = _size(pair.image), read_labels(pair.labels)
                if image != tuple(labels.shape):
                    raise UserError(
                        f"{pair.labels}: is {_in_words(tuple(labels.shape))}, but its image is {_in_words(image)}. "
                        "Put a label map of the image's size in its place."
                    )
        return self._names(), training, testing

    def _pairs(self, part: str) -> list[Pair]:
        folders = [self.root / kind / part for kind in ("images", "annotations")]
        for folder in folders:
            if not folder.is_dir():
                raise UserError(
                    f"{folder}: is not there. --task-data names the folder that has images/ and annotations/, each "
                    f"with {PARTS[0]}/ and {PARTS[1]}/, as ADEChallengeData2016 has."
                )
        images = {path.stem: path for path in sorted(folders[0].iterdir()) if path.suffix.lower() in IMAGE_ENDINGS}
        labels = {path.stem: path for path in sorted(folders[1].glob("*.png"))}
        if not images:
            raise UserError(f"{folders[0]}: has no images ({', '.join(IMAGE_ENDINGS)}).")
        if alone := [images[name].name for name in images.keys() - labels.keys()]:
            raise UserError(f"{folders[1]}: no label map (.png) for {some(sorted(alone))}. Put them there.")
        if alone := [labels[name].name for name in labels.keys() - images.keys()]:
            raise UserError(f"{folders[0]}: no image for {some(sorted(alone))}. Put them there.")
        return [Pair(images[name], labels[name]) for name in images]

    def _names(self) -> tuple[str, ...]:
        path = self.root / NAMES
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[1:] if path.is_file() else []
        names = tuple(line.rpartition("\t")[2].split(",")[0].strip() for line in lines if line.strip())
        return names if len(names) == CLASSES else tuple(f"class {number}" for number in range(1, CLASSES + 1))

    def _files(self) -> Iterator[Path]:
        for pair in (*self.training, *self.testing):
            yield from pair

    def _read(self, item: Pair) -> Example:
        image, labels = read_image(item.image), read_labels(item.labels)
        if image.shape[1:] != labels.shape:
            raise UserError(f"{item.labels}: is not of its image's size. Put one of that size in its place.")
        return image, {"labels": labels}

    def _augment(self, image: Tensor, target: dict[str, Any], random: np.random.Generator) -> Example:
        recipe = self.recipe
        side = recipe.image_size
        height, width = fitting(tuple(image.shape[1:]), side, LONGEST * side)  # type: ignore[arg-type]
        scale = random.uniform(*recipe.scales)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        image, labels = resized(image, target["labels"][None], size)
        image, labels = _crop(image, labels[0], side, random)
        if random.random() < recipe.hflip:
            image, labels = image.flip(-1), labels.flip(-1)
        return distorted(image, random), {"labels": labels.long()}

    def _at_test(self, image: Tensor, target: dict[str, Any]) -> Example:
        side = self.recipe.image_size
        size = fitting(tuple(image.shape[1:]), side, LONGEST * side)  # type: ignore[arg-type]
        return F.resize(image, list(size), antialias=True), {"labels": target["labels"].long()}


def read_labels(path: Path) -> Tensor:
    """Return a label map (H, W) of bytes: classes from 0, and what does not count.

    Raises:
        UserError: If it cannot be read, or has other labels.
    """
    try:
        with Image.open(path) as file:
            labels = np.array(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no image that can be read ({error}). Put a whole copy in its place.") from error
    if labels.ndim != 2 or labels.max() > CLASSES:
        found = f"colours in {labels.shape[2]} channels" if labels.ndim > 2 else f"label {labels.max()}"
        raise UserError(
            f"{path}: has {found}, but a label map is grey, with 0 for what does not count and 1 to {CLASSES} for the "
            "classes."
        )
    return torch.from_numpy(np.where(labels == 0, IGNORED, labels - 1).astype(np.uint8))


def _crop(image: Tensor, labels: Tensor, side: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a square of an image, padded where it is smaller; if there is one, a square that no class fills."""
    down, right = max(side - image.shape[1], 0), max(side - image.shape[2], 0)
    image = F.pad(image, [0, 0, right, down])
    labels = F.pad(labels[None], [0, 0, right, down], fill=IGNORED)[0]
    for _ in range(CROPS):
        top, left = (int(random.integers(0, length - side + 1)) for length in image.shape[1:])
        cut = labels[top : top + side, left : left + side]
        counts = torch.bincount(cut[cut != IGNORED].flatten().long())
        if (counts > 0).sum() > 1 and counts.max() < MOST_OF_ONE * counts.sum():
            break
    return image[:, top : top + side, left : left + side], cut


def distorted(image: Tensor, random: np.random.Generator) -> Tensor:
    """Return an image in another brightness, contrast, saturation and hue, each with probability one half."""
    changes = random.random(4) < 0.5
    values = (
        1 + random.uniform(-BRIGHTNESS, BRIGHTNESS),
        random.uniform(*CONTRAST),
        random.uniform(*SATURATION),
        random.uniform(-HUE, HUE) / 2,
    )
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for change, step, value in zip(changes, steps, values, strict=True):
        image = step(image, float(value)) if change else image
    return image


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as file:
            return file.size[1], file.size[0]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no image that can be read ({error}). Put a whole copy in its place.") from error


def _in_words(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
