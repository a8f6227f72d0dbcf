"""What run_ladder.py's actions are."""

from argparse import Namespace
from collections.abc import Iterable

from roadmap.common.errors import UserError, unknown

PLANNING = ("verify", "plan", "diff")
TIMING = ("measure", "calibrate", "models")
EXAMINING = ("robustness",)
DOING = ("run", "launch", "cancel", "export")  # the others only look
# Those that take a study's rungs, of any design.
OF_STUDIES = (
    "run", "plan", "launch", "status", "cancel", "report", "compare", "measure", "calibrate", "export", "robustness",
)  # fmt: skip
EXECUTORS = ("local", "slurm", "debug")
# The options that only some actions have, and those actions. How jobs are started may be said to all: the same words
# then name a study to 'run' and to 'status'.
OWNERS = {
    "published": ("report", "compare"),
    "margin": ("run", "report", "compare"),
    "record": ("report",),
    "step": ("compare",),
    "against": ("compare", "diff"),
    "device": ("plan",),
    "measure": ("plan", "models"),
    "price": ("plan",),
    "ladder": ("check",),
    "json": ("verify", "check", "plan", "diff", "status", "compare", "measure", "calibrate", "models", "robustness"),
    "dry_run": ("run", "launch"),
    "tensorboard": ("run", "launch"),
    "logger": ("run", "launch"),
    "images": ("robustness",),
    "radii": ("robustness",),
    "design": OF_STUDIES,
    "references": OF_STUDIES,
    "samples": OF_STUDIES,
}


def act(options: Namespace, names: Iterable[str]) -> int:
    """Carry out the action that the options name and return the exit code."""
    from roadmap.cli import (
        check_command,
        measure_commands,
        plan_commands,
        report_commands,
        robustness_commands,
        run_commands,
    )
    from roadmap.ladder.own_steps import load_steps

    modules = dict.fromkeys(PLANNING, plan_commands) | dict.fromkeys(TIMING, measure_commands)
    modules |= dict.fromkeys(DOING, run_commands) | {"robustness": robustness_commands, "check": check_command}
    actions = {name: getattr(modules.get(name, report_commands), name) for name in names}
    if options.action not in actions:
        raise unknown("action", options.action, names)
    if options.executor not in EXECUTORS:
        raise unknown("executor", options.executor, EXECUTORS)
    for option, owners in OWNERS.items():
        if getattr(options, option) not in (None, False) and options.action not in owners:
            name = f"'{options.ladder}'" if option == "ladder" else f"--{option.replace('_', '-')}"
            raise UserError(f"{name}: is for {', '.join(owners)}, not for {options.action}. Leave it out.")
    for path in options.steps_module or ():
        load_steps(path)
    code: int = actions[options.action](options)
    return code
