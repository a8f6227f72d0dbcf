"""What other code bases call the tensors of the ladder's two ends: of ResNets and ConvNeXts.

Sources: timm (models/resnet.py, models/convnext.py), torchvision (models/resnet.py, models/convnext.py), the authors'
released code (models/convnext.py, models/convnext_isotropic.py), transformers (models/resnet, models/convnext).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from roadmap.common.fields import diff
from roadmap.common.libraries import Library
from roadmap.networks.config import NetConfig
from roadmap.networks.families import BASES, convnext

Kind = Literal["ResNet", "ConvNeXt", "isotropic ConvNeXt"]
BLOCK = "stages.{stage}.{block}"
GAMMA = f"{BLOCK}.residual.layer_scale.gamma"
LINEAR = (".residual.pointwise1.weight", ".residual.pointwise2.weight")


@dataclass(frozen=True, eq=False)
class Naming:
    """The names that a library has for the modules of one kind of network.

    Attributes:
        library: Whose names they are; "official" is the authors' released code.
        kind: The kind of network.
        modules: Their modules by ours, and their parameter of the layer scale by ours. In the names, `stage` and
            `block` count from 0; `layer` is stage + 1, `even` 2 x stage, `odd` 2 x stage + 1.
        linear: Whether the 1x1 convolutions of their blocks are linear layers, whose weights are (out, in).
        gamma_rank: Dimensions of their layer scale: 1 for (C,), 3 for (C, 1, 1).
        any_width: Whether their networks come in any widths.
    """

    library: Library
    kind: Kind
    modules: Mapping[str, str]
    linear: bool = True
    gamma_rank: int = 1
    any_width: bool = True

    def __str__(self) -> str:
        return f"an {self.kind}" if self.kind.startswith("i") else f"a {self.kind}"

    def names(self, ours: Collection[str], net: NetConfig) -> dict[str, str]:
        """Return their name of each tensor of a network of this kind, by ours."""
        modules = {
            one.format(stage=stage, block=block): other.format(
                stage=stage, block=block, layer=stage + 1, even=2 * stage, odd=2 * stage + 1
            )
            for one, other in self.modules.items()
            for stage, depth in enumerate(net.depths)
            for block in range(depth)
        }
        found = {}
        for name in ours:
            module, _, tensor = name.rpartition(".")
            found[name] = modules[name] if name in modules else f"{modules[module]}.{tensor}"
        return found

    def rank(self, ours: str, rank: int) -> int:
        """Return how many dimensions they give to a tensor, of which ours has `rank`."""
        if ours.endswith("layer_scale.gamma"):
            return self.gamma_rank
        return 2 if self.linear and ours.endswith(LINEAR) else rank

    def is_of(self, weights: Collection[str]) -> bool:
        """Say whether a state dict has these names, by those of the stem and of the first block."""
        places = (self.modules["stem.conv"], self.modules[f"{BLOCK}.residual.spatial"])
        return all(f"{place.format(stage=0, layer=1, odd=1, block=0)}.weight" in weights for place in places)

    def layer_scale_in(self, weights: Collection[str]) -> bool:
        """Say whether a state dict with these names has a layer scale."""
        return any(name.endswith(self.modules.get(GAMMA, GAMMA).rpartition(".")[2]) for name in weights)

    def differences(self, net: NetConfig) -> list[str]:
        """Return the fields in which a network differs from the nearest one of this kind that the library has."""
        return list(diff(self._nearest(net), net))

    def _nearest(self, net: NetConfig) -> NetConfig:
        nearest = BASES["resnet50"] if self.kind == "ResNet" else convnext("tiny", layer_scale=net.block.layer_scale)
        if self.kind == "ResNet" and self.library != "transformers" and net.block.groups > 1:  # ResNeXt's names agree
            block = replace(nearest.block, groups=net.block.groups, hidden_ratio=net.block.hidden_ratio)
            nearest = replace(nearest, block=block)
        if self.kind == "isotropic ConvNeXt":
            nearest = convnext("isotropic_small")
            nearest = replace(nearest, block=replace(nearest.block, layer_scale=net.block.layer_scale))
        if len(net.depths) == len(nearest.depths):
            widths = net.widths if self.any_width else nearest.widths
            nearest = replace(nearest, depths=net.depths, widths=widths)
        return nearest


# fmt: off
RESNET = {
    "stem.conv": "conv1",
    "stem.norm": "bn1",
    f"{BLOCK}.residual.pointwise1": "layer{layer}.{block}.conv1",
    f"{BLOCK}.residual.pointwise1_norm": "layer{layer}.{block}.bn1",
    f"{BLOCK}.residual.spatial": "layer{layer}.{block}.conv2",
    f"{BLOCK}.residual.spatial_norm": "layer{layer}.{block}.bn2",
    f"{BLOCK}.residual.pointwise2": "layer{layer}.{block}.conv3",
    f"{BLOCK}.residual.pointwise2_norm": "layer{layer}.{block}.bn3",
    f"{BLOCK}.shortcut.conv": "layer{layer}.{block}.downsample.0",
    f"{BLOCK}.shortcut.norm": "layer{layer}.{block}.downsample.1",
    "head": "fc",
}
# fmt: on
_HF_RESNET_BLOCK = "resnet.encoder.stages.{stage}.layers.{block}"
RESNET_OF_TRANSFORMERS = {
    "stem.conv": "resnet.embedder.embedder.convolution",
    "stem.norm": "resnet.embedder.embedder.normalization",
    f"{BLOCK}.residual.pointwise1": f"{_HF_RESNET_BLOCK}.layer.0.convolution",
    f"{BLOCK}.residual.pointwise1_norm": f"{_HF_RESNET_BLOCK}.layer.0.normalization",
    f"{BLOCK}.residual.spatial": f"{_HF_RESNET_BLOCK}.layer.1.convolution",
    f"{BLOCK}.residual.spatial_norm": f"{_HF_RESNET_BLOCK}.layer.1.normalization",
    f"{BLOCK}.residual.pointwise2": f"{_HF_RESNET_BLOCK}.layer.2.convolution",
    f"{BLOCK}.residual.pointwise2_norm": f"{_HF_RESNET_BLOCK}.layer.2.normalization",
    f"{BLOCK}.shortcut.conv": f"{_HF_RESNET_BLOCK}.shortcut.convolution",
    f"{BLOCK}.shortcut.norm": f"{_HF_RESNET_BLOCK}.shortcut.normalization",
    "head": "classifier.1",
}


def _convnext(block: str, spatial: str, norm: str, pointwise1: str, pointwise2: str, gamma: str) -> dict[str, str]:
    """Return the names of a ConvNeXt's blocks; `block` is the prefix of the others."""
    return {
        f"{BLOCK}.residual.spatial": block + spatial,
        f"{BLOCK}.residual.spatial_norm": block + norm,
        f"{BLOCK}.residual.pointwise1": block + pointwise1,
        f"{BLOCK}.residual.pointwise2": block + pointwise2,
        GAMMA: block + gamma,
    }


CONVNEXT_OF_TIMM = {
    "stem.conv": "stem.0",
    "stem.norm": "stem.1",
    "stages.{stage}.downsample.norm": "stages.{stage}.downsample.0",
    "stages.{stage}.downsample.conv": "stages.{stage}.downsample.1",
    **_convnext("stages.{stage}.blocks.{block}.", "conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
    "norm": "head.norm",
    "head": "head.fc",
}
CONVNEXT_OF_TORCHVISION = {
    "stem.conv": "features.0.0",
    "stem.norm": "features.0.1",
    "stages.{stage}.downsample.norm": "features.{even}.0",
    "stages.{stage}.downsample.conv": "features.{even}.1",
    **_convnext("features.{odd}.{block}.", "block.0", "block.2", "block.3", "block.5", "layer_scale"),
    "norm": "classifier.0",
    "head": "classifier.2",
}
CONVNEXT_OF_THE_AUTHORS = {
    "stem.conv": "downsample_layers.0.0",
    "stem.norm": "downsample_layers.0.1",
    "stages.{stage}.downsample.norm": "downsample_layers.{stage}.0",
    "stages.{stage}.downsample.conv": "downsample_layers.{stage}.1",
    **_convnext("stages.{stage}.{block}.", "dwconv", "norm", "pwconv1", "pwconv2", "gamma"),
    "norm": "norm",
    "head": "head",
}
ISOTROPIC_OF_THE_AUTHORS = {
    "stem.conv": "stem",
    **_convnext("blocks.{block}.", "dwconv", "norm", "pwconv1", "pwconv2", "gamma"),
    "norm": "norm",
    "head": "head",
}
CONVNEXT_OF_TRANSFORMERS = {
    "stem.conv": "convnext.embeddings.patch_embeddings",
    "stem.norm": "convnext.embeddings.layernorm",
    "stages.{stage}.downsample.norm": "convnext.encoder.stages.{stage}.downsampling_layer.0",
    "stages.{stage}.downsample.conv": "convnext.encoder.stages.{stage}.downsampling_layer.1",
    **_convnext(
        "convnext.encoder.stages.{stage}.layers.{block}.",
        "dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter",
    ),
    "norm": "convnext.layernorm",
    "head": "classifier",
}  # fmt: skip

# torchvision's ResNets have timm's names, so a file of one cannot be told from one of the other, and need not be.
NAMINGS = (
    Naming("timm", "ResNet", RESNET, linear=False, any_width=False),
    Naming("torchvision", "ResNet", RESNET, linear=False, any_width=False),
    Naming("transformers", "ResNet", RESNET_OF_TRANSFORMERS, linear=False),
    Naming("timm", "ConvNeXt", CONVNEXT_OF_TIMM),
    Naming("torchvision", "ConvNeXt", CONVNEXT_OF_TORCHVISION, gamma_rank=3),
    Naming("official", "ConvNeXt", CONVNEXT_OF_THE_AUTHORS),
    Naming("official", "isotropic ConvNeXt", ISOTROPIC_OF_THE_AUTHORS),
    Naming("transformers", "ConvNeXt", CONVNEXT_OF_TRANSFORMERS),
)
