"""Detectors learn from boxes and masks, and find them again."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from roadmap.downstream.cascade import THRESHOLDS, cascade_mask_rcnn
from roadmap.downstream.feature_maps import FeatureMaps
from roadmap.downstream.mask_rcnn import mask_rcnn
from roadmap.networks.config import scale_down
from roadmap.networks.families import convnext

SETTINGS = {"rpn_post_nms_top_n_train": 50, "rpn_post_nms_top_n_test": 50, "box_batch_size_per_image": 32}


def detector(*, cascade: bool) -> nn.Module:
    torch.manual_seed(0)
    net = scale_down(convnext("tiny"), width_divisor=8, stem_stride=4)
    backbone = FeatureMaps(net, in_channels=1)
    model = mask_rcnn(backbone, 2, width=16, box_width=32, anchor_scale=4, in_channels=1, **SETTINGS)
    return cascade_mask_rcnn(model, 2, width=16, box_width=32) if cascade else model


def bright_squares() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return two images with a bright square each, of two classes by size."""
    images, targets = [], []
    for corner, side in ((8, 24), (40, 16)):
        image, mask = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.uint8)
        image[:, corner : corner + side, corner : corner + side] = 3
        mask[:, corner : corner + side, corner : corner + side] = 1
        box = torch.tensor([[corner, corner, corner + side, corner + side]], dtype=torch.float)
        images.append(image)
        targets.append({"boxes": box, "labels": torch.tensor([1 if side == 24 else 2]), "masks": mask})
    return images, targets


@pytest.mark.parametrize("cascade", [False, True], ids=["mask_rcnn", "cascade"])
def test_a_detector_finds_what_it_was_shown(cascade: bool) -> None:
    model, (images, targets) = detector(cascade=cascade), bright_squares()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    model.train()
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = torch.stack(list(model(images, targets).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    model.eval()
    with torch.no_grad():
        found = model(images)
    for detections, target in zip(found, targets, strict=True):
        best = int(detections["scores"].argmax())
        assert detections["labels"][best] == target["labels"][0]
        assert box_iou(detections["boxes"][best : best + 1], target["boxes"]) > 0.5
        mask = detections["masks"][best, 0] > 0.5
        both, either = (mask & target["masks"][0].bool()).sum(), (mask | target["masks"][0].bool()).sum()
        assert both / either > 0.5


def test_a_cascade_asks_for_more_overlap_from_stage_to_stage() -> None:
    heads = detector(cascade=True).roi_heads
    assert tuple(stage.proposal_matcher.high_threshold for stage in heads.stages) == THRESHOLDS  # type: ignore[union-attr]
    assert sorted(THRESHOLDS) == list(THRESHOLDS)


@pytest.mark.parametrize("cascade", [False, True], ids=["mask_rcnn", "cascade"])
def test_every_layer_of_a_detector_learns(cascade: bool) -> None:
    model, (images, targets) = detector(cascade=cascade), bright_squares()
    model.train()
    torch.stack(list(model(images, targets).values())).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.ndim > 1 and (p.grad is None or not p.grad.any())]
    assert idle == []


def test_an_image_without_objects_teaches_only_background() -> None:
    model, (images, targets) = detector(cascade=True), bright_squares()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "masks": targets[0]["masks"][:0]}
    model.train()
    losses = model([images[0]], [empty])
    assert all(torch.isfinite(each) for each in losses.values())
    assert losses["loss_box_reg_0"] == 0
