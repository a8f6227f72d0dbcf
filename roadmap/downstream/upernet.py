"""UPerNet, the segmenter of Table 4: a pooling pyramid on the coarsest map, a feature pyramid, one map of all levels.

Source: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", section 3.1; sizes, norms and the
    auxiliary head as in the configurations of the authors of ConvNeXt (512 channels; 256 and one convolution).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from roadmap.downstream.feature_maps import FeatureMaps

POOL_SCALES = (1, 2, 3, 6)
AUXILIARY_LEVEL, AUXILIARY_WEIGHT = 2, 0.4  # the map of stride 16; the share of its loss
DROPOUT = 0.1


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return (N, C, h, w) in another height and width."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class PoolingPyramid(nn.Module):
    """The coarsest map beside what it is on average in cells of several sizes.

    Source: Zhao et al. 2017, "Pyramid Scene Parsing Network", section 3.2.
    """

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), Conv2dNormActivation(in_width, width, 1))
            for scale in POOL_SCALES
        )
        self.join = Conv2dNormActivation(in_width + len(POOL_SCALES) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, h, w) to (N, width, h, w)."""
        out: Tensor = self.join(torch.cat([x, *(resize(pool(x), x.shape[2:]) for pool in self.pools)], 1))
        return out


class UPerHead(nn.Module):
    """From four feature maps to logits at the resolution of the finest."""

    def __init__(self, widths: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(Conv2dNormActivation(each, width, 1) for each in widths[:-1])
        self.pyramid = PoolingPyramid(widths[-1], width)
        self.smooth = nn.ModuleList(Conv2dNormActivation(width, width, 3) for _ in widths[:-1])
        self.join = Conv2dNormActivation(len(widths) * width, width, 3)
        self.classify = nn.Sequential(nn.Dropout2d(DROPOUT), nn.Conv2d(width, num_classes, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map maps, the finest first, to logits (N, num_classes, h, w)."""
        levels = [lateral(each) for lateral, each in zip(self.laterals, maps[:-1], strict=True)]
        levels.append(self.pyramid(maps[-1]))
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + resize(levels[fine + 1], levels[fine].shape[2:])
        levels = [*(layer(each) for layer, each in zip(self.smooth, levels[:-1], strict=True)), levels[-1]]
        size = levels[0].shape[2:]
        joined = torch.cat([levels[0], *(resize(each, size) for each in levels[1:])], 1)
        logits: Tensor = self.classify(self.join(joined))
        return logits


class UPerNet(nn.Module):
    """A segmenter: backbone, head, and an auxiliary head that works in training alone."""

    def __init__(
        self, backbone: FeatureMaps, num_classes: int, *, width: int = 512, auxiliary_width: int = 256
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = UPerHead(backbone.widths, num_classes, width)
        self.auxiliary_head = nn.Sequential(
            Conv2dNormActivation(backbone.widths[AUXILIARY_LEVEL], auxiliary_width, 3),
            nn.Dropout2d(DROPOUT),
            nn.Conv2d(auxiliary_width, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes, H, W)."""
        return resize(self.head(self.backbone(images)), images.shape[2:])

    def loss(self, images: Tensor, labels: Tensor, ignored: int = 255) -> Tensor:
        """Return the mean cross entropy of both heads.

        Args:
            images: Shape (N, C, H, W).
            labels: Class of each pixel, (N, H, W).
            ignored: The label of pixels that do not count.
        """
        maps = self.backbone(images)
        outputs = ((self.head(maps), 1.0), (self.auxiliary_head(maps[AUXILIARY_LEVEL]), AUXILIARY_WEIGHT))
        losses = [
            weight * F.cross_entropy(resize(logits.float(), images.shape[2:]), labels, ignore_index=ignored)
            for logits, weight in outputs
        ]
        return torch.stack(losses).sum()
