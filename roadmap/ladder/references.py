"""Networks that a ladder is held against, trained beside its rungs."""

from collections.abc import Sequence
from dataclasses import dataclass

from roadmap.common.errors import UserError, unknown
from roadmap.networks.config import BlockConfig, NetConfig
from roadmap.networks.nets import Net, TimmNet
from roadmap.networks.proxies import SwinProxy

SECTION = "References"  # the heading that they stand under


@dataclass(frozen=True)
class ReferenceNet:
    """A reference before it is scaled: its name in figures, the network."""

    label: str
    net: Net


# Sources: Xie et al. 2017 (32 groups in stages twice as wide inside as ResNet's; timm's resnext50_32x4d is the same
# network); Liu et al. 2021, as timm has them.
REFERENCES: dict[str, ReferenceNet] = {
    "resnext50": ReferenceNet(
        "ResNeXt-50", NetConfig(depths=(3, 4, 6, 3), block=BlockConfig(hidden_ratio=2, groups=32))
    ),
    "swin_tiny": ReferenceNet("Swin-T", TimmNet("swin_tiny_patch4_window7_224", proxy=SwinProxy(heads=3))),
    "swin_small": ReferenceNet("Swin-S", TimmNet("swin_small_patch4_window7_224", proxy=SwinProxy(heads=3))),
    "swin_base": ReferenceNet("Swin-B", TimmNet("swin_base_patch4_window7_224", proxy=SwinProxy(heads=4))),
}


def check_references(names: Sequence[str], place: str) -> None:
    """Refuse names that are no references'.

    Raises:
        UserError: If one is unknown, or stands twice.
    """
    for name in names:
        if name not in REFERENCES:
            raise unknown("reference", name, REFERENCES, place=place)
    if twice := [name for name in REFERENCES if names.count(name) > 1]:
        raise UserError(f"{place}: '{twice[0]}' stands twice. Name each reference once.")
