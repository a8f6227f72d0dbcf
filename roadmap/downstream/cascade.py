"""Cascade Mask R-CNN: three box heads, each trained on the boxes of the one before it, and a mask head for each.

Source: Cai and Vasconcelos 2018, "Cascade R-CNN", section 4 (thresholds, deviations); He et al. 2017 (masks); four
    convolutions with norms and one linear layer, a box for each class, a generalised IoU loss of weight 10 on boxes and
    stage weights 1, 0.5 and 0.25 as in the configurations that the authors of ConvNeXt released.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss

from roadmap.downstream.mask_rcnn import BOX_POOL, MASK_CONVS

THRESHOLDS = (0.5, 0.6, 0.7)  # of overlap, from which a proposal is an object's
CODER_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
STAGE_WEIGHTS = (1.0, 0.5, 0.25)
BOX_WEIGHT = 10.0
BOX_CONVS = 4


class CascadeHeads(nn.Module):
    """What torchvision's detector calls with proposals, in place of its `RoIHeads`: three of them in a row."""

    def __init__(self, heads: RoIHeads, width: int, box_width: int, labels: int) -> None:
        """Make three stages with the settings of one head, whose own layers are not used."""
        super().__init__()
        norm = nn.BatchNorm2d
        self.stages: Any = nn.ModuleList(
            RoIHeads(
                heads.box_roi_pool,
                FastRCNNConvFCHead((width, BOX_POOL, BOX_POOL), [width] * BOX_CONVS, [box_width], norm),
                FastRCNNPredictor(box_width, labels),
                threshold,
                threshold,
                heads.fg_bg_sampler.batch_size_per_image,
                heads.fg_bg_sampler.positive_fraction,
                coder,
                heads.score_thresh,
                heads.nms_thresh,
                heads.detections_per_img,
                heads.mask_roi_pool,
                MaskRCNNHeads(width, (width,) * MASK_CONVS, 1),
                MaskRCNNPredictor(width, width, labels),
            )
            for threshold, coder in zip(THRESHOLDS, CODER_WEIGHTS, strict=True)
        )

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections, or in training losses; as torchvision's `RoIHeads` does."""
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, shapes, targets)
        return self._detect(features, proposals, shapes), {}

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for number, (stage, weight) in enumerate(zip(self.stages, STAGE_WEIGHTS, strict=True)):
            proposals, matched, labels, _ = stage.select_training_samples(proposals, targets)
            found = torch.cat(labels)
            logits, offsets = _predict(stage, features, proposals, shapes)
            boxes = stage.box_coder.decode(offsets, proposals)
            # Background moves to where the likeliest class would have it.
            boxes = _of_class(boxes, torch.where(found > 0, found, _likeliest(logits)))
            wanted = torch.cat([_boxes_of(each)[index] for each, index in zip(targets, matched, strict=True)])
            overlap = generalized_box_iou_loss(boxes[found > 0], wanted[found > 0], reduction="sum")
            positive = [each > 0 for each in labels]
            inside = [box[keep] for box, keep in zip(proposals, positive, strict=True)]
            losses |= {
                f"loss_classifier_{number}": weight * F.cross_entropy(logits.float(), found),
                f"loss_box_reg_{number}": weight * BOX_WEIGHT * overlap / found.numel(),
                f"loss_mask_{number}": weight
                * maskrcnn_loss(
                    stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(features, inside, shapes))),
                    inside,
                    [each["masks"] for each in targets],
                    [each["labels"] for each in targets],
                    [index[keep] for index, keep in zip(matched, positive, strict=True)],
                ),
            }
            proposals = _inside(boxes.detach(), proposals, shapes)
        return losses

    def _detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        scores = []
        for number, stage in enumerate(self.stages):
            logits, offsets = _predict(stage, features, proposals, shapes)
            scores.append(logits.float().softmax(1))
            if number < len(self.stages) - 1:
                boxes = stage.box_coder.decode(offsets, proposals)
                proposals = _inside(_of_class(boxes, _likeliest(logits)), proposals, shapes)
        # The last stage's boxes, and what the three think of them on average (its softmax undoes the logarithm).
        mean = torch.stack(scores).mean(0).log()
        found = zip(*self.stages[-1].postprocess_detections(mean, offsets, proposals, shapes), strict=True)
        detections = [{"boxes": b, "scores": s, "labels": n} for b, s, n in found]
        boxes, labels = [each["boxes"] for each in detections], [each["labels"] for each in detections]
        pooled = self.stages[0].mask_roi_pool(features, boxes, shapes)
        masks = [maskrcnn_inference(stage.mask_predictor(stage.mask_head(pooled)), labels) for stage in self.stages]
        for detection, several in zip(detections, zip(*masks, strict=True), strict=True):
            detection["masks"] = torch.stack(several).mean(0)
        return detections


def _boxes_of(target: dict[str, Tensor]) -> Tensor:
    """Return the boxes of an image's objects; one without area where it has none, which background is matched with."""
    boxes = target["boxes"]
    return boxes if len(boxes) else boxes.new_zeros(1, 4)


def _predict(
    stage: Any, features: dict[str, Tensor], proposals: list[Tensor], shapes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Return a stage's logits (N, labels) and offsets (N, 4 labels) for the proposals of all images."""
    found: tuple[Tensor, Tensor] = stage.box_predictor(stage.box_head(stage.box_roi_pool(features, proposals, shapes)))
    return found


def _likeliest(logits: Tensor) -> Tensor:
    """Return the likeliest class that is not the background, which has the label 0, (N,)."""
    return logits[:, 1:].argmax(1) + 1


def _of_class(boxes: Tensor, labels: Tensor) -> Tensor:
    """Return of boxes (N, labels, 4) those of one label each, (N, 4)."""
    return boxes[torch.arange(len(boxes), device=boxes.device), labels]


def _inside(boxes: Tensor, before: Sequence[Tensor], shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return boxes image by image, as far as they lie in it."""
    parts = boxes.split([len(each) for each in before])
    return [clip_boxes_to_image(each, shape) for each, shape in zip(parts, shapes, strict=True)]


def cascade_mask_rcnn(detector: MaskRCNN, num_classes: int, *, width: int = 256, box_width: int = 1024) -> MaskRCNN:
    """Return a Mask R-CNN with the cascade in place of its heads."""
    detector.roi_heads = CascadeHeads(detector.roi_heads, width, box_width, num_classes + 1)
    return detector
