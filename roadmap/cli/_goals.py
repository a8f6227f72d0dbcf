"""What a study in rounds is to answer, and for how much, as a command line says it."""

from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roadmap.cli.options import amount_of, jobs_of, margin_of
from roadmap.common.errors import UserError, unknown
from roadmap.common.machine import this_machine
from roadmap.common.process_group import under_torchrun
from roadmap.study.budget import Budget
from roadmap.study.networks import CLASSIFIERS, Networks

if TYPE_CHECKING:
    from roadmap.study.plan import Study


@dataclass(frozen=True)
class Goal:
    """What a study in rounds is to answer, and for how much.

    Attributes:
        budget: How much; None spends what it takes.
        steps: The steps to answer.
        margin: Changes within it are as good as none.
        networks: What is trained.
    """

    budget: Budget | None
    steps: tuple[str, ...]
    margin: float
    networks: Networks = CLASSIFIERS

    @property
    def meter(self) -> Budget:
        """What counts the costs: the budget, or runs."""
        return self.budget or Budget("", float("inf"))


def goal_of(
    options: Namespace, study: "Study", networks: Networks = CLASSIFIERS, own_margin: float | None = None
) -> Goal | None:
    """Return what a study in rounds is to reach; None where its number of seeds is fixed.

    Args:
        options: The options.
        study: The study.
        networks: What is trained in rounds.
        own_margin: The margin of what they are judged by, for where the options name none; None takes that of top-1.

    Raises:
        UserError: If the options contradict each other.
    """
    from analysis.metrics import METRICS

    text = options.budget
    if networks == CLASSIFIERS and text is None and options.seeds is None and not options.until_answered:
        text = study.recipe.budget
    if text is None and not options.until_answered:
        for name in ("step", "price"):
            if getattr(options, name) and options.command in ("run", "launch", "downstream"):
                raise UserError(f"--{name}: goes with --budget or --until-answered. Say one of them, or leave it out.")
        return None
    if options.seeds is not None:
        raise UserError("--seeds: is a fixed number of seeds, which a budget chooses by itself. Leave one of them out.")
    if under_torchrun():
        raise UserError("--budget: torchrun has started the processes of one run. Use --executor local or slurm.")
    if study.layout.fraction:
        raise UserError("--budget: of --design fractional every network needs its seeds. Say how many with --seeds.")
    steps = [step for step, _ in pairs_in(study)]
    if not steps:
        raise UserError("--budget: answers steps, but of none both rungs are here. Name the rung before it too.")
    for name in options.step or ():
        if name not in steps:
            raise unknown("step", name, steps)
    margins = (margin_of(options), own_margin, METRICS["top1"].margin)
    return Goal(
        None if text is None else _budget(options, text),
        tuple(step for step in steps if not options.step or step in options.step),
        next(margin for margin in margins if margin is not None),
        networks,
    )


def _budget(options: Namespace, text: str) -> Budget:
    jobs = jobs_of(options) if options.executor == "slurm" or options.device else this_machine(jobs_of(options)).jobs
    return Budget.parse(text, jobs=jobs, price=amount_of(options.price, "--price"))


def pairs_in(study: "Study") -> list[tuple[str, str]]:
    """Return every step of a study and the rung that it is judged against, references too, where it has both."""
    from analysis.verdicts import pairs_of, reference_pairs

    there = {rung.id for rung in study.rungs}
    return [pair for pair in pairs_of(study.rungs) + reference_pairs(study.rungs) if there.issuperset(pair)]
