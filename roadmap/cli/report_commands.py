"""The commands that read runs: status, report, compare. Each is a screen, from its options to its exit code."""

from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from roadmap.cli.commands import Exit
from roadmap.cli.options import (
    base_of,
    ladder_of,
    layout_of,
    margin_of,
    out_of,
    studies_beside,
    study_behind,
    study_of,
    study_to_report,
    with_seeds_found,
    words_of,
)
from roadmap.cli.terminal import make_table, print_files, print_json, print_lines, print_study
from roadmap.common.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from roadmap.study.plan import Study

STATUS_ROWS = 200  # more runs than these are counted, and those shown that something is up with
STATUS_LOGS = 5


def status(options: Namespace) -> Exit:
    """Print where every run stands."""
    from roadmap.common.formats import clock
    from roadmap.jobs.status import look_at_queue, standing
    from roadmap.runs.run_folder import RUN, read_progress, read_result

    study = study_of(with_seeds_found(options, RUN))
    queue = look_at_queue(study.runs)
    rows, logs = [], []
    for run in study.planned():
        stands = standing(run.folder, queue)
        done = stands.state in ("finished", "diverged")
        now = {} if done or stands.state == "failed" else read_progress(run.folder) or {}
        row = read_result(run.folder) or {} if done else {}
        rows.append(
            {
                "rung": ", ".join(run.rungs),
                "seed": run.config.seed,
                "run": run.config.id,
                "state": stands.state,
                "epoch": f"{now['epoch']}/{now['epochs']}" if now else "",
                "step": f"{now['step']}/{now['steps']}" if now else "",
                "left_s": now.get("left_s") if stands.state == "running" else None,
                "top1": row.get("top1"),
                "note": stands.note,
                "log": str(stands.log or ""),
            }
        )
        if stands.state in ("failed", "lost"):
            logs.append((f"{run.rungs[0]} seed {run.config.seed}", stands))
    if options.json:
        print_json(rows)
        return Exit.OK
    console = Console()
    shown = [row for row in rows if len(rows) <= STATUS_ROWS or row["state"] not in ("finished", "waiting")]
    cells = []
    for row in shown[:STATUS_ROWS]:
        progress = [
            f"top-1 {row['top1']:.2f}" if row["top1"] is not None else "",
            f"epoch {row['epoch']}" if row["epoch"] else "",
            f"{clock(row['left_s'])} left" if row["left_s"] is not None else "",
            row["note"],
        ]
        cells.append((row["rung"], row["seed"], row["state"], ", ".join(filter(None, progress))))
    if shown:
        columns = ("rung", "seed", "state", "progress")
        console.print(make_table(columns, cells, numbers=["seed"], wrapped=["progress"]))
    for name, stands in logs[:STATUS_LOGS]:
        if tail := stands.log_tail():
            print_lines([f"\n{name}, the end of {stands.log}:", *(f"  {line}" for line in tail)], console)
    counts = Counter(row["state"] for row in rows)
    console.print(f"{len(rows)} runs: {', '.join(f'{n} {state}' for state, n in counts.items())}.", highlight=False)
    if not queue.answers:
        console.print("Slurm does not answer: what waits in its queue cannot be told now.")
    return Exit.OK


def report(options: Namespace) -> Exit:
    """Write tables and figure from the run folders, from the published numbers, or (the figure) from a record."""
    from analysis.report.record import read_record
    from analysis.report.write import redraw, write_published, write_report
    from analysis.run_frames import collect

    if options.published or options.record:
        _refuse_study(options, "--published" if options.published else "--record")
    if options.record:
        files = redraw(read_record(options.record), options.out or options.record)
    elif options.published:
        ladder, base = ladder_of(options), base_of(options)
        out = options.out or Path("out") / f"{base}-published"
        files = write_published(ladder, base, out, margin=margin_of(options))
    else:
        study, shown = study_to_report(options, Console())
        runs = collect(study)
        files = write_report(study, out_of(options, study), runs=runs, **report_options(shown, study))
        print_table(study, runs)
    print_files(files)
    return Exit.OK


def report_options(options: Namespace, study: "Study") -> dict[str, Any]:
    """Return what a report takes beside the study itself."""
    return {
        "behind": study_behind(options, study),
        "beside": studies_beside(options, study),
        "margin": margin_of(options),
        "words": words_of(options),
    }


def compare(options: Namespace) -> Exit:
    """Print the verdicts on all steps, or everything about one step against the rung before it (or any other)."""
    from analysis.step_comparison import compare_step, print_step, print_verdicts
    from analysis.verdicts import judge_study, to_json

    if options.against and not options.step:
        raise UserError("--against: which step is to be compared with it? Say --step RUNG.")
    names = [rung.id for rung in layout_of(options, base_of(options)).rungs]
    for name in filter(None, (options.step, options.against)):
        if name not in names:
            raise unknown("rung", name, names)
    console, margin = Console(), margin_of(options)
    if options.published:
        judged = _published_verdicts(options, margin)
        if options.json:
            print_json({"base": options.base} | row for row in to_json(judged))
        else:
            print_verdicts(judged, console)
    elif options.step:
        options.only = options.until = None
        comparison = compare_step(study_of(with_seeds_found(options)), options.step, options.against, margin=margin)
        if options.json:
            print_json(comparison.rows())
        else:
            print_step(comparison, console)
    else:
        study, _ = study_to_report(options, Console(stderr=options.json))
        judged = judge_study(study, margin=margin)
        if options.json:
            print_json({"base": study.base} | row for row in to_json(judged))
        else:
            print_study(study, console)
            print_verdicts(judged[judged["metric"] == "top1"], console)
    return Exit.OK


def _refuse_study(options: Namespace, other: str) -> None:
    """Refuse options that choose among runs, where no runs are asked about."""
    for name in ("design", "samples", "only", "until", "seeds", "validate", "references"):
        if getattr(options, name) not in (None, False):
            raise UserError(f"--{name}: goes with runs of your own, not with {other}. Leave one of the two out.")


def _published_verdicts(options: Namespace, margin: float | None) -> "pd.DataFrame":
    """Return the verdicts on the paper's own steps, or on the one that was named."""
    from analysis.verdicts import published_verdicts

    _refuse_study(options, "--published")
    ladder, base = ladder_of(options), base_of(options)
    if options.step and options.against:
        return published_verdicts(ladder, base, pairs=[(options.step, options.against)], margin=margin)
    judged = published_verdicts(ladder, base, margin=margin)
    if options.step and options.step not in set(judged["step"]):
        raise UserError(
            f"'{options.step}' is where the ladder starts: there is no rung before it. Name one with --against."
        )
    return judged[judged["step"] == options.step] if options.step else judged


def print_table(study: "Study", runs: "pd.DataFrame") -> None:
    """Print the rungs as far as they are trained, and how the ladder agrees with the paper."""
    from analysis.agreement import agreement
    from analysis.ladder_table import ladder_table
    from analysis.report.tables import print_ladder

    console = Console()
    table = ladder_table(runs, study.rungs)
    print_ladder(table, console)
    if study.design == "ladder":  # other designs have other steps than the paper separates
        console.print(agreement(table, study.ladder, study.base), highlight=False, markup=False)
