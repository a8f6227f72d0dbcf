"""Rounds: a study that gets its seeds a few at a time, where its steps are still open; what was given when.

runs/studies/<study>/ holds a file for each round, numbered: round-0001.json, round-0002.json, ... It says how many of
each rung's first seeds the study has from then on. Making the file of the next number is what starts a round: a file
system, a shared one too, lets only one command succeed, and the others go on with what it chose. When the last run of a
round has ended, the answers are looked at: so the rounds that are over are also the looks, which the rule that judges
them has to know (`analysis.stats.sequential`).

A task on the classifiers, such as segmentation, has rounds and a folder of its own; their files name the task.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from roadmap.common import files
from roadmap.common.provenance import find_commit
from roadmap.runs.config import RunConfig
from roadmap.study.networks import CLASSIFIERS, Networks
from roadmap.study.plan import Study

STUDIES = "studies"  # folder of all studies in rounds, in the runs folder
ROUNDS_VERSION = 1
Counts = Mapping[str, int]  # rung -> how many seeds, the first ones from 0 up


@with_config(ConfigDict(extra="allow"))
class Round(TypedDict):
    """What a round's file holds."""

    rounds_version: Literal[1]
    at: Annotated[str, "when it was chosen"]
    rungs: Annotated[dict[str, str], "rung -> its run with seed 0"]
    steps: Annotated[list[str], "the steps that the seeds are to answer"]
    seeds: Annotated[dict[str, Annotated[int, Field(ge=0)]], "rung -> its seeds with this round, the first ones"]
    task: NotRequired[Annotated[str, "the task whose networks are trained; left out for the classifiers"]]


_ROUND = TypeAdapter(Round)


@dataclass(frozen=True)
class Looks:
    """When answers were looked at while seeds came in.

    Attributes:
        seeds: For each time, how many of each rung's first seeds were there.
        sought: The steps that the seeds were to answer.
    """

    seeds: tuple[Counts, ...]
    sought: frozenset[str]


@dataclass(frozen=True)
class Rounds:
    """The rounds of a study.

    Attributes:
        folder: Where they are written.
        seeds: For each round, the first one first: how many seeds each rung has with it.
        steps: The steps that any of them was to answer.
        networks: What they train.
    """

    folder: Path
    seeds: tuple[Counts, ...] = ()
    steps: frozenset[str] = frozenset()
    networks: Networks = CLASSIFIERS

    @property
    def given(self) -> Counts:
        """How many seeds each rung has with the last round; nothing before the first."""
        return self.seeds[-1] if self.seeds else {}

    def begin(self, study: Study, seeds: Counts, steps: Collection[str]) -> bool:
        """Write the next round; False where another command was faster.

        Args:
            study: The study.
            seeds: How many seeds each rung has with it.
            steps: The steps that they are to answer.

        Raises:
            UserError: If the folder cannot be written.
        """
        about = {
            "rounds_version": ROUNDS_VERSION,
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "commit": find_commit(),
            "rungs": first_runs(study),
            **({"task": self.networks.name} if self.networks.name else {}),
        }
        for number, before in enumerate(self.seeds, 1):  # those of a larger study, of which this one is a part
            _write(self.folder, number, about | {"steps": sorted(self.steps), "seeds": dict(before)})
        return _write(self.folder, len(self.seeds) + 1, about | {"steps": sorted(steps), "seeds": dict(seeds)})


def _write(folder: Path, number: int, content: dict[str, Any]) -> bool:
    return files.write_json_once(folder / _name(number), content)


def _name(number: int) -> str:
    return f"round-{number:04d}.json"


def first_runs(study: Study) -> dict[str, str]:
    """Return the name of each rung's run with seed 0, which stands for all of them."""
    return {rung.id: config_of(study, rung.id, 0).id for rung in study.rungs}


def config_of(study: Study, rung: str, seed: int) -> RunConfig:
    """Return the run of a rung and any seed, whether the study has that seed or not."""
    config = study.configs.get((rung, seed))
    return config or study.configs[rung, study.seeds_of(rung)[0]].with_seed(seed)


def first_seeds(study: Study, rung: str, is_there: Callable[[Path], bool], start: int = 0) -> int:
    """Return up to which seed from a first one on something holds of all of a rung's run folders."""
    while is_there(study.folder(config_of(study, rung, start))):
        start += 1
    return start


def folder_of(study: Study, networks: Networks = CLASSIFIERS) -> Path:
    """Return where a study's rounds are: the same for all that compare the same networks under the same training."""
    runs = first_runs(study)
    changes = [[runs[rung.id], runs.get(rung.parent or "")] for rung in study.rungs]
    content = [networks.name, changes] if networks.name else changes
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    return study.runs / STUDIES / name


def read_rounds(study: Study, networks: Networks = CLASSIFIERS) -> Rounds:
    """Return the rounds of a study; none where it never had any.

    A part of a ladder that had rounds as a whole has the whole one's: its steps were looked at with the others. Of a
    task, the rounds of all studies with some of the same classifiers count, so that no number of seeds that was chosen
    by what was seen is taken for one that was fixed.

    Raises:
        UserError: If a file is there and cannot be read.
    """
    folder, mine = folder_of(study, networks), first_runs(study)
    if found := _read(folder):
        steps = frozenset(step for one in found for step in one["steps"])
        return Rounds(folder, tuple(one["seeds"] for one in found), steps, networks)
    others = [found for other in sorted((study.runs / STUDIES).glob("*")) if (found := _read(other))]
    others = [found for found in others if found[0].get("task", "") == networks.name]
    if networks == CLASSIFIERS:
        whole = [found for found in others if set(mine.values()) <= set(found[0]["rungs"].values())]
        others = [max(whole, key=len)] if whole else []
    else:
        others = [found for found in others if set(mine.values()) & set(found[0]["rungs"].values())]
    if not others:
        return Rounds(folder, networks=networks)
    given = {rung: _given(run, others) for rung, run in mine.items()}
    there = {rung: first_seeds(study, rung, networks.is_done) for rung in mine if not given[rung]}
    seeds = [
        {rung: there[rung] if rung in there else given[rung][min(look, len(given[rung]) - 1)] for rung in mine}
        for look in range(max(map(len, others)))
    ]
    steps = frozenset(rung.id for rung in study.rungs if rung.parent in mine)
    return Rounds(folder, tuple(seeds), steps, networks)


def _given(run: str, others: list[list[Round]]) -> list[int]:
    """Return how many seeds a rung had with each round of others, the most of any; nothing where it was in none.

    Args:
        run: The rung's run with seed 0.
        others: The rounds of other studies.
    """
    counts: list[list[int]] = []
    for found in others:
        names = {other: rung for rung, other in found[0]["rungs"].items()}
        counts += [[one["seeds"].get(names[run], 0) for one in found]] if run in names else []
    looks = range(max(map(len, counts), default=0))
    return [max(some[min(look, len(some) - 1)] for some in counts) for look in looks]


def _read(folder: Path) -> list[Round]:
    """Return the rounds in a folder, up to the first that is missing or damaged."""
    found: list[Round] = []
    while (one := files.read_as(folder / _name(len(found) + 1), _ROUND)) is not None:
        found.append(one)
    return found


def in_rounds(study: Study, rounds: Rounds) -> Study:
    """Return a study with the seeds of its rounds, and with the looks of those that are over.

    Args:
        study: The study; of its rounds it need not have all seeds.
        rounds: Its rounds, of which there is one at least.
    """
    counts = {rung.id: max(1, rounds.given.get(rung.id, 0)) for rung in study.rungs}
    configs = {(rung, seed): config_of(study, rung, seed) for rung, n in counts.items() for seed in range(n)}
    whole = replace(study, seeds=tuple(range(max(counts.values()))), configs=configs)
    over = takewhile(lambda seeds: not unfinished(whole, seeds, rounds.networks), rounds.seeds)
    return replace(whole, looks=tuple(over), sought=rounds.steps)


def unfinished(study: Study, seeds: Counts, networks: Networks = CLASSIFIERS) -> list[RunConfig]:
    """Return the runs up to a round of which it is not known yet what came of them; of one that failed it is."""
    return [
        config
        for (rung, seed), config in study.configs.items()
        if seed < seeds.get(rung, 0) and networks.outcome(study.folder(config)) is None
    ]
