"""Tables 3 and 4 of the paper: what they print of detectors and segmenters, beside which ours are counted.

Source: Tables 3 and 4 of Liu et al., "A ConvNet for the 2020s", CVPR 2022 (arXiv 2201.03545v2).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from roadmap.common.errors import unknown
from roadmap.downstream.task_recipe import Framework
from roadmap.networks.config import BlockConfig, NetConfig
from roadmap.networks.families import BASES, convnext
from roadmap.networks.nets import Net, TimmNet

HERE = Path(__file__).parent
TABLES: dict[Framework, int] = {"mask_rcnn": 3, "cascade_mask_rcnn": 3, "upernet": 4}
CLASSES: dict[Framework, int] = {"mask_rcnn": 80, "cascade_mask_rcnn": 80, "upernet": 150}
DETECTION_SIZE = (800, 1280)

# What the tables' names stand for. Sources: the paper's section 3 and Table 2 (ConvNeXt); Xie et al. 2017 (ResNeXt-101
# with 32 groups of 4 channels and 64 of 4); Liu et al. 2021, as timm has them, with windows of 7 (Swin).
BACKBONES: dict[str, Net] = {
    "ResNet-50": BASES["resnet50"],
    "X101-32": NetConfig(depths=(3, 4, 23, 3), block=BlockConfig(hidden_ratio=2, groups=32)),
    "X101-64": NetConfig(depths=(3, 4, 23, 3), block=BlockConfig(hidden_ratio=4, groups=64)),
    **{
        f"ConvNeXt-{letter}": convnext(size)
        for letter, size in {"T": "tiny", "S": "small", "B": "base", "L": "large", "XL": "xlarge"}.items()
    },
    **{
        f"Swin-{letter}": TimmNet(f"swin_{size}_patch4_window7_224")
        for letter, size in {"T": "tiny", "S": "small", "B": "base", "L": "large"}.items()
    },
}


@dataclass(frozen=True)
class Row:
    """A row of one of the tables, as printed.

    Attributes:
        framework: What stands on the backbone.
        backbone: Its name in the table.
        pretraining: What the backbone was trained on before.
        size: Height and width of the image that is counted, in pixels.
        gmacs: 1e9 multiply-adds for one image.
        params_m: Parameters in millions; None where none are printed.
        scores: What was measured, percent, by its name (box_ap, mask_ap50, miou, ...).
        has_attention: Whether the printed number counts attention's products; those of Swin-L do not, as the numbers of
            both tables show when they are counted again.
        a100_images_per_s: Images per second of inference on an A100; None where none are printed.
    """

    framework: Framework
    backbone: str
    pretraining: str
    size: tuple[int, int]
    gmacs: int
    params_m: int | None
    scores: dict[str, float]
    has_attention: bool
    a100_images_per_s: float | None = None

    @property
    def net(self) -> Net:
        """The backbone's network."""
        return BACKBONES[self.backbone]

    @property
    def name(self) -> str:
        """What it is called, such as upernet/ConvNeXt-T; one backbone may stand there in several sizes of the image."""
        return f"{self.framework}/{self.backbone}"


@cache
def read_tables() -> tuple[Row, ...]:
    """Return the rows of both tables in their order."""
    return (*_read_table3(), *_read_table4())


def select_rows(words: Sequence[str] | None) -> tuple[Row, ...]:
    """Return the rows of which a word is the name, the framework or the backbone; all where there are no words.

    Raises:
        UserError: If a word is none of them.
    """
    rows = read_tables()
    if words is None:
        return rows
    names = [(row.name, row.framework, row.backbone) for row in rows]
    known = dict.fromkeys(name for kind in zip(*names, strict=True) for name in kind)
    for word in words:
        if word not in known:
            raise unknown("row", word, known, place="--only")
    return tuple(row for row, of_row in zip(rows, names, strict=True) if set(words) & set(of_row))


def _read_table3() -> Iterator[Row]:
    for row in _rows("table3.csv"):
        yield Row(
            row["detector"],  # type: ignore[arg-type]
            row["backbone"],
            row["pretraining"],
            DETECTION_SIZE,
            int(row["gmacs"]),
            None,
            {name: float(value) for name, value in row.items() if "_ap" in name},
            row["attention"] != "left out",
            float(row["a100_images_per_s"]),
        )


def _read_table4() -> Iterator[Row]:
    for row in _rows("table4.csv"):
        crop = int(row["crop"])
        size, score = (crop, 4 * crop), {"miou": float(row["miou"])}
        yield Row(
            "upernet",
            row["backbone"],
            row["pretraining"],
            size,
            int(row["gmacs"]),
            int(row["params_m"]),
            score,
            row["attention"] != "left out",
        )


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
