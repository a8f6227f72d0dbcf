"""How jobs are started, and what they are to measure of trained networks."""

import re
import uuid
from argparse import Namespace
from typing import TYPE_CHECKING

from roadmap.cli.options.values import whole
from roadmap.common.errors import UserError

if TYPE_CHECKING:
    from roadmap.jobs.options import JobOptions
    from roadmap.metrics.own_metrics import OwnMetric
    from roadmap.robustness.settings import Settings
    from roadmap.study.plan import Study


def jobs_of(options: Namespace) -> int | None:
    """Return the number of jobs at once, if it was given."""
    return None if options.jobs is None else whole(options.jobs, "--jobs", 1)


def robustness_settings_of(options: Namespace) -> "Settings":
    """Return what `robustness` is to ask of every network."""
    from roadmap.robustness.settings import IMAGES, RADII, Settings

    images = IMAGES if options.images is None else whole(options.images, "--images", 1)
    radii = RADII if options.radii is None else tuple(sorted({_radius(text) for text in options.radii}))
    return Settings(images, radii)


def own_metrics_of(options: Namespace, study: "Study") -> "tuple[OwnMetric, ...]":
    """Return the functions of the user's own that are to measure a study's networks: the ladder's, and those named.

    Raises:
        UserError: If one is not there, does not say what it measures, or under a name that another metric has.
    """
    from analysis.metrics import NAMES_TAKEN
    from roadmap.metrics.own_metrics import find_metric

    metrics: dict[str, OwnMetric] = {}  # by what they measure
    for place in dict.fromkeys((*study.ladder.metrics, *(options.metric or ()))):
        metric = find_metric(place, {name: other for name, other in metrics.items()} | NAMES_TAKEN)
        metrics |= dict.fromkeys(metric.names, metric)
    return tuple(dict.fromkeys(metrics.values()))


def _radius(text: str) -> float:
    try:
        radius = float(text)
    except ValueError:
        radius = 0.0
    if not 0 < radius <= 255:
        raise UserError(f"--radii: '{text}' is no radius. Say how many 255ths of a pixel's range, such as 2 4 8.")
    return radius


def job_options_of(options: Namespace, study: "Study", *, wait: bool) -> "JobOptions":
    """Return how a study's jobs are to be started."""
    from roadmap.common.process_group import under_torchrun
    from roadmap.jobs.cluster import check_local, read_cluster
    from roadmap.jobs.options import JobOptions

    slurm = options.executor == "slurm"
    cluster = read_cluster(options.cluster, here=not slurm)
    if not slurm:
        check_local(cluster)
    if under_torchrun() and options.executor != "debug":
        raise UserError(
            f"torchrun has started the processes of a run, so --executor {options.executor} would start more. "
            "Use --executor debug."
        )
    if options.executor == "debug" and cluster.processes > 1:
        raise UserError(
            f"--executor debug is this process alone, but tasks_per_node is {cluster.tasks_per_node}. Start "
            f"'torchrun --nproc-per-node {cluster.tasks_per_node} run_ladder.py ...' without --cluster."
        )
    if not slurm and options.runs_per_job is not None:
        raise UserError("--runs-per-job: is for --executor slurm; local jobs share all runs. Leave it out.")
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{study.base}-{study.recipe.name}")
    return JobOptions(
        options.executor,
        options.runs,
        f"{words}-{uuid.uuid4().hex[:6]}",
        cluster,
        jobs_of(options),
        1 if options.runs_per_job is None else whole(options.runs_per_job, "--runs-per-job", 1),
        2 if options.max_retries is None else whole(options.max_retries, "--max-retries", 0),
        options.data,
        wait,
        loggers_of(options),
    )


def loggers_of(options: Namespace) -> tuple[str, ...]:
    """Return who else is told how runs go; all of them can be."""
    from roadmap.training.loggers import TENSORBOARD, check_logger

    names = (*([TENSORBOARD] if options.tensorboard else []), *(options.logger or []))
    for name in names:
        check_logger(name)
    return names
