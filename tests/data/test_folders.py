import errno
import io
import os
import pickle
import random
import signal
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from roadmap.common.errors import UserError
from roadmap.common.files import LostWorker, MayPass, may_pass
from roadmap.common.seeding import seed_step
from roadmap.data import folders
from roadmap.data.augmentation import UNTOUCHED, CentreCrop, EachRandAugment, Erasing, erase, train_transform
from roadmap.data.batches import decoding_workers, load_data
from roadmap.data.datasets import describe_data
from roadmap.data.decoding import decode
from roadmap.data.folder_files import FolderReader
from roadmap.data.folders import FolderData, Sample, together
from roadmap.recipe import Recipe
from roadmap.runs.config import RunConfig
from tests.conftest import NET, TINY
from tests.processes import fork

FOLDER = {"dataset": "folder", "batch_size": 4, "image_size": 32, "hflip": 0.5, "random_resized_crop": 0.2}
RECIPE = Recipe(**TINY | FOLDER)


def picture(mode: str = "RGB", seed: int = 0, width: int = 80, height: int = 60) -> Image.Image:
    """Return a smooth image, as JPEG likes them."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def stored(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("cut", ["half", "end", "head", "text", "nothing"])
def test_a_damaged_image_is_refused_with_its_name(cut: str, tmp_path: Path) -> None:
    whole = stored(picture())
    data = {"half": whole[: len(whole) // 2], "end": whole[:-20], "head": whole[:10], "text": b"no", "nothing": b""}
    write_folder(tmp_path)
    (tmp_path / "val/a/0.jpg").write_bytes(data[cut])
    with pytest.raises(UserError, match=r"val/a/0\.jpg: (cannot be decoded .*|is empty)\. Put a whole copy"):
        list(open_data(tmp_path, RECIPE, workers=0).test())


def test_what_a_worker_finds_damaged_is_told_in_a_line(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train/b/3.jpg").write_bytes(b"no")
    process = fork(_check_damaged, tmp_path)
    process.join()
    assert process.exitcode == 0


def _check_damaged(root: Path) -> None:
    with pytest.raises(UserError, match=r"^\S*train/b/3\.jpg: cannot be decoded [^\n]*$"):
        list(open_data(root, RECIPE, workers=1).epoch(0, 0))


def bomb() -> bytes:
    """Return a PNG of a few bytes that says it has 900 million pixels."""
    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _refuse(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: Any) -> Any:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (None, UserError, r"cannot be decoded \(Image size \(900000000 pixels\) exceeds limit .*\)"),
        (FileNotFoundError(errno.ENOENT, "No such file"), UserError, r"cannot be read \(No such file\)"),
        (PermissionError(errno.EACCES, "Permission denied"), UserError, r"cannot be read \(Permission denied\)"),
        (OSError(errno.ESTALE, "Stale file handle"), MayPass, r"cannot be read \(Stale file handle\)"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_whatever_is_wrong_with_an_image_is_a_line_with_its_name(
    error: OSError | None, kind: type[Exception], message: str, workers: int, tmp_path: Path
) -> None:
    write_folder(tmp_path)
    process = fork(_check_message, tmp_path, error, kind, message, workers)
    process.join()
    assert process.exitcode == 0


def _check_message(root: Path, error: OSError | None, kind: type[Exception], message: str, workers: int) -> None:
    (root / "train/b/3.jpg").write_bytes(bomb())
    data = open_data(root, RECIPE, workers)
    if error is not None:
        data.loader.dataset.reader.__class__ = type("Reader", (FolderReader,), {"__getitem__": _refuse(error)})  # type: ignore[attr-defined]
    with pytest.raises(kind, match=rf"^\S*\.jpg: {message}\. Put a whole copy in its place\.$") as found:
        list(data.epoch(0, 0))
    assert type(found.value) is kind
    assert may_pass(found.value) == (kind is MayPass)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_killed_worker_is_known_as_such_in_whatever_thread(in_thread: bool, tmp_path: Path) -> None:
    write_folder(tmp_path)
    process = fork(_check_killed, tmp_path, in_thread)
    process.join()
    assert process.exitcode == 0


def _check_killed(root: Path, in_thread: bool) -> None:
    data = open_data(root, RECIPE, workers=2)
    data.loader.dataset.make_sample = _kill  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as thread, pytest.raises(LostWorker, match=r"a decoding worker was killed \(Killed\)"):
        thread.submit(list, data.epoch(0, 0)).result() if in_thread else list(data.epoch(0, 0))


def _kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_no_room_for_a_batch_in_shared_memory_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(torch.zeros(2, 2, 3), 0, torch.tensor(UNTOUCHED))
    monkeypatch.setattr(folders, "default_collate", _refuse(RuntimeError("unable to allocate shared memory(shm)")))
    with pytest.raises(MayPass, match="no room in /dev/shm for a batch"):
        together([sample, sample])
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        together([sample, sample._replace(pixels=torch.zeros(3, 2, 3))])


def seeded(work: Callable[[], Any], seed: int) -> Any:
    seed_step(seed, 0, 0, 1)
    return work()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_those_of_timm_but_for_the_rounding_of_the_resize(interpolation: Any) -> None:
    recipe = replace(RECIPE, interpolation=interpolation)
    timm = create_transform(
        32, is_training=True, scale=(0.2, 1.0), hflip=0.5, color_jitter=None, interpolation=interpolation,
        use_prefetcher=True,
    )  # fmt: skip
    ours = train_transform(recipe)
    for seed in range(20):
        image = picture(seed=seed)
        theirs = seeded(lambda image=image: timm(image), seed).int()
        assert (seeded(lambda image=image: ours(as_tensor(image)), seed).int() - theirs).abs().max() <= 2


def test_what_randaugment_draws_is_what_timm_draws() -> None:
    policy = "rand-m5-mstd0.5-inc1"  # mild enough for timm's own posterize
    timm = create_transform(
        32, is_training=True, scale=(0.2, 1.0), hflip=0.5, interpolation="bicubic", auto_augment=policy,
        use_prefetcher=True,
    )  # fmt: skip
    ours = train_transform(replace(RECIPE, randaugment=policy))
    apart = [
        (seeded(lambda: ours(as_tensor(picture())), seed).int() - seeded(lambda: timm(picture()), seed).int()).abs()
        for seed in range(40)
    ]
    assert sum(levels.float().mean() < 1 for levels in apart) >= 38  # equalizing makes much of a level


@pytest.mark.parametrize(
    ("ours", "timms"),
    [
        ({"test_crop": 0.875}, {"crop_pct": 0.875}),
        ({"test_crop": 0.875, "test_resize": "squash"}, {"crop_pct": 0.875, "crop_mode": "squash"}),
        ({"test_crop": 1.0, "test_resize": "squash"}, {"crop_pct": 1.0, "crop_mode": "squash"}),
    ],
)
def test_the_test_crop_is_timms_but_for_the_rounding_of_the_resize(ours: Any, timms: Any) -> None:
    recipe = replace(RECIPE, **ours)
    timm = create_transform(32, is_training=False, interpolation="bicubic", use_prefetcher=True, **timms)
    for width, height in ((80, 60), (60, 80), (20, 30)):
        image = picture(width=width, height=height)
        assert (CentreCrop(recipe)(as_tensor(image)).int() - timm(image).int()).abs().max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_in_memory_are_each_augmented_for_themselves(channels: int) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (channels, 32, 32), np.uint8))
    same = image.expand(200, -1, -1, -1)
    policy = EachRandAugment(replace(RECIPE, randaugment="rand-m9-mstd0.5-inc1"), torch.full((channels,), 0.5))
    made = seeded(lambda: policy(same), 0)
    assert (made.shape, made.dtype) == (same.shape, torch.uint8)
    assert 30 < sum(torch.equal(one, image) for one in made) < 75  # two operations, each with a probability of a half
    assert len(made.unique(dim=0)) > 80
    assert any((one == 128).float().mean() > 0.1 for one in made)  # moved, so that the mean colour came in


def test_randaugment_may_posterize_to_no_bits_which_is_black() -> None:
    transform = train_transform(replace(RECIPE, randaugment="rand-m10-mstd0-inc1-n1-p1"))
    (policy,) = [part for part in transform.transforms if hasattr(part, "ops")]  # type: ignore[attr-defined]
    (posterize,) = [operation for operation in policy.ops if "Posterize" in operation.name]
    posterize.prob = 1.0
    assert posterize(picture()).getextrema() == ((0, 0),) * 3


def test_erasing_makes_noise_of_one_rectangle_by_its_own_seed() -> None:
    random.seed(0)
    drawn = [Erasing(replace(RECIPE, random_erasing=0.25))() for _ in range(400)]
    touched = [one for one in drawn if one != UNTOUCHED]
    assert 60 < len(touched) < 140
    areas = [one.height * one.width / 32**2 for one in touched]
    assert 0.015 < min(areas) < 0.06 < 0.25 < max(areas) < 0.37
    before = torch.full((2, 3, 32, 32), 9.0)
    one, other = before.clone(), before.clone()
    erase(one, torch.tensor([touched[0], UNTOUCHED]))
    erase(other, torch.tensor([UNTOUCHED, touched[0]]))
    assert torch.equal(one[0], other[1])
    assert torch.equal(one[1], before[1])
    top, left, height, width, _ = touched[0]
    changed = (one[0] != 9).all(0)
    assert changed.sum() == height * width
    assert changed[top : top + height, left : left + width].all()


def write_folder(root: Path, images: int = 8) -> None:
    for part in ("train", "val"):
        for label in "ab":
            (root / part / label).mkdir(parents=True, exist_ok=True)
            for number in range(images):
                seed = number + images * (label == "b")
                (root / part / label / f"{number}.jpg").write_bytes(stored(picture(seed=seed)))


def open_data(root: Path, recipe: Recipe, workers: int) -> FolderData:
    data = load_data(RunConfig(NET, recipe, describe_data(recipe, root), 0), root, "cpu", workers)
    assert isinstance(data, FolderData)
    return data


def test_batches_are_normalised_bytes_with_their_channels_last(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = open_data(tmp_path, replace(RECIPE, test_crop=1.0), workers=0)
    (images, labels), *_ = data.test()
    assert images.is_contiguous(memory_format=torch.channels_last)
    pixels = (images * data.preparer.std + data.preparer.mean).round().to(torch.uint8)
    first = decode((tmp_path / "val/a/0.jpg").read_bytes())
    assert torch.equal(pixels[0], CentreCrop(data.config.recipe)(first))
    assert labels.dtype == torch.long


def test_workers_that_share_nothing_with_their_parent_can_be_given_their_work(tmp_path: Path) -> None:
    write_folder(tmp_path)
    recipe = replace(RECIPE, randaugment="rand-m9-mstd0.5-inc1", random_erasing=0.5)
    images = open_data(tmp_path, recipe, workers=0).loader.dataset
    sent = pickle.loads(pickle.dumps(images))
    assert all(map(torch.equal, sent[0, 3][::2], images[0, 3][::2]))


def test_workers_live_on_from_epoch_to_epoch_also_where_one_was_left_early(tmp_path: Path) -> None:
    write_folder(tmp_path)
    recipe = replace(RECIPE, random_erasing=0.5)
    process = fork(_check_workers, tmp_path, recipe)
    process.join()
    assert process.exitcode == 0


def _check_workers(root: Path, recipe: Recipe) -> None:
    alone, data = open_data(root, recipe, workers=0), open_data(root, recipe, workers=2)
    seen = []
    for epoch, start in ((0, 0), (1, 1), (2, 0)):
        batches = data.epoch(epoch, start)
        if epoch == 1:
            next(batches)  # and no more
        else:
            assert same(batches, alone.epoch(epoch, start))
        seen.append(_children())
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 2


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def same(one: Iterable[tuple[Tensor, ...]], other: Iterable[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_come_to_a_gpu_in_the_same_order_and_stay_as_they_are_while_the_next_is_copied(tmp_path: Path) -> None:
    write_folder(tmp_path, images=32)
    config = RunConfig(NET, RECIPE, describe_data(RECIPE, tmp_path), 0)
    plain = list(load_data(config, tmp_path, "cpu", 0).epoch(0, 0))
    kept = list(load_data(config, tmp_path, "cuda", 2).epoch(0, 0))
    assert len(kept) == 16
    for (images, labels), (expected, truth) in zip(kept, plain, strict=True):
        torch.testing.assert_close(images.cpu(), expected)
        assert torch.equal(labels.cpu(), truth)


def test_a_gpu_leaves_one_cpu_to_the_main_process_and_the_others_to_decoding() -> None:
    assert [decoding_workers(threads, "cuda") for threads in (1, 2, 10)] == [1, 1, 9]
    assert decoding_workers(4, "cpu") == 4
