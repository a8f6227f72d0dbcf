"""The files of a study's rounds: who begins one, what a study is with them, and what others see."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import pytest

from roadmap.common import files
from roadmap.runs import run_folder
from roadmap.study.plan import Study
from roadmap.study.rounds import folder_of, in_rounds, read_rounds, unfinished
from roadmap.study.spec import StudySpec, plan_study

Plan = Callable[..., Study]
RUNGS = ["baseline", "stage_ratio", "patchify_stem"]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    def start(*rungs: str, recipe: str = "smoke") -> Study:
        return plan_study(StudySpec("resnet50", recipe, only=rungs or RUNGS, seeds=range(4), runs=tmp_path))

    return start


def finish(study: Study, rung: str, seed: int, state: str = "finished") -> None:
    row = dict.fromkeys(run_folder.COLUMNS) | {"result_version": 1, "state": state, "top1": 70.0 + seed}
    files.write_json(study.folder(study.configs[rung, seed]) / run_folder.RESULT, row)


def begin(study: Study, *seeds: int, steps: tuple[str, ...] = ("stage_ratio",)) -> bool:
    return read_rounds(study).begin(study, dict(zip(RUNGS, seeds, strict=True)), steps)


def test_a_study_has_the_seeds_of_its_rounds_and_the_looks_of_those_that_are_over(plan: Plan) -> None:
    study = plan()
    assert read_rounds(study).seeds == ()
    begin(study, 2, 2, 2)
    begin(study, 2, 3, 2, steps=("patchify_stem",))
    now = in_rounds(study, read_rounds(study))
    assert {rung: now.seeds_of(rung) for rung in RUNGS} == {RUNGS[0]: (0, 1), RUNGS[1]: (0, 1, 2), RUNGS[2]: (0, 1)}
    assert len(now.planned()) == 7
    assert now.sought == {"stage_ratio", "patchify_stem"}
    assert "2 to 3 seeds" in now.describe()
    assert now.looks == ()
    for rung in RUNGS:
        finish(study, rung, 0)
        finish(study, rung, 1, "failed")  # has ended, whatever came of it
    now = in_rounds(study, read_rounds(study))
    assert now.looks == (dict.fromkeys(RUNGS, 2),)
    assert [config.seed for config in unfinished(now, read_rounds(study).seeds[-1])] == [2]
    finish(study, "stage_ratio", 2)
    assert len(in_rounds(study, read_rounds(study)).looks) == 2


def test_of_commands_at_once_one_begins_the_round_and_the_others_find_it(plan: Plan) -> None:
    study, barrier, won = plan(), Barrier(8), []
    rounds = read_rounds(study)

    def start(number: int) -> None:
        barrier.wait()
        won.extend([number] * rounds.begin(study, dict.fromkeys(RUNGS, number), ["stage_ratio"]))

    threads = [Thread(target=start, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert read_rounds(study).seeds == (dict.fromkeys(RUNGS, won[0]),)
    assert [path.name for path in folder_of(study).iterdir()] == ["round-0001.json"]


def test_a_damaged_round_is_none_and_no_other_takes_its_place(plan: Plan) -> None:
    study = plan()
    begin(study, 2, 2, 2)
    begin(study, 3, 3, 3)
    (folder_of(study) / "round-0002.json").write_text("{")
    assert len(read_rounds(study).seeds) == 1
    assert not begin(study, 4, 4, 4)


def test_a_part_of_a_ladder_pays_for_the_looks_at_the_whole(plan: Plan) -> None:
    whole, part = plan(), plan("baseline", "stage_ratio")
    begin(whole, 2, 2, 2)
    begin(whole, 2, 3, 4)
    rounds = read_rounds(part)
    assert rounds.seeds == ({"baseline": 2, "stage_ratio": 2}, {"baseline": 2, "stage_ratio": 3})
    assert rounds.begin(part, {"baseline": 3, "stage_ratio": 4}, ["stage_ratio"])
    assert [one["stage_ratio"] for one in read_rounds(part).seeds] == [2, 3, 4]
    assert len(read_rounds(whole).seeds) == 2


def test_a_part_of_a_ladder_has_the_steps_of_which_it_has_both_rungs(plan: Plan) -> None:
    begin(plan(), 2, 2, 2)
    assert read_rounds(plan("stage_ratio", "patchify_stem")).steps == {"patchify_stem"}


def test_other_training_is_another_study(plan: Plan) -> None:
    study = plan()
    begin(study, 2, 2, 2)
    assert read_rounds(plan(recipe="fashion")).seeds == ()
    assert folder_of(replace(study, rungs=study.rungs[:2])) != folder_of(study)
