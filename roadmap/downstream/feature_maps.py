"""A network without its head as a backbone: feature maps of four resolutions, each behind a LayerNorm of its own."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from roadmap.common.errors import UserError
from roadmap.networks.blocks import LayerNorm
from roadmap.networks.config import Init, NetConfig
from roadmap.networks.model import build_model
from roadmap.networks.nets import Net

LEVELS = 4


def levels_of(reductions: list[int]) -> list[int]:
    """Return the stages whose outputs are a backbone's feature maps: the last one of each of the four last resolutions.

    Args:
        reductions: Of each stage, the pixels of the image per pixel of its output in one direction.

    Raises:
        UserError: If there are fewer than four resolutions.
    """
    last = {reduction: stage for stage, reduction in enumerate(reductions)}
    if len(last) < LEVELS:
        raise UserError(
            f"the network has feature maps at strides {', '.join(map(str, last))}, but a detector or segmenter needs "
            f"{LEVELS} resolutions. Choose rungs with at least {LEVELS} stages (--only)."
        )
    return list(last.values())[-LEVELS:]


ASKED = ("feature_info", "prune_intermediate_layers", "forward_intermediates")  # of a backbone that is not ours


class FeatureMaps(nn.Module):
    """A backbone: from images to four feature maps, the finest first.

    Attributes:
        widths: Channels of each map.
        strides: Pixels of the image per pixel of each map, in one direction.
    """

    def __init__(
        self,
        net: Net,
        *,
        in_channels: int = 3,
        drop_path: float = 0.0,
        init: Init = "trunc_normal",
    ) -> None:
        """Build the network without its head.

        Args:
            net: The network.
            in_channels: Channels of the images.
            drop_path: Stochastic depth rate of its last block.
            init: The distribution of its first weights, as `roadmap.recipe.Recipe.init` has it.

        Raises:
            UserError: If the network gives no maps, or has fewer than four resolutions.

        Source: the authors' code for detection and segmentation (a norm for each output of their ConvNeXt).
        """
        super().__init__()
        network: Any = build_model(net, num_classes=0, in_channels=in_channels, drop_path=drop_path, init=init)
        missing = [name for name in ASKED if not hasattr(network, name)]
        if missing and not isinstance(net, NetConfig):
            raise UserError(
                f"{net.title}: has no {missing[0]}, by which timm's networks give the maps of their stages, so it is "
                "no backbone. Leave it out (--only), or give your module what timm's have."
            )
        # What stands behind the last stage would be idle.
        if isinstance(net, NetConfig):
            network.norm, network.head_conv, network.pool = nn.Identity(), nn.Identity(), nn.Identity()
        else:
            network.prune_intermediate_layers(prune_norm=True, prune_head=True)
        info = [dict(each) for each in network.feature_info]
        self.network = network
        self.levels = levels_of([each["reduction"] for each in info])
        self.widths = [info[level]["num_chs"] for level in self.levels]
        self.strides = [info[level]["reduction"] for level in self.levels]
        self.norms = nn.ModuleList(LayerNorm(width, eps=1e-6) for width in self.widths)

    def load_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of a classifier of this network, by their names there; its head's are left out.

        Raises:
            UserError: If they are another network's.
        """
        own = self.network.state_dict()
        wrong = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
        if wrong:
            raise UserError(
                f"weights: of another network: {len(wrong)} of {len(own)} tensors of the backbone do not fit, such as "
                f"{wrong[0]}. Give those of this rung."
            )
        self.network.load_state_dict({name: weights[name] for name in own})

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to maps (N, widths[i], H / strides[i], W / strides[i])."""
        asked: dict[str, Any] = {"indices": self.levels, "output_fmt": "NCHW", "intermediates_only": True}
        network: Any = self.network
        maps = network.forward_intermediates(images, **asked)
        return [norm(each) for norm, each in zip(self.norms, maps, strict=True)]
