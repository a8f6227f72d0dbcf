"""The ladder, its design and the study that options name, with the seeds that its runs have."""

from argparse import Namespace
from typing import TYPE_CHECKING

from roadmap.cli.options.values import whole
from roadmap.common.errors import UserError
from roadmap.ladder.designs import SAMPLED, Design, Layout, lay_out
from roadmap.ladder.ladder import Ladder, find_ladder, known_ladders
from roadmap.ladder.schema import Match
from roadmap.recipe import MOST_SEED, read_recipe
from roadmap.runs import run_folder

if TYPE_CHECKING:
    from roadmap.study.plan import Study
    from roadmap.study.spec import StudySpec


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
    from roadmap.study.spec import plan_study

    study = plan_study(spec_of(options, base, ladder, assume_data=assume_data))
    if getattr(options, "in_rounds", False) and (rounds := read_rounds(study)).seeds:
        return in_rounds(study, rounds)
    return study


def spec_of(
    options: Namespace, base: str | None = None, ladder: Ladder | None = None, *, assume_data: bool = False
) -> "StudySpec":
    """Return what the options say of a study; arguments as for `study_of`."""
    from roadmap.study.spec import StudySpec

    return StudySpec(
        base or base_of(options),
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
        assume_data=assume_data or getattr(options, "assume_data", False),
        weights=options.weights,
        runs=options.runs,
    )


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

    Those of a study in rounds are the ones that its rounds gave it. The options also say whether data is assumed
    (`with_data_assumed`).

    Args:
        options: The options.
        file: Which file of a run folder says that there is such a run.
    """
    from roadmap.study.found_seeds import find_seeds

    options = with_data_assumed(options)
    if options.seeds is not None:
        return options
    if found := with_rounds_found(options):
        return found
    seeds = find_seeds(spec_of(options), file)
    return Namespace(**vars(options) | {"seeds": [str(seed) for seed in seeds]}) if seeds else options


def with_data_assumed(options: Namespace) -> Namespace:
    """Return options that take the images to be as the recipe says, where none are named and runs were planned so.

    `downstream` plans them so where backbones start from other weights than those of classifiers.
    """
    from roadmap.study.plan import ASSUMED
    from roadmap.study.spec import plan_study

    if options.data is not None or read_recipe(options.recipe, base_of(options)).dataset != "folder":
        return options
    assumed = Namespace(**vars(options) | {"assume_data": True})
    configs = plan_study(spec_of(assumed)).configs.values()
    keys = {config.key for config in configs if config.data.name == ASSUMED}
    return assumed if run_folder.seeds_with(run_folder.RUN, options.runs, keys) else options


def with_all_seeds_found(options: Namespace) -> Namespace:
    """Return options that name seed 0 and every seed that the study's runs have, whatever its rounds gave it."""
    from roadmap.study.found_seeds import find_seeds
    from roadmap.study.spec import plan_study

    spec = spec_of(options)
    seeds = {0, *(find_seeds(spec) or plan_study(spec).seeds)}
    return Namespace(**vars(options) | {"seeds": [str(seed) for seed in sorted(seeds)]})


def with_rounds_found(options: Namespace) -> Namespace | None:
    """Return options that name the seeds that a study's rounds gave it; None where it has no rounds."""
    from roadmap.study.found_seeds import find_rounds, most_seeds

    rounds = find_rounds(spec_of(options))
    return with_first_seeds(options, most_seeds(rounds)) if rounds else None


def with_first_seeds(options: Namespace, number: int) -> Namespace:
    """Return options for a study in rounds, with so many seeds from 0 up."""
    return Namespace(**vars(options) | {"seeds": [str(seed) for seed in range(max(1, number))], "in_rounds": True})
