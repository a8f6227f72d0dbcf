"""Data sets: where they lie, whether they are whole, what they are. `roadmap.data.batches` makes batches of them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadmap.common.errors import UserError
from roadmap.data.idx import find_idx, read_idx
from roadmap.data.timm_readers import FOLDER_VERSION, Source, describe_source
from roadmap.runs.config import DataConfig

if TYPE_CHECKING:
    from roadmap.recipe import Recipe

EMBEDDED = Path(__file__).parent / "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CACHE = Path(os.path.expanduser("~")) / ".cache" / "roadmap"  # Path.home() raises where nobody has a home
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
IDX_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


class Arrays(NamedTuple):
    """A data set in memory: uint8 images (N, C, H, W) and integer labels (N,), for training and test."""

    train: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    classes: tuple[str, ...]


def describe_data(
    recipe: Recipe, root: Path | None = None, *, validate: bool = False, needs_test: bool = True
) -> DataConfig:
    """Find a recipe's data set, check that it is whole as far as that is cheap, and say what it is.

    Args:
        recipe: The recipe that names the data set.
        root: Where it lies (`--data`); None looks in the usual places and downloads what may be downloaded.
        validate: Whether to test on the recipe's validation images instead of the test set.
        needs_test: Whether an image folder must have a val/.

    Raises:
        UserError: If it is missing, empty or not whole.
    """
    name = recipe.dataset
    if name == "fashion_mnist_part" and root is not None:
        raise UserError(
            f"recipe '{recipe.name}' trains on the embedded images, so --data {root} would not be used. Leave it out, "
            "or choose a recipe for your data: its 'dataset' says which."
        )
    if recipe.reader:
        config = describe_source(Source.of(recipe, root)).config
    else:
        config = _describe_folder(root, needs_test) if name == "folder" else _describe_arrays(name, root)
    kept = recipe.validation_images
    if kept >= config.train_images:
        raise UserError(
            f"recipe '{recipe.name}': validation_images is {kept}, but '{name}' has only {config.train_images} "
            "training images. Keep fewer."
        )
    if validate and not kept:
        raise UserError(f"recipe '{recipe.name}' keeps no validation images. Set validation_images in it.")
    return replace(
        config, train_images=config.train_images - kept, test_on="validation" if validate else config.test_on
    )


@cache
def load_arrays(name: str, root: Path | None = None) -> Arrays:
    """Return a small data set whole, in memory.

    Raises:
        UserError: If it is missing, empty or not whole.
    """
    if name == "fashion_mnist_part":
        _check_sums(EMBEDDED)
        return read_fashion(EMBEDDED)
    if name == "fashion_mnist":
        return read_fashion(_find_fashion(root))
    return _read_cifar(name, root)


def _check_sums(folder: Path) -> None:
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        want, file = line.split()
        path = folder / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != want:
            raise UserError(f"{path}: missing or damaged (checksum differs). Install the package again.")


def read_fashion(folder: Path) -> Arrays:
    """Read the four files of Fashion-MNIST from a folder."""
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
    if name == "fashion_mnist_part":  # its files have checksums, so they need not be unpacked to be known
        _check_sums(EMBEDDED)
        return DataConfig(name, **json.loads((EMBEDDED / "about.json").read_text()))
    return describe_arrays(name, load_arrays(name, root))


def describe_arrays(name: str, arrays: Arrays) -> DataConfig:
    """Return what a data set in memory is."""
    digest = hashlib.sha256()
    for array in arrays[:4]:
        digest.update(array.tobytes())
    return DataConfig(name, digest.hexdigest()[:16], len(arrays.classes), arrays.train.shape[1], len(arrays.train))


@cache
def _describe_folder(root: Path | None, needs_test: bool) -> DataConfig:
    if root is None:
        raise UserError("this recipe trains on an image folder. Say where: --data DIR, with DIR/train and DIR/val.")
    counts, classes, digest = {}, {}, hashlib.sha256(f"{FOLDER_VERSION}\n".encode())
    is_tested = needs_test or (root / "val").is_dir()
    for part in ("train", "val") if is_tested else ("train",):
        if not (root / part).is_dir():
            raise UserError(f"{root}: no folder '{part}'. An image folder has train/ and val/, each a folder a class.")
        counts[part], found = 0, set()
        for folder, below, files in os.walk(root / part):  # names alone: a million images are not asked for their sizes
            below.sort()
            images = sorted(file for file in files if file.lower().endswith((".jpg", ".jpeg", ".png")))
            counts[part] += len(images)
            found |= {os.path.basename(folder)} if images else set()
            digest.update(f"{os.path.relpath(folder, root)} {' '.join(images)}\n".encode())
        if not found:
            raise UserError(f"{root / part}: no images (.jpg, .jpeg, .png) in it.")
        classes[part] = sorted(found)
    if is_tested and classes["train"] != classes["val"]:
        odd = sorted(set(classes["train"]) ^ set(classes["val"]))
        raise UserError(f"{root}: train/ and val/ differ in classes: {', '.join(odd[:5])} in one only.")
    test_on: Literal["test", "nothing"] = "test" if is_tested else "nothing"
    return DataConfig("folder", digest.hexdigest()[:16], len(classes["train"]), 3, counts["train"], test_on)
