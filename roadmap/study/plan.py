"""The plan: every run that a study needs, checked before anything is started."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from roadmap.common.errors import UserError
from roadmap.data.datasets import describe_data
from roadmap.ladder.designs import Design, Layout, lay_out
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Rung
from roadmap.networks.config import NetConfig
from roadmap.networks.timm_net import Net, scale_net
from roadmap.recipe import Recipe, read_paper, read_recipe
from roadmap.runs.config import DataConfig, RunConfig

ASSUMED = "assumed"  # the name of data that nobody has looked at


@dataclass(frozen=True)
class PlannedRun:
    """A run that a study needs, and the rungs that share it (two rungs may meet in one network and recipe).

    Attributes:
        config: What to run.
        rungs: Ids of the rungs.
        folder: Where it is written.
        deviations: Settings of its recipe that are not the paper's: name -> (the paper's, ours).
    """

    config: RunConfig
    rungs: tuple[str, ...]
    folder: Path
    deviations: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-adds of the network for one image."""
        from roadmap.networks.cost import count_macs

        return count_macs(self.config.net, self.config.recipe.image_size, **self._outside)

    @property
    def depthwise_macs(self) -> int:
        """Those of them in depthwise convolutions."""
        from roadmap.networks.cost import count_depthwise_macs

        return count_depthwise_macs(self.config.net, self.config.recipe.image_size, **self._outside)

    @property
    def params(self) -> int:
        """Parameters of the network."""
        from roadmap.networks.cost import count_params

        return count_params(self.config.net, **self._outside)

    @property
    def activations(self) -> int:
        """Outputs of the network's convolutions and linear layers, for one image."""
        from roadmap.networks.cost import count_activations

        return count_activations(self.config.net, self.config.recipe.image_size, **self._outside)

    @property
    def _outside(self) -> dict[str, int]:
        """What the data decides of the network."""
        return {"in_channels": self.config.data.in_channels, "num_classes": self.config.data.num_classes}

    @property
    def cost(self) -> float:
        """Multiply-adds of the whole run: forward and backward (twice the forward) over the images it sees."""
        return 3.0 * self.macs * self.config.images_seen


@dataclass(frozen=True)
class Study:
    """A design of rungs from a base under a recipe on a data set: as trained, and their runs by rung and seed.

    Attributes:
        ladder: What was climbed, or taken apart for another design.
        base: From where.
        recipe: The study's recipe (the start may train under its plain counterpart).
        rungs: The rungs, their networks at the recipe's scale.
        seeds: One run a rung for each.
        configs: The run of each (rung id, seed).
        runs: The runs folder.
        layout: The whole design: also rungs that are not wanted, networks before scaling.
    """

    ladder: Ladder
    base: str
    recipe: Recipe
    rungs: tuple[Rung, ...]
    seeds: tuple[int, ...]
    configs: dict[tuple[str, int], RunConfig]
    runs: Path
    layout: Layout

    @property
    def design(self) -> str:
        """The design's name, one of `roadmap.ladder.designs.DESIGNS`."""
        return self.layout.design.name

    @property
    def is_whole(self) -> bool:
        """Whether the study climbs the ladder up to its last rung."""
        return self.design == "ladder" and self.ladder.rungs[-1].id in {rung.id for rung in self.rungs}

    def folder(self, config: RunConfig) -> Path:
        """Return the run folder of a configuration."""
        return self.runs / config.id

    def describe(self) -> str:
        """Say in a line what the numbers are; a proxy says so first."""
        recipe = self.recipe
        config = next(iter(self.configs.values()))
        images = max(config.images_seen for config in self.configs.values())
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) != 1 else ''}"
        if config.data.test_on == "validation":
            seeds += ", TESTED ON VALIDATION IMAGES"
        design = "" if self.design == "ladder" else f", {self.layout.design.describe()}"
        if not recipe.is_proxy:
            return f"Recipe '{recipe.name}', {recipe.epochs} epochs, {seeds}{design}"
        scale = f"width / {recipe.width_divisor}, " if recipe.width_divisor != 1 else ""
        return (
            f"PROXY, not ImageNet: {recipe.dataset} ({config.data.train_images:,} training images), {scale}stem stride "
            f"{recipe.stem_stride}, {recipe.image_size}x{recipe.image_size}, {images:,} images seen a run, {seeds}, "
            f"recipe '{recipe.name}'{design}"
        )

    def planned(self) -> list[PlannedRun]:
        """Return each run once, in the design's order, seed by seed."""
        sharing: dict[str, list[str]] = {}
        by_id: dict[str, RunConfig] = {}
        for seed in self.seeds:
            for rung in self.rungs:
                config = self.configs[rung.id, seed]
                by_id[config.id] = config
                sharing.setdefault(config.id, []).append(rung.id)
        return [
            PlannedRun(config, tuple(sharing[run]), self.folder(config), self.deviations(config.recipe))
            for run, config in by_id.items()
        ]

    def deviations(self, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
        """Return what differs from the paper's recipe in one of ours: setting -> (the paper's, ours)."""
        return recipe.differences(read_paper(recipe, self.base))

    def _left_plain(self) -> list[str]:
        """Return the settings in which the end of a ladder of techniques still differs from the study's recipe."""
        if not self.ladder.has_techniques or self.design != "ladder":
            return []
        end = [rung for rung in self.layout.rungs if rung.adopted][-1]
        return list(end.recipe(self.recipe, self.base).differences(self.recipe))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the study beside what it is: a line each."""
        recipe, notes = self.recipe, list(self.layout.notes)
        if self.ladder.match:
            match = self.ladder.match
            notes.append(
                f"FLOPs-matched by {match.by}: after every step the multiply-adds are as near as can be to "
                f"{match.describe()}."
            )
        if left := self._left_plain():
            notes.append(
                f"No technique of the ladder takes {', '.join(left)} from recipe '{recipe.name}': all rungs have "
                "the plain counterpart's. A last step enhanced_recipe would take the rest."
            )
        data = next(iter(self.configs.values())).data
        if data.name == ASSUMED:
            notes.append(
                f"Without --data: counted with {data.train_images:,} training images of {data.num_classes:,} classes. "
                "What is done already is not known."
            )
        if recipe.accumulate > 1:
            notes.append(
                f"Gradients are summed over {recipe.accumulate} pieces of a batch, of "
                f"{recipe.batch_size // recipe.accumulate} images each: BatchNorm averages over a piece, and users who "
                "trained ConvNeXt-T so report 81.4 instead of 82.1."
            )
        return tuple(notes)


def make_study(
    ladder: Ladder,
    base: str,
    recipe_name: str,
    *,
    runs: Path,
    rungs: Sequence[Rung] | None = None,
    layout: Layout | None = None,
    seeds: Sequence[int] | None = None,
    data_root: Path | None = None,
    validate: bool = False,
    assume_data: bool = False,
    weights: str | None = None,
) -> Study:
    """Combine ladder, base, recipe, data and seeds into the runs that they need, checking all that can be checked.

    Args:
        ladder: The ladder.
        base: Where to start.
        recipe_name: A name in recipes/ or a path.
        runs: The runs folder.
        rungs: Those of the design that are wanted; None takes all.
        layout: The design; None takes the ladder with the references that it names.
        seeds: None takes the recipe's.
        data_root: Where the data set lies.
        validate: Whether to test on the recipe's validation images instead of the test set.
        assume_data: Whether image folders that no `data_root` names are taken to be as the recipe says, and need no
            weights either: for a look ahead, not for training.
        weights: Where those lie that the recipe starts from, as for `roadmap.study.initial_weights.find_weights`.

    Raises:
        UserError: If a name, a setting, the data or a combination does not hold.
    """
    recipe = read_recipe(recipe_name, base)
    layout = layout or lay_out(ladder, base, Design())
    seeds = tuple(recipe.seeds if seeds is None else seeds)
    if any(seed < 0 for seed in seeds) or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds are {' '.join(map(str, seeds))}, but must be different whole numbers from 0 up.")
    ahead = assume_data and data_root is None
    scaled = [_scaled(rung, recipe) for rung in (layout.rungs if rungs is None else rungs)]
    configs: dict[tuple[str, int], RunConfig] = {}
    for rung in scaled:
        own = rung.recipe(recipe, base)
        shared = ("dataset", "image_size", "width_divisor", "stem_stride")
        if any(getattr(own, field) != getattr(recipe, field) for field in shared):
            raise UserError(
                f"recipe '{recipe.name}' and its plain counterpart '{own.name}' differ in scale or data, so rungs "
                f"under them cannot be compared. Give both the same {', '.join(shared)}."
            )
        data = data_of(own, data_root, validate, ahead)
        if isinstance(rung.net, NetConfig) and own.image_size < rung.net.total_stride:
            raise UserError(
                f"recipe '{own.name}': image_size is {own.image_size}, but the networks divide the resolution by "
                f"{rung.net.total_stride}. Use larger images, or stem_stride: 2."
            )
        config = RunConfig(rung.net, own, data, seeds[0])
        config.check()
        configs |= {(rung.id, seed): config.with_seed(seed) for seed in seeds}
    if weights is not None or (not ahead and any(config.recipe.pretrained for config in configs.values())):
        configs = _with_weights(recipe, configs, weights)
    return Study(ladder, base, recipe, tuple(scaled), seeds, configs, runs, layout)


def data_of(recipe: Recipe, root: Path | None, validate: bool, ahead: bool) -> DataConfig:
    """Return the images of a recipe; looking ahead, image folders as it says that they are."""
    if ahead and recipe.dataset == "folder" and recipe.images:
        return DataConfig(ASSUMED, "", recipe.classes, 3, recipe.images)
    return describe_data(recipe, root, validate=validate)


def count_as_trained(recipe: Recipe, data: DataConfig) -> Callable[[NetConfig], int]:
    """Return what counts the multiply-adds of a rung's network at the scale, and for the images, of a recipe."""

    def count(net: NetConfig) -> int:
        from roadmap.networks.cost import count_macs

        outside = {"in_channels": data.in_channels, "num_classes": data.num_classes}
        return count_macs(scale(net, recipe), recipe.image_size, **outside)

    return count


def _with_weights(
    recipe: Recipe, configs: dict[tuple[str, int], RunConfig], place: str | None
) -> dict[tuple[str, int], RunConfig]:
    """Return runs that know which weights they start from, having seen that these fit."""
    from roadmap.study.initial_weights import check_weights, find_weights

    if place is None:
        raise UserError(
            f"recipe '{recipe.name}' starts from trained weights. Say which: --weights DIR, FILE or timm:NAME."
        )
    found = {}
    for (rung, seed), config in configs.items():
        if config.recipe.pretrained:
            config = replace(config, weights=find_weights(place, rung, seed))
            check_weights(config)
        found[rung, seed] = config
    if all(config.weights is None for config in found.values()):
        raise UserError(
            f"--weights: recipe '{recipe.name}' starts from random ones (pretrained: false). Leave one of them out."
        )
    return found


def _scaled(rung: Rung, recipe: Recipe) -> Rung:
    """Return a rung at the scale that a recipe trains at; a reference that is not as published says so."""
    try:
        net = scale(rung.net, recipe)
    except UserError as error:
        raise UserError(f"recipe '{recipe.name}', '{rung.id}': {error}") from error
    changed = rung.is_reference and net != rung.net
    return replace(rung, net=net, label=f"{rung.label} (proxy)" if changed else rung.label)


def scale(net: Net, recipe: Recipe) -> Net:
    """Return a network at the scale that a recipe trains at: every rung by the same transform, after the climb."""
    return scale_net(
        net,
        width_divisor=recipe.width_divisor,
        stem_stride=recipe.stem_stride,
        image_size=recipe.image_size,
    )
