"""The command `check`: a ladder's steps held to what every step must keep."""

from argparse import Namespace

from rich.console import Console
from rich.markup import escape

from roadmap.cli.commands import Exit
from roadmap.cli.options import ladder_of
from roadmap.cli.terminal import make_table, print_json, print_lines
from roadmap.common.errors import UserError
from roadmap.ladder.conformance import CHECKS, TARGET, Inspector, trials
from roadmap.networks.config import FULL
from roadmap.networks.nets import Net, as_published
from roadmap.recipe import read_recipe


def check(options: Namespace) -> Exit:
    """Hold every step of a ladder to what a step must keep; 1 where one does not."""
    ladder = ladder_of(Namespace(**vars(options) | {"recipe": TARGET}))
    console = Console(stderr=options.json)
    failed = False
    for base in [options.base] if options.base else list(ladder.bases):
        rows: list[list[str]] = []
        said: dict[tuple[str, str], str] = {}
        heirs: dict[tuple[str, str], list[str]] = {}  # the rungs that inherit a problem, by its rung and check
        with console.status("") as status:
            inspector = Inspector()
            for trial in trials(ladder, base, read_recipe(TARGET, base)):
                rung = trial.rung
                status.update(escape(f"{base}: {rung.id}"))
                found = inspector.inspect(trial)
                said |= {(rung.id, name): f"{rung.id}: {name}: {text}" for name, text in found.problems.items()}
                for name, culprit in found.inherited.items():
                    heirs.setdefault((culprit, name), []).append(rung.id)
                broken = found.failed & {"builds", "costs"}
                macs, params = (0, 0) if broken else _costs(rung.net)
                rows.append([rung.id, *map(found.mark, CHECKS), f"{macs / 1e9:.3f}" if macs else ""])
                if options.json:
                    print_json([{"base": base, "rung": rung.id, "step": rung.step, "macs": macs, "params": params,
                                 "problems": found.problems, "inherited": found.inherited}])  # fmt: skip
        failed |= bool(said)
        print_lines([f"{ladder.bases[base].label}: what every step must keep"], console)
        columns = ("rung", *CHECKS, "1e9 MACs")
        console.print(make_table(columns, rows, numbers=["1e9 MACs"], colours={"no": "red"}))
        for problem, rungs in heirs.items():
            said[problem] += f" Inherited by {', '.join(rungs)}."
        print_lines([*said.values(), ""], console)
    return Exit.FAILED if failed else Exit.OK


def _costs(net: Net) -> tuple[int, int]:
    """Return the multiply-adds at 224x224 and the parameters; zeros of a network that does not take such images."""
    from roadmap.networks.cost import count_macs, count_params

    net = as_published(net)
    try:
        return count_macs(net, FULL["image_size"]), count_params(net)
    except UserError:
        return 0, 0
