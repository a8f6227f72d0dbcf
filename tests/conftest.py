"""What several tests share: a small cut of the data, tiny recipes, and runs that take a second."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ["OMP_NUM_THREADS"] = "1"  # here and in every process that a test starts

from analysis.figures import catalogue
from analysis.figures.roadmap import save_figure
from roadmap.data.datasets import EMBEDDED, IDX_FILES, describe_data
from roadmap.data.idx import find_idx, read_idx, write_idx
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.steps import ALL_STEPS, NET_STEPS
from roadmap.networks.config import NetConfig
from roadmap.recipe import Recipe, read_recipe
from roadmap.runs.config import RunConfig
from tests.browser import browser
from tests.slurm import slurm

__all__ = ["browser", "slurm"]  # fixtures

# Whoever started the tests may have switched Ctrl-C off, as shells do for commands in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of Slurm, then with slow ones: beside others their waits cost nothing, at the end all."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("slurm", "slow")])


TINY = {
    "name": "tiny",
    "about": "a few steps of a tiny network, for tests",
    "plain": "tiny_plain",
    "seeds": [0],
    "width_divisor": 32,
    "dataset": "fashion_mnist",
    "image_size": 32,
    "epochs": 2,
    "batch_size": 32,
    "optimizer": "adamw",
    "lr": 2e-3,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "label_smoothing": 0.1,
}
PLAIN = TINY | {"name": "tiny_plain", "optimizer": "sgd", "lr": 0.05, "schedule": "step", "decay_epochs": 1}
NET = NetConfig(depths=(1, 2, 1), widths=(4, 8, 16))
TRAIN_IMAGES, TEST_IMAGES = 320, 200


@pytest.fixture(scope="session")
def small_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Fashion-MNIST's layout with a few of its images."""
    folder = tmp_path_factory.mktemp("small_images")
    write_small_images(folder)
    return folder


def write_small_images(folder: Path) -> None:
    """Write a few of Fashion-MNIST's images in its layout."""
    folder.mkdir(exist_ok=True)
    for name in IDX_FILES:
        whole = read_idx(find_idx(EMBEDDED, name))
        few = whole[: TRAIN_IMAGES if name.startswith("train") else TEST_IMAGES]
        (folder / f"{name}-ubyte").write_bytes(write_idx(few))


@pytest.fixture(scope="session")
def tiny_run(small_images: Path) -> Callable[..., RunConfig]:
    """Return a function from settings that differ from `TINY` to a run of a second."""

    def make(seed: int = 0, net: NetConfig = NET, **settings: Any) -> RunConfig:
        recipe = Recipe(**TINY | settings)
        return RunConfig(net, recipe, describe_data(recipe, small_images), seed)

    return make


def write_tiny(folder: Path, plain: dict[str, Any] | None = None, **settings: Any) -> Path:
    """Write tiny.yaml and its plain counterpart, with settings that differ from `TINY` and `PLAIN`."""
    folder.mkdir(exist_ok=True)
    for recipe in (TINY | settings, PLAIN | settings | (plain or {})):
        path = folder / f"{recipe['name']}.yaml"
        path.write_text(yaml.safe_dump(recipe))
    read_recipe.cache_clear()
    return folder / "tiny.yaml"


@pytest.fixture
def write_recipes(tmp_path: Path) -> Callable[..., Path]:
    """Return `write_tiny` for a folder of the test's own."""
    return partial(write_tiny, tmp_path / "recipes")


@contextmanager
def small_file_system(folder: Path, size: str) -> Iterator[Path]:
    """Put a file system of its own on a folder, where the tests may mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with small_file_system(tmp_path / "disk", "64k") as disk:
        yield disk


@pytest.fixture
def only_svg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have reports draw figures in the form that pages show: PDF and PNG take three quarters of the drawing."""
    monkeypatch.setattr(catalogue, "save_figure", lambda figure, stem, _: save_figure(figure, stem, ["svg"]))


@pytest.fixture
def own_steps() -> Iterator[None]:
    """Forget, after a test, the steps that its files brought in."""
    tables = [(table, dict(table)) for table in (NET_STEPS, RECIPE_STEPS, ALL_STEPS)]
    yield
    for table, before in tables:
        table.clear()
        table.update(before)
    for name in ("my_steps", "my_models", "my_model_steps"):
        sys.modules.pop(name, None)
