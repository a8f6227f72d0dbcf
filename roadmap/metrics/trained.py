"""A finished run's network: its weights, their hash, the network with them."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.common.errors import UserError
from roadmap.runs import config, run_folder
from roadmap.runs.config import RunConfig

if TYPE_CHECKING:
    from torch import Tensor, nn


def weights_of(folder: Path, config: RunConfig) -> Path:
    """Return the weights of a finished run that are measured: their moving average where the recipe has one."""
    return folder / (run_folder.EMA_WEIGHTS if config.recipe.ema else run_folder.WEIGHTS)


def weights_fingerprint(folder: Path, config: RunConfig) -> str:
    """Return the hash of these weights.

    Raises:
        UserError: If they are gone.
    """
    path = weights_of(folder, config)
    try:
        return _fingerprint(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Train the run again.") from error


@lru_cache(maxsize=1024)
def _fingerprint(path: Path, modified_ns: int) -> str:
    """Return a file's hash, which is computed once for as long as its time stays the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def load_network(folder: Path, config: RunConfig, device: str) -> "nn.Module":
    """Return a finished run's network with these weights, in evaluation mode.

    Raises:
        UserError: If the weights are gone or damaged.
    """
    from roadmap.training.step import make_model

    model = make_model(config, device)
    model.load_state_dict(read_weights(weights_of(folder, config)))
    return model.eval()


def read_weights(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a file that training wrote.

    Raises:
        UserError: If it is gone or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
        return weights
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is damaged ({error}). Train the run again.") from error


def read_config(folder: Path) -> RunConfig:
    """Return a run's configuration, from its run.json.

    Raises:
        UserError: If that is gone or damaged, or another run's.
    """
    path = folder / run_folder.RUN
    try:
        return _read_config(folder, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Train the run again.") from error


@lru_cache(maxsize=1024)
def _read_config(folder: Path, modified_ns: int) -> RunConfig:
    """Read a file; it is another one as soon as its time is."""
    return config.read_config(folder)
