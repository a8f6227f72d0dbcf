"""From the command line's options to what the library takes; whatever is wrong with them is said at once."""

import re
import uuid
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from roadmap.common.errors import UserError
from roadmap.ladder.designs import SAMPLED, Design, Layout, lay_out
from roadmap.ladder.ladder import Ladder, find_ladder, known_ladders
from roadmap.ladder.schema import Match
from roadmap.recipe import MOST_SEED
from roadmap.runs import run_folder

if TYPE_CHECKING:
    from roadmap.jobs.options import JobOptions
    from roadmap.metrics.own_metrics import OwnMetric
    from roadmap.robustness.settings import Settings
    from roadmap.study.plan import Study


def ladder_of(options: Namespace) -> Ladder:
    """Return the ladder, which has the base that was named, if one was; of techniques, those that the recipe has."""
    if options.ladder and options.steps:
        raise UserError(f"--steps: '{options.ladder}' is the ladder already. Name one.")
    ladder = find_ladder(options.ladder or options.steps, options.base)
    if ladder.has_techniques:
        ladder = ladder.towards(options.recipe)
    return ladder.model_copy(update={"match": match_of(options.match)}) if options.match else ladder


def match_of(text: str) -> Match:
    """Return what all rungs of a ladder are to be matched to."""
    if text in ("base", "previous"):
        return Match(to=text)
    try:
        return Match(to=float(text))
    except ValueError:
        raise UserError(
            f"--match: '{text}' is nothing to match to. Say base, previous (the rung before), or 1e9 multiply-adds at "
            "224x224, such as 4.1."
        ) from None


def base_of(options: Namespace) -> str:
    """Return the base, which must be named."""
    if not options.base:
        ladders = [options.steps] if options.steps else known_ladders()
        bases = dict.fromkeys(base for name in ladders for base in find_ladder(name).bases)
        raise UserError(f"which base? Say --base {' or --base '.join(bases)}.")
    return str(options.base)


def design_of(options: Namespace) -> Design:
    """Return the design that was named; the ladder, if none was."""
    name, *steps = options.design or ["ladder"]
    if options.samples is not None and name not in SAMPLED:
        raise UserError(f"--samples: is for --design {' and '.join(SAMPLED)}, not for {name}. Leave it out.")
    samples = None if options.samples is None else whole(options.samples, "--samples", 1)
    return Design(name, tuple(steps), samples)


def layout_of(options: Namespace, base: str) -> Layout:
    """Return all rungs of the design that was named, and the references."""
    return lay_out(ladder_of(options), base, design_of(options), options.references)


def study_of(
    options: Namespace, base: str | None = None, ladder: Ladder | None = None, *, assume_data: bool = False
) -> "Study":
    """Return the study that the options describe, from another base or on a ladder read before if one is given."""
    from roadmap.study.rounds import in_rounds, read_rounds
    from roadmap.study.spec import StudySpec, plan_study

    base = base or base_of(options)
    spec = StudySpec(
        base,
        options.recipe,
        ladder or ladder_of(options),
        design_of(options),
        options.references,
        only=options.only,
        until=options.until,
        seeds=None if options.seeds is None else [whole(seed, "--seeds", 0, MOST_SEED) for seed in options.seeds],
        data_root=options.data,
        checksum=options.checksum,
        validate=options.validate,
        assume_data=assume_data,
        weights=options.weights,
        runs=options.runs,
    )
    study = plan_study(spec)
    if getattr(options, "in_rounds", False) and (rounds := read_rounds(study)).seeds:
        return in_rounds(study, rounds)
    return study


def words_of(options: Namespace) -> list[str]:
    """Return the words of the command line that name the study, for a command that is about the same one."""
    words = ["--base", base_of(options)]
    study = ("steps", "steps_module", "match", "references", "recipe", "seeds", "data", "weights", "runs")
    for name in (*study, "only", "until", "design", "samples", "budget", "price", "metric"):
        value = getattr(options, name)
        if value is not None and not (name == "seeds" and getattr(options, "in_rounds", False)):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    flags = ("validate", "checksum", "until_answered")
    return words + [f"--{name.replace('_', '-')}" for name in flags if getattr(options, name)]


def with_seeds_found(options: Namespace, file: str = run_folder.RESULT) -> Namespace:
    """Return options that name, where none were named, the recipe's seeds and all others that the study's runs have.

    Those of a study in rounds are the ones that its rounds gave it.

    Args:
        options: The options.
        file: Which file of a run folder says that there is such a run.
    """
    if options.seeds is not None:
        return options
    if found := with_rounds_found(options):
        return found
    study = study_of(options)
    keys = {config.key for config in study.configs.values()}
    more = run_folder.seeds_with(file, study.runs, keys) - set(study.seeds)
    if not more:
        return options
    found = Namespace(**vars(options) | {"seeds": [str(seed) for seed in (*study.seeds, *sorted(more))]})
    if any(config.weights for config in study.configs.values()):
        try:
            study_of(found)
        except UserError:  # those seeds started from weights that are elsewhere: they are another study's
            return options
    return found


def with_rounds_found(options: Namespace) -> Namespace | None:
    """Return options that name the seeds that a study's rounds gave it; None where it has no rounds."""
    from roadmap.study.rounds import STUDIES, read_rounds

    if not (options.runs / STUDIES).is_dir():
        return None
    try:
        rounds = read_rounds(study_of(with_first_seeds(options, 1)))
    except UserError:  # seed 0 has no weights to start from, which a study in rounds begins with
        return None
    return with_first_seeds(options, max(rounds.seeds[-1].values())) if rounds.seeds else None


def with_first_seeds(options: Namespace, number: int) -> Namespace:
    """Return options for a study in rounds, with so many seeds from 0 up."""
    return Namespace(**vars(options) | {"seeds": [str(seed) for seed in range(max(1, number))], "in_rounds": True})


def with_rungs_before(options: Namespace) -> Namespace:
    """Return options that name, beside the rungs of `--only`, those that they are judged against and that have results.

    Nothing is trained for it: it is for tables of what there is.
    """
    if not options.only:
        return options
    chosen = {rung.id: rung.parent for rung in study_of(options).rungs}
    before = dict.fromkeys(parent for parent in chosen.values() if parent is not None and parent not in chosen)
    if not before:
        return options
    study = study_of(Namespace(**vars(options) | {"only": [*chosen, *before]}))
    done = dict.fromkeys(
        rung
        for (rung, _), config in study.configs.items()
        if rung in before and run_folder.is_done(study.folder(config))
    )
    return Namespace(**vars(options) | {"only": [*options.only, *done]})


def study_to_report(options: Namespace, console: Console) -> "tuple[Study, Namespace]":
    """Return the study that tables are to show, with all that belongs beside what was asked for, and its options.

    It says which rungs it shows that were not named.
    """
    shown = with_rungs_before(with_seeds_found(options))
    if added := (shown.only or [])[len(options.only or []) :]:
        verb = "are" if len(added) > 1 else "is"
        console.print(
            f"{', '.join(added)} {verb} shown too: --only names rungs that are judged against it.",
            highlight=False,
            markup=False,
        )
    study = study_of(shown)
    if left_out := _seeds_left_out(options, study):
        console.print(
            f"Seeds {' '.join(map(str, left_out))} have results too, but --seeds leaves them out of the report, which "
            "replaces the one before.",
            highlight=False,
            markup=False,
        )
    return study, shown


def _seeds_left_out(options: Namespace, study: "Study") -> list[int]:
    """Return the seeds that have results and that `--seeds` does not name."""
    if options.seeds is None:
        return []
    keys = {config.key for config in study.configs.values()}
    return sorted(run_folder.seeds_with(run_folder.RESULT, study.runs, keys) - set(study.seeds))


def study_behind(options: Namespace, study: "Study") -> "Study | None":
    """Return the same study from the next other base, for the grey bars."""
    others = [name for name in study.ladder.bases if name != study.base]
    try:
        return study_of(options, others[0], study.ladder) if others else None
    except UserError:  # a recipe or ladder that fits this base alone: the report is about this one
        return None


def studies_beside(options: Namespace, study: "Study") -> "dict[str, Study]":
    """Return the ladder and the designs that say what each step is worth, whole, with a study's base, recipe and seeds.

    A design that cannot be laid out, as on a ladder that was not meant for it, is left out; so are all where part of
    the ladder was asked for (`--only`, `--until`).
    """
    from analysis.design_effects import NAMES

    studies: dict[str, Study] = {}
    if options.only or options.until:
        return studies
    for design in NAMES:
        try:
            studies[design] = _whole_study(options, study, [design])
        except UserError:
            continue
    return studies


def ladder_behind(options: Namespace, study: "Study") -> "Study":
    """Return the whole ladder of a study of another design, for a plan: what the two share need not run twice."""
    return _whole_study(options, study, None, assume_data=True)


def _whole_study(options: Namespace, study: "Study", design: list[str] | None, *, assume_data: bool = False) -> "Study":
    """Return another design of a study's base, with all its rungs."""
    whole = vars(options) | dict.fromkeys(("samples", "only", "until")) | {"design": design}
    return study_of(Namespace(**whole), study.base, study.ladder, assume_data=assume_data)


def out_of(options: Namespace, study: "Study") -> Path:
    """Return where reports go: a folder for each recipe, ladder of your own and design."""
    words = [study.base, study.recipe.name]
    words += [Path(options.steps).stem] if options.steps else []
    words += [f"match-{options.match}"] if options.match else []
    words += [study.layout.design.slug] if study.design != "ladder" else []
    words += ["validation"] if options.validate else []
    return options.out or Path("out") / "-".join(words)


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


def margin_of(options: Namespace) -> float | None:
    """Return the margin of top-1 within which a change is as good as none, if it was given."""
    if options.margin is None:
        return None
    try:
        margin = float(options.margin)
    except ValueError:
        margin = -1.0
    if not 0 <= margin <= 100:
        raise UserError(f"--margin: '{options.margin}' is not a number of points from 0 to 100.")
    return margin


def amount_of(text: str | None, option: str) -> float:
    """Return an option's positive number; 0 where it was not given."""
    if text is None:
        return 0.0
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < 1e9:
        raise UserError(f"{option}: '{text}' is not a number above 0.")
    return amount


def whole(text: str, option: str, least: int, most: int = 999_999_999) -> int:
    """Return an option's whole number."""
    if not text.isdecimal() or len(text) > 19 or not least <= int(text) <= most:
        raise UserError(f"{option}: '{text}' is not a whole number from {least} up (at most {most}).")
    return int(text)


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
