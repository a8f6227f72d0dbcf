"""What decoding and augmentation take on one core: `python -m benchmarks.decoding`.

Makes JPEGs like ImageNet's (500x375, quality 90, about 100 kB: noise with the spectrum of photographs, shapes, grain)
and times, under the `imagenet` recipe at 224, (1) what can decode them; (2) the whole training transform, RandAugment
included, from a file's content to bytes, as timm's loader does it and as ours does; (3) both loaders, from the folder
to normalised and erased batches, with one worker; (4) training on a CPU with one, two and three workers, of a network
that computes little for each image, so that decoding matters. All ways take turns in every round, and a ratio is the
median over the rounds. Seconds of (1) and (2) are those of one core at work, of (3) and (4) those of the clock. What is
not installed is left out: `pip install opencv-python-headless`.
"""

import io
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from timm.data import auto_augment, create_dataset, create_loader, create_transform
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from roadmap.data import augmentation
from roadmap.data.batches import load_data
from roadmap.data.datasets import describe_data
from roadmap.ladder.ladder import read_ladder
from roadmap.networks.config import scale_down
from roadmap.recipe import Recipe, read_recipe
from roadmap.runs.config import RunConfig
from roadmap.training.step import make_model, make_optimizer, make_scaler, take_step

IMAGES, ROUNDS = 96, 11


def draw_photo(draw: np.random.Generator, height: int = 375, width: int = 500) -> Image.Image:
    """Return an image with the spectrum, edges and grain of a photograph, as far as compressing it can tell."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0

    def noise(fall: float) -> np.ndarray:
        wave = (draw.normal(size=frequency.shape) + 1j * draw.normal(size=frequency.shape)) / frequency**fall
        field = np.fft.irfft2(wave, (height, width))
        return field / field.std()

    light = 120 + 45 * noise(1.1)
    colours = np.stack([light + 18 * noise(1.5) for _ in range(3)], 2)
    image = Image.fromarray(colours.clip(0, 255).astype(np.uint8))
    for _ in range(6):
        left, top, wide, high = draw.integers((0, 0, 10, 10), (width, height, 100, 100)).tolist()
        ImageDraw.Draw(image).ellipse((left, top, left + wide, top + high), tuple(draw.integers(0, 255, 3).tolist()))
    grain = 6 * draw.normal(size=(height, width, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def write_photos(root: Path) -> list[bytes]:
    """Write an image folder of two classes of such images; return the training images' files."""
    draw = np.random.default_rng(0)
    for part, images in (("train", IMAGES), ("val", 2)):
        for number in range(images):
            path = root / part / f"class{number % 2}" / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_photo(draw).save(path, quality=90)
    return [path.read_bytes() for path in sorted(root.glob("train/*/*"))]


def decoders() -> dict[str, Callable[[bytes], Any]]:
    """Return what decodes a JPEG to RGB, by the library's name; the first is timm's."""

    def draft(content: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(content))
        image.draft("RGB", (224, 224))  # half the size, where that leaves both sides at least as long
        return image.convert("RGB")

    def by_torchvision(content: bytes) -> torch.Tensor:
        return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)

    found: dict[str, Callable[[bytes], Any]] = {
        "PIL": lambda content: Image.open(io.BytesIO(content)).convert("RGB"),
        "PIL, draft": draft,
        "torchvision": by_torchvision,
        "simplejpeg": augmentation.decode,
    }
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        found["cv2"] = lambda content: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    return found


def timm_transform(recipe: Recipe) -> Callable[[Image.Image], object]:
    """Return timm's own training transform, as its loader asks for it."""
    transform = create_transform(recipe.image_size, is_training=True, use_prefetcher=True, **timm_settings(recipe))
    mend(transform)
    return transform


def timm_settings(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's augmentation in timm's words."""
    return {
        "scale": (recipe.random_resized_crop, 1.0),
        "hflip": recipe.hflip,
        "color_jitter": recipe.color_jitter,
        "auto_augment": recipe.randaugment,
        "interpolation": recipe.interpolation,
    }


def mend(transform: Any) -> None:
    """Let timm's RandAugment posterize to no bits, which it draws now and then, and which ends it with Pillow 13."""
    for operation in (op for part in transform.transforms for op in getattr(part, "ops", ())):
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = augmentation._posterize  # as ours does


def compare(ways: dict[str, Callable[[], object]], clock: Callable[[], float], rounds: int = ROUNDS) -> None:
    """Time ways to work through the images in turns; print the images/s of each and its ratio to the first one."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            for generator in (random.seed, np.random.seed, torch.manual_seed):
                generator(number)  # the same crops and the same policy for all
            start = clock()
            work()
            times[name].append(clock() - start)
    rounds_of = {name: mine[1:] for name, mine in times.items()}  # the first one starts workers and fills caches
    first = next(iter(rounds_of.values()))
    for name, mine in rounds_of.items():
        ratio = statistics.median(a / b for a, b in zip(first, mine, strict=True))
        print(f"| {name} | {IMAGES / statistics.median(mine):,.0f} | {ratio:.2f} |", flush=True)


def timm_loader(recipe: Recipe, root: Path) -> Any:
    """Return timm's loader, with one worker that it keeps, as its train.py makes it."""
    loader = create_loader(
        create_dataset("", str(root), split="train"),
        (3, recipe.image_size, recipe.image_size),
        recipe.batch_size,
        is_training=True,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        num_workers=1,
        device=torch.device("cpu"),
        **timm_settings(recipe),
    )
    mend(loader.dataset.transform)
    return loader


def epochs(data: Any) -> Iterator[int]:
    """Work through an epoch each time; yield its number."""
    for epoch in range(1_000_000):
        for _ in data.epoch(epoch, 0):
            pass
        yield epoch


def train_with_workers(config: RunConfig, root: Path, workers: int) -> Callable[[], object]:
    """Return a function that trains an epoch on the CPU, with so many decoding workers."""
    data = load_data(config, root, "cpu", workers=workers)
    model = make_model(config, "cpu")
    optimizer, scaler = make_optimizer(config.recipe, model), make_scaler(config.recipe, "cpu")
    counter = iter(range(1_000_000))

    def train() -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        for images, targets in data.epoch(next(counter), 0):
            take_step(config.recipe, model, optimizer, scaler, images, targets)
        torch.set_num_threads(1)

    return train


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    recipe = replace(read_recipe("imagenet"), batch_size=32, mixup=0.0, cutmix=0.0)
    print("| one core | images/s | ratio |\n| --- | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = write_photos(root)
        ways = decoders()
        decoding = {f"decode: {how}": lambda f=f: [f(content) for content in files] for how, f in ways.items()}
        compare(decoding, time.process_time)
        ours, theirs = augmentation.train_transform(recipe), timm_transform(recipe)
        transforms = {
            "whole transform: timm": lambda: [theirs(ways["PIL"](content)) for content in files],
            "timm, decoded by simplejpeg": lambda: [theirs(to_pil_image(ways["simplejpeg"](file))) for file in files],
            "ours, decoded by PIL": lambda: [ours(pil_to_tensor(ways["PIL"](content))) for content in files],
            "ours, decoded by torchvision": lambda: [ours(ways["torchvision"](content)) for content in files],
            "ours": lambda: [ours(ways["simplejpeg"](content)) for content in files],
        }
        compare(transforms, time.process_time)
        net = read_ladder().climb("resnet50")[-1].net
        config = RunConfig(net, recipe, describe_data(recipe, root), 0)
        loader, ahead = timm_loader(recipe, root), epochs(load_data(config, root, "cpu", workers=1))
        compare({"loader: timm": lambda: list(loader), "loader: ours": lambda: next(ahead)}, time.perf_counter)
        print(f"\n| training, {os.cpu_count()} cores | images/s | ratio |\n| --- | ---: | ---: |", flush=True)
        small = replace(
            config,
            net=scale_down(net, width_divisor=32, stem_stride=4),
            recipe=replace(recipe, image_size=64, amp="none"),
        )
        counts = {"1 worker": 1, "2 workers": 2, "3 workers": 3}
        workers = {how: train_with_workers(small, root, count) for how, count in counts.items()}
        compare(workers, time.perf_counter, rounds=5)


if __name__ == "__main__":
    main()
