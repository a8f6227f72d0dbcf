"""Published networks: where a ladder can start, and the ConvNeXt family."""

from dataclasses import replace

from roadmap.common.errors import unknown
from roadmap.networks.block_config import PLAIN
from roadmap.networks.config import BlockConfig, NetConfig


def convnext(size: str, *, layer_scale: float | None = 1e-6) -> NetConfig:
    """Return a published ConvNeXt by its size: tiny, small, base, large, xlarge, or isotropic_small, _base or _large.

    The isotropic ones have one stage, at a sixteenth of the image's resolution. Of them the authors trained the large
    one alone with layer scale.

    Source: section 3 of the paper (widths and depths), Table 5 (layer scale); section 3.3 and Table 2 (isotropic); the
        authors' commands (the isotropic ones' layer scale).
    """
    isotropic = {"isotropic_small": (384, 18), "isotropic_base": (768, 18), "isotropic_large": (1024, 36)}
    family = {
        "tiny": (96, (3, 3, 9, 3)),
        "small": (96, (3, 3, 27, 3)),
        "base": (128, (3, 3, 27, 3)),
        "large": (192, (3, 3, 27, 3)),
        "xlarge": (256, (3, 3, 27, 3)),
    }
    if size in isotropic:
        width, depth = isotropic[size]
        last = convnext("tiny", layer_scale=layer_scale if size == "isotropic_large" else None)
        return replace(last, depths=(depth,), widths=(width,), stem_stride=16, boundary_norms=False)
    if size not in family:
        raise unknown("ConvNeXt size", size, [*family, *isotropic])
    width, depths = family[size]
    return NetConfig(
        depths=depths,
        widths=(width, 2 * width, 4 * width, 8 * width),
        stem="patchify",
        downsample="separate",
        boundary_norms=True,
        final_norm=True,
        block=BlockConfig(
            residual_ratio=1,
            hidden_ratio=4,
            spatial_first=True,
            depthwise=True,
            kernel_size=7,
            act="gelu",
            act_after=("pointwise1",),
            norm="layer_norm",
            norm_after=("spatial",),
            layer_scale=layer_scale,
        ),
    )


# Where a ladder can start. Sources: He et al. 2016 (torchvision's "v1.5": the stride sits in the 3x3); ResNet-200 as in
# timm, depths (3, 24, 36, 3); Simonyan and Zisserman 2015, configuration D, with a pooled linear head in place of its
# three layers (and without the max pool before them); Sandler et al. 2018, Table 2.
BASES: dict[str, NetConfig] = {
    "resnet50": NetConfig(depths=(3, 4, 6, 3)),
    "resnet200": NetConfig(depths=(3, 24, 36, 3)),
    "vgg16": NetConfig(
        depths=(2, 2, 3, 3, 3),
        widths=(64, 128, 256, 512, 512),
        stem="none",
        stem_stride=1,
        downsample="max_pool",
        block=BlockConfig(convs=PLAIN, shortcut="none", residual_ratio=1, act_after=PLAIN, norm="none", norm_after=()),
    ),
    "mobilenet_v2": NetConfig(
        depths=(2, 3, 4, 3, 3, 1),
        widths=(24, 32, 64, 96, 160, 320),
        strides=(2, 2, 2, 1, 2, 1),
        stem="mobilenet",
        stem_width=16,
        stem_stride=2,
        head_width=1280,
        block=BlockConfig(
            shortcut="identity",
            residual_ratio=1,
            hidden_ratio=6,
            hidden_of="input",
            depthwise=True,
            act="relu6",
            act_after=("pointwise1", "spatial"),
        ),
    ),
}
