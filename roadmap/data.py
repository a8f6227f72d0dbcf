"""Images, behind two functions: `describe_data` (cheap: names, sizes, checksums) and `load_data` (ready batches).

Small sets live in memory as uint8 tensors and are augmented a batch at a time, without worker processes. Image folders
go through timm. Every random draw of a step is a function of the run's seed and the step's number, so a run can go on
from any step without saving a generator's state.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from roadmap.errors import UserError
from roadmap.idx import find_idx, read_idx
from roadmap.run import DataConfig, RunConfig

if TYPE_CHECKING:
    from torch import Tensor

    from roadmap.recipe import Recipe

EMBEDDED = Path(__file__).parent / "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CACHE = Path(os.path.expanduser("~")) / ".cache" / "roadmap"  # Path.home() raises where nobody has a home
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
IDX_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
TEST_BATCH = 500


class Arrays(NamedTuple):
    """A data set in memory: uint8 images (N, C, H, W) and integer labels (N,), for training and test."""

    train: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    classes: tuple[str, ...]


class Data(Protocol):
    """Ready batches for one run, on its device."""

    classes: tuple[str, ...]

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (N, C, H, W), targets) of an epoch from step `start` on, with the generators set for the step.

        Targets are class indices (N,), or, under mixup and cutmix, probabilities (N, classes).
        """

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (N, C, H, W), labels (N,)) of the whole test set once."""


def describe_data(recipe: Recipe, root: Path | None = None, *, validate: bool = False) -> DataConfig:
    """Find a recipe's data set, check that it is whole as far as that is cheap, and say what it is.

    Args:
        recipe: The recipe that names the data set.
        root: Where it lies (`--data`); None looks in the usual places and downloads what may be downloaded.
        validate: Whether to test on the recipe's validation images instead of the test set.

    Raises:
        UserError: If it is missing, empty or not whole.
    """
    name = recipe.dataset
    if name == "fashion_mnist_part" and root is not None:
        raise UserError(
            f"recipe '{recipe.name}' trains on the embedded images, so --data {root} would not be used. Leave it out, "
            "or choose a recipe for your data: its 'dataset' says which."
        )
    config = _describe_folder(root) if name == "folder" else _describe_arrays(name, root)
    kept = recipe.validation_images
    if kept >= config.train_images:
        raise UserError(
            f"recipe '{recipe.name}': validation_images is {kept}, but '{name}' has only {config.train_images} "
            "training images. Keep fewer."
        )
    if validate and not kept:
        raise UserError(f"recipe '{recipe.name}' keeps no validation images. Set validation_images in it.")
    test_on: Literal["test", "validation"] = "validation" if validate else "test"
    return replace(config, train_images=config.train_images - kept, test_on=test_on)


def load_data(config: RunConfig, root: Path | None, device: str, workers: int = 1) -> Data:
    """Return the batches of a run.

    Args:
        config: The run; its recipe says how images are augmented.
        root: Where the data set lies, as for `describe_data`.
        device: Where the batches are wanted, such as "cpu" or "cuda".
        workers: Decoding processes, for image folders.

    Raises:
        UserError: If the data is missing, not whole, or not what the run was planned with.
    """
    found = describe_data(config.recipe, root, validate=config.data.test_on == "validation")
    if found != config.data:
        raise UserError(
            f"data set '{found.name}' has changed since the run was planned: its fingerprint is {found.fingerprint}, "
            f"it was {config.data.fingerprint}. Plan again with the same --data."
        )
    if config.recipe.dataset == "folder":
        assert root is not None
        return FolderData(config, root, device, workers)
    return MemoryData(config, load_arrays(config.recipe.dataset, root), device)


@cache
def load_arrays(name: str, root: Path | None = None) -> Arrays:
    """Return a small data set whole, in memory.

    Raises:
        UserError: If it is missing, empty or not whole.
    """
    if name == "fashion_mnist_part":
        _check_sums(EMBEDDED)
        return _read_fashion(EMBEDDED)
    if name == "fashion_mnist":
        return _read_fashion(_find_fashion(root))
    return _read_cifar(name, root)


def _check_sums(folder: Path) -> None:
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        want, file = line.split()
        path = folder / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != want:
            raise UserError(f"{path}: missing or damaged (checksum differs). Install the package again.")


def _read_fashion(folder: Path) -> Arrays:
    train, train_labels, test, test_labels = (read_idx(find_idx(folder, name)) for name in IDX_FILES)
    for images, labels, part in ((train, train_labels, "train"), (test, test_labels, "test")):
        if images.ndim != 3 or not len(images) or labels.shape != images.shape[:1] or labels.max() > 9:
            raise UserError(
                f"{folder}: the {part} part has images of shape {images.shape} and labels of shape {labels.shape}, but "
                "must have as many labels of 0 to 9 as images, at least one. Put whole copies in their place."
            )
    return Arrays(train[:, None], train_labels, test[:, None], test_labels, FASHION_CLASSES)


def _find_fashion(root: Path | None) -> Path:
    if root is not None:
        below = root / "FashionMNIST" / "raw"  # where torchvision puts it
        return below if below.is_dir() else root
    if DEBIAN.is_dir():
        return DEBIAN
    _download("FashionMNIST", CACHE)
    return CACHE / "FashionMNIST" / "raw"


def _download(name: str, root: Path) -> Any:
    """Return torchvision's data set, downloading it where it is not there yet: (training part, test part)."""
    import torchvision

    try:
        return tuple(getattr(torchvision.datasets, name)(root, train=train, download=True) for train in (True, False))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{root}: {name} is not there and cannot be downloaded ({error}). Give a folder that has it with --data."
        ) from error


def _read_cifar(name: str, root: Path | None) -> Arrays:
    train, test = _download(name.upper(), root or CACHE)
    images = [part.data.transpose(0, 3, 1, 2) for part in (train, test)]
    labels = [np.array(part.targets, np.uint8) for part in (train, test)]
    return Arrays(images[0], labels[0], images[1], labels[1], tuple(train.classes))


@cache
def _describe_arrays(name: str, root: Path | None) -> DataConfig:
    arrays = load_arrays(name, root)
    digest = hashlib.sha256()
    for array in arrays[:4]:
        digest.update(array.tobytes())
    return DataConfig(name, digest.hexdigest()[:16], len(arrays.classes), arrays.train.shape[1], len(arrays.train))


@cache
def _describe_folder(root: Path | None) -> DataConfig:
    if root is None:
        raise UserError("this recipe trains on an image folder. Say where: --data DIR, with DIR/train and DIR/val.")
    counts, classes, digest = {}, {}, hashlib.sha256()
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise UserError(f"{root}: no folder '{part}'. An image folder has train/ and val/, each a folder a class.")
        files = sorted(path for path in (root / part).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        counts[part] = len(files)
        classes[part] = sorted({path.parent.name for path in files})
        if not files:
            raise UserError(f"{root / part}: no images (.jpg, .jpeg, .png) in it.")
        for path in files:
            digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
    if classes["train"] != classes["val"]:
        odd = sorted(set(classes["train"]) ^ set(classes["val"]))
        raise UserError(f"{root}: train/ and val/ differ in classes: {', '.join(odd[:5])} in one only.")
    return DataConfig("folder", digest.hexdigest()[:16], len(classes["train"]), 3, counts["train"])


def seed_step(seed: int, step: int) -> None:
    """Set every generator that a training step may draw from: Python's, NumPy's, torch's (on all devices)."""
    import torch

    state = np.random.SeedSequence((seed, step)).generate_state(2, np.uint32)
    random.seed(int(state[0]))
    np.random.seed(int(state[0]))
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))


class MemoryData:
    """A small data set as uint8 tensors on the run's device; `Data` says what its methods do."""

    def __init__(self, config: RunConfig, arrays: Arrays, device: str) -> None:
        import torch

        self.config, self.device, self.classes = config, device, arrays.classes
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
        self.mix = _make_mixup(config.recipe, len(arrays.classes))
        self.erase = _make_erasing(config.recipe, device)

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the augmented batches of an epoch."""
        import torch

        recipe, steps = self.config.recipe, self.config.steps_per_epoch
        order = torch.from_numpy(np.random.default_rng((self.config.seed, epoch)).permutation(len(self.train)))
        for step in range(start, steps):
            seed_step(self.config.seed, epoch * steps + step)
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size].to(self.device)
            images, labels = self._augment(self.train[chosen]), self.train_labels[chosen]
            if self.erase is not None:
                images = self.erase(images)
            yield self.mix(images, labels) if self.mix is not None else (images, labels)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test set in order, centred and normalised."""
        for start in range(0, len(self.test_images), TEST_BATCH):
            images = self._pad(self.test_images[start : start + TEST_BATCH], 0)
            yield self._normalise(images), self.test_labels[start : start + TEST_BATCH]

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
        return self._normalise(images)

    def _pad(self, images: Tensor, margin: int) -> Tensor:
        """Pad (N, C, h, w) with zeros to image_size plus a margin on every side."""
        from torch.nn import functional as F

        side = self.config.recipe.image_size
        down, right = side - images.shape[2], side - images.shape[3]
        return F.pad(images, (right // 2 + margin, -(-right // 2) + margin, down // 2 + margin, -(-down // 2) + margin))

    def _normalise(self, images: Tensor) -> Tensor:
        return (images.float().div(255) - self.mean) / self.std


class FolderData:
    """Image folders through timm's data set, transforms and loader; `Data` says what its methods do."""

    def __init__(self, config: RunConfig, root: Path, device: str, workers: int) -> None:
        from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_dataset, create_loader

        recipe = config.recipe
        self.config, self.device = config, device
        parts = {part: create_dataset("", str(root / part), split=part) for part in ("train", "val")}
        self.classes = tuple(parts["train"].reader.class_to_idx)
        shared = {
            "input_size": (3, recipe.image_size, recipe.image_size),
            "use_prefetcher": False,
            "interpolation": recipe.interpolation,
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "num_workers": workers,
            "pin_memory": device != "cpu",
            "persistent_workers": False,
        }
        self.train_loader = create_loader(
            parts["train"],
            batch_size=recipe.batch_size,
            is_training=True,
            scale=(recipe.random_resized_crop, 1.0),
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.randaugment,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            **shared,
        )
        self.test_loader = create_loader(
            parts["val"], batch_size=min(recipe.batch_size, 256), is_training=False, crop_pct=recipe.test_crop, **shared
        )
        self.mix = _make_mixup(recipe, len(self.classes))

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the augmented batches of an epoch; those before `start` are decoded and dropped."""
        steps = self.config.steps_per_epoch
        seed_step(self.config.seed, epoch * steps)
        for step, (images, labels) in enumerate(self.train_loader):
            if step < start:
                continue
            images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            seed_step(self.config.seed, epoch * steps + step)
            yield self.mix(images, labels) if self.mix is not None else (images, labels)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the validation images once."""
        for images, labels in self.test_loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def _make_mixup(recipe: Recipe, num_classes: int) -> Any:
    if not (recipe.mixup or recipe.cutmix):
        return None
    from timm.data import Mixup

    return Mixup(
        recipe.mixup, recipe.cutmix, switch_prob=recipe.mixup_switch_prob, label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )  # fmt: skip


def _make_erasing(recipe: Recipe, device: str) -> Any:
    if not recipe.random_erasing:
        return None
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(recipe.random_erasing, mode="pixel", device=device)
