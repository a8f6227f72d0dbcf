"""The commands before anything runs: verify, plan, diff. Each is a screen, from its options to its exit code."""

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from roadmap.cli._budget_forecast import plan_budget
from roadmap.cli.commands import Exit
from roadmap.cli.options import amount_of, jobs_of, ladder_behind, ladder_of, own_metrics_of, study_of
from roadmap.cli.terminal import make_table, print_json, print_lines, print_study
from roadmap.common.errors import UserError
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.rung import Changes, recipe_changes

if TYPE_CHECKING:
    from roadmap.common.machine import Machine
    from roadmap.measuring.forecast import Forecast
    from roadmap.study.plan import PlannedRun, Study

TOLERANCE_GMACS = 0.006  # between our count and the paper's print of two decimals


def verify(options: Namespace) -> Exit:
    """Print our multiply-adds and parameters beside the paper's; 1 where a cell is off by more than 0.006 G."""
    from roadmap.networks.cost import count_macs, count_params, counts_apart
    from roadmap.networks.nets import as_published
    from roadmap.recipe import read_recipe

    if options.downstream:
        from roadmap.cli.downstream_commands import print_counts

        return print_counts(options)
    ladder = ladder_of(options)
    bases = [options.base] if options.base else list(ladder.bases)
    failed = 0
    for base in bases:
        rows, rungs = [], ladder.climb(base)
        changes = recipe_changes(rungs, read_recipe(options.recipe, base), base) if ladder.has_techniques else {}
        for rung in rungs:
            net = as_published(rung.net)
            macs, paper = count_macs(net), rung.paper
            missed = f"{rung.match_miss:+.1%} of {rung.match.describe()}" if rung.match else ""
            ok = paper.true_gmacs is None or abs(macs / 1e9 - paper.true_gmacs) <= TOLERANCE_GMACS
            failed += not ok
            drift = macs / 1e9 - (paper.true_gmacs or 0)
            note = f"off by {drift:+.3f} G" if not ok else paper.erratum.note if paper.erratum else missed
            note = note or counts_apart(net).rstrip(".")
            rows.append(
                {
                    "base": base,
                    "rung": rung.id,
                    "macs": macs,
                    "params": count_params(net),
                    "paper_gmacs": paper.gmacs,
                    "ok": ok,
                    "note": note,
                    **({"recipe_changes": changes.get(rung.id, {})} if ladder.has_techniques else {}),
                }
            )
        if options.json:
            print_json(rows)
        else:
            _print_verify(base, ladder, rows)
            _print_changes(changes, options.recipe)
    return Exit.FAILED if failed else Exit.OK


def _print_verify(base: str, ladder: Ladder, rows: list[dict[str, Any]]) -> None:
    info = ladder.bases[base]
    title = f"{info.label}: multiply-adds (1e9) at 224x224 beside {info.source or 'the paper'}"
    cells: list[tuple[str, ...]] = []
    notes: list[str] = []
    for row in rows:
        mark = "ok" if row["ok"] else "DRIFT"
        if row["note"]:
            notes.append(f"[{len(notes) + 1}] {row['rung']}: {row['note']}.")
            mark += f" [{len(notes)}]"
        paper = "" if row["paper_gmacs"] is None else f"{row['paper_gmacs']:.2f}"
        cells.append((row["rung"], f"{row['macs'] / 1e9:.3f}", paper, f"{row['params']:,}", mark))
    console, columns = Console(), ("rung", "ours", "paper", "parameters", "")
    print_lines([title], console)
    drifts = {cell: "red" for *_, cell in cells if cell.startswith("DRIFT")}
    console.print(make_table(columns, cells, numbers=columns[1:4], colours=drifts))
    print_lines([*notes, ""], console)


def _print_changes(changes: dict[str, Changes], recipe: str, console: Console | None = None) -> None:
    """Print what the steps on the recipe change in it, where there are any."""
    if not changes:
        return
    rows = [
        (rung, ", ".join(f"{name} {_in_yaml(old)} → {_in_yaml(new)}" for name, (old, new) in changed.items()))
        for rung, changed in changes.items()
    ]
    console = console or Console()
    print_lines([f"What changes in training, up to recipe '{recipe}'"], console)
    console.print(make_table(("rung", "settings"), rows, wrapped=["settings"]), highlight=False)
    console.print()


def plan(options: Namespace) -> Exit:
    """Print what would run, what it costs, how long it takes and what is done already."""
    from roadmap.common.machine import this_machine
    from roadmap.jobs.status import look_at_queue, standing

    price = amount_of(options.price, "--price")
    study = study_of(options, assume_data=True)
    metrics = own_metrics_of(options, study)
    machine = this_machine(jobs_of(options))
    planned = study.planned()
    console = Console(stderr=options.json)
    ahead = _forecast(options, study, machine, console)
    if options.budget is not None:
        plan_budget(options, study, ahead, console)
        return Exit.OK
    queue = look_at_queue(study.runs)
    states = {run.config.id: standing(run.folder, queue).state for run in planned}
    changes = recipe_changes(study.layout.rungs, study.recipe, study.base) if study.ladder.has_techniques else {}
    if options.json:
        print_json(
            {"run": r.config.id, "rungs": r.rungs, "seed": r.config.seed, "macs": r.macs, "params": r.params,
             "state": states[r.config.id], "images_per_s": ahead.images_per_s[r.config.id],
             "hours": ahead.hours([r]), "source": ahead.source} for r in planned
        )  # fmt: skip
        return Exit.OK
    pending = [run for run in planned if states[run.config.id] not in ("finished", "diverged")]
    print_study(study, console)
    console.print(_rung_table(study, planned, pending, ahead, price, console.width))
    if fraction := study.layout.fraction:
        rows = [(rung.id, rung.label) for rung in study.rungs if rung.id in fraction.rungs]
        console.print(make_table(("rung", "steps of the plan"), rows, wrapped=["steps of the plan"]))
    print_lines(_counted_apart(planned), console)
    if changes:
        _print_changes(
            {rung.id: changes[rung.id] for rung in study.rungs if rung.id in changes}, study.recipe.name, console
        )
    new = ""
    if study.design != "ladder":
        known = {run.config.id for run in ladder_behind(options, study).planned()}
        new = f" ({sum(run.config.id not in known for run in planned)} beyond the ladder's)"
    console.print(f"{len(planned)} runs{new}, {_in_words(pending, ahead, price)}.", highlight=False, soft_wrap=True)
    if metrics:
        measured = ", ".join(f"{', '.join(metric.names)} ({metric})" for metric in metrics)
        print_lines(
            [f"Then every trained network is measured: {measured}. The time of that is not in the forecast."], console
        )
    if study.recipe.budget and options.seeds is None:
        text = f"'run' spends {study.recipe.budget} where steps are open: 'plan --budget {study.recipe.budget}'."
        console.print(text, highlight=False, soft_wrap=True)
    if deviations := study.deviations(study.recipe):
        console.print(
            f"{len(deviations)} settings are not those of the paper's '{study.recipe.paper}': "
            f"'diff --recipe {options.recipe}' lists them.",
            highlight=False,
            soft_wrap=True,
        )
    return Exit.OK


def _forecast(options: Namespace, study: "Study", machine: "Machine", console: Console) -> "Forecast":
    from roadmap.cli.progress import show_steps
    from roadmap.measuring.forecast import forecast, forecast_by_timing, forecast_on

    if options.device and options.measure:
        raise UserError("--device goes by a data sheet, --measure by this machine. Leave one of the two out.")
    if options.device:
        return forecast_on(options.device, study, jobs_of(options) or 1)
    if options.measure:
        with show_steps(console) as show:
            return forecast_by_timing(study, machine, show)
    return forecast(study, machine)


def _rung_table(
    study: "Study",
    planned: "Sequence[PlannedRun]",
    pending: "Sequence[PlannedRun]",
    ahead: "Forecast",
    price: float,
    width: int,
) -> Table:
    from roadmap.common.formats import big

    numbers = ["multiply-\nadds", "para-\nmeters", "images/s", "a run", "done", *(["to pay"] if price else [])]
    rows = []
    for rung in study.rungs:
        own = [run for run in planned if rung.id in run.rungs]
        left = [run for run in pending if rung.id in run.rungs]
        first, trained = own[0], own[0].config.recipe.name
        notes = ["reference"] if rung.is_reference else [] if rung.adopted else ["not adopted"]
        notes += [] if trained == study.recipe.name or study.ladder.has_techniques else ["plain recipe"]
        if rung.match:
            notes.append(f"{'matched' if rung.is_matched else 'not matched'}, {rung.match_miss:+.1%}")
        speed, seconds = ahead.images_per_s[first.config.id], ahead.seconds[first.config.id]
        money = [f"{price * ahead.hours(left):,.0f}"] if price else []
        cells = (f"{speed:,.0f}", _time(seconds), f"{len(own) - len(left)}/{len(own)}", *money, ", ".join(notes))
        rows.append((rung.id, big(first.macs), big(first.params), *cells))
    columns = ["rung", *numbers, "note"]
    return make_table(
        columns, rows, numbers=numbers, wrapped=["note"], tight=True, width=width, optional=[*numbers[:3], "done"]
    )


def _counted_apart(planned: "Sequence[PlannedRun]") -> list[str]:
    """Return where two counters of multiply-adds differ, a line each for the rungs of which it is true."""
    from roadmap.networks.cost import counts_apart

    said: dict[str, list[str]] = {}
    for run in planned:
        data = run.config.data
        shape = {"in_channels": data.in_channels, "num_classes": data.num_classes}
        said.setdefault(counts_apart(run.config.net, run.config.recipe.image_size, **shape), []).extend(run.rungs)
    return [f"{', '.join(dict.fromkeys(rungs))}: {text}" for text, rungs in said.items() if text]


def _in_words(pending: "Sequence[PlannedRun]", ahead: "Forecast", price: float) -> str:
    """Say how much there is to do, what that takes and why one should think so."""
    hours, at_once = ahead.hours(pending), f"{ahead.devices} {ahead.unit}{'s' if ahead.devices != 1 else ''}"
    took = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
    paid = f" ({price * hours:,.2f} at {price:g} an hour)" if price else ""
    return (
        f"{len(pending)} to do: about {took} {ahead.unit}-hours{paid}, {_time(ahead.wall_s(pending))} on {at_once}, "
        f"{ahead.source}"
    )


def _time(seconds: float) -> str:
    """Return a time as one would say it of a run: exact as long as it is short."""
    from roadmap.common.formats import clock

    return clock(seconds) if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def diff(options: Namespace) -> Exit:
    """Print the settings in which a recipe differs from the paper's that it stands for, or from any other.

    One of the paper's own is followed by what it does not repeat of the authors' training.
    """
    from roadmap.recipe import read_recipe
    from roadmap.study.deviations import deviations_of

    recipe = read_recipe(options.recipe, options.base)
    other = read_recipe(options.against or recipe.paper, options.base)
    changes, deviations = recipe.differences(other), [] if options.against else deviations_of(recipe.name)
    if options.json:
        print_json({"setting": name, other.name: theirs, recipe.name: ours} for name, (theirs, ours) in changes.items())
        print_json({"subject": d.subject, "authors": d.authors, recipe.name: d.here} for d in deviations)
        return Exit.OK
    columns = ("setting", other.name, recipe.name)
    rows = [(name, *map(_in_yaml, values)) for name, values in changes.items()]
    table, console = make_table(columns, rows, wrapped=columns), Console()
    console.print(table if changes else f"'{recipe.name}' and '{other.name}' train the same way.", highlight=False)
    if deviations:
        columns = ("what differs", "the authors", "here")
        rows = [(each.subject, each.authors, each.here) for each in deviations]
        console.print(f"What '{recipe.name}' does not repeat of the authors' training:", highlight=False)
        console.print(make_table(columns, rows, wrapped=columns), highlight=False)
    return Exit.OK


def _in_yaml(value: Any) -> str:
    """Return a setting as a recipe's file has it."""
    from roadmap.common.yaml_files import write_flow

    return write_flow(list(value) if isinstance(value, tuple) else value)
