from dataclasses import replace
from pathlib import Path

import pytest

from roadmap.common.errors import UserError
from roadmap.ladder.designs import Design
from roadmap.ladder.ladder import find_ladder, read_ladder
from roadmap.ladder.schema import Match
from roadmap.study.spec import StudySpec, plan_study

SPEC = StudySpec("resnet50", "fashion")


def test_a_base_alone_names_the_ladder_that_has_it() -> None:
    study = plan_study(StudySpec("vgg16"))
    assert study.ladder == read_ladder("vgg16")
    assert (study.recipe.name, study.runs, study.seeds) == ("fashion", Path("runs"), study.recipe.seeds)


def test_the_ladder_may_be_named_or_given_or_be_a_path() -> None:
    plans = [plan_study(replace(SPEC, ladder=one)).configs for one in (None, "steps", "steps.yaml", read_ladder())]
    assert plans.count(plans[0]) == 4


def test_only_and_until_choose_rungs_of_the_whole_design() -> None:
    study = plan_study(replace(SPEC, until="stage_ratio", only=["baseline", "stage_ratio"]))
    assert [rung.id for rung in study.rungs] == ["baseline", "stage_ratio"]
    assert len(study.layout.rungs) == 17
    with pytest.raises(UserError, match=r"unknown rung 'gelo'\. Did you mean 'gelu'\?"):
        plan_study(replace(SPEC, only=["gelo"]))


def test_a_matched_ladder_is_counted_as_it_is_trained() -> None:
    study = plan_study(replace(SPEC, match=Match(to="base"), seeds=[0], only=["baseline", "depthwise_conv"]))
    start, depthwise = (run.macs for run in study.planned())
    assert depthwise == pytest.approx(start, rel=0.1)
    assert all(rung.is_matched for rung in study.rungs)


def test_a_ladder_of_techniques_has_those_of_the_recipe() -> None:
    study = plan_study(replace(SPEC, ladder="recipe"))
    assert study.configs == plan_study(replace(SPEC, ladder=find_ladder("recipe").towards("fashion"))).configs
    assert [rung.id for rung in study.rungs] == ["baseline_original", "adamw", "label_smoothing"]


def test_a_design_and_references_are_part_of_the_specification() -> None:
    study = plan_study(replace(SPEC, design=Design("leave-one-out"), references=["resnext50"], seeds=[0]))
    assert study.design == "leave-one-out"
    assert study.rungs[-1].id == "resnext50"


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_seeds_that_are_none_are_refused(seeds: list[int]) -> None:
    with pytest.raises(UserError, match="must be different whole numbers from 0 up"):
        plan_study(replace(SPEC, seeds=seeds))
