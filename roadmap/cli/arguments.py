"""Every option of the command line, each declared once; `roadmap.cli.commands` says which command has which."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from roadmap.common.libraries import LIBRARIES


@dataclass(frozen=True)
class Option:
    """An option, or (without leading dashes) a word that follows the command.

    Attributes:
        name: As it is typed, such as "--steps-module".
        help: What it means, in a line.
        metavar: What its value is called in the help; "" for an option without a value.
        nargs: How many values it takes: "" for one, else as argparse has it.
        default: Its value where it was not given; "" and "fashion" are texts like those that a user types.
        const: Its value where it was given without one (nargs "?").
        choices: The values that it may have; empty where only the command can tell.
        path: Whether its values are paths.
    """

    name: str
    help: str
    metavar: str = ""
    nargs: Literal["", "?", "*", "+"] = ""
    default: Any = None
    const: str | None = None
    choices: tuple[str, ...] = ()
    path: bool = False

    @property
    def dest(self) -> str:
        """Its name in the parsed options."""
        return self.name.lstrip("-").replace("-", "_").lower()

    @property
    def argument(self) -> str:
        """Its name for argparse."""
        return self.dest if self.is_word else self.name

    @property
    def is_word(self) -> bool:
        """Whether it is a word after the command rather than an option."""
        return not self.name.startswith("-")

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return not self.metavar

    def keywords(self) -> dict[str, Any]:
        """Return how argparse wants it."""
        if self.is_flag:
            return {"action": "store_true"}
        words: dict[str, Any] = {"nargs": self.nargs or None, "const": self.const, "choices": self.choices or None}
        words |= {"type": Path if self.path else None, "metavar": self.metavar, "default": self.default}
        return {name: value for name, value in words.items() if value is not None}


# -- which networks
BASE = Option("--base", "resnet50, vgg16 ..., or one of the ladder's", "NAME")
STEPS = Option("--steps", "another ladder (default: the base's)", "LADDER")
STEPS_MODULE = Option("--steps-module", "Python files with steps of your own", "FILE", "+", path=True)
ONLY = Option("--only", "these rungs alone", "RUNG", "+")
UNTIL = Option("--until", "the rungs up to this one", "RUNG")
DESIGN = Option("--design", "leave-one-out, add-one, orders, pairs, fractional", "NAME", "+")
SAMPLES = Option("--samples", "orders (8), or combinations of --design fractional", "N")
REFERENCES = Option("--references", "also resnext50, swin_tiny, swin_small, swin_base", "NAME", "*")
MATCH = Option("--match", "FLOPs-matched: base (default), previous or 1e9 MACs", "TO", "?", const="base")
# -- how they are trained
RECIPE = Option("--recipe", "how to train: a name or a file (default: fashion)", "NAME", default="fashion")
SEEDS = Option("--seeds", "one run a rung for each (default: the recipe's)", "N", "+")
DATA = Option("--data", "where the data set is", "DIR", path=True)
CHECKSUM = Option("--checksum", "know images in files by content, not size and time")
WEIGHTS = Option("--weights", "to fine-tune: an export, a file or timm:NAME", "PLACE")
VALIDATE = Option("--validate", "test on validation images, to choose a recipe")
RUNS = Option("--runs", "run folders (default: runs)", "DIR", default=Path("runs"), path=True)
# -- a budget in place of a number of seeds
BUDGET = Option("--budget", "spend it where steps are open: 60runs, 8h, 200gpuh", "SUM")
UNTIL_ANSWERED = Option("--until-answered", "add seeds until all steps are answered")
# -- how jobs are started
EXECUTOR = Option("--executor", "local (default), slurm or debug", "NAME", choices=("local", "slurm", "debug"))
CLUSTER = Option("--cluster", "what a run's job asks for (docs/cluster.md)", "FILE", path=True)
JOBS = Option("--jobs", "jobs at once (default: one a GPU, else one a core)", "N")
RUNS_PER_JOB = Option("--runs-per-job", "slurm: runs that share a job (default: 1)", "N")
MAX_RETRIES = Option("--max-retries", "new tries of a killed run (default: 2)", "N")
TENSORBOARD = Option("--tensorboard", "curves for TensorBoard, in runs/tensorboard")
LOGGER = Option("--logger", "functions that follow the runs (docs/planning.md)", "MODULE:F", "+")
DRY_RUN = Option("--dry-run", "print the Slurm script and submit nothing")
# -- what comes out
OUT = Option("--out", "reports (default: out/BASE-RECIPE...)", "DIR", path=True)
MARGIN = Option("--margin", "smaller changes of top-1 are no effect (0.2)", "POINTS")
JSON = Option("--json", "print one JSON object a line")
PUBLISHED = Option("--published", "the paper's own numbers")
RECORD = Option("--record", "judge a record again by today's rule, from its rows alone", "DIR", path=True)
TEST = Option("--test", "the rule: shared noise (default) or welch", "NAME", choices=("shared", "welch"))
TITLE = Option("--title", "of figures and page", "TEXT")
WIDTH = Option("--width", "of figures, in inches (default: 7; a column: 3.3)", "INCHES")
LABELS = Option("--labels", "YAML with what rungs are called (rung: label)", "FILE", path=True)
COLUMNS = Option("--columns", "of the LaTeX tables (rung step change answer)", "NAME", "+")
STEP = Option("--step", "this rung alone, in every metric", "RUNG", "+")
AGAINST = Option("--against", "with this rung (default: the one before it)", "NAME")
WITH = Option("--with", "beside these: a base, recipe, ladder, runs, record, paper", "STUDY", "+")
# -- of one command
LADDER = Option("LADDER", "the ladder's name or file (default: the base's)", "LADDER", "?")
FILE = Option("FILE", "CSV, a row a run: rung, seed, one metric or more", "FILE", path=True)
METRICS = Option("--metrics", "columns that are metrics, the main one first (all)", "NAME", "+")
LOWER_IS_BETTER = Option("--lower-is-better", "metrics of which less is better", "NAME", "+")
FORMAT = Option(
    "--format", f"roadmap (default), {', '.join(LIBRARIES)} or onnx (docs/weights.md)", "NAME",
    default="roadmap", choices=("roadmap", *LIBRARIES, "onnx"),
)  # fmt: skip
FOLD = Option("--fold-layer-scale", "multiply it into the convolution before it")
SHELL = Option("SHELL", "bash or zsh", "SHELL", choices=("bash", "zsh"))
TASK = Option("--task", "segmentation (default), detection, ade20k, coco, a file", "NAME", default="segmentation")
FROM_SCRATCH = Option("--from-scratch", "begin with random backbones, not the classifiers'")
TASK_DATA = Option("--task-data", "where the task's images lie, if they are not made", "DIR", path=True)
DOWNSTREAM = Option("--downstream", "detectors and segmenters (Tables 3, 4)")
DEVICE = Option("--device", "forecast for GPUs of this kind (a100, h100, ...)", "NAME")
MEASURE = Option("--measure", "time a few networks on this machine first")
PRICE = Option("--price", "of an hour of a GPU (or core), in any currency", "P")
IMAGES = Option("--images", "test images for each network (default: 500)", "N")
METRIC = Option("--metric", "functions that measure trained networks", "FILE:F", "+")
RADII = Option("--radii", "of attacks, in 255ths of a pixel's range (2 4 8)", "R", "+")
