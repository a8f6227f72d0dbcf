"""What a rung's network can be: one of ours, one of timm's, one of a user's function, or one changed by functions.

All four answer the same questions, so that little else asks which of them a network is:

- `scaled`, `tiny`: the network as a recipe trains it, or as it is tried in a second; a proxy is smaller;
- `set_args`: the network with other arguments;
- `code`: the Python files of users that it is made from;
- `title`, `describe`, `scale_words`: what it is called, what it is made of, and what its proxy is.

`roadmap.networks.model.build_model` builds each of them. Nothing here imports torch or timm when it is imported.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from roadmap.common.fields import PLACE
from roadmap.networks.config import FULL, STRICT, NetConfig
from roadmap.networks.proxies import Args, ArgsProxy, Proxy, is_full, merge

TIMM = "timm:"
Code = tuple[tuple[str, str, str], ...]  # what a network has from users' files: its name, the file, the file's hash


class _Called:
    """What networks that a function makes have in common: arguments, by a name each."""

    args: Args
    proxy: Proxy

    def set_args(self, args: Args, proxy: Args = ()) -> Self:
        """Return the network with these arguments in place of those of the same names, here and in a proxy."""
        small = self.proxy
        if proxy:
            small = ArgsProxy(merge(small.args if isinstance(small, ArgsProxy) else (), proxy))
        return replace(self, args=merge(self.args, args), proxy=small)  # type: ignore[type-var]

    def scaled(self, *, width_divisor: int, stem_stride: int, image_size: int) -> Self:
        """Return the network as a recipe trains it: the arguments of a proxy taken over, the size of the images said.

        Raises:
            UserError: If the images do not fit.
        """
        sizes = self.proxy.sizes(self, width_divisor, stem_stride, image_size)  # type: ignore[arg-type]
        return replace(self, args=merge(self.args, tuple(sizes.items())), proxy=ArgsProxy())  # type: ignore[type-var]

    def tiny(self, image_size: int) -> Self:
        """Return the smallest version that is known of it: its proxy."""
        return self.scaled(width_divisor=16, stem_stride=2, image_size=image_size)

    @property
    def has_stochastic_depth(self) -> bool:
        """Whether a recipe's stochastic depth means anything to it."""
        return self.accepts("drop_path_rate")

    def scale_words(self, width_divisor: int, stem_stride: int) -> str:
        """Say in words what a proxy of it is; "" where there is none, or where a recipe's scale says it."""
        return "" if is_full(width_divisor, stem_stride) else self.proxy.describe()

    def accepts(self, name: str) -> bool:
        """Say whether the function, or the class behind it, has a parameter of this name."""
        return name in self._parameters()

    def _parameters(self) -> frozenset[str]:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return what it is made of, each under a name: the function and its arguments."""
        return {"model": self.title, **dict(self.args)}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class TimmNet(_Called):
    """A network of timm's.

    Attributes:
        timm: The name of its architecture, such as "swin_tiny_patch4_window7_224".
        args: Arguments of it that are not timm's own values, by their names there, sorted.
        proxy: What becomes of it where a recipe trains a smaller one; after that, nothing.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    timm: str
    args: Args = ()
    proxy: Proxy = field(default=ArgsProxy(), metadata=PLACE)

    @property
    def title(self) -> str:
        """Its name in tables and errors."""
        return f"{TIMM}{self.timm}"

    def _parameters(self) -> frozenset[str]:
        from roadmap.networks.library_models import parameters_in_timm

        return parameters_in_timm(self.timm)

    @property
    def code(self) -> Code:
        """Nothing: no file of a user's has a part in it."""
        return ()


@dataclass(frozen=True)
class FactoryNet(_Called):
    """A network that a function of a user's makes.

    Attributes:
        path: The Python file.
        function: Its function; called with `num_classes`, `in_chans` and the arguments, as timm calls its own, and with
            `drop_path_rate` and `img_size` where it has them.
        fingerprint: Hash of the file: other code makes another run, the same code elsewhere does not.
        args: Arguments, by name, sorted.
        proxy: What becomes of it where a recipe trains a smaller one; after that, nothing.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    path: str = field(metadata=PLACE)
    function: str
    fingerprint: str
    args: Args = ()
    proxy: Proxy = field(default=ArgsProxy(), metadata=PLACE)

    @property
    def title(self) -> str:
        """Its name in tables and errors."""
        return f"{Path(self.path).name}:{self.function}"

    def _parameters(self) -> frozenset[str]:
        from roadmap.networks.library_models import parameters_in_file

        return parameters_in_file(self.path, self.function, self.fingerprint)

    @property
    def code(self) -> Code:
        """The file of its function."""
        return ((f"network '{self.function}'", self.path, self.fingerprint),)


@dataclass(frozen=True)
class ModelStep:
    """A function of a user's from a module to the next one, as a network records it.

    Attributes:
        name: The function.
        path: Its Python file.
        fingerprint: Hash of the file.
        args: Its arguments beside the module, by name, sorted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    name: str
    path: str = field(metadata=PLACE)
    fingerprint: str
    args: Args = ()


@dataclass(frozen=True)
class ModifiedNet:
    """A network whose module functions of a user's change after it is built.

    Attributes:
        source: The network.
        steps: The functions, in the order in which they are called.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    source: NetConfig | TimmNet | FactoryNet
    steps: tuple[ModelStep, ...]

    @property
    def title(self) -> str:
        """Its name in tables and errors."""
        return f"{self.source.title} with {', '.join(step.name for step in self.steps)}"

    def scaled(self, *, width_divisor: int, stem_stride: int, image_size: int) -> Self:
        """Return the network as a recipe trains it; the functions see the smaller module."""
        scale = {"width_divisor": width_divisor, "stem_stride": stem_stride, "image_size": image_size}
        return replace(self, source=self.source.scaled(**scale))

    def tiny(self, image_size: int) -> Self:
        """Return the smallest version that is known of it."""
        return replace(self, source=self.source.tiny(image_size))

    def set_args(self, args: Args, proxy: Args = ()) -> Self:
        """Return the network with these arguments, under the same functions."""
        return replace(self, source=self.source.set_args(args, proxy))

    @property
    def has_stochastic_depth(self) -> bool:
        """Whether a recipe's stochastic depth means anything to it."""
        return self.source.has_stochastic_depth

    @property
    def code(self) -> Code:
        """The files of the functions, and those of the network."""
        return (*self.source.code, *((f"step '{step.name}'", step.path, step.fingerprint) for step in self.steps))

    def scale_words(self, width_divisor: int, stem_stride: int) -> str:
        """Say in words what a proxy of it is."""
        return self.source.scale_words(width_divisor, stem_stride)

    def describe(self) -> dict[str, Any]:
        """Return what it is made of, each under a name."""
        taken = {f"step {step.name}": " ".join(f"{k}={v}" for k, v in step.args) or "taken" for step in self.steps}
        return self.source.describe() | taken


Net = NetConfig | TimmNet | FactoryNet | ModifiedNet


def change(net: Net, step: ModelStep) -> ModifiedNet:
    """Return the network whose module a function, or one more, changes."""
    if isinstance(net, ModifiedNet):
        return replace(net, steps=(*net.steps, step))
    return ModifiedNet(net, (step,))


def as_published(net: Net) -> Net:
    """Return a network at the scale of the paper: full size, images of 224x224."""
    return net.scaled(**FULL)
