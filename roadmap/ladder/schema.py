"""The parts of a ladder's file, as they are written: bases, rungs, published numbers, what is matched."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from roadmap.networks.config import NetConfig

MATCHED = 0.02  # multiply-adds that miss what they are matched to by a larger share are not called matched


class Part(BaseModel):
    """A part of steps.yaml: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    """Where a ladder starts: its name in a figure, the name of its last rung, where its numbers are published."""

    label: str
    result: str
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

    def fit(
        self, net: NetConfig, base: NetConfig, previous: NetConfig, count: Callable[[NetConfig], int] | None
    ) -> tuple[NetConfig, float]:
        """Return the network that comes nearest, and by how much its multiply-adds miss, as a share of what was asked.

        Args:
            net: What the step made.
            base: Where the ladder starts.
            previous: What the step was applied to.
            count: Counts multiply-adds as trained, where a ladder is trained at another scale than the paper's.
        """
        from roadmap.networks.cost import count_macs, fit_depth, fit_width

        if isinstance(self.to, float):
            count, target = count_macs, 1e9 * self.to
        else:
            count = count or count_macs
            target = count(base if self.to == "base" else previous)
        fitted = (fit_width if self.by == "width" else fit_depth)(net, target, multiple=self.multiple, count=count)
        return fitted, count(fitted) / target - 1


class RungEntry(Part):
    """A rung as steps.yaml lists it."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    label: str
    section: str | None = None
    step: str | None = None
    args: dict[str, Any] = {}
    match: Match | None = None
    parent: str | None = Field(default=None, alias="from")
    adopted: StrictBool = True
    recipe: Literal["plain", "full"] = "full"
    published: dict[str, Published] = {}
