"""The specification of a study, and the plan made of it: every run, checked before anything is started."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from roadmap.common.errors import UserError
from roadmap.common.files import check_name
from roadmap.data.datasets import describe_data, notes_on_data
from roadmap.ladder.designs import Design, lay_out
from roadmap.ladder.ladder import Ladder, find_ladder
from roadmap.ladder.rung import Rung, select
from roadmap.ladder.schema import Match
from roadmap.networks.nets import Net, as_published
from roadmap.recipe import MOST_SEED, Recipe, read_recipe
from roadmap.runs.config import DataConfig, RunConfig, WeightsConfig
from roadmap.study.plan import ASSUMED, Study

# What a rung's recipe shares with the study's, so that their results can be compared.
SHARED = ("dataset", "image_size", "width_divisor", "stem_stride")
Configs = dict[tuple[str, int], RunConfig]  # of each (rung id, seed)


@dataclass(frozen=True)
class StudySpec:
    """What a study is to compare, under which training; `plan_study` makes the runs of it.

    Attributes:
        base: Where to start, such as "resnet50".
        recipe: A name in recipes/ or the path of a YAML file.
        ladder: A ladder, its name, or the path of a YAML file; None takes the first shipped one that has the base.
        design: Which sets of the ladder's steps are trained.
        references: Networks trained beside the rungs, of `roadmap.ladder.references.REFERENCES`; None takes those that
            the ladder names.
        match: What the multiply-adds of every rung are brought near to; None leaves that to the ladder.
        only: Ids of the rungs that are wanted; None takes all.
        until: Id of the last rung that is wanted.
        seeds: One run a rung for each; None takes the recipe's.
        data_root: Where the data set lies.
        checksum: Whether to know images that lie in files by their content, not by names, sizes and times.
        validate: Whether to test on the recipe's validation images instead of the test set.
        assume_data: Whether image folders that no `data_root` names are taken to be as the recipe says, and need no
            weights either: for a plan, not for training.
        weights: What the recipe starts from, as for `roadmap.study.initial_weights.find_weights`.
        runs: The runs folder.
    """

    base: str
    recipe: str | Path = "fashion"
    ladder: Ladder | str | Path | None = None
    design: Design = field(default_factory=Design)
    references: Sequence[str] | None = None
    match: Match | None = None
    only: Sequence[str] | None = None
    until: str | None = None
    seeds: Sequence[int] | None = None
    data_root: str | Path | None = None
    checksum: bool = False
    validate: bool = False
    assume_data: bool = False
    weights: str | Path | None = None
    runs: str | Path = "runs"

    @property
    def assumes_data(self) -> bool:
        """Whether the images are taken to be as the recipe says."""
        return self.assume_data and self.data_root is None

    @property
    def root(self) -> Path | None:
        """Where the data set lies, if that was said."""
        return None if self.data_root is None else Path(self.data_root)


def plan_study(spec: StudySpec) -> Study:
    """Plan every run of a study and check all that can be checked; nothing is started.

    Args:
        spec: The study, such as `StudySpec("resnet50", recipe="imagenet")`.

    Returns:
        The study: its rungs at the recipe's scale, and the configuration of each rung and seed.

    Raises:
        UserError: If a name, a setting, the data or a combination does not hold.
    """
    for option, path in (("--data", spec.data_root), ("--weights", spec.weights), ("--runs", spec.runs)):
        check_name(path, option)
    recipe = read_recipe(spec.recipe, spec.base)
    ladder = _ladder_of(spec, recipe)
    layout = lay_out(ladder, spec.base, spec.design, spec.references)
    chosen = select(list(layout.rungs), only=spec.only, until=spec.until)
    rungs = tuple(_at_scale(rung, recipe) for rung in chosen)
    seeds = tuple(recipe.seeds if spec.seeds is None else spec.seeds)
    if not seeds or not all(0 <= seed <= MOST_SEED for seed in seeds) or len(set(seeds)) != len(seeds):
        raise UserError(
            f"seeds are {' '.join(map(str, seeds))}, but must be different whole numbers from 0 to {MOST_SEED}."
        )
    configs: Configs = {}
    for rung in rungs:
        config = _config_of(rung, recipe, spec, seeds[0])
        configs |= {(rung.id, seed): config.with_seed(seed) for seed in seeds}
    _check_policies(configs)
    pretrained = any(config.recipe.pretrained for config in configs.values())
    if spec.weights is not None or (pretrained and not spec.assumes_data):
        configs = _with_weights(configs, recipe, spec.weights)
    notes = notes_on_data(recipe, spec.root)
    return Study(ladder, spec.base, recipe, rungs, seeds, configs, Path(spec.runs), layout, notes)


def _ladder_of(spec: StudySpec, recipe: Recipe) -> Ladder:
    """Return the ladder with the recipe's techniques, matched by multiply-adds as they are trained."""
    ladder = spec.ladder if isinstance(spec.ladder, Ladder) else find_ladder(spec.ladder, spec.base)
    if spec.match is not None:
        ladder = ladder.model_copy(update={"match": spec.match})
    if ladder.has_techniques:
        ladder = ladder.towards(str(spec.recipe))
    return (
        ladder.counted_by(count_as_trained(recipe, _data_of(recipe, spec, needs_test=recipe.needs_test)))
        if ladder.matches
        else ladder
    )


def count_as_trained(recipe: Recipe, data: DataConfig) -> Callable[[Net], int]:
    """Return what counts the multiply-adds of a rung's network at the scale, and for the images, of a recipe."""

    def count(net: Net) -> int:
        from roadmap.networks.cost import count_macs

        shape = {"in_channels": data.in_channels, "num_classes": data.num_classes}
        return count_macs(_scale(net, recipe), recipe.image_size, **shape)

    return count


def _data_of(recipe: Recipe, spec: StudySpec, *, needs_test: bool) -> DataConfig:
    """Return the images of a recipe, or what it says of image folders that are assumed."""
    if spec.assumes_data and recipe.dataset == "folder" and recipe.images:
        return DataConfig(ASSUMED, "", recipe.classes, 3, recipe.images)
    return describe_data(recipe, spec.root, validate=spec.validate, needs_test=needs_test, checksum=spec.checksum)


def _at_scale(rung: Rung, recipe: Recipe) -> Rung:
    """Return a rung at the scale that a recipe trains at; a reference that is not as published says so."""
    try:
        net = _scale(rung.net, recipe)
    except UserError as error:
        raise UserError(f"recipe '{recipe.name}', '{rung.id}': {error}") from error
    changed = rung.is_reference and net != as_published(rung.net)
    return replace(rung, net=net, label=f"{rung.label} (proxy)" if changed else rung.label)


def _scale(net: Net, recipe: Recipe) -> Net:
    """Return a network at the scale that a recipe trains at: every rung by the same transform, after the climb."""
    return net.scaled(
        width_divisor=recipe.width_divisor,
        stem_stride=recipe.stem_stride,
        image_size=recipe.image_size,
    )


def _config_of(rung: Rung, recipe: Recipe, spec: StudySpec, seed: int) -> RunConfig:
    """Return the run of a rung and seed, having checked that network, recipe and images fit."""
    trained_under = rung.recipe(recipe, spec.base)
    if any(getattr(trained_under, name) != getattr(recipe, name) for name in SHARED):
        raise UserError(
            f"recipe '{recipe.name}' and its plain counterpart '{trained_under.name}' differ in scale or data, so "
            f"rungs under them cannot be compared. Give both the same {', '.join(SHARED)}."
        )
    data = _data_of(trained_under, spec, needs_test=recipe.needs_test)
    config = RunConfig(rung.net, trained_under, data, seed)
    config.check()
    return config


def _check_policies(configs: Configs) -> None:
    """Refuse recipes whose augmentation could not be drawn from; each policy is tried once."""
    by_policy = {config.recipe.randaugment: config for config in configs.values() if config.recipe.randaugment}
    for config in by_policy.values():
        from roadmap.data.augmentation import check_policy

        check_policy(config.recipe, config.data.in_channels)


def _with_weights(configs: Configs, recipe: Recipe, place: str | Path | None) -> Configs:
    """Return runs that know which weights they start from, having seen that these fit."""
    from roadmap.study.initial_weights import check_weights, find_weights, keep_layer_scale

    if place is None:
        raise UserError(
            f"recipe '{recipe.name}' starts from trained weights. Say which: --weights DIR, FILE or timm:NAME."
        )
    weights: dict[tuple[str, int], WeightsConfig] = {
        (rung, seed): find_weights(str(place), rung, seed)
        for (rung, seed), config in configs.items()
        if config.recipe.pretrained
    }
    if not weights:
        raise UserError(
            f"--weights: recipe '{recipe.name}' starts from random ones (pretrained: false). Leave one of them out."
        )
    started = {key: replace(config, weights=weights.get(key)) for key, config in configs.items()}
    for key in weights:
        started[key] = keep_layer_scale(started[key])
        check_weights(started[key])
    return started
