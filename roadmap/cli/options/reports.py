"""What a report shows beside the study that was asked for, and where it goes."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from roadmap.cli.options.studies import study_of, with_seeds_found
from roadmap.common.errors import UserError
from roadmap.runs import run_folder

if TYPE_CHECKING:
    from roadmap.study.plan import Study


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
        if rung in before and run_folder.has_results(study.folder(config))
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
    found = (run_folder.seeds_with(name, study.runs, keys) for name in run_folder.RESULTS)
    return sorted(set().union(*found) - set(study.seeds))


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
