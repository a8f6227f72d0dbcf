"""The commands that measure trained networks further: evaluate (own metrics), robustness (attacks and corruptions)."""

import signal
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from roadmap.cli.commands import Exit
from roadmap.cli.options import job_options_of, own_metrics_of, robustness_settings_of, study_of, with_seeds_found
from roadmap.cli.terminal import print_json, print_study
from roadmap.common.errors import UserError
from roadmap.common.process_group import under_torchrun

if TYPE_CHECKING:
    from roadmap.jobs.executors import Launch
    from roadmap.jobs.options import JobOptions
    from roadmap.jobs.retries import Retries
    from roadmap.metrics.own_metrics import OwnMetric
    from roadmap.metrics.tasks import NetworkTask
    from roadmap.study.plan import PlannedRun, Study

LOOK_EVERY_S = 0.5


def evaluate(options: Namespace) -> Exit:
    """Measure every trained network of a study with functions of the user's own, as far as that is not done.

    A report and a comparison then show it too.
    """
    study = study_of(with_seeds_found(options))
    metrics, console = own_metrics_of(options, study), Console(stderr=options.json)
    if not metrics:
        raise UserError("which metric? Say --metric FILE:FUNCTION, or name it under metrics: in the ladder's file.")
    how = job_options_of(options, study, wait=True)
    print_study(study, console)
    all_done = measure_with(metrics, study.planned(), how, console)
    print_measured(study, console, json=options.json)
    return Exit.OK if all_done else Exit.FAILED


def print_measured(
    study: "Study", console: Console, *, json: bool, margin: float | None = None, margin_of: str = "top1"
) -> None:
    """Print what was measured of a study's trained networks, with answers, or each number as JSON.

    Args:
        study: The study.
        console: Where to.
        json: Whether as JSON.
        margin: Changes of a metric within it are as good as none; None takes the metric's own.
        margin_of: Which metric.
    """
    from analysis.evaluations.own_metrics import own_metric_rows
    from analysis.study_results import StudyResults
    from analysis.terminal import print_own_metrics

    results = StudyResults(study, margin=margin, margin_of=margin_of)
    if json:
        print_json(own_metric_rows(study, results.own_metrics))
    else:
        print_own_metrics(results, console)


def measure_with(
    metrics: Sequence["OwnMetric"], planned: Sequence["PlannedRun"], how: "JobOptions", console: Console
) -> bool:
    """Have jobs measure trained networks with a user's functions; return whether there are any, and all could be."""
    from roadmap.metrics.tasks import OwnMetricsTask

    words = f"with {', '.join(map(str, metrics))}"
    return work_on_networks(OwnMetricsTask(tuple(metrics)), planned, how, console, words)


def robustness(options: Namespace) -> Exit:
    """Attack and corrupt what every trained network of a study sees, as far as that is not done, and print the outcome.

    A report and a comparison then show it too.
    """
    from analysis.evaluations.robustness import collect_robustness, robustness_rows
    from analysis.terminal import print_robustness
    from roadmap.robustness.attacks import require_toolbox
    from roadmap.robustness.settings import Damaged, read_found
    from roadmap.robustness.task import RobustnessTask

    settings, study, console = robustness_settings_of(options), study_of(options), Console(stderr=options.json)
    how, planned = job_options_of(options, study, wait=True), study.planned()
    require_toolbox()
    print_study(study, console)
    for run in planned:
        try:
            read_found(run.folder)
        except Damaged as error:
            console.print(f"{error}", markup=False, highlight=False)
    words = f"with {settings.images:,} test images each"
    all_done = work_on_networks(RobustnessTask(settings), planned, how, console, words)
    found = collect_robustness(study)
    if options.json:
        print_json(robustness_rows(study, found))
    else:
        print_robustness(found, console)
    return Exit.OK if all_done else Exit.FAILED


def work_on_networks(
    task: "NetworkTask", planned: Sequence["PlannedRun"], how: "JobOptions", console: Console, words: str
) -> bool:
    """Have jobs do a task on the networks of a study, with live progress; say what could not be done.

    They are those of the finished runs, unless the task needs no training before.

    Args:
        task: The task.
        planned: The study's runs.
        how: How jobs are started; each network is one process's, unless the task can be shared out.
        console: Where to say how it goes.
        words: What the task is done with.

    Returns:
        Whether there is such a network, and the task is done on all of them.
    """
    from roadmap.common.files import check_writable
    from roadmap.common.formats import clock
    from roadmap.jobs.launcher import prepare
    from roadmap.runs.run_folder import is_finished

    if under_torchrun():
        raise UserError("a trained network is evaluated by one process. Start the command without torchrun.")
    check_writable(how.runs, "--runs")
    if task.needs_trained:
        ready = [run for run in planned if is_finished(run.folder)]
    else:
        prepare(planned)
        ready = list(planned)
    missing = {run.config.id: _missing(run, task, console) for run in ready}
    todo = sorted((run for run in ready if missing[run.config.id]), key=lambda run: -run.macs)
    done = sum(parts == () for parts in missing.values())
    trained = f" {len(ready)} trained," if task.needs_trained else ""
    console.print(
        f"{len(planned)} runs,{trained} {done} evaluated already, {len(todo)} to do, {words}.",
        highlight=False,
        markup=False,
    )
    start = time.monotonic()
    if not task.shared_out:
        how = replace(how, cluster=how.cluster.one_process())
    are_well = _start_jobs(todo, task, how, console)
    if todo:
        console.print(f"Took {clock(time.monotonic() - start)}.", highlight=False)
    return bool(ready) and are_well and done + len(todo) == len(ready)


def _missing(run: "PlannedRun", task: "NetworkTask", console: Console) -> tuple[str, ...] | None:
    """Return the parts that are not known yet of a trained run; None, having said why, where it cannot be done."""
    try:
        return task.missing(run.folder)
    except UserError as error:
        _say_not_evaluated(run, str(error), console)
        return None


def _say_not_evaluated(run: "PlannedRun", reason: str, console: Console) -> None:
    console.print(f"{_name_of(run)}: not evaluated: {reason}", markup=False, highlight=False)


def _name_of(run: "PlannedRun") -> str:
    return f"{run.rungs[0]} seed {run.config.seed}"


def _start_jobs(runs: Sequence["PlannedRun"], task: "NetworkTask", how: "JobOptions", console: Console) -> bool:
    """Have jobs do a task on trained runs, with live progress; say which could not be, and return whether all could."""
    from roadmap.jobs.executors import EXECUTORS, Launch
    from roadmap.jobs.launcher import launch
    from roadmap.jobs.retries import Retries
    from roadmap.jobs.status import is_at_work, look_at_queue

    if not runs:
        return True
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    queue = look_at_queue(how.runs)
    retries = Retries([run.folder for run in runs], how, task)
    pending = [run.folder for run in runs if not is_at_work(run.folder, queue, task)]
    jobs: Launch | None = None
    try:
        while True:
            if pending:
                # What a job in this process (debug) says is no part of the outcome.
                with redirect_stdout(sys.stderr if console.stderr else sys.stdout):
                    jobs = launch(pending, how, retries.number, task)
            _follow(runs, task, retries, jobs, console)
            if not (pending := retries.to_try_again()):
                break
    except KeyboardInterrupt:
        if EXECUTORS[how.executor].outlives_command:
            console.print("The jobs stay in the queue. The same command waits for them again, 'cancel' ends them.")
        elif jobs is not None:
            jobs.stop()
        raise
    for run in runs:
        if failure := task.failure(run.folder):
            _say_not_evaluated(run, str(failure.content.get("error")), console)
        elif not task.is_done(run.folder):
            _say_not_evaluated(run, "its job ended without a word (killed?). The same command goes on.", console)
    return all(task.is_done(run.folder) for run in runs)


def _follow(
    runs: Sequence["PlannedRun"], task: "NetworkTask", retries: "Retries", jobs: "Launch | None", console: Console
) -> None:
    """Show how far the runs are, as their folders say, until their jobs are over."""
    from roadmap.cli.progress import show_steps

    macs = {run.config.id: run.macs for run in runs}
    before = {run.config.id: _left(run, task) for run in runs}
    total = sum(macs[name] * sum(map(task.cost, parts)) for name, parts in before.items())
    with show_steps(console) as show:
        while not retries.are_over(jobs):
            left = {run.config.id: _left(run, task) for run in runs}
            done = total - sum(macs[name] * sum(map(task.cost, parts)) for name, parts in left.items())
            at = next((run for run in runs if left[run.config.id] and _is_begun(run, task)), None)
            what = f"{_name_of(at)}: {left[at.config.id][0].replace('_', ' ')}" if at else "starting"
            show(int(100 * done / total) if total else 100, 100, what)
            time.sleep(LOOK_EVERY_S)


def _left(run: "PlannedRun", task: "NetworkTask") -> tuple[str, ...]:
    """Return the parts of a run that are still to come; none where it failed."""
    try:
        return () if task.failure(run.folder) else task.missing(run.folder)
    except UserError:
        return ()


def _is_begun(run: "PlannedRun", task: "NetworkTask") -> bool:
    from roadmap.runs.attempts import last_attempt

    last = last_attempt(task.place(run.folder))
    return last is not None and last.end is None
