"""What the tests of detectors and segmenters measure."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from roadmap.downstream import segmentation
from roadmap.downstream.detection import _objects, average_precision
from roadmap.downstream.segmentation import confusion, metrics_of
from roadmap.downstream.task_recipe import read_task

RECIPE = replace(read_task("segmentation"), image_size=32)


def test_the_mean_is_over_classes_that_are_there_or_were_predicted() -> None:
    labels = torch.tensor([[0, 0, 1, 1, 255]])
    found = torch.tensor([[0, 1, 1, 1, 2]])
    values = metrics_of(confusion(found, labels, 4))
    assert values["iou_per_class"] == [pytest.approx(50.0), pytest.approx(100 * 2 / 3), None, None]
    assert values["miou"] == pytest.approx((50 + 200 / 3) / 2)
    assert values["pixel_accuracy"] == pytest.approx(75.0)


class Brightness(nn.Module):
    """Says of each pixel whether it is bright, without looking around."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, :1]
        return torch.cat([-bright, bright], 1)


@pytest.mark.parametrize("stride", [None, 8, 20, 32])
@pytest.mark.parametrize("size", [(32, 32), (50, 70), (20, 90)])
def test_windows_cover_an_image_and_find_what_a_look_at_all_of_it_finds(
    stride: int | None, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, *size)
    recipe = replace(RECIPE, test_stride=stride)
    seen = segmentation.scores(recipe, Brightness(), image, size)
    assert seen.shape == (2, *size)
    wanted = torch.cat([-image, image]).softmax(0)
    assert torch.allclose(seen, wanted, atol=1e-5)


def test_mirrored_and_resized_looks_are_put_back_before_they_are_averaged() -> None:
    image = torch.zeros(1, 32, 32)
    image[:, :, :8] = 5
    recipe = replace(RECIPE, test_flip=True, test_scales=(0.5, 1.0, 1.5))
    seen = segmentation.scores(recipe, Brightness(), image - 2, (32, 32)).argmax(0)
    assert seen[:, :7].all()
    assert not seen[:, 9:].any()


def boxes(*corners: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Return boxes and masks that fill them, in an image of 64 pixels."""
    masks = torch.zeros(len(corners), 64, 64, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = 1
    return torch.tensor(corners).float(), masks


IMAGES = [{"id": 1, "height": 64, "width": 64}]


def detections(found: tuple[Tensor, Tensor], labels: list[int]) -> list[dict[str, Any]]:
    return [each | {"score": 0.9} for each in _objects(1, found[0], torch.tensor(labels), found[1])]


def test_what_is_found_exactly_has_full_precision_and_what_is_not_has_none() -> None:
    there = boxes((4, 4, 20, 20), (30, 30, 60, 60))
    wanted = _objects(1, there[0], torch.tensor([1, 2]), there[1])
    values = average_precision(IMAGES, wanted, detections(there, [1, 2]), 2)
    assert values["box_ap"] == values["mask_ap"] == values["box_ap_small"] == pytest.approx(100)
    assert values["box_ap_medium"] is None  # none is larger than 32 x 32 pixels
    assert average_precision(IMAGES, wanted, detections(there, [2, 1]), 2)["box_ap"] == 0
    assert average_precision(IMAGES, wanted, [], 2)["mask_ap"] == 0


def test_an_overlap_of_eight_tenths_counts_up_to_that_threshold() -> None:
    wanted = _objects(1, *_with_label(boxes((0, 0, 40, 40))))
    values = average_precision(IMAGES, wanted, detections(boxes((0, 0, 33, 40)), [1]), 1)  # IoU 0.825
    assert values["box_ap"] == values["mask_ap"] == pytest.approx(70)  # seven of the thresholds 0.50, 0.55, ... 0.95
    assert values["box_ap75"] == pytest.approx(100)


def _with_label(found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return found[0], torch.tensor([1]), found[1]
