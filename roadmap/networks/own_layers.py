"""Steps and layers of a user's own: a Python file, `--steps-module my_steps.py`.

Its public functions from a network (or recipe) to one become steps that ladders can name, its classes layers of blocks.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from roadmap.common.errors import UserError
from roadmap.networks.config import NetConfig, OwnLayer

if TYPE_CHECKING:
    from torch import nn

# Whether Python files that a network from somebody's file names may be run: no, yes, or those of one fingerprint. It
# comes from the user's call alone, not by way of timm, whose arguments are also read from such files.
TRUST: ContextVar[bool | str] = ContextVar("trust", default=False)
FINGERPRINT_LENGTH = 12  # hexadecimal digits of SHA-256
FINGERPRINT = "roadmap_fingerprint"  # under this name a module knows the hash of the file that it was read from


def own_layer(slot: str, layer: "type[nn.Module]") -> OwnLayer:
    """Return a layer of a class of your own, for `BlockConfig.layers_after`.

    Args:
        slot: The convolution that it follows: one of `roadmap.networks.config.CONV_SLOTS`.
        layer: The class. Called with a number of channels, it makes a module from (N, channels, H, W) to the same
            shape.

    Raises:
        UserError: If the class is not one of a file, from which jobs could make it.
    """
    module = sys.modules[layer.__module__]
    if not getattr(module, "__file__", None) or layer.__module__ == "__main__":
        raise UserError(
            f"layer '{layer.__name__}': jobs make it from its file, and it has none. Write it into a Python file, and "
            "name that by --steps-module."
        )
    path = Path(cast(str, module.__file__)).resolve()
    return OwnLayer(slot, layer.__name__, str(path), fingerprint_of(module))


def import_layers(net: NetConfig) -> None:
    """Import the files of a network's own layers: before a run sets its seed, since a file may draw random numbers.

    Raises:
        UserError: If one is not there, or is another one now.
    """
    for layer in net.block.layers_after:
        load_module(Path(layer.path), layer.fingerprint)


def make_layer(layer: OwnLayer, width: int) -> "nn.Module":
    """Make a user's layer for so many channels.

    Raises:
        UserError: If its file is not there, or is another one now.
    """
    make = getattr(load_module(Path(layer.path), layer.fingerprint), layer.name, None)
    if make is None:
        raise UserError(f"{layer.path}: has no class '{layer.name}'. Put it there, or take it out of layers_after.")
    return cast(Callable[[int], "nn.Module"], make)(width)


def check_trust(net: NetConfig) -> None:
    """Refuse to run the Python files that a network from somebody's file names, unless `TRUST` says that they may be.

    What is imported already under the file's name and has its fingerprint needs no trust: nothing is run.

    Raises:
        UserError: If one may not be run.
    """
    for layer in net.block.layers_after:
        check_file(f"layer '{layer.name}'", layer.path, layer.fingerprint)


def check_file(what: str, path: str, fingerprint: str) -> None:
    """Refuse to run a Python file that somebody's file names, unless `TRUST` says that it may be.

    Args:
        what: What is made from it, for errors.
        path: The file.
        fingerprint: Hash of its content.

    Raises:
        UserError: If it may not be run.
    """
    trust, known = TRUST.get(), sys.modules.get(Path(path).stem)
    if trust is True or trust == fingerprint or (known is not None and fingerprint_of(known) == fingerprint):
        return
    raise UserError(
        f"{what}: comes from the Python file {path} (fingerprint {fingerprint}), which loading would run. If you trust "
        "it, give roadmap.load_model trust_code=True, or the fingerprint if you have it from elsewhere; or import the "
        "file first."
    )


def load_module(path: Path, fingerprint: str | None = None) -> ModuleType:
    """Import a Python file under its own name, once; what Python has imported already under that name is the same file.

    Args:
        path: The file.
        fingerprint: What its content should be; None takes any.

    Raises:
        UserError: If it cannot be imported, its name is taken, or its content is another.
    """
    name, known = path.stem, sys.modules.get(path.stem)
    if known is not None and fingerprint is not None and fingerprint_of(known) == fingerprint:
        return known  # wherever it lies
    try:
        found = _hash(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}), but steps or layers come from it. Put it there; one that is "
            f"imported as '{name}' serves as well."
        ) from error
    if fingerprint not in (None, found):
        raise UserError(
            f"{path}: has changed since the network was planned (fingerprint {found}, not {fingerprint}). Start the "
            "same command again, which plans runs of what it is now; or put the old file back."
        )
    if not name.isidentifier() or path.suffix != ".py":
        raise UserError(f"{path}: is no name of a Python module. Give the file another one, such as my_steps.py.")
    other = known.__spec__ if known else importlib.util.find_spec(name)
    if other and Path(other.origin or "").resolve() != path.resolve():
        raise UserError(f"{path}: '{name}' is another module already ({other.origin}). Give the file another name.")
    if getattr(known, FINGERPRINT, None) == found:  # a plain import does not know what it read
        assert known
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    setattr(module, FINGERPRINT, found)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file may raise what it likes
        sys.modules.pop(name)
        raise UserError(f"{path}: cannot be imported ({type(error).__name__}: {error}).") from error
    return module


def fingerprint_of(module: ModuleType) -> str:
    """Return the hash of the file that a module was read from."""
    if not hasattr(module, FINGERPRINT):
        file = getattr(module, "__file__", None)
        setattr(module, FINGERPRINT, _hash(Path(file)) if file else "")
    return str(getattr(module, FINGERPRINT))


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:FINGERPRINT_LENGTH]
