"""Batches of data sets that can only be read from end to end: webdataset's and tensorflow-datasets', by timm's readers.

What holds: each epoch has as many steps as one of an image folder; the test set is read once, whole, in the order in
which it is stored; with the same numbers of decoding workers and of processes, all batches are a function of the seed.
A run that goes on in the middle of an epoch reads that epoch again up to where it was, without augmenting, and then
sees what it would have seen.

What does not: another number of workers or processes makes other batches. Images are mixed within a buffer and each
worker reads shards of its own, so an epoch may have some images twice and lack others, as many as fill up the workers'
last batches and what the last incomplete batch is short of; with tensorflow-datasets, which goes on into the next pass
before it mixes, up to as many as the buffer holds (8,192, shared out among the workers).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.readers import reader_wds
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from roadmap.common.errors import UserError
from roadmap.common.files import MayPass, may_pass
from roadmap.common.process_group import Group
from roadmap.data.augmentation import UNTOUCHED
from roadmap.data.decoding import to_rgb
from roadmap.data.folders import LARGEST_TEST_BATCH, FolderData, Preparer, Sample, Testing, Training, together, told
from roadmap.data.timm_readers import Source, describe_source
from roadmap.runs.config import RunConfig


def open_source(
    config: RunConfig, root: Path | None, device: str, workers: int, group: Group
) -> FolderData | StreamData:
    """Return the batches of a data set that is named by its reader."""
    recipe, source = config.recipe, Source.of(config.recipe, root)
    classes = describe_source(source).classes
    if recipe.reader == "hfds":
        readers = tuple(source.open(split) for split in (recipe.train_split, recipe.test_split))
        return FolderData(config, readers, classes, device, workers, group)
    return StreamData(config, source, classes, device, workers, group)


@dataclass(frozen=True)
class _Images:
    """The images of a reader and their labels, each of which is one of the classes."""

    reader: Any
    dataset: str
    num_classes: int

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        if self.dataset.startswith("wds/"):
            reader_wds.log_and_continue = partial(_refuse, self.dataset)  # which leaves out what is damaged
        for image, label in self.reader:
            if not 0 <= label < self.num_classes:
                raise UserError(
                    f"dataset '{self.dataset}' has an image of class {label}, but it has {self.num_classes} classes, "
                    "from 0 up. See what its features or its _info.json say."
                )
            yield image, int(label)


def _refuse(dataset: str, error: Exception) -> bool:
    """Refuse what webdataset cannot read; of a shard, it names the file itself."""
    kind = MayPass if may_pass(error) else UserError
    reason = " ".join(str(error).split()) or type(error).__name__
    raise kind(
        f"dataset '{dataset}': a sample cannot be read ({reason}). Put a whole copy of its shard in its place."
    ) from error


class _Stream(IterableDataset[Sample]):
    """The training samples that a worker reads in an epoch, those of the first batches unmade."""

    def __init__(
        self, images: _Images, make_sample: Training, epoch: int, start: int, batch: int, group: Group
    ) -> None:
        self.images, self.make_sample, self.epoch = images, make_sample, epoch
        self.start, self.batch, self.group = start, batch, group

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        workers, ours = (worker.num_workers, worker.id) if worker else (1, 0)
        for number, (image, label) in enumerate(self.images):
            if number // self.batch * workers + ours < self.start:  # workers take turns with their batches
                yield Sample(torch.empty(0), label, torch.tensor(UNTOUCHED))
            else:
                # Which one of all the workers of all processes has read.
                place = (number * self.group.size + self.group.rank) * workers + ours
                yield self.make_sample(_as_bytes(image), label, self.epoch, place)


class _Whole(IterableDataset[Sample]):
    """Our share of the test samples: every so-manieth of all, in their order."""

    def __init__(self, images: _Images, make_sample: Testing, group: Group) -> None:
        self.images, self.make_sample, self.group = images, make_sample, group

    def __iter__(self) -> Iterator[Sample]:
        for image, label in islice(self.images, self.group.rank, None, self.group.size):
            yield self.make_sample(_as_bytes(image), label, 0, 0)


def _as_bytes(image: Any) -> Tensor:
    """Return a reader's image, of PIL's or an array of bytes, as uint8 (3, H, W)."""
    pixels = to_rgb(image) if isinstance(image, Image.Image) else np.array(image)
    return torch.from_numpy(pixels).permute(2, 0, 1)


class StreamData:
    """A data set that is read from end to end; `roadmap.data.batches.Data` says what its methods do."""

    def __init__(
        self, config: RunConfig, source: Source, classes: tuple[str, ...], device: str, workers: int, group: Group
    ) -> None:
        self.config, self.source, self.group, self.classes = config, source, group, classes
        self.share = config.recipe.batch_size // group.size
        self.workers = self._limit(workers)
        self.pin_memory = device != "cpu"
        self.preparer = Preparer(config.recipe, len(classes), device, group)

    def _limit(self, workers: int) -> int:
        """Return how many workers of ours have a shard to read; one of webdataset's without any would never end."""
        if not self.config.recipe.dataset.startswith("wds/"):
            return workers
        shards = len(self.source.open(self.config.recipe.train_split).split_info.filenames)
        if shards < self.group.size:
            raise UserError(
                f"dataset '{self.source.dataset}' has {shards} shards to train on, but each of {self.group.size} "
                "processes needs one of its own. Use fewer processes, or write more and smaller shards."
            )
        return min(workers, shards // self.group.size)

    def _images(self, reader: Any) -> _Images:
        return _Images(reader, self.source.dataset, len(self.classes))

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield our share of the augmented batches of an epoch; what comes before `start` is read, not augmented."""
        recipe, steps = self.config.recipe, self.config.steps_per_epoch
        reader = self.source.open(
            recipe.train_split, is_training=True, batch_size=self.share, seed=self.config.seed,
            num_samples=self.config.data.train_images if recipe.dataset.startswith("wds/") else None,
        )  # fmt: skip
        reader.dist_rank, reader.dist_num_replicas = self.group.rank, self.group.size
        reader.set_loader_cfg(num_workers=self.workers)
        reader.set_epoch(epoch)
        seed = int(np.random.SeedSequence((self.config.seed, epoch)).generate_state(1)[0])
        loader = DataLoader(
            _Stream(self._images(reader), Training(recipe, self.config.seed), epoch, start, self.share, self.group),
            batch_size=self.share,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            collate_fn=together,
            generator=torch.Generator().manual_seed(seed),  # of the workers' seeds, by which the readers shuffle
        )
        yield from self.preparer.train(islice(loader, start, steps), self.config.seed, epoch * steps + start)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield our share of the test set once; one worker reads it, so that it comes in the order that it has."""
        yield from self.preparer.test(self._read())

    def pick(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return test images by their numbers, as the recipe crops them; the whole part is read for it."""
        wanted, start, found = torch.tensor(numbers), 0, []
        for batch in told(self._read()):
            inside = wanted[(wanted >= start) & (wanted < start + len(batch.label))] - start
            found.append((batch.pixels[inside], batch.label[inside]))
            start += len(batch.label)
        pixels, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return pixels.permute(0, 3, 1, 2), labels

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return images normalised."""
        return self.preparer.prepare(pixels)

    def _read(self) -> DataLoader[Sample]:
        """Return what yields our share of the test samples in batches."""
        recipe = self.config.recipe
        reader = self.source.open(recipe.test_split)
        reader.dist_rank, reader.dist_num_replicas = 0, 1
        return DataLoader(
            _Whole(self._images(reader), Testing(recipe), self.group),
            batch_size=min(recipe.batch_size, LARGEST_TEST_BATCH),
            num_workers=min(self.workers, 1),
            pin_memory=self.pin_memory,
            collate_fn=together,
        )
