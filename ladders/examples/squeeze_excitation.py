"""Squeeze-and-excitation at the end of each residual branch, in all stages or in some."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from roadmap import NetConfig, change_blocks, own_layer


class SqueezeExcitation(nn.Module):
    """A gate for each channel, computed from the means of all channels."""

    def __init__(self, width, reduction):
        super().__init__()
        hidden = max(1, width // reduction)
        self.squeeze = nn.Conv2d(width, hidden, 1)
        self.excite = nn.Conv2d(hidden, width, 1)

    def forward(self, x):  # (N, width, H, W)
        means = x.mean((2, 3), keepdim=True)
        return x * self.excite(self.squeeze(means).relu()).sigmoid()


def squeeze_excitation(net: NetConfig, *, reduction: int = 16, stages: Sequence[int] | None = None) -> NetConfig:
    """Gate the channels of the residual branch before it is added, in all stages or in these (from 0).

    Source: Hu et al. 2018, "Squeeze-and-Excitation Networks".
    """
    gate = own_layer("pointwise2", SqueezeExcitation, reduction=reduction)
    return change_blocks(net, lambda block: replace(block, layers_after=(*block.layers_after, gate)), stages)
