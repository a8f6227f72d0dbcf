"""Reading a state dict from anybody's file, of safetensors or of `torch.save`; no code in it is run."""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from roadmap.common.errors import UserError

# Under these keys trainers keep the state dict, beside the optimizer's and more.
KEYS = ("model", "state_dict", "model_state_dict", "module", "net", "network")
# What wraps a network puts this before all of its names.
PREFIXES = ("module.", "_orig_mod.", "model.")
# Beside torch's own list: what trainers' checkpoints hold in plain data (options, paths), as classes without effects.
HARMLESS: list[Any] = [
    argparse.Namespace,
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a network's state dict, on the CPU.

    A trainer's checkpoint gives the one of its network; prefixes of wrappers such as "module." are taken off.

    Raises:
        UserError: If the file cannot be read, holds objects that only code could restore, or no state dict.
    """
    content = _content_of(path)
    for _ in KEYS:
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in KEYS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{path}: holds no state dict but {_kind_of(content)}. Save one: torch.save(model.state_dict(), ...)."
        )
    strange = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if strange:
        raise UserError(
            f"{path}: '{strange[0]}' is no tensor, so this is no state dict (looked for under "
            f"{', '.join(KEYS)}). Save the network's: torch.save(model.state_dict(), ...)."
        )
    weights: dict[str, Tensor] = dict(content)
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _content_of(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":  # behind the length of the header, which is JSON
            return load_file(path, device="cpu")
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_refusal(str(error))}") from error
    except SafetensorError as error:
        raise UserError(f"{path}: no weights can be read from it ({error}).") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # of torch's many
        raise UserError(f"{path}: no weights can be read from it ({_line(str(error))}).") from error


def _refusal(message: str) -> str:
    """Return why torch does not unpickle a file: the class that it names, or its words."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if not found:
        return f"no weights can be read from it ({_line(message)})."
    return (
        f"holds objects of {found[1]}, which are not loaded: they could run code. Save the state dict alone where the "
        "file comes from: torch.save(model.state_dict(), ...)."
    )


def _kind_of(content: object) -> str:
    return "an empty one" if isinstance(content, Mapping) else f"a {type(content).__name__}"


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
