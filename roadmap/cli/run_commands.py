"""The commands that start jobs, stop them and export what they trained: run, launch, cancel, export."""

import os
import signal
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from roadmap.cli._goals import goal_of
from roadmap.cli._rounds import (
    answers_of,
    begin_round,
    choose,
    describe_end,
    describe_round,
    next_runs,
    runs_of,
    study_in_rounds,
    train_in_rounds,
)
from roadmap.cli.commands import COMMANDS, Exit
from roadmap.cli.evaluation_commands import measure_with
from roadmap.cli.measure_commands import measure_trained
from roadmap.cli.options import (
    job_options_of,
    margin_of,
    out_of,
    own_metrics_of,
    study_of,
    study_to_report,
    with_rounds_found,
    with_seeds_found,
)
from roadmap.cli.report_commands import presentation_of, report_results, results_of
from roadmap.cli.terminal import print_lines, print_study
from roadmap.common.errors import UserError
from roadmap.common.process_group import my_rank, under_torchrun
from roadmap.runs.run_folder import RUN, is_done, is_finished

if TYPE_CHECKING:
    from roadmap.cli._goals import Goal
    from roadmap.jobs.options import JobOptions
    from roadmap.jobs.status import Queue
    from roadmap.metrics.own_metrics import OwnMetric
    from roadmap.study.plan import PlannedRun, Study
    from roadmap.study.rounds import Rounds


def run(options: Namespace) -> Exit:
    """Train what is missing, with live progress, and report; the same command goes on with what was interrupted."""
    from roadmap.common.files import check_writable
    from roadmap.common.formats import clock

    start, console = time.monotonic(), Console()
    study = study_of(options)
    how = job_options_of(options, study, wait=True)
    goal = goal_of(options, study)
    planned = study.planned()
    if options.dry_run:
        return _print_dry_run(planned if goal is None else next_runs(options, goal), how)
    out = out_of(options, study)
    metrics = own_metrics_of(options, study)
    margin_of(options), presentation_of(options)  # wrong options and folders are refused now, not after the training
    check_writable(out)
    if goal is not None:
        trained, planned = train_in_rounds(console, options, goal, partial(_train_round, console, how, goal))
    else:
        trained = _train(console, study, planned, how)
        if with_rounds_found(options):  # this time the number of seeds is fixed, and the report is of it
            options.seeds = options.seeds or [str(seed) for seed in study.seeds]
    if not trained:
        return Exit.INTERRUPTED
    if my_rank():  # under torchrun: the first process reports for all
        return Exit.OK
    all_measured = _measure(metrics, planned, how, console)
    if how.executor == "local":
        measure_trained(console, study, planned)
    study, shown = study_to_report(options, console)
    report_results(shown, results_of(shown, study), out)
    outcome = _say_outcome(console, planned, how, clock(time.monotonic() - start))
    return outcome if all_measured else Exit.FAILED


def _measure(
    metrics: Sequence["OwnMetric"], planned: Sequence["PlannedRun"], how: "JobOptions", console: Console
) -> bool:
    """Have the trained networks measured by a user's functions; return whether all that are trained could be."""
    if not metrics:
        return True
    if under_torchrun():
        print_lines([f"'evaluate', without torchrun, measures with {', '.join(map(str, metrics))}."], console)
        return True
    return measure_with(metrics, [run for run in planned if is_finished(run.folder)], how, console)


def launch(options: Namespace) -> Exit:
    """Start the jobs for what is missing and return."""
    from roadmap.jobs import launcher as jobs

    if options.executor == "debug":
        raise UserError("launch: the debug executor runs in this process, which would not return. Use run.")
    console = Console()
    study = study_of(options)
    how, planned = job_options_of(options, study, wait=False), study.planned()
    goal = goal_of(options, study)
    if options.dry_run:
        return _print_dry_run(planned if goal is None else next_runs(options, goal), how)
    if goal is not None:
        return _launch_round(console, options, goal, how)
    metrics = own_metrics_of(options, study)
    if folders := [run.folder for run in _pending(console, study, planned, how)]:
        jobs.launch(folders, how)
        console.print("Started. See 'status'; 'report' when done.")
        if metrics:
            print_lines([f"Then 'evaluate' measures with {', '.join(map(str, metrics))}."], console)
    return Exit.OK


def cancel(options: Namespace) -> Exit:
    """Have no job go on with this study's runs: those at work save, those that wait are taken out of the queue."""
    from roadmap.jobs.launcher import cancel as cancel_jobs

    study = study_of(with_seeds_found(options, RUN))
    stopped = cancel_jobs([run.folder for run in study.planned()], options.runs)
    print(f"Asked {stopped} job{'s' if stopped != 1 else ''} to stop. 'launch' or 'run' goes on from the checkpoints.")
    if not stopped:
        print("None was seen at work; one that is only starting will pass these runs by.")
    return Exit.OK


# How an exported run is loaded, by the format.
LOADING = {
    "roadmap": "roadmap.load_model('{}')",
    "timm": "timm.create_model('local-dir:{}', pretrained=True)",
    "torchvision": "torch.load('{}/model.pth') into the class that config.json names",
    "official": "torch.load('{}/model.pth')['model'] into the class that config.json names",
    "transformers": "transformers.AutoModelForImageClassification.from_pretrained('{}')",
    "onnx": "onnxruntime.InferenceSession('{}/model.onnx')",
}


def export(options: Namespace) -> Exit:
    """Write every trained rung's weights with their configuration in the format asked for; say what is missing."""
    from roadmap.common.files import check_writable
    from roadmap.export.safetensors_files import export_study

    study = study_of(with_seeds_found(options))
    folder = "export" if options.format == "roadmap" else f"export-{options.format}"
    out = options.out or out_of(options, study) / folder
    check_writable(out)
    print_study(study, Console())
    written, missing = export_study(study, out, options.data, options.format, fold=options.fold_layer_scale)
    for reason, names in missing.items():
        print(f"Not exported ({reason}): {', '.join(names)}")
    if not written:
        print("There is nothing to export yet. 'run' trains what is missing.")
        return Exit.FAILED
    print(f"Wrote {out}/: {', '.join(path.name for path in written)}")
    print(f"Load one with {LOADING[options.format].format(written[-1])}.")
    return Exit.OK


def _train(
    console: Console,
    study: "Study",
    planned: list["PlannedRun"],
    how: "JobOptions",
    answers: Mapping[str, str] | None = None,
    number: int = 0,
) -> bool:
    """Start jobs and wait until no run is at work, trying again what died; False if told to stop waiting (Ctrl-C).

    Of a study in rounds, progress shows the answers so far and the number of the round.
    """
    from roadmap.cli.progress import Watch
    from roadmap.common.machine import this_machine
    from roadmap.jobs.executors import EXECUTORS
    from roadmap.jobs.launcher import launch as start_jobs
    from roadmap.jobs.retries import Retries
    from roadmap.measuring.forecast import REST_S, forecast

    pending = [run.folder for run in _pending(console, study, planned, how)]
    if all(is_done(run.folder) for run in planned):
        return True
    ahead = forecast(study, this_machine(how.jobs)).seconds
    costs = [ahead[run.config.id] for run in planned]
    watch = Watch(planned, costs, [rung.id for rung in study.rungs], console, answers or {}, number, REST_S)
    retries = Retries([run.folder for run in planned], how)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    jobs = None
    try:
        while True:
            if pending:
                jobs = start_jobs(pending, how, retries.number)
            watch.follow(partial(retries.are_over, jobs))
            pending = [] if under_torchrun() else retries.to_try_again()  # torchrun starts its processes anew itself
            if not pending:
                return True
            console.print(f"{len(pending)} runs ended without a word (killed?). Trying again.", highlight=False)
    except KeyboardInterrupt:
        done = sum(is_done(run.folder) for run in planned)
        if EXECUTORS[how.executor].outlives_command:
            console.print(
                f"\n{done} of {len(planned)} runs done; the jobs of the others stay in the queue. The same command "
                "waits for them again, 'status' shows them, 'cancel' ends them."
            )
        else:
            console.print("Stopping: every run saves itself ...")
            if jobs is not None:
                jobs.stop()
            done = sum(is_done(run.folder) for run in planned)
            console.print(f"Stopped with {done} of {len(planned)} runs done. The same command goes on from here.")
        return False


def _train_round(
    console: Console, how: "JobOptions", goal: "Goal", study: "Study", rounds: "Rounds", runs: list["PlannedRun"]
) -> bool:
    """Train what is missing of the round at hand; False if told to stop waiting."""
    number = len(rounds.seeds)
    named = replace(how, name=f"{how.name}-r{number}")
    return _train(console, study, runs, named, answers_of(study, goal), number)


def _launch_round(console: Console, options: Namespace, goal: "Goal", how: "JobOptions") -> Exit:
    """Start the jobs of the round at hand, or of the next one, and one that comes back here when they have ended."""
    from roadmap.jobs.launcher import launch as start_jobs
    from roadmap.jobs.next_round import count_tries, is_cancelled, jobs_for_next_round, my_job, submit_next_round
    from roadmap.jobs.status import look_at_queue

    if how.executor != "slurm":
        raise UserError("launch: only Slurm's scheduler starts the next round. Use run, or --executor slurm.")
    if is_cancelled(how.runs):
        return Exit.OK
    while True:
        study, rounds = study_in_rounds(options)
        ids, queue = [run.config.id for run in runs_of(study, rounds, failed=True)], look_at_queue(how.runs)
        waiting = jobs_for_next_round(ids, queue)
        is_next = my_job() in [job.id for job in waiting]
        others = [job.id for job in waiting if job.id != my_job()]
        if is_next and any(int(job) < int(my_job() or 0) for job in others):
            return Exit.OK  # two commands at once have submitted one each
        runs = runs_of(study, rounds, failed=not is_next)
        if any(not is_done(run.folder) for run in runs):
            break
        chosen = choose(options, study, rounds, goal)
        if chosen.stop is not None:
            print_lines([describe_end(study, rounds, goal, chosen)], console)
            return Exit.OK
        begin_round(study, rounds, goal, chosen)
    print_lines([describe_round(study, rounds, goal)], console)
    name = f"{how.name}-r{len(rounds.seeds)}"
    if pending := _pending(console, study, runs, how):
        if is_next and count_tries(pending[0].config.id, how.runs) > how.max_retries + 1:
            raise UserError(f"{len(pending)} runs end again and again without a result. 'status' shows their logs.")
        start_jobs([run.folder for run in pending], replace(how, name=name))
    if others:
        console.print(f"Job {others[0]} starts the next round.", highlight=False)
        return Exit.OK
    job = submit_next_round(COMMANDS["launch"].command_line(options), ids, f"{name}-next", how)
    console.print(f"Started. Job {job} starts the next round. See 'status'; 'report' when done.", highlight=False)
    return Exit.OK


def _pending(
    console: Console, study: "Study", planned: Sequence["PlannedRun"], how: "JobOptions"
) -> list["PlannedRun"]:
    """Say what is to be done; return the runs that nobody has done, does, or is in line to do, longest first."""
    from roadmap.jobs.launcher import prepare

    undone, free, queue = _undone_and_free(planned, how)
    pending = prepare(free)
    print_study(study, console)
    at_work = f", {len(undone) - len(pending)} at work" if len(undone) > len(pending) else ""
    text = f"{len(planned)} runs, {len(planned) - len(undone)} done already{at_work}, {len(pending)} to do."
    console.print(text, highlight=False)
    if not queue.answers:
        console.print("Slurm does not answer: runs that were submitted to it may wait there, and count as at work.")
    return pending


def _undone_and_free(
    planned: Sequence["PlannedRun"], how: "JobOptions"
) -> tuple[list["PlannedRun"], list["PlannedRun"], "Queue"]:
    """Return the runs without a result, those of them that nobody is at or in line for, and the queue."""
    from roadmap.jobs.status import is_at_work, look_at_queue

    for run in planned:
        run.config.check_shared(how.cluster.processes)
    queue = look_at_queue(how.runs)
    undone = [run for run in planned if not is_done(run.folder)]
    return undone, [run for run in undone if not is_at_work(run.folder, queue)], queue


def _print_dry_run(planned: Sequence["PlannedRun"], how: "JobOptions") -> Exit:
    """Print what would be submitted."""
    from roadmap.jobs.slurm_arrays import sbatch_text, share_out

    if how.executor != "slurm":
        raise UserError("--dry-run: prints a Slurm script, so it goes with --executor slurm. 'plan' shows the rest.")
    folders = [run.folder for run in _undone_and_free(planned, how)[1]]
    if folders:
        print(sbatch_text(folders, how))
    print(f"# {len(folders)} runs in {len(share_out(folders, how.runs_per_job))} jobs. Nothing was submitted.")
    return Exit.OK


def _say_outcome(console: Console, planned: Sequence["PlannedRun"], how: "JobOptions", took: str) -> Exit:
    from roadmap.jobs.launch_folders import JOBS
    from roadmap.jobs.status import look_at_queue, standing

    queue = look_at_queue(how.runs)
    standings = {run.config.id: standing(run.folder, queue) for run in planned}
    for run in planned:
        now = standings[run.config.id]
        if now.state in ("failed", "lost"):
            text = f"{run.rungs[0]} seed {run.config.seed} {now.state}: {now.note or 'no result'} (log: {now.log})"
            console.print(text, markup=False, highlight=False)
    if never := sum(now.state == "waiting" for now in standings.values()):
        logs = how.runs / JOBS / f"{how.name}-*"
        text = f"No job came to {never} runs: it ended before it began. Its log: {logs}{os.sep}*.out"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    done = sum(now.state in ("finished", "diverged") for now in standings.values())
    failed = sum(now.state == "failed" for now in standings.values())
    if unfinished := len(planned) - done - failed:
        console.print(f"{unfinished} runs did not finish. The same command goes on with them.", highlight=False)
    console.print(f"{done} of {len(planned)} runs done. Took {took}.", highlight=False)
    return Exit.OK if done == len(planned) else Exit.FAILED
