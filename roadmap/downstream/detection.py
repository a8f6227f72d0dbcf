"""Detection: Mask R-CNN and its cascade trained and tested, by average precision of boxes and masks."""

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN

from roadmap.common.errors import UserError
from roadmap.common.process_group import ALONE, Group
from roadmap.downstream.cascade import cascade_mask_rcnn
from roadmap.downstream.data.task_data import Batch, TaskData, boxes_of
from roadmap.downstream.feature_maps import FeatureMaps
from roadmap.downstream.mask_rcnn import mask_rcnn
from roadmap.downstream.pictures import Example, Found
from roadmap.downstream.task_recipe import TaskRecipe
from roadmap.runs.metrics import Metric
from roadmap.training.step import autocast

METRICS = {
    "box_ap": Metric("box AP (%)", margin=0.5),
    "mask_ap": Metric("mask AP (%)", margin=0.5),
}
PARTS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the first of COCO's numbers
KINDS = {"box": "bbox", "mask": "segm"}  # our word and COCO's
MASK_THRESHOLD = 0.5
SHOWN_SCORE = 0.3  # of detections in a picture


def make(recipe: TaskRecipe, backbone: FeatureMaps, classes: int, in_channels: int) -> MaskRCNN:
    """Return a detector."""
    detector = mask_rcnn(
        backbone,
        classes,
        width=recipe.width,
        box_width=recipe.box_width,
        anchor_scale=recipe.anchor_scale,
        in_channels=in_channels,
        rpn_pre_nms_top_n_train=2 * recipe.proposals,
        rpn_post_nms_top_n_train=2 * recipe.proposals,
        rpn_pre_nms_top_n_test=recipe.proposals,
        rpn_post_nms_top_n_test=recipe.proposals,
        box_batch_size_per_image=recipe.boxes_per_image,
    )
    if recipe.framework == "cascade_mask_rcnn":
        return cascade_mask_rcnn(detector, classes, width=recipe.width, box_width=recipe.box_width)
    return detector


def loss(model: nn.Module, batch: Batch, device: str) -> Tensor:
    """Return the sum of a detector's losses on a batch."""
    images = [image.to(device) for image in batch.images]
    targets = [{name: value.to(device) for name, value in each.items()} for each in batch.targets]
    return torch.stack([part.float() for part in model(images, targets).values()]).sum()


@torch.inference_mode()
def evaluate(recipe: TaskRecipe, model: nn.Module, data: TaskData, device: str, group: Group = ALONE) -> dict[str, Any]:
    """Return the test's metrics, percent: average precision of boxes and masks, as COCO's evaluation has them."""
    require_coco()
    model.eval()
    images: list[dict[str, Any]] = []
    wanted: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for batch in data.test(group):
        with autocast(recipe.amp, device):
            outputs = model([image.to(device) for image in batch.images])
        for image, target, output in zip(batch.images, batch.targets, outputs, strict=True):
            number = 1 + group.rank + group.size * len(images)
            size = target.get("size", tuple(image.shape[1:]))
            images.append({"id": number, "height": size[0], "width": size[1]})
            wanted += _objects(number, target["boxes"], target["labels"], target["masks"], target.get("iscrowd"))
            boxes, masks = _in_size(output, image, size)
            detected = _objects(number, boxes, output["labels"], masks)
            scores = output["scores"].tolist()
            found += [each | {"score": score} for each, score in zip(detected, scores, strict=True)]
    images, wanted, found = (list(chain(*group.gather(ours))) for ours in (images, wanted, found))
    return average_precision(images, wanted, found, len(data.classes))


def require_coco() -> None:
    """Refuse to go on without COCO's evaluation.

    Raises:
        UserError: If it is not installed.
    """
    if find_spec("faster_coco_eval") is None:
        raise UserError(
            "detection is tested by faster-coco-eval, which is not installed: pip install "
            "'convnext-roadmap[downstream]'."
        )


def average_precision(
    images: list[dict[str, Any]], wanted: list[dict[str, Any]], found: list[dict[str, Any]], classes: int
) -> dict[str, Any]:
    """Return average precisions, percent, of boxes and masks; None where no object has the size.

    Args:
        images: Of each its id, height and width.
        wanted: Objects, as COCO's annotations have them.
        found: Detections: the same with a score.
        classes: Classes, whose labels begin with 1.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    values: dict[str, Any] = {}
    categories = [{"id": label, "name": str(label)} for label in range(1, classes + 1)]
    annotations = [each | {"id": number} for number, each in enumerate(wanted, 1)]
    with redirect_stdout(io.StringIO()):  # it tells its progress
        truth = COCO({"images": images, "annotations": annotations, "categories": categories})
        for ours, theirs in KINDS.items():
            # By itself a box has its own area, and a mask its own, as in COCO's result files.
            other = {"box": "segmentation", "mask": "bbox"}[ours]
            alone = [{name: value for name, value in each.items() if name != other} for each in found]
            if not alone:
                values |= {f"{ours}_{part}": 0.0 for part in PARTS}
                continue
            evaluation = COCOeval_faster(truth, truth.loadRes(alone), theirs)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            shares = dict(zip(PARTS, map(float, evaluation.stats), strict=False))
            values |= {f"{ours}_{part}": None if share < 0 else 100 * share for part, share in shares.items()}
    return values


def _in_size(output: dict[str, Tensor], image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return detected boxes (n, 4) and masks (n, *size) in the size that an image had before it was resized."""
    height, width = image.shape[1:]
    scale = output["boxes"].new_tensor([size[1] / width, size[0] / height] * 2)
    masks = output["masks"]
    if size != (height, width) and len(masks):
        masks = F.interpolate(masks, size, mode="bilinear", align_corners=False)
    return output["boxes"] * scale, masks[:, 0] > MASK_THRESHOLD


def _objects(
    image: int, boxes: Tensor, labels: Tensor, masks: Tensor, crowds: Tensor | None = None
) -> list[dict[str, Any]]:
    """Return boxes (n, 4), labels (n,) and masks (n, H, W) as COCO has them."""
    from faster_coco_eval.core import mask as coco_mask

    objects = []
    for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        area = masks[number].cpu().numpy().astype(np.uint8)
        objects.append(
            {
                "image_id": image,
                "category_id": label,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "segmentation": coco_mask.encode(np.asfortranarray(area)),
                "area": float(area.sum()),
                "iscrowd": int(crowds[number]) if crowds is not None else 0,
            }
        )
    return objects


@torch.inference_mode()
def examples(recipe: TaskRecipe, model: nn.Module, data: TaskData, device: str, count: int) -> list[Example]:
    """Return the first test images with their objects, and those that the detector is rather sure of."""
    model.eval()
    shown: list[Example] = []
    for batch in data.test():
        images = batch.images[: count - len(shown)]
        outputs = model([image.to(device) for image in images]) if images else []
        for image, target, output in zip(images, batch.targets, outputs, strict=False):
            size = (image.shape[1], image.shape[2])
            masks = F.interpolate(target["masks"][:, None].float(), size, mode="nearest")[:, 0]
            there = objects_of(target | {"masks": masks})
            sure = output["scores"] > SHOWN_SCORE
            found = {name: value[sure].cpu() for name, value in output.items()}
            guess = Found(found["masks"][:, 0] > MASK_THRESHOLD, (found["labels"] - 1).tolist(), found["boxes"])
            shown.append(Example(image, there, guess))
        if len(shown) == count:
            break
    return shown


def objects_of(target: dict[str, Any]) -> Found:
    """Return the objects of a target for a picture, as far as they are to be seen."""
    seen = target["masks"].flatten(1).amax(1) > 0
    masks = target["masks"][seen]
    return Found(masks, (target["labels"][seen] - 1).tolist(), boxes_of(masks))


def as_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Return those of the test's values that are metrics; nothing found is an average precision of 0."""
    return {name: float(values[name] or 0.0) for name in METRICS}
