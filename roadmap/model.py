"""From a `NetConfig` to a network and its initialisation; nothing else knows how the parts fit."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from roadmap.blocks import Block, Downsample, Stem, make_norm
from roadmap.config import NetConfig

LAYER_BLOCKS = 3  # of a stage, that fine-tuning gives one learning rate


class Network(nn.Module):
    """Stem, stages, global average pool, head. Built by `build_model`."""

    def __init__(self, net: NetConfig, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.net = net
        separate = net.downsample == "separate"
        last_block = max(sum(net.depths) - 1, 1)
        self.stem = Stem(net, in_channels)
        self.stages = nn.Sequential()
        stream, done = net.widths[0], 0  # channels of the stream, blocks built so far
        for index, (depth, width) in enumerate(zip(net.depths, net.widths, strict=True)):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            residual_width = width * net.block.residual_ratio
            if separate and index > 0:
                stage["downsample"] = Downsample(net, stream, residual_width)
                stream = residual_width
            for number in range(depth):
                stride = 2 if index > 0 and number == 0 and not separate else 1
                rate = drop_path * done / last_block
                stage[str(number)] = Block(net.block, stream, width, stride, rate)
                stream, done = residual_width, done + 1
            self.stages.append(nn.Sequential(stage))
        self.norm = make_norm(net.block, stream) if net.final_norm else nn.Identity()
        self.head = nn.Linear(stream, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes)."""
        x = self.stages(self.stem(x))
        x = self.norm(x.mean((2, 3), keepdim=True)).flatten(1)
        logits: Tensor = self.head(x)
        return logits

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, int]]:
        """Return what sorts parameters into layers, for timm's layer-wise learning-rate decay.

        Args:
            coarse: Whether a stage is one layer; else each three blocks of it are. Either way its downsampling layer
                belongs to the first, the stem is before, the head and the last norm are after all stages.

        Returns:
            From a parameter's name to its layer: layers in the order of these pairs.

        Source: Table 6, "layer-wise lr decay"; three blocks a group as in BEiT's and the authors' released code.
        """

        def group(name: str) -> tuple[int, int]:
            part, *place = name.split(".")
            if part != "stages":
                return (-1, 0) if part == "stem" else (len(self.stages), 0)
            block = 0 if coarse or place[1] == "downsample" else int(place[1]) // LAYER_BLOCKS
            return int(place[0]), block

        return group


def build_model(
    net: NetConfig,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    drop_path: float = 0.0,
    head_init_scale: float = 1.0,
) -> nn.Module:
    """Build a network and initialise it as the paper trains: truncated normal with std 0.02, biases 0.

    The random numbers come from torch's default generator. Under `torch.device("meta")` nothing is allocated.

    Args:
        net: The network to build.
        num_classes: Outputs of the head.
        in_channels: Channels of the images.
        drop_path: Stochastic depth rate of the last block; the rate grows linearly from 0 at the first.
        head_init_scale: What the head's weights are multiplied by.

    Returns:
        A module from images (N, in_channels, H, W) to logits (N, num_classes).

    Source: appendix A.1; std 0.02 as in the authors' released code (Table 5 prints 0.2).
    """
    model = Network(net, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if head_init_scale != 1:
        model.head.weight.data.mul_(head_init_scale)
    return model
