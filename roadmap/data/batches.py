"""Batches of a run: augmented, on its device, in an order that its seed decides.

Small sets live in memory as uint8 tensors and are augmented a batch at a time, without worker processes. Images that
lie in files are decoded by workers (`roadmap.data.folders`). Every random draw is a function of the run's seed and the
step's (or image's) number, so a run can go on from any step without saving a generator's state, and neither the number
of decoding workers nor that of processes changes what is drawn. (`roadmap.data.streams` says what holds of that where
images can only be read from end to end.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from roadmap.common.errors import UserError
from roadmap.common.process_group import ALONE, Group
from roadmap.common.seeding import seed_step
from roadmap.data.datasets import Arrays, describe_data, load_arrays
from roadmap.data.timm_readers import CONTENT
from roadmap.runs.config import RunConfig

if TYPE_CHECKING:
    from torch import Tensor

    from roadmap.recipe import Recipe

TEST_BATCH = 500


class Data(Protocol):
    """Ready batches for one run, on its device."""

    classes: tuple[str, ...]

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (N, C, H, W), targets) of an epoch from step `start` on, with the generators set for the step.

        Targets are class indices (N,), or, under mixup and cutmix, probabilities (N, classes).
        """

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (N, C, H, W), labels (N,)) of the whole test set once."""

    def pick(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return test images by their numbers, which rise, as bytes (N, C, h, w) on the CPU, and labels (N,).

        They are as one would look at them, at their own size: what a network gets is `prepare` of them.
        """

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return images (N, C, h, w) with pixels from 0 to 1 as a network gets them; gradients pass."""


def decoding_workers(threads: int, device: str) -> int:
    """Return how many processes decode images for a run that has so many CPU threads.

    On a GPU all but one, which is the main process's. On a CPU as many as threads: they take turns with the training,
    and wait for it where it is the slower one.
    """
    return threads if device == "cpu" else max(1, threads - 1)


def load_data(config: RunConfig, root: Path | None, device: str, workers: int = 1, group: Group = ALONE) -> Data:
    """Return the batches of a run.

    Args:
        config: The run; its recipe says how images are augmented.
        root: Where the data set lies, as for `describe_data`.
        device: Where the batches are wanted, such as "cpu" or "cuda".
        workers: Decoding processes, for images that lie in files (`decoding_workers`).
        group: The processes that share out the run's images.

    Raises:
        UserError: If the data is missing, not whole or not what the run was planned with, or a batch cannot be shared.
    """
    config.check_shared(group.size)
    tested_on = config.data.test_on
    validate, needs_test = tested_on == "validation", tested_on != "nothing"
    checksum = config.data.fingerprint.startswith(CONTENT)
    found = describe_data(config.recipe, root, validate=validate, needs_test=needs_test, checksum=checksum)
    if found != config.data:
        raise UserError(
            f"data set '{found.name}' has changed since the run was planned: its fingerprint is {found.fingerprint}, "
            f"it was {config.data.fingerprint}. Plan again with the same --data. "
            "(A copy of it has the same fingerprint only if its files kept their times, or with --checksum.)"
        )
    if config.recipe.reader:
        from roadmap.data.streams import open_source

        return open_source(config, root, device, workers, group)
    if config.recipe.dataset == "folder":
        from roadmap.data.folders import open_folder

        assert root is not None
        return open_folder(config, root, device, workers, group)
    return MemoryData(config, load_arrays(config.recipe.dataset, root), device, group)


class MemoryData:
    """A small data set as uint8 tensors on the run's device; `Data` says what its methods do."""

    def __init__(self, config: RunConfig, arrays: Arrays, device: str, group: Group) -> None:
        import torch

        from roadmap.data.augmentation import EachRandAugment, make_mixing

        self.config, self.device, self.group, self.classes = config, device, group, arrays.classes
        split = config.data.train_images
        train, labels = torch.from_numpy(arrays.train), torch.from_numpy(arrays.train_labels).long()
        if config.data.test_on == "validation":
            test, test_labels = train[split:], labels[split:]
        else:
            test, test_labels = torch.from_numpy(arrays.test), torch.from_numpy(arrays.test_labels).long()
        pixels = train[:split].float().div(255)
        self.mean = pixels.mean((0, 2, 3), keepdim=True).to(device)
        self.std = pixels.std((0, 2, 3), keepdim=True).to(device)
        self.train, self.train_labels = train[:split].to(device), labels[:split].to(device)
        self.test_images, self.test_labels = test.to(device), test_labels.to(device)
        self.policy = EachRandAugment(config.recipe, self.mean) if config.recipe.randaugment else None
        self.mix = make_mixing(config.recipe, len(arrays.classes), group)
        self.erase = _make_erasing(config.recipe, device)
        self.share = group.share(config.recipe.batch_size, config.recipe.ghost_batch).to(device)

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield our share of the augmented batches of an epoch; each process makes whole ones, which is cheap here."""
        import torch

        recipe, steps = self.config.recipe, self.config.steps_per_epoch
        order = torch.from_numpy(np.random.default_rng((self.config.seed, epoch)).permutation(len(self.train)))
        for step in range(start, steps):
            seed_step(self.config.seed, epoch * steps + step)
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size].to(self.device)
            images, labels = self._augment(self.train[chosen]), self.train_labels[chosen]
            if self.erase is not None:
                images = self.erase(images)
            batch = images, labels
            if recipe.ghost_batch:  # which is mixed by who has it; mixing a whole batch needs all of it
                batch = self._ours(*batch)
            if self.mix is not None:
                batch = self.mix(*batch, self.config.seed, epoch * steps + step)
            yield batch if recipe.ghost_batch else self._ours(*batch)

    def _ours(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return (images, targets) if self.group.size == 1 else (images[self.share], targets[self.share])

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield our share of the test set in order, centred and normalised."""
        ours, labels = (whole[self.group.rank :: self.group.size] for whole in (self.test_images, self.test_labels))
        for start in range(0, len(ours), TEST_BATCH):
            images = self._pad(ours[start : start + TEST_BATCH], 0)
            yield self._normalise(images), labels[start : start + TEST_BATCH]

    def pick(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return test images by their numbers."""
        return self.test_images[list(numbers)].cpu(), self.test_labels[list(numbers)].cpu()

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return images centred and normalised."""
        return (self._pad(pixels, 0) - self.mean) / self.std

    def _augment(self, images: Tensor) -> Tensor:
        import torch

        recipe, count = self.config.recipe, len(images)
        if recipe.hflip:
            mirrored = (torch.rand(count) < recipe.hflip).to(self.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        images = self._pad(images, recipe.shift)
        if recipe.shift:
            # A window of image_size at a random place in the padded image, for each image its own.
            top, left = torch.randint(2 * recipe.shift + 1, (2, count, 1)).to(self.device)
            window = torch.arange(recipe.image_size, device=self.device)
            rows, columns = top + window, left + window  # (N, image_size) each
            index = torch.arange(count, device=self.device)[:, None, None]
            images = images[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.policy is not None:
            images = self.policy(images)
        return self._normalise(images)

    def _pad(self, images: Tensor, margin: int) -> Tensor:
        """Pad (N, C, h, w) with zeros to image_size plus a margin on every side."""
        from torch.nn import functional as F

        side = self.config.recipe.image_size
        down, right = side - images.shape[2], side - images.shape[3]
        return F.pad(images, (right // 2 + margin, -(-right // 2) + margin, down // 2 + margin, -(-down // 2) + margin))

    def _normalise(self, images: Tensor) -> Tensor:
        return images.float().div_(255).sub_(self.mean).div_(self.std)


def _make_erasing(recipe: Recipe, device: str) -> Any:
    if not recipe.random_erasing:
        return None
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(recipe.random_erasing, mode="pixel", device=device)
