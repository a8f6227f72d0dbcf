"""What run_ladder.py's actions do: each a screen, from its options to its exit code."""

import json
import signal
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from roadmap.errors import UserError, unknown
from roadmap.ladder import STEPS_FILE, Ladder, read_ladder, select

if TYPE_CHECKING:
    from roadmap.plan import PlannedRun, Study

TOLERANCE_GMACS = 0.006  # between our count and the paper's print of two decimals
EXECUTORS = ("local", "debug")
# The options that only some actions have, and those actions.
OWNERS = {
    "published": ("report",),
    "record": ("report",),
    "step": ("compare",),
    "against": ("compare",),
    "json": ("verify", "plan", "status", "compare"),
}
# Multiply-adds that this harness trains a second on one core of a recent x86 server (measured on an AMD EPYC 9004);
# an estimate before anything has run here, and said to be one.
GUESSED_MACS_PER_S = 5e9


def act(options: Namespace, names: Iterable[str]) -> int:
    """Carry out the action that the options name and return the exit code."""
    actions = {
        "run": run,
        "verify": verify,
        "plan": plan,
        "launch": launch,
        "status": status,
        "cancel": cancel,
        "report": report,
        "compare": compare,
    }
    if options.action not in actions:
        raise unknown("action", options.action, names)
    if options.executor not in EXECUTORS:
        raise unknown("executor", options.executor, EXECUTORS)
    for option, owners in OWNERS.items():
        if getattr(options, option) and options.action not in owners:
            raise UserError(f"--{option}: is for {', '.join(owners)}, not for {options.action}. Leave it out.")
    return actions[options.action](options)


# -- looking


def verify(options: Namespace) -> int:
    """Print our multiply-adds and parameters beside the paper's; 1 where a cell is off by more than 0.006 G."""
    from roadmap.cost import count_macs, count_params

    ladder = _ladder(options)
    bases = [options.base] if options.base else list(ladder.bases)
    failed = 0
    for base in bases:
        rows = []
        for rung in ladder.climb(base):
            macs, paper = count_macs(rung.net), rung.paper
            ok = paper.true_gmacs is None or abs(macs / 1e9 - paper.true_gmacs) <= TOLERANCE_GMACS
            failed += not ok
            drift = macs / 1e9 - (paper.true_gmacs or 0)
            note = f"off by {drift:+.3f} G" if not ok else paper.erratum.note if paper.erratum else ""
            rows.append(
                {
                    "base": base,
                    "rung": rung.id,
                    "macs": macs,
                    "params": count_params(rung.net),
                    "paper_gmacs": paper.gmacs,
                    "ok": ok,
                    "note": note,
                }
            )
        if options.json:
            _print_json(rows)
        else:
            _print_verify(base, ladder, rows)
    return 1 if failed else 0


def _print_verify(base: str, ladder: Ladder, rows: list[dict[str, Any]]) -> None:
    info = ladder.bases[base]
    title = f"{info.label}: multiply-adds (1e9) at 224x224 beside {info.source or 'the paper'}"
    table = Table(title=escape(title), box=None)
    for name in ("rung", "ours", "paper", "parameters", ""):
        table.add_column(name, justify="left" if name in ("rung", "") else "right")
    notes: list[str] = []
    for row in rows:
        mark = "ok" if row["ok"] else "[red]DRIFT[/red]"
        if row["note"]:
            notes.append(f"[{len(notes) + 1}] {row['rung']}: {row['note']}.")
            mark += f" \\[{len(notes)}]"
        paper = "" if row["paper_gmacs"] is None else f"{row['paper_gmacs']:.2f}"
        table.add_row(row["rung"], f"{row['macs'] / 1e9:.3f}", paper, f"{row['params']:,}", mark)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    console.print()


def plan(options: Namespace) -> int:
    """Print what would run, what it costs, how long it takes and what is done already."""
    from roadmap.launch import look_around, state_of

    study = _study(options)
    cluster = look_around(_jobs(options))
    planned = study.planned()
    states = {run.config.id: state_of(run.folder) for run in planned}
    if options.json:
        _print_json(
            {"run": r.config.id, "rungs": r.rungs, "seed": r.config.seed, "macs": r.macs, "params": r.params,
             "state": states[r.config.id]} for r in planned
        )  # fmt: skip
        return 0
    from analysis.tables import big
    from roadmap.watch import clock

    console = Console()
    console.print(study.describe(), highlight=False, markup=False)
    table = Table(box=None)
    for name in ("rung", "multiply-adds", "parameters", "done", "note"):
        table.add_column(name, justify="left" if name in ("rung", "note") else "right", no_wrap=True)
    for rung in study.rungs:
        own = [run for run in planned if rung.id in run.rungs]
        done = sum(states[run.config.id] in ("finished", "diverged") for run in own)
        trained = own[0].config.recipe.name
        note = "not adopted" if not rung.adopted else "" if trained == study.recipe.name else f"under '{trained}'"
        table.add_row(rung.id, big(own[0].macs), big(own[0].params), f"{done}/{len(own)}", note)
    console.print(table)
    pending = [run for run in planned if states[run.config.id] not in ("finished", "diverged")]
    seconds, source = _estimate(study, planned, pending, cluster.jobs)
    console.print(
        f"{len(planned)} runs, {len(pending)} to do, {cluster.jobs} at a time "
        f"({f'{cluster.gpus} GPUs' if cluster.gpus else f'{cluster.threads} thread each'}): "
        f"about {clock(seconds)} ({source}).",
        highlight=False,
    )
    return 0


def _estimate(study: "Study", planned: list["PlannedRun"], pending: list["PlannedRun"], jobs: int) -> tuple[float, str]:
    """Return the seconds that the pending runs will take, and what that is based on."""
    from roadmap.results import read_result

    done = [(run.cost, row["wall_s"]) for run in planned if (row := read_result(run.folder)) and row["wall_s"]]
    cost = sum(run.cost for run in pending)
    if done:
        speed = sum(cost for cost, _ in done) / sum(seconds for _, seconds in done)
        return cost / speed / jobs, f"from the {len(done)} runs done here"
    return cost / GUESSED_MACS_PER_S / jobs, "a rough guess for one core a job; nothing has run here yet"


def status(options: Namespace) -> int:
    """Print where every run stands."""
    from roadmap.launch import state_of
    from roadmap.results import read_progress, read_result

    study = _study(options)
    rows = []
    for run in study.planned():
        row, now = read_result(run.folder) or {}, read_progress(run.folder) or {}
        rows.append(
            {
                "rung": ", ".join(run.rungs),
                "seed": run.config.seed,
                "run": run.config.id,
                "state": state_of(run.folder),
                "step": f"{now['step']}/{now['steps']}" if now and not row else "",
                "top1": row.get("top1"),
                "note": row.get("error") or "",
            }
        )
    if options.json:
        _print_json(rows)
        return 0
    table = Table(box=None)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(f"{v:.2f}" if isinstance(v, float) else "" if v is None else escape(str(v)) for v in row.values())
        )
    Console().print(table)
    return 0


def report(options: Namespace) -> int:
    """Write tables and figure from the run folders, from the published numbers, or (the figure) from a record."""
    from analysis.record import read_record
    from analysis.report import redraw, write_published, write_report

    if options.record:
        files = redraw(read_record(options.record), options.out or options.record)
    elif options.published:
        ladder, base = _ladder(options), _base(options)
        files = write_published(ladder, base, options.out or Path("out") / f"{base}-published")
    else:
        study = _study(options)
        files = write_report(study, _out(options, study), behind=_behind(options, study))
        _print_ladder(study)
    _print_files(files)
    return 0


def compare(options: Namespace) -> int:
    """Print one step against the rung before it: fields, costs, every metric, seed by seed."""
    from analysis.step import compare_step, print_step

    if not options.step:
        raise UserError("compare: which step? Say --step RUNG, such as --step depthwise_conv.")
    ladder, base = _ladder(options), _base(options)
    names = [rung.id for rung in ladder.climb(base)]
    for name in filter(None, (options.step, options.against)):
        if name not in names:
            raise unknown("rung", name, names)
    options.only = options.until = None
    comparison = compare_step(_study(options), options.step, options.against)
    if options.json:
        _print_json(comparison.rows())
    else:
        print_step(comparison, Console())
    return 0


# -- doing


def run(options: Namespace) -> int:
    """Train what is missing, with live progress, and report; Ctrl-C stops in order and the same command goes on."""
    from analysis.report import write_report
    from roadmap.launch import stop
    from roadmap.results import check_writable, is_done
    from roadmap.watch import Watch, clock

    start, console = time.monotonic(), Console()
    study = _study(options)
    out = _out(options, study)
    check_writable(out)  # now, not after the training
    planned = study.planned()
    jobs = _start(options, console, study, planned, wait=True)
    if jobs:
        watch = Watch(planned, [run.cost for run in planned], [rung.id for rung in study.rungs], console)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            if options.executor == "debug":
                jobs[0].result()
            watch.follow(jobs)
        except KeyboardInterrupt:
            console.print("Stopping: every run saves itself ...")
            stop(jobs)
            done = sum(is_done(run.folder) for run in planned)
            console.print(f"Stopped with {done} of {len(planned)} runs done. The same command goes on from here.")
            return 130
    files = write_report(study, out, behind=_behind(options, study))
    _print_ladder(study)
    _print_files(files)
    return _say_outcome(console, study, planned, clock(time.monotonic() - start))


def launch(options: Namespace) -> int:
    """Start the jobs for what is missing and return."""
    if options.executor == "debug":
        raise UserError("launch: the debug executor runs in this process, which would not return. Use the action run.")
    console = Console()
    study = _study(options)
    if _start(options, console, study, study.planned(), wait=False):
        console.print("Started. See 'status'; 'report' when done.")
    return 0


def _start(
    options: Namespace, console: Console, study: "Study", planned: list["PlannedRun"], *, wait: bool
) -> list[Any]:
    """Say what is to be done and start the jobs for it; return them, none where all is done."""
    from roadmap.launch import look_around, prepare, submit

    cluster = look_around(_jobs(options))
    pending = prepare(planned)
    console.print(study.describe(), highlight=False, markup=False)
    done = len(planned) - len(pending)
    console.print(f"{len(planned)} runs, {done} done already, {len(pending)} to do.", highlight=False)
    if not pending:
        return []
    folders = [run.folder for run in pending]
    return submit(folders, options.runs, executor=options.executor, cluster=cluster, data_root=options.data, wait=wait)


def cancel(options: Namespace) -> int:
    """Stop the jobs of this study that run on this machine; their runs save themselves."""
    from roadmap.launch import cancel_holders

    study = _study(options)
    stopped = cancel_holders([run.folder for run in study.planned()])
    print(f"Asked {len(stopped)} jobs to stop. 'launch' or 'run' goes on from their checkpoints.")
    return 0


# -- shared by several


def _say_outcome(console: Console, study: "Study", planned: list["PlannedRun"], took: str) -> int:
    from roadmap.launch import holder
    from roadmap.results import read_result

    rows = [(run, read_result(run.folder)) for run in planned]
    unfinished = [run for run, row in rows if row is None]
    elsewhere = sum(holder(run.folder) is not None for run in unfinished)
    failed = [(run, row) for run, row in rows if row and row["state"] == "failed"]
    logs = f"(logs: {study.runs / 'jobs'})"
    for run, row in failed:
        console.print(f"{run.rungs[0]} seed {run.config.seed} failed: {row['error']} {logs}", markup=False)
    if elsewhere:
        console.print("Another command is training these runs now. When it is done, the same command reports them all.")
    elif unfinished:
        text = f"{len(unfinished)} runs did not finish {logs}. The same command goes on with them."
        console.print(text, markup=False)
    done = len(planned) - len(unfinished) - len(failed)
    console.print(f"{done} of {len(planned)} runs done. Took {took}.", highlight=False)
    return 1 if unfinished or failed else 0


def _print_ladder(study: "Study") -> None:
    from analysis.collect import collect
    from analysis.compare import agreement, ladder_table
    from analysis.tables import print_ladder

    console = Console()
    table = ladder_table(collect(study), study.rungs)
    print_ladder(table, console)
    console.print(agreement(table, study.ladder, study.base), highlight=False, markup=False)


def _ladder(options: Namespace) -> Ladder:
    ladder = read_ladder(options.steps or STEPS_FILE)
    if options.base and options.base not in ladder.bases:
        raise unknown("base", options.base, ladder.bases)
    return ladder


def _base(options: Namespace) -> str:
    if not options.base:
        raise UserError(f"which base? Say --base {' or --base '.join(_ladder(options).bases)}.")
    return str(options.base)


def _study(options: Namespace, base: str | None = None) -> "Study":
    from roadmap.plan import make_study

    ladder = _ladder(options)
    base = base or _base(options)
    rungs = select(ladder.climb(base), only=options.only, until=options.until)
    seeds = None if options.seeds is None else [_whole(seed, "--seeds", 0) for seed in options.seeds]
    return make_study(
        ladder,
        base,
        options.recipe,
        runs=options.runs,
        rungs=rungs,
        seeds=seeds,
        data_root=options.data,
        validate=options.validate,
    )


def _behind(options: Namespace, study: "Study") -> "Study | None":
    """Return the same study from the next other base, for the grey bars."""
    others = [name for name in study.ladder.bases if name != study.base]
    try:
        return _study(options, others[0]) if others else None
    except UserError:  # a recipe or ladder that fits this base alone: the report is about this one
        return None


def _out(options: Namespace, study: "Study") -> Path:
    return options.out or Path("out") / f"{study.base}-{study.recipe.name}{'-validation' if options.validate else ''}"


def _jobs(options: Namespace) -> int | None:
    return None if options.jobs is None else _whole(options.jobs, "--jobs", 1)


def _whole(text: str, option: str, least: int) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise UserError(f"{option}: '{text}' is not a whole number from {least} up (of at most 9 digits).")
    return int(text)


def _print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))


def _print_files(files: list[Path]) -> None:
    print(f"Wrote {files[0].parent}/: {', '.join(file.name for file in files)}")
