"""The command `check`: a ladder's steps held to what every step must keep."""

from argparse import Namespace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from roadmap.cli.options import ladder_of
from roadmap.cli.report_commands import print_json
from roadmap.ladder.conformance import CHECKS, TARGET, problems, trials
from roadmap.recipe import read_recipe


def check(options: Namespace) -> int:
    """Hold every step of a ladder to what a step must keep; 1 where one does not."""
    from roadmap.networks.cost import count_macs, count_params

    ladder = ladder_of(Namespace(**vars(options) | {"recipe": TARGET}))
    console = Console(stderr=options.json)
    failed = False
    for base in [options.base] if options.base else list(ladder.bases):
        table = Table(title=escape(f"{ladder.bases[base].label}: what every step must keep"), box=None)
        for column in ("rung", *CHECKS, "1e9 MACs"):
            table.add_column(column, justify="right" if column == "1e9 MACs" else "left", no_wrap=True)
        said: list[str] = []
        with console.status("") as status:
            for trial in trials(ladder, base, read_recipe(TARGET, base)):
                rung = trial.rung
                status.update(escape(f"{base}: {rung.id}"))
                found = problems(trial)
                said += [f"{rung.id}: {name}: {text}" for name, text in found.items() if text]
                broken = found.get("builds") or found.get("costs")
                macs, params = (0, 0) if broken else (count_macs(rung.net), count_params(rung.net))
                marks = ["" if name not in found else "[red]no[/red]" if found[name] else "yes" for name in CHECKS]
                table.add_row(rung.id, *marks, "" if broken else f"{macs / 1e9:.3f}")
                if options.json:
                    print_json([{"base": base, "rung": rung.id, "step": rung.step, "macs": macs, "params": params,
                                 "problems": {name: text for name, text in found.items() if text}}])  # fmt: skip
        failed |= bool(said)
        console.print(table)
        for line in said:
            console.print(line, markup=False, highlight=False)
        console.print()
    return 1 if failed else 0
