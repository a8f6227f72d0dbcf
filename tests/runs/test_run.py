import dataclasses
import json
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from roadmap.common.errors import UserError
from roadmap.common.paths import RECIPES
from roadmap.ladder.ladder import find_ladder, read_ladder
from roadmap.networks.families import BASES
from roadmap.recipe import read_recipe
from roadmap.runs.config import DataConfig, RunConfig
from roadmap.study.plan import Study
from roadmap.study.spec import StudySpec, plan_study
from tests.processes import fork
from tests.samples import make_recipe

CONFIG = RunConfig(BASES["resnet50"], make_recipe(), DataConfig("some", "0123", 10, 1, 1000), 0)
# What a recipe says about itself and about how a study uses it: a change there is no other run.
DESCRIPTIVE = {
    "name",
    "about",
    "plain",
    "paper",
    "means_nothing",
    "needs_test",
    "images",
    "classes",
    "seeds",
    "budget",
    "width_divisor",
    "stem_stride",
    "for_base",
}


def changed(config: Any, field: str, value: Any) -> Any:
    """Return a copy with one field of any value, legal or not."""
    other = copy(config)
    object.__setattr__(other, field, value)
    for known in ("key", "id"):  # of the original
        other.__dict__.pop(known, None)
    return other


def names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


@pytest.mark.parametrize("field", names(CONFIG.net))
def test_another_network_is_another_run(field: str) -> None:
    assert changed(CONFIG, "net", changed(CONFIG.net, field, "other")).key != CONFIG.key


@pytest.mark.parametrize("field", names(CONFIG.net.block))
def test_another_block_is_another_run(field: str) -> None:
    block = changed(CONFIG.net.block, field, "other")
    assert changed(CONFIG, "net", changed(CONFIG.net, "block", block)).key != CONFIG.key


@pytest.mark.parametrize("field", names(CONFIG.recipe))
def test_another_setting_of_training_is_another_run_and_another_description_is_not(field: str) -> None:
    other = changed(CONFIG, "recipe", changed(CONFIG.recipe, field, "other"))
    assert (other.key == CONFIG.key) == (field in DESCRIPTIVE)


@pytest.mark.parametrize("field", names(CONFIG.data))
def test_other_data_is_another_run(field: str) -> None:
    assert changed(CONFIG, "data", changed(CONFIG.data, field, "other")).key != CONFIG.key


def test_a_seed_is_a_run_of_its_own_under_the_same_key() -> None:
    other = dataclasses.replace(CONFIG, seed=1)
    assert other.key == CONFIG.key
    assert (CONFIG.id, other.id) == (f"{CONFIG.key}-s0", f"{CONFIG.key}-s1")


def test_code_that_trains_otherwise_gives_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CONFIG.key
    monkeypatch.setattr("roadmap.runs.config.TRAINING_VERSION", -1)
    assert dataclasses.replace(CONFIG).key != before


def test_the_id_is_the_same_in_another_process(tmp_path: Path) -> None:
    fork(_write_id, CONFIG.to_json(), tmp_path / "id").join()
    assert (tmp_path / "id").read_text() == CONFIG.id


def _write_id(content: dict[str, Any], path: Path) -> None:
    path.write_text(RunConfig.from_json(content).id)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_run_comes_back_from_json_as_it_was(recipe: str, base: str) -> None:
    target = read_recipe(recipe, base)
    for rung in find_ladder(None, base).climb(base):
        config = RunConfig(rung.net, rung.recipe(target, base), CONFIG.data, 3)
        again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
        assert again == config
        assert again.id == config.id


def test_a_run_of_another_version_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"training_version is 0, but this program trains version \d+\. Start the run again"
    ):
        RunConfig.from_json(CONFIG.to_json() | {"training_version": 0})


def test_steps_and_images_leave_out_the_last_incomplete_batch() -> None:
    config = dataclasses.replace(CONFIG, recipe=make_recipe(batch_size=300, epochs=2))
    assert config.steps_per_epoch == 3
    assert config.images_seen == 1800


def test_a_batch_larger_than_the_training_part_is_refused() -> None:
    CONFIG.check()
    with pytest.raises(UserError, match="batch_size is 1001, but 'some' has only 1000 training images"):
        dataclasses.replace(CONFIG, recipe=make_recipe(batch_size=1001)).check()


# -- runs that rungs share

MEETING = """\
bases: {resnet50: {label: ResNet-50, result: End}}
rungs:
  - {id: start, label: start}
  - {id: gelu, label: GELU, step: gelu}
  - {id: both, label: both, step: kernel_size, args: {size: 5}}
  - {id: kernel, label: kernel, step: kernel_size, args: {size: 5}, from: start, adopted: false}
  - {id: both_again, label: both in the other order, step: gelu, from: kernel, adopted: false}
"""
OTHER = """\
bases: {resnet50: {label: ResNet-50, result: End}}
rungs:
  - {id: begin, label: begin}
  - {id: five, label: five, step: kernel_size, args: {size: 5}}
"""


def study(tmp_path: Path, ladder: str, recipe: Path, data: Path) -> Study:
    steps = tmp_path / "steps.yaml"
    steps.write_text(ladder)
    return plan_study(
        StudySpec("resnet50", str(recipe), read_ladder(steps), runs=tmp_path, seeds=(0, 1), data_root=data)
    )


def test_rungs_that_meet_in_one_network_share_its_runs(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    planned = study(tmp_path, MEETING, write_recipes(), small_images).planned()
    assert [(run.rungs, run.config.seed) for run in planned] == [
        (rungs, seed) for seed in (0, 1) for rungs in (("start",), ("gelu",), ("both", "both_again"), ("kernel",))
    ]


def test_two_ladders_share_the_runs_in_which_they_meet(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    recipe = write_recipes()
    ids = [
        {run.rungs[0]: run.config.id for run in study(tmp_path, ladder, recipe, small_images).planned()}
        for ladder in (MEETING, OTHER)
    ]
    assert (ids[0]["start"], ids[0]["kernel"]) == (ids[1]["begin"], ids[1]["five"])


def test_a_changed_plain_counterpart_touches_the_start_alone(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    before, after = (
        {run.rungs: run.config.id for run in _paper_study(tmp_path, write_recipes(plain=plain), small_images).planned()}
        for plain in ({}, {"lr": 0.025})
    )
    assert before.keys() == after.keys()
    assert [rungs for rungs in before if before[rungs] != after[rungs]] == [("baseline_original",)]


def test_new_words_about_a_recipe_touch_no_run(
    tmp_path: Path, write_recipes: Callable[..., Path], small_images: Path
) -> None:
    before, after = (
        [run.config.id for run in _paper_study(tmp_path, write_recipes(about=about), small_images).planned()]
        for about in ("one thing", "another")
    )
    assert before == after


def _paper_study(tmp_path: Path, recipe: Path, data: Path) -> Study:
    return plan_study(StudySpec("resnet50", str(recipe), read_ladder(), runs=tmp_path, data_root=data))
