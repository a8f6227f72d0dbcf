"""Steps and layers of a user's own: a Python file, `--steps-module my_steps.py`.

Its public functions from a network (or recipe) to one become steps that ladders can name, its classes layers.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast, get_args

from roadmap.common.errors import UserError, unknown
from roadmap.common.fingerprints import code_fingerprint
from roadmap.networks.block_config import CONV_SLOTS, Argument, OwnLayer

if TYPE_CHECKING:
    from torch import Tensor, nn

Shape = tuple[int, ...]


class WithCode(Protocol):
    """A network, of any kind."""

    @property
    def code(self) -> tuple[tuple[str, str, str], ...]:
        """What it has from a user's files: a name for errors, the file and the hash of its content, each."""


# Where a layer of a user's own can stand, and the sizes that its class is called with there.
_RESIZING = ("in_width", "width", "stride")
SIZES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(CONV_SLOTS, ("width",)),
    **dict.fromkeys(("stem", "downsample", "spatial_conv", "shortcut", "projection"), _RESIZING),
    "pool": ("width",),
    "head": ("width", "num_classes"),
}
# Whether Python files that a network from somebody's file names may be run: no, yes, or those of one fingerprint. It
# comes from the user's call alone, not by way of timm, whose arguments are also read from such files.
TRUST: ContextVar[bool | str] = ContextVar("trust", default=False)
FINGERPRINT = "roadmap_fingerprint"  # under this name a module knows the hash of the file that it was read from


def own_layer(slot: str, layer: "Callable[..., nn.Module]", **args: Argument) -> OwnLayer:
    """Return a layer of a class of your own, for the field of `NetConfig` or `BlockConfig` that has its slot.

    What the class is called with, and what its module must make of (N, C, H, W), depends on where it stands:

    - "pointwise1", "spatial", "pointwise2" (`layers_after`, behind that convolution): `(width)`; the same shape.
    - "stem", "downsample", "spatial_conv" (the fields of these names), "projection" and "shortcut" (`shortcut`, where
      the shape changes or in every block): `(in_width, width, stride)`; (N, width, H / stride, W / stride).
    - "pool" (`pool`): `(width)`; (N, width, 1, 1).
    - "head" (`head`): `(width, num_classes)`; (N, num_classes), from the pooled features, (N, width).

    Convolutions and linear layers in it start as the recipe says; where its class has a method `init_weights`, that is
    called afterwards. Its `no_weight_decay`, if any, names the parameters that weight decay leaves alone.

    Args:
        slot: Where it stands.
        layer: The class, or a function that makes a module.
        **args: Further arguments of it: numbers, text, true or false. They are part of a run's name.

    Raises:
        UserError: If there is no such slot, the class cannot be called so, or it is none of a file, from which jobs
            could make it.
    """
    if slot not in SIZES:
        raise unknown("slot", slot, SIZES, place=f"layer '{layer.__name__}'")
    module = sys.modules[layer.__module__]
    if not getattr(module, "__file__", None) or layer.__module__ == "__main__":
        raise UserError(
            f"layer '{layer.__name__}': jobs make it from its file, and it has none. Write it into a Python file, and "
            "name that by --steps-module."
        )
    for name, value in args.items():
        if not isinstance(value, get_args(Argument)):
            raise UserError(
                f"layer '{layer.__name__}': argument {name} is {value!r}, but must be a number, a text, True, False or "
                "None, which a run's name can hold. Give several arguments in the place of a list."
            )
    try:
        inspect.signature(layer).bind(*SIZES[slot], **args)
    except TypeError as error:
        called = ", ".join((*SIZES[slot], *(f"{name}={value!r}" for name, value in args.items())))
        raise UserError(
            f"layer '{layer.__name__}': cannot be called as {layer.__name__}({called}): {error}. In the slot "
            f"'{slot}' it is. Give its __init__ these arguments."
        ) from error
    path = Path(cast(str, module.__file__)).resolve()
    return OwnLayer(slot, layer.__name__, str(path), fingerprint_of(module), tuple(sorted(args.items())))


def import_code(net: WithCode) -> None:
    """Import the users' files of a network: before a run sets its seed, since they may draw random numbers.

    Raises:
        UserError: If one is not there, or is another one now.
    """
    for _, path, fingerprint in net.code:
        load_module(Path(path), fingerprint)


def make_layer(layer: OwnLayer, *sizes: int) -> "nn.Module":
    """Make a user's layer, which refuses to give another shape than the network needs.

    Args:
        layer: The layer.
        *sizes: What `SIZES` says of its slot.

    Raises:
        UserError: If its file is not there, or is another one now, or its class fails.
    """
    make = getattr(load_module(Path(layer.path), layer.fingerprint), layer.name, None)
    if make is None:
        raise UserError(f"{layer.path}: has no class '{layer.name}'. Put it there, or take it out of the network.")
    with errors_of((layer,)):
        module = cast(Callable[..., "nn.Module"], make)(*sizes, **dict(layer.args))
    module.register_forward_hook(partial(_check_shape, layer, sizes))
    return module


@contextmanager
def errors_of(layers: tuple[OwnLayer, ...]) -> Iterator[None]:
    """Have what goes wrong in the code of own layers reach the user as a message, with the layer, file and line.

    Raises:
        UserError: If something goes wrong there.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a user's code may raise what it likes
        files = {
            file for layer in layers if (file := getattr(sys.modules.get(Path(layer.path).stem), "__file__", None))
        }
        frames = traceback.walk_tb(error.__traceback__)
        own = [(frame, line) for frame, line in frames if frame.f_code.co_filename in files]
        if not own:
            raise
        frame, line = own[-1]
        owner = type(frame.f_locals["self"]).__name__ if "self" in frame.f_locals else frame.f_code.co_name
        text = str(error).split("\n")[0].rstrip(".")
        raise UserError(
            f"layer '{owner}' ({Path(frame.f_code.co_filename).name}, line {line}): {type(error).__name__}: {text}. "
            "Mend it there."
        ) from error


def _check_shape(
    layer: OwnLayer, sizes: Shape, module: "nn.Module", inputs: "tuple[Tensor, ...]", output: object
) -> None:
    """Refuse an output of another shape than the layer's place in the network needs; nothing while it is compiled."""
    import torch

    if torch.compiler.is_compiling() or torch._C._get_tracing_state():  # sizes may be symbols there
        return
    given = tuple(inputs[0].shape)
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    allowed = _shapes_after(layer.slot, sizes, given)
    made = ", ".join(f"{name}={size}" for name, size in zip(SIZES[layer.slot], sizes, strict=True))
    if found not in allowed:
        raise UserError(
            f"layer '{layer.name}' ({layer.slot}): maps {given} to {found}, but must map it to {allowed[0]}. "
            f"It was made as {layer.name}({made})."
        )


def _shapes_after(slot: str, sizes: Shape, given: Shape) -> list[Shape]:
    """Return the shapes that a layer may give, the usual one first."""
    if slot == "pool":
        return [(given[0], sizes[0], 1, 1)]
    if slot == "head":
        return [(given[0], sizes[1])]
    if slot in CONV_SLOTS:
        return [given]
    _, width, stride = sizes
    up = (given[0], width, *(-(-side // stride) for side in given[2:]))
    down = (given[0], width, *(side // stride for side in given[2:]))
    return [down, up] if slot in ("stem", "downsample") else [up]  # what is added is rounded up, as convolutions do


def check_trust(net: WithCode) -> None:
    """Refuse to run the Python files that a network from somebody's file names, unless `TRUST` says that they may be.

    What is imported already under the file's name and has its fingerprint needs no trust: nothing is run.

    Raises:
        UserError: If one may not be run.
    """
    trust = TRUST.get()
    for what, path, fingerprint in net.code:
        known = sys.modules.get(Path(path).stem)
        imported = known is not None and fingerprint_of(known) == fingerprint
        if trust is True or trust == fingerprint or imported:
            continue
        raise UserError(
            f"{what}: comes from the Python file {path} (fingerprint {fingerprint}), which loading would run. If you "
            "trust it, give roadmap.load_model trust_code=True, or the fingerprint if you have it from elsewhere; or "
            "import the file first."
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
        found = code_fingerprint(path)
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
        setattr(module, FINGERPRINT, code_fingerprint(Path(file)) if file else "")
    return str(getattr(module, FINGERPRINT))
