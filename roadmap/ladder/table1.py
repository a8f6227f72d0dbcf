"""Table 1 of the paper: what it prints of other networks and of its own, beside which ours are counted.

Source: Table 1 of Liu et al., "A ConvNet for the 2020s", CVPR 2022 (arXiv 2201.03545v2). Figure 1 draws its accuracies.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from roadmap.common.errors import unknown
from roadmap.networks.nets import TimmNet

FILE = Path(__file__).with_name("table1.csv")


@dataclass(frozen=True)
class Model:
    """A row of the table, as printed.

    Attributes:
        label: The name in the table.
        timm: The name of the architecture in timm.
        kind: Whether it is a convolutional network or a transformer.
        training: The data that it was trained on before ImageNet-1K's 1,000 classes: those alone, or ImageNet-22K.
        image_size: Height and width of the images in pixels.
        params_m: Parameters in millions.
        gmacs: 1e9 multiply-adds for one image.
        v100_images_per_s: Images per second of inference on a V100; None where none is printed.
        top1: Accuracy on ImageNet-1K in percent.
        note: Why timm's network has other numbers than are printed, as far as that is known; empty where it has not.
    """

    label: str
    timm: str
    kind: Literal["convnet", "transformer"]
    training: Literal["imagenet1k", "imagenet22k"]
    image_size: int
    params_m: int
    gmacs: float
    v100_images_per_s: float | None
    top1: float
    note: str

    @property
    def net(self) -> TimmNet:
        """What is built and counted."""
        return TimmNet(self.timm)


@cache
def read_table1() -> tuple[Model, ...]:
    """Return the table's rows in their order."""
    with FILE.open(newline="", encoding="utf-8") as file:
        return tuple(
            Model(
                **{name: row[name] for name in ("label", "timm", "kind", "training", "note")},  # type: ignore[arg-type]
                image_size=int(row["image_size"]),
                params_m=int(row["params_m"]),
                gmacs=float(row["gmacs"]),
                v100_images_per_s=float(row["v100_images_per_s"]) if row["v100_images_per_s"] else None,
                top1=float(row["top1"]),
            )
            for row in csv.DictReader(file)
        )


def select_models(names: list[str] | None) -> list[Model]:
    """Return the rows that a user asked for by their names in the table or in timm, all of them without any.

    Raises:
        UserError: If a name is in neither.
    """
    models = read_table1()
    known = dict.fromkeys(name for model in models for name in (model.label, model.timm))
    for name in names or ():
        if name not in known:
            raise unknown("model", name, known)
    return [model for model in models if names is None or model.label in names or model.timm in names]
