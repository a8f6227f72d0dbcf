"""What a rung's network can be: one of ours, one of timm's, one of a user's function, or one changed by functions.

All four answer the same questions, so that nothing else asks which of them a network is:

- `scaled`: the network as a recipe trains it; a proxy is smaller;
- `build`: the module, with its first weights;
- `set_args`, `then`: the network that a step makes of it;
- `import_code`, `check_trust`: the Python files that it is made from;
- `title`, `describe`: what it is called, and what it is made of.

Nothing here imports torch or timm when it is imported: `roadmap.networks.library_models` builds what is named here.
"""

import json
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from roadmap.common.fields import PLACE, hashed_fields
from roadmap.common.fingerprints import remember
from roadmap.networks.config import FULL, STRICT, Init, NetConfig
from roadmap.networks.own_layers import check_file, load_module
from roadmap.networks.proxies import Args, ArgsProxy, Proxy, SwinProxy, in_words, is_full, merge

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm:"


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

    def then(self, step: "ModelStep") -> "ModifiedNet":
        """Return the network whose module a function changes."""
        return ModifiedNet(self, (step,))  # type: ignore[arg-type]

    @property
    def has_stochastic_depth(self) -> bool:
        """Whether a recipe's stochastic depth means anything to it."""
        return self.accepts("drop_path_rate")

    def scale_words(self, width_divisor: int, stem_stride: int) -> str:
        """Say in words what a proxy of it is; "" where it has no other than the published size."""
        if is_full(width_divisor, stem_stride) or isinstance(self.proxy, SwinProxy):
            return ""
        small = ", ".join(f"{name} {in_words(value)}" for name, value in self.proxy.args)
        return f"a proxy with {small}" if small else "of its own size: a width divisor means nothing to it"

    def accepts(self, name: str) -> bool:
        """Say whether the function, or the class behind it, has a parameter of this name."""
        from roadmap.networks.library_models import parameters_of

        return name in parameters_of(self)  # type: ignore[arg-type]

    def check_fits(self, image_size: int, *, in_channels: int, num_classes: int) -> None:
        """Build the network and have it look at an image; what fitted once is remembered.

        Raises:
            UserError: If it cannot be built, or not look at the image.
        """
        _check_fits(self, image_size, in_channels, num_classes)  # type: ignore[arg-type]

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

    def build(self, *, num_classes: int, in_channels: int, drop_path: float, init: Init) -> "nn.Module":
        """Build it, with weights as timm draws them."""
        from roadmap.networks.library_models import from_timm

        return from_timm(self, num_classes, in_channels, drop_path)

    def import_code(self) -> None:
        """Nothing: no file of a user's has a part in it."""

    def check_trust(self) -> None:
        """Nothing: no file of a user's has a part in it."""


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

    def build(self, *, num_classes: int, in_channels: int, drop_path: float, init: Init) -> "nn.Module":
        """Build it, with weights as its function draws them."""
        from roadmap.networks.library_models import from_factory

        return from_factory(self, num_classes, in_channels, drop_path)

    def import_code(self) -> None:
        """Import the file: before a run sets its seed, since it may draw random numbers.

        Raises:
            UserError: If it is not there, or is another one now.
        """
        load_module(Path(self.path), self.fingerprint)

    def check_trust(self) -> None:
        """Refuse to run the file where the network comes from somebody's file, unless it is trusted.

        Raises:
            UserError: If it may not be run.
        """
        check_file(f"network '{self.function}'", self.path, self.fingerprint)


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

    def set_args(self, args: Args, proxy: Args = ()) -> Self:
        """Return the network with these arguments, under the same functions."""
        return replace(self, source=self.source.set_args(args, proxy))

    def then(self, step: ModelStep) -> Self:
        """Return the network whose module one more function changes."""
        return replace(self, steps=(*self.steps, step))

    def build(self, *, num_classes: int, in_channels: int, drop_path: float, init: Init) -> "nn.Module":
        """Build the network and call the functions on it."""
        from roadmap.networks.library_models import take_model_step

        model: nn.Module = self.source.build(
            num_classes=num_classes, in_channels=in_channels, drop_path=drop_path, init=init
        )
        for step in self.steps:
            model = take_model_step(step, model)
        return model

    def import_code(self) -> None:
        """Import the files of the functions, and those of the network.

        Raises:
            UserError: If one is not there, or is another one now.
        """
        self.source.import_code()
        for step in self.steps:
            load_module(Path(step.path), step.fingerprint)

    def check_trust(self) -> None:
        """Refuse to run those files where the network comes from somebody's file, unless they are trusted.

        Raises:
            UserError: If one may not be run.
        """
        self.source.check_trust()
        for step in self.steps:
            check_file(f"step '{step.name}'", step.path, step.fingerprint)

    def check_fits(self, image_size: int, *, in_channels: int, num_classes: int) -> None:
        """Build the network and have it look at an image; what fitted once is remembered.

        Raises:
            UserError: If it cannot be built, or not look at the image.
        """
        _check_fits(self, image_size, in_channels, num_classes)

    @property
    def has_stochastic_depth(self) -> bool:
        """Whether a recipe's stochastic depth means anything to it."""
        return self.source.has_stochastic_depth

    def scale_words(self, width_divisor: int, stem_stride: int) -> str:
        """Say in words what a proxy of it is."""
        return self.source.scale_words(width_divisor, stem_stride)

    def describe(self) -> dict[str, Any]:
        """Return what it is made of, each under a name."""
        taken = {f"step {step.name}": " ".join(f"{k}={v}" for k, v in step.args) or "taken" for step in self.steps}
        return self.source.describe() | taken


Net = NetConfig | TimmNet | FactoryNet | ModifiedNet


def _check_fits(net: "TimmNet | FactoryNet | ModifiedNet", image_size: int, in_channels: int, num_classes: int) -> None:
    def count() -> str:
        from roadmap.networks.cost import count_macs

        return str(count_macs(net, image_size, in_channels=in_channels, num_classes=num_classes))

    content = json.dumps(hashed_fields(net), sort_keys=True)
    libraries = " ".join(f"{name} {version(name)}" for name in ("timm", "torch"))
    remember(f"{content} on {in_channels}x{image_size}x{image_size} to {num_classes}, {libraries}", count)


def as_published(net: Net) -> Net:
    """Return a network at the scale of the paper: full size, images of 224x224."""
    return net.scaled(**FULL)
