"""One run: a network, a recipe, a data set and a seed; and its id, the hash of all that decides its numbers."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from roadmap.common import fields
from roadmap.common.errors import UserError
from roadmap.common.files import read_as
from roadmap.networks.nets import Net
from roadmap.recipe import Recipe
from roadmap.runs.run_folder import RUN, Count

# Raised when the same configuration would now give other numbers (CHANGELOG.md says why each time).
TRAINING_VERSION = 1


@dataclass(frozen=True)
class DataConfig:
    """Which images a run sees.

    Attributes:
        name: The data set.
        fingerprint: Hash of its content, so that other images under the same name make another run.
        num_classes: Classes.
        in_channels: 1 (grey) or 3.
        train_images: Images to train on: the first ones of the training part, without the recipe's validation images.
        test_on: "test", the official test set, or "validation", the images that the recipe keeps out of training: for
            choosing recipes, never for a report; or "nothing", where there is no test set and none is needed.
    """

    name: str
    fingerprint: str
    num_classes: int
    in_channels: int
    train_images: int
    test_on: Literal["test", "validation", "nothing"] = "test"


@dataclass(frozen=True)
class WeightsConfig:
    """Which weights a run starts from (`roadmap.study.initial_weights`).

    Attributes:
        path: The file.
        fingerprint: Hash of its content: the same weights elsewhere make the same run.
    """

    path: str
    fingerprint: str


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of a run."""

    net: Net
    recipe: Recipe
    data: DataConfig
    seed: int
    weights: WeightsConfig | None = None

    @cached_property
    def key(self) -> str:
        """The hash of everything but seed and first weights: the runs of one network under one recipe share it."""
        content = {
            "version": TRAINING_VERSION,
            "net": fields.hashed_fields(self.net),
            "recipe": self.recipe.training(),
            "data": dataclasses.asdict(self.data),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def id(self) -> str:
        """The run's name and that of its folder: `<hash>-s<seed>`, and which weights it starts from, if any."""
        return f"{self.key}-s{self.seed}" + (f"-w{self.weights.fingerprint[:8]}" if self.weights else "")

    def with_seed(self, seed: int) -> "RunConfig":
        """Return the same run with another seed; the hash, which they share, is not made again."""
        other = replace(self, seed=seed)
        other.__dict__["key"] = self.key
        return other

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; the last incomplete batch is dropped."""
        return self.data.train_images // self.recipe.batch_size

    @property
    def images_seen(self) -> int:
        """Training images that the run uses, repeats counted."""
        return self.steps_per_epoch * self.recipe.batch_size * self.recipe.epochs

    def check(self) -> None:
        """Refuse what would fail only after the start.

        Raises:
            UserError: If the network cannot take the images, the training part is smaller than one batch, or BatchNorm
                has one value to average.
        """
        outside = {"num_classes": self.data.num_classes, "in_channels": self.data.in_channels}
        try:
            self.net.check_fits(self.recipe.image_size, **outside)
        except UserError as error:
            raise UserError(f"recipe '{self.recipe.name}': {error}") from error
        if not self.steps_per_epoch:
            raise UserError(
                f"recipe '{self.recipe.name}': batch_size is {self.recipe.batch_size}, but '{self.data.name}' has only "
                f"{self.data.train_images} training images. Use a smaller batch."
            )
        self._check_pieces(1)

    def _check_pieces(self, processes: int) -> None:
        """Refuse pieces of a batch in which BatchNorm has a single value of each channel, by a step without memory."""
        recipe = self.recipe
        if (recipe.ghost_batch or recipe.batch_size // (processes * recipe.accumulate)) > 1:
            return
        from torch import zeros

        from roadmap.networks.cost import build_without_weights

        outside = {"num_classes": self.data.num_classes, "in_channels": self.data.in_channels}
        model = build_without_weights(self.net, **outside)
        device = next(model.parameters()).device
        images = zeros(1, self.data.in_channels, recipe.image_size, recipe.image_size, device=device)
        try:
            model.train()(images)
        except ValueError as error:  # torch's, and there is no other
            parts = f"{processes} processes x {recipe.accumulate} pieces" if processes > 1 else f"{recipe.accumulate}"
            piece, way = f"batch_size {recipe.batch_size} / {parts}", "a larger batch_size, or a smaller accumulate"
            if recipe.ghost_batch:
                piece, way = f"ghost_batch {recipe.ghost_batch}", "a larger one"
            raise UserError(
                f"recipe '{recipe.name}': {piece} leaves BatchNorm one image at a time, and one value of each channel "
                f"to average ({error}). Use {way}."
            ) from error

    def check_shared(self, processes: int) -> None:
        """Refuse a batch that the processes of a run cannot share out.

        Raises:
            UserError: If the batch size is no multiple of twice their number, ghost batches would not stay whole, or
                BatchNorm has one value to average.
        """
        if ghost := self.recipe.ghost_batch:
            ghosts = self.recipe.batch_size // ghost
            if ghosts % processes:
                raise UserError(
                    f"recipe '{self.recipe.name}': a batch is made of {ghosts} ghost batches of {ghost} images, which "
                    f"{processes} processes (nodes x tasks_per_node) cannot share out whole. Use a number of processes "
                    f"that divides {ghosts}."
                )
            return
        if processes > 1 and self.recipe.batch_size % (2 * processes):
            raise UserError(
                f"recipe '{self.recipe.name}': batch_size is {self.recipe.batch_size}, but {processes} processes "
                f"(nodes x tasks_per_node) share it out in pairs. Use a multiple of {2 * processes}."
            )
        self._check_pieces(processes)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON-able values."""
        return {"training_version": TRAINING_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RunConfig":
        """Return the configuration that `to_json` wrote.

        Raises:
            UserError: If it was written by another version of the training code.
        """
        if content.get("training_version") != TRAINING_VERSION:
            raise UserError(
                f"run.json: training_version is {content.get('training_version')}, but this program trains version "
                f"{TRAINING_VERSION}. Start the run again."
            )
        fields = {name: content[name] for name in ("net", "recipe", "data", "seed")}
        fields["weights"] = content.get("weights")  # not there in what earlier versions wrote
        return TypeAdapter(cls).validate_python(fields)


@with_config(ConfigDict(extra="allow"))
class RunFile(TypedDict):
    """What a run.json holds: the configuration, as `RunConfig.to_json` writes it, and where and when it was planned."""

    config: dict[str, Any]
    rungs: NotRequired[list[str]]
    macs: NotRequired[Count]
    params: NotRequired[Count]
    commit: NotRequired[str | None]
    versions: NotRequired[dict[str, str | None]]


_RUN_FILE = TypeAdapter(RunFile)


def read_run_file(folder: Path) -> RunFile | None:
    """Return what a run folder's run.json holds; None where it is missing or damaged."""
    return read_as(folder / RUN, _RUN_FILE)


def read_config(folder: Path) -> RunConfig:
    """Return the configuration of a run, and see that it is that of the run whose folder it is.

    Raises:
        UserError: If run.json is missing or damaged, of another version, or holds another run's configuration.
    """
    path, content = folder / RUN, read_run_file(folder)
    if content is None:
        raise UserError(f"{path}: is missing or damaged. Start the same command again, which writes it anew.")
    try:
        config = RunConfig.from_json(content["config"])
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: holds no run's configuration ({reason}). Start the same command again.") from error
    if config.id != folder.name:
        raise UserError(
            f"{path}: holds the configuration of run {config.id}, not of this one: it was edited or copied. Start the "
            "same command again, which writes it anew."
        )
    return config
