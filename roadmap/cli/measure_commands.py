"""The commands that count and time networks: measure, calibrate, models. Each is a screen."""

import os
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from roadmap.cli.commands import Exit
from roadmap.cli.options import study_of
from roadmap.cli.terminal import make_table, print_files, print_json, print_lines
from roadmap.common.errors import UserError
from roadmap.common.process_group import under_torchrun

if TYPE_CHECKING:
    from roadmap.study.plan import PlannedRun, Study

LOOK_EVERY_S = 0.5


def measure(options: Namespace) -> Exit:
    """Measure what every rung costs in time and memory, print it beside what is counted, and keep it."""
    from analysis.run_frames import collect_measured, cost_rows
    from analysis.terminal import print_costs
    from roadmap.cli.progress import show_steps
    from roadmap.common.files import check_writable
    from roadmap.measuring import rung_costs as measuring

    if under_torchrun():
        raise UserError("measure: is one process, on one device. Start it without torchrun.")
    # Threads that wait leave their core to others, or a busy machine would take several times as long. Read by torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.downstream:
        from roadmap.cli.downstream_commands import measure_tables

        return measure_tables(options)
    study = study_of(options)
    check_writable(study.runs, "--runs")
    console = Console(stderr=options.json)
    if not options.json:
        console.print(study.describe(), highlight=False, markup=False)
    path: Path | None = None
    if options.executor == "slurm":
        path, measured = _measure_in_a_job(options, study, console)
    else:
        with show_steps(console) as show:
            measured = measuring.measure(study, show=show)
    rows = cost_rows(study, collect_measured(study, measured))
    if options.json:
        print_json(rows)
    else:
        print_costs(rows, console)
        threads = f", {measured['threads']} threads" if measured["threads"] > 1 else ""
        console.print(
            f"On {measured['device']}{threads}, batches of {measured['batch_size']} images in training and of "
            f"{measured['test_batch_size']} in inference; loading images is not measured. x: times the rung before.",
            highlight=False,
        )
    path = path or measuring.write_measured(study.runs, measured)  # now: a full disk costs no table
    if not options.json:
        print(f"Wrote {path}")
    return Exit.OK


def _measure_in_a_job(options: Namespace, study: "Study", console: Console) -> tuple[Path, dict[str, Any]]:
    """Have a job of the cluster measure, wait for it, and return the file that it wrote and its content."""
    from roadmap.cli.options import job_options_of
    from roadmap.jobs.launcher import launch
    from roadmap.jobs.measurement import MeasureTask, read_outcome
    from roadmap.jobs.retries import Retries
    from roadmap.measuring.rung_costs import FOLDER, read_measured_file

    how = job_options_of(options, study, wait=True)
    how = replace(how, cluster=how.cluster.one_process())
    folder, task = (study.runs / FOLDER / how.name).absolute(), MeasureTask(study)
    folder.mkdir(parents=True)
    retries, pending = Retries([folder], how, task), [folder]
    console.print(f"Measuring in a job ({how.name}); interrupted, it goes on and writes its file.", highlight=False)
    while pending:
        jobs = launch(pending, how, retries.number, task)
        while not retries.are_over(jobs):
            time.sleep(LOOK_EVERY_S)
        pending = retries.to_try_again()
    path = read_outcome(folder)
    measured = read_measured_file(path) if path else None
    if path is None or measured is None:
        failure = task.failure(folder)
        reason = failure.content.get("error") if failure else "its job ended without a word (killed?)"
        raise UserError(f"measure: not measured: {reason}. The job's log is in {how.runs / 'jobs'}.")
    return study.runs / FOLDER / path.name, measured


def calibrate(options: Namespace) -> Exit:
    """Try which way of training is fastest on this device, and print what that says and why."""
    from roadmap.cli.progress import show_steps
    from roadmap.common.machine import this_machine
    from roadmap.measuring.calibration import calibrate as try_ways

    if under_torchrun():
        raise UserError("calibrate: is one process, on one device. Start it without torchrun.")
    study, console = study_of(options, assume_data=True), Console(stderr=options.json)
    with show_steps(console) as show:
        found = try_ways(study, this_machine(), show)
    if options.json:
        print_json({"device": found.device, **vars(way)} for way in found.ways)
        return Exit.OK
    console.print(f"Training images/s on {found.device}:", highlight=False)
    rungs = list(found.ways[0].images_per_s)
    rows = []
    for way in found.ways:
        speeds = (f"{way.images_per_s[rung]:,.0f}" if rung in way.images_per_s else "" for rung in rungs)
        rows.append([way.words, *speeds, f"{way.ratio:.2f}" if way.images_per_s else ""])
    columns = ("", *rungs, "ratio")
    console.print(make_table(columns, rows, numbers=columns[1:], wrapped=columns))
    console.print("Fastest here; put what belongs to a recipe into a copy of yours:", highlight=False)
    for choice in found.choices:
        console.print(f"  {choice}", highlight=False, soft_wrap=True)
    return Exit.OK


def models(options: Namespace) -> Exit:
    """Count the models of the paper's Table 1, print that beside what it prints, draw its Figure 1.

    With `--measure` their inference is timed too. 1 where a count is off and nobody has said why.
    """
    from analysis.report.table1 import about_models, models_table, rows_of, with_speeds, write_models
    from analysis.terminal import print_models
    from roadmap.cli.progress import show_steps
    from roadmap.common.files import check_writable
    from roadmap.ladder.table1 import select_models

    chosen, out = select_models(options.only), options.out or Path("out/models")
    check_writable(out)
    console, speeds, notes = Console(stderr=options.json), None, []
    with show_steps(console) as show:
        table = models_table(chosen, show=show)
    if options.measure:
        from roadmap.measuring.model_speeds import LARGEST_ON_CPU, measure_speeds, worth_measuring

        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        timed = worth_measuring(chosen, asked_for=options.only is not None)
        if len(timed) < len(chosen):
            notes.append(f"Not timed on a CPU: what is above {LARGEST_ON_CPU:g} G, unless --only names it.")
        with show_steps(console) as show:
            speeds = measure_speeds(timed, show=show)
        table = with_speeds(table, speeds)
    if options.json:
        print_json(rows_of(table))
    else:
        print_models(table, console)
        print_lines([about_models(speeds), *notes], console)
    files = write_models(table, out, speeds)
    if not options.json:
        print_files(files)
    return Exit.FAILED if (~table["as_printed"] & (table["note"] == "")).any() else Exit.OK


def measure_trained(console: Console, study: "Study", planned: Sequence["PlannedRun"]) -> None:
    """Measure what a trained study costs, if nobody has: for a tenth of its training's time, half a minute at most.

    What goes wrong here costs no report.
    """
    from roadmap.cli.progress import show_steps
    from roadmap.common.formats import clock
    from roadmap.measuring import rung_costs as measuring
    from roadmap.runs.run_folder import read_result

    rows = {run.config.id: read_result(run.folder) for run in planned}
    done = [row for row in rows.values() if row and row["state"] in ("finished", "diverged")]
    keys = measuring.keys_of(study)
    known = measuring.read_measured(study.runs, keys)
    if len(done) < len(planned) or (known and keys <= known["rows"].keys()):
        return
    budget_s = min(measuring.BUDGET_S, sum(row["wall_s"] or 0.0 for row in done) / 10)
    visit_s = min(measuring.VISIT_S, budget_s / (2 * measuring.ROUNDS * len(keys)))
    text = f"Measuring time and memory of {len(keys)} networks side by side: about {clock(budget_s)}."
    console.print(text, highlight=False)
    start = time.monotonic()
    try:
        with show_steps(console) as show_step:

            def show(done: int, total: int, what: str) -> None:
                if time.monotonic() - start > measuring.PATIENCE_S:
                    raise TimeoutError("this machine is too busy now")
                show_step(done, total, what)

            measured = measuring.measure(study, visit_s=visit_s, limit_s=budget_s, show=show)
        measuring.write_measured(study.runs, measured)
    except KeyboardInterrupt:
        console.print("Not measured. 'measure' does it.")
    except Exception as error:
        text = f"Not measured ({type(error).__name__}: {error}). 'measure' tries again."
        console.print(text, markup=False, highlight=False)
