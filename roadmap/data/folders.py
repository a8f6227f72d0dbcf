"""Batches of images that are read one by one: of a folder, or of any other of timm's readers with random access.

Workers decode and augment, and give bytes; normalising, erasing and mixing is the device's, as in timm's own loader.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from roadmap.common.errors import UserError
from roadmap.common.files import LostWorker, MayPass, may_pass
from roadmap.common.process_group import Group
from roadmap.common.seeding import seed_step
from roadmap.data.augmentation import UNTOUCHED, CentreCrop, Erasing, erase, make_mixing, train_transform
from roadmap.data.decoding import decode
from roadmap.data.folder_files import FolderReader, list_files
from roadmap.data.prefetcher import Prefetcher
from roadmap.recipe import Recipe
from roadmap.runs.config import RunConfig

LARGEST_TEST_BATCH = 256


class Sample(NamedTuple):
    """An image as workers give it, and a batch of them with a dimension N before.

    Attributes:
        pixels: uint8, shape (H, W, 3).
        label: Its class.
        erased: What `roadmap.data.augmentation.erase` erases, shape (5,).
    """

    pixels: Tensor
    label: Any
    erased: Tensor


class Training:
    """What makes a training sample of a file: a function of seed, epoch and image, whoever does it, whenever."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.seed = seed
        self.transform = train_transform(recipe)
        self.draw_erased = Erasing(recipe)

    def __call__(self, image: Tensor, label: int, epoch: int, number: int) -> Sample:
        """Augment a decoded image, uint8 (3, H, W)."""
        seed_step(self.seed, epoch, number, 1)  # four numbers: no training step has these
        return _sample(self.transform(image), label, self.draw_erased())


class Testing:
    """What makes a test sample of a file."""

    def __init__(self, recipe: Recipe) -> None:
        self.transform = CentreCrop(recipe)

    def __call__(self, image: Tensor, label: int, epoch: int, number: int) -> Sample:
        """Crop a decoded image, uint8 (3, H, W); epoch and number do not matter."""
        return _sample(self.transform(image), label, UNTOUCHED)


def _sample(image: Tensor, label: int, erased: tuple[int, ...]) -> Sample:
    return Sample(image.permute(1, 2, 0).contiguous(), label, torch.tensor(erased))


class Images(Dataset[Sample]):
    """The samples of one of timm's readers, by (epoch, image): workers that live on are told the epoch so."""

    def __init__(self, reader: Any, make_sample: Training | Testing) -> None:
        self.reader, self.make_sample = reader, make_sample

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, number = key
        try:
            file, label = self.reader[number]
            with file:
                data = file.read()
        except OSError as error:
            kind = MayPass if may_pass(error) else UserError
            raise kind(
                f"{self._name(number)}: cannot be read ({error.strerror}). Put a whole copy in its place."
            ) from error
        try:
            image = decode(data)
        except MemoryError:
            raise  # says nothing about the file
        except Exception as error:  # PIL raises what it likes
            raise UserError(
                f"{self._name(number)}: cannot be decoded ({_in_a_line(error)}). Put a whole copy in its place."
            ) from error
        return self.make_sample(image, label, epoch, number)

    def _name(self, number: int) -> str:
        return self.reader.filename(number, absolute=True) or f"image {number}"


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def together(samples: list[Sample]) -> Sample:
    """Return a batch of samples; a worker puts it into memory that it shares with the main process.

    Raises:
        MayPass: If there is no room in that.
    """
    try:
        batch: Sample = default_collate(samples)
    except RuntimeError as error:
        torch.stack([sample.pixels for sample in samples])  # in memory of our own: raises too if the samples are wrong
        raise MayPass(
            "no room in /dev/shm for a batch. Make it larger, or use smaller batches or fewer jobs."
        ) from error
    return batch


class _Turns:
    """Which images the batches of an epoch are of; set before the epoch is begun."""

    def __init__(self) -> None:
        self.epoch = 0
        self.batches: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches:
            yield [(self.epoch, number) for number in batch.tolist()]


class Preparer:
    """The device's part of making batches: normalises, erases, mixes."""

    def __init__(self, recipe: Recipe, num_classes: int, device: str, group: Group) -> None:
        self.device = device
        self.mix = make_mixing(recipe, num_classes, group)
        self.mean, self.std = (
            255 * torch.tensor(of, device=device)[:, None, None] for of in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        self.prefetch = Prefetcher(device, self._prepare)

    def train(self, batches: Iterable[Sample], seed: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented batches of samples, mixed, with the generators set for each step."""
        for step, (images, labels) in enumerate(self.prefetch(told(batches)), first_step):
            seed_step(seed, step)
            yield self.mix(images, labels, seed, step) if self.mix is not None else (images, labels)

    def test(self, batches: Iterable[Sample]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of samples as they are."""
        return self.prefetch(told(batches))

    def prepare(self, pixels: Tensor) -> Tensor:
        """Normalise images (N, 3, H, W) with pixels from 0 to 1."""
        return (255 * pixels - self.mean) / self.std

    def _prepare(self, batch: Sample) -> tuple[Tensor, Tensor]:
        pixels, labels = (part.to(self.device, non_blocking=True) for part in (batch.pixels, batch.label))
        images = pixels.permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)  # (N, 3, H, W), channels last
        erase(images, batch.erased)
        return images, labels


def open_folder(config: RunConfig, root: Path, device: str, workers: int, group: Group) -> FolderData:
    """Return the batches of an image folder with train/ and, where runs are tested, val/."""
    files = list_files(root, config.data.test_on != "nothing")
    readers = FolderReader(root, files.train), FolderReader(root, files.val)
    return FolderData(config, readers, files.classes, device, workers, group)


def told(loader: Iterable[Sample]) -> Iterator[Sample]:
    """Yield a loader's batches; what a worker has to tell a user comes without the worker's traceback.

    Raises:
        UserError: If an image cannot be read or decoded; `MayPass` where that may pass.
        LostWorker: If a worker was killed.
    """
    batches = iter(loader)
    try:
        yield from batches
    except UserError as error:
        name = type(error).__name__
        raise type(error)(str(error).rsplit(f"{name}: ", 1)[-1].strip()) from error
    except Exception as error:
        # By what became of the workers: torch says it in other words in every version and thread.
        ends = [worker.exitcode or 0 for worker in getattr(batches, "_workers", ())]
        if killed := [signal.strsignal(-end) for end in ends if end < 0]:
            raise LostWorker(
                f"a decoding worker was killed ({killed[0]}). SIGKILL is often for want of memory, SIGBUS for want of "
                "room in /dev/shm."
            ) from error
        raise


class FolderData:
    """Images that are read one by one; `roadmap.data.batches.Data` says what its methods do.

    Attributes:
        classes: The names of the classes.
    """

    def __init__(
        self,
        config: RunConfig,
        readers: tuple[Any, Any],
        classes: tuple[str, ...],
        device: str,
        workers: int,
        group: Group,
    ) -> None:
        """Take timm's readers of the training and the test part."""
        self.config, self.group, self.classes = config, group, classes
        self.train_reader, self.test_reader = readers
        self.options: dict[str, Any] = {
            "num_workers": workers, "pin_memory": device != "cpu", "collate_fn": together
        }  # fmt: skip
        self.preparer = Preparer(config.recipe, len(classes), device, group)
        self.turns = _Turns()
        self.loader: DataLoader[Sample] = DataLoader(
            Images(self.train_reader, Training(config.recipe, config.seed)),
            batch_sampler=self.turns,
            persistent_workers=workers > 0,
            **self.options,
        )

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield our share of the augmented batches of an epoch; nothing before `start` is decoded."""
        size, steps = self.config.recipe.batch_size, self.config.steps_per_epoch
        order = torch.from_numpy(np.random.default_rng((self.config.seed, epoch)).permutation(len(self.train_reader)))
        share = self.group.share(size, self.config.recipe.ghost_batch)
        self.turns.epoch = epoch
        self.turns.batches = [order[step * size :][share] for step in range(start, steps)]
        yield from self.preparer.train(self.loader, self.config.seed, epoch * steps + start)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield our share of the test images once."""
        ours = torch.arange(self.group.rank, len(self.test_reader), self.group.size)
        yield from self.preparer.test(self._read(ours))

    def pick(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return test images by their numbers, as the recipe crops them."""
        samples = list(told(self._read(torch.tensor(numbers))))
        return torch.cat([s.pixels for s in samples]).permute(0, 3, 1, 2), torch.cat([s.label for s in samples])

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return images normalised."""
        return self.preparer.prepare(pixels)

    def _read(self, numbers: Tensor) -> DataLoader[Sample]:
        """Return what yields test samples in batches."""
        turns = _Turns()
        turns.batches = list(numbers.split(min(self.config.recipe.batch_size, LARGEST_TEST_BATCH)))
        return DataLoader(Images(self.test_reader, Testing(self.config.recipe)), batch_sampler=turns, **self.options)
