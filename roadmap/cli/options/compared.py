"""The studies that `compare --with` names: what a word means, and what that study brings."""

import re
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.options.reports import with_rungs_before
from roadmap.cli.options.studies import base_of, ladder_of, study_of, with_seeds_found
from roadmap.cli.options.values import margin_of, test_of
from roadmap.common.errors import UserError, unknown
from roadmap.common.paths import RECIPES
from roadmap.ladder.ladder import find_ladder, known_ladders, read_ladder

if TYPE_CHECKING:
    from analysis.comparison.sides import Side

PAPER = "paper"
RECORD = "record.json"
# What a word may change of the study that the other options name: option -> what it is called.
ASPECTS = {"base": "a base", "recipe": "a recipe", "steps": "a ladder", "runs": "a folder of runs"}
PATHS = "a recipe, a ladder, a folder of runs, a record or a CSV file of results"


def compared_sides(options: Namespace) -> "tuple[Side, list[Side]]":
    """Return the study that the options name, and those that `--with` names.

    Raises:
        UserError: If a word is none of what it may be, or a study cannot be read.
    """
    from analysis.comparison.sides import side_of_paper, side_of_record, side_of_study
    from analysis.report.record import read_record
    from analysis.report.record_results import RecordResults
    from analysis.study_results import StudyResults

    rule: dict[str, Any] = {"margin": margin_of(options), "test": test_of(options)}
    if options.record and options.published:
        raise UserError("--published: goes with the paper's ladder, not with --record. Leave one of the two out.")
    if options.record:
        record = read_record(options.record)
        options = Namespace(**vars(options) | {"base": options.base or str(record.about["base"])})
    words = {word: _changes(word, options) for word in vars(options)["with"]}
    if options.record:
        here = side_of_record(RecordResults(record, **rule), Path(options.record).resolve().name)
    elif options.published:
        name = _name(options, ("base",)) if any(isinstance(change, dict) for change in words.values()) else "the paper"
        here = side_of_paper(ladder_of(options), base_of(options), name, **rule)
    else:
        changed = {aspect for change in words.values() if isinstance(change, dict) for aspect in change}
        study = study_of(with_rungs_before(with_seeds_found(options)))
        here = side_of_study(StudyResults(study, **rule), _name(options, changed or ("base", "recipe")))
    return here, [_side(word, change, options, here) for word, change in words.items()]


def _side(word: str, change: "dict[str, Any] | str | Path", options: Namespace, here: "Side") -> "Side":
    """Return what the study of a word brings."""
    from analysis.comparison.sides import side_of_frame, side_of_paper, side_of_record, side_of_study
    from analysis.frame_results import FrameResults
    from analysis.report.record import read_record
    from analysis.report.record_results import RecordResults
    from analysis.results_file import read_results
    from analysis.study_results import StudyResults

    rule: dict[str, Any] = {"margin": margin_of(options), "test": test_of(options)}
    if isinstance(change, dict):
        other = Namespace(**vars(options) | change)
        if options.published and change.keys() == {"base"}:
            return side_of_paper(ladder_of(other), base_of(other), _name(other, change), **rule)
        study = study_of(with_rungs_before(with_seeds_found(other)))
        return side_of_study(StudyResults(study, **rule), _name(other, change))
    if change == PAPER:
        return side_of_paper(_paper_ladder(options), base_of(options), **rule)
    path = Path(change)
    if path.is_dir():
        return side_of_record(RecordResults(read_record(path), **rule), path.resolve().name)
    name = path.resolve().parent.name if path.stem == "results" else path.stem
    return side_of_frame(FrameResults(runs=read_results(path), **rule), name, here.pairs)


def _paper_ladder(options: Namespace) -> Any:
    """Return the ladder whose steps the paper has: the one that is climbed, or the paper's own from the same base."""
    ladder = ladder_of(options)
    if any(rung.paper.top1 is not None for rung in ladder.climb(base_of(options))):
        return ladder
    paper = read_ladder()
    if base_of(options) not in paper.bases:
        raise UserError(
            f"--with {PAPER}: nothing is published of a ladder from {base_of(options)}. The paper has ladders from "
            f"{' and '.join(paper.bases)}."
        )
    return paper


def _changes(word: str, options: Namespace) -> "dict[str, Any] | str | Path":
    """Return what a word changes of the study, or which other numbers it names: the paper's, a record's, a file's.

    Several changes stand in one word with commas between: `vgg16,fashion_full`. A path is a path where the name of a
    base, recipe or ladder would be the same: `./vgg16`.
    """
    if word in (PAPER, "published"):
        return PAPER
    path = Path(word)
    if word.endswith(".csv"):
        return path
    if (path / RECORD).is_file():
        return path
    parts = [word] if path.exists() else word.split(",")
    changes: dict[str, Any] = {}
    for part in parts:
        aspect, value = _aspect(part, options)
        if aspect in changes:
            raise UserError(f"--with {word}: '{changes[aspect]}' and '{part}' are both {ASPECTS[aspect]}. Keep one.")
        changes[aspect] = value
    steps, base = changes.get("steps"), changes.get("base", options.base)
    if steps and "base" not in changes and base not in (bases := read_ladder(steps).bases):
        if len(bases) > 1:
            raise UserError(f"--with {word}: the ladder has no base {base}. Say which: {word},{next(iter(bases))}.")
        changes["base"] = next(iter(bases))
    if "base" in changes and not steps and options.steps and base not in find_ladder(options.steps).bases:
        changes["steps"] = None  # the shipped ladder that has it
    return changes


def _aspect(part: str, options: Namespace) -> tuple[str, Any]:
    """Return which option a part of a word is the value of, and the value."""
    ladders = known_ladders()
    bases = {
        base for name in [*ladders, *([options.steps] if options.steps else [])] for base in find_ladder(name).bases
    }
    recipes = {path.stem for path in RECIPES.glob("*.yaml")}
    for aspect, known in (("base", bases), ("recipe", recipes), ("steps", set(ladders))):
        if part in known:
            return aspect, part
    path = Path(part)
    if path.is_dir():
        return "runs", path
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return ("steps" if re.search(r"^rungs\s*:", path.read_text(errors="replace"), re.MULTILINE) else "recipe"), part
    named = unknown("study", part, [PAPER, *sorted(bases), *sorted(recipes), *ladders], place="--with")
    raise UserError(f"{named} Or the path of {PATHS}.")


def _name(options: Namespace, aspects: Iterable[str]) -> str:
    """Return what a study is called where these are what distinguishes it."""
    values = {aspect: getattr(options, aspect) for aspect in ASPECTS if aspect in aspects}
    if "base" in values and not values.get("steps"):
        values.pop("steps", None)  # the base says it
    return ", ".join(
        str(value) if aspect == "runs" else Path(value or "steps").stem for aspect, value in values.items()
    )


def out_of_comparison(options: Namespace, here: "Side", others: "Iterable[Side]") -> Path:
    """Return where the files of a comparison go."""
    words = [here.name, "with", *(other.name for other in others)]
    slug = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", word).strip("-.") for word in words)
    return options.out or Path("out") / slug
