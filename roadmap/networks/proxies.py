"""Arguments of functions that make networks, and what becomes of them where a recipe trains a smaller network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from roadmap.common.errors import UserError
from roadmap.networks.config import FULL, STRICT, narrow

Scalar = bool | int | float | str | None
Value = Scalar | tuple[Scalar | tuple[Scalar, ...], ...]
Args = tuple[tuple[str, Value], ...]  # of a function, by name, sorted: a frozen dict
Sizes = dict[str, Value]


class Called(Protocol):
    """A network that a function makes."""

    @property
    def title(self) -> str:
        """Its name in tables and errors."""

    def accepts(self, name: str) -> bool:
        """Say whether its function has a parameter of this name."""


def freeze(args: Mapping[str, Any], place: str) -> Args:
    """Return arguments of a file as a network holds them.

    Raises:
        UserError: If one is no number, word, list of those or null.
    """

    def frozen(name: str, value: Any, depth: int = 0) -> Any:
        if isinstance(value, list | tuple) and depth < 2:
            return tuple(frozen(name, part, depth + 1) for part in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise UserError(
            f"{place}: argument '{name}' is {value!r}, but must be a number, a word, true, false, null or a list of "
            "those. Have a function in a Python file of yours (FILE.py:FUNCTION) take what you have, and make the rest."
        )

    return tuple((name, frozen(name, args[name])) for name in sorted(args))


@dataclass(frozen=True)
class ArgsProxy:
    """How a network becomes a proxy: by arguments, whatever the recipe divides widths by.

    The size of the images is also an argument, of every network whose function takes `img_size`.

    Attributes:
        args: The arguments that a proxy has in place of those of the published network.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    args: Args = ()

    def sizes(self, net: Called, width_divisor: int, stem_stride: int, image_size: int) -> Sizes:
        """Return the arguments that a network gets at a recipe's scale."""
        small = {} if is_full(width_divisor, stem_stride) else dict(self.args)
        return small | ({"img_size": image_size} if net.accepts("img_size") else {})


@dataclass(frozen=True)
class SwinProxy:
    """How a Swin Transformer becomes a proxy.

    Heads become narrower and stay as many, the patch is as large as the stem's stride, and the window is the largest
    that divides the first stage's map and is no larger than the published one, in proportion to images that are larger
    than the published ones.

    Attributes:
        heads: Those of the first stage, each 32 channels wide.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    heads: int
    HEAD_WIDTH: ClassVar[int] = 32
    PATCH: ClassVar[int] = 4
    WINDOW: ClassVar[int] = 7
    STRIDE: ClassVar[int] = 8  # of the stages, behind the patches

    def sizes(self, net: Called, width_divisor: int, stem_stride: int, image_size: int) -> Sizes:
        """Return the arguments that a network gets at a recipe's scale, where they are not the published ones.

        Raises:
            UserError: If the images cannot be cut into the patches.
        """
        stride = stem_stride * self.STRIDE
        if image_size % stride:
            near = max(stride, round(image_size / stride) * stride)
            raise UserError(
                f"image_size is {image_size}, but {net.title} with patches of {stem_stride} pixels takes "
                f"multiples of {stride}. Use {near}, or leave the reference out."
            )
        side, published = image_size // stem_stride, FULL["image_size"]
        most = max(self.WINDOW, self.WINDOW * image_size // published)
        sizes = {
            "embed_dim": self.heads * narrow(self.HEAD_WIDTH, width_divisor),
            "img_size": image_size,
            "patch_size": stem_stride,
            "window_size": max(window for window in range(1, most + 1) if side % window == 0),
        }
        usual = {
            "embed_dim": self.heads * self.HEAD_WIDTH,
            "img_size": published,
            "patch_size": self.PATCH,
            "window_size": self.WINDOW,
        }
        return {name: size for name, size in sizes.items() if size != usual[name]}


Proxy = ArgsProxy | SwinProxy


def is_full(width_divisor: int, stem_stride: int) -> bool:
    """Say whether networks are trained at their published size, whatever the images."""
    return (width_divisor, stem_stride) == (FULL["width_divisor"], FULL["stem_stride"])


def merge(args: Args, others: Args) -> Args:
    """Return arguments with others in place of those of the same names."""
    return tuple(sorted((dict(args) | dict(others)).items()))


def in_words(value: Value) -> str:
    """Return an argument as a line of text has it."""
    return "[" + ", ".join(map(in_words, value)) + "]" if isinstance(value, tuple) else str(value)
