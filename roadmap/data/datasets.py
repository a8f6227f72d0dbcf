"""Data sets: where they lie, whether they are whole, what they are. `roadmap.data.batches` makes batches of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadmap.common.errors import UserError
from roadmap.common.paths import CACHE
from roadmap.data.folder_files import list_files
from roadmap.data.idx import find_idx, read_idx
from roadmap.data.timm_readers import CONTENT, FOLDER_VERSION, Source, describe_source
from roadmap.runs.config import DataConfig

if TYPE_CHECKING:
    from roadmap.recipe import Recipe

EMBEDDED = Path(__file__).parent / "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
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
    recipe: Recipe,
    root: Path | None = None,
    *,
    validate: bool = False,
    needs_test: bool = True,
    checksum: bool = False,
) -> DataConfig:
    """Find a recipe's data set, check that it is whole as far as that is cheap, and say what it is.

    Args:
        recipe: The recipe that names the data set.
        root: Where it lies (`--data`); None looks in the usual places and downloads what may be downloaded.
        validate: Whether to test on the recipe's validation images instead of the test set.
        checksum: Whether to know images that lie in files by their content, which reads them all, instead of by their
            names, sizes and times. What is held in memory is known by its content in any case.
        needs_test: Whether an image folder must have a val/.

    Raises:
        UserError: If it is missing, empty or not whole, or has one class alone.
    """
    name = recipe.dataset
    if name == "fashion_mnist_part" and root is not None:
        raise UserError(
            f"recipe '{recipe.name}' trains on the embedded images, so --data {root} would not be used. Leave it out, "
            "or choose a recipe for your data: its 'dataset' says which."
        )
    if recipe.reader:
        describe_source.cache_clear()  # files may have changed since they were last looked at
        config = describe_source(Source.of(recipe, root), checksum).config
    else:
        config = _describe_folder(root, checksum, needs_test) if name == "folder" else _describe_arrays(name, root)
    if config.num_classes < 2:
        raise UserError(
            f"recipe '{recipe.name}': '{name}' has one class alone, which nothing can be told from. Add more."
        )
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


def _describe_folder(root: Path | None, checksum: bool, needs_test: bool) -> DataConfig:
    files = list_files(_folder_of(root), needs_test, anew=True)
    fingerprint = f"{CONTENT}{files.content(FOLDER_VERSION)}" if checksum else files.fingerprint(FOLDER_VERSION)
    test_on: Literal["test", "nothing"] = "test" if files.val else "nothing"
    return DataConfig("folder", fingerprint, len(files.classes), 3, len(files.train), test_on)


def _folder_of(root: Path | None) -> Path:
    if root is None:
        raise UserError("this recipe trains on an image folder. Say where: --data DIR, with DIR/train and DIR/val.")
    return root


def notes_on_data(recipe: Recipe, root: Path | None) -> tuple[str, ...]:
    """Say what a recipe's data set holds that is not used, a line each; nothing where it was not looked at."""
    return list_files(root, recipe.needs_test).notes() if recipe.dataset == "folder" and root is not None else ()
