"""The step of vit.yaml that is no argument of timm's: a function from a module to the next."""

from torch import nn


def conv_stem(model: nn.Module) -> nn.Module:
    """Cut the image into patches by strided 3x3 convolutions, each twice as wide as the one before, and a 1x1.

    They take the place of one block, which costs about as much.

    Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4.
    """
    patches = model.patch_embed.proj  # one convolution whose kernel is its stride
    width, layers, channels = patches.out_channels, [], patches.in_channels
    halvings = patches.stride[0].bit_length() - 1
    for left in range(halvings - 1, -1, -1):
        wide = width >> left
        layers += [nn.Conv2d(channels, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
        channels = wide
    model.patch_embed.proj = nn.Sequential(*layers, nn.Conv2d(channels, width, 1))
    model.blocks = model.blocks[:-1]
    return model
