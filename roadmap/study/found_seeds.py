"""The seeds that a study's runs have: the recipe's, those that were added later, those of its rounds."""

from dataclasses import replace
from pathlib import Path

from roadmap.common.errors import UserError
from roadmap.runs import run_folder
from roadmap.study.plan import Study
from roadmap.study.rounds import STUDIES, Rounds, in_rounds, read_rounds
from roadmap.study.spec import StudySpec, plan_study


def plan_found(spec: StudySpec) -> Study:
    """Plan a study with the seeds that it has: where none are named, the recipe's and all others with a result.

    A study in rounds has the seeds that its rounds gave it.

    Raises:
        UserError: As for `plan_study`.
    """
    if spec.seeds is not None:
        return plan_study(spec)
    if rounds := find_rounds(spec):
        return in_rounds(plan_study(replace(spec, seeds=range(most_seeds(rounds)))), rounds)
    return plan_study(replace(spec, seeds=find_seeds(spec) or None))


def find_seeds(spec: StudySpec, file: str = run_folder.RESULT) -> tuple[int, ...]:
    """Return a recipe's seeds and all others that a study's runs have; nothing where they have no others.

    Args:
        spec: The study, which names no seeds.
        file: Which file of a run folder says that there is such a run. What was measured of a network that is not
            trained, as a backbone from other weights, says so too.
    """
    study = plan_study(spec)
    keys = {config.key for config in study.configs.values()}
    found = (run_folder.seeds_with(name, study.runs, keys) for name in (file, *run_folder.RESULTS))
    more = set().union(*found) - set(study.seeds)
    if not more:
        return ()
    seeds = (*study.seeds, *sorted(more))
    if any(config.weights for config in study.configs.values()):
        try:
            plan_study(replace(spec, seeds=seeds))
        except UserError:  # those seeds started from weights that are elsewhere: they are another study's
            return ()
    return seeds


def find_rounds(spec: StudySpec) -> Rounds | None:
    """Return a study's rounds; None where it has none."""
    if not (Path(spec.runs) / STUDIES).is_dir():
        return None
    try:
        rounds = read_rounds(plan_study(replace(spec, seeds=(0,))))
    except UserError:  # seed 0 has no weights to start from, which a study in rounds begins with
        return None
    return rounds if rounds.seeds else None


def most_seeds(rounds: Rounds) -> int:
    """Return how many seeds the rung has that its rounds gave most."""
    return max(1, *rounds.seeds[-1].values())
