"""What run_ladder.py's actions are."""

from argparse import Namespace
from collections.abc import Iterable

from roadmap.errors import UserError, unknown

DOING = ("run", "launch", "cancel", "measure", "export")  # the others only look
EXECUTORS = ("local", "slurm", "debug")
# The options that only some actions have, and those actions. How jobs are started may be said to all: the same words
# then name a study to 'run' and to 'status'.
OWNERS = {
    "published": ("report", "compare"),
    "margin": ("run", "report", "compare"),
    "record": ("report",),
    "step": ("compare",),
    "against": ("compare",),
    "json": ("verify", "plan", "status", "compare", "measure"),
    "dry_run": ("run", "launch"),
    "design": ("run", "plan", "launch", "status", "cancel", "report", "compare", "measure", "export"),
    "samples": ("run", "plan", "launch", "status", "cancel", "report", "compare", "measure", "export"),
}


def act(options: Namespace, names: Iterable[str]) -> int:
    """Carry out the action that the options name and return the exit code."""
    from roadmap import doing, looking

    actions = {name: getattr(doing if name in DOING else looking, name) for name in names}
    if options.action not in actions:
        raise unknown("action", options.action, names)
    if options.executor not in EXECUTORS:
        raise unknown("executor", options.executor, EXECUTORS)
    for option, owners in OWNERS.items():
        if getattr(options, option) not in (None, False) and options.action not in owners:
            name = option.replace("_", "-")
            raise UserError(f"--{name}: is for {', '.join(owners)}, not for {options.action}. Leave it out.")
    code: int = actions[options.action](options)
    return code
