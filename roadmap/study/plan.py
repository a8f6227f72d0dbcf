"""A planned study: its rungs, its seeds and every run that they need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.ladder.designs import Layout
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Rung
from roadmap.recipe import Recipe, read_paper
from roadmap.runs import run_folder
from roadmap.runs.config import RunConfig, read_config

ASSUMED = "assumed"  # the name of data that nobody has looked at

PROXY = "PROXY, not ImageNet"  # what the description of a proxy begins with


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

    def write(self, where: Mapping[str, Any]) -> None:
        """Write the run's run.json, unless it is there.

        Args:
            where: Where and with what it was planned, as `roadmap.common.provenance.provenance` says.

        Raises:
            UserError: If the folder cannot be written.
        """
        path = self.folder / run_folder.RUN
        if not self._is_written():
            about: dict[str, Any] = {
                "rungs": self.rungs,
                "macs": self.macs,
                "params": self.params,
                "config": self.config.to_json(),
            }
            paper = {"paper_recipe": self.config.recipe.paper, "deviations": self.deviations}
            files.write_json(path, about | paper | dict(where))

    def _is_written(self) -> bool:
        """Whether the run's folder holds its configuration already."""
        try:
            read_config(self.folder)
        except UserError:
            return False
        return True

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
        data_notes: What the data holds that is not used.
        looks: Where seeds came in rounds (`roadmap.study.rounds`): for each time that the answers were looked at, how
            many of each rung's first seeds were there. A rung has no more of `seeds` than it has `configs`.
        sought: Where seeds came in rounds: the steps that they were to answer.
    """

    ladder: Ladder
    base: str
    recipe: Recipe
    rungs: tuple[Rung, ...]
    seeds: tuple[int, ...]
    configs: dict[tuple[str, int], RunConfig]
    runs: Path
    layout: Layout
    data_notes: tuple[str, ...] = ()
    looks: tuple[Mapping[str, int], ...] = ()
    sought: frozenset[str] = frozenset()

    def seeds_of(self, rung: str) -> tuple[int, ...]:
        """Return the seeds of a rung: all of the study's, or as many as its rounds gave it."""
        return tuple(seed for seed in self.seeds if (rung, seed) in self.configs)

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
        fewest = min(len(self.seeds_of(rung.id)) for rung in self.rungs)
        seeds = f"{fewest} to {len(self.seeds)} seeds" if fewest < len(self.seeds) else f"{fewest} seed"
        seeds += "s" if fewest == len(self.seeds) != 1 else ""
        if config.data.test_on == "validation":
            seeds += ", TESTED ON VALIDATION IMAGES"
        elif config.data.test_on == "nothing":
            seeds += ", NOT TESTED: there is no val/"
        design = "" if self.design == "ladder" else f", {self.layout.design.describe()}"
        if not recipe.is_proxy:
            return f"Recipe '{recipe.name}', {recipe.epochs} epochs, {seeds}{design}"
        width = f"width / {recipe.width_divisor}, " if recipe.width_divisor != 1 else ""
        # Where no network has a width or a stem that the recipe scales, a note says what became of them instead.
        scale = (
            "" if all(self._scale_words(rung) for rung in self.rungs) else f"{width}stem stride {recipe.stem_stride}, "
        )
        return (
            f"{PROXY}: {recipe.dataset} ({config.data.train_images:,} training images), {scale}"
            f"{recipe.image_size}x{recipe.image_size}, {images:,} images seen a run, {seeds}, "
            f"recipe '{recipe.name}'{design}"
        )

    def _scale_words(self, rung: Rung) -> str:
        """Say what a proxy of a rung's network is, where the recipe's width and stem stride do not say it."""
        nets = {other.id: other.net for other in self.layout.rungs}
        return nets[rung.id].scale_words(self.recipe.width_divisor, self.recipe.stem_stride)

    def _network_notes(self) -> list[str]:
        """Return what the recipe's scale and stochastic depth mean to networks that are not ours: a line each."""
        words: dict[str, list[str]] = {}
        deaf = []
        for rung in self.rungs:
            if said := self._scale_words(rung):
                words.setdefault(said, []).append(rung.id)
            if self.configs[rung.id, self.seeds[0]].recipe.drop_path and not rung.net.has_stochastic_depth:
                deaf.append(rung.id)
        notes = [f"{', '.join(ids)}: {said}." for said, ids in words.items()]
        return notes + (
            [f"drop_path means nothing to {', '.join(deaf)}, which take no drop_path_rate."] if deaf else []
        )

    def planned(self) -> list[PlannedRun]:
        """Return each run once, in the design's order, seed by seed."""
        sharing: dict[str, list[str]] = {}
        by_id: dict[str, RunConfig] = {}
        for seed in self.seeds:
            for rung in self.rungs:
                config = self.configs.get((rung.id, seed))
                if config is None:
                    continue
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
        recipe, notes = self.recipe, [*self.layout.notes, *self.data_notes, *self._network_notes()]
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
                "What was trained with --data is not shown."
            )
        if recipe.accumulate > 1:
            notes.append(
                f"Gradients are summed over {recipe.accumulate} pieces of a batch, of "
                f"{recipe.batch_size // recipe.accumulate} images each: BatchNorm averages over a piece, and users who "
                "trained ConvNeXt-T so report 81.4 instead of 82.1."
            )
        return tuple(notes)
