import gzip
import lzma
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from roadmap.common.errors import UserError
from roadmap.common.process_group import ALONE
from roadmap.common.seeding import seed_step
from roadmap.data import datasets as data_module
from roadmap.data.batches import TEST_BATCH, MemoryData, load_data
from roadmap.data.datasets import DEBIAN, EMBEDDED, Arrays, describe_data, load_arrays
from roadmap.data.fashion_mnist.make import PER_CLASS
from roadmap.data.idx import read_idx, write_idx
from roadmap.recipe import Recipe
from roadmap.runs import run_folder
from roadmap.runs.config import DataConfig, RunConfig
from roadmap.study.spec import StudySpec, plan_study
from roadmap.training import loop as train_module
from roadmap.training.loop import Stopped, train
from tests.conftest import NET, TEST_IMAGES, TINY, TRAIN_IMAGES, write_tiny
from tests.processes import fork, outcome

MakeRun = Callable[..., RunConfig]
Batches = list[tuple[Tensor, Tensor]]
BLOCK = write_idx(np.zeros((3, 2, 2), np.uint8))
ALL_AUGMENTATION = {"shift": 2, "hflip": 0.5, "mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5}
ALL_AUGMENTATION["randaugment"] = "rand-m9-mstd0.5-inc1"


def same(one: Iterable[tuple[Tensor, ...]], other: Iterable[tuple[Tensor, ...]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


def numbered(train: int, test: int, *, test_on: str = "test", **settings: Any) -> MemoryData:
    """Return data whose images carry their number: in the first two of 28x28 pixels, and none is like another."""
    images = np.random.default_rng(0).integers(0, 256, (train + test, 1, 28, 28), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(train + test), 256)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    arrays = Arrays(images[:train], labels[:train], images[train:], labels[train:], tuple("abcdefghij"))
    recipe = Recipe(**TINY | {"image_size": 28} | settings)
    data = DataConfig("numbered", "", 10, 1, train - recipe.validation_images, test_on)
    return MemoryData(RunConfig(NET, recipe, data, 0), arrays, "cpu", ALONE)


def pixels(data: MemoryData, images: Tensor) -> Tensor:
    """Return the bytes that a batch was made of."""
    return ((images * data.std + data.mean) * 255).round().to(torch.uint8)


def numbers(data: MemoryData, batches: Iterable[tuple[Tensor, Tensor]]) -> list[int]:
    raw = torch.cat([pixels(data, images) for images, _ in batches])[:, 0, 0, :2].int()
    return (raw[:, 0] * 256 + raw[:, 1]).tolist()


# -- the embedded part


def test_the_embedded_part_is_balanced_and_has_the_whole_test_set() -> None:
    arrays = load_arrays("fashion_mnist_part")
    assert arrays.train.shape == (15_000, 1, 28, 28)
    assert arrays.test.shape == (10_000, 1, 28, 28)
    assert np.bincount(arrays.train_labels).tolist() == [1_500] * 10
    assert np.bincount(arrays.test_labels).tolist() == [1_000] * 10
    assert len(arrays.classes) == 10


def test_the_embedded_part_takes_less_than_10_mb_and_has_its_licence_with_it() -> None:
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir() if file.is_file()) < 10e6
    assert "MIT" in (EMBEDDED / "LICENSE").read_text()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_embedded_part_is_the_first_images_of_each_class_of_the_official_files() -> None:
    official, ours = load_arrays("fashion_mnist", DEBIAN), load_arrays("fashion_mnist_part")
    assert len(official.train) == 60_000
    assert np.array_equal(ours.test, official.test)
    assert np.array_equal(ours.test_labels, official.test_labels)
    rank = np.zeros(len(official.train), int)  # of each image among those of its class
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
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if damage == "changed":
        file.write_bytes(content)
    monkeypatch.setattr(data_module, "EMBEDDED", folder)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.xz: missing or damaged .* Install the package again"):
        load_arrays.__wrapped__("fashion_mnist_part")


# -- what can be wrong with files


DAMAGED = {
    "empty": ("", b"", "not an idx file of bytes .*missing"),
    "other format": ("", b"\x89PNG\r\n", "not an idx file of bytes .*89504e47"),
    "short head": ("", BLOCK[:6], "not an idx file of bytes"),
    "short": ("", BLOCK[:-1], r"holds 11 bytes, but its head says \(3, 2, 2\)"),
    "long": ("", BLOCK + b"\0", "holds 13 bytes"),
    "empty gz": (".gz", b"", "not an idx file of bytes"),
    "no gz": (".gz", b"no gzip", "cannot be read"),
    "short gz": (".gz", gzip.compress(BLOCK)[:-9], "cannot be read"),
    "other checksum in gz": (".gz", gzip.compress(BLOCK)[:-8] + bytes(8), "cannot be read"),
    "garbage in gz": (".gz", gzip.compress(BLOCK)[:10] + b"\xff" * 20, "cannot be read"),
    "no xz": (".xz", b"no xz", "cannot be read"),
    "short xz": (".xz", lzma.compress(BLOCK)[:-9], "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_is_not_whole_is_refused_with_its_name(damage: str, tmp_path: Path) -> None:
    suffix, content, message = DAMAGED[damage]
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name}: {message}.* Put a whole copy in its place"):
        read_idx(path)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_what_is_written_as_idx_is_read_again(suffix: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"any-ubyte{suffix}"
    path.write_bytes(pack(write_idx(array)))
    assert np.array_equal(read_idx(path), array)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("train-labels-idx1-ubyte", None, "no train-labels-idx1-ubyte here"),
        ("t10k-images-idx3-ubyte", None, "no t10k-images-idx3-ubyte here"),
        ("train-labels-idx1-ubyte", np.full(TRAIN_IMAGES, 10), "the train part has .* labels of 0 to 9"),
        ("train-labels-idx1-ubyte", np.zeros(TRAIN_IMAGES - 1), r"the train part .* labels of shape \(319,\)"),
        ("t10k-labels-idx1-ubyte", np.zeros((TEST_IMAGES, 2)), r"the test part .* labels of shape \(200, 2\)"),
        ("t10k-images-idx3-ubyte", np.zeros(TEST_IMAGES), r"the test part has images of shape \(200,\)"),
    ],
)
def test_a_set_whose_files_do_not_fit_together_is_refused(
    file: str, array: np.ndarray | None, message: str, small_images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(small_images, folder)
    if array is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(write_idx(array.astype(np.uint8)))
    with pytest.raises(UserError, match=f"{folder}: {message}"):
        describe_data(Recipe(**TINY), folder)


def test_an_empty_set_is_refused(small_images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    shutil.copytree(small_images, folder)
    (folder / "t10k-images-idx3-ubyte").write_bytes(write_idx(np.zeros((0, 28, 28), np.uint8)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(write_idx(np.zeros(0, np.uint8)))
    with pytest.raises(UserError, match=r"the test part has images of shape \(0, 28, 28\) .* at least one"):
        describe_data(Recipe(**TINY), folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no train-images-idx3-ubyte here"):
        describe_data(Recipe(**TINY), tmp_path / "nowhere")


def test_data_that_changed_since_the_run_was_planned_is_refused(
    tiny_run: MakeRun, small_images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(small_images, folder)
    labels = read_idx(folder / "train-labels-idx1-ubyte")
    labels[7] = 9 - labels[7]
    (folder / "train-labels-idx1-ubyte").write_bytes(write_idx(labels))
    with pytest.raises(UserError, match=r"'fashion_mnist' has changed since the run was planned.* Plan again"):
        load_data(tiny_run(), folder, "cpu")


def test_validation_images_that_leave_none_to_train_on_are_refused(small_images: Path) -> None:
    with pytest.raises(UserError, match="validation_images is 320, but 'fashion_mnist' has only 320 training images"):
        describe_data(Recipe(**TINY | {"validation_images": TRAIN_IMAGES}), small_images)


def test_a_recipe_without_validation_images_cannot_be_tested_on_them(small_images: Path) -> None:
    with pytest.raises(UserError, match=r"'tiny' keeps no validation images\. Set validation_images"):
        describe_data(Recipe(**TINY), small_images, validate=True)


# -- sets that torchvision downloads


def test_cifar_comes_through_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def cifar100(root: Path, *, train: bool, download: bool) -> SimpleNamespace:
        assert download
        assert root == tmp_path
        images = np.random.default_rng(0).integers(0, 256, (6 if train else 2, 32, 32, 3), np.uint8)
        return SimpleNamespace(data=images, targets=list(range(len(images))), classes=[str(n) for n in range(100)])

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", cifar100)
    arrays = load_arrays.__wrapped__("cifar100", tmp_path)
    assert arrays.train.shape == (6, 3, 32, 32)
    assert np.array_equal(arrays.train[4, 2], cifar100(tmp_path, train=True, download=True).data[4, :, :, 2])
    assert arrays.test_labels.tolist() == [0, 1]
    assert len(arrays.classes) == 100


def test_a_set_that_cannot_be_downloaded_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(data_module, "DEBIAN", tmp_path / "not installed")
    monkeypatch.setattr(data_module, "CACHE", tmp_path)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", unreachable)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    with pytest.raises(
        UserError, match=r"FashionMNIST is not there and cannot be downloaded \(no route to host\).*--data"
    ):
        load_arrays.__wrapped__("fashion_mnist")
    with pytest.raises(UserError, match=r"CIFAR10 is not there and cannot be downloaded"):
        load_arrays.__wrapped__("cifar10")


# -- batches


def test_batches_depend_on_seed_epoch_and_step_alone(tiny_run: MakeRun, small_images: Path) -> None:
    config = tiny_run(**ALL_AUGMENTATION)
    first = list(load_data(config, small_images, "cpu").epoch(1, 0))
    again = []
    for batch in load_data(config, small_images, "cpu").epoch(1, 0):
        again.append(batch)
        torch.rand(7)  # what a network draws between two batches does not matter
        np.random.rand(7)
    assert len(first) == 10
    assert same(first, again)


def test_an_epoch_entered_late_goes_on_with_the_same_batches(tiny_run: MakeRun, small_images: Path) -> None:
    data = load_data(tiny_run(**ALL_AUGMENTATION), small_images, "cpu")
    whole = list(data.epoch(1, 0))
    for start in (1, 7, 10):
        assert same(data.epoch(1, start), whole[start:])


def test_batches_differ_between_seeds_and_epochs(tiny_run: MakeRun, small_images: Path) -> None:
    data = load_data(tiny_run(), small_images, "cpu")
    first = list(data.epoch(0, 0))
    assert not same(first, data.epoch(1, 0))
    assert not same(first, load_data(tiny_run(seed=1), small_images, "cpu").epoch(0, 0))


def test_an_epoch_has_every_image_once() -> None:
    data = numbered(640, 10)
    assert sorted(numbers(data, data.epoch(0, 0))) == list(range(640))


def test_an_epoch_leaves_out_the_last_incomplete_batch_and_takes_no_image_twice() -> None:
    data = numbered(640, 10, batch_size=100)
    seen = numbers(data, data.epoch(0, 0))
    assert len(seen) == len(set(seen)) == 600


def test_labels_stay_with_their_images() -> None:
    data = numbered(640, 10)
    batches = list(data.epoch(0, 0))
    assert torch.cat([labels for _, labels in batches]).tolist() == [number % 10 for number in numbers(data, batches)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shift=st.integers(0, 4),
    hflip=st.sampled_from([0.0, 0.5, 1.0]),
    image_size=st.integers(24, 36),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_an_augmented_image_is_a_window_of_the_padded_one_mirrored_or_not(
    shift: int, hflip: float, image_size: int, channels: int, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (16, channels, 28, 27), np.uint8)
    labels = np.arange(16, dtype=np.uint8)  # which image it was
    recipe = Recipe(**TINY | {"batch_size": 8, "image_size": image_size, "shift": shift, "hflip": hflip})
    config = RunConfig(NET, recipe, DataConfig("any", "", 16, channels, 16), seed)
    data = MemoryData(config, Arrays(images, labels, images, labels, tuple("0123456789abcdef")), "cpu", ALONE)
    down, right = image_size - 28, image_size - 27
    margins = (right // 2 + shift, right - right // 2 + shift, down // 2 + shift, down - down // 2 + shift)
    for batch, chosen in data.epoch(0, 0):
        for image, number in zip(pixels(data, batch), chosen.tolist(), strict=True):
            original = torch.from_numpy(images[number])
            sources = [original] * (hflip < 1) + [original.flip(2)] * (hflip > 0)
            windows = (
                F.pad(source, margins)[:, top : top + image_size, left : left + image_size]
                for source in sources
                for top in range(2 * shift + 1)
                for left in range(2 * shift + 1)
            )
            assert any(torch.equal(image, window) for window in windows)


def places(data: MemoryData, epoch: int = 0) -> Tensor:
    """Return where (row, column) each image of an epoch has its one bright pixel."""
    data.train.zero_()[:, :, 10, 5] = 255
    return torch.cat([pixels(data, images).nonzero()[:, 2:] for images, _ in data.epoch(epoch, 0)])


def test_every_shift_is_drawn_and_half_of_the_images_are_mirrored() -> None:
    found = places(numbered(640, 10, image_size=32, shift=2, hflip=0.5))
    mirrored = found[:, 1] > 16
    around = [-2, -1, 0, 1, 2]
    assert set(map(tuple, found[~mirrored].tolist())) == {(12 + row, 7 + column) for row in around for column in around}
    assert set(map(tuple, found[mirrored].tolist())) == {(12 + row, 24 + column) for row in around for column in around}
    assert 250 < mirrored.sum() < 390


def test_the_next_epoch_draws_anew() -> None:
    data = numbered(640, 10, image_size=32, shift=2, hflip=0.5)
    assert (places(data, 0) == places(data, 1)).all(1).float().mean() < 0.1


def test_without_mixing_targets_are_classes(tiny_run: MakeRun, small_images: Path) -> None:
    for _, labels in load_data(tiny_run(), small_images, "cpu").epoch(0, 0):
        assert labels.shape == (32,)
        assert labels.dtype == torch.long


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_mixed_targets_are_smoothed_probabilities(
    mixing: dict[str, float], tiny_run: MakeRun, small_images: Path
) -> None:
    targets = [t for _, t in load_data(tiny_run(**mixing), small_images, "cpu").epoch(0, 0)]
    for target in targets:
        assert target.shape == (32, 10)
        assert torch.allclose(target.sum(1), torch.ones(32))
        assert target.min() >= 0.1 / 10 - 1e-6  # label smoothing 0.1 over ten classes
    assert any((target > 0.02).sum(1).max() == 2 for target in targets)


def test_random_erasing_changes_one_rectangle_of_each_image() -> None:
    plain, erased = (numbered(640, 10, random_erasing=rate) for rate in (0.0, 1.0))
    for (before, _), (after, _) in zip(plain.epoch(0, 0), erased.epoch(0, 0), strict=True):
        for changed in (before != after)[:, 0]:
            rows, columns = changed.any(1), changed.any(0)
            assert changed[rows][:, columns].all()
            assert 0 < changed.sum() < 0.5 * changed.numel()


def test_training_images_have_mean_0_and_standard_deviation_1(tiny_run: MakeRun, small_images: Path) -> None:
    data = load_data(tiny_run(image_size=28), small_images, "cpu")
    images = torch.cat([images for images, _ in data.epoch(0, 0)])
    assert abs(images.mean().item()) < 1e-4
    assert abs(images.std().item() - 1) < 1e-4


@pytest.mark.parametrize("count", [10, TEST_BATCH, 2 * TEST_BATCH + 100])
def test_the_test_set_comes_once_whole_in_order_and_as_it_is(count: int) -> None:
    data = numbered(640, count, **ALL_AUGMENTATION)
    assert numbers(data, data.test()) == list(range(640, 640 + count))
    assert torch.cat([labels for _, labels in data.test()]).tolist() == [n % 10 for n in range(640, 640 + count)]


def test_test_images_are_centred() -> None:
    data = numbered(640, 10, image_size=32, shift=2)
    ((images, _),) = data.test()
    raw = pixels(data, images)
    assert torch.equal(raw[:, :, 2:30, 2:30], data.test_images)
    assert raw.sum() == data.test_images.sum()


def test_validation_images_are_never_trained_on_and_tested_on_only_when_asked() -> None:
    for test_on, tested in (("validation", range(640, 740)), ("test", range(740, 750))):
        data = numbered(740, 10, test_on=test_on, validation_images=100)
        assert sorted(numbers(data, data.epoch(0, 0))) == list(range(640))
        assert numbers(data, data.test()) == list(tested)
        assert data.mean.item() == pytest.approx(data.train[:640].double().mean().item() / 255)


def test_a_run_tested_on_validation_images_has_its_data_described_so(small_images: Path) -> None:
    recipe = Recipe(**TINY | {"validation_images": 64})
    plain, validated = (describe_data(recipe, small_images, validate=validate) for validate in (False, True))
    assert (plain.train_images, plain.test_on) == (256, "test")
    assert (validated.train_images, validated.test_on) == (256, "validation")


# -- image folders


def save_folder(root: Path, images: np.ndarray, labels: np.ndarray, classes: Iterable[int] = (0, 1)) -> None:
    for label in classes:
        for number, image in enumerate(images[labels == label][:16]):
            folder = root / ("train" if number < 12 else "val") / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / f"{number}.png")


FOLDER = {"dataset": "folder", "batch_size": 8, "epochs": 2, "hflip": 0.5, "random_resized_crop": 0.5, "test_crop": 1.0}


def test_an_image_folder_of_real_images_trains_through_timm_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    arrays = load_arrays("fashion_mnist_part")
    save_folder(tmp_path / "images", arrays.train[:1000], arrays.train_labels[:1000])
    recipe = Recipe(**TINY | FOLDER | {"randaugment": "rand-m9-mstd0.5-inc1", "mixup": 0.8, "random_erasing": 0.25})
    data = describe_data(recipe, tmp_path / "images")
    assert (data.num_classes, data.in_channels, data.train_images) == (2, 3, 24)
    config = RunConfig(NET, recipe, data, 0)
    for name, stops in (("undisturbed", []), ("stopped", [2, 1])):
        (tmp_path / name).mkdir()
        process = fork(_train_with_stops, config, tmp_path / name, tmp_path / "images", stops)
        process.join()
        assert process.exitcode == 0
    left = outcome(tmp_path / "undisturbed")
    assert (left[-1]["state"], left[-1]["test_images"], left[-1]["classes"]) == ("finished", 8, ["class0", "class1"])
    assert outcome(tmp_path / "stopped") == left


def _train_with_stops(config: RunConfig, folder: Path, root: Path, stops: list[int]) -> None:
    """Stop after so many steps of each attempt, then go on to the end."""
    train_module.LOOK_EVERY_S = 0.0
    for steps in stops:
        asked = iter([""] * (steps - 1))
        with pytest.raises(Stopped):
            train(config, folder, data_root=root, asked=partial(next, asked, "stop"))
    train(config, folder, data_root=root)


def test_a_wrong_image_folder_is_refused(tmp_path: Path) -> None:
    images, labels = np.zeros((32, 1, 8, 8), np.uint8), np.arange(32) % 2
    recipe = Recipe(**TINY | FOLDER)
    with pytest.raises(UserError, match=r"image folder\. Say where: --data DIR"):
        describe_data(recipe, None)
    with pytest.raises(UserError, match="no folder 'train'"):
        describe_data(recipe, tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="train: no images"):
        describe_data(recipe, tmp_path)
    save_folder(tmp_path, images, labels)
    shutil.move(tmp_path / "val", tmp_path / "validation")
    with pytest.raises(UserError, match="no folder 'val'"):
        describe_data(recipe, tmp_path)
    shutil.move(tmp_path / "validation", tmp_path / "val")
    (tmp_path / "val" / "class1").rename(tmp_path / "val" / "class2")
    with pytest.raises(UserError, match="differ in classes: class1, class2 in one only"):
        describe_data(recipe, tmp_path)


def test_a_study_that_needs_no_test_trains_on_a_folder_without_val(tmp_path: Path) -> None:
    save_folder(tmp_path / "images", np.zeros((32, 1, 8, 8), np.uint8), np.arange(32) % 2)
    shutil.rmtree(tmp_path / "images" / "val")
    small = FOLDER | {"epochs": 1, "warmup_epochs": 0.0, "needs_test": False}
    recipe = write_tiny(tmp_path / "recipes", plain={"needs_test": True}, **small)  # the study's own recipe decides
    only = ["baseline_original", "baseline"]
    study = plan_study(StudySpec("resnet50", recipe, data_root=tmp_path / "images", runs=tmp_path / "runs", only=only))
    assert "NOT TESTED: there is no val/" in study.describe()
    runs = study.planned()
    process = fork(_train_all, [(run.config, run.folder) for run in runs], tmp_path / "images")
    process.join()
    assert (process.exitcode, len(runs)) == (0, 2)
    for run in runs:
        row = run_folder.read_result(run.folder)
        assert row is not None
        assert (row["state"], row["test_images"], row["top1"]) == ("finished", 0, None)
        assert row["train_loss"] > 0
        assert (run.folder / run_folder.WEIGHTS).is_file()
        assert not (run.folder / run_folder.PREDICTIONS).exists()


def _train_all(runs: list[tuple[RunConfig, Path]], root: Path) -> None:
    for config, folder in runs:
        folder.mkdir(parents=True)
        train(config, folder, data_root=root)


def test_an_image_more_makes_another_data_set(tmp_path: Path) -> None:
    save_folder(tmp_path / "before", np.zeros((32, 1, 8, 8), np.uint8), np.arange(32) % 2)
    shutil.copytree(tmp_path / "before", tmp_path / "same")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    shutil.copy(tmp_path / "after/train/class0/0.png", tmp_path / "after/train/class0/more.png")
    before, same, after = (
        describe_data(Recipe(**TINY | FOLDER), tmp_path / name) for name in ("before", "same", "after")
    )
    assert same == before
    assert after.fingerprint != before.fingerprint
    assert after.train_images == before.train_images + 1


def test_a_step_draws_what_torch_draws_after_the_same_seed() -> None:
    seed_step(3, 1)
    drawn = torch.rand(4)
    torch.manual_seed(torch.initial_seed())
    assert torch.equal(drawn, torch.rand(4))
    seed_step(3, 2)
    assert not torch.equal(drawn, torch.rand(4))
