"""What is done to images: those of a folder are decoded, cropped and augmented in the workers, mixed on the device.

JPEGs are decoded by simplejpeg and resized as uint8 tensors, which is faster than in PIL; benchmarks/README.md says by
how much. What is drawn and RandAugment itself are timm's, so an image differs from timm's by the rounding of the resize
alone: at most two levels of 255 before RandAugment.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from simplejpeg import decode_jpeg
from timm.data import Mixup, create_transform
from timm.data.auto_augment import RandAugment, posterize, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from roadmap.common.process_group import Group
from roadmap.common.seeding import seed_step

if TYPE_CHECKING:
    from roadmap.recipe import Recipe

JPEG = b"\xff\xd8\xff"  # how its files begin


class Erased(NamedTuple):
    """A rectangle of an image that becomes noise, in pixels, and the noise's seed; height 0 where there is none."""

    top: int
    left: int
    height: int
    width: int
    seed: int


UNTOUCHED = Erased(0, 0, 0, 0, 0)


def decode(data: bytes) -> Tensor:
    """Decode an image file to RGB.

    Returns:
        uint8, shape (3, H, W), channels last in memory.

    Raises:
        OSError: If it is damaged or no image.
    """
    if data.startswith(JPEG):
        try:
            return torch.from_numpy(decode_jpeg(data)).permute(2, 0, 1)
        except ValueError:
            pass  # PIL knows more kinds (CMYK), and what is wrong with the others
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def train_transform(recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """Return a recipe's augmentation of a decoded image: uint8 (3, H, W) -> uint8 (3, image_size, image_size)."""
    timm_primary, policy, _ = create_transform(
        recipe.image_size,
        is_training=True,
        scale=(recipe.random_resized_crop, 1.0),
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.randaugment,
        interpolation=recipe.interpolation,
        use_prefetcher=True,
        separate=True,
    )
    crop, *flip = timm_primary.transforms
    for augment in policy.transforms:
        if isinstance(augment, RandAugment):
            _mend(augment)
    in_pil = [_to_pil, *policy.transforms, F.pil_to_tensor] if policy.transforms else []
    return v2.Compose([_Crop(crop), *flip, *in_pil])  # type: ignore[no-any-return]


class CentreCrop:
    """A recipe's centre crop of a decoded image: uint8 (3, H, W) -> uint8 (3, image_size, image_size)."""

    def __init__(self, recipe: Recipe) -> None:
        side = int(recipe.image_size / recipe.test_crop)
        self.size, self.resized = recipe.image_size, [side, side] if recipe.test_resize == "squash" else [side]
        self.interpolation = InterpolationMode(recipe.interpolation)

    def __call__(self, image: Tensor) -> Tensor:
        """Resize, cut out the middle."""
        cut: Tensor = F.center_crop(_resize(image, self.resized, self.interpolation), [self.size])
        return cut


def _resize(image: Tensor, size: list[int], interpolation: InterpolationMode) -> Tensor:
    # As a batch of one that is channels last without doubt, for which torch has its fastest kernel.
    batch = image[None].contiguous(memory_format=torch.channels_last)
    resized: Tensor = F.resize(batch, size, interpolation, antialias=True)[0]
    return resized


class _Crop:
    """timm's random resized crop of a uint8 tensor."""

    def __init__(self, crop: RandomResizedCropAndInterpolation) -> None:
        self.crop = crop

    def __call__(self, image: Tensor) -> Tensor:
        cut: Tensor = F.crop(image, *self.crop.get_params(image, self.crop.scale, self.crop.ratio))
        return _resize(cut, list(self.crop.size), self.crop.interpolation)


class EachRandAugment:
    """A recipe's RandAugment of small images in memory, each drawn for itself with Python's and NumPy's generators.

    uint8 (N, C, H, W) on any device -> the same shape there. It is timm's, in PIL on the CPU, as for image folders:
    about 80 microseconds for a grey image of 28x28.
    """

    def __init__(self, recipe: Recipe, mean: Tensor) -> None:
        """Take the mean colour, from 0 to 1, of any shape with C values: what is moved in from outside has it."""
        colour = tuple(round(255 * value) for value in mean.flatten().tolist())
        own = {"translate_const": int(recipe.image_size * 0.45), "img_mean": colour}
        own["interpolation"] = str_to_pil_interp(recipe.interpolation)
        self.augment = _mend(rand_augment_transform(recipe.randaugment, own))

    def __call__(self, images: Tensor) -> Tensor:
        """Augment a batch."""
        made = [F.pil_to_tensor(self.augment(_to_pil(image))) for image in images.cpu()]
        return torch.stack(made).to(images.device)


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy())


def _mend(augment: RandAugment) -> RandAugment:
    """Have posterizing survive Pillow 13; see `_posterize`."""
    for operation in augment.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return augment


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep so many bits; none leaves black, as it did before Pillow 13 began to refuse what timm's policy may draw."""
    return posterize(image, bits) if bits else Image.new(image.mode, image.size)


class Erasing:
    """Draws what is erased of an image, with Python's generator, distributed as in timm."""

    def __init__(self, recipe: Recipe) -> None:
        self.probability, self.size = recipe.random_erasing, recipe.image_size
        self.erase = RandomErasing(recipe.random_erasing, mode="const", device="cpu")  # only to see where

    def __call__(self) -> Erased:
        """Draw a rectangle, or none."""
        if not self.probability:
            return UNTOUCHED
        (kept,) = self.erase(torch.ones(1, self.size, self.size, dtype=torch.uint8))
        if kept.all():
            return UNTOUCHED
        rows, columns = (kept == 0).nonzero(as_tuple=True)
        top, left = int(rows[0]), int(columns[0])
        return Erased(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left, random.getrandbits(62))


def erase(images: Tensor, erased: Tensor) -> None:
    """Fill rectangles of normalised images with noise of their own seeds, in place, on the images' device.

    Args:
        images: Shape (N, C, H, W).
        erased: A row of `Erased` for each image, shape (N, 5), on the CPU.
    """
    generator = torch.Generator(images.device)
    for image, row in zip(images, erased.tolist(), strict=True):
        top, left, height, width, seed = row
        if height:
            shape = (len(image), height, width)
            noise = torch.randn(shape, generator=generator.manual_seed(seed), device=images.device)
            image[:, top : top + height, left : left + width] = noise


class Mixing:
    """A recipe's mixup and cutmix of our share of a batch: timm's, drawn with NumPy's generator.

    It draws once for a batch, or once for each of its ghost batches, whose draws depend on seed, step and their number
    in the whole batch alone: not on who has them.
    """

    def __init__(self, recipe: Recipe, num_classes: int, group: Group) -> None:
        self.mix = Mixup(
            recipe.mixup, recipe.cutmix, switch_prob=recipe.mixup_switch_prob, label_smoothing=recipe.label_smoothing,
            num_classes=num_classes,
        )  # fmt: skip
        self.ghost_batch = recipe.ghost_batch
        self.first_ghost = group.first_ghost(recipe.batch_size, recipe.ghost_batch)

    def __call__(self, images: Tensor, labels: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Mix images (N, C, H, W), in place, and labels (N,); return them and probabilities (N, classes)."""
        if not self.ghost_batch:
            mixed: tuple[Tensor, Tensor] = self.mix(images, labels)
            return mixed
        parts = zip(images.split(self.ghost_batch), labels.split(self.ghost_batch), strict=True)
        targets = []
        for ghost, (some, their_labels) in enumerate(parts, self.first_ghost):
            seed_step(seed, step, ghost, 2)  # four numbers: no training step has these, and no image ends in 2
            targets.append(self.mix(some, their_labels)[1])
        return images, torch.cat(targets)


def make_mixing(recipe: Recipe, num_classes: int, group: Group) -> Mixing | None:
    """Return a recipe's mixup and cutmix, or None where it has neither."""
    return Mixing(recipe, num_classes, group) if recipe.mixup or recipe.cutmix else None
