"""Mask R-CNN of torchvision's parts on a rung's feature maps: FPN, region proposals, box and mask heads.

Source: He et al. 2017, "Mask R-CNN"; Lin et al. 2017, "Feature Pyramid Networks"; sizes of Table 3 as in the
    configurations of the authors of ConvNeXt.
"""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from roadmap.downstream.feature_maps import LEVELS, FeatureMaps

RATIOS = (0.5, 1.0, 2.0)  # height by width, of the anchors at each place
BOX_POOL, MASK_POOL, MASK_CONVS = 7, 14, 4
NAMES = [str(level) for level in range(LEVELS)]  # of the levels that boxes are pooled from


class PyramidBackbone(nn.Module):
    """Feature maps of one width: four levels, and one of half the resolution for large boxes."""

    def __init__(self, maps: FeatureMaps, width: int) -> None:
        super().__init__()
        self.maps, self.out_channels = maps, width
        self.fpn = FeaturePyramidNetwork(maps.widths, width, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, C, H, W) to five maps (N, width, h, w)."""
        levels: dict[str, Tensor] = self.fpn(OrderedDict(zip(NAMES, self.maps(images), strict=True)))
        return levels


class AsTheyAre(GeneralizedRCNNTransform):  # type: ignore[misc]
    """What makes a batch of images without resizing them, in training or at test."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return what was given."""
        return image, target


def mask_rcnn(
    backbone: FeatureMaps,
    num_classes: int,
    *,
    width: int = 256,
    box_width: int = 1024,
    anchor_scale: int = 8,
    in_channels: int = 3,
    **settings: Any,
) -> MaskRCNN:
    """Return a detector; images come to it normalised and in the size that it works with.

    Args:
        backbone: What sees the images.
        num_classes: Classes, the background not among them.
        width: Channels of the pyramid and of the mask head.
        box_width: Outputs of each of the two linear layers of the box head.
        anchor_scale: Side of a level's square anchor in pixels of that level.
        in_channels: Channels of the images.
        settings: More of torchvision's (numbers of proposals and detections, thresholds).
    """
    strides = [*backbone.strides, 2 * backbone.strides[-1]]
    labels = num_classes + 1
    detector = MaskRCNN(
        PyramidBackbone(backbone, width),
        rpn_anchor_generator=AnchorGenerator(
            tuple((anchor_scale * stride,) for stride in strides), (RATIOS,) * len(strides)
        ),
        box_roi_pool=MultiScaleRoIAlign(NAMES, BOX_POOL, 2),
        box_head=TwoMLPHead(width * BOX_POOL**2, box_width),
        box_predictor=FastRCNNPredictor(box_width, labels),
        mask_roi_pool=MultiScaleRoIAlign(NAMES, MASK_POOL, 2),
        mask_head=MaskRCNNHeads(width, (width,) * MASK_CONVS, 1),
        mask_predictor=MaskRCNNPredictor(width, width, labels),
        **settings,
    )
    detector.transform = AsTheyAre(1, 1, [0.0] * in_channels, [1.0] * in_channels)
    return detector
