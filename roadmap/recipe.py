"""How a network is trained: `Recipe`, every setting of the paper's Table 5 and of its plain counterpart; its reader."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from roadmap.common.errors import FieldErrors, UserError, unknown
from roadmap.common.fields import LATER, PositiveFloat, PositiveInt, diff, hashed_fields
from roadmap.common.paths import RECIPES
from roadmap.common.yaml_files import explain, read_yaml
from roadmap.networks.config import Init
from roadmap.networks.families import BASES

Precision = Literal["none", "bfloat16", "float16"]
IN_MEMORY = ("fashion_mnist_part", "fashion_mnist", "cifar10", "cifar100")
# What timm calls RandAugment, which ignores a part that it cannot read; of an image folder it takes other policies too.
RANDAUGMENT = re.compile(r"rand(-((m|n|inc|mmax)\d+|(p|mstd)\d+(\.\d+)?|t\w+))*")
MOST_SEED = 2**63 - 1  # what a table's whole numbers hold
READERS = ("hfds", "wds", "tfds")  # of timm's, which a data set's name may begin with

# A field that says what a recipe is, or how a study uses it, does not enter a run's id.
NAME = {"name": True}  # nor is it compared between recipes
SCALE = {"scale": True}  # the scale is in the run's network already


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Recipe:
    """One training recipe; the YAML files of recipes/ have these keys.

    Lengths are epochs, sizes pixels, learning rates those of the whole (global) batch. A rate or probability of 0 turns
    its part off.

    Attributes:
        name: Its name in reports, which go to a folder named after it.
        about: What it reproduces, in a line.
        plain: The recipe that is the plain counterpart of this one, in recipes/ or beside it: the paper's ladder starts
            under it.
        paper: The paper's recipe that this one stands for, in recipes/: what differs from it is stored with each run.
        means_nothing: Whether it trains too little for its results to mean anything, and only shows that everything
            works: then reports claim nothing.
        seeds: One run a rung for each of these.
        budget: What a study spends in place of these seeds where the command names neither, such as "102runs": runs
            go where steps are still open. In runs alone, which are the same on every machine.
        width_divisor: Proxy: every stage width is divided by this. 1 is full width.
        stem_stride: Proxy: stride of the stem; 4 in the paper, 2 for small images.
        for_base: Settings that differ where the ladder starts from a certain base, by its name.
        dataset: The images: one of `IN_MEMORY`, "folder" (with train/ and val/), or "hfds/NAME", "wds/NAME",
            "tfds/NAME" for timm's readers of Hugging Face's, webdataset's and tensorflow's data sets.
        train_split: hfds/, wds/, tfds/: the split to train on, in the words of its library.
        test_split: hfds/, wds/, tfds/: the split to test on.
        image_key: hfds/, wds/, tfds/: where a sample has its image, if not where timm looks.
        label_key: hfds/, wds/, tfds/: where a sample has its class, if not where timm looks.
        validation_images: How many of the training images (the last ones) no run trains on, so that recipes can be
            chosen on them and the test set is left for the report.
        needs_test: Image folders: whether a study must have images to test on. Where it need not, and there is no val/,
            runs are trained and not tested.
        images: Image folders: how many training images there should be, for a plan without them.
        classes: Image folders: how many classes, likewise.
        image_size: Height and width of the network's input.
        optimizer: "adamw" or "sgd" (with momentum, not Nesterov's).
        decay_norms_and_biases: Whether weight decay applies to norms and biases too.
        schedule: "cosine" to `min_lr`, or "step": times `decay_rate` every `decay_epochs`. Set at every step.
        warmup_reaches_lr: Whether the last step of the warm-up has the whole learning rate, as in the authors' code,
            instead of the first step after it.
        layer_decay: Fine-tuning: each group of layers trains with the learning rate of the next one times this; a group
            is three blocks of a stage. 1 gives all the same.
        pretrained: Whether training starts from the weights that `--weights` names instead of random ones.
        init: The distribution of the first weights where they are random: "trunc_normal" (standard deviation 0.02, as
            in the released ConvNeXt), "kaiming" (fan-out for convolutions, as in torchvision's ResNet) or "pytorch"
            (its own, and 0.02 for the head, as the submission's code has it for the ladder).
        head_init_scale: What the head's first weights are multiplied by, where they are random ones.
        clip_grad: Largest norm of the gradient, or None.
        accumulate: Pieces that a batch is taken in, one after the other, their gradients summed, where a whole one does
            not fit into memory. BatchNorm averages over each piece alone.
        ghost_batch: Images of a ghost batch: the batch is made of so many images each that are taken one after the
            other, as if each were on a GPU of its own. Mixup and cutmix draw once for each, BatchNorm averages over
            each, and the first one's statistics are kept for the test, however many processes share the work. None
            makes the whole batch one for mixup, and each process's piece of it one for BatchNorm.
        sync_batch_norm: Where several processes train a run: whether BatchNorm averages over the whole batch instead of
            each process's share of it.
        amp: Precision of the forward pass: "none" (float32), or "bfloat16" or "float16" autocast (the latter with a
            scaled loss).
        tf32: On GPUs: whether float32 products may round their factors to TF32's 10 bits.
        compile: Whether `torch.compile` makes kernels for the network, which takes a minute before the first step.
        shift: Small images: random translation by up to this many pixels.
        hflip: Probability of a mirrored image.
        random_resized_crop: Image folders: smallest share of the area that a training crop keeps; 1 turns it off.
        randaugment: timm's name for the policy, or None.
        color_jitter: Image folders: strength, used where RandAugment is off, as in timm.
        interpolation: How images of a folder are resized, and how RandAugment turns and shears any.
        test_resize: Image folders: how images are resized at test: "shorter" keeps their proportions, "squash" makes
            them square.
        test_crop: Image folders: share of the resized image's shorter side that the centre crop keeps at test.
        mixup_switch_prob: Probability of cutmix instead of mixup where both are on.
        random_erasing: Probability that a rectangle becomes noise, pixel by pixel.
        drop_path: Stochastic depth of the last block, linear over depth.
        ema: Decay of the moving average of the weights, or None; the ladder of the paper had none.

    Source: Tables 5 and 6 (the field's values in recipes/imagenet.yaml and recipes/finetune_384.yaml), He et al. 2016
        (recipes/imagenet_original.yaml).
    """

    name: str = field(metadata=NAME)
    about: str = field(metadata=NAME)
    plain: str = field(metadata=NAME)
    paper: str = field(default="imagenet", metadata=NAME)
    means_nothing: StrictBool = field(default=False, metadata=NAME)
    seeds: tuple[Annotated[StrictInt, Field(ge=0, le=MOST_SEED)], ...] = field(default=(0, 1, 2), metadata=NAME)
    budget: str | None = field(default=None, metadata=NAME)
    width_divisor: PositiveInt = field(default=1, metadata=SCALE)
    stem_stride: Literal[2, 4] = field(default=4, metadata=SCALE)
    for_base: dict[str, dict[str, Any]] = field(default_factory=dict, metadata=NAME)

    dataset: str
    train_split: str = field(default="train", metadata=LATER)
    test_split: str = field(default="validation", metadata=LATER)
    image_key: str | None = field(default=None, metadata=LATER)
    label_key: str | None = field(default=None, metadata=LATER)
    validation_images: StrictInt = 0
    needs_test: StrictBool = field(default=True, metadata=NAME)
    images: Annotated[StrictInt, Field(ge=0)] = field(default=0, metadata=NAME)
    classes: PositiveInt = field(default=1000, metadata=NAME)
    image_size: StrictInt = Field(gt=0, le=10_000)

    epochs: StrictInt = Field(gt=0, le=1_000_000)
    batch_size: PositiveInt
    optimizer: Literal["adamw", "sgd"]
    lr: StrictFloat
    weight_decay: StrictFloat
    betas: tuple[StrictFloat, StrictFloat] = (0.9, 0.999)
    momentum: StrictFloat = 0.9
    decay_norms_and_biases: StrictBool = False
    schedule: Literal["cosine", "step"]
    min_lr: StrictFloat = 0.0
    warmup_epochs: StrictFloat = 0.0
    warmup_lr: StrictFloat = 0.0
    warmup_reaches_lr: StrictBool = field(default=False, metadata=LATER)
    decay_epochs: PositiveFloat = 30.0
    decay_rate: StrictFloat = 0.1
    layer_decay: Annotated[StrictFloat, Field(gt=0, le=1)] = field(default=1.0, metadata=LATER)
    pretrained: StrictBool = field(default=False, metadata=LATER)
    init: Init = field(default="trunc_normal", metadata=LATER)
    head_init_scale: Annotated[StrictFloat, Field(gt=0)] = field(default=1.0, metadata=LATER)
    clip_grad: StrictFloat | None = None
    accumulate: PositiveInt = field(default=1, metadata=LATER)
    ghost_batch: PositiveInt | None = field(default=None, metadata=LATER)
    sync_batch_norm: StrictBool = field(default=False, metadata=LATER)
    amp: Precision = "none"
    tf32: StrictBool = field(default=False, metadata=LATER)
    compile: StrictBool = field(default=False, metadata=LATER)

    shift: StrictInt = 0
    hflip: StrictFloat = 0.0
    random_resized_crop: StrictFloat = 1.0
    randaugment: str | None = None
    color_jitter: StrictFloat = 0.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    test_resize: Literal["shorter", "squash"] = field(default="shorter", metadata=LATER)
    test_crop: StrictFloat = 0.875
    mixup: StrictFloat = 0.0
    cutmix: StrictFloat = 0.0
    mixup_switch_prob: StrictFloat = 0.5
    random_erasing: StrictFloat = 0.0
    label_smoothing: StrictFloat = 0.0
    drop_path: StrictFloat = 0.0
    ema: StrictFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        wrong = self._number_errors() | self._ghost_batch_errors() | self._data_errors() | self._base_errors()
        if wrong:
            raise FieldErrors([((field,), text) for field, text in wrong.items()])
        return self

    def _number_errors(self) -> dict[str, str]:
        """Return what is wrong with numbers by themselves and with each other, by the setting."""
        wrong: dict[str, str] = {}
        if self.lr <= 0:
            wrong["lr"] = f"lr is {self.lr}, but must be above 0."
        rates = (
            "min_lr",
            "warmup_lr",
            "warmup_epochs",
            "weight_decay",
            "decay_rate",
            "mixup",
            "cutmix",
            "color_jitter",
        )
        for name in ("shift", *rates):
            if getattr(self, name) < 0:
                wrong[name] = f"{name} is {getattr(self, name)}, but must be from 0 up."
        if self.warmup_epochs >= self.epochs:
            wrong["warmup_epochs"] = (
                f"warmup_epochs is {self.warmup_epochs:g}, but must be below epochs, {self.epochs}. Warm up for less."
            )
        for name, values in {"betas": self.betas, "momentum": (self.momentum,), "ema": (self.ema or 0.0,)}.items():
            if not all(0 <= value < 1 for value in values):
                wrong[name] = f"{name} is {getattr(self, name)}, but must be from 0 up and below 1."
        if self.clip_grad is not None and self.clip_grad <= 0:
            wrong["clip_grad"] = f"clip_grad is {self.clip_grad}, but must be above 0, or null for none."
        for name in ("test_crop", "random_resized_crop"):
            if not 0 < getattr(self, name) <= 1:
                wrong[name] = f"{name} is {getattr(self, name)}, but is a share above 0, at most 1."
        for name in ("hflip", "mixup_switch_prob", "random_erasing", "label_smoothing", "drop_path"):
            if not 0 <= getattr(self, name) <= 1:
                wrong[name] = f"{name} is {getattr(self, name)}, but is a rate between 0 and 1."
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            wrong["seeds"] = f"seeds are {self.seeds}, but must be one or more different whole numbers."
        if self.budget is not None and not re.fullmatch(r"[1-9]\d{0,8}runs", self.budget):
            wrong["budget"] = f"budget is '{self.budget}', but must be a number of runs, such as 102runs."
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            wrong["batch_size"] = f"batch_size is {self.batch_size}, but mixup and cutmix mix pairs. Use an even one."
        if self.batch_size % self.accumulate:
            wrong["accumulate"] = f"accumulate is {self.accumulate}, but must divide batch_size, {self.batch_size}."
        return wrong

    def _data_errors(self) -> dict[str, str]:
        """Return what does not go with the data set, by the setting."""
        wrong: dict[str, str] = {}
        if not self.in_memory and self.dataset != "folder" and not self.reader:
            known = ", ".join(f"'{name}'" for name in (*IN_MEMORY, "folder"))
            names = ", ".join(f"'{name}/NAME'" for name in READERS)
            wrong["dataset"] = f"dataset is '{self.dataset}', but must be {known}, or one for a reader: {names}."
        for name in ("train_split", "test_split", "image_key", "label_key"):
            if "dataset" not in wrong and not self.reader and getattr(self, name) != DEFAULTS[name]:
                wrong[name] = f"{name} works on hfds/, wds/ and tfds/, not on dataset '{self.dataset}'. Take it out."
        off_in_memory = {"color_jitter": 0.0, "random_resized_crop": 1.0, "test_resize": "shorter"}
        for name, off in off_in_memory.items():
            if self.in_memory and getattr(self, name) != off:
                wrong[name] = f"{name} works on image folders, not on dataset '{self.dataset}'. Take it out."
        is_rand = self.in_memory or (self.randaugment or "").startswith("rand")
        if self.randaugment and is_rand and not RANDAUGMENT.fullmatch(self.randaugment):
            wrong["randaugment"] = (
                f"randaugment is '{self.randaugment}', but is timm's name for one, such as rand-m9-mstd0.5-inc1."
            )
        if self.validation_images < 0 or (not self.in_memory and self.validation_images):
            wrong["validation_images"] = (
                f"validation_images is {self.validation_images}, but must be from 0 up, and 0 for image folders. Move "
                "images to a val/ folder of your own instead."
            )
        if not self.in_memory and self.shift:
            wrong["shift"] = "shift works on small images in memory. Use random_resized_crop on image folders."
        return wrong

    def _base_errors(self) -> dict[str, str]:
        """Return what is wrong with the settings of single bases."""
        wrong: dict[str, str] = {}
        for base in self.for_base:
            if base not in BASES and difflib.get_close_matches(base, BASES, n=1):  # else it may be a ladder's own
                wrong["for_base"] = str(unknown("base", base, BASES, place="for_base"))
            elif fixed := {"name", "plain", "paper", "for_base"} & set(self.for_base[base]):
                wrong["for_base"] = (
                    f"for_base.{base} sets {', '.join(sorted(fixed))}, which no base changes. Take it out."
                )
        return wrong

    def _ghost_batch_errors(self) -> dict[str, str]:
        """Return what is wrong with ghost batches, by the setting."""
        wrong: dict[str, str] = {}
        ghost, mixes = self.ghost_batch, bool(self.mixup or self.cutmix)
        if not ghost:
            return wrong
        if self.batch_size % ghost or (mixes and ghost % 2):
            pairs = " and be even, for mixup and cutmix mix pairs" if mixes else ""
            wrong["ghost_batch"] = f"ghost_batch is {ghost}, but must divide batch_size, {self.batch_size}{pairs}."
        if self.accumulate > 1:
            wrong["accumulate"] = (
                f"accumulate is {self.accumulate}, but a batch is taken in ghost batches of {ghost} images already. "
                "Take it out."
            )
        if self.sync_batch_norm:
            wrong["sync_batch_norm"] = (
                f"sync_batch_norm is true, but BatchNorm averages over each ghost batch of {ghost} images. Take one of "
                "the two out."
            )
        return wrong

    @property
    def in_memory(self) -> bool:
        """Whether the images are small and few enough to be held in memory whole."""
        return self.dataset in IN_MEMORY

    @property
    def reader(self) -> str:
        """The reader of timm's that the data set's name begins with, or ""."""
        kind, _, name = self.dataset.partition("/")
        return kind if kind in READERS and name else ""

    @property
    def is_proxy(self) -> bool:
        """Whether results under this recipe stand for the paper's experiment instead of repeating it."""
        return self.in_memory or self.width_divisor != 1 or self.stem_stride != 4

    def training(self) -> dict[str, Any]:
        """Return the settings that decide what a run computes, for its id."""
        hashed, about = hashed_fields(self), {f.name for f in fields(self) if f.metadata in (NAME, SCALE)}
        return {name: value for name, value in hashed.items() if name not in about}

    def differences(self, other: "Recipe") -> dict[str, tuple[Any, Any]]:
        """Return the settings of training and scale that differ from another recipe's: name -> (the other's, ours)."""
        names = {f.name for f in fields(self) if f.metadata == NAME}
        return {name: values for name, values in diff(other, self).items() if name not in names}


KEYS = {"": [field.name for field in fields(Recipe)]}
DEFAULTS = {field.name: field.default for field in fields(Recipe)}


@cache
def read_recipe(recipe: str | Path, base: str | None = None) -> Recipe:
    """Read a recipe by its name in recipes/, or by the path of a YAML file, as it applies to a base.

    Raises:
        UserError: If there is none of that name, or it does not fit (all errors in one message), or it has the name
            of a shipped recipe and other settings.
    """
    shipped = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    path = Path(recipe) if str(recipe).endswith((".yaml", ".yml")) else shipped.get(str(recipe))
    if path is None:
        raise unknown("recipe", recipe, shipped)
    read = read_yaml(path, Recipe, KEYS)
    plain = read.plain
    beside = path.parent / f"{plain}.yaml"
    if path.parent.resolve() != RECIPES and beside.is_file():  # a copy beside an own recipe is meant to be edited
        plain = str(beside)
    elif plain not in shipped:
        raise unknown("recipe", plain, shipped, place=f"{path}: plain (in recipes/ or beside this file)")
    if read.paper not in shipped:
        raise unknown("recipe", read.paper, shipped, place=f"{path}: paper (in recipes/)")
    _check_name(read, path, shipped)
    try:
        return replace(read, plain=plain, **read.for_base.get(base or "", {}))
    except (ValidationError, TypeError) as error:
        place = f"{path}: for_base.{base}"
        text = explain(error, place, KEYS) if isinstance(error, ValidationError) else f"{place}: {error}."
        raise UserError(text) from error


def _check_name(recipe: Recipe, path: Path, shipped: Mapping[str, Path]) -> None:
    """Refuse the name of a shipped recipe for other settings: reports would mix the two up."""
    name = recipe.name
    if name not in shipped or path.resolve() == shipped[name].resolve():
        return
    if changed := recipe.differences(read_yaml(shipped[name], Recipe, KEYS)):
        raise UserError(
            f"{path}: name is '{name}', that of a recipe in recipes/ from which this one differs in "
            f"{', '.join(changed)}. Give it a name of its own, so that reports do not mix the two up."
        )


def read_plain(recipe: Recipe, base: str | None = None) -> Recipe:
    """Return the plain counterpart that a recipe names."""
    return read_recipe(recipe.plain, base)


def read_paper(recipe: Recipe, base: str | None = None) -> Recipe:
    """Return the paper's recipe that a recipe stands for."""
    return read_recipe(recipe.paper, base)
