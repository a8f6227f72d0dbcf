"""The steps on the recipe, one pure function each: from a `Recipe` to the next, given the one that is trained towards.

A technique takes its settings from the target and leaves the others as they are, so that a ladder of techniques ends at
the target whatever that is, and its values stand in recipes/ alone. What is measured in epochs (warm-up, the step
schedule's decay) keeps its share of the training, so that techniques do the same in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadmap.recipe import Recipe

RecipeStep = Callable[..., "Recipe"]

LENGTHS = ("warmup_epochs", "decay_epochs")  # settings that are a share of the training, in epochs


def enhanced_recipe(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Train with the full modern recipe instead of the plain one. Costs no multiply-adds, but more epochs.

    Source: section 2.1 and Table 5; ResNet-50 76.1 -> 78.8, the largest single change of the roadmap.
    """
    return target


def longer_training(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Train for more epochs, with the schedule stretched over them; 90 -> 300 in the paper.

    Source: section 2.1 and Table 5.
    """
    stretched: dict[str, Any] = {name: _in_epochs(getattr(recipe, name), recipe, target) for name in LENGTHS}
    return replace(recipe, epochs=target.epochs, **stretched)


def adamw(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Optimize with AdamW instead of SGD, with all that goes with it.

    That is the batch and its ghost batches, the learning rate and its schedule, weight decay, and the first weights.

    Source: section 2.1 and Table 5; Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    optimizer = ("optimizer", "betas", "momentum", "weight_decay", "decay_norms_and_biases", "clip_grad", "layer_decay")
    batch = ("batch_size", "ghost_batch", "init")
    schedule = ("lr", "schedule", "min_lr", "warmup_lr", "warmup_reaches_lr", "decay_rate")
    return _take(recipe, target, *optimizer, *batch, *schedule, *LENGTHS)


def mixup(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Train on weighted means of two images and of their labels.

    Source: Table 5; Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
    """
    return _take(recipe, target, "mixup", "mixup_switch_prob")


def cutmix(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Train on images with a rectangle of another one, labels mixed by area; with mixup, a batch has one of the two.

    Source: Table 5; Yun et al. 2019, "CutMix".
    """
    return _take(recipe, target, "cutmix", "mixup_switch_prob")


def randaugment(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Change each image by a few random operations on geometry and colour.

    Source: Table 5; Cubuk et al. 2020, "RandAugment". timm jitters colours in its place where it is off, and it shares
        its interpolation with the crop.
    """
    return _take(recipe, target, "randaugment", "color_jitter", "interpolation")


def random_erasing(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Turn a random rectangle of some images into noise.

    Source: Table 5; Zhong et al. 2020, "Random Erasing Data Augmentation".
    """
    return _take(recipe, target, "random_erasing")


def stochastic_depth(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Leave out the residual branch of random blocks, deeper ones more often.

    Source: Table 5; Huang et al. 2016, "Deep Networks with Stochastic Depth".
    """
    return _take(recipe, target, "drop_path")


def label_smoothing(recipe: Recipe, *, target: Recipe) -> Recipe:
    """Give every class a small part of the label.

    Source: Table 5; Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision".
    """
    return _take(recipe, target, "label_smoothing")


def _take(recipe: Recipe, target: Recipe, *settings: str) -> Recipe:
    """Return a recipe with the target's value of some settings."""
    taken = {name: getattr(target, name) for name in settings}
    lengths: dict[str, Any] = {name: _in_epochs(taken[name], target, recipe) for name in LENGTHS if name in taken}
    return replace(recipe, **taken | lengths)


def _in_epochs(length: float, of: Recipe, to: Recipe) -> float:
    """Return a length in epochs as the same share of another recipe's; as a fraction, so that it finds its way back."""
    return float(Fraction(length).limit_denominator(10**6) * to.epochs / of.epochs)


# Every step on the recipe that a ladder can name.
RECIPE_STEPS: dict[str, RecipeStep] = {
    step.__name__: step
    for step in (
        enhanced_recipe,
        longer_training,
        adamw,
        mixup,
        cutmix,
        randaugment,
        random_erasing,
        stochastic_depth,
        label_smoothing,
    )
}
