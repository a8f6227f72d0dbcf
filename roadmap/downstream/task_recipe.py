"""How a detector or segmenter is trained and tested: `TaskRecipe`, and its reader."""

from dataclasses import asdict, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, model_validator
from pydantic.dataclasses import dataclass

from roadmap.common.errors import FieldErrors, unknown
from roadmap.common.fields import PositiveInt
from roadmap.common.paths import RECIPES
from roadmap.common.yaml_files import read_yaml
from roadmap.recipe import NAME, Precision

FOLDER = RECIPES / "downstream"
Framework = Literal["upernet", "mask_rcnn", "cascade_mask_rcnn"]
LABELS: dict[str, str] = {
    "upernet": "UPerNet",
    "mask_rcnn": "Mask R-CNN",
    "cascade_mask_rcnn": "Cascade Mask R-CNN",
}
Share = Annotated[StrictFloat, Field(ge=0, le=1)]
Positive = Annotated[StrictFloat, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class TaskRecipe:
    """One recipe of a task beyond classification; the YAML files of recipes/downstream/ have these keys.

    Lengths are optimizer steps, sizes pixels.

    Attributes:
        name: Its name in reports.
        about: What it is, in a line.
        framework: What stands on the backbone: "upernet" (segmentation), "mask_rcnn" or "cascade_mask_rcnn".
        dataset: "scenes" (made from the included images), "ade20k" (images and label maps in folders) or "coco"
            (images in folders, instances in JSON files).
        train_images: Scenes to train on; folders have as many as they have.
        test_images: Scenes to test on; likewise.
        image_size: Side of a scene, of a crop in segmentation; the longer side at most, in detection.
        width: Channels of the head: of UPerNet's convolutions, of the detectors' pyramid and mask heads.
        auxiliary_width: Segmentation: channels of the auxiliary head.
        box_width: Detection: outputs of each linear layer of a box head.
        anchor_scale: Detection: side of a level's square anchor, in pixels of that level.
        proposals: Detection: regions that are looked at, in training and at test.
        boxes_per_image: Detection: regions that a box head learns from, of each image.
        steps: Optimizer steps.
        batch_size: Images in each.
        lr: Learning rate of AdamW, at its height.
        weight_decay: Of weights; norms and biases have none.
        schedule: "linear" to 0, or "step": times 0.1 at each of `decay_steps`.
        decay_steps: Where the rate falls.
        warmup_steps: Steps in which the rate rises linearly.
        warmup_ratio: The share of it that the rise starts at.
        layer_decay: Each group of the backbone's layers trains with the rate of the next one times this; 1 is the same
            for all.
        decay_by: Whether a group is three blocks of a stage ("layers") or a stage ("stages").
        drop_path: Stochastic depth of the backbone's last block.
        clip_grad: Largest norm of the gradient; None for any.
        amp: Precision of the forward pass, as in `Recipe`.
        hflip: Probability of a mirrored image.
        scales: Segmentation: how much larger or smaller an image is made before a crop is cut, at least and at most.
        short_sides: Detection: the lengths that an image's shorter side may get; the last one at test.
        test_stride: Segmentation: pixels between the windows, of the crop's size, that the test looks through; None
            looks at whole images.
        test_scales: Segmentation: sizes of an image over which the test averages.
        test_flip: Segmentation: whether it averages over the mirrored image too.

    Source: Tables 3 and 4 of the paper and the configurations that its authors released (the values in
        recipes/downstream/ade20k.yaml, coco.yaml and coco_cascade.yaml).
    """

    name: str = field(metadata=NAME)
    about: str = field(metadata=NAME)
    framework: Framework
    dataset: Literal["scenes", "ade20k", "coco"]
    train_images: PositiveInt | None = None
    test_images: PositiveInt | None = None
    image_size: PositiveInt

    width: PositiveInt
    auxiliary_width: PositiveInt = 256
    box_width: PositiveInt = 1024
    anchor_scale: PositiveInt = 8
    proposals: PositiveInt = 1000
    boxes_per_image: PositiveInt = 512

    steps: PositiveInt
    batch_size: PositiveInt
    lr: Positive
    weight_decay: Annotated[StrictFloat, Field(ge=0)] = 0.05
    schedule: Literal["linear", "step"] = "linear"
    decay_steps: tuple[PositiveInt, ...] = ()
    warmup_steps: Annotated[int, Field(ge=0, strict=True)] = 0
    warmup_ratio: Share = 0.0
    layer_decay: Annotated[StrictFloat, Field(gt=0, le=1)] = 1.0
    decay_by: Literal["layers", "stages"] = "layers"
    drop_path: Share = 0.0
    clip_grad: Positive | None = None
    amp: Precision = "none"

    hflip: Share = 0.5
    scales: tuple[Positive, Positive] = (1.0, 1.0)
    short_sides: tuple[PositiveInt, ...] = ()
    test_stride: PositiveInt | None = None
    test_scales: tuple[Positive, ...] = (1.0,)
    test_flip: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> "TaskRecipe":
        wrong: dict[str, str] = {}
        if (self.dataset == "scenes") != (self.train_images is not None and self.test_images is not None):
            wrong["train_images"] = (
                "train_images and test_images say how many scenes there are: dataset 'scenes' needs both, others none."
            )
        if self.dataset != "scenes" and (self.dataset == "ade20k") != self.is_segmentation:
            wrong["dataset"] = f"dataset is '{self.dataset}', which is not for {LABELS[self.framework]}."
        if (self.schedule == "step") != bool(self.decay_steps):
            wrong["decay_steps"] = "decay_steps belong to schedule 'step', which needs at least one."
        if self.warmup_steps >= self.steps:
            wrong["warmup_steps"] = f"warmup_steps is {self.warmup_steps}, but must be below steps, {self.steps}."
        if (self.dataset == "coco") != bool(self.short_sides):
            wrong["short_sides"] = "short_sides belong to dataset 'coco', which needs at least one."
        if self.scales[0] > self.scales[1]:
            wrong["scales"] = f"scales are {self.scales}, but the smaller one comes first."
        if wrong:
            raise FieldErrors([((name,), text) for name, text in wrong.items()])
        return self

    @property
    def is_segmentation(self) -> bool:
        """Whether pixels get classes, rather than objects boxes and masks."""
        return self.framework == "upernet"

    def training(self) -> dict[str, Any]:
        """Return the settings that decide its numbers."""
        about = {each.name for each in fields(self) if each.metadata == NAME}
        return {name: value for name, value in asdict(self).items() if name not in about}


KEYS = {"": [each.name for each in fields(TaskRecipe)]}


def known_tasks() -> dict[str, Path]:
    """Return the shipped recipes of tasks: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


@cache
def read_task(task: str) -> TaskRecipe:
    """Read a task's recipe by its name in recipes/downstream/, or by the path of a YAML file.

    Raises:
        UserError: If there is none of that name, or it does not fit (all errors in one message).
    """
    shipped = known_tasks()
    path = Path(task) if task.endswith((".yaml", ".yml")) else shipped.get(task)
    if path is None:
        raise unknown("task", task, shipped)
    return read_yaml(path, TaskRecipe, KEYS)
