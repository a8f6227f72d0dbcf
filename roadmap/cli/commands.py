"""The commands: what each is for, which options it has, where its function is, and its exit codes."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from importlib import import_module

from roadmap.cli import arguments as a
from roadmap.cli.arguments import Option

Options = dict[str, Sequence[Option]]  # heading in the help -> options
NETWORKS: Options = {
    "which networks": (
        a.BASE, a.STEPS, a.STEPS_MODULE, a.ONLY, a.UNTIL, a.DESIGN, a.SAMPLES, a.REFERENCES, a.MATCH,
    ),
}  # fmt: skip
STUDY: Options = NETWORKS | {
    "how they are trained": (a.RECIPE, a.SEEDS, a.DATA, a.CHECKSUM, a.WEIGHTS, a.VALIDATE, a.RUNS),
}
SCHEDULING = (a.EXECUTOR, a.CLUSTER, a.JOBS, a.RUNS_PER_JOB, a.MAX_RETRIES)
SPENDING = (a.BUDGET, a.UNTIL_ANSWERED, a.PRICE)  # in place of a number of seeds
BUDGETED: Options = NETWORKS | {
    "how they are trained": (
        *STUDY["how they are trained"], *SPENDING, replace(a.STEP, help="with these: seeds for these steps alone"),
    ),
}  # fmt: skip
STARTING: Options = {"how jobs are started": (*SCHEDULING, a.DRY_RUN, a.TENSORBOARD, a.LOGGER)}
LOOK = (a.TITLE, a.WIDTH, a.LABELS, a.COLUMNS)
SEEDS_FOUND = replace(a.SEEDS, help="default: the recipe's and all that have runs")


class Exit(IntEnum):
    """The exit code of a command."""

    OK = 0
    FAILED = 1  # a check or a run failed
    REFUSED = 2  # cannot be done as asked: a `UserError`
    INTERRUPTED = 130  # Ctrl-C, as shells have it


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: As it is typed.
        group: The heading that it stands under in the program's help.
        help: What it does, in a line.
        module: The module of `roadmap.cli` with its function, which has its name.
        options: Heading -> options, and words that may follow it.
        accepted: Options that change nothing here, taken so that the words that started a study's runs also name it
            to the commands that look at it.
    """

    name: str
    group: str
    help: str
    module: str
    options: Options
    accepted: Sequence[Option] = ()

    @property
    def words(self) -> list[Option]:
        """The words that may follow it."""
        return [option for option in self.all_options() if option.is_word]

    def all_options(self) -> Iterator[Option]:
        """Yield all that it takes, what it only accepts too."""
        yield from (option for group in self.options.values() for option in group)
        yield from self.accepted

    def command_line(self, options: Namespace) -> list[str]:
        """Return the words, this command's name first, that give it those of some options that it takes."""
        words = [self.name]
        for option in self.all_options():
            value = getattr(options, option.dest)
            if option.is_flag:
                words += [option.name] * bool(value)
            elif value is not None and value != option.default:
                words += [option.name, *map(str, value if isinstance(value, list) else [value])]
        return words

    def function(self) -> Callable[..., Exit]:
        """Return what carries it out: a function from the parsed options to an exit code."""
        function: Callable[..., Exit] = getattr(import_module(f"roadmap.cli.{self.module}"), self.name)
        return function


def _of_study(name: str, group: str, does: str, module: str, *own: Option) -> Command:
    """Return a command that looks at a study's rungs or runs and has a few options of its own."""
    looks_back = name in ("status", "report", "compare", "evaluate", "downstream", "export")
    taken = {option.name for option in own}
    options: Options = {
        heading: [SEEDS_FOUND if looks_back and each == a.SEEDS else each for each in group if each.name not in taken]
        for heading, group in STUDY.items()
    }
    accepted = [option for option in (*SCHEDULING, *SPENDING, a.METRIC) if option.name not in taken]
    return Command(name, group, does, module, options | ({f"options of {name}": own} if own else {}), accepted=accepted)


BEFORE, TRAINING, RESULTS, MACHINE = "before training", "training", "results", "this machine and the shell"
COMMANDS = {
    command.name: command
    for command in (
        Command(
            "verify", BEFORE, "hold every rung's multiply-adds against the paper's", "plan_commands",
            {
                "which networks": (a.BASE, a.STEPS, a.STEPS_MODULE, a.MATCH, a.DOWNSTREAM),
                "what is printed": (replace(a.RECIPE, help="of a ladder that changes it (default: fashion)"), a.JSON),
            },
        ),
        Command(
            "check", BEFORE, "hold a ladder's steps, your own too, to what a step must keep", "check_command",
            {"which networks": (a.LADDER, a.BASE, a.STEPS, a.STEPS_MODULE, a.MATCH), "what is printed": (a.JSON,)},
        ),
        _of_study(
            "plan", BEFORE, "what would run, its time and price, and what is done already", "plan_commands",
            a.JOBS, a.DEVICE, a.MEASURE, a.PRICE, replace(a.BUDGET, help="what it answers: 60runs, 8h, 200gpuh"),
            a.METRIC, replace(a.STEP, help="with --budget: these steps alone"), a.MARGIN,
            replace(a.RECORD, help="with --budget: whose noise the forecast takes"), a.JSON,
        ),
        Command(
            "diff", BEFORE, "the settings in which a recipe differs from the paper's, or another", "plan_commands",
            {"options": (a.RECIPE, replace(a.AGAINST, help="the other recipe (default: the paper's)"), a.BASE, a.JSON)},
        ),
        Command(
            "run", TRAINING, "train what is missing, with live progress, and report (the default)", "run_commands",
            BUDGETED | STARTING | {"the report": (a.METRIC, a.OUT, a.MARGIN, a.TEST, a.TITLE, a.WIDTH, a.LABELS)},
        ),
        Command(
            "launch", TRAINING, "start the jobs and return", "run_commands",
            BUDGETED | STARTING | {"what no effect is, for a budget": (a.MARGIN,)},
        ),
        _of_study("status", TRAINING, "where every run stands", "report_commands", a.JSON),
        _of_study(
            "cancel", TRAINING, "stop what runs; it resumes from its checkpoints when launched again", "run_commands"
        ),
        _of_study(
            "report", RESULTS, "tables, figures and a page, from the run folders alone", "report_commands",
            a.OUT, a.MARGIN, a.TEST, *LOOK, a.PUBLISHED, a.RECORD,
        ),
        _of_study(
            "compare", RESULTS, "answers on all steps, on one (--step), or beside other studies", "compare_commands",
            a.STEP, a.AGAINST, a.WITH, a.MARGIN, a.TEST, a.PUBLISHED,
            replace(a.RECORD, help="a record in place of runs"), replace(a.OUT, help="for --with: where to"),
            *LOOK[:3], a.JSON,
        ),
        Command(
            "judge", RESULTS, "answers, figures and a page for anybody's results", "report_commands",
            {
                "which results": (
                    a.FILE,
                    a.METRICS,
                    a.LOWER_IS_BETTER,
                    replace(a.AGAINST, help="previous (default), or a rung for all", metavar="RUNG"),
                ),
                "what comes out": (
                    replace(a.OUT, help="where to (default: out/ and the file's name)"),
                    replace(a.MARGIN, help="smaller changes of the main metric are no effect"),
                    a.TEST,
                    *LOOK,
                    a.JSON,
                ),
            },
        ),
        _of_study(
            "evaluate", RESULTS, "trained networks by metrics of your own, for the report", "evaluation_commands",
            a.METRIC, a.EXECUTOR, a.CLUSTER, a.JOBS, a.RUNS_PER_JOB, a.MAX_RETRIES, a.JSON,
        ),
        _of_study(
            "robustness", RESULTS, "accuracy under attacks and corruptions, for the report", "evaluation_commands",
            a.IMAGES, a.RADII, a.EXECUTOR, a.CLUSTER, a.JOBS, a.RUNS_PER_JOB, a.MAX_RETRIES, a.JSON,
        ),
        _of_study(
            "downstream", RESULTS, "the networks as backbones of detectors and segmenters", "downstream_commands",
            a.TASK, a.FROM_SCRATCH, replace(a.WEIGHTS, help="for the backbones: an export, a file or timm:NAME"),
            a.TASK_DATA,
            *SPENDING, replace(a.STEP, help="with these: for these steps alone"),
            replace(a.MARGIN, help="smaller changes of miou, box_ap are no effect (0.5)"),
            a.EXECUTOR, a.CLUSTER, a.JOBS, a.RUNS_PER_JOB, a.MAX_RETRIES, a.JSON,
        ),
        _of_study(
            "export", RESULTS, "trained weights with their configuration, for timm, others, or ONNX", "run_commands",
            a.FORMAT, a.FOLD,
            replace(a.OUT, help="where to (default: export/, or export-FORMAT/, in the report's folder)"),
        ),
        _of_study(
            "measure", MACHINE, "time and memory of every rung, measured side by side", "measure_commands",
            a.EXECUTOR, a.CLUSTER, a.MAX_RETRIES, a.JSON,
            replace(a.DOWNSTREAM, help="the inference of Tables 3 and 4 instead; --only names rows"),
        ),
        _of_study(
            "calibrate", MACHINE, "the fastest precision, compiler setting and number of jobs", "measure_commands",
            a.JSON,
        ),
        Command(
            "models", MACHINE, "the paper's Table 1 counted again, its Figure 1 drawn", "measure_commands",
            {
                "options": (
                    replace(a.ONLY, help="these models alone", metavar="MODEL"),
                    replace(a.MEASURE, help="time their inference on this machine"),
                    replace(a.OUT, help="tables and figure (default: out/models)"),
                    a.JSON,
                )
            },
        ),
        Command(
            "completion", MACHINE, "print a script with which the shell completes commands and options",
            "parser", {"which shell": (a.SHELL,)},
        ),
    )
}  # fmt: skip


def owners_of(name: str) -> list[str]:
    """Return the commands that have an option and do more than accept it."""
    return [
        command.name
        for command in COMMANDS.values()
        if any(option.name == name for group in command.options.values() for option in group)
    ]
