import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from roadmap.common import fingerprints
from roadmap.common.errors import UserError
from roadmap.common.process_group import ALONE, Group
from roadmap.data import timm_readers
from roadmap.data.batches import load_data
from roadmap.data.datasets import describe_data
from roadmap.recipe import Recipe
from roadmap.runs.config import RunConfig
from tests.conftest import NET, TINY
from tests.data.test_folders import picture, stored
from tests.processes import fork

SETTINGS = TINY | {"batch_size": 4, "random_resized_crop": 0.5, "hflip": 0.5, "random_erasing": 0.5, "mixup": 0.8}
CLASSES = ("cat", "dog", "emu")
TRAIN, TEST = 18, 7


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember nothing beyond a test."""
    monkeypatch.setattr(fingerprints, "CACHE", tmp_path / "checksums")


def recipe_of(dataset: str, **settings: Any) -> Recipe:
    return Recipe(**SETTINGS | {"dataset": dataset, "mixup": 0.0} | settings)


def config_of(recipe: Recipe, root: Path) -> RunConfig:
    return RunConfig(NET, recipe, describe_data(recipe, root), 0)


Batches = list[tuple[Tensor, Tensor]]


def epoch_of(config: RunConfig, root: Path, *, epoch: int = 0, start: int = 0, **how: Any) -> Batches:
    return list(load_data(config, root, "cpu", how.get("workers", 0), how.get("group", ALONE)).epoch(epoch, start))


def same(one: Iterable[tuple[Tensor, ...]], other: Iterable[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def write_hfds(
    folder: Path, names: tuple[str, ...] | None = CLASSES, first_label: int = 0, first_image: int = 0
) -> str:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64"),
        }
    )
    for split, count in (("train", TRAIN), ("validation", TEST)):
        rows = {
            "image": [{"bytes": stored(picture(seed=first_image + number)), "path": None} for number in range(count)],
            "label": [first_label, *(number % 3 for number in range(1, count))],
        }
        folder.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return f"hfds/{folder}"


def write_wds(folder: Path, shards: int = 3, **info: Any) -> str:
    pytest.importorskip("webdataset")
    folder.mkdir(exist_ok=True)
    splits = {}
    for split, count in (("train", TRAIN), ("validation", TEST)):
        lengths = []
        for shard in range(shards):
            numbers = range(shard * count // shards, (shard + 1) * count // shards)
            with tarfile.open(folder / f"{split}-{shard:04d}.tar", "w") as tar:
                for number in numbers:
                    add(tar, f"{number:04d}.jpg", stored(picture(seed=number), quality=95))
                    add(tar, f"{number:04d}.cls", str(number % 3).encode())
            lengths.append(len(numbers))
        names = [f"{split}-{shard:04d}.tar" for shard in range(shards)]
        splits[split] = {"name": split, "num_samples": count, "filenames": names, "shard_lengths": lengths}
    (folder / "_info.json").write_text(json.dumps({"splits": splits} | (info or {"classes": CLASSES})))
    return "wds/any"


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


# -- what they are


def test_a_data_set_of_hugging_face_is_known_by_its_labels_and_names(tmp_path: Path) -> None:
    one = config_of(recipe_of(write_hfds(tmp_path / "one")), tmp_path / "cache").data
    assert (one.num_classes, one.in_channels, one.train_images) == (3, 3, TRAIN)
    again = config_of(recipe_of(write_hfds(tmp_path / "one")), tmp_path / "another cache").data
    assert again == one
    other_images = config_of(recipe_of(write_hfds(tmp_path / "one", first_image=9)), tmp_path / "fourth cache").data
    assert other_images.fingerprint != one.fingerprint
    relabelled = config_of(recipe_of(write_hfds(tmp_path / "one", first_label=1)), tmp_path / "third cache").data
    assert relabelled.fingerprint != one.fingerprint


def test_labels_without_names_are_counted(tmp_path: Path) -> None:
    recipe = recipe_of(write_hfds(tmp_path / "plain", names=None))
    data = load_data(config_of(recipe, tmp_path / "cache"), tmp_path / "cache", "cpu", 0)
    assert data.classes == ("0", "1", "2")


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(write_hfds(tmp_path / "unlabelled", first_label=-1))
    with pytest.raises(UserError, match=r"split 'train': 'label' is not a number from 0 up .* another label_key"):
        config_of(recipe, tmp_path / "cache")


def test_shards_are_known_by_their_names_sizes_and_times_or_their_content(tmp_path: Path) -> None:
    recipe = recipe_of(write_wds(tmp_path / "one"))
    one = config_of(recipe, tmp_path / "one").data
    assert (one.num_classes, one.train_images) == (3, TRAIN)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    assert config_of(recipe, tmp_path / "copy").data == one
    with (tmp_path / "copy/train-0001.tar").open("ab") as file:
        file.write(bytes(512))
    assert config_of(recipe, tmp_path / "copy").data.fingerprint != one.fingerprint
    contents = {describe_data(recipe, tmp_path / name, checksum=True).fingerprint for name in ("one", "copy")}
    assert len(contents) == 2
    os.utime(tmp_path / "one/train-0000.tar", (1, 1))
    assert config_of(recipe, tmp_path / "one").data.fingerprint != one.fingerprint
    assert describe_data(recipe, tmp_path / "one", checksum=True).fingerprint in contents


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no classes", r'_info\.json: says nothing of the classes\. Add "classes"'),
        ("no shard", r"train-0002\.tar: is in _info\.json or the split, but not there"),
        ("no split", r"split 'test'.*cannot be read .*See dataset, train_split, test_split"),
        ("no folder", r"say where its shards and _info\.json lie: --data DIR"),
    ],
)
def test_shards_that_do_not_do_are_refused(damage: str, message: str, tmp_path: Path) -> None:
    recipe = recipe_of(write_wds(tmp_path, **({"made": "by hand"} if damage == "no classes" else {})))
    if damage == "no shard":
        (tmp_path / "train-0002.tar").unlink()
    if damage == "no split":
        recipe = replace(recipe, test_split="test")
    with pytest.raises(UserError, match=message):
        describe_data(recipe, None if damage == "no folder" else tmp_path)


def test_a_missing_package_is_one_message_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timm_readers.PACKAGES, "tfds", "tensorflow_datasets_not_there")
    with pytest.raises(UserError, match=r"'tfds/mnist' needs the package .* pip install -e '\.\[readers\]'"):
        describe_data(recipe_of("tfds/mnist"), None)


# -- their batches


def in_a_process(work: Any, *args: Any) -> None:
    """Do work where workers may be forked, and where files that webdataset does not close disturb nobody."""
    process = fork(work, *args)
    process.join()
    assert process.exitcode == 0


def test_a_data_set_of_hugging_face_keeps_what_image_folders_promise(tmp_path: Path) -> None:
    recipe = recipe_of(write_hfds(tmp_path / "images"))
    in_a_process(_check_hfds, config_of(recipe, tmp_path / "cache"), tmp_path / "cache")


def _check_hfds(config: RunConfig, root: Path) -> None:
    whole = epoch_of(config, root)
    assert len(whole) == TRAIN // 4
    assert same(epoch_of(config, root, start=2, workers=2), whole[2:])
    halves = [epoch_of(config, root, group=Group(rank, 2)) for rank in range(2)]
    assert same(
        [tuple(torch.cat([a[:1], b, a[1:]]) for a, b in zip(*both, strict=True)) for both in zip(*halves, strict=True)],
        whole,
    )
    labels = torch.cat([labels for _, labels in load_data(config, root, "cpu", 0).test()])
    assert labels.tolist() == [number % 3 for number in range(TEST)]


def test_an_epoch_of_shards_is_the_same_again_also_where_it_is_entered_late(tmp_path: Path) -> None:
    in_a_process(_check_wds, config_of(recipe_of(write_wds(tmp_path)), tmp_path), tmp_path)


def _check_wds(config: RunConfig, root: Path) -> None:
    for workers in (0, 2):
        whole = epoch_of(config, root, epoch=1, workers=workers)
        assert len(whole) == TRAIN // 4
        assert same(epoch_of(config, root, epoch=1, start=3, workers=workers), whole[3:])
        assert not same(epoch_of(config, root, epoch=2, workers=workers), whole)


def test_an_epoch_of_shards_by_one_reader_has_no_image_twice(tmp_path: Path) -> None:
    recipe = recipe_of(write_wds(tmp_path), random_resized_crop=1.0, hflip=0.0, random_erasing=0.0, batch_size=6)
    in_a_process(_check_wds_images, config_of(recipe, tmp_path), tmp_path)


def _check_wds_images(config: RunConfig, root: Path) -> None:
    images = torch.cat([images for images, _ in epoch_of(config, root)])
    assert len({image.numpy().tobytes() for image in images}) == TRAIN


def test_test_shards_come_once_and_in_order_whatever_the_processes(tmp_path: Path) -> None:
    in_a_process(_check_wds_test, config_of(recipe_of(write_wds(tmp_path)), tmp_path), tmp_path)


def _check_wds_test(config: RunConfig, root: Path) -> None:
    for size in (1, 2):
        parts = [load_data(config, root, "cpu", 0, Group(rank, size)) for rank in range(size)]
        labels = [torch.cat([labels for _, labels in part.test()]).tolist() for part in parts]
        assert labels == [[number % 3 for number in range(rank, TEST, size)] for rank in range(size)]
    whole = load_data(config, root, "cpu", 0)
    numbers = [0, 4, TEST - 1]
    pixels, labels_of = whole.pick(numbers)
    assert labels_of.tolist() == [number % 3 for number in numbers]
    tested = torch.cat([images for images, _ in whole.test()])
    assert torch.allclose(whole.prepare(pixels / 255), tested[numbers], atol=1e-5)


def test_a_label_beyond_the_classes_of_the_info_is_refused(tmp_path: Path) -> None:
    in_a_process(_check_wds_label, config_of(recipe_of(write_wds(tmp_path, num_classes=2)), tmp_path), tmp_path)


def _check_wds_label(config: RunConfig, root: Path) -> None:
    with pytest.raises(UserError, match=r"an image of class 2, but it has 2 classes, from 0 up.*_info\.json"):
        list(load_data(config, root, "cpu", 0).test())


@pytest.mark.parametrize("damage", ["sample", "shard"])
def test_a_damaged_sample_of_a_shard_is_refused_not_left_out(damage: str, tmp_path: Path) -> None:
    config = config_of(recipe_of(write_wds(tmp_path)), tmp_path)
    shard = tmp_path / "validation-0001.tar"
    about = shard.stat()
    if damage == "sample":
        with tarfile.open(shard, "w") as tar:
            add(tar, "0002.jpg", b"no image")
            add(tar, "0002.cls", b"1")
        os.truncate(shard, about.st_size)
    else:
        shard.write_bytes(shard.read_bytes()[:700] + bytes(about.st_size - 700))
    os.utime(shard, (about.st_atime, about.st_mtime))
    in_a_process(_check_wds_damage, config, tmp_path)


def _check_wds_damage(config: RunConfig, root: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset 'wds/any': a sample cannot be read \([^\n]*\)\. Put a whole copy"):
        list(load_data(config, root, "cpu", 1).test())


def test_16_bits_of_a_shards_images_become_8_by_their_proportion(tmp_path: Path) -> None:
    dataset = write_wds(tmp_path)
    with tarfile.open(tmp_path / "validation-0000.tar", "w") as tar:
        add(tar, "0000.png", stored(Image.fromarray(np.full((32, 32), 10000, np.uint16)), "PNG"))
        add(tar, "0000.cls", b"0")
    in_a_process(_check_wds_16_bits, config_of(recipe_of(dataset), tmp_path), tmp_path)


def _check_wds_16_bits(config: RunConfig, root: Path) -> None:
    pixels, _ = load_data(config, root, "cpu", 0).pick([0])
    assert pixels.unique().tolist() == [39]


def test_more_processes_than_shards_are_refused(tmp_path: Path) -> None:
    config = config_of(recipe_of(write_wds(tmp_path, shards=1)), tmp_path)
    with pytest.raises(UserError, match="has 1 shards to train on, but each of 2 processes needs one of its own"):
        load_data(config, tmp_path, "cpu", 0, Group(0, 2))


# -- tensorflow-datasets, where it is installed


def write_tfds(folder: Path) -> str:
    pytest.importorskip("tensorflow", exc_type=ImportError)
    tfds = pytest.importorskip("tensorflow_datasets", exc_type=ImportError)
    in_a_process(_write_tfds, folder, tfds.__name__)
    return "tfds/three_animals"


def _write_tfds(folder: Path, name: str) -> None:
    tfds, tf = import_module(name), import_module("tensorflow")
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=CLASSES)}
    splits = {}
    for split, count in (("train", TRAIN), ("validation", TEST)):
        pixels = [np.asarray(picture(seed=number)) for number in range(count)]
        labels = [number % 3 for number in range(count)]
        splits[split] = tf.data.Dataset.from_tensor_slices({"image": np.stack(pixels), "label": labels})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="three_animals",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=folder,
    )


def test_a_data_set_of_tensorflow_is_the_same_again_also_where_an_epoch_is_entered_late(tmp_path: Path) -> None:
    in_a_process(_check_tfds, write_tfds(tmp_path), tmp_path)


def _check_tfds(dataset: str, root: Path) -> None:
    config = config_of(recipe_of(dataset), root)
    assert (config.data.num_classes, config.data.train_images) == (3, TRAIN)
    whole = epoch_of(config, root)
    assert len(whole) == TRAIN // 4
    assert same(epoch_of(config, root), whole)
    assert same(epoch_of(config, root, start=2), whole[2:])
    assert not same(epoch_of(config, root, epoch=1), whole)
    first, again = (torch.cat([labels for _, labels in load_data(config, root, "cpu", 0).test()]) for _ in range(2))
    assert torch.equal(first, again)
    assert sorted(first.tolist()) == sorted(number % 3 for number in range(TEST))
