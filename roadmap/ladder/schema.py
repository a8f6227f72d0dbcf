"""The parts of a ladder's file, as they are written: bases, rungs, published numbers, what is matched."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationInfo,
    model_validator,
)

from roadmap.common.errors import UserError
from roadmap.common.yaml_files import FOLDER
from roadmap.ladder.library_steps import MODEL, SET_ARGS
from roadmap.networks.config import NetConfig
from roadmap.networks.nets import Net

MATCHED = 0.02  # multiply-adds that miss what they are matched to by a larger share are not called matched


class Part(BaseModel):
    """A part of steps.yaml: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _beside(file: str, info: ValidationInfo) -> str:
    """Return the path of a Python file (`FILE.py`, `FILE.py:FUNCTION`), which lies beside the file that names it."""
    return str((info.context or {}).get(FOLDER, Path()) / file) if file.partition(":")[0].endswith(".py") else file


Beside = Annotated[str, AfterValidator(_beside)]


class Erratum(Part):
    """The true value of a misprint, and why."""

    gmacs: StrictFloat
    note: str


class Published(Part):
    """What the paper reports for a rung: top-1 in percent, its standard deviation over seeds, 1e9 multiply-adds."""

    top1: StrictFloat | None = None
    top1_std: StrictFloat | None = None
    gmacs: StrictFloat | None = None
    erratum: Erratum | None = None

    @property
    def true_gmacs(self) -> float | None:
        """The count to hold ours against: what is printed, or what the erratum says it should be."""
        return self.erratum.gmacs if self.erratum else self.gmacs


class Reference(Part):
    """The network that a ladder is measured against, as published."""

    label: str
    top1: StrictFloat
    gmacs: StrictFloat


class Base(Part):
    """Where a ladder starts: its name in a figure, the name of its last rung, where its numbers are published.

    `model` is "timm:NAME" or "FILE.py:FUNCTION", with its `args`, and those that a `proxy` has in their place; without
    it, the base is the one of ours that has its name.
    """

    label: str
    result: str
    model: Beside | None = None
    args: dict[str, Any] = {}
    proxy: dict[str, Any] = {}
    source: str = ""
    seeds: StrictInt = Field(default=1, ge=1)
    reference: Reference | None = None


class Match(Part):
    """What a rung's multiply-adds are to come nearest to once its step is taken, and by what: FLOPs matching.

    The step decides everything but the sizes; then all widths, or all depths, are scaled together.
    """

    to: Literal["previous", "base"] | Annotated[StrictFloat, Field(gt=0)] = (
        "base"  # a number: 1e9 multiply-adds at 224x224
    )
    by: Literal["width", "depth"] = "width"
    multiple: StrictInt = Field(default=1, ge=1)

    def describe(self) -> str:
        """Say in words what is brought near to."""
        words = {"base": "the base's", "previous": "those of the rung before"}
        return words.get(str(self.to), f"{self.to:g} G" if isinstance(self.to, float) else "")

    def fit(self, net: Net, base: Net, previous: Net, count: Callable[[Net], int] | None) -> tuple[NetConfig, float]:
        """Return the network that comes nearest, and by how much its multiply-adds miss, as a share of what was asked.

        Args:
            net: What the step made.
            base: Where the ladder starts.
            previous: What the step was applied to.
            count: Counts multiply-adds as trained, where a ladder is trained at another scale than the paper's.

        Raises:
            UserError: If the network is not ours: another has no widths and depths that could be scaled together.
        """
        from roadmap.networks.cost import count_macs, fit_depth, fit_width

        if not isinstance(net, NetConfig):
            raise UserError(f"match: {net.title} has no {self.by} that can be fitted. Match our networks alone.")
        if isinstance(self.to, float):
            count, target = count_macs, 1e9 * self.to
        else:
            count = count or count_macs
            target = count(base if self.to == "base" else previous)
        fitted = (fit_width if self.by == "width" else fit_depth)(net, target, multiple=self.multiple, count=count)
        return fitted, count(fitted) / target - 1


class RungEntry(Part):
    """A rung as steps.yaml lists it.

    What makes it is a `step` with its `args`; or `set_args`, other arguments of the function that makes the network; or
    another `model` with its `args`. `proxy` has what those are in a proxy. All may be given for each base, by its name.
    """

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    label: str
    section: str | None = None
    step: str | None = None
    set_args: dict[str, Any] | None = None
    model: Beside | dict[str, Beside] | None = None
    args: dict[str, Any] = {}
    proxy: dict[str, Any] = {}
    match: Match | None = None
    parent: str | None = Field(default=None, alias="from")
    adopted: StrictBool = True
    recipe: Literal["plain", "full"] = "full"
    published: dict[str, Published] = {}

    @model_validator(mode="after")
    def _name_step(self) -> Self:
        """Give `set_args` and `model` the steps of these names.

        Raises:
            UserError: If more than one thing makes the rung.
        """
        given = [name for name in ("step", SET_ARGS, MODEL) if getattr(self, name) is not None]
        if self.step in (SET_ARGS, MODEL):
            raise UserError(f"rung '{self.id}': '{self.step}' is a key of its own. Write {self.step}: ..., no 'step'.")
        if len(given) > 1:
            raise UserError(f"rung '{self.id}': has {' and '.join(given)}, but one of them makes it. Make two rungs.")
        if self.proxy and given not in ([SET_ARGS], [MODEL]):
            raise UserError(f"rung '{self.id}': has a proxy, which belongs to set_args or model. Take it out.")
        if self.args and given == [SET_ARGS]:
            raise UserError(f"rung '{self.id}': has args beside set_args. Put them there.")
        if given and given != ["step"]:
            object.__setattr__(self, "step", given[0])  # while it is being made
        return self

    def parts(self) -> dict[str, Any]:
        """Return what its step takes, as the file has it: each part may be there for each base."""
        if self.step == SET_ARGS:
            return {"args": self.set_args or {}, "proxy": self.proxy}
        return {"model": self.model, "args": self.args, "proxy": self.proxy} if self.step == MODEL else {"": self.args}
