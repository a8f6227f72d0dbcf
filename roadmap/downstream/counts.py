"""What detectors and segmenters cost, counted on the built model on the meta device.

The paper's numbers come from a counter that adds norms, activations and biases to the multiply-adds of convolutions,
linear layers and attention. Both are counted here, apart.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import MaskRCNN

from roadmap.downstream.cascade import cascade_mask_rcnn
from roadmap.downstream.feature_maps import FeatureMaps
from roadmap.downstream.mask_rcnn import BOX_POOL, MASK_POOL, mask_rcnn
from roadmap.downstream.tables import CLASSES
from roadmap.downstream.task_recipe import Framework
from roadmap.downstream.upernet import UPerNet
from roadmap.networks.blocks import Pointwise
from roadmap.networks.nets import Net, TimmNet

PROPOSALS, DETECTIONS = 1000, 100  # boxes that pass the box head, and the mask head, at test
PRODUCTS = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)  # of two activations, as attention has them on this device


class Cost(NamedTuple):
    """What one image costs.

    Attributes:
        macs: Multiply-adds of convolutions, linear layers and attention's products.
        elementwise: What the counter behind the paper's tables adds to them.
        attention: Those of the multiply-adds that are attention's products.
        params: Trainable parameters, those of an auxiliary head included.
    """

    macs: int
    elementwise: int
    attention: int
    params: int

    def as_printed(self, *, has_attention: bool) -> int:
        """Return what the counter behind the paper's tables would find; it did not always see attention's products."""
        return self.macs + self.elementwise - (0 if has_attention else self.attention)


def build_as_printed(framework: Framework, net: Net, size: tuple[int, int]) -> UPerNet | MaskRCNN:
    """Build a detector or segmenter of Tables 3 and 4, with as many classes as COCO or ADE20K has.

    Args:
        framework: What stands on the backbone.
        net: The backbone.
        size: Height and width of the image in pixels.
    """
    if isinstance(net, TimmNet):  # with attention masks for this size, its windows as published
        net = replace(net, args=(*net.args, ("img_size", size)))
    backbone, classes = FeatureMaps(net), CLASSES[framework]
    if framework == "upernet":
        return UPerNet(backbone, classes)
    detector = mask_rcnn(backbone, classes)
    return cascade_mask_rcnn(detector, classes) if framework == "cascade_mask_rcnn" else detector


@lru_cache(maxsize=64)
def count_cost(framework: Framework, net: Net, size: tuple[int, int]) -> Cost:
    """Count a detector or segmenter on a backbone; the arguments are those of `build_as_printed`."""
    with torch.device("meta"):
        model = build_as_printed(framework, net, size).eval()
        image = torch.empty(1, 3, *size)
        counter, elements = FlopCounterMode(display=False), _Elements(model)
        with counter, elements, torch.no_grad():
            if isinstance(model, UPerNet):
                model.head(model.backbone(image))
            else:
                _detect(model, image)
    params = sum(each.numel() for each in model.parameters())
    by_operator = counter.get_flop_counts()["Global"]
    attention = sum(flops for operator, flops in by_operator.items() if operator in PRODUCTS)
    return Cost(counter.get_total_flops() // 2, elements.count, attention // 2, params)


def _detect(detector: MaskRCNN, image: Tensor) -> None:
    """Run what a detector's test runs on one image, with as many boxes as it has at most."""
    levels = detector.backbone(image)
    detector.rpn.head(list(levels.values()))
    width = detector.backbone.out_channels
    for head in getattr(detector.roi_heads, "stages", [detector.roi_heads]):
        head.box_predictor(head.box_head(torch.empty(PROPOSALS, width, BOX_POOL, BOX_POOL)))
        head.mask_predictor(head.mask_head(torch.empty(DETECTIONS, width, MASK_POOL, MASK_POOL)))


class _Elements:
    """Count two operations for each output of a BatchNorm, one for each of a ReLU and of a convolution with a bias.

    Source: the counter of mmcv 1.x, in which the authors' code for detection and segmentation runs. It does not know
        their LayerNorm, and counts the bias of a linear layer once.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.count = model, 0
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        self.handles = [module.register_forward_hook(self._add) for module in self.model.modules()]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _add(self, module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(module, nn.BatchNorm2d):
            self.count += 2 * out.numel()
        elif isinstance(module, nn.ReLU):
            self.count += out.numel()
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not isinstance(module, Pointwise):
            self.count += out.numel() if module.bias is not None else 0
