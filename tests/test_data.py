import gzip
import hashlib
import lzma
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from roadmap import data as data_module
from roadmap.data import DEBIAN, EMBEDDED, IDX_FILES, MemoryData, describe_data, load_arrays, load_data
from roadmap.errors import UserError
from roadmap.fashion_mnist.make import PER_CLASS
from roadmap.idx import find_idx, read_idx, write_idx
from roadmap.recipe import Recipe
from roadmap.run import RunConfig
from roadmap.train import train
from tests.conftest import PLAIN, TEST_IMAGES, TINY, TRAIN_IMAGES
from tests.processes import fork

MakeRun = Callable[..., RunConfig]


def batches(config: RunConfig, root: Path, epoch: int = 0, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(load_data(config, root, "cpu").epoch(epoch, start))


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


# -- the embedded part


def test_the_embedded_part_is_balanced_and_has_the_whole_test_set() -> None:
    arrays = load_arrays("fashion_mnist_part")
    assert arrays.train.shape == (15_000, 1, 28, 28)
    assert arrays.test.shape == (10_000, 1, 28, 28)
    assert np.bincount(arrays.train_labels).tolist() == [1_500] * 10
    assert np.bincount(arrays.test_labels).tolist() == [1_000] * 10
    assert len(arrays.classes) == 10


def test_the_embedded_part_takes_less_than_10_mb_and_has_its_licence_with_it() -> None:
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) < 10e6
    assert "MIT" in (EMBEDDED / "LICENSE").read_text()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_the_embedded_part_is_the_first_images_of_each_class_of_the_official_files() -> None:
    official, ours = load_arrays("fashion_mnist", DEBIAN), load_arrays("fashion_mnist_part")
    assert np.array_equal(ours.test, official.test)
    assert np.array_equal(ours.test_labels, official.test_labels)
    rank = np.zeros(len(official.train), int)  # how many images of its class stand before each image
    for label in range(10):
        own = official.train_labels == label
        rank[own] = np.arange(own.sum())
    kept = rank < PER_CLASS
    assert np.array_equal(ours.train, official.train[kept])
    assert np.array_equal(ours.train_labels, official.train_labels[kept])


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_embedded_part_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "embedded"
    shutil.copytree(EMBEDDED, folder)
    file = folder / "t10k-labels-idx1-ubyte.xz"
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    monkeypatch.setattr(data_module, "EMBEDDED", folder)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.xz: missing or damaged .* Install"):
        load_arrays.__wrapped__("fashion_mnist_part")


# -- what can be wrong with files


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a-idx3-ubyte", b"", "not an idx file of bytes .*missing"),
        ("a-idx3-ubyte", b"\x89PNG\r\n", "not an idx file of bytes .*89504e47"),
        ("a-idx3-ubyte", b"\0\0\x08\x03\0\0", "not an idx file of bytes"),
        ("a-idx3-ubyte", write_idx(np.zeros((3, 2, 2), np.uint8))[:-1], r"holds 11 bytes, but its head says \(3, 2, 2\)"),
        ("a-idx3-ubyte", write_idx(np.zeros((3, 2, 2), np.uint8)) + b"\0", r"holds 13 bytes"),
        ("a-idx3-ubyte.gz", b"", "not an idx file of bytes"),
        ("a-idx3-ubyte.gz", b"no gzip", "cannot be read"),
        ("a-idx3-ubyte.gz", gzip.compress(write_idx(np.zeros((3, 2, 2), np.uint8)))[:-9], "cannot be read"),
        ("a-idx3-ubyte.xz", b"no xz", "cannot be read"),
        ("a-idx3-ubyte.xz", lzma.compress(write_idx(np.zeros((3, 2, 2), np.uint8)))[:-9], "cannot be read"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_with_its_name(file: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{file}: {message}.* Put a whole copy in its place"):
        read_idx(path)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(0, 255))
def test_what_is_written_as_idx_is_read_again(shape: list[int], value: int) -> None:
    array = np.full(shape, value, np.uint8)
    path = Path(pytest.ensuretemp("idx") if hasattr(pytest, "ensuretemp") else "/tmp") / "x"
    path.write_bytes(write_idx(array))
    assert np.array_equal(read_idx(path), array)
