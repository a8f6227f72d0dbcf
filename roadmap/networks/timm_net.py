"""Networks that a ladder is held against, trained beside its rungs; and networks by their names in timm.

Nothing here imports torch or timm: `roadmap.networks.model` builds what is named here.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from roadmap.common.errors import UserError
from roadmap.networks.config import STRICT, NetConfig, narrow, scale_down

# Swin Transformers of timm's by the heads of their first stage, each 32 channels wide, and what all of them have.
SWIN_HEADS = {
    "swin_tiny_patch4_window7_224": 3,
    "swin_small_patch4_window7_224": 3,
    "swin_base_patch4_window7_224": 4,
}
HEAD_WIDTH, PATCH, WINDOW, SWIN_IMAGE, SWIN_STRIDE = 32, 4, 7, 224, 8  # the stride of its stages, behind the patches


@dataclass(frozen=True)
class TimmNet:
    """A network of timm's, where a rung has a `NetConfig`.

    Attributes:
        timm: The name of its architecture, such as "swin_tiny_patch4_window7_224".
        args: Arguments of it that are not timm's own values, by their names there, sorted: those of a proxy.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = dict(STRICT)

    timm: str
    args: tuple[tuple[str, int], ...] = ()


Net = NetConfig | TimmNet


def scale_net(net: Net, *, width_divisor: int, stem_stride: int, image_size: int) -> Net:
    """Return the proxy of a network: all widths divided, the stem's stride set, made for the size of the images.

    Rungs and ResNeXt scale as `scale_down` says. A Swin Transformer's heads become narrower and stay as many, its patch
    is as large as the stem's stride, and its window is the largest that divides the first stage's map and is no larger
    than the published one, in proportion to images that are larger than the published ones.

    Args:
        net: The network.
        width_divisor: What widths are divided by.
        stem_stride: What becomes of the paper's 4.
        image_size: Height and width of the images in pixels.

    Raises:
        UserError: If the images cannot be cut into the patches of a Swin Transformer.
    """
    if isinstance(net, NetConfig):
        return scale_down(net, width_divisor=width_divisor, stem_stride=stem_stride)
    heads, stride = SWIN_HEADS[net.timm], stem_stride * SWIN_STRIDE
    if image_size % stride:
        near = max(stride, round(image_size / stride) * stride)
        raise UserError(
            f"image_size is {image_size}, but {net.timm} with patches of {stem_stride} pixels takes multiples of "
            f"{stride}. Use {near}, or leave the reference out."
        )
    side = image_size // stem_stride
    most = max(WINDOW, WINDOW * image_size // SWIN_IMAGE)
    sizes = {
        "embed_dim": heads * narrow(HEAD_WIDTH, width_divisor),
        "img_size": image_size,
        "patch_size": stem_stride,
        "window_size": max(window for window in range(1, most + 1) if side % window == 0),
    }
    usual = {"embed_dim": heads * HEAD_WIDTH, "img_size": SWIN_IMAGE, "patch_size": PATCH, "window_size": WINDOW}
    return replace(net, args=tuple((name, size) for name, size in sorted(sizes.items()) if size != usual[name]))
