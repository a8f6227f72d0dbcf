"""What is done to images: those of a folder are cropped and augmented in the workers, mixed on the device.

They are resized as uint8 tensors, which is faster than in PIL; benchmarks/README.md says by how much. What is drawn and
RandAugment itself are timm's, so an image differs from timm's by the rounding of the resize alone: at most two levels
of 255 before RandAugment.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import (
    AugmentOp,
    AugMixAugment,
    AutoAugment,
    RandAugment,
    posterize,
    rand_augment_transform,
)
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from roadmap.common.errors import UserError
from roadmap.common.process_group import Group
from roadmap.common.seeding import seed_step

if TYPE_CHECKING:
    from roadmap.recipe import Recipe

Policy = TypeVar("Policy")
LARGEST_MAGNITUDE = 10  # of timm's operations, where a policy names none


class Erased(NamedTuple):
    """A rectangle of an image that becomes noise, in pixels, and the noise's seed; height 0 where there is none."""

    top: int
    left: int
    height: int
    width: int
    seed: int


UNTOUCHED = Erased(0, 0, 0, 0, 0)


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


def check_policy(recipe: Recipe, channels: int) -> None:
    """Refuse a policy that could not be drawn from: each of its operations is tried on an image, weak and strong.

    Args:
        recipe: The recipe, whose `randaugment` names it.
        channels: Those of its images.

    Raises:
        UserError: If timm does not know it, or an operation fails.
    """
    try:
        if recipe.in_memory:
            policies = [EachRandAugment(recipe, torch.full((channels,), 0.5)).augment]
        else:
            policies = [part for part in train_transform(recipe).transforms if _operations(part)]  # type: ignore[attr-defined]
        image = _to_pil(torch.arange(channels * 64 * 64, dtype=torch.uint8).reshape(channels, 64, 64))
        for operation in [operation for policy in policies for operation in _operations(policy)]:
            most = operation.magnitude_max or LARGEST_MAGNITUDE
            for magnitude in (0, operation.magnitude, most) if operation.magnitude_std else (operation.magnitude,):
                tried = copy(operation)
                tried.prob, tried.magnitude, tried.magnitude_std = 1.0, magnitude, 0
                tried(image)
    except Exception as error:  # timm asserts, and its operations raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"recipe '{recipe.name}': randaugment is '{recipe.randaugment}', which timm cannot draw from ({reason}). "
            "Say rand-m9-mstd0.5-inc1 or the like; on image folders also original, originalr, v0, v0r, 3a or augmix-m3."
        ) from error


def _operations(policy: Any) -> list[AugmentOp]:
    """Return the operations of a policy of timm's; none for anything else."""
    if isinstance(policy, AutoAugment):
        return [operation for some in policy.policy for operation in some]
    return list(policy.ops) if isinstance(policy, RandAugment | AugMixAugment) else []


def _mend(policy: Policy) -> Policy:
    """Have posterizing survive Pillow 13; see `_posterize`."""
    for operation in _operations(policy):
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return policy


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
