"""A stem that cuts the image into patches, as a vision transformer does, with norms before and after the projection."""

from dataclasses import replace
from itertools import pairwise

from torch import nn
from torch.nn import functional as F

from roadmap import NetConfig, own_layer


class PatchStem(nn.Module):
    """A linear layer from the pixels of a patch to its features, between two LayerNorms."""

    def __init__(self, in_width, width, stride):
        super().__init__()
        self.stride = stride  # which proxies divide
        pixels = in_width * stride**2
        self.project = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, width), nn.LayerNorm(width))

    def forward(self, x):  # (N, in_width, H, W)
        patches = F.pixel_unshuffle(x, self.stride).permute(0, 2, 3, 1)  # (N, H / stride, W / stride, pixels)
        return self.project(patches).permute(0, 3, 1, 2)


def patch_stem(net: NetConfig, *, patch: int = 16) -> NetConfig:
    """Cut the image into patches; stages that worked at a finer resolution than that now work at this one.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; the norms, Kumar et al. 2023, "Dual PatchNorm".
    """
    reductions = [max(patch, reduction) for reduction in net.reductions]
    strides = tuple(after // before for before, after in pairwise([patch, *reductions]))
    return replace(net, stem=own_layer("stem", PatchStem), stem_width=0, stem_stride=patch, strides=strides)
