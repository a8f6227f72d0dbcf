"""Evaluating trained networks: attacks, common corruptions, and whether the attacks can be believed.

Every network looks at the same test images, drawn once; an image of a set in memory that is, byte for byte, a training
image too is not drawn.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.common.provenance import gpu, processor
from roadmap.data.batches import Data, MemoryData, decoding_workers, load_data
from roadmap.metrics.tasks import find_commit_once
from roadmap.metrics.trained import load_network, weights_fingerprint
from roadmap.robustness.attacks import Bools, Floats, Labels, Target
from roadmap.robustness.corruptions import corrupt
from roadmap.robustness.settings import (
    CLEAN,
    CORRUPTION_NAMES,
    FGSM,
    MASKING,
    PGD,
    ROBUSTNESS_VERSION,
    SEVERITIES,
    Damaged,
    Settings,
    read_found,
)
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig

SEED = 20190327  # of the choice of test images
KEPT_BYTES = 2_000_000  # corrupted images up to this many bytes a severity are kept for the next network


def evaluate(
    folder: Path,
    config: RunConfig,
    settings: Settings,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda part: None,
    write: Callable[[Path, Any], None] = files.write_json,
) -> None:
    """Measure what is not known yet of a finished run's network, and write each part down when it is done.

    Args:
        folder: Its run folder.
        config: The run.
        settings: What is asked.
        data_root: Where its data set lies.
        device: "cpu" or "cuda".
        report: Called before each part with its name; what it raises ends the work.
        write: Writes a JSON file.

    Raises:
        UserError: If weights or data are missing or others, or the file cannot be written.
    """
    asked = ask(folder, config, settings)
    try:
        found = read_found(folder)
    except Damaged:
        found = []
    entry: dict[str, Any] = next((entry for entry in found if entry["asked"] == asked), {})
    if not entry:
        entry = {"asked": asked, "wall_s": 0.0, "cpu_s": {}, "parts": {}}
        found.append(entry)
    missing = [part for part in settings.parts if part not in entry["parts"]]
    if not missing:
        return
    report("reading")
    start, before = time.monotonic(), entry["wall_s"]
    model = ModelUnderTest(folder, config, settings, asked["images"], data_root, device)
    for part in missing:
        report(part)
        cpu = time.process_time()
        entry["parts"][part] = model.measure(part)
        entry["cpu_s"][part] = round(time.process_time() - cpu, 3)
        entry |= {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "commit": find_commit_once(),
            "device": (gpu() if device != "cpu" else None) or processor(),
            "wall_s": round(before + time.monotonic() - start, 2),
        }
        content = {"robustness_version": ROBUSTNESS_VERSION, "found": found}
        write(folder / run_folder.ROBUSTNESS, content)


def ask(folder: Path, config: RunConfig, settings: Settings) -> dict[str, Any]:
    """Return what an entry says that it answers: the settings, which weights, and the hash of these.

    Raises:
        UserError: If the weights are gone.
    """
    row, fingerprint = run_folder.read_result(folder) or {}, weights_fingerprint(folder, config)
    if not row["test_images"]:
        raise UserError(f"{folder}: was not tested, for there is no val/. Attack what was fine-tuned from it.")
    images = min(settings.images, int(row["test_images"]))
    return asdict(settings) | {
        "images": images,
        "radii": list(settings.radii),
        "check_images": min(settings.check_images, images),
        "weights": "moving average" if config.recipe.ema else "last step",
        "fingerprint": fingerprint,
    }


class ModelUnderTest:
    """A trained network and the images that it is evaluated on."""

    def __init__(
        self, folder: Path, config: RunConfig, settings: Settings, images: int, data_root: Path | None, device: str
    ) -> None:
        """Load a finished run's network; `images` is how many it is shown."""
        data = load_data(config, data_root, device, decoding_workers(1, device))
        row = run_folder.read_result(folder) or {}
        self.settings, self.numbers = settings, choose_images(data, int(row["test_images"]), images)
        pixels, labels = data.pick(self.numbers)
        self.pixels: NDArray[np.uint8] = pixels.numpy()
        self.images: Floats = (self.pixels / np.float32(255)).astype(np.float32)
        self.labels: Labels = labels.numpy()
        self.target: Target = Target(load_network(folder, config, device), data, self.pixels.shape[1:], device)
        self.right: Bools = self.target.right(self.images, self.labels)

    def measure(self, part: str) -> Any:
        """Return a part's accuracies, percent."""
        settings, target = self.settings, self.target
        if part == CLEAN:
            return _percent(self.right)
        if part == FGSM:
            attacks = {radius: partial(target.withstands_fgsm, radius=radius / 255) for radius in settings.radii}
            return {f"{radius:g}": self._under(attack) for radius, attack in attacks.items()}
        if part == MASKING:
            return self._check()
        if part in CORRUPTION_NAMES:
            return [
                _percent(target.right(corrupted, self.labels))
                for corrupted in _all_severities(self.pixels, self.numbers, part)
            ]
        radius = float(part.removeprefix(f"{PGD}_")) / 255
        return self._under(partial(target.withstands_pgd, radius=radius, steps=settings.steps))

    def _check(self) -> dict[str, float]:
        """Attack some of the images harder, and without gradients."""
        settings, radius = self.settings, self.settings.check_radius / 255
        few = np.arange(0, len(self.labels), -(-len(self.labels) // settings.check_images))
        pgd = partial(self.target.withstands_pgd, radius=radius)
        square = partial(self.target.withstands_square, radius=radius)
        attacks = {
            PGD: partial(pgd, steps=settings.steps),
            "more_steps": partial(pgd, steps=settings.check_steps),
            "restarts": partial(pgd, steps=settings.steps, restarts=settings.check_restarts),
            "square": partial(square, queries=settings.check_queries),
        }
        return {name: self._under(attack, few) for name, attack in attacks.items()}

    def _under(self, attack: Callable[[Floats, Labels], Bools], some: NDArray[Any] | None = None) -> float:
        """Return the accuracy under an attack, of which only what is right without it has to be attacked."""
        some = np.arange(len(self.labels)) if some is None else some
        right = some[self.right[some]]
        return 100 * float(attack(self.images[right], self.labels[right]).sum()) / len(some)


def choose_images(data: Data, total: int, count: int) -> list[int]:
    """Return the numbers of the test images that all networks are evaluated on, rising."""
    order = np.random.default_rng(SEED).permutation(total)
    if isinstance(data, MemoryData):
        trained_on = {image.tobytes() for image in data.train.cpu().numpy()}
        tested = data.test_images.cpu().numpy()
        order = np.array([number for number in order if tested[number].tobytes() not in trained_on])
    return sorted(order[:count].tolist())


def _percent(right: Bools) -> float:
    return 100 * float(right.mean())


def _all_severities(pixels: NDArray[np.uint8], numbers: list[int], name: str) -> Iterator[Floats]:
    """Yield the images at each severity, from 0 to 1; small ones are made once for all networks."""
    make = _corrupt_once if pixels.nbytes <= KEPT_BYTES else _corrupt
    for severity in SEVERITIES:
        corrupted = make(pixels.tobytes(), pixels.shape, tuple(numbers), name, severity)
        yield (corrupted / np.float32(255)).astype(np.float32)


def _corrupt(
    content: bytes, shape: tuple[int, ...], numbers: tuple[int, ...], name: str, severity: int
) -> NDArray[np.uint8]:
    return corrupt(np.frombuffer(content, np.uint8).reshape(shape), numbers, name, severity)


_corrupt_once = lru_cache(maxsize=len(CORRUPTION_NAMES) * len(SEVERITIES))(_corrupt)
