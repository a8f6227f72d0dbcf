"""How robust trained networks are: what can be asked, what a run folder holds of it, and whether it can be believed.

A run folder's robustness.json holds what was found of its network (`robustness.evaluation`), an entry for each way that
was asked, and of each entry its parts as far as they are done, so that an interrupted one goes on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from roadmap.common import files
from roadmap.common.errors import UserError
from roadmap.runs import run_folder

# Raised when the same settings would now find other numbers, or the file changes; other versions are not read.
ROBUSTNESS_VERSION = 1
IMAGES, RADII, STEPS = 500, (2.0, 4.0, 8.0), 20
CLEAN, FGSM, PGD, MASKING = "clean", "fgsm", "pgd", "masking"
CORRUPTION_NAMES = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)
CHECKED = (PGD, "more_steps", "restarts", "square")  # the accuracies of the part `MASKING`
SUSPICIOUS = 1.0  # points by which a weaker attack may seem stronger by chance


@dataclass(frozen=True)
class Settings:
    """What is asked of each network.

    Attributes:
        images: Test images; all of them where there are fewer.
        radii: How far attacks may change a pixel, in 255ths of its range.
        steps: Steps of PGD.
        check_images: How many of the images the check for gradient masking takes, at the middle radius.
        check_steps: Steps of its longer PGD.
        check_restarts: Random starts of its PGD with restarts.
        check_queries: Queries of its black-box attack.
    """

    images: int = IMAGES
    radii: tuple[float, ...] = RADII
    steps: int = STEPS
    check_images: int = 100
    check_steps: int = 100
    check_restarts: int = 5
    check_queries: int = 100

    @property
    def parts(self) -> tuple[str, ...]:
        """What is measured, part by part."""
        return CLEAN, FGSM, *(name_of(PGD, radius) for radius in self.radii), MASKING, *CORRUPTION_NAMES

    def cost(self, part: str) -> float:
        """Return about how many forward passes an image a part takes; one that needs gradients counts as three."""
        of_check = 2 * self.steps + self.check_steps + self.check_queries
        costs = {CLEAN: 1, FGSM: 3 * len(self.radii), MASKING: 3 * of_check * self.check_images / self.images}
        return costs.get(part, len(SEVERITIES) if part in CORRUPTION_NAMES else 3 * self.steps)

    @property
    def check_radius(self) -> float:
        """The radius of the check for gradient masking."""
        return sorted(self.radii)[len(self.radii) // 2]


def name_of(attack: str, radius: float) -> str:
    """Return what the accuracy under an attack of a radius is called, such as pgd_8."""
    return f"{attack}_{radius:g}"


# -- the file


Finite = run_folder.Finite


@with_config(ConfigDict(extra="allow"))
class Asked(TypedDict):
    """The settings of an entry, as far as they decide the shape of its parts."""

    radii: list[Finite]
    images: Finite
    check_images: Finite


@with_config(ConfigDict(extra="allow"))
class Entry(TypedDict):
    """What was found in one way of asking: accuracies, percent, part by part."""

    asked: Asked
    parts: dict[str, Finite | list[Finite] | dict[str, Finite]]


class Damaged(UserError):
    """A robustness.json that is none."""


def read_found(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a run folder's robustness.json; none where it is missing, or of another version.

    Raises:
        Damaged: If it is there and damaged.
    """
    path = folder / run_folder.ROBUSTNESS
    version = (files.read_object(path) or {}).get("robustness_version")
    if (isinstance(version, int) and version != ROBUSTNESS_VERSION) or not path.exists():
        return []
    content = files.read_as(path, _FOUND)
    if content is None:
        raise Damaged(f"{path}: is damaged. 'robustness' measures it again.")
    return cast(list[dict[str, Any]], content["found"])


def _right_shape(entry: Entry) -> Entry:
    """Refuse parts that have not a number for each radius, severity or check."""
    shapes: dict[str, Any] = {FGSM: {f"{radius:g}" for radius in entry["asked"]["radii"]}, MASKING: set(CHECKED)}
    shapes |= {name: set(range(len(SEVERITIES))) for name in CORRUPTION_NAMES}
    for name, part in entry["parts"].items():
        numbers = dict(enumerate(part)) if isinstance(part, list) else part
        found = set(numbers) if isinstance(numbers, dict) else {None}
        if found != shapes.get(name, {None}):
            raise ValueError(f"{name} has not a number for each of {shapes.get(name)}")
    return entry


@with_config(ConfigDict(extra="allow"))
class Found(TypedDict):
    """What `run_folder.ROBUSTNESS` holds."""

    robustness_version: int
    found: list[Annotated[Entry, AfterValidator(_right_shape)]]


_FOUND = TypeAdapter(Found)


def is_complete(entry: dict[str, Any]) -> bool:
    """Whether all parts of an entry are there."""
    wanted = Settings(radii=tuple(entry["asked"]["radii"])).parts
    return all(part in entry["parts"] for part in wanted)


def masks_gradients(check: dict[str, float], images: int) -> bool:
    """Whether PGD cannot be believed, because the network's gradients lead it astray.

    So it is where attacks that must be stronger leave accuracy higher, or one that sees no gradients leaves it lower,
    by more than a point and more than one image.

    Args:
        check: The part `MASKING` of an entry: accuracies on its images, percent.
        images: How many these are.

    Source: Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of Security", section 3.1; Carlini et al.
        2019, "On Evaluating Adversarial Robustness".
    """
    chance = max(SUSPICIOUS, 100 / images) + 1e-6
    return max(check["more_steps"], check["restarts"]) > check[PGD] + chance or check["square"] < check[PGD] - chance
