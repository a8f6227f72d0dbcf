"""Segmentation: UPerNet trained and tested, by mean intersection over union."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.common.process_group import ALONE, Group
from roadmap.downstream.data.task_data import IGNORED, Batch, TaskData
from roadmap.downstream.feature_maps import FeatureMaps
from roadmap.downstream.pictures import Example, Found
from roadmap.downstream.task_recipe import TaskRecipe
from roadmap.downstream.upernet import UPerNet
from roadmap.runs.metrics import Metric
from roadmap.training.step import autocast

METRICS = {
    "miou": Metric("mIoU (%)", margin=0.5),
    "pixel_accuracy": Metric("pixel accuracy (%)", margin=0.5),
}


def make(recipe: TaskRecipe, backbone: FeatureMaps, classes: int, in_channels: int) -> UPerNet:
    """Return a segmenter."""
    return UPerNet(backbone, classes, width=recipe.width, auxiliary_width=recipe.auxiliary_width)


def loss(model: nn.Module, batch: Batch, device: str) -> Tensor:
    """Return the loss of a batch, whose images are of one size."""
    images = torch.stack(batch.images).to(device)
    labels = torch.stack([each["labels"] for each in batch.targets]).to(device)
    found: Tensor = model.loss(images, labels, IGNORED)  # type: ignore[operator]
    return found


@torch.inference_mode()
def evaluate(recipe: TaskRecipe, model: nn.Module, data: TaskData, device: str, group: Group = ALONE) -> dict[str, Any]:
    """Return the test's metrics, percent: the mean over classes of intersection over union, and the share of pixels.

    A class that is neither in a label map nor predicted does not count. `iou_per_class` has null for it.
    """
    model.eval()
    count = len(data.classes)
    matrix = torch.zeros(count, count, dtype=torch.long)
    for batch in data.test(group):
        for image, target in zip(batch.images, batch.targets, strict=True):
            labels = target["labels"]
            logits = scores(recipe, model, image.to(device), labels.shape)
            matrix += confusion(logits.argmax(0).cpu(), labels, count)
    return metrics_of(torch.stack(group.gather(matrix)).sum(0))


def confusion(found: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how many pixels of each true class (rows) were taken for each class (columns)."""
    counts = labels != IGNORED
    pairs = classes * labels[counts] + found[counts]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def metrics_of(matrix: Tensor) -> dict[str, Any]:
    """Return the metrics of a confusion matrix (classes, classes), true classes in rows."""
    right = matrix.diagonal().double()
    either = (matrix.sum(0) + matrix.sum(1)).double() - right
    seen = either > 0
    iou = (100 * right / either.clamp(min=1)).tolist()
    per_class = [value if there else None for value, there in zip(iou, seen.tolist(), strict=True)]
    return {
        "miou": 100 * (right / either)[seen].mean().item(),
        "pixel_accuracy": 100 * (right.sum() / matrix.sum()).item(),
        "iou_per_class": per_class,
    }


def scores(recipe: TaskRecipe, model: nn.Module, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the probabilities of the classes at each pixel of an image, (classes, *size).

    Averaged over the sizes and, if the recipe says so, the mirror images that it looks at.
    """
    total: Tensor | None = None
    for scale in recipe.test_scales:
        side = [max(1, round(scale * each)) for each in image.shape[1:]]
        view = image[None] if scale == 1 else F.interpolate(image[None], side, mode="bilinear", align_corners=False)
        for flip in (False, True) if recipe.test_flip else (False,):
            logits = _look(recipe, model, view.flip(-1) if flip else view)
            logits = logits.flip(-1) if flip else logits
            seen = F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False).softmax(1)
            total = seen if total is None else total + seen
    assert total is not None
    return total[0]


def _look(recipe: TaskRecipe, model: nn.Module, view: Tensor) -> Tensor:
    """Return logits (1, classes, H, W) of an image, looked at whole or through windows of the crop's size."""
    if recipe.test_stride is None:
        return _logits(recipe, model, view)
    height, width = view.shape[2:]
    side, step = recipe.image_size, recipe.test_stride
    total, times = None, view.new_zeros(1, 1, height, width)
    for top in _places(height, side, step):
        for left in _places(width, side, step):
            window = (..., slice(top, top + side), slice(left, left + side))
            logits = _logits(recipe, model, view[window])
            total = logits.new_zeros(1, logits.shape[1], height, width) if total is None else total
            total[window] += logits
            times[window] += 1
    assert total is not None
    return total / times


def _logits(recipe: TaskRecipe, model: nn.Module, images: Tensor) -> Tensor:
    """Return logits of images of any size, which are padded to a multiple of 32 for the backbone."""
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % 32, 0, -height % 32))
    with autocast(recipe.amp, images.device.type):
        logits: Tensor = model(padded)
    return logits.float()[..., :height, :width]


def _places(length: int, side: int, step: int) -> list[int]:
    """Return where windows begin that cover a length, each in it as far as it is long enough."""
    last = max(length - side, 0)
    return [*range(0, last, step), last]


@torch.inference_mode()
def examples(recipe: TaskRecipe, model: nn.Module, data: TaskData, device: str, count: int) -> list[Example]:
    """Return the first test images with their classes, and those that the network finds."""
    model.eval()
    shown: list[Example] = []
    for batch in data.test():
        for image, target in zip(batch.images, batch.targets, strict=True):
            if len(shown) == count:
                return shown
            size = (image.shape[1], image.shape[2])
            guess = scores(recipe, model, image.to(device), size).argmax(0).cpu()
            labels = F.interpolate(target["labels"][None, None].float(), size, mode="nearest")[0, 0].long()
            shown.append(Example(image, _areas(labels, data), _areas(guess, data)))
    return shown


def _areas(labels: Tensor, data: TaskData) -> Found:
    """Return where each class is; a background is left as it is."""
    there = [label for label in labels.unique().tolist() if label != IGNORED and data.classes[label] != "background"]
    masks = torch.stack([labels == label for label in there]) if there else torch.zeros(0, *labels.shape)
    return Found(masks, [label - (data.classes[0] == "background") for label in there])


def as_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Return those of the test's values that are metrics."""
    return {name: float(values[name]) for name in METRICS}
